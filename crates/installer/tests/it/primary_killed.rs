//! An upgrade of all nodes, and its way back, with whoever stores something of it killed before and after each thing
//! that is stored. `docs/testing.md` has the list, which is compared with what was seen. Tens of minutes, run by hand:
//! `cargo test -p installer --test it -- --ignored --nocapture primary_killed`.

use crate::all_nodes::{Three, tar_of};
use crate::bench::{
    FIRST, SECOND, bundle, change_signed, copy_of, is_root, repository, wait_until_within,
};
use crate::killer::{Kill, Killer, Stops, Victim};
use model::rest::LogEvent;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use testkit::history::{Allowed, History, Micros, Outcome, Value};
use testkit::load::{Clock, Load, Plan, key};

/// A run, with a pause at every place at worst.
const LONG: Duration = Duration::from_mins(40);
const LISTS: u16 = 3;
const DAEMONS: [&str; 3] = ["cnm_http", "cnm_exec", "dmcproxy"];
/// There and back so often at most: what was passed while a node came back is met in the next round.
const ROUNDS: u32 = 6;
const SECOND_MICROS: Micros = 1_000_000;

/// The changes by which an upgrade is finalised.
const LEVEL: [&str; 4] = ["asked", "raising", "level", "closed"];

struct Scenario {
    three: Arc<Three>,
    stops: Stops,
    tar: PathBuf,
    known: Known,
}

/// What a round of one kind of victim was.
struct Seen {
    kills: Vec<Kill>,
    paused: BTreeMap<String, u32>,
}

#[test]
#[ignore = "tens of minutes; run by hand"]
fn whoever_stores_something_is_killed_there() {
    if !is_root() {
        return;
    }
    let three = Three::start();
    let second = copy_of(&bundle(SECOND), &three.path("second"));
    // There is a level to rise to at the end.
    change_signed(&second, |manifest| manifest["feature_max"] = 2.into());
    let tar = tar_of(&second, &three.path("second.tar"));
    let stops = Stops::of(&three);
    stops.pass();
    three.good(
        1,
        "cluster upgrade config hold_finalize enabled soak_seconds 0",
    );
    let scenario = Scenario {
        three: Arc::new(three),
        stops,
        tar,
        known: Known::read(),
    };
    // "Platform finalise": that victim, and the level's rise only.
    let wanted = std::env::var("MAINSTAY_VICTIMS").unwrap_or_default();
    let mut victims = vec![Victim::Exec, Victim::Platform, Victim::Host];
    victims.retain(|victim| wanted.is_empty() || wanted.contains(&format!("{victim:?}")));
    for victim in &victims {
        if !wanted.contains("finalise") {
            scenario.there_and_back(*victim);
        }
    }
    // The level rises once.
    let first = victims.first();
    scenario.finalised(*first.expect("MAINSTAY_VICTIMS names Exec, Platform or Host"));
}

impl Scenario {
    /// A run forward and one back with kills at each place.
    fn there_and_back(&self, victim: Victim) {
        let began = Instant::now();
        let clock = Clock::start();
        let load = Arc::new(self.load(clock));
        let engines = self.three.engines();
        let mut kills: Vec<Kill> = Vec::new();
        let mut paused = BTreeMap::new();
        let mut done = [BTreeSet::new(), BTreeSet::new()];
        for round in 1..=ROUNDS {
            let mut passed = BTreeSet::new();
            let logs = self.logs();
            for forward in [true, false] {
                let done = &mut done[usize::from(forward)];
                let clients = Arc::clone(&load);
                let served = move || clients.acknowledged();
                self.three.is_well();
                let with = (victim, clock, false);
                let killer = Killer::start(&self.three, &self.stops, with, done, served);
                self.order(forward);
                for (code, count) in self.until_done() {
                    *paused.entry(code).or_insert(0) += count;
                }
                self.settled(forward);
                let killed = killer.end();
                done.extend(killed.kills.iter().map(|kill| kill.place.clone()));
                passed.extend(killed.passed.difference(done).cloned());
                kills.extend(killed.kills);
            }
            self.no_turn_twice(victim, &logs);
            println!("{victim:?}: round {round}, passed: {passed:?}");
            if passed.iter().all(|place| self.known.may_be(place)) {
                break;
            }
        }
        if victim != Victim::Host {
            assert_eq!(self.three.engines(), engines, "engines were restarted");
        }
        let load = Arc::into_inner(load).unwrap();
        let seen = Seen { kills, paused };
        self.judge(victim, load, clock, &seen);
        println!(
            "{victim:?}: {} kills in {:.0} s; paused: {:?}",
            seen.kills.len(),
            began.elapsed().as_secs_f64(),
            seen.paused
        );
        self.known.agrees(&names(&seen.kills), victim, false);
    }

