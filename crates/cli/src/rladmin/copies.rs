//! Copies of the same slots that are on one node: an operator has put them there (`migrate … override_policy`).

use model::rest::ShardInfo;
use model::{DatabaseUid, NodeUid};
use std::collections::BTreeMap;

/// Those that one node's loss would take together, in words.
#[must_use]
pub fn together(shards: &[ShardInfo]) -> Vec<String> {
    let mut places: BTreeMap<(DatabaseUid, NodeUid, &str), Vec<&ShardInfo>> = BTreeMap::new();
    for shard in shards {
        let place = (shard.bdb_uid, shard.node_uid, shard.assigned_slots.as_str());
        places.entry(place).or_default().push(shard);
    }
    let several = places.into_values().filter(|copies| copies.len() > 1);
    several.filter_map(|copies| words(&copies)).collect()
}

fn words(copies: &[&ShardInfo]) -> Option<String> {
    let ids: Vec<String> = copies.iter().map(|s| format!("redis:{}", s.uid)).collect();
    // A master would hand its role over.
    let moves = copies
        .iter()
        .find(|s| s.role != "master")
        .or(copies.first())?;
    Some(format!(
        "{} of database '{}' (db:{}) have the same slots ({}), all on node:{node}: without that node there is no copy \
         (`rladmin migrate shard {} target_node <node>`)",
        ids.join(" and "),
        moves.bdb_name,
        moves.bdb_uid,
        moves.assigned_slots,
        moves.uid,
        node = moves.node_uid
    ))
}
