//! No two copies of a slot on one node nor, where a database wants that, in one rack. What counts is where
//! they are once everything has been brought where it shall be. Pure.

use super::racks;
use crate::state::{ClusterState, Stored};
use model::documents::{Migration, Shard};
use model::{ApiError, ErrorCode, NodeUid};

/// Where a shard is when these moves are done.
fn afterwards(shard: &Shard, moves: &[Migration]) -> NodeUid {
    let mut moves = moves.iter();
    let moved = moves.find(|migration| migration.shard == shard.uid);
    moved.map_or(shard.node, |migration| migration.node)
}

/// Whether a shard may be where these moves bring it.
///
/// # Errors
/// `invalid_param`, `rack_awareness_violation` with the copy that would be there too.
pub(crate) fn apart(
    state: &ClusterState,
    shard: &Shard,
    moves: &[Migration],
) -> Result<(), ApiError> {
    let node = afterwards(shard, moves);
    let other = |other: &&Stored<Shard>| {
        other.slots == shard.slots && other.uid != shard.uid && other.removed_by.is_none()
    };
    let others = state.shards_of(shard.database).filter(other);
    for other in others {
        let there = afterwards(other, moves);
        if there == node {
            return Err(together(shard, other, node));
        }
        racks::may_be_beside(state, (shard, node), (other, there))?;
    }
    Ok(())
}

fn together(shard: &Shard, other: &Shard, node: NodeUid) -> ApiError {
    let what = if other.node == node {
        format!(
            "node:{node} has redis:{} already, another copy of the slots of redis:{}: choose another node",
            other.uid, shard.uid
        )
    } else {
        format!(
            "redis:{} and redis:{} of db:{} hold the same slots, and both would be on node:{node}: bring one \
             of them to another node",
            shard.uid, other.uid, shard.database
        )
    };
    ApiError::new(
        ErrorCode::InvalidParam,
        format!("{what}, or say override_policy"),
    )
}
