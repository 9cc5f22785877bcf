//! An upgrade of all nodes by one command: what is stored of it, and what nodes tell of it.
//!
//! The primary node decides and writes; each node reads what is written and does its own part. Nothing is
//! done that is not written.

use super::UpgradeTarget;
use crate::error_code::ErrorCode;
use crate::ids::{NodeUid, ShardUid};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The rules by which this release goes on with a run. One that knows lower ones only touches nothing.
pub const RULES: u32 = 1;
/// How often a turn that was cut short is tried again before an operator is asked.
pub const ATTEMPTS_MAX: u32 = 3;
/// Largest piece of a bundle that travels at once, bytes.
pub const PIECE_MAX: usize = 4 << 20;
/// Largest bundle, bytes.
pub const BUNDLE_MAX: u64 = 8 << 30;
/// Longest text that a node tells of its turn, characters.
pub const SAID_MAX: usize = 1000;

/// Whether a text names a bundle: its SHA-256 in lower-case hex. Such names go into paths.
#[must_use]
pub fn is_digest(text: &str) -> bool {
    let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    text.len() == 64 && text.bytes().all(is_hex)
}

/// An upgrade of all nodes, from the command to its end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UpgradeRun {
    /// Rules that it needs; see [`RULES`].
    pub rules: u32,
    /// Its id: turns are named after it.
    pub id: String,
    /// The version before.
    pub from: String,
    /// Where it goes.
    pub target: UpgradeTarget,
    /// The bundle.
    pub bundle: BundleFacts,
    /// The node that goes first; `None`: the primary node.
    #[serde(default)]
    pub canary: Option<NodeUid>,
    /// How long the first node is watched before the second one's turn, seconds.
    #[serde(default)]
    pub canary_soak_seconds: u32,
    /// How long every other node is, seconds.
    #[serde(default)]
    pub soak_seconds: u32,
    /// Forward or back.
    pub direction: Direction,
    /// Whether it goes on.
    pub state: RunState,
    /// When it began.
    pub began: Timestamp,
    /// When it ended.
    #[serde(default)]
    pub ended: Option<Timestamp>,
    /// When something of it changed last.
    pub changed: Timestamp,
    /// Since when something stands against the next turn.
    #[serde(default)]
    pub blocked: Option<Timestamp>,
    /// What stands against it, in words.
    #[serde(default)]
    pub waiting_on: Option<String>,
    /// Every node's turn.
    pub nodes: Vec<NodeTurn>,
    /// Fields of a newer release.
    #[serde(flatten)]
    pub extra: serde_json::Map<String, serde_json::Value>,
}

impl UpgradeRun {
    /// The turn of a node.
    #[must_use]
    pub fn turn(&self, node: NodeUid) -> Option<&NodeTurn> {
        self.nodes.iter().find(|turn| turn.node == node)
    }

    /// The name of a node's turn: another one each time that it is tried.
    #[must_use]
    pub fn job(&self, turn: &NodeTurn) -> String {
        format!("{}-{}-{}", self.id, turn.node, turn.attempt)
    }

    /// Whether it has not ended.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        !matches!(self.state, RunState::Done)
    }

    /// The node that is worked on.
    #[must_use]
    pub fn in_flight(&self) -> Option<&NodeTurn> {
        self.nodes.iter().find(|turn| turn.state.is_in_flight())
    }
}

/// A bundle that was given to the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BundleFacts {
    /// SHA-256 of the tar, hex.
    pub digest: String,
    /// Its size, bytes.
    pub size: u64,
    /// The node that has it.
    pub source: NodeUid,
}

/// Where a run goes.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// To the new release.
    Forward,
    /// To the one before.
    Back,
}

/// Whether a run goes on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum RunState {
    /// It does.
    Running,
    /// It waits for an operator.
    Paused {
        /// `operator`, or `gate`: something was missed.
        by: String,
        /// Why.
        code: ErrorCode,
        /// What was seen.
        evidence: String,
        /// Since when.
        since: Timestamp,
    },
    /// It has ended.
    Done,
}

/// Where a node is.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TurnState {
    /// Its turn comes later.
    Waiting,
    /// Its installer is ordered, or at work.
    Turn,
    /// The installer has ended well; the cluster is looked at.
    Gate,
    /// It runs the new release for good.
    Done,
    /// Its turn went wrong; it runs what it ran before, or says what it runs.
    Failed,
    /// Its way back is ordered, or under way.
    Back,
    /// It runs the release before again.
    WentBack,
}

impl TurnState {
    /// Whether the node is worked on.
    #[must_use]
    pub const fn is_in_flight(self) -> bool {
        matches!(self, Self::Turn | Self::Gate | Self::Back)
    }

    /// The word in lists.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Turn => "turn",
            Self::Gate => "gate",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Back => "going back",
            Self::WentBack => "back",
        }
    }
}

