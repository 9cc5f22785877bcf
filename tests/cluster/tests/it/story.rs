//! Small words that the tests are told with.

use model::rest::{Bdb, ClusterInfo, ShardInfo};
use std::process::Output;
use std::time::Duration;
use testkit::cluster::Cluster;
use testkit::wait;

/// What an operator sees: both streams.
pub(crate) fn seen(output: &Output) -> String {
    let out = String::from_utf8_lossy(&output.stdout);
    format!("{out}{}", String::from_utf8_lossy(&output.stderr))
}

/// A command that must be refused with these words, and change nothing.
pub(crate) fn refused(cluster: &Cluster, node: usize, words: &[&str], with: &str) {
    let output = cluster.nodes[node].rladmin(words).unwrap();
    let text = seen(&output);
    assert!(!output.status.success(), "{words:?} was accepted:\n{text}");
    assert!(
        text.contains(with),
        "{words:?} should say '{with}':\n{text}"
    );
}

pub(crate) fn shards(cluster: &Cluster, node: usize) -> Vec<ShardInfo> {
    cluster.nodes[node].get("/v1/shards").unwrap()
}

pub(crate) fn databases(cluster: &Cluster, node: usize) -> Vec<Bdb> {
    cluster.nodes[node].get("/v1/bdbs").unwrap()
}

/// The index of the primary node.
pub(crate) fn primary(cluster: &Cluster) -> usize {
    let info: ClusterInfo = cluster.nodes[0].get("/v1/cluster").unwrap();
    usize::try_from(info.primary_node.expect("a primary node").0).unwrap() - 1
}

/// Waits until a shard is `ok` in the eyes of a node.
pub(crate) fn shard_ok(cluster: &Cluster, node: usize) -> ShardInfo {
    wait::until("the shard is ok", Duration::from_secs(30), || {
        let shards: Vec<ShardInfo> = cluster.nodes[node]
            .get("/v1/shards")
            .map_err(|e| e.to_string())?;
        let shard = shards.into_iter().next().ok_or("no shard")?;
        if shard.detailed_status == "ok" && shard.pid.is_some() {
            return Ok(shard);
        }
        Err(format!("{} {:?}", shard.detailed_status, shard.error))
    })
    .unwrap()
}

/// Waits until every shard is `ok`.
pub(crate) fn shards_ok(cluster: &Cluster) {
    wait::until("every shard is ok", Duration::from_secs(30), || {
        let all: Vec<ShardInfo> = cluster.nodes[0]
            .get("/v1/shards")
            .map_err(|e| e.to_string())?;
        if all.iter().all(|s| s.detailed_status == "ok") {
            return Ok(());
        }
        Err(format!("{all:?}"))
    })
    .unwrap();
}

/// Sends commands until one is answered: the endpoint may be between two processes.
pub(crate) fn served(cluster: &Cluster, node: usize, port: u16) -> redis::Connection {
    wait::until("the endpoint serves", Duration::from_secs(30), || {
        let mut connection = cluster.connect(node, port).map_err(|e| e.to_string())?;
        redis::cmd("PING")
            .query::<String>(&mut connection)
            .map_err(|e| e.to_string())?;
        Ok(connection)
    })
    .unwrap()
}

pub(crate) fn set(connection: &mut redis::Connection, key: &str, value: &str) {
    redis::cmd("SET")
        .arg(key)
        .arg(value)
        .query::<()>(connection)
        .unwrap();
}

pub(crate) fn get(connection: &mut redis::Connection, key: &str) -> Option<String> {
    redis::cmd("GET").arg(key).query(connection).unwrap()
}
