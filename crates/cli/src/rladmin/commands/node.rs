//! The commands about a node, and about actions that run.

use super::SWITCH;
use crate::rladmin::grammar::{Command, Field, Kind, Operand, Verb};
use model::limits::{AT_ONCE_MAX, STEP_WITHIN_SECONDS};

const AT_ONCE: Field = Field::one(
    "max_concurrent_actions",
    "number",
    Kind::Number(1, AT_ONCE_MAX as u64),
    "How many databases are worked on at once; left out: all.",
);
const STEP_WITHIN: Field = Field::one(
    "retry_timeout_seconds",
    "seconds",
    Kind::Number(
        *STEP_WITHIN_SECONDS.start() as u64,
        *STEP_WITHIN_SECONDS.end() as u64,
    ),
    "How long a step may take until the action pauses; left out: 1800.",
);
const PAUSES: &str = "A step that takes too long pauses the action, with what it waits for: see `rladmin \
    cluster running_actions`; `rladmin retry` and `rladmin abort` go on or give it up. Ending rladmin \
    does not end the action.";
const ACTION: Operand = Operand {
    name: "action",
    kind: Kind::Text,
    required: true,
    help: "Its id, as `rladmin cluster running_actions` shows it.",
};

/// Turns maintenance mode on.
pub(super) const MAINTENANCE_ON: Command = Command {
    words: &["node", "<node>", "maintenance_mode", "on"],
    verb: Verb::NodeMaintenanceOn,
    operand: None,
    fields: &[
        Field::flag("keep_slave_shards", "Replicas stay on the node."),
        Field::one(
            "evict_ha_replica",
            "",
            SWITCH,
            "disabled is the same as keep_slave_shards.",
        ),
        Field::many(
            "evict_dbs",
            "db:id|name",
            Kind::Database,
            "Databases whose replicas go all the same.",
        ),
        Field::flag(
            "demote_node",
            "If it is the primary node, another one becomes it.",
        ),
        Field::flag(
            "overwrite_snapshot",
            "What is there now comes back later, not what was there the first time.",
        ),
        AT_ONCE,
        STEP_WITHIN,
    ],
    some_field: false,
    summary: "Empties a node for a while, without an error to clients.",
    notes: &[
        "Its masters go to other nodes, its replicas too where there is room; it takes no shards \
         meanwhile. Turned on twice, it is turned off twice. Refused if more than half of the nodes would \
         not be left.",
        PAUSES,
    ],
};

/// Turns it off.
pub(super) const MAINTENANCE_OFF: Command = Command {
    words: &["node", "<node>", "maintenance_mode", "off"],
    verb: Verb::NodeMaintenanceOff,
    operand: None,
    fields: &[
        Field::one(
            "snapshot_name",
            "name",
            Kind::Text,
            "What was there when this snapshot was made comes back.",
        ),
        Field::flag("skip_shards_restore", "Nothing comes back."),
        AT_ONCE,
        STEP_WITHIN,
    ],
    some_field: false,
    summary: "Ends it: what was on the node comes back.",
    notes: &[PAUSES],
};

/// Makes a node's masters replicas.
pub(super) const ENSLAVE: Command = Command {
    words: &["node", "<node>", "enslave"],
    verb: Verb::NodeEnslave,
    operand: None,
    fields: &[
        Field::flag(
            "shards_only",
            "Endpoints follow their masters in any case; accepted.",
        ),
        Field::flag(
            "demote_node",
            "If it is the primary node, another one becomes it.",
        ),
        STEP_WITHIN,
    ],
    some_field: false,
    summary: "A node's masters hand their role to replicas elsewhere.",
    notes: &[
        "A master without a synced replica on another node stays.",
        PAUSES,
    ],
};

/// Says where a node is.
pub(super) const RACK: Command = Command {
    words: &["node", "<node>", "rack_id"],
    verb: Verb::NodeRack,
    operand: None,
    fields: &[Field::one(
        "set",
        "rack",
        Kind::Rack,
        "Its rack from now on: where nodes fail together.",
    )],
    some_field: true,
    summary: "Says in which rack a node is.",
    notes: &[
        "Nothing moves. It is refused if two copies of a rack-aware database would be in one rack.",
    ],
};

/// Takes a node out of the cluster.
pub(super) const REMOVE: Command = Command {
    words: &["node", "<node>", "remove"],
    verb: Verb::NodeRemove,
    operand: None,
    fields: &[AT_ONCE, STEP_WITHIN],
    some_field: false,
    summary: "Takes a node out of the cluster, when nothing is on it any more.",
    notes: &[
        "Everything on it is brought to other nodes first. Of a node that is not heard, replicas are made \
         anew elsewhere; it stays while a master is there alone.",
        "At a terminal it asks first; -y answers yes. Its machine then serves nothing until it is installed anew.",
        PAUSES,
    ],
};

/// Notes what is on a node.
pub(super) const SNAPSHOT_CREATE: Command = Command {
    words: &["node", "<node>", "snapshot", "create", "<name>"],
    verb: Verb::NodeSnapshotCreate,
    operand: None,
    fields: &[],
    some_field: false,
    summary: "Notes which shards are on a node.",
    notes: &["Shards and their roles, no data."],
};

/// Forgets it.
pub(super) const SNAPSHOT_DELETE: Command = Command {
    words: &["node", "<node>", "snapshot", "delete", "<name>"],
    verb: Verb::NodeSnapshotDelete,
    summary: "Forgets a snapshot.",
    notes: &[],
    ..SNAPSHOT_CREATE
};

/// Brings it back.
pub(super) const SNAPSHOT_RESTORE: Command = Command {
    words: &["node", "<node>", "snapshot", "restore", "<name>"],
    verb: Verb::NodeSnapshotRestore,
    fields: &[AT_ONCE, STEP_WITHIN],
    summary: "Brings back to a node what was on it.",
    notes: &[
        "Shows what it is going to do and asks; -y answers yes.",
        PAUSES,
    ],
    ..SNAPSHOT_CREATE
};

/// Lists snapshots.
pub(super) const SNAPSHOT_LIST: Command = Command {
    words: &["node", "<node>", "snapshot", "list"],
    verb: Verb::NodeSnapshotList,
    summary: "Lists a node's snapshots.",
    notes: &[],
    ..SNAPSHOT_CREATE
};

/// Goes on with what pauses.
pub(super) const RETRY: Command = Command {
    words: &["retry"],
    verb: Verb::Retry,
    operand: Some(ACTION),
    fields: &[],
    some_field: false,
    summary: "Goes on with an action that pauses.",
    notes: &["Nothing was skipped: it tries again what it could not do."],
};

/// Gives up what runs.
pub(super) const ABORT: Command = Command {
    words: &["abort"],
    verb: Verb::Abort,
    operand: Some(ACTION),
    fields: &[],
    some_field: false,
    summary: "Gives up an action that brings roles or shards elsewhere.",
    notes: &[
        "What has moved stays where it is, what has not is not moved any more. A role that is being handed \
         over right now is settled first: refused for that moment. A node whose removal is given up stays; \
         maintenance mode stays on until it is turned off.",
    ],
};
