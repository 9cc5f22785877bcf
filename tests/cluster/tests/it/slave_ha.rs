//! What if a node with a replica does not come back?

use crate::load::{go_on, stop, value, writer};
use crate::replicas::{create, masters};
use crate::story::{primary, seen, served, shards, shards_ok};
use model::rest::{ClusterPolicy, LogEvent, ShardInfo};
use std::collections::BTreeSet;
use std::time::Duration;
use testkit::cluster::Cluster;
use testkit::wait;

const PORT: u16 = 12_000;

fn rladmin(cluster: &Cluster, node: usize, words: &[&str]) {
    let output = cluster.nodes[node].rladmin(words).unwrap();
    assert!(output.status.success(), "{words:?}: {}", seen(&output));
}

fn kinds(cluster: &Cluster, node: usize) -> Vec<String> {
    let events: Vec<LogEvent> = cluster.nodes[node].get("/v1/logs").unwrap();
    let kinds = events.into_iter().map(|event| event.kind);
    kinds.filter(|kind| kind.starts_with("slave_ha")).collect()
}

/// The replica is made anew on the third node while clients write; what is left of the old one goes when its
/// node is back.
#[test]
fn a_lost_replica_is_made_anew() {
    let mut cluster = Cluster::start(3).unwrap();
    create(&cluster, &["shards_count", "2"]);
    shards_ok(&cluster);
    let times = ["slave_ha_grace_period", "2"];
    let words = ["tune", "cluster", "slave_ha", "enabled"];
    rladmin(&cluster, 0, &[&words[..], &times[..]].concat());
    let policy: ClusterPolicy = cluster.nodes[1].get("/v1/cluster/policy").unwrap();
    assert_eq!(policy.slave_ha, Some(true));
    assert_eq!(policy.slave_ha_grace_period, Some(2));
    // A node with a replica, and not the primary node: whose loss moves no role is seen more clearly.
    let busy: BTreeSet<u64> = masters(&cluster).iter().map(|s| s.node_uid.0).collect();
    let leads = primary(&cluster);
    let all = shards(&cluster, 0);
    let lost = all.iter().filter(|s| s.role == "slave").find(|s| {
        let node = usize::try_from(s.node_uid.0).unwrap() - 1;
        !busy.contains(&s.node_uid.0) && node != leads
    });
    let lost = lost
        .or_else(|| all.iter().find(|s| s.role == "slave"))
        .unwrap();
    let place = usize::try_from(lost.node_uid.0).unwrap() - 1;
    let left = (0..3).find(|node| *node != place).unwrap();
    let writers: Vec<_> = (0..3)
        .filter(|node| *node != place)
        .map(|node| writer(&cluster, node, PORT, format!("chain:{node}")))
        .collect();
    go_on(&writers, "they write");
    cluster.nodes[place].kill_everything().unwrap();
    wait::until("replicas are made anew", Duration::from_secs(60), || {
        let all: Vec<ShardInfo> = cluster.nodes[left]
            .get("/v1/shards")
            .map_err(|e| e.to_string())?;
        let alive = all.iter().filter(|s| s.node_uid.0 != lost.node_uid.0);
        let well = alive.filter(|s| s.detailed_status == "ok").count();
        let kinds = kinds(&cluster, left);
        if well == 4 && kinds.iter().any(|kind| kind == "slave_ha_completed") {
            return Ok(());
        }
        Err(format!("{kinds:?} {all:?}"))
    })
    .unwrap();
    go_on(&writers, "they write still");
    let began = kinds(&cluster, left);
    let began = began.iter().filter(|kind| *kind == "slave_ha_started");
    assert_eq!(began.count(), 1, "all of a database at once");
    cluster.nodes[place].start().unwrap();
    cluster.nodes[place].ready().unwrap();
    wait::until("the old ones go", Duration::from_secs(60), || {
        let all: Vec<ShardInfo> = cluster.nodes[left]
            .get("/v1/shards")
            .map_err(|e| e.to_string())?;
        if all.len() == 4 && all.iter().all(|s| s.detailed_status == "ok") {
            return Ok(());
        }
        Err(format!("{all:?}"))
    })
    .unwrap();
    let mut connection = served(&cluster, place, PORT);
    for written in stop(writers) {
        let there = value(&mut connection, &written.key);
        assert!(
            (written.acknowledged..=written.sent).contains(&there),
            "{there} of {written:?}"
        );
    }
    // A role may be moved to the new copy: it is one like any other.
    let master = masters(&cluster).remove(0).uid.to_string();
    rladmin(&cluster, left, &["failover", "shard", &master]);
}
