//! Clients that cache what they read, over several shards: an invalidation never comes before the reply that
//! it is about, however long that has to wait for another shard.
//!
//! `MAINSTAY_FUZZ_SEED` and `MAINSTAY_FUZZ_ROUNDS` try other sequences, or more.

use crate::fault::{key_at, relayed};
use crate::support::client::{Client, words};
use crate::support::node::{Node, VALKEY};
use crate::support::random::{Random, setting};
use crate::support::relay::Relay;
use crate::support::until;
use resp::value::Value;
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};

fn next(client: &mut Client) -> String {
    String::from_utf8(client.raw()).unwrap()
}

fn tracked(node: &Node) -> Client {
    let mut client = node.client();
    client.ask("HELLO 3");
    assert_eq!(client.text("CLIENT TRACKING ON"), "+OK\r\n");
    client
}

/// A connection that was tracked is given to nobody else: its engine would tell them of what they never read.
#[test]
fn nobody_hears_of_what_another_has_read() {
    for (engine, shards) in [
        ("redis-6.2.", 1),
        ("redis-7.0.", 1),
        (VALKEY, 1),
        (VALKEY, 4),
    ] {
        let node = match shards {
            1 => Node::with(engine, |_| {}),
            _ => Node::sharded(engine, shards),
        };
        let key = key_at(&node, usize::from(shards) - 1, "k");
        let mut writer = node.client();
        let starts: [&[&str]; 3] = [
            &["CLIENT TRACKING ON"],
            &[
                "CLIENT TRACKING ON BCAST",
                "CLIENT TRACKING OFF",
                "CLIENT TRACKING ON",
            ],
            &["MULTI", "CLIENT TRACKING ON", "EXEC"],
        ];
        for start in starts
            .iter()
            .filter(|start| shards == 1 || start.len() != 3)
        {
            let mut first = node.client();
            first.ask("HELLO 3");
            for line in *start {
                first.text(line);
            }
            first.text(&format!("GET {key}"));
            assert_eq!(first.text("CLIENT TRACKING OFF"), "+OK\r\n");
            // It needs no connection of its own any more.
            first.text(&format!("GET {key}"));
            let mut second = tracked(&node);
            writer.text(&format!("SET {key} v"));
            assert_eq!(second.text(&format!("SETNX {key} v")), ":0\r\n", "{engine}");
        }
    }
}

fn bulk(text: &str) -> String {
    format!("${}\r\n{text}\r\n", text.len())
}

fn invalidation(key: &str) -> String {
    format!(">2\r\n$10\r\ninvalidate\r\n*1\r\n{}", bulk(key))
}

/// Waits until a shard has told so many clients' connections of a key, or would.
fn read_by(shard: &mut Client, clients: usize) {
    until("the shard has answered", || {
        let info = shard.text("INFO stats");
        info.contains(&format!("tracking_total_items:{clients}\r\n"))
    });
}

/// What the client reads from the second shard waits for the first one; meanwhile it changes.
#[test]
fn what_waits_is_not_overtaken() {
    let (node, relays) = relayed(4);
    let (a, b) = (key_at(&node, 0, "a"), key_at(&node, 1, "b"));
    let mut shard = Client::connect(relays[1].target());
    for (line, wanted) in [
        (format!("GET {a}|GET {b}"), vec![bulk("1"), bulk("old")]),
        (
            format!("MGET {a} {b}"),
            vec![format!("*2\r\n{}{}", bulk("1"), bulk("old"))],
        ),
        (
            format!("MGET {a} {b}|GET {b}"),
            vec![format!("*2\r\n{}{}", bulk("1"), bulk("old")), bulk("old")],
        ),
    ] {
        shard.text("FLUSHALL");
        let (mut client, mut witness) = (tracked(&node), tracked(&node));
        node.client().text(&format!("MSET {a} 1 {b} old"));
        witness.text(&format!("GET {b}"));
        relays[0].hold();
        let sent: Vec<u8> = line.split('|').flat_map(words).collect();
        client.send(&sent);
        read_by(&mut shard, 2);
        shard.text(&format!("SET {b} new"));
        // The other one has nothing that waits.
        assert_eq!(next(&mut witness), invalidation(&b));
        relays[0].pass();
        for wanted in wanted {
            assert_eq!(next(&mut client), wanted, "{line}");
        }
        assert_eq!(next(&mut client), invalidation(&b), "{line}");
        assert_eq!(client.text("ECHO end"), bulk("end"));
        assert_eq!(client.waiting(), 0);
    }
}

