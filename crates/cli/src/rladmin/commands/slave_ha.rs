//! What `tune` says of lost replicas.

use super::SWITCH;
use crate::rladmin::grammar::{Field, Kind};
use model::limits::{SLAVE_HA_PRIORITY_MAX, SLAVE_HA_SECONDS};

const TIME: Kind = Kind::Number(0, *SLAVE_HA_SECONDS.end() as u64);

/// On or off, of the cluster.
pub(super) const ON: Field = Field::one(
    "slave_ha",
    "",
    SWITCH,
    "Whether lost replicas are made anew on another node.",
);
/// On or off, or as the cluster, of a database.
pub(super) const OWN: Field = Field::one(
    "slave_ha",
    "",
    Kind::Choice(&["enabled", "disabled", "default"]),
    "Whether lost replicas are made anew on another node; default: as the cluster says.",
);
/// Of the cluster.
pub(super) const GRACE: Field = Field::one(
    "slave_ha_grace_period",
    "seconds",
    TIME,
    "How long a replica is lost before that.",
);
/// Of the cluster.
pub(super) const COOL_DOWN: Field = Field::one(
    "slave_ha_cooldown_period",
    "seconds",
    TIME,
    "How long replicas of another node wait after that.",
);
/// Of the cluster.
pub(super) const DATABASE_COOL_DOWN: Field = Field::one(
    "slave_ha_bdb_cooldown_period",
    "seconds",
    TIME,
    "How long the same database waits after that.",
);
/// Of a database.
pub(super) const PRIORITY: Field = Field::one(
    "slave_ha_priority",
    "number",
    Kind::Number(0, SLAVE_HA_PRIORITY_MAX as u64),
    "Databases with a higher one come first.",
);
