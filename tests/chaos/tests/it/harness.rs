//! The harness is proven by what goes wrong on purpose: it must find what a real cluster was made to
//! lose, to double and to fork behind the clients' backs.

use std::time::Duration;
use testkit::cluster::Cluster;
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
