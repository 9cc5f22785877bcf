//! Killed at any step, run again: it goes on and completes.

use crate::bench::{Bench, FIRST, SECOND, bundle, is_root, last_release, ran, this_tree, traces};
use std::path::Path;

const STEPS: [&str; 10] = [
    "record",
    "accounts",
    "folders",
    "unpack",
    "supervisor",
    "configuration",
    "programs",
    "switch",
    "system",
    "start",
];

/// Runs install.sh and has it killed; says what it said.
fn cut(bench: &Bench, bundle: &Path, options: &[String], at: &str) -> String {
    let mut command = bench.command(bundle);
    let output = command
        .arg("-y")
        .args(options)
        .env("MAINSTAY_INSTALL_CUT", at)
        .output()
        .unwrap();
    let ran = ran(&output);
    assert_eq!(ran.code, None, "it was not cut {at}:\n{}", ran.text);
    ran.text
}

#[test]
fn a_new_install_goes_on_from_every_step() {
    if !is_root() {
        return;
    }
    let before = traces();
    let bench = Bench::new();
    let bundle = bundle(FIRST);
    // One install, cut at each step in turn: every run begins with what the one before left.
    for (at, step) in STEPS.iter().enumerate() {
        for when in ["before", "after"] {
            // A first install takes its options; one that goes on needs none.
            let options = if at == 0 { bench.places() } else { Vec::new() };
            let text = cut(&bench, &bundle, &options, &format!("{when}:{step}"));
            if at > 0 {
                assert!(
                    text.contains("going on with the unfinished install"),
                    "{text}"
                );
            }
        }
    }
    let other = bench.install_sh(&crate::bench::bundle(SECOND), &[]);
    assert_eq!(other.code, Some(1), "{}", other.text);
    assert!(
        other
            .text
            .contains("finish it with the install.sh of 1.0.0"),
        "{}",
        other.text
    );

    let ran = bench.install_sh(&bundle, &[]);
    assert_eq!(ran.code, Some(0), "{}", ran.text);
    assert!(ran.text.contains("is installed in"), "{}", ran.text);
    for daemon in ["cnm_exec", "cnm_http", "dmcproxy"] {
        assert!(bench.pid_of(daemon).is_some(), "{daemon} does not run");
    }
    bench.uninstall();
    assert_eq!(before, traces());
    assert_eq!(std::fs::read_dir(bench.root.path()).unwrap().count(), 0);
}

#[test]
fn an_unfinished_install_can_be_removed() {
    if !is_root() {
        return;
    }
    let before = traces();
    for at in [
        "before:record",
        "after:record",
        "after:accounts",
        "after:unpack",
    ] {
        let bench = Bench::new();
        let places = bench.places();
        cut(&bench, &bundle(FIRST), &places, at);
        // Before the record there is nothing to remove.
        if at != "before:record" {
            bench.uninstall();
        }
        assert_eq!(before, traces(), "{at}");
        assert_eq!(
            std::fs::read_dir(bench.root.path()).unwrap().count(),
            0,
            "{at}"
        );
    }
}

/// Every step that an upgrade writes down, in order.
pub(crate) const UPGRADE: [&str; 14] = [
    "unpack",
    "supervisor",
    "configuration",
    "programs",
    "system",
    "announce",
    "switch",
    "cnm_http",
    "cnm_exec",
    "dmcproxy",
    "mainstay-node",
    "gate",
    "watch",
    "finish",
];

/// Every place on the way back.
pub(crate) const ROLLBACK: [&str; 7] = [
    "after:rollback-announce",
    "after:rollback-switch",
    "after:rollback-cnm_http",
    "after:rollback-cnm_exec",
    "after:rollback-dmcproxy",
    "after:rollback-mainstay-node",
    "before:rollback-finish",
];

/// Of a node that is a cluster: 28 places forward, 7 back.
#[test]
fn an_upgrade_from_the_last_release_goes_on_from_every_step() {
    if !is_root() {
        return;
    }
    let bench = Bench::new();
    let (last, this) = (last_release(), this_tree());
    bench.install(&last.bundle);
    bench.create_cluster();
    let second = this.bundle;
    for step in UPGRADE {
        for when in ["before", "after"] {
            let text = cut(&bench, &second, &[], &format!("{when}:{step}"));
            assert!(!text.contains("going back"), "{when}:{step}\n{text}");
        }
    }
    let first = bench.install_sh(&last.bundle, &[]);
    assert_eq!(first.code, Some(1), "{}", first.text);
    assert!(
        first.text.contains(&format!(
            "an upgrade from {} to {} is unfinished",
            last.version, this.version
        )),
        "{}",
        first.text
    );
    let exec = bench.pid_of("cnm_exec");

    // Taken back from the middle of it, with cuts in the middle of that.
    for at in ROLLBACK {
        cut(&bench, &second, &["--rollback".to_owned()], at);
    }
    let ran = bench.install_sh(&second, &["--rollback"]);
    assert_eq!(ran.code, Some(0), "{}", ran.text);
    assert!(
        ran.text
            .contains(&format!("runs Mainstay {} again", last.version)),
        "{}",
        ran.text
    );
    let current = std::fs::read_link(bench.install_dir().join("current")).unwrap();
    assert_eq!(current, Path::new(&format!("releases/{}", last.version)));
    assert_ne!(bench.pid_of("cnm_exec"), exec);
    let status = bench.rladmin(&["cluster", "upgrade", "status"]);
    assert!(
        status.text.contains("No upgrade is under way."),
        "{}",
        status.text
    );

    // And forward again from the middle.
    cut(&bench, &second, &[], "after:switch");
    let ran = bench.install_sh(&second, &[]);
    assert_eq!(ran.code, Some(0), "{}", ran.text);
    assert!(
        ran.text
            .contains(&format!("runs Mainstay {}", this.version)),
        "{}",
        ran.text
    );
    bench.uninstall();
}
