//! How the store does, as one node sees it.

use crate::transport::Member;
use model::{NodeUid, Revision};
use serde::{Deserialize, Serialize};

/// A member and how far it is.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct MemberStatus {
    /// The member.
    pub member: Member,
    /// Last entry of the log that it is known to hold. Known to the leader alone.
    pub matched: Option<u64>,
    /// How many entries it lacks. Known to the leader alone; `None` too if it never answered.
    pub lag: Option<u64>,
}

/// The store as this node sees it.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// This node.
    pub node: NodeUid,
    /// Who leads, if somebody was heard lately; for the leader itself: if a majority answers.
    pub leader: Option<NodeUid>,
    /// This node leads and a majority answers.
    pub is_leader: bool,
    /// Term of the last vote.
    pub term: u64,
    /// The same, or the term of a leader that was heard and not followed yet: this node waits for its disk.
    pub heard_term: u64,
    /// Those that vote.
    pub voters: Vec<MemberStatus>,
    /// Those that only follow.
    pub learners: Vec<MemberStatus>,
    /// A change of voters is half done: `set_voters` completes it.
    pub changing: bool,
    /// Last entry of this node's log.
    pub last_log: u64,
    /// Last entry that is applied here.
    pub applied: u64,
    /// Revision of the local state.
    pub revision: Revision,
    /// Last entry that is in the snapshot here.
    pub snapshot: Option<u64>,
    /// How long ago a majority answered this node as leader, in ms.
    pub quorum_age_ms: Option<u64>,
    /// This node votes, and knows that no majority of voters answers: not only that nobody leads, as during an election.
    #[serde(default)]
    pub no_quorum: bool,
    /// Other voters that have just answered this one, which hears no leader.
    #[serde(default)]
    pub answering: Vec<NodeUid>,
    /// What is to be written waits for room on this node's disk: it does not vote and acknowledges nothing until then.
    #[serde(default)]
    pub disk_full: bool,
}
