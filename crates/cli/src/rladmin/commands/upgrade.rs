//! The commands of upgrades.

use super::SWITCH;
use crate::rladmin::grammar::{Command, Field, Kind, Operand, Verb};
use model::upgrade::SOAK_SECONDS_MAX;

const BUNDLE: Field = Field::one(
    "bundle",
    "path",
    Kind::Text,
    "Folder of an unpacked bundle, or the tar; left out: this node's release.",
);

/// How far an upgrade is.
pub(super) const STATUS: Command = Command {
    words: &["cluster", "upgrade", "status"],
    verb: Verb::UpgradeStatus,
    operand: None,
    fields: &[],
    some_field: false,
    summary: "Shows the feature level, and how far an upgrade is.",
    notes: &[],
};

/// How it would go.
pub(super) const PLAN: Command = Command {
    words: &["cluster", "upgrade", "plan"],
    verb: Verb::UpgradePlan,
    operand: None,
    fields: &[BUNDLE],
    some_field: false,
    summary: "Shows how an upgrade would go and what stands against it; changes nothing.",
    notes: &[
        "Exit code 1 if something stands against it. `explain <code>` has more of a finding. install.sh \
         asks the same list before it begins.",
    ],
};

/// Which upgrades there are.
pub(super) const PATHS: Command = Command {
    words: &["cluster", "upgrade", "paths"],
    verb: Verb::UpgradePaths,
    operand: None,
    fields: &[
        BUNDLE,
        Field::one(
            "to",
            "version",
            Kind::Text,
            "The version to go to; left out: the release's own.",
        ),
    ],
    some_field: false,
    summary: "Shows which upgrades a release knows, and each node's way to a version.",
    notes: &[],
};

/// No way back from here.
pub(super) const FINALIZE: Command = Command {
    words: &["cluster", "upgrade", "finalize"],
    verb: Verb::UpgradeFinalize,
    operand: None,
    fields: &[],
    some_field: false,
    summary: "Ends an upgrade without waiting for the end of the soak.",
    notes: &["The feature level rises: after that no node goes back. Asks first; -y answers yes."],
};

/// How upgrades end.
pub(super) const CONFIG: Command = Command {
    words: &["cluster", "upgrade", "config"],
    verb: Verb::UpgradeConfig,
    operand: None,
    fields: &[
        Field::one(
            "hold_finalize",
            "",
            SWITCH,
            "Whether the level waits for `finalize` after the soak.",
        ),
        Field::one(
            "soak_seconds",
            "seconds",
            Kind::Number(0, SOAK_SECONDS_MAX as u64),
            "How long all nodes run the new release before the level rises.",
        ),
    ],
    some_field: true,
    summary: "Changes how upgrades end.",
    notes: &[],
};

/// What a code means.
pub(super) const EXPLAIN: Command = Command {
    words: &["explain"],
    verb: Verb::Explain,
    operand: Some(Operand {
        name: "code",
        kind: Kind::Text,
        required: true,
        help: "The code of an error or a finding.",
    }),
    fields: &[],
    some_field: false,
    summary: "Says what a code means and what to do about it.",
    notes: &[],
};