/// A node's turn.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeTurn {
    /// The node.
    pub node: NodeUid,
    /// Where it is.
    pub state: TurnState,
    /// How often its turn has begun.
    #[serde(default)]
    pub attempt: u32,
    /// When it began last.
    #[serde(default)]
    pub began: Option<Timestamp>,
    /// When it ended.
    #[serde(default)]
    pub ended: Option<Timestamp>,
    /// When its `cnm_exec` had started, before its turn.
    #[serde(default)]
    pub started_before: Option<Timestamp>,
    /// Full syncs that each engine of the cluster had given before its turn.
    #[serde(default)]
    pub full_syncs: Vec<(ShardUid, u64)>,
    /// Half of the answers of shards came within this, µs, in the second before its turn; `None`: there were none.
    #[serde(default)]
    pub median_before_us: Option<u64>,
    /// What happened to its clients.
    #[serde(default)]
    pub clients: Option<TurnClients>,
    /// Fields of a newer release.
    #[serde(flatten)]
    pub extra: serde_json::Map<String, serde_json::Value>,
}

impl NodeTurn {
    /// A node whose turn has not come.
    #[must_use]
    pub fn waiting(node: NodeUid) -> Self {
        Self {
            node,
            state: TurnState::Waiting,
            attempt: 0,
            began: None,
            ended: None,
            started_before: None,
            full_syncs: Vec::new(),
            median_before_us: None,
            clients: None,
            extra: serde_json::Map::new(),
        }
    }
}

/// What a turn did to the clients of its node, as the installer recorded it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TurnClients {
    /// Connections that the new proxy took over.
    pub kept: u64,
    /// Connections that there were.
    pub of: u64,
    /// Errors that clients got from the new proxy since it took over, until the node was found well.
    pub errors: u64,
    /// The longest time for which one of them was served by nobody, µs.
    pub longest_pause_us: u64,
}

/// What a node tells of its part in a run; see [`super::UpgradeObservation`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TurnObservation {
    /// Whether a process of root's is there that does a turn.
    pub attended: bool,
    /// Bytes of the bundle that have arrived.
    pub fetched: u64,
    /// Digest of the bundle that is unpacked and verified.
    pub staged: Option<String>,
    /// Why the bundle cannot be had.
    pub stage_error: Option<String>,
    /// The last turn.
    pub job: Option<JobReport>,
    /// The step that the install record names while an installer is at work.
    pub step: Option<String>,
}

/// What an attendant is asked, a JSON line over its socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
pub enum AttendantCall {
    /// How it stands.
    Status,
    /// Unpack and verify a bundle that lies in the data folder.
    Stage {
        /// Name of this work.
        id: String,
        /// SHA-256 of the tar, hex: names the file, too.
        digest: String,
    },
    /// Run the installer of a staged bundle.
    Turn {
        /// Name of this work.
        id: String,
        /// Which bundle.
        digest: String,
    },
    /// Run the installer's way back.
    Back {
        /// Name of this work.
        id: String,
    },
    /// Forget staged bundles.
    Clear,
}

/// What it answers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AttendantAnswer {
    /// Why what was asked is not done; `None`: it is, or will be.
    pub refused: Option<String>,
    /// Digest of the bundle that is staged.
    pub staged: Option<String>,
    /// Its release.
    pub target: Option<UpgradeTarget>,
    /// The work that was begun last.
    pub job: Option<JobReport>,
}

/// A piece of work of an attendant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JobReport {
    /// Its name.
    pub id: String,
    /// Where it is.
    pub state: JobState,
    /// What it said at the end.
    #[serde(default)]
    pub said: String,
    /// What happened to clients.
    #[serde(default)]
    pub clients: Option<TurnClients>,
}

/// Where a piece of work is.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// Under way.
    Running,
    /// It has ended well.
    Done,
    /// It was refused, or failed.
    Failed,
    /// The new release did not come up: the node went back by itself.
    WentBack,
    /// It ended without a word: killed, or the host went down.
    Cut,
}

/// What an operator asks for. The cluster's record holds the rest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StartRun {
    /// The version before: of the node that was asked.
    pub from: String,
    /// Where it goes: of the verified bundle.
    pub target: UpgradeTarget,
    /// The bundle.
    pub bundle: BundleFacts,
    /// How.
    #[serde(flatten)]
    pub wish: RunWish,
}

/// How an upgrade of all nodes is to go.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct RunWish {
    /// The node that goes first; absent: the primary node.
    pub canary: Option<NodeUid>,
    /// How long the first node is watched before the second one's turn, seconds; absent: as `soak_seconds`.
    pub canary_soak_seconds: Option<u32>,
    /// How long each node is watched before the next one's turn, seconds.
    pub soak_seconds: u32,
    /// Whether the feature level waits for an operator at the end.
    pub hold_finalize: bool,
}

/// A bundle that was given to this node, and what is to be done with it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GivenBundle {
    /// SHA-256 of the tar, hex.
    pub digest: String,
    /// How it is to go.
    #[serde(default)]
    pub wish: RunWish,
}
