//! One command: what the engines say about it, and what the platform adds.

use super::Class;
use super::fold::{Folded, fold};

/// What the engines know about a command or a subcommand.
#[derive(Debug)]
pub struct Command {
    /// Its name in capitals; of a subcommand its own name, without the container's.
    pub name: &'static str,
    /// How many arguments it has, its name and its container's included; negative: at least that
    /// many. Where the engines differ, what the most lenient of them takes.
    pub arity: i16,
    /// Flags of `COMMAND`.
    pub flags: Flags,
    /// Where its keys are.
    pub keys: KeyRule,
    /// What is special about it; of a subcommand always [`Class::Plain`].
    pub class: Class,
    /// Which engines have it.
    pub known: Engines,
    /// To which shards it goes if no key says so.
    pub request: RequestPolicy,
    /// How the replies of several shards become one.
    pub response: ResponsePolicy,
    /// Its subcommands, in the order of their names.
    pub subcommands: &'static [Command],
    pub(super) folded: Folded,
}

impl Command {
    /// Whether a command of that many arguments, its name included, may be this one.
    #[must_use]
    pub fn takes(&self, arguments: u64) -> bool {
        let least = u64::from(self.arity.unsigned_abs());
        if self.arity < 0 {
            arguments >= least
        } else {
            arguments == least
        }
    }

    /// Finds a subcommand; case is ignored.
    #[must_use]
    pub fn subcommand(&self, name: &[u8]) -> Option<&'static Self> {
        self.subcommands
            .iter()
            .find(|sub| sub.name.as_bytes().eq_ignore_ascii_case(name))
    }
}

/// Flags of a command, as the engine's `COMMAND` names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flags(pub(super) u32);

impl Flags {
    /// It may change data.
    pub const WRITE: Self = Self(flag::WRITE);
    /// It changes no data.
    pub const READONLY: Self = Self(flag::READONLY);
    /// It is refused when the engine is out of memory.
    pub const DENYOOM: Self = Self(flag::DENYOOM);
    /// It is for administrators.
    pub const ADMIN: Self = Self(flag::ADMIN);
    /// It may block its connection.
    pub const BLOCKING: Self = Self(flag::BLOCKING);
    /// It is not allowed inside a transaction.
    pub const NO_MULTI: Self = Self(flag::NO_MULTI);
    /// It is not allowed in scripts.
    pub const NOSCRIPT: Self = Self(flag::NOSCRIPT);
    /// It is about channels.
    pub const PUBSUB: Self = Self(flag::PUBSUB);
    /// It is answered while the engine loads its data.
    pub const LOADING: Self = Self(flag::LOADING);
    /// It is answered by a replica that has lost its primary.
    pub const STALE: Self = Self(flag::STALE);
    /// It is answered while a script runs for too long.
    pub const ALLOW_BUSY: Self = Self(flag::ALLOW_BUSY);
    /// It needs no password.
    pub const NO_AUTH: Self = Self(flag::NO_AUTH);

    /// Whether all of `others` are set.
    #[must_use]
    pub fn has(self, others: Self) -> bool {
        self.0 & others.0 == others.0
    }
}

/// The flags as the rows of the table write them.
pub(super) mod flag {
    pub(in super::super) const WRITE: u32 = 1;
    pub(in super::super) const READONLY: u32 = 1 << 1;
    pub(in super::super) const DENYOOM: u32 = 1 << 2;
    pub(in super::super) const ADMIN: u32 = 1 << 3;
    pub(in super::super) const PUBSUB: u32 = 1 << 4;
    pub(in super::super) const NOSCRIPT: u32 = 1 << 5;
    pub(in super::super) const BLOCKING: u32 = 1 << 6;
    pub(in super::super) const LOADING: u32 = 1 << 7;
    pub(in super::super) const STALE: u32 = 1 << 8;
    pub(in super::super) const SKIP_MONITOR: u32 = 1 << 9;
    pub(in super::super) const ASKING: u32 = 1 << 10;
    pub(in super::super) const FAST: u32 = 1 << 11;
    pub(in super::super) const NO_AUTH: u32 = 1 << 12;
    pub(in super::super) const NO_MANDATORY_KEYS: u32 = 1 << 13;
    pub(in super::super) const NO_ASYNC_LOADING: u32 = 1 << 14;
    pub(in super::super) const NO_MULTI: u32 = 1 << 15;
    pub(in super::super) const ALLOW_BUSY: u32 = 1 << 16;
    pub(in super::super) const MOVABLEKEYS: u32 = 1 << 17;
    pub(in super::super) const SKIP_COMMANDLOG: u32 = 1 << 18;
}

