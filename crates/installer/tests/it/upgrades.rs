//! Forward, back, and what is refused.

use crate::bench::{
    Bench, FIRST, SECOND, bundle, change_signed, copy_of, is_root, last_release, ran,
    replace_signed, this_tree, wait_until,
};
use std::fs;
use std::path::Path;
use std::process::Command;

fn program_of(pid: &str) -> std::path::PathBuf {
    fs::read_link(format!("/proc/{pid}/exe")).unwrap()
}

#[test]
fn forward_from_the_last_release_and_back() {
    if !is_root() {
        return;
    }
    let bench = Bench::new();
    let (last, this) = (last_release(), this_tree());
    bench.install(&last.bundle);
    let second = this.bundle;
    for (options, name) in [
        (&["--var-dir", "/var/tmp/x"][..], "--var-dir"),
        (&["--os-user", "nobody"], "--os-user"),
        (&["-s", "/run/x"], "-s"),
        (&["--memory", "1GB"], "--memory"),
    ] {
        let ran = bench.install_sh(&second, options);
        assert_eq!(ran.code, Some(1), "{}", ran.text);
        let wanted = format!("[x] Error: {name} cannot be set during upgrade");
        assert!(ran.text.contains(&wanted), "{}", ran.text);
    }
    refusals(&bench);

    let node = bench.node_pid();
    let exec = bench.pid_of("cnm_exec").unwrap();
    let ran = bench.install_sh(&second, &[]);
    assert_eq!(ran.code, Some(0), "{}", ran.text);
    assert!(
        ran.text.contains(&format!(
            "from Mainstay {} to {}",
            last.version, this.version
        )),
        "{}",
        ran.text
    );
    assert_eq!(
        bench.node_pid(),
        node,
        "the unit's main process stays the same process"
    );
    let release = bench
        .install_dir()
        .join(format!("releases/{}/bin", this.version));
    assert_eq!(program_of(&node), release.join("mainstay-node"));
    let new = bench.pid_of("cnm_exec").unwrap();
    assert_ne!(new, exec);
    assert_eq!(program_of(&new), release.join("cnm_exec"));

    let down = bench.install_sh(&last.bundle, &[]);
    assert_eq!(down.code, Some(1), "{}", down.text);
    assert!(down.text.contains("there is no downgrade"), "{}", down.text);
    assert!(down.text.contains("--rollback"), "{}", down.text);

    let back = bench.install_sh(&second, &["--rollback"]);
    assert_eq!(back.code, Some(0), "{}", back.text);
    assert!(
        back.text
            .contains(&format!("runs Mainstay {} again", last.version)),
        "{}",
        back.text
    );
    let again = bench.install_sh(&second, &["--rollback"]);
    assert_eq!(again.code, Some(1), "{}", again.text);
    assert!(
        again.text.contains("there is none to go back to"),
        "{}",
        again.text
    );
    bench.uninstall();
}

#[test]
fn a_release_that_does_not_come_up_is_taken_back_to_the_last_one() {
    if !is_root() {
        return;
    }
    let bench = Bench::new();
    let (last, this) = (last_release(), this_tree());
    bench.install(&last.bundle);
    let bad = copy_of(&this.bundle, &bench.path("bad"));
    replace_signed(
        &bad,
        "release/bin/cnm_exec",
        b"#!/bin/sh\necho out of order >&2\nexit 1\n",
    );
    let ran = bench.install_sh(&bad, &[]);
    assert_eq!(ran.code, Some(3), "{}", ran.text);
    assert!(
        ran.text
            .contains(&format!("Mainstay {} does not come up", this.version)),
        "{}",
        ran.text
    );
    assert!(ran.text.contains("out of order"), "{}", ran.text);
    assert!(
        ran.text
            .contains(&format!("the node runs Mainstay {} again", last.version)),
        "{}",
        ran.text
    );
    let current = fs::read_link(bench.install_dir().join("current")).unwrap();
    assert_eq!(current, Path::new(&format!("releases/{}", last.version)));
    wait_until("the old daemons run", || {
        ["cnm_exec", "cnm_http", "dmcproxy"]
            .iter()
            .all(|name| bench.pid_of(name).is_some())
    });

    // The good release of the same version is another build: it replaces what the bad one left.
    let ran = bench.install_sh(&this.bundle, &[]);
    assert_eq!(ran.code, Some(0), "{}", ran.text);
    bench.uninstall();
}

