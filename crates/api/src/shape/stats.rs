//! `/v1/bdbs/stats` and the slow log: what the proxies of a database counted, added up.

use model::DatabaseUid;
use model::history::{HistoryAnswer, Interval, Sample};
use model::observation::{
    LatencySummary, LatencyWindows, NodeObservation, ProxyCounts, ProxyDatabaseObservation,
    ProxyLatency,
};
use model::rest::{DatabaseStats, SlowlogEntry, StatsSample};
use model::view::ClusterView;

/// What the proxies say of a database: those of nodes that are heard.
fn seen(
    view: &ClusterView,
    database: DatabaseUid,
) -> impl Iterator<Item = (&NodeObservation, &ProxyDatabaseObservation)> {
    heard(view).filter_map(move |node| {
        let proxy = node.proxy.as_ref()?;
        let here = proxy.databases.iter().find(|d| d.database == database)?;
        Some((node, here))
    })
}

/// What nodes say that are heard.
fn heard(view: &ClusterView) -> impl Iterator<Item = &NodeObservation> + Clone {
    let observed = view.observed.iter().map(|observed| &observed.observation);
    observed.filter(|seen| view.is_heard(seen.node))
}

/// The newest sample of a database; none while no proxy that serves it is heard.
#[must_use]
pub fn newest(view: &ClusterView, database: DatabaseUid) -> Option<StatsSample> {
    let newest = Sample::newest(heard(view), database)?;
    let (mut since_start, mut latency) = (ProxyCounts::default(), ProxyLatency::default());
    for (_, proxy) in seen(view, database) {
        since_start.add(&proxy.since_start);
        slowest(&mut latency.shared, &proxy.latency.shared);
        slowest(&mut latency.own, &proxy.latency.own);
    }
    Some(StatsSample {
        since_start: Some(since_start),
        latency: Some(latency),
        ..sample(&newest, Interval::Second)
    })
}

/// A sample as it is shown.
#[must_use]
pub fn sample(sample: &Sample, interval: Interval) -> StatsSample {
    let counts = &sample.per_second;
    let total = counts.read_req + counts.write_req + counts.other_req;
    StatsSample {
        interval: interval.as_str().to_owned(),
        stime: sample.from.to_string(),
        etime: sample.to.to_string(),
        conns: sample.connections,
        in_flight: sample.in_flight,
        no_of_keys: sample.keys,
        used_memory: sample.used_memory,
        total_connections_received: counts.accepted,
        total_req: total,
        read_req: counts.read_req,
        write_req: counts.write_req,
        other_req: counts.other_req,
        instantaneous_ops_per_sec: total,
        ingress_bytes: counts.ingress_bytes,
        egress_bytes: counts.egress_bytes,
        avg_latency: mean(
            counts.read_us + counts.write_us + counts.other_us,
            counts.read_res + counts.write_res + counts.other_res,
        ),
        avg_read_latency: mean(counts.read_us, counts.read_res),
        avg_write_latency: mean(counts.write_us, counts.write_res),
        avg_other_latency: mean(counts.other_us, counts.other_res),
        ..StatsSample::default()
    }
}

/// The samples of a database, oldest first. What the primary node has not kept yet, since it is new, is
/// not there; the newest second always is.
#[must_use]
pub fn of_database(
    view: &ClusterView,
    database: DatabaseUid,
    kept: &HistoryAnswer,
    interval: Interval,
) -> DatabaseStats {
    let kept = kept.iter().find(|(uid, _)| *uid == database);
    let kept = kept.map_or(&[][..], |(_, samples)| samples);
    let mut intervals: Vec<StatsSample> =
        kept.iter().map(|known| sample(known, interval)).collect();
    if interval == Interval::Second
        && let Some(newest) = newest(view, database)
    {
        // It may be kept already, or not yet.
        intervals.retain(|known| known.etime != newest.etime);
        intervals.push(newest);
    }
    DatabaseStats {
        uid: database,
        intervals,
    }
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
