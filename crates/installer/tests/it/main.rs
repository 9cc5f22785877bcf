//! Real bundles, real install.sh, real daemons, on loopback addresses. They install on this machine
//! and need root; otherwise they say so and pass.

#![expect(
    clippy::unwrap_used,
    reason = "a test ends at the first thing that is not as it should be"
)]

mod all_nodes;
mod bench;
mod bundles;
mod cut_short;
mod finalise;
mod full_disk;
mod killer;
mod life;
mod load;
mod mixed;
mod primary_killed;
mod refusals;
mod runbook;
mod supervisord;
mod turns_cut;
mod unit_file;
mod upgrades;
