//! Which nodes replicas get, beside their primaries. Pure.

use super::plan::{Room, Wanted};
use super::refusal::{Lack, WhyNot, none_takes};
use model::documents::ShardsPlacement;
use model::units::format_size;
use model::{ApiError, NodeUid};
use std::cmp::Reverse;

/// A node for a replica of each primary; see [`super::plan::nodes_for_replicas`].
///
/// # Errors
/// `insufficient_resources` with the reason for each node.
pub(super) fn place_replicas(
    rooms: &mut [Room],
    wanted: Wanted<'_>,
    (primaries, rack_aware): (&[NodeUid], bool),
) -> Result<Vec<NodeUid>, ApiError> {
    let mut chosen: Vec<NodeUid> = Vec::new();
    for (memory, primary) in wanted.shares.iter().copied().zip(primaries.iter().copied()) {
        let rack = rack_beside(rooms, primary, rack_aware);
        let fewest = |room: &Room| match wanted.placement {
            ShardsPlacement::Dense => 0,
            ShardsPlacement::Sparse => copies(primaries, &chosen, room.node),
        };
        let best = rooms
            .iter_mut()
            .filter(|room| room.takes_beside((primary, rack.as_deref()), memory))
            .max_by_key(|room| {
                let first = Reverse(fewest(room));
                (first, room.left, Reverse(room.shards), Reverse(room.node))
            });
        let Some(room) = best else {
            return Err(no_room_beside((primary, rack.as_deref()), memory, rooms));
        };
        room.take(memory);
        chosen.push(room.node);
    }
    if wanted.placement == ShardsPlacement::Sparse {
        even_out(rooms, wanted, (primaries, rack_aware), &mut chosen);
    }
    Ok(chosen)
}

/// Takes replicas to nodes with fewer copies: one choice after the other does not see that a later one has fewer nodes
/// to choose from.
fn even_out(
    rooms: &mut [Room],
    wanted: Wanted<'_>,
    beside: (&[NodeUid], bool),
    chosen: &mut [NodeUid],
) {
    while let Some((replica, to)) = evener(rooms, wanted, beside, chosen) {
        let from = std::mem::replace(&mut chosen[replica], to);
        let memory = wanted.shares[replica];
        for room in rooms.iter_mut() {
            if room.node == from {
                room.give_back(memory);
            } else if room.node == to {
                room.take(memory);
            }
        }
    }
}

/// The rack in which a primary's replica must not be.
fn rack_beside(rooms: &[Room], primary: NodeUid, rack_aware: bool) -> Option<String> {
    let room = rooms.iter().find(|room| room.node == primary)?;
    room.rack.clone().filter(|_| rack_aware)
}

/// How many copies of a database's slots a node has.
fn copies(primaries: &[NodeUid], replicas: &[NodeUid], node: NodeUid) -> usize {
    let all = primaries.iter().chain(replicas);
    all.filter(|there| **there == node).count()
}

/// A replica that is on a node with more of the database's copies than another node would have with it, and that node.
fn evener(
    rooms: &[Room],
    wanted: Wanted<'_>,
    (primaries, rack_aware): (&[NodeUid], bool),
    chosen: &[NodeUid],
) -> Option<(usize, NodeUid)> {
    let copies = |node| copies(primaries, chosen, node);
    let replicas = wanted.shares.iter().zip(primaries).zip(chosen);
    replicas
        .enumerate()
        .find_map(|(replica, ((memory, primary), from))| {
            let rack = rack_beside(rooms, *primary, rack_aware);
            let fewer = rooms
                .iter()
                .filter(|room| room.takes_beside((*primary, rack.as_deref()), *memory))
                .filter(|room| copies(room.node) + 1 < copies(*from));
            let to = fewer.min_by_key(|room| (copies(room.node), room.node))?;
            Some((replica, to.node))
        })
}

fn no_room_beside(
    (primary, rack): (NodeUid, Option<&str>),
    memory: u64,
    rooms: &[Room],
) -> ApiError {
    let reasons: Vec<(NodeUid, WhyNot)> = rooms
        .iter()
        .map(|room| {
            let why = if room.node == primary {
                WhyNot::new(Lack::Nothing, "has the primary")
            } else if let Some(rack) = rack.filter(|rack| room.rack.as_deref() == Some(*rack)) {
                WhyNot::new(Lack::Nothing, format!("is in the primary's rack '{rack}'"))
            } else {
                room.why_not()
            };
            (room.node, why)
        })
        .collect();
    let what = format!("a replica of {}", format_size(memory));
    none_takes("no other node", &what, &reasons)
}