    /// Clients of every node.
    fn load(&self, clock: Clock) -> Load {
        let targets = (1..=3).map(|node| SocketAddr::new(self.three.address(node).into(), 12_000));
        let plan = Plan {
            targets: targets.collect(),
            clients: 9,
            lists: LISTS,
            every: Duration::from_millis(50),
            patience: Duration::from_secs(60),
        };
        Load::start(plan, clock).unwrap()
    }

    /// Ordered until the cluster has it: the one who is asked may be killed.
    fn order(&self, forward: bool) {
        let words = if forward {
            format!(
                "cluster upgrade start bundle {} hold_finalize",
                self.tar.display()
            )
        } else {
            "cluster upgrade rollback -y".to_owned()
        };
        let mut node = 0;
        wait_until_within(&words, LONG, || {
            node = node % 3 + 1;
            let ran = self.three.rladmin(node, &words);
            let runs = format!("runs {SECOND} already");
            let there = ["upgrade_run_open", &runs];
            ran.code == Some(0) || there.iter().any(|text| ran.text.contains(text))
        });
    }

    /// Follows it to its end, and has it go on whenever it pauses; gives why it did, and how often.
    fn until_done(&self) -> BTreeMap<String, u32> {
        let mut paused: BTreeMap<String, u32> = BTreeMap::new();
        let mut node = 0;
        wait_until_within("the upgrade is done", LONG, || {
            node = node % 3 + 1;
            let report = self.three.report(node);
            if report["state"] == "paused" {
                let code = report["paused"]["code"].as_str().unwrap().to_owned();
                println!("paused: {}", report["paused"]);
                if self.three.rladmin(node, "cluster upgrade resume").code == Some(0) {
                    let count = paused.entry(code).or_default();
                    *count += 1;
                    assert!(*count < 20, "it pauses again and again");
                }
            }
            report["state"] == "done"
        });
        paused
    }

    /// The last change that follows from the end of a run is stored, and every node runs what it should.
    fn settled(&self, forward: bool) {
        let (version, said) = if forward {
            (SECOND, "waits for `rladmin cluster upgrade finalize`")
        } else {
            (FIRST, "No upgrade is under way.")
        };
        let mut node = 0;
        wait_until_within("what follows is stored", LONG, || {
            node = node % 3 + 1;
            let status = self.three.rladmin(node, "cluster upgrade status");
            status.text.contains(said)
        });
        assert_eq!(self.three.versions(), [version; 3]);
    }

    fn logs(&self) -> [String; 3] {
        [1, 2, 3].map(|node| {
            let log = self.three.folder(node, "var/mainstay/log/install.log");
            fs::read_to_string(log).unwrap()
        })
    }

    /// No installer was begun that was not ordered, and none twice for one order; where installers live, each daemon
    /// was replaced once.
    fn no_turn_twice(&self, victim: Victim, before: &[String; 3]) {
        let report = self.three.report_of_any();
        for (node, log) in self.logs().iter().enumerate() {
            let log = &log[before[node].len()..];
            let count = |mark: &str| log.lines().filter(|line| line.contains(mark)).count();
            let begun = count("upgrade of the node at") + count("going back from Mainstay");
            let mut turns = report["nodes"].as_array().unwrap().iter();
            let turn = turns.find(|turn| turn["uid"] == node + 1).unwrap();
            let ordered = turn["attempt"].as_u64().unwrap();
            println!("node {}: {ordered} turns ordered, {begun} begun", node + 1);
            assert!(begun as u64 <= ordered, "{log}");
            for daemon in DAEMONS {
                let replaced = count(&format!("[$] supervisorctl restart {daemon}"));
                // There, and back.
                assert!(victim != Victim::Exec || replaced == 2, "{daemon}: {log}");
            }
        }
    }

    /// What clients saw.
    fn judge(&self, victim: Victim, load: Load, clock: Clock, seen: &Seen) {
        let appends = load.stop().unwrap();
        let spans: Vec<_> = seen.kills.iter().map(|kill| kill.span.clone()).collect();
        // Nobody notices that cnm_exec is gone; where engines stay, only clients of the killed proxy do.
        let faults = if victim == Victim::Exec {
            Vec::new()
        } else {
            spans
        };
        if victim == Victim::Platform {
            let errors: Vec<_> = appends
                .iter()
                .filter(|append| matches!(append.outcome, Outcome::NotRun(_) | Outcome::Unknown(_)))
                .collect();
            assert!(errors.is_empty(), "errors of clients: {errors:?}");
        }
        let failovers: Vec<LogEvent> = self.three.rest("/v1/logs").unwrap();
        let failovers = failovers
            .iter()
            .filter(|event| event.kind == "shard_failover")
            .filter_map(|event| clock.of_event(&event.time))
            .collect();
        let history = History {
            appends,
            lists: self.lists(),
            faults,
            failovers,
            allowed: Allowed {
                before: SECOND_MICROS,
                after: SECOND_MICROS,
            },
            not_healed: None,
        };
        let verdict = history.check();
        println!(
            "{victim:?}: {} acknowledged, {} not run, {} unknown, {} closed, {} lost to failovers",
            verdict.acknowledged,
            verdict.not_run,
            verdict.unknown,
            verdict.closed,
            verdict.lost_to_failovers
        );
        assert!(verdict.holds(), "{:#?}", verdict.findings);
    }

