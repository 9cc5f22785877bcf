//! What if a whole node is lost, or every `cnm_exec`?

use crate::load::{Writer, counts, go_on, go_on_by, stop, value, writer};
use crate::replicas::{create, end, masters};
use crate::story::{primary, refused, seen, served, set, shards, shards_ok};

use model::rest::{Bdb, LogEvent, NodeInfo, ShardInfo};
use resp::slot::key_slot;
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use testkit::cluster::Cluster;
use testkit::wait;

const PORT: u16 = 12_000;

fn writers(cluster: &Cluster, nodes: &[usize]) -> Vec<Writer> {
    let all = nodes.iter().cycle().take(4).enumerate();
    all.map(|(number, node)| writer(cluster, *node, PORT, format!("chain:{number}")))
        .collect()
}

fn index(shard: &ShardInfo) -> usize {
    usize::try_from(shard.node_uid.0).unwrap() - 1
}

/// Ends when the master of all slots is another one, as a node sees it.
fn another_master(cluster: &Cluster, node: usize, old: &ShardInfo) {
    wait::until("another master serves", Duration::from_secs(30), || {
        let all: Vec<ShardInfo> = cluster.nodes[node]
            .get("/v1/shards")
            .map_err(|e| e.to_string())?;
        let now = all.iter().find(|shard| shard.role == "master");
        match now {
            Some(shard) if shard.uid != old.uid && shard.detailed_status == "ok" => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .unwrap();
}

/// Its replica takes over, clients of other nodes keep their connections, and when the node comes back it has
/// a replica.
fn a_node_is_lost(is_primary_node: bool) {
    let mut cluster = Cluster::start(3).unwrap();
    create(&cluster, &[]);
    shards_ok(&cluster);
    let master = masters(&cluster).remove(0);
    let place = index(&master);
    let wanted = if is_primary_node {
        place
    } else {
        (0..3)
            .find(|node| *node != place && primary(&cluster) == *node)
            .unwrap_or((place + 1) % 3)
    };
    if primary(&cluster) != wanted {
        let uid = (wanted + 1).to_string();
        let output = cluster.nodes[0]
            .rladmin(&["cluster", "master", "set", &uid])
            .unwrap();
        assert!(output.status.success(), "{}", seen(&output));
        wait::until(
            "the primary node is another one",
            Duration::from_secs(10),
            || {
                let now = primary(&cluster);
                if now == wanted {
                    Ok(())
                } else {
                    Err(now.to_string())
                }
            },
        )
        .unwrap();
    }
    let others: Vec<usize> = (0..3).filter(|node| *node != place).collect();
    let writers = writers(&cluster, &others);
    go_on(&writers, "they write");
    let lost = Instant::now();
    cluster.nodes[place].kill_everything().unwrap();
    go_on(&writers, "they write again");
    println!("writes were back after {:?}", lost.elapsed());
    another_master(&cluster, others[0], &master);
    cluster.nodes[place].start().unwrap();
    cluster.nodes[place].ready().unwrap();
    shards_ok(&cluster);
    go_on(&writers, "they write still");
    let mut connection = served(&cluster, place, PORT);
    for written in stop(writers) {
        // What was in flight got one error each.
        assert!(written.errors.len() <= 2, "{written:?}");
        let there = value(&mut connection, &written.key);
        assert!(
            (written.acknowledged..=written.sent).contains(&there),
            "{there} of {written:?}"
        );
        println!("{}: longest wait {:?}", written.key, written.worst);
    }
    assert_eq!(masters(&cluster).len(), 1);
}

#[test]
fn a_node_with_a_primary_is_lost() {
    a_node_is_lost(false);
}

#[test]
fn the_primary_node_is_lost_with_a_primary_on_it() {
    a_node_is_lost(true);
}

/// Engines promise for each other: clients notice nothing, as long as no copy is silent.
#[test]
fn databases_go_on_without_any_cnm_exec() {
    let mut cluster = Cluster::start(3).unwrap();
    create(&cluster, &["shards_count", "2"]);
    shards_ok(&cluster);
    let before = roles(&cluster);
    let replica = shards(&cluster, 0)
        .into_iter()
        .find(|shard| shard.role == "slave")
        .unwrap();
    let writers = writers(&cluster, &[0, 1, 2]);
    go_on(&writers, "they write");
    for node in &mut cluster.nodes {
        node.kill("cnm_exec").unwrap();
    }
    // Many times as long as a lease.
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(6) {
        go_on(&writers, "they write without a primary node");
        std::thread::sleep(Duration::from_millis(100));
    }
    for written in stop(writers) {
        assert_eq!(written.errors, [""; 0], "{}", written.key);
        println!("{}: longest wait {:?}", written.key, written.worst);
    }
    let there = a_silent_copy_stops_writes(&cluster, &replica);
    for node in &mut cluster.nodes {
        node.start_daemon("cnm_exec").unwrap();
    }
    cluster.settled().unwrap();
    shards_ok(&cluster);
    assert_eq!(roles(&cluster), before, "nobody took a role meanwhile");
    // The copy that was silent takes over: it has what clients were told.
    let hands = masters(&cluster)
        .into_iter()
        .find(|shard| shard.assigned_slots == replica.assigned_slots);
    let hands = format!("redis:{}", hands.unwrap().uid);
    let moved = cluster.nodes[0]
        .rladmin(&["failover", "shard", &hands])
        .unwrap();
    assert!(moved.status.success(), "{}", seen(&moved));
    let mut connection = served(&cluster, 0, PORT);
    for (key, count) in there {
        assert_eq!(value(&mut connection, &key), count, "{key}");
    }
    let writers = self::writers(&cluster, &[0, 1, 2]);
    go_on(&writers, "they write with leases");
    let mut connection = served(&cluster, 0, PORT);
    for written in stop(writers) {
        assert_eq!(written.errors, [""; 0], "{}", written.key);
        assert_eq!(value(&mut connection, &written.key), written.acknowledged);
    }
}

/// Who is what, and of which epoch.
fn roles(cluster: &Cluster) -> Vec<(u64, String, u64)> {
    let all = shards(cluster, 0).into_iter();
    all.map(|shard| (shard.uid.0, shard.role, shard.epoch))
        .collect()
}

fn is_of(key: &str, shard: &ShardInfo) -> bool {
    let (first, last) = shard.assigned_slots.split_once('-').unwrap();
    (first.parse().unwrap()..=last.parse().unwrap()).contains(&key_slot(key.as_bytes()))
}

/// Nobody is left who could confirm a lease, and one copy promises no more: writes to its slots stop with that reason
/// at every proxy, those to others go on. What is there when it speaks again, by key.
fn a_silent_copy_stops_writes(cluster: &Cluster, replica: &ShardInfo) -> Vec<(String, u64)> {
    let keys = (0..4).map(|number| format!("chain:{number}"));
    let (stopped, others): (Vec<String>, Vec<String>) = keys.partition(|key| is_of(key, replica));
    let probe = format!("{{{}}}:probe", stopped[0]);
    let through = |keys: Vec<String>| -> Vec<Writer> {
        let all = keys.into_iter().enumerate();
        all.map(|(number, key)| writer(cluster, number % 3, PORT, key))
            .collect()
    };
    let (stopped, others) = (through(stopped), through(others));
    go_on(&stopped, "they write");
    let mut probes: Vec<_> = (0..3).map(|node| served(cluster, node, PORT)).collect();
    set(&mut probes[0], &probe, "before");
    let pid = rustix::process::Pid::from_raw(i32::try_from(replica.pid.unwrap()).unwrap()).unwrap();
    let signal = |signal| rustix::process::kill_process(pid, signal).unwrap();
    signal(rustix::process::Signal::STOP);
    for (node, connection) in probes.iter_mut().enumerate() {
        let reason = wait::until("a write is refused", Duration::from_secs(30), || {
            let answer = redis::cmd("SET")
                .arg(&probe)
                .arg("during")
                .query::<()>(connection);
            // What was in flight as the last promise ended is given up, for another reason.
            match answer.map_err(|error| error.to_string()) {
                Err(error) if error.contains("no lease: ") => Ok(error),
                other => Err(format!("{other:?}")),
            }
        })
        .unwrap();
        println!("through node {}: {reason}", node + 1);
        assert!(reason.contains("cnm_exec is not reached"), "{reason}");
        assert!(reason.contains("does not promise"), "{reason}");
        assert!(!reason.contains('/'), "clients need no paths: {reason}");
    }
    let then = counts(&stopped);
    go_on_by(&others, 200, "those of other slots write");
    assert_eq!(counts(&stopped), then, "nothing is acknowledged");
    signal(rustix::process::Signal::CONT);
    go_on(&stopped, "they write when it is back");
    for written in stop(others) {
        assert_eq!(written.errors, [""; 0], "{}", written.key);
    }
    let mut connection = served(cluster, 0, PORT);
    let mut all = Vec::new();
    for written in stop(stopped) {
        let no_lease = |error: &&String| error.contains("no lease: ");
        let refused = written.errors.iter().filter(no_lease).count();
        assert!(refused > 0, "{written:?}");
        let unknown = written.errors.len() - refused;
        assert!(unknown <= 1, "{written:?}");
        let there = value(&mut connection, &written.key);
        let most = written.acknowledged + unknown as u64;
        assert!(
            (written.acknowledged..=most).contains(&there),
            "{there} of {} to {most}",
            written.acknowledged
        );
        all.push((written.key, there));
    }
    all
}

/// Whole again, roles by epoch, the data there.
#[test]
fn all_nodes_are_lost_at_once() {
    let mut cluster = Cluster::start(3).unwrap();
    create(&cluster, &["persistence", "aof-every-write"]);
    shards_ok(&cluster);
    // The epoch is not the first one.
    end(masters(&cluster)[0].pid);
    let old = masters(&cluster).remove(0);
    another_master(&cluster, 0, &old);
    shards_ok(&cluster);
    let writers = writers(&cluster, &[0, 1, 2]);
    go_on(&writers, "they write");
    for node in &mut cluster.nodes {
        node.kill_everything().unwrap();
    }
    let written = stop(writers);
    for node in &mut cluster.nodes {
        node.start().unwrap();
    }
    for node in &cluster.nodes {
        node.ready().unwrap();
    }
    cluster.settled().unwrap();
    shards_ok(&cluster);
    let mut connection = served(&cluster, 0, PORT);
    for written in written {
        let there = value(&mut connection, &written.key);
        assert!(there >= written.acknowledged, "{there} of {written:?}");
    }
    let roles: Vec<String> = shards(&cluster, 0)
        .into_iter()
        .map(|shard| shard.role)
        .collect();
    assert!(roles.contains(&"master".to_owned()) && roles.contains(&"slave".to_owned()));
}

/// Power is cut for all, and the node with the primary stays down: the replica serves with what it has on disk, and says so.
#[test]
fn all_nodes_are_lost_and_the_one_with_the_primary_stays_away() {
    let mut cluster = Cluster::start(3).unwrap();
    create(&cluster, &["persistence", "aof-every-write"]);
    shards_ok(&cluster);
    let words = ["tune", "cluster", "slave_ha_grace_period", "5"];
    let output = cluster.nodes[0].rladmin(&words).unwrap();
    assert!(output.status.success(), "{}", crate::story::seen(&output));
    let writers = writers(&cluster, &[0, 1, 2]);
    go_on(&writers, "they write");
    // All that is written now is acknowledged, and on both disks.
    let written = stop(writers);
    let old = masters(&cluster).remove(0);
    let place = index(&old);
    for node in &mut cluster.nodes {
        node.kill_everything().unwrap();
    }
    let others: Vec<usize> = (0..3).filter(|node| *node != place).collect();
    for node in &others {
        cluster.nodes[*node].start().unwrap();
    }
    for node in &others {
        cluster.nodes[*node].ready().unwrap();
    }
    another_master(&cluster, others[0], &old);
    let mut connection = served(&cluster, others[0], PORT);
    for written in &written {
        let there = value(&mut connection, &written.key);
        assert!(there >= written.acknowledged, "{there} of {written:?}");
    }
    let events: Vec<LogEvent> = cluster.nodes[others[0]].get("/v1/logs").unwrap();
    assert!(events.iter().any(|event| event.kind == "shard_restored"));
    // Its data are of an epoch that is over: it comes back as a replica.
    cluster.nodes[place].start().unwrap();
    cluster.nodes[place].ready().unwrap();
    shards_ok(&cluster);
    let now = masters(&cluster).remove(0);
    assert_ne!(now.uid, old.uid);
}

/// A node dies for good, and one database had its data there alone: commands are enough to be rid of both, and
/// of what is left of another one there. Names and ports are free again.
#[test]
fn a_dead_node_and_its_databases_are_given_up() {
    let mut cluster = Cluster::start(3).unwrap();
    create(&cluster, &["shards_count", "2"]);
    let words = ["alone", "memory_size", "64MB", "port", "12001"];
    cluster.create_db(&words).unwrap();
    shards_ok(&cluster);
    let there = |shard: &ShardInfo| shard.bdb_uid.0 == 2;
    let alone = shards(&cluster, 0).into_iter().find(there).unwrap();
    let (dead, left) = (index(&alone), (index(&alone) + 1) % 3);
    let node = alone.node_uid.to_string();
    cluster.nodes[dead].kill_everything().unwrap();
    wait::until("the node counts as down", Duration::from_secs(30), || {
        let nodes: Vec<NodeInfo> = cluster.nodes[left]
            .get("/v1/nodes")
            .map_err(|e| e.to_string())?;
        let status = nodes.iter().find(|n| n.uid == alone.node_uid);
        match status.map(|node| node.status.as_str()) {
            Some("down") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .unwrap();
    let remove = ["node", &node, "remove"];
    refused(&cluster, left, &remove, "or delete the database");
    for database in [1, 2] {
        let path = format!("/v1/bdbs/{database}");
        let _: Value = cluster.nodes[left]
            .send("DELETE", &path, &json!({}))
            .unwrap();
    }
    let output = cluster.nodes[left].rladmin(&remove).unwrap();
    assert!(output.status.success(), "{}", seen(&output));
    wait::until("nothing is left", Duration::from_secs(30), || {
        let shards: Vec<ShardInfo> = cluster.nodes[left]
            .get("/v1/shards")
            .map_err(|e| e.to_string())?;
        let databases: Vec<Bdb> = cluster.nodes[left]
            .get("/v1/bdbs")
            .map_err(|e| e.to_string())?;
        let nodes: Vec<NodeInfo> = cluster.nodes[left]
            .get("/v1/nodes")
            .map_err(|e| e.to_string())?;
        match (shards.len(), databases.len(), nodes.len()) {
            (0, 0, 2) => Ok(()),
            counts => Err(format!("{counts:?}")),
        }
    })
    .unwrap();
    let words = [
        &["create", "db", "alone", "memory_size", "64MB"][..],
        &["port", "12001", "replication", "enabled"],
    ];
    let output = cluster.nodes[left].rladmin(&words.concat()).unwrap();
    assert!(output.status.success(), "{}", seen(&output));
}
