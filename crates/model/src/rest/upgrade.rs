//! `/v1/upgrade`: ours.

use super::UpgradeRunInfo;
use crate::ids::NodeUid;
use serde::{Deserialize, Serialize};

object! {
    /// `GET /v1/upgrade`: the feature level, and the upgrade that is under way.
    pub struct UpgradeStatus {
        /// What the whole cluster may use.
        pub feature_level: u32,
        /// `none`; `nodes`: not every node runs the new release; `soak`; `held`: it waits for an operator;
        /// `raising`: the level rises; `confirming`: it waits until every node has read the level.
        pub state: String,
        /// The version before.
        pub from: Option<String>,
        /// The version to which it goes.
        pub to: Option<String>,
        /// When it began, RFC 3339.
        pub began: Option<String>,
        /// Every node, and what it runs.
        pub nodes: Vec<UpgradeNodeStatus>,
        /// What it waits for.
        pub waiting_on: Vec<String>,
        /// Whether the level waits for an operator after the soak.
        pub hold_finalize: bool,
        /// How long the soak takes, seconds.
        pub soak_seconds: u32,
        /// How much of it is left, seconds; absent: it has not begun.
        pub soak_left_seconds: Option<u32>,
        /// The last upgrade that was finalised.
        pub last: Option<UpgradeDone>,
        /// The upgrade of all nodes by one command, under way or the last one; absent: there was none.
        #[serde(default)]
        pub run: Option<UpgradeRunInfo>,
    }
}

object! {
    /// A node in an upgrade.
    pub struct UpgradeNodeStatus {
        /// Its id.
        pub uid: NodeUid,
        /// Its address.
        pub addr: String,
        /// Version of its release; empty: not heard.
        pub software_version: String,
        /// Build id of its release.
        pub software_version_sha: String,
        /// Lowest feature level that it can run.
        pub feature_min: u32,
        /// Highest feature level that it can run.
        pub feature_max: u32,
        /// `old`, `under way`, `new`, `down`; `ok` while no upgrade is under way.
        pub state: String,
    }
}

object! {
    /// An upgrade that was finalised.
    pub struct UpgradeDone {
        /// The version before.
        pub from: String,
        /// The version after.
        pub to: String,
        /// The feature level before.
        pub level_from: u32,
        /// The feature level after.
        pub level_to: u32,
        /// When it began, RFC 3339.
        pub began: String,
        /// When it was finalised, RFC 3339.
        pub ended: String,
    }
}

object! {
    /// Body of `PUT /v1/upgrade`: what is absent stays.
    #[serde(deny_unknown_fields, default)]
    pub struct UpgradeSettings {
        /// Whether the level waits for an operator after the soak.
        pub hold_finalize: Option<bool>,
        /// How long the soak takes, seconds.
        pub soak_seconds: Option<u32>,
    }
}

object! {
    /// `GET /v1/upgrade/paths`: which upgrades there are.
    pub struct UpgradePaths {
        /// The release whose table this is.
        pub release: String,
        /// The version that is asked for.
        pub to: String,
        /// The table.
        pub rows: Vec<PathRow>,
        /// Every node's way to that version.
        pub nodes: Vec<NodePath>,
    }
}

object! {
    /// A row of the table of supported paths.
    pub struct PathRow {
        /// From versions like this.
        pub from: String,
        /// To versions like this, directly.
        pub to: String,
    }
}

object! {
    /// A node's way to a version.
    pub struct NodePath {
        /// The node.
        pub uid: NodeUid,
        /// What it runs; empty: not heard.
        pub from: String,
        /// Whether there is a way.
        pub possible: bool,
        /// Versions to install in between, in order.
        pub hops: Vec<String>,
    }
}
