//! Decisions. Planners (`plan.rs`) are pure: state and observations in, steps and reasons out.
//! Only executors (`execute.rs`) talk to nodes and to the store.
//!
//! | folder or file | what |
//! |---|---|
//! | [`state`] | the stored documents, typed, with their revisions |
//! | [`observed`] | what was heard of each node, and when |
//! | [`request`] | an operator's intent becomes one transaction |
//! | [`placement`] | which node and port a shard gets |
//! | [`database`] | a database's life: engines started, roles given, deleted |
//! | [`membership`] | who votes on the configuration |
//! | [`reconcile`] | the loop on the primary node: observe, plan, execute, again |

pub mod database;
pub mod membership;
pub mod observed;
pub mod placement;
pub mod reconcile;
pub mod request;
pub mod state;
