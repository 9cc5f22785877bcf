//! A cluster of the last release and this tree: what operators do on the way, from either side, while clients write
//! and read.

use crate::all_nodes::Three;
use crate::bench::{Release, is_root, last_release, this_tree, wait_until_within};
use crate::load::Load;
use rustix::process::Signal;
use std::time::Duration;

const LONG: Duration = Duration::from_mins(2);

/// The primary node, as a node sees it.
fn primary(three: &Three, by: u8) -> Option<String> {
    let ran = three.rladmin(by, "status nodes");
    let mut rows = ran.text.lines().map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let name = words.first()?.trim_start_matches('*');
        (words.get(1) == Some(&"master")).then(|| name.to_owned())
    });
    rows.find_map(|found| found)
}

fn leads(three: &Three, by: u8, node: &str) {
    wait_until_within(&format!("{node} is the primary node"), LONG, || {
        primary(three, by).as_deref() == Some(node)
    });
}

/// The shard of the demo's database that is primary, and its node.
fn primary_shard(three: &Three) -> (String, String) {
    let text = three.good(1, "status shards");
    let mut rows = text
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>());
    let row = rows.find(|words| words.get(1) == Some(&"demo") && words.get(4) == Some(&"master"));
    let row = row.unwrap();
    (
        row[2].trim_start_matches("redis:").to_owned(),
        row[3].to_owned(),
    )
}

/// A planned move, there and back, ordered by way of a node.
fn moved(three: &Three, by: u8) {
    for _ in 0..2 {
        let (shard, node) = primary_shard(three);
        three.good(by, &format!("failover shard {shard}"));
        assert_ne!(primary_shard(three).1, node);
    }
}

fn upgraded(three: &Three, node: u8, this: &Release) {
    let ran = three.install_sh(node, &this.bundle, &[]);
    assert_eq!(ran.code, Some(0), "{}", ran.text);
    assert!(
        ran.text.contains("clients of this node: 0 errors"),
        "{}",
        ran.text
    );
}

#[test]
fn operators_go_on_working_in_a_cluster_of_the_last_release_and_this_one() {
    if !is_root() {
        return;
    }
    let (last, this) = (last_release(), this_tree());
    let three = Three::start_from(&last.bundle);
    three.is_ready();
    three.good(1, "cluster upgrade config hold_finalize enabled");
    let load = Load::start((1..=3).map(|node| three.address(node)));
    upgraded(&three, 1, &this);
    leads(&three, 1, "node:1");

    // An old node leads while the new one is not heard; it gives the part back.
    three.signal(1, "cnm_exec", Signal::STOP);
    wait_until_within("another node leads", LONG, || {
        primary(&three, 2).is_some_and(|node| node != "node:1")
    });
    three.signal(1, "cnm_exec", Signal::CONT);
    for by in [2, 1] {
        three.good(
            by,
            &format!("create db by{by} memory_size 20MB replication enabled"),
        );
        three.good(by, &format!("tune db by{by} max_connections 500"));
        moved(&three, by);
        three.good(3 - by, &format!("-y delete db by{by}"));
    }
    leads(&three, 2, "node:1");
    load.goes_on();

    // The second node too, and the first one back: the newest release leads.
    upgraded(&three, 2, &this);
    let ran = three.install_sh(1, &this.bundle, &["--rollback"]);
    assert_eq!(ran.code, Some(0), "{}", ran.text);
    leads(&three, 3, "node:2");
    moved(&three, 1);
    load.goes_on();
    load.ends_well();
    let versions = [&last.version, &this.version, &last.version];
    assert_eq!(three.versions().iter().collect::<Vec<_>>(), versions);
}
