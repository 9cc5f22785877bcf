//! The messages about clients. They follow those about the endpoints, on the same connection.
//!
//! | who | message | from then on a client of the batch is owned by |
//! |---|---|---|
//! | new | [`FromNew::Ready`]: it has the newest configuration, reaches the shards, has its lease | |
//! | old | [`FromOld::Standing`], now and then | |
//! | old | [`FromOld::Scripts`] of each worker | |
//! | old | [`FromOld::Batch`] with all that clients are; it watches their sockets no more | the old one |
//! | new | [`FromNew::Adopted`]: it could go on with them, but for some | the old one |
//! | old | [`FromOld::Commit`] | the new one, if it lives |
//! | new | [`FromNew::Taken`]; only then it reads and writes | the new one |
//! | old | [`FromOld::Over`] | |
//!
//! From version 3 on the next batches come while one waits for its commit; each goes through these steps by itself,
//! in their order.
//!
//! If the old process has died before the commit, the new one goes on with the batch: nobody else can. If
//! it lives and does not commit, it says [`FromOld::Back`]. If the connection ends without `Taken`, the new
//! process has done nothing with the batch, and the old one goes on with it.

use serde::{Deserialize, Serialize};

/// What the old server says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum FromOld {
    Standing(Standing),
    /// Bodies of scripts, for primaries that move later; the descriptor is a file with them.
    Scripts {
        /// Bytes.
        length: usize,
    },
    /// Some clients. Their sockets come with this packet and the next ones; behind those comes a packet
    /// with the records, or, if they are long, the first descriptor is a file with them.
    Batch {
        number: u64,
        /// Of clients and shards.
        sockets: usize,
        /// Of the records, bytes.
        length: usize,
        file: bool,
    },
    /// More sockets of the batch.
    More,
    Commit {
        number: u64,
    },
    /// The old server goes on with the batch itself.
    Back {
        number: u64,
    },
    /// No more clients come.
    Over {
        /// Those that the old server keeps.
        kept: usize,
    },
}

/// What the new server says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum FromNew {
    Ready,
    Adopted {
        number: u64,
        /// Which clients of the batch it cannot serve now, by their place.
        refused: Vec<usize>,
    },
    Taken {
        number: u64,
    },
}

/// How the old server stands.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Standing {
    /// Revision that all its workers serve.
    #[serde(default)]
    pub(crate) applied: u64,
    pub(crate) databases: Vec<DatabaseStanding>,
}

/// How a database stands there.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct DatabaseStanding {
    pub(crate) database: u64,
    /// Clients that it still has.
    pub(crate) connections: usize,
    /// `CLIENT PAUSE`: whether of all commands, and for how long still; ms.
    #[serde(default)]
    pub(crate) pause: Option<(bool, u64)>,
}