/// Messages keep their place among what their shard sends, and wait for no other shard.
#[test]
fn messages_stay_where_they_were_sent() {
    let (node, relays) = relayed(4);
    let (a, b) = (key_at(&node, 0, "a"), key_at(&node, 1, "b"));
    let mut shard = Client::connect(relays[1].target());
    let mut client = node.client();
    client.ask("HELLO 3");
    client.send(&words(&format!("SSUBSCRIBE {b}")));
    next(&mut client);
    let message = |text: &str| format!(">3\r\n$8\r\nsmessage\r\n{}{}", bulk(&b), bulk(text));
    relays[0].hold();
    client.send(&words(&format!("GET {a}")));
    shard.text(&format!("SPUBLISH {b} first"));
    assert_eq!(next(&mut client), message("first"));
    client.send(&words(&format!("INCR {b}")));
    until("it has run", || {
        shard.text(&format!("GET {b}")) == bulk("1")
    });
    shard.text(&format!("SPUBLISH {b} second"));
    client.send(&words(&format!("INCR {b}")));
    until("it has run", || {
        shard.text(&format!("GET {b}")) == bulk("2")
    });
    shard.text(&format!("SPUBLISH {b} third"));
    relays[0].pass();
    let wanted = [
        "_\r\n",
        ":1\r\n",
        &message("second"),
        ":2\r\n",
        &message("third"),
    ];
    for wanted in wanted {
        assert_eq!(next(&mut client), wanted);
    }
}

/// What `WAIT` tells is about no key: while other shards have not told theirs, messages go on.
#[test]
fn waiting_for_copies_holds_no_message() {
    let (node, relays) = relayed(4);
    let b = key_at(&node, 1, "b");
    let mut client = tracked(&node);
    client.text(&format!("GET {b}"));
    relays[0].hold();
    client.send(&words("WAIT 0 0"));
    let mut other = node.client();
    for _ in 0..2 {
        other.text(&format!("SET {b} x"));
    }
    assert_eq!(next(&mut client), invalidation(&b));
    relays[0].pass();
    assert_eq!(next(&mut client), ":0\r\n");
}

/// A client with connections of its own, as a tracked one is, gets replies of any length that are put together
/// from those of several shards.
#[test]
fn large_parts_of_a_reply() {
    let (node, relays) = relayed(4);
    let (a, b) = (key_at(&node, 0, "a"), key_at(&node, 1, "b"));
    let value = "x".repeat(3 << 20);
    for key in [&a, &b] {
        node.client().text(&format!("SET {key} {value}"));
    }
    let mut client = tracked(&node);
    relays[0].hold();
    client.send(&words(&format!("MGET {a} {b}")).repeat(3));
    client.send(&words(&format!("GET {b}")));
    relays[0].pass();
    for _ in 0..3 {
        let wanted = format!("*2\r\n{}{}", bulk(&value), bulk(&value));
        assert!(next(&mut client) == wanted);
    }
    assert!(next(&mut client) == bulk(&value));
}

const CLIENTS: usize = 5;
const STEPS: usize = 400;
const KEYS: usize = 12;

/// A client that keeps what it reads until it hears that it has changed.
struct Cache {
    client: Client,
    kept: HashMap<String, Value>,
    /// The keys of commands that have no reply yet.
    asked: Vec<Vec<String>>,
}

