//! Decisions. Planners (`plan.rs`) are pure: state and observations in, steps and reasons out.
//! Only executors (`execute.rs`) talk to nodes and to the store.
//!
//! | folder or file | what |
//! |---|---|
//! | [`state`] | the stored documents, typed, with their revisions |
//! | [`observed`] | what was heard of each node, and when |
//! | [`request`] | an operator's intent becomes one transaction |
//! | `busy` | what is under way on what a request is about |
//! | [`placement`] | which node and port a shard gets |
//! | [`replica_set`] | which shards belong together, what became of a primary, who could take its place |
//! | [`replication`] | replicas follow their primary; what makes them promotable is recorded |
//! | [`failover`] | a primary is gone, a replica takes its place |
//! | [`switchover`] | a primary hands its role to a replica, and no client notices |
//! | [`leases`] | until when proxies may answer clients of replicated databases |
//! | [`maintenance`] | a node is emptied for a while, or for good |
//! | [`migration`] | a shard is brought to another node |
//! | [`slave_ha`] | a lost replica is made anew on another node |
//! | `operation` | operations pause, go on, or are given up |
//! | [`database`] | a database's life: engines started, roles given, deleted |
//! | `tuning` | limits and settings of the data path |
//! | [`upgrade`] | how an upgrade would go; what the whole cluster may use |
//! | [`outages`] | what goes down and comes back is told |
//! | [`membership`] | who votes on the configuration |
//! | [`reconcile`] | the loop on the primary node: observe, plan, execute, again |

mod busy;
mod cut;
pub mod database;
pub mod failover;
pub mod leases;
pub mod maintenance;
pub mod membership;
pub mod migration;
pub mod observed;
mod operation;
pub mod outages;
pub mod placement;
pub mod reconcile;
pub mod replica_set;
pub mod replication;
pub mod request;
pub mod slave_ha;
pub mod state;
pub mod switchover;
mod tuning;
pub mod upgrade;
