//! The feature level of a cluster of one node. The two releases are one program, stamped twice; the second says of
//! itself that it knows a level more.

use crate::bench::{Bench, FIRST, SECOND, bundle, change_signed, copy_of, is_root, wait_until};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

#[test]
fn back_until_finalised_and_not_after_with_two_versions_of_one_program() {
    if !is_root() {
        return;
    }
    let bench = Bench::new();
    bench.install(&bundle(FIRST));
    bench.create_cluster();
    let second = copy_of(&bundle(SECOND), &bench.path("second"));
    change_signed(&second, |manifest| manifest["feature_max"] = 2.into());
    let good = |words: &[&str]| {
        let ran = bench.rladmin(words);
        assert_eq!(ran.code, Some(0), "{words:?}: {}", ran.text);
        ran.text
    };
    let config = ["cluster", "upgrade", "config"];
    good(
        &[
            &config[..],
            &["hold_finalize", "enabled", "soak_seconds", "0"],
        ]
        .concat(),
    );
    let path = second.display().to_string();
    let words = ["cluster", "upgrade", "plan", "bundle", &path];
    wait_until("nothing stands against it", || {
        bench.rladmin(&words).code == Some(0)
    });
    let plan = good(&words);
    assert!(plan.contains("feature level 1 to 2"), "{plan}");
    // A cluster of one node.
    assert!(plan.contains("WARNING upgrade_quorum_at_risk"), "{plan}");
    assert!(!plan.contains("BLOCKER"), "{plan}");
    assert!(good(&["explain", "upgrade_primary_first"]).contains("ignore_master_version"));
    let paths = good(&["cluster", "upgrade", "paths", "to", "1.4.0"]);
    assert!(paths.contains("direct"), "{paths}");

    // Forward, and back while that can be.
    let ran = bench.install_sh(&second, &[]);
    assert_eq!(ran.code, Some(0), "{}", ran.text);
    assert!(ran.text.contains("it is watched for"), "{}", ran.text);
    assert!(
        ran.text.contains("clients of this node: 0 errors"),
        "{}",
        ran.text
    );
    wait_until("it waits for an operator", || {
        good(&["cluster", "upgrade", "status"])
            .contains("waits for `rladmin cluster upgrade finalize`")
    });
    let back = bench.install_sh(&second, &["--rollback"]);
    assert_eq!(back.code, Some(0), "{}", back.text);
    wait_until("the upgrade is taken back", || {
        good(&["cluster", "upgrade", "status"]).contains("No upgrade is under way.")
    });

    // Forward for good.
    let ran = bench.install_sh(&second, &[]);
    assert_eq!(ran.code, Some(0), "{}", ran.text);
    let done = good(&["cluster", "upgrade", "finalize", "-y"]);
    assert!(done.contains("feature level 2"), "{done}");
    let status = good(&["cluster", "upgrade", "status"]);
    assert!(
        status.contains("feature level 1 to 2, finalised"),
        "{status}"
    );
    let back = bench.install_sh(&second, &["--rollback"]);
    assert_eq!(back.code, Some(1), "{}", back.text);
    assert!(
        back.text.contains("the upgrade is finalised"),
        "{}",
        back.text
    );

    the_older_release_does_not_start(&bench);
    a_spoilt_bundle_is_named(&bench, &second);
    bench.uninstall();
}

/// The plan says what install.sh would.
fn a_spoilt_bundle_is_named(bench: &Bench, good: &Path) {
    let plan = |path: &Path| {
        let path = path.display().to_string();
        bench.rladmin(&["cluster", "upgrade", "plan", "bundle", &path])
    };
    let refused = |path: &Path| {
        let ran = plan(path);
        assert_ne!(ran.code, Some(0), "{}", ran.text);
        ran.text
    };
    let tar = bench.path("good.tar");
    let status = Command::new("tar")
        .arg("cf")
        .arg(&tar)
        .arg("-C")
        .arg(good)
        .args([
            "manifest.json",
            "manifest.json.minisig",
            "README.md",
            "install.sh",
            "release",
        ])
        .status();
    assert!(status.unwrap().success());
    assert_eq!(plan(&tar).code, Some(0), "{}", plan(&tar).text);
    let bytes = fs::read(&tar).unwrap();
    let cut = bench.path("cut.tar");
    fs::write(&cut, &bytes[..bytes.len() / 2]).unwrap();
    let said = refused(&cut);
    assert!(said.contains("it is cut short"), "{said}");
    let spoilt = copy_of(good, &bench.path("spoilt"));
    let mut program = fs::read(spoilt.join("release/bin/dmcproxy")).unwrap();
    program[1000] ^= 1;
    fs::write(spoilt.join("release/bin/dmcproxy"), program).unwrap();
    let said = refused(&spoilt);
    assert!(said.contains("release/bin/dmcproxy: altered"), "{said}");
    assert!(refused(&bench.path("none")).contains("No such file"));
    let log = fs::read_to_string(bench.path("var/mainstay/log/install.log")).unwrap();
    assert!(log.contains("the node is well"), "{log}");
}

fn the_older_release_does_not_start(bench: &Bench) {
    let current = bench.install_dir().join("current");
    let point_at = |version: &str| {
        fs::remove_file(&current).unwrap();
        symlink(format!("releases/{version}"), &current).unwrap();
    };
    point_at(FIRST);
    let restart = || {
        let program = bench.install_dir().join("bin/supervisorctl");
        let _ = Command::new(program).args(["restart", "cnm_exec"]).output();
    };
    restart();
    let log = bench.path("var/mainstay/log/cnm_exec.log");
    wait_until("the older release refuses to start", || {
        let text = fs::read_to_string(&log).unwrap_or_default();
        text.contains("the cluster uses feature level 2, this release knows 1 to 1")
    });
    point_at(SECOND);
    restart();
    wait_until("the newer one starts", || {
        bench.rladmin(&["cluster", "upgrade", "status"]).code == Some(0)
    });
}
