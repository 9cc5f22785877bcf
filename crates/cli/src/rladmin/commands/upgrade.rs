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
    notes: &[
        "Where the feature level rises, no node goes back after that. Asks first; -y answers yes.",
    ],
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

const SOAK: Kind = Kind::Number(0, SOAK_SECONDS_MAX as u64);

/// All nodes by one command.
pub(super) const START: Command = Command {
    words: &["cluster", "upgrade", "start"],
    verb: Verb::UpgradeStart,
    operand: None,
    fields: &[
        Field {
            required: true,
            ..Field::one("bundle", "tar", Kind::Text, "The tar of the new release.")
        },
        Field::one(
            "canary",
            "node",
            Kind::Node,
            "The node that goes first; left out: the primary node.",
        ),
        Field::one(
            "canary_soak_seconds",
            "seconds",
            SOAK,
            "How long the first node is watched before the second one; left out: as soak_seconds.",
        ),
        Field::one(
            "soak_seconds",
            "seconds",
            SOAK,
            "How long each node is watched before the next one; left out: 0.",
        ),
        Field::flag(
            "hold_finalize",
            "The feature level waits for `finalize` at the end.",
        ),
    ],
    some_field: false,
    summary: "Upgrades all nodes, one after the other.",
    notes: &[
        "The bundle is given once; each node fetches it, and root there verifies it by the keys of its install. \
         What goes wrong pauses the upgrade, with a code. See docs/upgrade.md.",
    ],
};

const fn of_run(words: &'static [&'static str], verb: Verb, summary: &'static str) -> Command {
    Command {
        words,
        verb,
        operand: None,
        fields: &[],
        some_field: false,
        summary,
        notes: &[],
    }
}

/// It is looked at until it ends.
pub(super) const WATCH: Command = of_run(
    &["cluster", "upgrade", "watch"],
    Verb::UpgradeWatch,
    "Shows an upgrade of all nodes until it has ended, or waits for an operator (exit code 1).",
);

/// No further turn.
pub(super) const PAUSE: Command = of_run(
    &["cluster", "upgrade", "pause"],
    Verb::UpgradePause,
    "Has no further node's turn begin; one that has begun is ended.",
);

/// On again.
pub(super) const RESUME: Command = of_run(
    &["cluster", "upgrade", "resume"],
    Verb::UpgradeResume,
    "Goes on with an upgrade of all nodes that pauses.",
);

/// All back.
pub(super) const ROLLBACK: Command = of_run(
    &["cluster", "upgrade", "rollback"],
    Verb::UpgradeRollback,
    "Takes every upgraded node back to the release before, one after the other, until it is finalised.",
);

/// How it went.
pub(super) const REPORT: Command = of_run(
    &["cluster", "upgrade", "report"],
    Verb::UpgradeReport,
    "Shows each node's time, and what happened to its clients.",
);

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
