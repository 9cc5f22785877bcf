//! An install from the first to the last day: the same version again, repairs, killed processes,
//! removal without a trace.

use crate::bench::{Bench, FIRST, bundle, is_root, traces, wait_until};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::Command;

#[test]
fn from_install_to_uninstall() {
    if !is_root() {
        return;
    }
    let before = traces();
    let bench = Bench::new();
    let said = bench.install(&bundle(FIRST));
    let url = format!("REST API: https://{}:9443", bench.address);
    assert!(
        said.contains(&url) && said.contains("rladmin cluster create"),
        "{said}"
    );
    let log = fs::read_to_string(bench.path("var/mainstay/log/install.log")).unwrap();
    assert!(log.contains("[!] new install of Mainstay 1.0.0"), "{log}");

    nothing_to_repair(&bench);
    repairs(&bench);
    killed_processes_come_back(&bench);

    bench.uninstall();
    assert_eq!(before, traces());
    assert_eq!(fs::read_dir(bench.root.path()).unwrap().count(), 0);
}

/// The same version again changes nothing, and says so.
fn nothing_to_repair(bench: &Bench) {
    let pid = bench.pid_of("cnm_exec");
    let record = fs::read(bench.path("etc/mainstay/install.json")).unwrap();
    let places = bench.places();
    let places: Vec<&str> = places.iter().map(String::as_str).collect();
    let ran = bench.install_sh(&bundle(FIRST), &places);
    assert_eq!(ran.code, Some(0), "{}", ran.text);
    assert!(
        ran.text
            .contains("everything is as it should be, nothing was changed"),
        "{}",
        ran.text
    );
    assert_eq!(pid, bench.pid_of("cnm_exec"));
    assert_eq!(
        record,
        fs::read(bench.path("etc/mainstay/install.json")).unwrap()
    );

    let ran = bench.install_sh(&bundle(FIRST), &["--var-dir", "/var/tmp/elsewhere"]);
    assert_eq!(ran.code, Some(1), "{}", ran.text);
    assert!(
        ran.text.contains("--var-dir cannot be changed"),
        "{}",
        ran.text
    );
}

/// What is missing, altered or of another owner is put right, and what runs is not disturbed.
fn repairs(bench: &Bench) {
    let pid = bench.pid_of("cnm_exec");
    let release = bench.install_dir().join("releases/1.0.0");
    let rladmin = release.join("bin/rladmin");
    let engine = release.join("engines/valkey-9.1.2/bin/valkey-server");
    let conf = bench.path("etc/mainstay/supervisord.conf");
    let owner = fs::metadata(&rladmin).unwrap().uid();
    fs::write(&rladmin, "altered").unwrap();
    fs::remove_dir_all(engine.parent().unwrap()).unwrap();
    fs::set_permissions(
        release.join("bin/rlcheck"),
        fs::Permissions::from_mode(0o600),
    )
    .unwrap();
    std::os::unix::fs::chown(release.join("NOTICE"), Some(0), Some(0)).unwrap();
    fs::write(&conf, "altered").unwrap();
    fs::remove_file(bench.install_dir().join("bin")).unwrap();
    fs::remove_file(bench.install_dir().join("current")).unwrap();
    fs::remove_dir_all(
        bench
            .install_dir()
            .join("supervisor-4.3.0/supervisor/medusa"),
    )
    .unwrap();
    fs::set_permissions(
        bench.path("var/mainstay"),
        fs::Permissions::from_mode(0o777),
    )
    .unwrap();

    let ran = bench.install_sh(&bundle(FIRST), &[]);
    assert_eq!(ran.code, Some(0), "{}", ran.text);
    assert!(ran.text.contains("repaired:"), "{}", ran.text);
    for name in [
        "bin/rladmin",
        "bin/valkey-server",
        "supervisord.conf",
        "supervisor-4.3.0",
    ] {
        assert!(
            ran.text.contains(name),
            "{name} is not named in:\n{}",
            ran.text
        );
    }
    assert_eq!(pid, bench.pid_of("cnm_exec"));
    assert_eq!(fs::metadata(&rladmin).unwrap().uid(), owner);
    assert_eq!(
        fs::metadata(bench.path("var/mainstay")).unwrap().mode() & 0o777,
        0o750
    );
    let again = bench.install_sh(&bundle(FIRST), &[]);
    assert!(again.text.contains("nothing was changed"), "{}", again.text);
}

