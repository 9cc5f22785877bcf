//! Golden outputs of `status`.

use crate::fake_node::FakeNode;
use crate::fixtures::Cluster;
use insta::assert_snapshot;
use model::documents::DatabaseStatus;
use model::rest::{LogEvent, NodeSnapshotInfo, ShardInfo};
use model::{NodeUid, ShardUid};
use serde_json::Value;

fn shown(cluster: &Cluster, line: &str) -> String {
    let node = FakeNode::new();
    cluster.show(&node);
    node.output(line)
}

#[test]
fn plain() {
    assert_snapshot!(shown(&Cluster::well(), "status"));
}

#[test]
fn all_columns() {
    assert_snapshot!(shown(&Cluster::well(), "status extra all"));
}

#[test]
fn sections() {
    let node = FakeNode::new();
    Cluster::well().show(&node);
    let mut all = String::new();
    for line in [
        "status nodes",
        "status databases extra redis_version",
        "status endpoints extra watchdog",
        "status shards extra shardstats frag",
        "status modules extra all",
        "status nodes extra rack_id sha",
        "status databases extra state_machine",
    ] {
        all.push_str(&format!("$ rladmin {line}\n{}\n", node.output(line)));
    }
    assert_snapshot!(all);
}

#[test]
fn a_database_with_several_shards() {
    let mut cluster = Cluster::well();
    cluster.spread();
    let node = FakeNode::new();
    cluster.show(&node);
    let mut all = String::new();
    for line in [
        "status databases db demo",
        "status endpoints db demo",
        "status shards db demo",
        "status shards node 2",
        "status shards sort NODE",
        "verify balance",
    ] {
        all.push_str(&format!("$ rladmin {line}\n{}\n", node.output(line)));
    }
    assert_snapshot!(all);
}

#[test]
fn nothing_but_a_cluster() {
    let mut cluster = Cluster::well();
    cluster.databases.clear();
    cluster.shards.clear();
    assert_snapshot!(shown(&cluster, "status"));
}

#[test]
fn issues_only() {
    let mut cluster = Cluster::well();
    assert_snapshot!(
        "issues_only_when_well",
        shown(&cluster, "status issues_only")
    );
    cluster.silence(2, 33.2).failed(0).failed(10);
    cluster.shards[0].detailed_status = "loading".to_owned();
    cluster.shards[0].loading.progress = 40.0;
    cluster.databases[0].status = Some(DatabaseStatus::CreationFailed);
    assert_snapshot!(
        "issues_only",
        shown(&cluster, "status issues_only extra watchdog")
    );
}

#[test]
fn a_database_whose_primary_is_not_well_is_an_issue() {
    let mut cluster = Cluster::well();
    let listed = |text: &str| text.contains("db:1  demo  redis active ");
    assert!(!listed(&shown(&cluster, "status databases issues_only")));
    cluster.shards[0].detailed_status = "down".to_owned();
    let text = shown(&cluster, "status databases issues_only");
    assert!(listed(&text), "{text}");
}

#[test]
fn a_node_is_down() {
    let mut cluster = Cluster::well();
    cluster.silence(3, 33.2).failed(0).failed(10);
    cluster.nodes[2].cores = 0;
    assert_snapshot!(shown(&cluster, "status extra nodestats"));
}

/// Nothing is known to be wrong, and nothing is called well that is not known.
#[test]
fn a_primary_node_that_is_new() {
    let mut cluster = Cluster::well();
    cluster.awaits(3);
    let text = shown(&cluster, "status");
    assert!(!text.contains("DOWN") && !text.contains("issues"), "{text}");
    assert_snapshot!(text);
    let text = shown(&cluster, "status nodes issues_only");
    assert!(text.contains("UNKNOWN, not heard yet"), "{text}");
}

#[test]
fn nodes_that_take_no_shards() {
    let mut cluster = Cluster::well();
    let [two, three] = [2, 3].map(NodeUid);
    let status = cluster.status.get_mut(&two).unwrap();
    status.maintenance_snapshot = Some(NodeSnapshotInfo {
        created_time: "2026-08-01T10:00:00.123456789Z".to_owned(),
        ..NodeSnapshotInfo::default()
    });
    status.total_provisional_ram = 0;
    status.free_provisional_ram = 0;
    cluster.nodes[1].accept_servers = false;
    cluster.nodes[1].max_redis_servers = 0;
    cluster.status.get_mut(&three).unwrap().leaving = true;
    let node = FakeNode::new();
    cluster.show(&node);
    assert_snapshot!(node.output("status"));
    let output = node.rladmin("status nodes").output().unwrap();
    let notes = String::from_utf8(output.stderr).unwrap();
    assert_snapshot!(notes);
}

