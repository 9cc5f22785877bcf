//! A node's turn in an upgrade of all nodes, cut short at each step that an installer writes down, and with daemons
//! killed at each: it goes on, or goes back and pauses. Minutes long, run by hand:
//! `cargo test -p installer --test it -- --ignored turns_cut`.

use crate::all_nodes::tar_of;
use crate::bench::{Bench, FIRST, SECOND, bundle, is_root, wait_until_within};
use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

const LONG: Duration = Duration::from_mins(3);

fn report(bench: &Bench) -> serde_json::Value {
    let ran = bench.rladmin(&["cluster", "upgrade", "report", "--json"]);
    serde_json::from_str(&ran.text).unwrap_or_default()
}

fn attempt(bench: &Bench) -> u64 {
    report(bench)["nodes"][0]["attempt"].as_u64().unwrap_or(0)
}

fn good(bench: &Bench, words: &str) -> String {
    let words: Vec<&str> = words.split(' ').collect();
    let ran = bench.rladmin(&words);
    assert_eq!(ran.code, Some(0), "{words:?}: {}", ran.text);
    ran.text
}

/// Pids of processes that run a program below the install.
fn pids(bench: &Bench, folder: &str, name: &str) -> Vec<i32> {
    let folder = bench.install_dir().join(folder);
    let mut pids = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let program = fs::read_link(entry.path().join("exe")).unwrap_or_default();
        let text = program.to_string_lossy();
        let text = text.strip_suffix(" (deleted)").unwrap_or(&text);
        let program = std::path::Path::new(text);
        if program.starts_with(&folder) && program.ends_with(name) {
            pids.push(entry.file_name().to_string_lossy().parse().unwrap());
        }
    }
    pids
}

fn kill(pids: Vec<i32>) {
    for pid in pids {
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
}

/// The attendant is killed and started again; installers that it starts end at a place, as if killed.
fn attendant_cuts(bench: &Bench, at: &str) {
    kill(pids(bench, "sbin", "mainstay-install"));
    let started = Command::new("setsid")
        .arg("--fork")
        .arg(bench.install_dir().join("sbin/mainstay-install"))
        .args(["attend", "--address", &bench.address.to_string()])
        .env("MAINSTAY_INSTALL_CUT", at)
        .env("MAINSTAY_INSTALL_WATCH", "1")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert!(started.success());
}

/// Has it cut short once more, wherever it is.
fn cut(bench: &Bench, at: &str) {
    let before = attempt(bench);
    attendant_cuts(bench, at);
    wait_until_within(&format!("it is cut {at}"), LONG, || {
        let now = report(bench);
        if now["state"] == "paused" {
            assert_eq!(now["paused"]["code"], "upgrade_turn_failed", "{at}: {now}");
            good(bench, "cluster upgrade resume");
        }
        now["nodes"][0]["attempt"].as_u64() > Some(before)
    });
    println!("cut {at}: {}", attempt(bench));
}

fn until_done(bench: &Bench) {
    wait_until_within("it is done", LONG, || {
        let now = report(bench);
        if now["state"] == "paused" {
            println!("{}", now["paused"]);
            let _ = bench.rladmin(&["cluster", "upgrade", "resume"]);
        }
        now["state"] == "done"
    });
}

#[test]
#[ignore = "minutes; run by hand"]
fn a_turn_goes_on_from_every_step() {
    if !is_root() {
        return;
    }
    let bench = Bench::new();
    bench.install(&bundle(FIRST));
    bench.create_cluster();
    let tar = tar_of(&bundle(SECOND), &bench.path("second.tar"));
    attendant_cuts(&bench, "before:unpack");
    let start = format!(
        "cluster upgrade start bundle {} hold_finalize",
        tar.display()
    );
    wait_until_within("it begins", LONG, || {
        let words: Vec<&str> = start.split(' ').collect();
        bench.rladmin(&words).code == Some(0)
    });
    for step in crate::cut_short::UPGRADE {
        // A daemon that was stopped and not started again, cnm_exec too, must not stay so.
        let is_daemon = ["cnm_http", "cnm_exec", "dmcproxy"].contains(&step);
        for when in ["before", "between", "after"] {
            if when == "between" && !is_daemon {
                continue;
            }
            cut(&bench, &format!("{when}:{step}"));
        }
    }
    attendant_cuts(&bench, "nowhere");
    until_done(&bench);
    let current = fs::read_link(bench.install_dir().join("current")).unwrap();
    assert!(current.ends_with(SECOND));

    attendant_cuts(&bench, crate::cut_short::ROLLBACK[0]);
    good(&bench, "cluster upgrade rollback -y");
    for at in crate::cut_short::ROLLBACK {
        cut(&bench, at);
    }
    attendant_cuts(&bench, "nowhere");
    until_done(&bench);
    let current = fs::read_link(bench.install_dir().join("current")).unwrap();
    assert!(current.ends_with(FIRST));

    // Each daemon, and the attendant, killed whenever the record names another step.
    for name in ["cnm_exec", "cnm_http", "dmcproxy", "mainstay-install"] {
        killed_at_each_step(&bench, &start, name);
    }
    bench.uninstall();
}

fn killed_at_each_step(bench: &Bench, start: &str, name: &str) {
    let words: Vec<&str> = start.split(' ').collect();
    wait_until_within("it begins", LONG, || bench.rladmin(&words).code == Some(0));
    let record = bench.path("etc/mainstay/install.json");
    let mut seen = Vec::new();
    let mut resumed = 0;
    wait_until_within("it is done", LONG * 3, || {
        let text = fs::read_to_string(&record).unwrap_or_default();
        let text: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
        let step = text["pending"]["step"]
            .as_str()
            .unwrap_or("none")
            .to_owned();
        if !seen.contains(&step) {
            let folder = if name == "mainstay-install" {
                "sbin"
            } else {
                "releases"
            };
            kill(pids(bench, folder, name));
            if name == "mainstay-install" {
                attendant_cuts(bench, "nowhere");
            }
            seen.push(step);
            return false;
        }
        let now = report(bench);
        if now["state"] == "paused" {
            println!("{name}: {}", now["paused"]);
            resumed += 1;
            assert!(resumed < 20);
            let _ = bench.rladmin(&["cluster", "upgrade", "resume"]);
        }
        now["state"] == "done"
    });
    println!("{name} was killed at {seen:?}");
    let current = fs::read_link(bench.install_dir().join("current")).unwrap();
    assert!(current.ends_with(SECOND));
    good(bench, "cluster upgrade rollback -y");
    until_done(bench);
    let current = fs::read_link(bench.install_dir().join("current")).unwrap();
    assert!(current.ends_with(FIRST));
}
