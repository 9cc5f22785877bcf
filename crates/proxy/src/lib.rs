//! `dmcproxy`: the data path of a node. Clients connect to a database's endpoint here; their
//! commands go to its shards.
//!
//! | file | what |
//! |---|---|
//! | [`launcher`] | the supervised process: starts a server and ends with it |
//! | [`server`] | the serving process: starts everything, and ends it |
//! | [`beat`] | how the launcher knows that its server lives |
//! | [`environment`] | where the configuration and the release are |
//! | [`control`] | configuration from `cnm_exec`, what is told back |
//! | [`gates`] | orders to hold a shard's commands while its primary moves |
//! | [`leases`] | until when clients of replicated databases may be answered |
//! | [`persisted`] | the last configuration, on disk |
//! | [`listeners`] | endpoints: opening them, accepting, choosing a worker |
//! | [`client_ids`] | numbers of clients, no two alike in a cluster |
//! | [`handover`] | a new server takes the endpoints of the old one |
//! | [`merge`] | commands and replies of several shards |
//! | [`topology`], [`stats`] | what workers serve and count |
//! | [`rate`] | a database's commands and bytes a second |
//! | [`workers`], [`scaling`] | starting and ending workers; how many there should be |
//! | [`questions`] | what other proxies are asked about their clients, and ask |
//! | [`wishes`] | what clients wish of the whole database, on its way to `cnm_exec` |
//! | [`worker`] | the data path itself |
//! | [`compatibility`] | what differs from an engine on purpose |
//! | [`accepted`] | what `COMMAND` tells of |
//! | [`bounds`], [`texts`], [`buffer`] | sizes and times; the proxy's own answers; bytes on their way |
//!
//! `docs/life-of-a-request.md` follows one `GET` through it.

mod accepted;
mod beat;
pub mod bounds;
mod buffer;
mod client_ids;
pub mod compatibility;
mod control;
mod cursor;
pub mod environment;
mod gates;
mod handover;
pub mod launcher;
mod leases;
mod listeners;
mod merge;
mod persisted;
mod questions;
mod rate;
mod scaling;
pub mod server;
mod stats;
mod texts;
mod topology;
mod wishes;
mod worker;
mod workers;
