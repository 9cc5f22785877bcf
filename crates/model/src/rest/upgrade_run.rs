//! The upgrade of all nodes by one command, as REST shows it.

use crate::error_code::ErrorCode;
use crate::ids::NodeUid;
use serde::{Deserialize, Serialize};

object! {
    /// An upgrade of all nodes by one command.
    pub struct UpgradeRunInfo {
        /// Its id.
        pub id: String,
        /// `running`, `paused` or `done`.
        pub state: String,
        /// `forward`, or `back`: nodes return to the release before.
        pub direction: String,
        /// The version before.
        pub from: String,
        /// The version to which it goes.
        pub to: String,
        /// When it began, RFC 3339.
        pub began: String,
        /// When it ended, RFC 3339.
        pub ended: Option<String>,
        /// The node that goes first; absent: the primary node.
        pub canary: Option<NodeUid>,
        /// How long the first node is watched before the second one's turn, seconds.
        pub canary_soak_seconds: u32,
        /// How long every other node is, seconds.
        pub soak_seconds: u32,
        /// Why it waits for an operator.
        pub paused: Option<UpgradePause>,
        /// What it waits for by itself.
        pub waiting_on: Vec<String>,
        /// SHA-256 of the bundle's tar, hex.
        pub bundle: String,
        /// Every node's turn, in the order in which they began.
        pub nodes: Vec<UpgradeTurn>,
        /// Client connections of all nodes now.
        pub connections: u64,
        /// Commands per second of all nodes, now.
        pub commands_per_second: u64,
    }
}

object! {
    /// Why an upgrade of all nodes waits for an operator.
    pub struct UpgradePause {
        /// `operator`, or `gate`.
        pub by: String,
        /// The code; `rladmin explain` has more of it.
        pub code: Option<ErrorCode>,
        /// What was seen.
        pub evidence: String,
        /// What to do.
        pub remedy: String,
        /// Since when, RFC 3339.
        pub since: String,
    }
}

object! {
    /// A node's turn in an upgrade of all nodes.
    pub struct UpgradeTurn {
        /// The node.
        pub uid: NodeUid,
        /// Its address.
        pub addr: String,
        /// `waiting`, `turn`, `gate`, `done`, `failed`, `going back`, `back`.
        pub state: String,
        /// What it runs; empty: not heard.
        pub software_version: String,
        /// The step of its installer, while one is at work.
        pub step: Option<String>,
        /// How much of the bundle it has, percent; 100: it is unpacked and verified.
        pub bundle_percent: u32,
        /// How often its turn has begun.
        pub attempt: u32,
        /// When it began, RFC 3339.
        pub began: Option<String>,
        /// How long it has taken, or takes up to now, seconds.
        pub seconds: Option<u64>,
        /// Connections of its clients that the new proxy took over; absent: not known.
        pub clients_kept: Option<u64>,
        /// Connections that there were.
        pub clients_of: Option<u64>,
        /// Errors that clients got from its new proxy.
        pub client_errors: Option<u64>,
        /// The longest time for which one of its clients was served by nobody, µs.
        pub longest_pause_us: Option<u64>,
        /// Client connections now.
        pub connections: u64,
        /// Commands per second now.
        pub commands_per_second: u64,
    }
}

object! {
    /// Body of `POST /v1/upgrade/start`.
    #[serde(deny_unknown_fields, default)]
    pub struct UpgradeStart {
        /// SHA-256 of the bundle's tar, hex, which was given to this node.
        pub digest: String,
        /// The node that goes first; absent: the primary node.
        pub canary: Option<NodeUid>,
        /// How long the first node is watched before the second one's turn, seconds; absent: as `soak_seconds`.
        pub canary_soak_seconds: Option<u32>,
        /// How long each node is watched before the next one's turn, seconds.
        pub soak_seconds: u32,
        /// Whether the feature level waits for an operator at the end.
        pub hold_finalize: bool,
    }
}

object! {
    /// Answer of `PUT /v1/upgrade/bundle/{digest}`.
    pub struct UpgradeBundleReceived {
        /// Bytes that are there: the next piece begins here.
        pub received: u64,
        /// Whether it is whole.
        pub complete: bool,
    }
}
