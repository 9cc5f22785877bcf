//! Upgrades: [`plan`] says how one would go and what stands against it; [`request`] takes in what installers
//! and operators say; [`run`] upgrades all nodes, one after the other; [`level`] raises what the whole cluster may use, when every node can; [`data`] changes
//! documents on the way; [`stop`] has tests kill nodes wherever something is stored.

pub mod data;
pub mod level;
mod order;
pub mod plan;
pub mod request;
pub mod run;
pub mod stop;
