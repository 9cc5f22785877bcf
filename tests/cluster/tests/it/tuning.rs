//! What happens to clients when an operator tunes their database or their proxy, and when a client sets
//! which keyspace events are published?

use crate::story::{databases, primary, refused, seen, served, set, shards};
use model::rest::{DatabaseStats, LogEvent, Proxy};
use std::time::{Duration, Instant};
use testkit::cluster::Cluster;
use testkit::wait;

fn rladmin(cluster: &Cluster, node: usize, line: &str) -> String {
    let words: Vec<&str> = line.split_whitespace().collect();
    let output = cluster.nodes[node].rladmin(&words).unwrap();
    assert!(output.status.success(), "{line}: {}", seen(&output));
    seen(&output)
}

fn config(connection: &mut redis::Connection, words: &[&str]) -> redis::RedisResult<redis::Value> {
    let mut command = redis::cmd("CONFIG");
    for word in words {
        command.arg(*word);
    }
    command.query(connection)
}

fn flags(connection: &mut redis::Connection) -> String {
    let found: Vec<String> = redis::cmd("CONFIG")
        .arg("GET")
        .arg("notify-keyspace-events")
        .query(connection)
        .unwrap();
    found[1].clone()
}

/// A client sets it at a node that is not the primary node: it holds for every shard, wherever it is, for
/// engines that start anew, and everybody sees it.
#[test]
fn keyspace_events_set_by_a_client() {
    let cluster = Cluster::start(3).unwrap();
    rladmin(
        &cluster,
        0,
        "create db demo memory_size 64MB port 12000 shards_count 3 shards_placement sparse \
         proxy_policy all-nodes",
    );
    let elsewhere = (primary(&cluster) + 1) % 3;
    let mut client = served(&cluster, elsewhere, 12_000);
    assert_eq!(flags(&mut client), "");
    config(&mut client, &["SET", "notify-keyspace-events", "KEA"]).unwrap();
    // Said to be so, it is so, everywhere.
    for node in 0..3 {
        assert_eq!(flags(&mut served(&cluster, node, 12_000)), "AKE");
    }
    assert_eq!(databases(&cluster, 0)[0].notify_keyspace_events, "AKE");
    let subscriber = cluster.connect(2, 12_000).unwrap();
    heard_of_every_shard(subscriber, &mut client);
    kill_an_engine(&cluster);
    for node in 0..3 {
        assert_eq!(flags(&mut served(&cluster, node, 12_000)), "AKE");
    }
    let events: Vec<LogEvent> = cluster.nodes[0].get("/v1/logs").unwrap();
    let mut events = events.iter();
    let event = events.find(|event| event.kind == "bdb_keyspace_events_changed");
    let by = event.unwrap().facts["changed_by"].as_str().unwrap();
    assert!(by.contains(&format!("node:{}", elsewhere + 1)), "{by}");
    // Several at the same time, the same and others, all come through.
    std::thread::scope(|scope| {
        for number in 0..6 {
            let mut client = served(&cluster, number % 3, 12_000);
            let wanted = if number < 4 { "Ex" } else { "" };
            scope.spawn(move || {
                config(&mut client, &["SET", "notify-keyspace-events", wanted]).unwrap();
            });
        }
    });
    rladmin(&cluster, 1, "tune db demo notify_keyspace_events none");
    wait::until(
        "none is published",
        Duration::from_secs(20),
        || match flags(&mut client).as_str() {
            "" => Ok(()),
            other => Err(other.to_owned()),
        },
    )
    .unwrap();
    let error = config(&mut client, &["SET", "maxmemory", "1"]).unwrap_err();
    assert!(error.to_string().contains("rladmin"), "{error}");
    refused(
        &cluster,
        0,
        &["tune", "db", "demo", "notify_keyspace_events", "K!"],
        "is no flag",
    );
}

fn heard_of_every_shard(mut subscriber: redis::Connection, client: &mut redis::Connection) {
    let mut subscriber = subscriber.as_pubsub();
    subscriber.psubscribe("__keyevent@0__:set").unwrap();
    subscriber
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let keys: Vec<String> = (0..30).map(|number| format!("key:{number}")).collect();
    for key in &keys {
        set(client, key, "value");
    }
    let mut heard: Vec<String> = (0..keys.len())
        .map(|_| subscriber.get_message().unwrap().get_payload().unwrap())
        .collect();
    heard.sort();
    let mut wanted = keys;
    wanted.sort();
    assert_eq!(heard, wanted);
}