fn runs(pid: &str) -> bool {
    installer::processes::Process::of(pid.parse().unwrap()).is_some()
}

fn kill(pid: &str) {
    assert!(
        Command::new("kill")
            .args(["-9", pid])
            .status()
            .unwrap()
            .success()
    );
}

/// A killed supervisord is started again, once; a killed mainstay-node takes it along, and the same
/// version again brings all back.
fn killed_processes_come_back(bench: &Bench) {
    let supervisord = fs::read_to_string(bench.path("var/mainstay/run/supervisord.pid")).unwrap();
    let exec = bench.pid_of("cnm_exec").unwrap();
    kill(supervisord.trim());
    wait_until("supervisord and its daemons are started again", || {
        ["cnm_exec", "cnm_http", "dmcproxy"]
            .iter()
            .all(|name| bench.pid_of(name).is_some())
            && bench.pid_of("cnm_exec").as_ref() != Some(&exec)
    });
    wait_until("the old cnm_exec has ended", || !runs(&exec));

    let supervisord = fs::read_to_string(bench.path("var/mainstay/run/supervisord.pid")).unwrap();
    kill(&bench.node_pid());
    wait_until("supervisord ends with mainstay-node", || {
        !runs(supervisord.trim())
    });
    let ran = bench.install_sh(&bundle(FIRST), &[]);
    assert_eq!(ran.code, Some(0), "{}", ran.text);
    assert!(
        ran.text.contains("mainstay-node and the daemons"),
        "{}",
        ran.text
    );
}

#[test]
fn two_installs_share_the_user_and_nothing_else() {
    if !is_root() {
        return;
    }
    let before = traces();
    let bench = Bench::new();
    bench.install(&bundle(FIRST));
    let octets = bench.address.octets();
    let second = format!("127.{}.{}.12", octets[1], octets[2]);
    let mut command = Command::new(bundle(FIRST).join("install.sh"));
    let output = command
        .args(["-y", "--address", &second])
        .args(bench.places())
        .output()
        .unwrap();
    let same = crate::bench::ran(&output);
    assert!(
        same.text.contains("belongs to another install"),
        "{}",
        same.text
    );

    let path = |name: &str| bench.path(name).display().to_string();
    let output = Command::new(bundle(FIRST).join("install.sh"))
        .args([
            "-y",
            "--address",
            &second,
            "--skip-dns-port-verification",
            "--memory",
            "1GB",
        ])
        .args([
            "--install-dir",
            &path("b/opt"),
            "--config-dir",
            &path("b/etc"),
        ])
        .args(["--var-dir", &path("b/var")])
        .output()
        .unwrap();
    let other = crate::bench::ran(&output);
    assert_eq!(other.code, Some(0), "{}", other.text);

    // Without an address it is not clear which one is meant.
    let output = Command::new(bundle(FIRST).join("install.sh"))
        .arg("-y")
        .output()
        .unwrap();
    let unclear = crate::bench::ran(&output);
    assert_eq!(unclear.code, Some(1), "{}", unclear.text);
    assert!(
        unclear
            .text
            .contains("say with --address which one is meant"),
        "{}",
        unclear.text
    );

    // The one that made the user goes first: the user stays for the other.
    bench.uninstall();
    assert!(installer::accounts::user("mainstay").is_some());
    let output = Command::new(bench.path("b/opt/mainstay/sbin/rl_uninstall.sh"))
        .arg("-y")
        .output()
        .unwrap();
    let removed = crate::bench::ran(&output);
    assert_eq!(removed.code, Some(0), "{}", removed.text);
    assert_eq!(before, traces());
}
