//! The runbook of docs/upgrade.md, its commands run as they stand there.

use crate::bench::{
    Bench, dist, is_root, last_release, others, ran, repository, this_tree, wait_until,
};
use std::fs::{self, File};
use std::process::Command;

/// The commands that an operator types on each node.
fn runbook() -> String {
    let page = fs::read_to_string(repository().join("docs/upgrade.md")).unwrap();
    let block = page.split_once("```sh\n").unwrap().1;
    block.split_once("```").unwrap().0.to_owned()
}

#[test]
fn the_runbook_of_the_docs_upgrades_a_node_of_the_last_release() {
    if !is_root() {
        return;
    }
    let bench = Bench::new();
    if !others().is_empty() {
        eprintln!("not run: install.sh of the runbook has to find one install on this machine");
        return;
    }
    let (last, this) = (last_release(), this_tree());
    bench.install(&last.bundle);
    bench.create_cluster();
    wait_until("the cluster is well", || {
        let plan = ["cluster", "upgrade", "plan", "bundle"];
        let path = this.bundle.display().to_string();
        bench.rladmin(&[&plan[..], &[&path]].concat()).code == Some(0)
    });
    let folder = bench.path("operator");
    fs::create_dir(&folder).unwrap();
    dist(&this.version, &folder);
    let text = runbook();
    assert!(
        text.contains(&format!("mainstay-{}-linux-amd64.tar", this.version)),
        "{text}"
    );
    // An operator answers each question of install.sh with yes.
    let answers = bench.path("answers");
    fs::write(&answers, "yes\n".repeat(16)).unwrap();
    let path = std::env::var("PATH").unwrap();
    let output = Command::new("bash")
        .args(["-euo", "pipefail", "-x", "-c", &text])
        .current_dir(&folder)
        .env(
            "PATH",
            format!("{}/bin:{path}", bench.install_dir().display()),
        )
        .stdin(File::open(&answers).unwrap())
        .output()
        .unwrap();
    let ran = ran(&output);
    assert_eq!(ran.code, Some(0), "{}", ran.text);
    for wanted in [
        "upgrade_quorum_at_risk",
        &format!("from Mainstay {} to {}", last.version, this.version),
        "ALL TESTS PASSED",
        "all nodes are done",
    ] {
        assert!(
            ran.text.contains(wanted),
            "{wanted} is not in\n{}",
            ran.text
        );
    }
    let versions = |text: &str| text.matches(&this.version).count();
    assert!(versions(&bench.rladmin(&["status", "nodes"]).text) > 0);
    bench.uninstall();
}
