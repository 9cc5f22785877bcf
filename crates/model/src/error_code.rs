//! The one table of public errors: code, HTTP status, cause, remedy. `docs/errors.md` is generated
//! from it (`cargo xtask fix`).

use serde::{Deserialize, Serialize};
use std::fmt;

macro_rules! codes {
    ($($variant:ident = $code:literal, $status:literal, $cause:literal, $remedy:literal;)*) => {
        /// A public error code: what REST puts into `error_code` and `rladmin` prints.
        #[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
        #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
        pub enum ErrorCode {
            $(#[doc = $cause] #[serde(rename = $code)] $variant,)*
        }

        impl ErrorCode {
            /// Every code, in the order of the table.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The code as it is printed.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $code,)* }
            }

            /// The HTTP status that goes with it.
            #[must_use]
            pub const fn status(self) -> u16 {
                match self { $(Self::$variant => $status,)* }
            }

            /// Why it happens.
            #[must_use]
            pub const fn cause(self) -> &'static str {
                match self { $(Self::$variant => $cause,)* }
            }

            /// What to do about it.
            #[must_use]
            pub const fn remedy(self) -> &'static str {
                match self { $(Self::$variant => $remedy,)* }
            }
        }
    };
}

codes! {
    BadRequest = "bad_request", 400, "The request cannot be read.", "Send a JSON body as in openapi/v1.json.";
    InvalidSchema = "invalid_schema", 400, "A field is unknown or has the wrong type.", "Compare the body with the object in openapi/v1.json.";
    InvalidParam = "invalid_param", 400, "A value cannot be taken.", "Change what the message names.";
    Unauthorized = "unauthorized", 401, "The user name or password is wrong, or none was sent.", "Send the e-mail and password of a cluster user by HTTP Basic.";
    UnauthorizedAction = "unauthorized_action", 403, "The user's role does not allow this.", "Use a user whose role allows it.";
    NotFound = "not_found", 404, "There is no such path.", "See openapi/v1.json for the paths.";
    MethodNotAllowed = "method_not_allowed", 405, "The path does not have this method.", "See openapi/v1.json for the methods.";
    DbNotFound = "db_not_found", 404, "There is no such database.", "List them with `rladmin status databases`.";
    NodeNotFound = "node_not_found", 404, "There is no such node.", "List them with `rladmin status nodes`.";
    NodeDown = "node_down", 409, "A node that is needed for this is not heard.", "Bring it back (see `supervisorctl status` there), or take it out of the cluster if it does not come back: `rladmin node <node> remove`.";
    NodeTakesNoShards = "node_takes_no_shards", 409, "A node takes no shards now.", "Choose another node; `rladmin status` names the nodes that are in maintenance mode, with what ends that, and those that leave.";
    ShardNotExist = "shard_not_exist", 404, "There is no such shard.", "List them with `rladmin status shards`.";
    ShardIsSlave = "shard_is_slave", 409, "The shard is no master.", "Name the master of its replica set; see `rladmin status shards`.";
    ShardUidsRequired = "shard_uids_required", 406, "No shard was named.", "Name at least one shard.";
    FailoverShardsDifferentBdb = "failover_shards_different_bdb", 406, "The shards are not of one database.", "Name shards of one database.";
    NoMajorityLeft = "no_majority_left", 409, "The nodes that would be left are no majority.", "Bring another node back, turn its maintenance mode off, or add a node.";
    LastNode = "last_node", 409, "It is the only node.", "Uninstall it instead.";
    ReplicaNotSynced = "replica_not_synced", 409, "No replica has all the data of its master.", "Wait until `rladmin status shards` shows the replica as synced; a database without replicas gets them by `tune db` with `replication enabled`.";
    ActionNotFound = "action_not_found", 404, "There is no such action.", "`rladmin cluster running_actions` lists those that have not ended.";
    OperationPaused = "operation_paused", 409, "A step of an operation took longer than it may: it pauses.", "See to what it waits for, then `rladmin retry <action>`; `rladmin abort <action>` gives it up.";
    MoveUndone = "move_undone", 409, "A primary could not hand its role over: it has kept it.", "See to the reason, then `rladmin retry <action>`; `rladmin abort <action>` gives it up.";
    MoveFailed = "move_failed", 409, "A primary could not hand its role over, and the operation has ended.", "See to the reason (`rladmin status shards` shows the shards, `rladmin status endpoints` the proxies), then ask for the failover again.";
    OperationAborted = "operation_aborted", 409, "An operator gave the operation up.", "Begin it again if it is wanted after all.";
    ActionEnded = "action_ended", 409, "The action has ended.", "See `rladmin cluster running_actions`.";
    CannotAbort = "cannot_abort", 409, "The action cannot be given up now.", "Wait until the step that runs has ended, then try again; see `rladmin cluster running_actions`.";
    SnapshotNotFound = "snapshot_not_found", 404, "The node has no such snapshot.", "List them with `rladmin node <node> snapshot list`.";
    NodeInState = "node_in_state", 409, "The node is in that state already.", "Nothing to do; see `rladmin status nodes`.";
    NotRackAware = "not_rack_aware", 406, "The cluster is not rack-aware.", "Turn it on: `rladmin tune cluster rack_aware enabled`.";
    RackAwarenessViolation = "rack_awareness_violation", 406, "Two copies of a slot would be, or are, in one rack.", "Bring one of them to a node of another rack: `rladmin migrate shard`.";
    RackIdRequired = "rack_id_required", 406, "In a rack-aware cluster every node has a rack.", "Give the node's rack when it joins: `rladmin cluster join … rack_id`; later: `rladmin node <node> rack_id set <rack>`.";
    AvailableAfterUpgrade = "available_after_upgrade", 409, "It is available after all nodes are upgraded.", "Upgrade the other nodes, then wait for the end of the soak or run `rladmin cluster upgrade finalize`; see `rladmin cluster upgrade status`.";
    NewerRelease = "newer_release", 409, "The error comes from a node of a newer release, which names it by a code that this release does not know.", "Follow the message; `rladmin explain` of a node with the newer release knows the code.";
    UpgradeNodeDown = "upgrade_node_down", 409, "A node is not heard.", "Bring it back (see `supervisorctl status` there), or remove it from the cluster.";
    UpgradeNodeInMaintenance = "upgrade_node_in_maintenance", 409, "A node is in maintenance mode, or leaves the cluster.", "Turn its maintenance mode off: `rladmin node <node> maintenance_mode off`; wait until a node that leaves is gone.";
    UpgradeQuorumAtRisk = "upgrade_quorum_at_risk", 409, "While a node's cnm_exec restarts, too few voters of the configuration would be left.", "Bring the other voters back; with one or two nodes nothing can be configured for a moment, databases serve all the time.";
    UpgradeOperationRunning = "upgrade_operation_running", 409, "An operation is under way.", "Wait until it has ended, or give it up: `rladmin cluster running_actions`, `rladmin abort <action>`.";
    UpgradeShardDown = "upgrade_shard_down", 409, "A shard is not as it should be.", "See `rladmin status shards` and the log of its node's cnm_exec.";
    UpgradeReplicaMissing = "upgrade_replica_missing", 409, "A database has fewer copies than it should.", "Bring the node of the missing copy back, or make room for another one.";
    UpgradeReplicaSyncing = "upgrade_replica_syncing", 409, "A replica does not have all data of its master yet.", "Wait until `rladmin status shards` shows it as synced.";
    UpgradeProxyNotServing = "upgrade_proxy_not_serving", 409, "A proxy does not serve one of its databases.", "See `rladmin status endpoints` and the log of dmcproxy on that node.";
    UpgradeNotFinalized = "upgrade_not_finalized", 409, "The upgrade before this one is not finalised.", "Upgrade the nodes that are missing, then `rladmin cluster upgrade finalize`; or take it back with `install.sh --rollback` on each node.";
    UpgradeDiskShort = "upgrade_disk_short", 409, "There is too little room on a node's disk for another release.", "Make room on the file system of the install folder: releases that are not used any more may go.";
    UpgradeMemoryShort = "upgrade_memory_short", 409, "A node has too little free memory: for a moment two proxies run.", "Free memory on the host, lower the limit of a database, or let the node use more (`memory` in its node.toml).";
    UpgradeCertificateExpires = "upgrade_certificate_expires", 409, "A certificate of a node, or the cluster's CA, is about to expire.", "Renew it before the upgrade: a node gets a new certificate when it joins again.";
    UpgradeClockApart = "upgrade_clock_apart", 409, "The clocks of two nodes differ.", "Have a time service keep them: `timedatectl set-ntp true`.";
    UpgradePrimaryFirst = "upgrade_primary_first", 409, "The primary node comes first.", "Upgrade the primary node first, or answer ignore_master_version=yes.";
    UpgradeEngineDropped = "upgrade_engine_dropped", 409, "A database runs an engine that the new release does not carry.", "Have the database run an engine that both releases carry, or choose another release.";
    UpgradeInstallerRunning = "upgrade_installer_running", 409, "Another node is being upgraded: one at a time.", "Wait until it has ended; if it was cut short, run install.sh there again, or install.sh --rollback.";
    UpgradePathUnsupported = "upgrade_path_unsupported", 409, "There is no direct upgrade between these versions.", "Upgrade in the hops that `rladmin cluster upgrade paths` prints; where it prints none, make a new cluster with that release and copy the data.";
    UpgradeDowngrade = "upgrade_downgrade", 409, "A node runs a newer version already.", "There is no downgrade; install.sh --rollback returns to the version before, until a higher feature level is finalised.";
    UpgradeLevelUnsupported = "upgrade_level_unsupported", 409, "The release cannot run at the feature level that the cluster uses.", "Use a release whose range holds the cluster's level; below a level that was finalised there is no way back.";
    UpgradeNotComplete = "upgrade_not_complete", 409, "Not every node runs the new release yet.", "Upgrade the nodes that the message names; see `rladmin cluster upgrade status`.";
    NothingToFinalize = "nothing_to_finalize", 409, "No upgrade is under way.", "Nothing to do.";
    UpgradeRunPaused = "upgrade_run_paused", 409, "An operator paused the upgrade of all nodes.", "`rladmin cluster upgrade resume` goes on, `rladmin cluster upgrade rollback` takes back what was upgraded.";
    UpgradeRunOpen = "upgrade_run_open", 409, "An upgrade of all nodes is under way.", "Wait until it has ended (`rladmin cluster upgrade status`), or take it back: `rladmin cluster upgrade rollback`.";
    UpgradeNoRun = "upgrade_no_run", 409, "No upgrade of all nodes is in a state for this.", "See `rladmin cluster upgrade status`; one begins with `rladmin cluster upgrade start bundle <tar>`.";
    UpgradeBundleRefused = "upgrade_bundle_refused", 409, "The bundle is not whole, or not signed with a key that the install trusts.", "Get the tar again, and the bundle that its distributor signed; the keys stand in install.json.";
    UpgradeStageFailed = "upgrade_stage_failed", 409, "A node could not fetch, unpack or verify the bundle.", "Mend what the message says (room on its disk, the way between the nodes), then `rladmin cluster upgrade resume`.";
    UpgradeNotAttended = "upgrade_not_attended", 409, "On a node nobody of root's is there who does its turn.", "As root there: `systemctl start mainstay-upgrade`, or without systemd `sbin/mainstay-install start` of the install; a node of an older release is upgraded by install.sh once.";
    UpgradeTurnFailed = "upgrade_turn_failed", 409, "install.sh refused or failed on a node.", "See install.log there. Mend what it says, then `rladmin cluster upgrade resume`; or `rladmin cluster upgrade rollback`.";
    UpgradeWentBack = "upgrade_went_back", 409, "The new release did not come up on a node, which went back by itself.", "See install.log and the logs of its daemons there. `rladmin cluster upgrade resume` tries again; a release that is at fault: `rladmin cluster upgrade rollback`, then another bundle.";
    UpgradeTurnTimeout = "upgrade_turn_timeout", 409, "A node's turn has not ended in time, or nothing is heard of it.", "See install.log there and `rladmin status nodes`. When the node is well: `rladmin cluster upgrade resume`.";
    UpgradeGateMissed = "upgrade_gate_missed", 409, "After a node's turn the cluster is not as it should be.", "Mend what the message says, then `rladmin cluster upgrade resume`; or `rladmin cluster upgrade rollback`.";
    MissingDbName = "missing_db_name", 406, "A database needs a name.", "Give `name`.";
    MissingMemorySize = "missing_memory_size", 406, "A database needs a memory limit.", "Give `memory_size` in bytes (rladmin: `memory_size 1GB`).";
    NameViolation = "name_violation", 406, "The name breaks the rules for names.", "1-64 letters, digits, '-', '_' or '.', first and last a letter or digit.";
    NameAlreadyExists = "name_already_exists", 409, "The name is taken.", "Choose another name.";
    UidExists = "uid_exists", 409, "The uid is taken, or was used before.", "Leave `uid` out: the cluster chooses one.";
    PortUnavailable = "port_unavailable", 409, "The port is taken, or outside 10000-19999.", "Choose another port, or leave it out.";
    InsufficientResources = "insufficient_resources", 406, "No node has room for this.", "Add a node, choose a smaller memory limit, or delete a database.";
    InvalidVersion = "invalid_version", 406, "No node carries this engine version.", "See which engines the nodes carry: `rladmin info node`.";
    InvalidDataPersistence = "invalid_data_persistence", 406, "The persistence settings do not fit together.", "Use disabled, aof or snapshot with their own settings.";
    InvalidProxyPolicy = "invalid_proxy_policy", 406, "The proxy policy is unknown.", "Use single, all-master-shards or all-nodes.";
    InvalidReplication = "invalid_replication", 406, "The database cannot be replicated like this.", "Set `replication` to true or false.";
    InvalidSharding = "invalid_sharding", 406, "The database cannot be divided like this.", "Use `shards_count` 1 to 60, with `sharding` true exactly when it is 2 or more, and the default `shard_key_regex`.";
    Busy = "busy", 409, "Another operation is running on the same object.", "Wait until it ends (`rladmin cluster running_actions`), or give it up (`rladmin abort <action>`), then try again.";
    WrongClusterStateId = "wrong_cluster_state_id", 409, "The configuration changed since it was read.", "Read it again and repeat the change.";
    ConfigError = "config_error", 406, "The cluster's settings cannot be applied to this node.", "Follow the message.";
    ConnectError = "connect_error", 406, "The other node cannot be reached.", "Check the address, and that its ports 9443 and 3342 are open.";
    AccessDenied = "access_denied", 406, "The other node refused the user name or password.", "Use the e-mail and password given to `cluster create`.";
    FingerprintMismatch = "fingerprint_mismatch", 406, "The certificate of the other node was not issued by the expected CA.", "Compare with the fingerprint that `cluster create` printed; `rladmin info cluster` shows it again.";
    AlreadyMember = "already_member", 409, "This node is already part of a cluster.", "Nothing to do; to move it, uninstall and install it again.";
    NodeRemoved = "node_removed", 409, "This node was removed from its cluster.", "To use its machine again: run `rl_uninstall.sh` there, then `install.sh` and `rladmin cluster join nodes …`; until then it serves nothing.";
    NotMember = "not_member", 406, "This node is not part of a cluster yet.", "Run `rladmin cluster create` or `rladmin cluster join` first.";
    JoinSelf = "join_self", 406, "A node cannot join itself.", "Give the address of a node that is in the cluster.";
    VersionMismatch = "version_mismatch", 406, "This node's version is not the cluster's.", "Install the version that the cluster runs.";
    InsufficientNodeMemory = "insufficient_node_memory", 406, "The node has too little memory.", "Use a node with more memory.";
    TooManyNodes = "too_many_nodes", 406, "The cluster is full.", "Remove a node first.";
    NoQuorum = "no_quorum", 503, "Fewer than half of the configuration store's voters can be reached: nothing can be changed.", "Bring the other nodes' cnm_exec back; meanwhile databases of one copy go on where their node does, replicated ones as long as all of their copies answer.";
    NoPrimary = "no_primary", 503, "The cluster is choosing a primary node.", "Try again in a moment.";
    NotReady = "not_ready", 503, "A part of this node is not running yet.", "Try again in a moment; see `supervisorctl status`.";
    Timeout = "timeout", 504, "The answer did not come in time; the change may still happen.", "Look with `rladmin status`, then try again.";
    BodyTooLarge = "body_too_large", 413, "The body is larger than 1 MiB.", "Send a smaller body.";
    InternalError = "internal_error", 500, "Something failed that should not.", "See the log that the message names, and report it.";
}

