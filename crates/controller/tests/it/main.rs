//! Planners against fake agents: what is planned, that it converges, that what is not known vetoes.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends where it fails"
)]

mod beside_the_dead;
mod busy;
mod coming_back;
mod damaged_files;
mod executor;
mod failed_moves;
mod failover;
mod failover_asked;
mod hangs;
mod heartbeats;
mod intents;
mod just_died;
mod layout;
mod leaving;
mod life;
mod maintenance;
mod many;
mod migration;
mod operations;
mod outages;
mod placement;
mod racks;
mod requests;
mod restored;
mod sim;
mod slave_ha;
mod told;
mod tuning;
mod upgrade;
mod upgrade_plan;
mod upgrade_run;
mod world;