/// What it knew of the cluster may be long over: it is not shown.
#[test]
fn on_a_node_that_was_removed() {
    let mut cluster = Cluster::well();
    cluster.info.removed = true;
    cluster.info.has_quorum = false;
    cluster.info.local_node = NodeUid(3);
    let text = shown(&cluster, "status");
    for line in [
        "status nodes",
        "status shards node 3",
        "status databases sort NAME",
    ] {
        assert_eq!(shown(&cluster, line), text);
    }
    assert_snapshot!(text);
}

#[test]
fn filters_and_order() {
    let node = FakeNode::new();
    Cluster::well().show(&node);
    let mut all = String::new();
    for line in [
        "status node 1",
        "status node node:3",
        "status db cache",
        "status db db:1 shards",
        "status databases sort NAME",
        "status nodes sort overbooking_depth extra nodestats",
        "status sort NODE:ID NAME",
    ] {
        all.push_str(&format!("$ rladmin {line}\n{}\n", node.output(line)));
    }
    assert_snapshot!(all);
    for (line, code, part) in [
        (
            "status node 9",
            1,
            "there is no node:9, only node:1, node:2, node:3",
        ),
        ("status db nope", 1, "there is no database 'nope'"),
        ("status sort FOO", 2, "sort: there is no column 'FOO'"),
        (
            "status shards sort FREE_RAM",
            2,
            "sort: there is no column 'FREE_RAM'",
        ),
    ] {
        let (found, errors) = node.failure(line);
        assert!(
            found == code && errors.contains(part),
            "{line}: {found} {errors}"
        );
    }
}

#[test]
fn without_a_quorum() {
    let mut cluster = Cluster::well();
    cluster.silence(1, 33.2).silence(3, 41.0);
    cluster.info.has_quorum = false;
    cluster.info.primary_node = None;
    let node = FakeNode::new();
    cluster.show(&node);
    for (name, line) in [("no_quorum", "status"), ("no_quorum_nodes", "status nodes")] {
        let output = node.rladmin(line).output().unwrap();
        assert_eq!(output.status.code(), Some(0));
        let errors = String::from_utf8(output.stderr).unwrap();
        assert_eq!(
            errors,
            "warning: no quorum: what is shown is what node:2 knew last\n"
        );
        assert_snapshot!(name, String::from_utf8(output.stdout).unwrap());
    }
}

/// What the primary node told last of this one ages as all else; it is there all the same: it answers.
#[test]
fn without_a_quorum_a_node_hears_itself() {
    let mut cluster = Cluster::well();
    cluster.silence(1, 33.2).silence(2, 33.2).silence(3, 41.0);
    cluster.info.has_quorum = false;
    cluster.info.primary_node = None;
    let text = shown(&cluster, "status");
    let unheard = text.lines().find(|line| line.contains("Not heard:"));
    assert!(!unheard.unwrap().contains("node:2"), "{text}");
    assert!(!text.contains("node:2 DOWN"), "{text}");
    let row = text.lines().find(|line| line.starts_with("*node:2"));
    assert!(row.unwrap().ends_with("OK"), "{text}");
}

#[test]
fn without_a_quorum_while_all_are_heard() {
    let mut cluster = Cluster::well();
    cluster.info.has_quorum = false;
    cluster.info.primary_node = None;
    let text = shown(&cluster, "status");
    let second = text.lines().nth(1).unwrap();
    assert_eq!(
        second,
        "NO QUORUM. All nodes were heard a moment ago: the cluster may be choosing a master."
    );
}

#[test]
fn mixed_versions_are_noted() {
    let mut cluster = Cluster::well();
    for node in &mut cluster.nodes[1..] {
        "1.1.0".clone_into(&mut node.software_version);
        "fedcba9876543210".clone_into(&mut node.software_version_sha);
    }
    let node = FakeNode::new();
    cluster.show(&node);
    let text = node.output("status");
    let note = text
        .lines()
        .find(|line| line.starts_with("note: "))
        .unwrap();
    assert_eq!(
        note,
        "note: nodes run different releases: 1.0.0 (0123456789abcdef) on node:1; 1.1.0 \
         (fedcba9876543210) on node:2, node:3. The cluster uses feature level 1 until all run the \
         newest"
    );
    // Scripts that read the section alone find nothing else in it.
    let output = node.rladmin("status nodes").output().unwrap();
    assert!(
        String::from_utf8(output.stdout)
            .unwrap()
            .starts_with("CLUSTER NODES:\nNODE:ID")
    );
    assert!(
        String::from_utf8(output.stderr)
            .unwrap()
            .starts_with("warning: nodes run different")
    );
}

