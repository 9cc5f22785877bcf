//! The harness is proven by what goes wrong on purpose: it must find what a real cluster was made to
//! lose, to double and to fork behind the clients' backs.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use testkit::cluster::{Cluster, Surroundings};
use testkit::database::PORT;
use testkit::history::{Allowed, History, Rule};
use testkit::load::{Clock, Load, Plan, key};
use testkit::wait;

const LISTS: u16 = 5;

/// Clients write into a real cluster; `harm` does to the lists what the platform never may.
fn broken(cluster: &Cluster, harm: impl FnOnce(&mut redis::Connection)) -> Vec<Rule> {
    let mut connection = cluster.connect(0, PORT).unwrap();
    redis::cmd("FLUSHALL").query::<()>(&mut connection).unwrap();
    let clock = Clock::start();
    let plan = Plan {
        targets: cluster.endpoints(),
        clients: LISTS,
        lists: LISTS,
        every: Duration::from_millis(5),
        patience: Duration::from_secs(20),
    };
    let load = Load::start(plan, clock).unwrap();
    let more = |count: u64| {
        let enough = load.acknowledged() + count;
        wait::until("clients write", Duration::from_secs(20), || {
            let now = load.acknowledged();
            (now >= enough).then_some(()).ok_or_else(|| now.to_string())
        })
        .unwrap();
    };
    more(200);
    harm(&mut connection);
    more(200);
    let history = History {
        appends: load.stop().unwrap(),
        lists: cluster.lists(LISTS).unwrap(),
        faults: Vec::new(),
        failovers: cluster.failovers(&clock).unwrap(),
        allowed: Allowed {
            before: 1_000_000,
            after: 1_000_000,
        },
        not_healed: cluster.not_whole(),
    };
    history.check().broken()
}

fn run(connection: &mut redis::Connection, words: &[&str]) {
    redis::cmd(words[0])
        .arg(&words[1..])
        .query::<redis::Value>(connection)
        .unwrap();
}

#[test]
fn what_is_lost_doubled_or_forked_in_a_real_cluster_is_found() {
    let cluster = Cluster::start(3).unwrap();
    cluster.create_replicated(&[]).unwrap();
    cluster.whole(Duration::from_secs(30)).unwrap();
    let none = broken(&cluster, |_| {});
    assert_eq!(none, [], "nothing was done");

    let first = key(0);
    let lost = broken(&cluster, |c| run(c, &["RPOP", &first]));
    assert!(lost.contains(&Rule::Lost), "{lost:?}");

    // Everything up to now is gone, and clients write on: what an engine does that comes back empty.
    let emptied = broken(&cluster, |c| run(c, &["FLUSHALL"]));
    assert!(emptied.contains(&Rule::Lost), "{emptied:?}");

    let doubled = broken(&cluster, |c| run(c, &["RPUSH", &first, "0:1"]));
    assert!(doubled.contains(&Rule::Doubled), "{doubled:?}");

    // Back to what was: a lineage that others have left long ago takes writes.
    let forked = broken(&cluster, |c| run(c, &["LTRIM", &first, "0", "9"]));
    assert!(forked.contains(&Rule::Lost), "{forked:?}");
}

/// By the primary's engine, how far its clock is ahead, seconds.
fn ahead(cluster: &Cluster) -> i64 {
    let mut connection = cluster.connect(0, PORT).unwrap();
    let (seconds, _): (i64, i64) = redis::cmd("TIME").query(&mut connection).unwrap();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    seconds - i64::try_from(now.as_secs()).unwrap()
}

#[test]
fn a_clock_and_a_disk_are_as_they_are_told() {
    let surroundings = Surroundings {
        clocks: true,
        ..Surroundings::default()
    };
    let cluster = Cluster::start_with(3, surroundings).unwrap();
    cluster.create_replicated(&[]).unwrap();
    cluster.whole(Duration::from_secs(30)).unwrap();
    let primary = cluster
        .index(cluster.role("master").unwrap().node_uid)
        .unwrap();
    for seconds in [600, -600, 0] {
        cluster.nodes[primary].set_clock(seconds).unwrap();
        let close = || match ahead(&cluster) {
            found if (found - seconds).abs() <= 2 => Ok(()),
            found => Err(format!("{found} s ahead")),
        };
        wait::until("its clock is set", Duration::from_secs(20), close).unwrap();
    }

    let slow = Duration::from_millis(300);
    for node in &cluster.nodes {
        node.slow_disk(slow).unwrap();
    }
    let began = Instant::now();
    let tuned = cluster.nodes[0].rladmin(&["tune", "cluster", "slave_ha_cooldown_period", "7200"]);
    assert!(tuned.unwrap().status.success());
    assert!(began.elapsed() >= slow, "a quorum writes before the answer");
}
