//! `/v1/bdbs/stats` and the slow log: what the proxies of a database counted, added up.

use model::DatabaseUid;
use model::documents::Database;
use model::observation::{
    LatencySummary, LatencyWindows, NodeObservation, ProxyCounts, ProxyDatabaseObservation,
};
use model::rest::{DatabaseStats, SlowlogEntry, StatsSample};
use model::view::ClusterView;

/// How long a sample is; only the newest is known.
pub const INTERVAL: &str = "1sec";

/// What the proxies say of a database: those of nodes that are heard.
fn seen(
    view: &ClusterView,
    database: DatabaseUid,
) -> impl Iterator<Item = (&NodeObservation, &ProxyDatabaseObservation)> {
    view.observed
        .iter()
        .filter(|observed| view.is_heard(observed.observation.node))
        .filter_map(move |observed| {
            let proxy = observed.observation.proxy.as_ref()?;
            let here = proxy.databases.iter().find(|d| d.database == database)?;
            Some((&observed.observation, here))
        })
}

/// The newest sample of a database; none while no proxy that serves it is heard.
#[must_use]
pub fn of_database(view: &ClusterView, database: &Database) -> DatabaseStats {
    DatabaseStats {
        uid: database.uid,
        intervals: sample(view, database.uid).into_iter().collect(),
    }
}

/// The newest sample of a database.
#[must_use]
pub fn sample(view: &ClusterView, database: DatabaseUid) -> Option<StatsSample> {
    let taken = seen(view, database).map(|(node, _)| node.taken).max()?;
    let mut now = ProxyCounts::default();
    let mut sample = StatsSample {
        interval: INTERVAL.to_owned(),
        stime: (taken - jiff::SignedDuration::from_secs(1)).to_string(),
        etime: taken.to_string(),
        ..StatsSample::default()
    };
    for (_, proxy) in seen(view, database) {
        now.add(&proxy.per_second);
        sample.since_start.add(&proxy.since_start);
        sample.conns += proxy.connections;
        sample.in_flight += proxy.in_flight;
        slowest(&mut sample.latency.shared, &proxy.latency.shared);
        slowest(&mut sample.latency.own, &proxy.latency.own);
    }
    let shards = view
        .observed
        .iter()
        .flat_map(|observed| &observed.observation.shards)
        .filter(|shard| shard.database == database);
    for shard in shards {
        sample.no_of_keys += shard.keys;
        sample.used_memory += shard.used_memory;
    }
    let total = now.read_req + now.write_req + now.other_req;
    Some(StatsSample {
        total_connections_received: now.accepted,
        total_req: total,
        read_req: now.read_req,
        write_req: now.write_req,
        other_req: now.other_req,
        instantaneous_ops_per_sec: total,
        ingress_bytes: now.ingress_bytes,
        egress_bytes: now.egress_bytes,
        avg_latency: mean(
            now.read_us + now.write_us + now.other_us,
            now.read_res + now.write_res + now.other_res,
        ),
        avg_read_latency: mean(now.read_us, now.read_res),
        avg_write_latency: mean(now.write_us, now.write_res),
        avg_other_latency: mean(now.other_us, now.other_res),
        ..sample
    })
}

/// Mean of so many times that are `sum` together, to a tenth of a µs.
fn mean(sum: u64, count: u64) -> Option<f64> {
    // A second's sums are far below 2^53, up to which a float has every number.
    (count > 0).then(|| (sum as f64 * 10.0 / count as f64).round() / 10.0)
}

/// Percentiles of several proxies cannot be added: the slowest one's are shown, with all counts.
fn slowest(shown: &mut LatencyWindows, other: &LatencyWindows) {
    let slower = |a: LatencySummary, b: LatencySummary| LatencySummary {
        count: a.count + b.count,
        p50_us: a.p50_us.max(b.p50_us),
        p99_us: a.p99_us.max(b.p99_us),
        max_us: a.max_us.max(b.max_us),
    };
    shown.last_second = slower(shown.last_second, other.last_second);
    shown.since_start = slower(shown.since_start, other.since_start);
}

/// The newest slow commands of a database, newest first.
#[must_use]
pub fn slowlog(view: &ClusterView, database: DatabaseUid) -> Vec<SlowlogEntry> {
    let mut entries: Vec<_> = seen(view, database)
        .flat_map(|(node, proxy)| proxy.slow.iter().map(|slow| (node.node, slow)))
        .collect();
    entries.sort_by_key(|(node, slow)| (std::cmp::Reverse((slow.when, slow.id)), *node));
    let entry = |(node_uid, slow): (_, &model::observation::SlowCommand)| SlowlogEntry {
        node_uid,
        id: slow.id,
        time: slow.when.to_string(),
        client: slow.client.clone(),
        client_name: slow.client_name.clone(),
        command: slow.command.clone(),
        key: slow.key.clone(),
        pipelined: slow.pipelined,
        total_us: slow.total_us,
        shard_us: slow.shard_us,
        behind_us: slow.behind_us,
        proxy_us: slow.proxy_us,
    };
    entries.into_iter().map(entry).collect()
}
