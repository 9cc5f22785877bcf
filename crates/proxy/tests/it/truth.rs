//! Shards that are killed under load: what was answered is true.

use crate::support::client::{Client, words};
use crate::support::node::{Node, VALKEY};
use crate::support::until;
use resp::value::Value;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::ScopedJoinHandle;

const CLIENTS: usize = 20;
const PIPELINE: usize = 12;
const UNKNOWN: &[u8] =
    b"ERR connection to the shard was lost, the outcome of this command is unknown";

/// What a client knows of one of its keys.
#[derive(Clone, Default)]
struct Known {
    /// Those whose outcome nobody knows.
    unknown: i64,
    /// The last number that was told.
    last: i64,
    /// Values of the companion that may be there: the last one answered, and those of unknown outcome after it.
    possible: Vec<String>,
}

/// One client: pipelines of increments and settings of keys on all shards. Returns what it knows of each.
fn work(mut client: Client, name: usize, stop: &AtomicBool) -> (Vec<Known>, u64) {
    let mut known = vec![
        Known {
            possible: vec![String::new()],
            ..Known::default()
        };
        PIPELINE
    ];
    let (mut round, mut errors) = (0_u64, 0);
    while !stop.load(Ordering::Relaxed) {
        round += 1;
        let mut sent = Vec::new();
        for key in 0..PIPELINE {
            sent.extend(words(&format!("INCR n{name}:{key}")));
            sent.extend(words(&format!("SET v{name}:{key} {round}")));
            sent.extend(words(&format!("ECHO {name}:{key}:{round}")));
        }
        client.send(&sent);
        for (key, known) in known.iter_mut().enumerate() {
            match client.try_value("INCR") {
                Value::Integer(number) => {
                    assert!(
                        number > known.last && number <= known.last + known.unknown + 1,
                        "client {name}, key {key}: {number} after {} and {} unknown",
                        known.last,
                        known.unknown
                    );
                    // Those of unknown outcome have shown whether they ran.
                    (known.last, known.unknown) = (number, 0);
                }
                error => {
                    errors += 1;
                    known.unknown += i64::from(may_have_run(&error));
                }
            }
            match client.try_value("SET") {
                Value::Simple(text) => {
                    assert_eq!(text, b"OK");
                    known.possible = vec![round.to_string()];
                }
                error => {
                    errors += 1;
                    if may_have_run(&error) {
                        known.possible.push(round.to_string());
                    }
                }
            }
            match client.try_value("ECHO") {
                Value::Error(text) => {
                    errors += 1;
                    may_have_run(&Value::Error(text));
                }
                echo => assert_eq!(
                    echo.text(),
                    Some(format!("{name}:{key}:{round}").as_bytes())
                ),
            }
        }
    }
    (known, errors)
}

/// Whether a command that ended with this error may have run all the same.
fn may_have_run(error: &Value) -> bool {
    let Value::Error(text) = error else {
        panic!("neither a reply nor an error: {error:?}");
    };
    let refused = [&b"TRYAGAIN "[..], b"LOADING ", b"BUSY "];
    let not_run = refused.iter().any(|beginning| text.starts_with(beginning));
    assert!(
        not_run || text == UNKNOWN,
        "{}",
        String::from_utf8_lossy(text)
    );
    !not_run
}

impl Client {
    /// The next reply; the connection has to stay.
    #[track_caller]
    fn try_value(&mut self, what: &str) -> Value {
        let raw = self
            .try_raw()
            .unwrap_or_else(|| panic!("closed before the reply to {what}"));
        Value::decode(&raw).unwrap().0
    }
}

/// A shard with a log of its commands that is killed again and again.
fn killed_under_load(shards: u16, kills: usize) {
    let mut node = if shards == 1 {
        Node::start()
    } else {
        Node::sharded(VALKEY, shards)
    };
    let victim = usize::from(shards) - 1;
    node.shard(victim).keep_data();
    node.shard(victim).kill();
    node.shard(victim).restart();
    let mut probe = node.client();
    wait_for_all(&mut probe);
    let stop = AtomicBool::new(false);
    let endpoint = node.endpoint;
    let results: Vec<(Vec<Known>, u64)> = std::thread::scope(|scope| {
        let stop = &stop;
        let clients: Vec<ScopedJoinHandle<'_, _>> = (0..CLIENTS)
            .map(|name| scope.spawn(move || work(Client::connect(endpoint), name, stop)))
            .collect();
        for _ in 0..kills {
            let before = node.exec.last().unwrap().databases[0].commands;
            until("there is load", || {
                node.exec.last().unwrap().databases[0].commands > before + 2_000
                    || clients.iter().any(ScopedJoinHandle::is_finished)
            });
            node.shard(victim).kill();
            node.shard(victim).restart();
        }
        stop.store(true, Ordering::Relaxed);
        clients
            .into_iter()
            .map(|client| client.join().unwrap())
            .collect()
    });
    wait_for_all(&mut probe);
    let errors: u64 = results.iter().map(|(_, errors)| errors).sum();
    assert!(errors > 0, "the kills were noticed");
    for (name, (known, _)) in results.iter().enumerate() {
        check(&mut probe, name, known);
    }
}

/// Waits until every shard answers.
fn wait_for_all(probe: &mut Client) {
    until("the shards answer", || {
        (0..64).all(|number| {
            probe
                .text(&format!("GET probe{number}"))
                .starts_with(['$', '_'])
        })
    });
}

/// What is there now must be what was answered, or may have run.
fn check(probe: &mut Client, name: usize, known: &[Known]) {
    for (key, known) in known.iter().enumerate() {
        let number = number_of(probe, &format!("n{name}:{key}"));
        assert!(
            (known.last..=known.last + known.unknown).contains(&number),
            "n{name}:{key} is {number}; {} was told, {} are unknown",
            known.last,
            known.unknown
        );
        let value = probe.ask(&format!("GET v{name}:{key}"));
        let value = String::from_utf8_lossy(value.text().unwrap_or_default()).into_owned();
        assert!(
            known.possible.contains(&value),
            "v{name}:{key} is {value}: {:?}",
            known.possible
        );
    }
}

fn number_of(client: &mut Client, key: &str) -> i64 {
    client
        .ask(&format!("GET {key}"))
        .text()
        .and_then(|text| std::str::from_utf8(text).ok()?.parse().ok())
        .unwrap_or(0)
}

/// `MAINSTAY_THOROUGH`: more of them.
fn times(otherwise: usize) -> usize {
    std::env::var_os("MAINSTAY_THOROUGH").map_or(otherwise, |_| 5 * otherwise)
}

#[test]
fn one_shard_is_killed_again_and_again() {
    killed_under_load(1, times(2));
}

#[test]
fn one_of_four_shards_is_killed_again_and_again() {
    killed_under_load(4, times(3));
}
