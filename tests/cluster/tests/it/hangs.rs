//! What if an engine hangs, and what if it is only busy?

use crate::load::{Writer, go_on, go_on_by, stop, value, writer};
use crate::replicas::{create, masters};
use crate::story::{served, shards, shards_ok};
use model::rest::{LogEvent, ShardInfo};
use std::time::Duration;
use testkit::cluster::Cluster;
use testkit::wait;

const PORT: u16 = 12_000;

pub(crate) fn signal(pid: Option<u32>, signal: rustix::process::Signal) {
    let pid = i32::try_from(pid.expect("a process")).unwrap();
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
}

fn events(cluster: &Cluster, kind: &str) -> Result<Vec<LogEvent>, String> {
    let all: Vec<LogEvent> = cluster.nodes[0]
        .get("/v1/logs")
        .map_err(|e| e.to_string())?;
    Ok(all.into_iter().filter(|event| event.kind == kind).collect())
}

pub(crate) fn told(cluster: &Cluster, kind: &str) -> LogEvent {
    wait::until(kind, Duration::from_secs(60), || {
        let event = events(cluster, kind)?.pop();
        event.ok_or_else(|| "not told of yet".to_owned())
    })
    .unwrap()
}

pub(crate) fn writers(cluster: &Cluster) -> Vec<Writer> {
    let writers: Vec<Writer> = (0..3)
        .map(|number| writer(cluster, number, PORT, format!("chain:{number}")))
        .collect();
    go_on(&writers, "they write");
    writers
}

/// Nothing that was acknowledged is lost.
pub(crate) fn whole(cluster: &Cluster, writers: Vec<Writer>) {
    let mut connection = served(cluster, 0, PORT);
    for written in stop(writers) {
        let there = value(&mut connection, &written.key);
        assert!(
            (written.acknowledged..=written.sent).contains(&there),
            "{there} of {written:?}"
        );
        println!("{}: longest wait {:?}", written.key, written.worst);
    }
}

#[test]
fn a_replica_takes_the_place_of_a_primary_that_hangs() {
    let cluster = Cluster::start(3).unwrap();
    create(&cluster, &[]);
    let writers = writers(&cluster);
    let hung = masters(&cluster).remove(0);
    signal(hung.pid, rustix::process::Signal::STOP);
    wait::until("another primary", Duration::from_secs(60), || {
        let now = masters(&cluster).remove(0);
        if now.uid != hung.uid && now.detailed_status == "ok" {
            return Ok(());
        }
        Err(format!("{now:?}"))
    })
    .unwrap();
    go_on(&writers, "they write again");
    shards_ok(&cluster);
    let reason = told(&cluster, "shard_hangs").facts["reason"].to_string();
    assert!(reason.contains("process state T"), "{reason}");
    // Its agent has ended it: it was fenced before the other one began.
    let failover = told(&cluster, "shard_failover");
    assert_eq!(failover.facts["confirmed"], true, "{failover:?}");
    let old: ShardInfo = cluster.nodes[0]
        .get(&format!("/v1/shards/{}", hung.uid))
        .unwrap();
    assert_ne!(old.pid, hung.pid);
    whole(&cluster, writers);
}

/// Clients notice nothing, and when it is there again its engine promises as before: the database goes on without
/// any primary node.
#[test]
fn a_replica_that_hangs_is_ended_and_started_again() {
    let mut cluster = Cluster::start(3).unwrap();
    create(&cluster, &[]);
    shards_ok(&cluster);
    let writers = writers(&cluster);
    let before = masters(&cluster).remove(0);
    let replica = |cluster: &Cluster| {
        let all = shards(cluster, 0).into_iter();
        let mut replicas = all.filter(|shard| shard.role == "slave");
        replicas.next().unwrap()
    };
    let hung = replica(&cluster);
    signal(hung.pid, rustix::process::Signal::STOP);
    let event = told(&cluster, "shard_hangs");
    assert_eq!(event.facts["shard_uid"], hung.uid.0);
    let reason = event.facts["reason"].to_string();
    assert!(reason.contains("process state T"), "{reason}");
    told(&cluster, "shard_answers_again");
    shards_ok(&cluster);
    let now = replica(&cluster);
    assert_eq!((now.uid, now.node_uid), (hung.uid, hung.node_uid));
    assert_ne!(now.pid, hung.pid);
    let after = masters(&cluster).remove(0);
    assert_eq!(
        (after.uid, after.pid, after.epoch),
        (before.uid, before.pid, before.epoch)
    );
    for node in &mut cluster.nodes {
        node.kill("cnm_exec").unwrap();
    }
    go_on_by(&writers, 6_000, "they write without a primary node");
    for node in &mut cluster.nodes {
        node.start_daemon("cnm_exec").unwrap();
    }
    cluster.settled().unwrap();
    let mut connection = served(&cluster, 0, PORT);
    for written in stop(writers) {
        assert_eq!(written.errors, [""; 0], "{}", written.key);
        assert_eq!(value(&mut connection, &written.key), written.acknowledged);
        println!("{}: longest wait {:?}", written.key, written.worst);
    }
}

#[test]
fn a_primary_that_is_busy_keeps_its_role() {
    let cluster = Cluster::start(3).unwrap();
    create(&cluster, &[]);
    let writers = writers(&cluster);
    let busy = masters(&cluster).remove(0);
    let mut client = served(&cluster, 1, PORT);
    let mut killer = served(&cluster, 0, PORT);
    let script = std::thread::spawn(move || {
        let mut eval = redis::cmd("EVAL");
        eval.arg("while true do end").arg(0).exec(&mut client)
    });
    told(&cluster, "shard_busy");
    redis::cmd("SCRIPT").arg("KILL").exec(&mut killer).unwrap();
    assert!(script.join().unwrap().is_err());
    go_on(&writers, "they write again");
    told(&cluster, "shard_answers_again");
    let now = masters(&cluster).remove(0);
    assert_eq!(
        (now.uid, now.pid, now.epoch),
        (busy.uid, busy.pid, busy.epoch)
    );
    for kind in ["shard_hangs", "shard_withheld", "shard_failover"] {
        assert_eq!(events(&cluster, kind).unwrap().len(), 0, "{kind}");
    }
    whole(&cluster, writers);
}