impl Cache {
    /// Takes what comes until all replies are there.
    fn take(&mut self) {
        let mut asked = std::mem::take(&mut self.asked).into_iter();
        while asked.len() > 0 {
            match self.client.reply() {
                Value::Push(parts) => match &parts[..] {
                    [_, Value::Array(keys)] => {
                        for key in keys {
                            self.kept.remove(text(key));
                        }
                    }
                    _ => self.kept.clear(),
                },
                reply => {
                    let keys = asked.next().unwrap();
                    match reply {
                        Value::Array(values) => self.kept.extend(keys.into_iter().zip(values)),
                        value => self
                            .kept
                            .extend(keys.into_iter().map(|key| (key, value.clone()))),
                    }
                }
            }
        }
    }

    fn ask(&mut self, line: &str, keys: Vec<String>) {
        self.client.send(&words(line));
        self.asked.push(keys);
    }

    fn step(&mut self, random: &mut Random, value: &str) {
        let key = |random: &mut Random| format!("k{}", random.below(KEYS));
        match random.below(8) {
            0 => {
                let line = format!("SET {} {value}", key(random));
                self.ask(&line, Vec::new());
            }
            1 => {
                let line = format!("MSET {} {value} {} {value}", key(random), key(random));
                self.ask(&line, Vec::new());
            }
            2 | 3 => {
                let keys = vec![key(random), key(random), key(random)];
                self.ask(&format!("MGET {}", keys.join(" ")), keys);
            }
            4 => self.take(),
            _ => {
                let key = key(random);
                self.ask(&format!("GET {key}"), vec![key]);
            }
        }
    }
}

fn text(value: &Value) -> &str {
    std::str::from_utf8(value.text().unwrap()).unwrap()
}

/// Holds shards up in turn until all clients are done.
fn hold_up(relays: &[Relay], done: &AtomicUsize, random: &mut Random) {
    while done.load(Ordering::Acquire) < CLIENTS {
        let relay = &relays[random.below(relays.len())];
        relay.hold();
        let before = relays.iter().map(Relay::commands).sum::<u64>();
        until("commands go on, or wait for this one", || {
            let now = relays.iter().map(Relay::commands).sum::<u64>();
            let enough = now > before + 400 || done.load(Ordering::Acquire) == CLIENTS;
            enough || random.below(10) == 0
        });
        relay.pass();
    }
}

/// At the end every client has what the shards have, or nothing.
#[test]
fn caches_end_up_right() {
    let (node, relays) = relayed(4);
    let first = setting("MAINSTAY_FUZZ_SEED", 1);
    for seed in first..first + setting("MAINSTAY_FUZZ_ROUNDS", 6) {
        let done = AtomicUsize::new(0);
        let caches: Vec<Cache> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..CLIENTS)
                .map(|number| {
                    let (node, done) = (&node, &done);
                    let mut cache = Cache {
                        client: tracked(node),
                        kept: HashMap::new(),
                        asked: Vec::new(),
                    };
                    scope.spawn(move || {
                        let mut random = Random(seed * 1_000 + number as u64);
                        for step in 0..STEPS {
                            cache.step(&mut random, &format!("{seed}.{number}.{step}"));
                        }
                        cache.take();
                        done.fetch_add(1, Ordering::AcqRel);
                        cache
                    })
                })
                .collect();
            hold_up(&relays, &done, &mut Random(seed));
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .collect()
        });
        let mut other = node.client();
        for (number, mut cache) in caches.into_iter().enumerate() {
            // What the shards sent before is there when all have answered.
            cache.ask("DBSIZE", vec!["all".to_owned()]);
            cache.take();
            cache.kept.remove("all");
            for (key, value) in cache.kept {
                let now = other.ask(&format!("GET {key}"));
                assert_eq!(
                    value, now,
                    "seed {seed}, client {number}: {key} is not what it was"
                );
            }
        }
    }
}
