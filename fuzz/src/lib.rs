//! What the targets check. The checks live beside the code that they check, where the ordinary tests use
//! them, too; they are included here, with the private module of the proxy that they are about.
//!
//! | target | check | what it is given |
//! |---|---|---|
//! | `client_input` | [`client_input`] | bytes of a client |
//! | `backend_input` | [`backend_input`] | bytes of an engine |
//! | `merged_replies` | [`merged_replies`] | replies of several shards |
//! | `split_commands` | [`split_commands`] | a command for several shards |
//! | `carried_clients` | [`carried_clients`] | clients that another process hands over |

#![allow(
    dead_code,
    unused_imports,
    reason = "only a part of what is included is used here"
)]

#[path = "../../crates/resp/tests/it"]
mod resp_tests {
    pub(crate) mod properties;
}

#[path = "../../crates/proxy/src"]
mod proxy_source {
    pub(crate) mod merge;
    pub(crate) mod texts;
    pub(crate) mod handover {
        pub(crate) mod record;
    }
    pub(crate) mod worker {
        pub(crate) mod session;
    }
}

#[path = "../../crates/proxy/src/handover/record"]
mod record_tests {
    pub(crate) mod properties;
}

#[path = "../../crates/proxy/src/merge/tests"]
mod merge_tests {
    pub(crate) mod properties;
}

// As the included files name them.
use proxy_source::{handover, merge, texts, worker};

pub use checks::*;

mod checks {
    use super::{merge_tests, record_tests, resp_tests};

    /// Commands of a client.
    pub fn client_input(data: &[u8]) {
        resp_tests::properties::request::check(data);
    }

    /// Replies of an engine.
    pub fn backend_input(data: &[u8]) {
        resp_tests::properties::reply::check(data);
    }

    /// Replies of several shards become one.
    pub fn merged_replies(data: &[u8]) {
        merge_tests::properties::combined(data);
    }

    /// A command for several shards is taken apart.
    pub fn split_commands(data: &[u8]) {
        merge_tests::properties::taken_apart(data);
    }

    /// A batch of clients is read.
    pub fn carried_clients(data: &[u8]) {
        record_tests::properties::check(data);
    }

    /// What each target begins with.
    #[must_use]
    pub fn seeds() -> [(&'static str, Vec<Vec<u8>>); 5] {
        let split = merge_tests::properties::taken_apart_seeds();
        // Commands of clients are commands for several shards, too; the first byte says of how many.
        let commands = resp_tests::properties::seeds::requests();
        let commands = commands.iter().map(|seed| [&[4], &seed[2..]].concat());
        [
            ("client_input", resp_tests::properties::seeds::requests()),
            ("backend_input", resp_tests::properties::seeds::replies()),
            ("merged_replies", merge_tests::properties::combined_seeds()),
            (
                "split_commands",
                split.into_iter().chain(commands).collect(),
            ),
            ("carried_clients", record_tests::properties::seeds()),
        ]
    }
}
