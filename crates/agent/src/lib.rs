//! Hands on one node: engines, probes, host, supervisord.
//!
//! `cnm_exec` holds one [`Agent`]; everything that touches an engine process or its folder goes
//! through it. The engines are nobody's children: they outlive the agent, which adopts them again
//! when it starts.
//!
//! | file | what |
//! |---|---|
//! | `agent` | the agent: finds the shards of this node, hands each order to the shard's task |
//! | `shard` | one task a shard: start, adopt, promote, follow, hand over, configure, probe, stop, remove |
//! | `engine_process` | start, recognise, signal and reap an engine process |
//! | `engine_config` | the files that an engine starts from |
//! | `engine_users` | ACL rules of the users inside an engine |
//! | `engine_lineage` | which engine may follow which |
//! | `engine_client` | the agent's own connection to an engine, and what `INFO` says |
//! | [`ledger`] | what the agent wrote down before it acted |
//! | [`shard_folder`] | layout of a shard's folder: ledger, lock, pid file |
//! | `catalogue` | engines that a release carries |
//! | [`host`] | facts of the host |
//! | [`supervisord`] | client of supervisord's XML-RPC |

mod agent;
mod catalogue;
mod engine_client;
mod engine_config;
mod engine_info;
mod engine_lineage;
mod engine_process;
mod engine_users;
pub mod host;
pub mod ledger;
mod shard;
pub mod shard_folder;
pub mod supervisord;
mod tombstones;

pub use agent::{Agent, AgentConfig, Stopped};
pub use catalogue::{Catalogue, CatalogueEngine};
