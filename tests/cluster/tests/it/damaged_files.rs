//! What if the files of an engine are damaged? Those of a replica are no loss: its primary has the data.

use crate::hangs::{told, whole, writers};
use crate::load::go_on;
use crate::outages::append_only;
use crate::replicas::{create, end, masters};
use crate::story::{shards, shards_ok};
use model::rest::ShardInfo;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;
use testkit::cluster::Cluster;
use testkit::wait;

/// Writes nonsense over the append-only files of the only shard on a node.
fn damage(cluster: &Cluster, shard: &ShardInfo) {
    let place = usize::try_from(shard.node_uid.0).unwrap() - 1;
    let mut files = Vec::new();
    append_only(&cluster.nodes[place].config.var_dir, &mut files);
    assert!(!files.is_empty());
    for file in files {
        fs::write(file, "*3\r\n$3\r\nSET\r\nthis is no command\r\n".repeat(9)).unwrap();
    }
}

fn replica(cluster: &Cluster) -> ShardInfo {
    let mut all = shards(cluster, 0);
    all.retain(|shard| shard.role == "slave");
    all.remove(0)
}

/// Folders with what was set aside.
fn aside(cluster: &Cluster, shard: &ShardInfo) -> Vec<PathBuf> {
    let place = usize::try_from(shard.node_uid.0).unwrap() - 1;
    let folder = cluster.nodes[place].config.shards_dir();
    let folder = fs::read_dir(folder.join(shard.uid.to_string())).unwrap();
    let paths = folder.map(|entry| entry.unwrap().path());
    paths
        .filter(|path| path.to_string_lossy().contains("set-aside-"))
        .collect()
}

#[test]
fn a_replica_whose_files_are_damaged_comes_back_with_the_data_of_its_primary() {
    let cluster = Cluster::start(3).unwrap();
    create(&cluster, &["persistence", "aof"]);
    shards_ok(&cluster);
    let writers = writers(&cluster);
    let (before, lost) = (masters(&cluster).remove(0), replica(&cluster));
    damage(&cluster, &lost);
    end(lost.pid);
    let event = told(&cluster, "replica_files_set_aside");
    assert_eq!(event.severity, "WARNING");
    assert_eq!(event.facts["shard_uid"], lost.uid.0);
    let cause = event.facts["cause"].to_string();
    assert!(cause.contains("reading the append only file"), "{cause}");
    shards_ok(&cluster);
    let back = replica(&cluster);
    assert_eq!((back.uid, back.node_uid), (lost.uid, lost.node_uid));
    let after = masters(&cluster).remove(0);
    assert_eq!((after.uid, after.pid), (before.uid, before.pid));
    assert_eq!(aside(&cluster, &lost).len(), 1);
    assert!(aside(&cluster, &before).is_empty());

    // The primary's are damaged next: who has the data is its replica.
    go_on(&writers, "they write");
    damage(&cluster, &before);
    end(before.pid);
    wait::until("the old primary is back", Duration::from_secs(60), || {
        let (now, old) = (masters(&cluster).remove(0), replica(&cluster));
        let changed = now.uid == back.uid && old.uid == before.uid;
        if changed && old.detailed_status == "ok" && now.detailed_status == "ok" {
            return Ok(());
        }
        Err(format!("{now:?} {old:?}"))
    })
    .unwrap();
    assert_eq!(aside(&cluster, &before).len(), 1);
    go_on(&writers, "they write again");
    whole(&cluster, writers);
}

/// The only copy: it waits for an operator.
#[test]
fn the_files_of_a_primary_that_nobody_can_replace_stay() {
    let cluster = Cluster::start(3).unwrap();
    create(&cluster, &["persistence", "aof"]);
    shards_ok(&cluster);
    let (master, slave) = (masters(&cluster).remove(0), replica(&cluster));
    for shard in [&master, &slave] {
        damage(&cluster, shard);
    }
    for shard in [&master, &slave] {
        end(shard.pid);
    }
    let down = told(&cluster, "shard_down");
    let cause = down.facts["cause"].to_string();
    assert!(cause.contains("does not start"), "{cause}");
    for shard in [&master, &slave] {
        assert!(aside(&cluster, shard).is_empty(), "{shard:?}");
    }
}