    /// What is there; then it is removed.
    fn lists(&self) -> BTreeMap<u16, Vec<Value>> {
        let address = self.three.address(1);
        let client = redis::Client::open(format!("redis://{address}:12000/")).unwrap();
        let mut connection = client.get_connection().unwrap();
        let mut lists = BTreeMap::new();
        for list in 0..LISTS {
            let texts: Vec<String> = redis::cmd("LRANGE")
                .arg(key(list))
                .arg(0)
                .arg(-1)
                .query(&mut connection)
                .unwrap();
            let values = texts.iter().map(|text| Value::parse(text).unwrap());
            lists.insert(list, values.collect());
            let _: u64 = redis::cmd("DEL")
                .arg(key(list))
                .query(&mut connection)
                .unwrap();
        }
        lists
    }

    /// The level rises, with somebody killed wherever something of that is stored.
    fn finalised(&self, victim: Victim) {
        self.three.is_well();
        self.order(true);
        self.until_done();
        self.settled(true);
        let clock = Clock::start();
        let load = Arc::new(self.load(clock));
        let clients = Arc::clone(&load);
        let served = move || clients.acknowledged();
        // The level rises once.
        let with = (victim, clock, true);
        let killer = Killer::start(&self.three, &self.stops, with, &BTreeSet::new(), served);
        let mut node = 0;
        wait_until_within("it is finalised", LONG, || {
            node = node % 3 + 1;
            let ran = self.three.rladmin(node, "cluster upgrade finalize -y");
            println!("{}", ran.text);
            let status = self.three.rladmin(node, "cluster upgrade status");
            status.text.contains("feature level 1 to 2, finalised")
        });
        let mut killed = killer.end();
        self.three.is_well();
        let whole = clock.now();
        for kill in &mut killed.kills {
            kill.span.to = whole;
        }
        let mut seen = names(&killed.kills);
        assert!(!seen.is_empty());
        if victim == Victim::Host {
            // Those that were passed while clients of a lost host waited.
            seen.extend(killed.passed.iter().map(|place| name(place)));
        }
        let paused = BTreeMap::new();
        let kills = killed.kills;
        let load = Arc::into_inner(load).unwrap();
        self.judge(victim, load, clock, &Seen { kills, paused });
        self.known.agrees(&seen, victim, true);
    }
}

/// A place without the number of the node: nodes are alike.
fn name(place: &str) -> String {
    match place.rsplit_once('-') {
        Some((what, number)) if number.parse::<u8>().is_ok() => format!("{what}-N"),
        _ => place.to_owned(),
    }
}

/// Where somebody was killed.
fn names(kills: &[Kill]) -> BTreeSet<String> {
    kills.iter().map(|kill| name(&kill.place)).collect()
}

/// The changes of the documentation, and whether each only happens when something stands in the way.
struct Known(BTreeMap<String, bool>);

impl Known {
    fn read() -> Self {
        let text = fs::read_to_string(repository().join("docs/testing.md")).unwrap();
        let rows = text.lines().filter_map(|line| {
            let (name, rest) = line.strip_prefix("| `")?.split_once('`')?;
            let is_change = rest.starts_with(" | stored: ");
            is_change.then(|| (name.to_owned(), rest.contains("(may be)")))
        });
        Self(rows.collect())
    }

    fn may_be(&self, place: &str) -> bool {
        let name = name(place);
        let (_, what) = name.split_once(':').unwrap();
        self.0.get(what).is_none_or(|may_be| *may_be)
    }

    /// Somebody was killed before and after each change, and there is none that is not documented.
    fn agrees(&self, seen: &BTreeSet<String>, victim: Victim, of_level: bool) {
        let changes: BTreeSet<&str> = seen
            .iter()
            .filter_map(|place| Some(place.split_once(':')?.1))
            .collect();
        println!("{} changes: {changes:?}", changes.len());
        let unknown: Vec<_> = changes
            .iter()
            .filter(|change| !self.0.contains_key(**change))
            .collect();
        assert!(unknown.is_empty(), "docs/testing.md lacks {unknown:?}");
        let wanted = self
            .0
            .iter()
            .filter(|(change, may_be)| !**may_be && LEVEL.contains(&change.as_str()) == of_level);
        for when in ["before", "after"] {
            for (change, _) in wanted.clone() {
                let place = format!("{when}:{change}");
                let killed = seen.contains(&place) || !victim.dies(&place);
                assert!(killed, "nobody was killed {place}");
            }
        }
    }
}
