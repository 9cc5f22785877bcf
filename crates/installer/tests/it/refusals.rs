//! What is refused leaves nothing behind.

use crate::bench::{Bench, FIRST, bundle, is_root, others, ran, traces, wait_until};
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::process::{Command, Stdio};

/// Runs install.sh, which must refuse with `wanted` and change nothing.
fn refused(bench: &Bench, options: &[&str], wanted: &str) {
    let before = (traces(), folder(bench));
    let ran = bench.install_sh(&bundle(FIRST), options);
    assert_eq!(ran.code, Some(1), "{}", ran.text);
    assert!(ran.text.contains(" [x] Error: "), "{}", ran.text);
    assert!(
        ran.text.contains(wanted),
        "wanted '{wanted}' in:\n{}",
        ran.text
    );
    assert_eq!(before, (traces(), folder(bench)), "after: {}", ran.text);
}

fn folder(bench: &Bench) -> Vec<String> {
    let entries = walkdir::WalkDir::new(bench.root.path()).sort_by_file_name();
    entries
        .into_iter()
        .map(|entry| entry.unwrap().path().display().to_string())
        .collect()
}

#[test]
fn options_that_cannot_be() {
    if !is_root() {
        return;
    }
    let bench = Bench::new();
    let long = format!("/var/tmp/{}", "x".repeat(90));
    let answers = bench.path("answers");
    fs::write(&answers, "systune=no\nswap=no\n").unwrap();
    let places = bench.places();
    let with = |more: &[&str], wanted: &str| {
        let mut options: Vec<&str> = places.iter().map(String::as_str).collect();
        options.extend(more);
        refused(&bench, &options, wanted);
    };
    refused(&bench, &["--install-dir", "relative"], "must begin with /");
    refused(&bench, &["--install-dir", "/a b"], "holds ' '");
    with(&["-s", &long], "a unix socket takes 107");
    with(
        &["-s", "/run"],
        "/run is not empty and belongs to no install",
    );
    with(&["--memory", "lots"], "--memory");
    with(&["--memory", "9000GB"], "--memory 8.79TB: this machine has");
    with(&["--os-user", "root"], "do not run as root");
    with(&["--os-user", "nosuchuser"], "must exist");
    with(&["-c", "/nonexistent"], "answers file /nonexistent");
    with(
        &["-c", answers.to_str().unwrap()],
        "line 2: unknown key 'swap'",
    );
    with(&["--key", "/nonexistent.pub"], "key file /nonexistent.pub");
    with(&["--rollback"], "nothing is installed here");
    let output = Command::new(bundle(FIRST).join("install.sh"))
        .args(["-y", "--address", "203.0.113.9"])
        .args(&places)
        .output()
        .unwrap();
    let ran = ran(&output);
    assert!(
        ran.text
            .contains("203.0.113.9 is not an address of this machine"),
        "{}",
        ran.text
    );
}

#[test]
fn places_that_cannot_be() {
    if !is_root() {
        return;
    }
    let bench = Bench::new();
    let places = bench.places();
    let places: Vec<&str> = places.iter().map(String::as_str).collect();

    fs::create_dir_all(bench.path("var/mainstay")).unwrap();
    fs::write(bench.path("var/mainstay/precious"), "").unwrap();
    refused(&bench, &places, "is not empty and belongs to no install");
    fs::remove_dir_all(bench.path("var")).unwrap();

    fs::create_dir(bench.path("opt")).unwrap();
    fs::set_permissions(bench.path("opt"), fs::Permissions::from_mode(0o750)).unwrap();
    refused(&bench, &places, "user mainstay cannot enter");
    fs::remove_dir(bench.path("opt")).unwrap();

    let same = bench.path("opt").display().to_string();
    refused(
        &bench,
        &[
            "--install-dir",
            &same,
            "--config-dir",
            &same,
            "--var-dir",
            &same,
        ],
        "cannot share",
    );
}

#[test]
fn a_taken_port_is_refused_with_its_holder() {
    if !is_root() {
        return;
    }
    let bench = Bench::new();
    let places = bench.places();
    let places: Vec<&str> = places.iter().map(String::as_str).collect();
    let listener = TcpListener::bind((bench.address, 9443)).unwrap();
    let me = format!("(pid {})", std::process::id());
    refused(&bench, &places, "port 9443 (REST) is held by ");
    refused(&bench, &places, &me);
    drop(listener);
}

#[test]
fn nobody_but_root() {
    if !is_root() {
        return;
    }
    let bench = Bench::new();
    let copy = crate::bench::copy_of(&bundle(FIRST), &bench.path("bundle"));
    let output = Command::new("setpriv")
        .args(["--reuid=65534", "--clear-groups", "--"])
        .arg(copy.join("install.sh"))
        .arg("-y")
        .output()
        .unwrap();
    let ran = ran(&output);
    assert_eq!(ran.code, Some(2), "{}", ran.text);
    assert!(
        ran.text.contains("[x] Error: root is needed"),
        "{}",
        ran.text
    );
}

#[test]
fn a_question_that_nobody_answers_ends_the_run() {
    if !is_root() {
        return;
    }
    let bench = Bench::new();
    if !others().is_empty() {
        eprintln!(
            "not run: other installs of this machine have the user, which is then no question"
        );
        return;
    }
    let before = traces();
    let status = Command::new("groupadd")
        .args(["--system", "mainstay"])
        .status()
        .unwrap();
    assert!(
        status.success(),
        "a group mainstay is there already: uninstall what made it"
    );
    let output = bench
        .command(&bundle(FIRST))
        .args(bench.places())
        .output()
        .unwrap();
    Command::new("groupdel").arg("mainstay").status().unwrap();
    let ran = ran(&output);
    assert_eq!(ran.code, Some(1), "{}", ran.text);
    assert!(
        ran.text
            .contains("[?] User or group mainstay exist already"),
        "{}",
        ran.text
    );
    assert!(ran.text.contains("nobody answered"), "{}", ran.text);
    assert_eq!(before, traces());
}

/// One that waits for another says for whom; a terminal that goes away ends nothing, Ctrl-C does, with a word.
#[test]
fn a_second_installer_waits_and_can_be_interrupted() {
    if !is_root() {
        return;
    }
    let before = traces();
    let bench = Bench::new();
    let name = SocketAddr::from_abstract_name("mainstay-install").unwrap();
    let mut held = None;
    wait_until("no other install.sh runs on this host", || {
        held = UnixListener::bind_addr(&name).ok();
        held.is_some()
    });
    let mut child = bench
        .command(&bundle(FIRST))
        .arg("-y")
        .args(bench.places())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    let holder = format!("(process {} of user 0): waiting for it", std::process::id());
    assert!(line.contains(&holder), "{line}");
    let pid = Pid::from_child(&child);
    kill_process(pid, Signal::HUP).unwrap();
    kill_process(pid, Signal::INT).unwrap();
    let mut last = String::new();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut last)
        .unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{last}");
    assert!(last.contains("the same command goes on with it"), "{last}");
    drop(held);
    assert_eq!(before, traces());
}
