//! Replicas that are lost and made anew on another node (`slave_ha`): what is stored for that.

use crate::ids::NodeUid;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// What a database says of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SlaveHa {
    /// Whether its replicas are made anew; `None`: as the cluster.
    pub enabled: Option<bool>,
    /// Databases with a higher one come first.
    pub priority: u32,
    /// When replicas of it were made anew last: its cool-down counts from then.
    pub last: Option<Timestamp>,
    /// Fields of a newer release.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// The node whose replicas are being made anew, or were last: the cluster's cool-down counts from then.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeLoss {
    /// The node.
    pub node: NodeUid,
    /// When the last of its databases was begun with.
    pub since: Timestamp,
    /// Fields of a newer release.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// A replica that nobody hears, or whose engine does not come back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Lost {
    /// Since when.
    pub since: Timestamp,
    /// When it was told last why it is not made anew.
    #[serde(default)]
    pub told: Option<Timestamp>,
    /// Fields of a newer release.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}
