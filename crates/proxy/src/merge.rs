//! Commands that concern several shards: how they are taken apart, and how the shards' replies become
//! one. No I/O; the worker sends the parts and keeps the replies.
//!
//! | file | what |
//! |---|---|
//! | [`split`](mod@split) | commands with keys on several shards |
//! | [`everywhere`] | commands without keys |
//! | [`scan`] | the cursor that says which shard is being scanned |
//! | [`combine`] | the replies become one |
//! | [`info`], [`latency`], [`memory`] | replies that are put together field by field |
//! | [`walk`] | where the elements of a reply are |
//!
//! `docs/several-shards.md` says what happens to which command.

mod combine;
mod everywhere;
mod info;
mod latency;
mod memory;
mod scan;
mod split;
pub(crate) mod walk;

#[cfg(test)]
mod tests;

pub(crate) use everywhere::{REFUSED, keyless};
pub(crate) use split::split;
pub(crate) use walk::items;

/// One part of a command that goes to one shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    /// The shard.
    pub(crate) shard: u16,
    /// The command that it gets.
    pub(crate) frame: Vec<u8>,
}

/// What a command that touches several shards becomes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Plan {
    /// Each part goes to its shard, at most one to each, in the order of the shards.
    Parts(Vec<Part>, Merge),
    /// The same frame goes to every shard.
    Everywhere(Merge),
    /// The same frame goes to any one shard.
    Anywhere,
    /// The proxy answers with this.
    Refuse(Vec<u8>),
}

/// How the replies of the shards become one. If nothing else is said, the first error is the reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Merge {
    /// All must be the same.
    Same,
    /// The first that is no error; if there is none, the first error (`NOTBUSY` only if all say it).
    AnySuccess,
    /// The sum of numbers.
    Sum,
    /// The least number.
    Minimum,
    /// Arrays of numbers of the same length: the least at each place.
    Minima,
    /// Arrays of values: for each part, at which places of the whole array its values belong.
    Values(Vec<Vec<u32>>),
    /// Arrays: one after the other.
    Concatenation,
    /// Arrays: every element once.
    Union,
    /// Names and numbers in turn: the sum for each name.
    Counts,
    /// One of those that are not null, at random.
    AnyKey,
    /// Entries of a log: the newest first, so many of them (`None`: all).
    Newest(Option<usize>),
    /// A step of a scan of this shard, of so many.
    Scan {
        /// The shard that was asked.
        shard: u16,
        /// How many there are.
        shards: u16,
    },
    /// Texts: one after the other, each under the number of its shard.
    Texts,
    /// `INFO`.
    Info,
    /// `CONFIG GET`.
    Config,
    /// `MEMORY STATS`.
    MemoryStats,
    /// `FUNCTION STATS`: that of a shard where a function runs.
    Running,
    /// `LATENCY LATEST`.
    LatencyLatest,
    /// `LATENCY HISTORY`.
    LatencyHistory,
}