/// A program that comes up, and after some seconds it ends; or it never does, and answers nobody.
fn program_that_sleeps(bench: &Bench, seconds: u32) -> Vec<u8> {
    let source = bench.path("sleeps.rs");
    let text =
        format!("fn main() {{ std::thread::sleep(std::time::Duration::from_secs({seconds})); }}\n");
    fs::write(&source, text).unwrap();
    let program = bench.path("sleeps");
    let status = Command::new("rustc")
        .arg("-o")
        .arg(&program)
        .arg(&source)
        .status()
        .unwrap();
    assert!(status.success());
    fs::read(program).unwrap()
}

/// Both are found out, and the node goes back by itself.
#[test]
fn a_release_that_crashes_later_or_serves_nobody_is_taken_back() {
    if !is_root() {
        return;
    }
    let bench = Bench::new();
    bench.install(&bundle(FIRST));
    bench.create_cluster();
    for (name, seconds, why) in [
        ("dmcproxy", 5, "dmcproxy"),
        ("cnm_exec", 3_600, "cnm_exec cannot tell of the cluster"),
    ] {
        let bad = copy_of(&bundle(SECOND), &bench.path(&format!("bad-{name}")));
        let program = program_that_sleeps(&bench, seconds);
        replace_signed(&bad, &format!("release/bin/{name}"), &program);
        let output = bench
            .watching(&bad)
            .env("MAINSTAY_INSTALL_PATIENCE", "8")
            .output();
        let ran = ran(&output.unwrap());
        assert_eq!(ran.code, Some(3), "{}", ran.text);
        assert!(ran.text.contains(why), "{}", ran.text);
        assert!(
            ran.text.contains("the node runs Mainstay 1.0.0 again"),
            "{}",
            ran.text
        );
        wait_until("the old release is heard", || {
            let status = bench.rladmin(&["cluster", "upgrade", "status"]);
            status.text.contains("No upgrade is under way.")
        });
    }
    // The proxy that only came up and ended, where nobody asks it: watching finds it out.
    bench.uninstall();
    drop(bench);
    let alone = Bench::new();
    alone.install(&bundle(FIRST));
    let bad = copy_of(&bundle(SECOND), &alone.path("bad-later"));
    let program = program_that_sleeps(&alone, 5);
    replace_signed(&bad, "release/bin/dmcproxy", &program);
    let ran = ran(&alone.watching(&bad).output().unwrap());
    assert_eq!(ran.code, Some(3), "{}", ran.text);
    assert!(
        ran.text.contains("dmcproxy came up and ended"),
        "{}",
        ran.text
    );
    alone.uninstall();
}

/// Refused before anything is unpacked.
fn refusals(bench: &Bench) {
    let releases = bench.install_dir().join("releases");

    let foreign = copy_of(&bundle(SECOND), &bench.path("foreign"));
    let pair = minisign::KeyPair::generate_unencrypted_keypair().unwrap();
    let manifest = fs::read(foreign.join("manifest.json")).unwrap();
    let signature = minisign::sign(None, &pair.sk, manifest.as_slice(), None, None).unwrap();
    fs::write(
        foreign.join("manifest.json.minisig"),
        signature.into_string(),
    )
    .unwrap();
    let ran = bench.install_sh(&foreign, &[]);
    assert_eq!(ran.code, Some(1), "{}", ran.text);
    assert!(
        ran.text
            .contains("not signed with a key that is trusted here"),
        "{}",
        ran.text
    );

    let folder = copy_of(&bundle(SECOND), &bench.path("far"));
    change_signed(&folder, |manifest| manifest["version"] = "3.0.0".into());
    let ran = bench.install_sh(&folder, &[]);
    assert_eq!(ran.code, Some(1), "{}", ran.text);
    assert!(
        ran.text.contains(&format!(
            "no supported upgrade from {} to 3.0.0",
            last_release().version
        )),
        "{}",
        ran.text
    );
    assert_eq!(fs::read_dir(releases).unwrap().count(), 1);
}
