//! Forbids that two nodes are replaced at once, that a turn is begun twice, and that the cluster uses a feature level
//! that one of its nodes cannot run.
//!
//! It cannot see what installers do (`crates/installer`), nor whether a release is any good.

use super::super::upgrade::Upgrades;
use crate::world::World;

pub(super) fn upgrades_go_in_turns(world: &World, upgrades: &Upgrades) -> Result<(), String> {
    if let Some(twice) = upgrades.twice() {
        return Err(twice.clone());
    }
    let at_work: Vec<_> = upgrades.at_work().collect();
    if at_work.len() > 1 {
        return Err(format!("installers are at work on {at_work:?}"));
    }
    let cluster = world.cluster();
    let turns = cluster.upgrade.run.iter().flat_map(|run| &run.nodes);
    let in_flight = turns.filter(|turn| turn.state.is_in_flight());
    if in_flight.count() > 1 {
        return Err("two turns are under way".to_owned());
    }
    let level = cluster.cluster.feature_level;
    for (uid, seen) in &world.nodes {
        if level < seen.feature_min || seen.feature_max < level {
            return Err(format!(
                "the cluster uses level {level}, node:{uid} runs {} ({} to {})",
                seen.software_version, seen.feature_min, seen.feature_max
            ));
        }
    }
    Ok(())
}