fn kill_an_engine(cluster: &Cluster) {
    let shard = shards(cluster, 0).remove(1);
    let pid = rustix::process::Pid::from_raw(shard.pid.unwrap().cast_signed()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    wait::until("a new process serves", Duration::from_secs(30), || {
        let all = shards(cluster, 0);
        let now = all.into_iter().find(|known| known.uid == shard.uid);
        let now = now.ok_or("it is gone")?;
        if now.epoch > shard.epoch && now.detailed_status == "ok" {
            return Ok(());
        }
        Err(format!("{now:?}"))
    })
    .unwrap();
}

/// Limits and threads change under a client that stays.
#[test]
fn limits_and_threads_under_clients() {
    let cluster = Cluster::start(2).unwrap();
    rladmin(
        &cluster,
        0,
        "create db demo memory_size 64MB port 12000 proxy_policy all-nodes",
    );
    let mut client = served(&cluster, 1, 12_000);
    rladmin(
        &cluster,
        0,
        "tune db demo max_commands_per_second 400 max_client_pipeline 10 client_buffer 32MB",
    );
    let shown = rladmin(&cluster, 1, "info db demo");
    for line in [
        "max_commands_per_second: 400",
        "max_client_pipeline: 10",
        "client_buffer: 32MB:2MB:10",
    ] {
        assert!(shown.contains(line), "{shown}");
    }
    // One of two proxies: its half.
    wait::until("the rate is kept", Duration::from_secs(20), || {
        let began = Instant::now();
        let mut pipeline = redis::pipe();
        for _ in 0..120 {
            pipeline.cmd("INCR").arg("count").ignore();
        }
        pipeline.query::<()>(&mut client).unwrap();
        let passed = began.elapsed();
        if passed > Duration::from_millis(450) {
            return Ok(());
        }
        Err(format!("120 commands in {passed:?}"))
    })
    .unwrap();
    rladmin(&cluster, 0, "tune db demo max_commands_per_second 0");
    let said = rladmin(&cluster, 0, "tune proxy all mode static threads 3");
    assert_eq!(said, "- proxy:1: ok\n- proxy:2: ok\n");
    threads(&cluster, &[3, 3]);
    rladmin(&cluster, 1, "tune proxy 2 threads 1");
    threads(&cluster, &[3, 1]);
    let shown = rladmin(&cluster, 0, "info proxy 2");
    assert!(
        shown.contains("mode: static") && shown.contains("running threads: 1"),
        "{shown}"
    );
    remembered(&cluster);
    set(&mut client, "key", "value");
    let id: u64 = redis::cmd("CLIENT").arg("ID").query(&mut client).unwrap();
    assert!(id > 0);
    refused(
        &cluster,
        0,
        &["tune", "proxy", "9", "threads", "2"],
        "node_not_found",
    );
}

/// The primary node remembers the last seconds; every node tells of them.
fn remembered(cluster: &Cluster) {
    for node in &cluster.nodes {
        wait::until("seconds are remembered", Duration::from_secs(20), || {
            let stats: DatabaseStats = node.get("/v1/bdbs/stats/1").unwrap();
            let busy = stats.intervals.iter().filter(|one| one.total_req > 0);
            match busy.count() {
                0 => Err(format!("{stats:?}")),
                _ if stats.intervals.len() < 3 => Err(format!("{stats:?}")),
                _ => Ok(()),
            }
        })
        .unwrap();
    }
}

fn threads(cluster: &Cluster, wanted: &[u32]) {
    wait::until("the threads run", Duration::from_secs(20), || {
        let proxies: Vec<Proxy> = cluster.nodes[0].get("/v1/proxies").unwrap();
        let running: Vec<u32> = proxies.iter().filter_map(|p| p.running_threads).collect();
        if running == wanted {
            return Ok(());
        }
        Err(format!("{proxies:?}"))
    })
    .unwrap();
}