/// Where a command's keys are. Positions count from the name, which is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyRule {
    /// It has none.
    Keyless,
    /// From the first position to the last, in steps; a negative last one counts from the end,
    /// -1 being the last argument.
    Range(u8, i8, u8),
    /// Shard channels at such positions (without steps): they are no keys, but have slots.
    Channels(u8, i8),
    /// A count at this position, and that many keys from the next position on, in steps.
    Counted(u8, u8),
    /// The same, and another key at position 1.
    StoredCounted(u8, u8),
    /// The first half of what follows `STREAMS`.
    Streams,
    /// Position 1, and what follows the last `STORE` or `STOREDIST` from this position on.
    Geo(u8),
    /// Position 1, and what follows the last `STORE`; patterns after `BY` and `GET` reach more.
    Sort,
    /// The same without `STORE`.
    SortReadOnly,
    /// Position 3, or if that is empty all that follows `KEYS`.
    Migrate,
    /// The two that follow `KEYS`.
    Stralgo,
}

/// The engines that have a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Engines(pub(super) u8);

impl Engines {
    /// Whether this engine has it. `None`: the table was not read from this engine nor from one of
    /// its minor version.
    #[must_use]
    pub fn has(self, engine: &str) -> Option<bool> {
        let at = super::ENGINES
            .iter()
            .position(|known| minor(known) == minor(engine))?;
        Some(self.0 & (1 << at) != 0)
    }
}

/// `valkey-9.1` of `valkey-9.1.2`.
fn minor(engine: &str) -> &str {
    engine.rsplit_once('.').map_or(engine, |(minor, _)| minor)
}

/// To which shards a command goes if no key says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestPolicy {
    /// To that of its keys; without keys to any.
    Default,
    /// To every engine, replicas too.
    AllNodes,
    /// To every primary.
    AllShards,
    /// To every shard that has some of the keys, each with its own.
    MultiShard,
    /// As only this command does it.
    Special,
}

/// How the replies of several shards become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponsePolicy {
    /// Without keys all items of the replies in any order; with keys in their order.
    Default,
    /// The first success; an error if there is none.
    OneSucceeded,
    /// Success if all succeeded, else an error.
    AllSucceeded,
    /// Of each item, whether all replies have 1.
    AggLogicalAnd,
    /// Of each item, whether any reply has 1.
    AggLogicalOr,
    /// The least.
    AggMin,
    /// The greatest.
    AggMax,
    /// The sum.
    AggSum,
    /// As only this command does it.
    Special,
}

/// A row of the table.
pub(super) const fn command(name: &'static str, arity: i16, flags: u32) -> Command {
    Command {
        class: super::class_of(name.as_bytes()),
        folded: fold(name.as_bytes()),
        ..sub(name, arity, flags)
    }
}

/// A subcommand's row.
pub(super) const fn sub(name: &'static str, arity: i16, flags: u32) -> Command {
    Command {
        name,
        arity,
        flags: Flags(flags),
        keys: KeyRule::Keyless,
        class: Class::Plain,
        known: Engines(u8::MAX),
        request: RequestPolicy::Default,
        response: ResponsePolicy::Default,
        subcommands: &[],
        folded: Folded::NOTHING,
    }
}

impl Command {
    pub(super) const fn keys(self, keys: KeyRule) -> Self {
        Self { keys, ..self }
    }

    /// The engines that have it, bit 0 being the first of the list.
    pub(super) const fn known(self, engines: u8) -> Self {
        Self {
            known: Engines(engines),
            ..self
        }
    }

    pub(super) const fn to(self, request: RequestPolicy) -> Self {
        Self { request, ..self }
    }

    pub(super) const fn reply(self, response: ResponsePolicy) -> Self {
        Self { response, ..self }
    }

    pub(super) const fn subs(self, subcommands: &'static [Self]) -> Self {
        Self {
            subcommands,
            ..self
        }
    }
}