#[test]
fn copies_on_one_node_are_noted() {
    let mut cluster = Cluster::well();
    let mut copy = cluster.shards[0].clone();
    copy.uid = ShardUid(9);
    "slave".clone_into(&mut copy.role);
    let elsewhere = NodeUid(copy.node_uid.0 % 3 + 1);
    cluster.shards.push(ShardInfo {
        node_uid: elsewhere,
        ..copy.clone()
    });
    assert!(!shown(&cluster, "status").contains("note: "));
    *cluster.shards.last_mut().unwrap() = copy;
    let node = FakeNode::new();
    cluster.show(&node);
    let words = "redis:1 and redis:9 of database 'demo' (db:1) have the same slots (0-16383), all on node:1: without \
                 that node there is no copy (`rladmin migrate shard 9 target_node <node>`)\n";
    for line in ["status", "status issues_only"] {
        let text = node.output(line);
        assert!(text.contains(&format!("note: {words}")), "{text}");
        assert!(text.contains("Cluster health: OK"), "{text}");
    }
    // Scripts that read a table alone find nothing else in it.
    for line in ["status shards", "verify balance"] {
        let output = node.rladmin(line).output().unwrap();
        let errors = String::from_utf8(output.stderr).unwrap();
        assert_eq!(errors, format!("warning: {words}"), "{line}");
    }
}

/// Everything runs again, and nothing else shows that what was written is gone.
#[test]
fn data_that_were_lost_are_an_issue_for_an_hour() {
    let mut cluster = Cluster::well();
    let time = jiff::Timestamp::now().to_string();
    let lost = |kind: &str, database: u64, severity: &str, facts: Value| {
        let mut all = serde_json::json!({ "bdb_uid": database, "shard_uid": 1 });
        all.as_object_mut()
            .unwrap()
            .extend(facts.as_object().unwrap().clone());
        LogEvent {
            time: time.clone(),
            kind: kind.to_owned(),
            severity: severity.to_owned(),
            facts: all.as_object().unwrap().clone(),
        }
    };
    let empty = serde_json::json!({ "data": "lost: it begins empty" });
    let disk = serde_json::json!({ "data": "as they were on disk" });
    let written = serde_json::json!({ "data_written": "2026-08-01T12:00:00Z" });
    cluster.events.extend([
        lost("shard_restarted", 1, "CRITICAL", empty.clone()),
        lost("shard_restored", 1, "CRITICAL", written),
        lost("shard_restarted", 1, "ERROR", disk),
        // A database that is there no more.
        lost("shard_restarted", 99, "CRITICAL", empty),
    ]);
    let text = shown(&cluster, "status issues_only");
    assert!(text.contains("Cluster health: DEGRADED"), "{text}");
    let issues = text.lines().find(|line| line.starts_with("issues: "));
    let seconds = format!("{:.0}", time.parse::<jiff::Timestamp>().unwrap());
    let wanted = format!(
        "issues: data of db:1 lost: it begins empty (redis:1, {seconds}), data of db:1 lost from \
         2026-08-01T12:00:00Z on (redis:1, {seconds})"
    );
    assert_eq!(issues, Some(wanted.as_str()), "{text}");
    assert!(!shown(&Cluster::well(), "status").contains("issues"));
}

#[test]
fn health_is_counted_from_events() {
    let mut cluster = Cluster::well();
    cluster.failed(0).failed(5).failed(45);
    let text = shown(&cluster, "status");
    assert!(
        text.contains("Cluster health: OK, [1, 0.13, 0.05]\n"),
        "{text}"
    );
    assert!(
        text.contains("failures/minute - avg1 1.00, avg15 0.13, avg60 0.05.\n"),
        "{text}"
    );
}

#[test]
fn health_is_not_invented() {
    let node = FakeNode::new();
    Cluster::well().show(&node);
    node.refuse(
        "GET /v1/logs",
        model::ErrorCode::NotReady,
        "the log is being read",
    );
    let text = node.output("status");
    assert!(
        text.contains("Cluster health: OK, failures/minute unknown: the log is being read\n"),
        "{text}"
    );
}

#[test]
fn no_primary_node_yet() {
    let mut cluster = Cluster::well();
    cluster.info.primary_node = None;
    assert!(shown(&cluster, "status").contains("NO MASTER. The cluster is choosing one.\n"));
}

#[test]
fn json() {
    let node = FakeNode::new();
    Cluster::well().show(&node);
    let text = node.output("--json status");
    let object: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(object["cluster"]["primary_node"], 1);
    assert_eq!(object["nodes"].as_array().unwrap().len(), 3);
    assert_eq!(
        object["failures_per_minute"],
        serde_json::json!([0.0, 0.0, 0.0])
    );
    assert!(!text.contains("s3cret"), "passwords stay where they are");
    let object: Value = serde_json::from_str(&node.output("status shards --json node 2")).unwrap();
    assert_eq!(object["shards"][0]["uid"], 2);
}

#[test]
fn local_node_is_marked() {
    let mut cluster = Cluster::well();
    cluster.info.local_node = NodeUid(3);
    let text = shown(&cluster, "status nodes");
    assert!(
        text.contains("\n*node:3 ") && !text.contains("*node:2"),
        "{text}"
    );
}
