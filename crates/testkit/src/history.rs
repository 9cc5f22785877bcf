//! What clients saw and what is there in the end: appends to lists, each value once. A list shows what
//! a plain key hides: a value that is lost, one that is there twice, and two lineages that were
//! written to at the same time. [`check`](History::check) judges it; it knows nothing of processes.

mod check;
#[cfg(test)]
mod tests;

pub use check::{Finding, Rule, Verdict};

use std::collections::BTreeMap;
use std::fmt;

/// Microseconds since the history began.
pub type Micros = u64;

/// A value that is written once: the client and its number there.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Value {
    /// Who wrote it.
    pub client: u16,
    /// Counts the client's values, from 1.
    pub number: u64,
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.client, self.number)
    }
}

impl Value {
    /// Reads what `Display` writes.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (client, number) = text.split_once(':')?;
        Some(Self {
            client: client.parse().ok()?,
            number: number.parse().ok()?,
        })
    }
}

/// How an append ended, for its client.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// Acknowledged: the list had this length then.
    Acknowledged(u64),
    /// An error that says that it did not run.
    NotRun(String),
    /// An error that says that nobody knows whether it ran.
    Unknown(String),
    /// An error that is neither.
    Odd(String),
    /// The connection ended before the answer.
    Closed(String),
    /// No answer in the client's patience.
    Silent,
    /// Bytes that nobody asked for.
    Stray(String),
}

/// One append.
#[derive(Clone, Debug)]
pub struct Append {
    /// To which list.
    pub list: u16,
    /// What.
    pub value: Value,
    /// Through the proxy of which node, counted from 0.
    pub node: usize,
    /// When it was sent.
    pub sent: Micros,
    /// When its outcome was known.
    pub answered: Micros,
    /// Its outcome.
    pub outcome: Outcome,
}

impl Append {
    /// The position that was acknowledged.
    #[must_use]
    pub const fn position(&self) -> Option<u64> {
        match self.outcome {
            Outcome::Acknowledged(position) => Some(position),
            _ => None,
        }
    }

    const fn within(&self, span: &Span) -> bool {
        self.sent <= span.to && self.answered >= span.from
    }
}

/// Something that went on for a while.
#[derive(Clone, Debug)]
pub struct Span {
    /// What, for the reader.
    pub what: String,
    /// Whose proxy may close connections meanwhile.
    pub closes: Option<usize>,
    /// From when.
    pub from: Micros,
    /// Until when it may be noticed: until everything was whole again.
    pub to: Micros,
}

/// How much of what was acknowledged a failover may lose: replication is asynchronous.
#[derive(Clone, Copy, Debug)]
pub struct Allowed {
    /// Acknowledged at most so long before the failover was stored.
    pub before: Micros,
    /// And at most so long after it: what was on its way.
    pub after: Micros,
}

/// A whole run.
#[derive(Clone, Debug)]
pub struct History {
    /// What clients did.
    pub appends: Vec<Append>,
    /// What is there in the end.
    pub lists: BTreeMap<u16, Vec<Value>>,
    /// Faults.
    pub faults: Vec<Span>,
    /// When the platform says that a replica took the place of a lost primary.
    pub failovers: Vec<Micros>,
    /// What each of them may lose.
    pub allowed: Allowed,
    /// Why it is not whole after the faults, if it is not.
    pub not_healed: Option<String>,
}