impl ErrorCode {
    /// The code that is printed like this.
    #[must_use]
    pub fn named(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|code| code.as_str() == text)
    }
}

/// Codes of a newer release must not make unreadable what they stand in, stored documents above all.
impl<'de> Deserialize<'de> for ErrorCode {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Ok(Self::named(&text).unwrap_or(Self::NewerRelease))
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An error as the outside sees it: the body of a failed REST call.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize, thiserror::Error)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[error("{error_code}: {description}")]
pub struct ApiError {
    /// The code.
    pub error_code: ErrorCode,
    /// What went wrong here, and what to do.
    pub description: String,
}

impl ApiError {
    /// An error with its own description.
    pub fn new(error_code: ErrorCode, description: impl Into<String>) -> Self {
        Self {
            error_code,
            description: description.into(),
        }
    }
}

impl From<ErrorCode> for ApiError {
    fn from(code: ErrorCode) -> Self {
        Self::new(code, format!("{} {}", code.cause(), code.remedy()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_of_a_newer_release_can_be_read() {
        let text = r#"{"error_code":"of_a_later_release","description":"Why."}"#;
        let error: ApiError = serde_json::from_str(text).unwrap();
        assert_eq!(error.error_code, ErrorCode::NewerRelease);
        assert_eq!(error.description, "Why.");
        for code in ErrorCode::ALL {
            let text = serde_json::to_string(code).unwrap();
            assert_eq!(serde_json::from_str::<ErrorCode>(&text).unwrap(), *code);
        }
    }

    /// Who uses rladmin has no use for a path of REST; who uses REST finds it in its description.
    #[test]
    fn a_remedy_names_commands() {
        for code in ErrorCode::ALL {
            for part in ["/v1/", "GET ", "POST ", "PUT "] {
                assert!(!code.remedy().contains(part), "{code}: {part}");
            }
        }
    }

    #[test]
    fn codes_are_unique_and_have_a_remedy() {
        let mut seen = std::collections::BTreeSet::new();
        for code in ErrorCode::ALL {
            assert!(seen.insert(code.as_str()), "{code} stands twice");
            assert!(
                code.remedy().ends_with('.') && code.cause().ends_with('.'),
                "{code}"
            );
            assert!((400..=599).contains(&code.status()), "{code}");
        }
    }
}
