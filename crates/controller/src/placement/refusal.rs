//! Why nodes take no shard, and the error that says so: only where room is short does a smaller limit help. Pure.

use model::{ApiError, ErrorCode, NodeUid};

/// What a node lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lack {
    /// Room: memory, or places for shards.
    Room,
    /// Nothing is heard of it.
    Voice,
    /// It takes no shards now.
    Will,
    /// It does not carry the engine.
    Engine,
    /// Nothing: it is the wrong place for this shard.
    Nothing,
}

/// Why a node does not take a shard.
#[derive(Clone, Debug)]
pub(super) struct WhyNot {
    pub(super) lack: Lack,
    /// In words that follow the node's name.
    pub(super) words: String,
}

impl WhyNot {
    pub(super) fn new(lack: Lack, words: impl Into<String>) -> Self {
        Self {
            lack,
            words: words.into(),
        }
    }
}

/// That no node takes something: `who` ("no node") for `what`, with the reason of each.
pub(super) fn none_takes(who: &str, what: &str, nodes: &[(NodeUid, WhyNot)]) -> ApiError {
    let lacks = |lack: &Lack| nodes.iter().any(|(_, why)| why.lack == *lack);
    let first = [Lack::Room, Lack::Voice, Lack::Will, Lack::Engine];
    let first = first.into_iter().find(lacks).unwrap_or(Lack::Nothing);
    let verb = match first {
        Lack::Room => "has room for",
        _ => "can take",
    };
    let reasons: Vec<String> = nodes
        .iter()
        .map(|(node, why)| format!("node:{node} {}", why.words))
        .collect();
    let mut text = format!("{who} {verb} {what}: {}", reasons.join("; "));
    if first == Lack::Voice {
        let unheard = nodes.iter().filter(|(_, why)| why.lack == Lack::Voice);
        let unheard: Vec<String> = unheard.map(|(node, _)| format!("node:{node}")).collect();
        text.push_str(&format!(
            ". Bring {} back, or add a node",
            unheard.join(", ")
        ));
    }
    ApiError::new(code(first), text)
}

/// That one node, which was named, does not take `what`; `besides`: what comes to it before.
pub(super) fn does_not_take(node: NodeUid, what: &str, besides: &str, why: &WhyNot) -> ApiError {
    let words = &why.words;
    let text = match why.lack {
        Lack::Room => format!("node:{node} has no room for {what}{besides}: it {words}"),
        Lack::Voice => format!(
            "node:{node} cannot take {what}: it {words}. Bring it back, or choose another node"
        ),
        _ => format!("node:{node} cannot take {what}: it {words}"),
    };
    ApiError::new(code(why.lack), text)
}

const fn code(lack: Lack) -> ErrorCode {
    match lack {
        Lack::Room | Lack::Nothing => ErrorCode::InsufficientResources,
        Lack::Voice => ErrorCode::NodeDown,
        Lack::Will => ErrorCode::NodeTakesNoShards,
        Lack::Engine => ErrorCode::InvalidVersion,
    }
}
