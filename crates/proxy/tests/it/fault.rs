//! A shard's connection that breaks at every byte of a reply: exactly the commands that it concerns get
//! one error each, and nobody gets what is another's.
//!
//! With `MAINSTAY_THOROUGH` every kind of reply is cut at every byte in both versions, at every shard.

use crate::support::client::{Client, shown, words};
use crate::support::node::{Node, VALKEY};
use crate::support::relay::Relay;
use crate::support::{process, until};
use model::proxy::ShardAddress;
use resp::slot::key_slot;
use std::net::SocketAddr;

const UNKNOWN: &[u8] =
    b"-ERR connection to the shard was lost, the outcome of this command is unknown\r\n";

/// Whether every position is tried, not only every one near the ends of a reply.
fn thorough() -> bool {
    std::env::var_os("MAINSTAY_THOROUGH").is_some()
}

/// A node whose shards are all reached through relays.
pub fn relayed(shards: u16) -> (Node, Vec<Relay>) {
    let mut node = if shards == 1 {
        Node::start()
    } else {
        Node::sharded(VALKEY, shards)
    };
    let relays: Vec<Relay> = (0..usize::from(shards))
        .map(|shard| {
            let direct = node.shard(shard).direct;
            Relay::start(SocketAddr::new(direct.ip(), 21_000 + shard as u16), direct)
        })
        .collect();
    node.reconfigure(|config| {
        for (shard, relay) in config.databases[0].shards.iter_mut().zip(&relays) {
            shard.address = ShardAddress::Tcp(relay.address);
        }
    });
    node.wait_served();
    for (shard, relay) in relays.iter().enumerate() {
        let key = key_at(&node, shard, "warm");
        until("commands go through the relay", || {
            let before = relay.commands();
            node.client().text(&format!("GET {key}"));
            relay.commands() > before
        });
    }
    (node, relays)
}

/// A key with this beginning on a shard.
pub fn key_at(node: &Node, shard: usize, name: &str) -> String {
    let slots = node.config.databases[0].shards[shard].slots;
    (0..)
        .map(|number| format!("{name}{number}"))
        .find(|key| (slots.first..=slots.last).contains(&key_slot(key.as_bytes())))
        .unwrap()
}

/// A client of a shard, whose replies are known.
struct Party {
    client: Client,
    endpoint: SocketAddr,
    resp: u8,
    key: String,
}

impl Party {
    fn new(node: &Node, resp: u8, key: String) -> Self {
        let mut party = Self {
            client: node.client(),
            endpoint: node.endpoint,
            resp,
            key,
        };
        party.greet();
        let set = format!("SET {} {}", party.key, party.key);
        assert_eq!(party.client.text(&set), "+OK\r\n");
        party
    }

    fn greet(&mut self) {
        self.client.ask(&format!("HELLO {}", self.resp));
    }

    fn again(&mut self) {
        self.client = Client::connect(self.endpoint);
        self.greet();
    }

    fn get(&self) -> Vec<u8> {
        words(&format!("GET {}", self.key))
    }

    fn value(&self) -> Vec<u8> {
        format!("${}\r\n{}\r\n", self.key.len(), self.key).into_bytes()
    }

    /// The connection is there and has nothing of anybody in it.
    #[track_caller]
    fn is_well(&mut self, what: &str) {
        let get = self.get();
        self.client.send(&get);
        let got = self.client.raw();
        assert_eq!(shown_bytes(&got), shown_bytes(&self.value()), "{what}");
        assert_eq!(self.client.waiting(), 0, "{what}");
    }
}

fn shown_bytes(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(200)]).into_owned()
}

/// Replies of every kind: how to get it, over the connection that all share.
const KINDS: &[&str] = &[
    "SET @ x",
    "GET @bulk",
    "GET @nothing",
    "STRLEN @bulk",
    "LRANGE @list 0 -1",
    "LRANGE @nothing 0 -1",
    "XRANGE @stream - +",
    "LPUSH @bulk x",
    "HGETALL @hash",
    "SMEMBERS @set",
    "ZSCORE @sorted a",
    "GET @empty",
    "ZRANGE @sorted 0 -1 WITHSCORES",
];

fn fill(client: &mut Client, key: &str) {
    for line in [
        "SET @bulk some\\r\\nbytes",
        "RPUSH @list one '' three",
        "HSET @hash f v g w",
        "SADD @set m",
        "ZADD @sorted 1.5 a 2 b",
        "XADD @stream 1-1 f v g ''",
        "XADD @stream 1-2 f v",
        "SET @empty ''",
    ] {
        client.ask(
            &line
                .replace('@', &format!("{{{key}}}"))
                .replace("\\r\\n", "--"),
        );
    }
}

/// Positions of a cut in so many bytes.
fn positions(length: usize) -> Vec<usize> {
    if thorough() && length < 4_000 {
        return (0..=length).collect();
    }
    let near_an_end = |at: &usize| *at <= 8 || at + 4 >= length;
    let mut at: Vec<usize> = (0..=length).filter(near_an_end).collect();
    let step = if length < 400 { 4 } else { length / 2 };
    at.extend((8..length).step_by(step));
    for boundary in [16_384, 65_536] {
        at.extend((boundary - 1..=boundary + 1).filter(|at| *at < length));
    }
    at.sort_unstable();
    at.dedup();
    at
}

/// `before`, `victim`, `behind` and `before` again are in flight over one connection, which is cut.
fn cut_once(
    relay: &Relay,
    parties: &mut [Party; 3],
    command: &[u8],
    reply: &[u8],
    at: usize,
) -> bool {
    let what = format!("{} cut at {at}", shown_bytes(command));
    relay.hold();
    let mut sent = relay.commands();
    let order = [0, 1, 2, 0];
    let (mut commands, mut replies) = (Vec::new(), Vec::new());
    for (number, party) in order.iter().enumerate() {
        let party = &parties[*party];
        commands.push(if number == 1 {
            command.to_vec()
        } else {
            party.get()
        });
        replies.push(if number == 1 {
            reply.to_vec()
        } else {
            party.value()
        });
    }
    for (party, command) in order.iter().zip(&commands) {
        parties[*party].client.send(command);
        sent += command.len() as u64;
        until("the command is with the shard", || relay.commands() >= sent);
    }
    let cuts = relay.cuts();
    let at = replies[0].len() + at;
    relay.cut_replies_after(at);
    let mut start = 0;
    let mut closed = false;
    for (party, reply) in order.iter().zip(&replies) {
        let end = start + reply.len();
        let client = &mut parties[*party].client;
        let got = client.try_raw();
        if end <= at {
            assert_eq!(
                got.as_deref().map(shown_bytes),
                Some(shown_bytes(reply)),
                "{what}"
            );
            assert!(got.as_deref() == Some(reply), "{what}");
        } else if start < at && got.is_none() {
            let part = client.waiting();
            assert!(
                part <= at - start && part > 0,
                "{what}: {part} bytes, then the end"
            );
            closed = true;
            parties[*party].again();
        } else {
            assert_eq!(
                got.as_deref().map(shown_bytes),
                Some(shown_bytes(UNKNOWN)),
                "{what}"
            );
        }
        start = end;
    }
    until("it is cut", || relay.cuts() > cuts);
    relay.pass();
    for party in parties.iter_mut() {
        party.is_well(&what);
    }
    closed
}

/// Each kind once, in one version of the protocol at one of the shards; thoroughly: in both, at each. With
/// one shard it is every fourth kind.
fn every_position(shards: u16) {
    let (node, relays) = relayed(shards);
    let before = process::memory(node.server(), "VmRSS:");
    let turns = relays.len().max(4);
    let wanted = |number: usize, shard: usize, resp: u8| {
        let turn = number % turns == shard && number / turns % 2 == usize::from(resp) % 2;
        turn || thorough()
    };
    std::thread::scope(|scope| {
        for (shard, relay) in relays.iter().enumerate() {
            let node = &node;
            scope.spawn(move || {
                for resp in [2, 3] {
                    let kinds = (0..KINDS.len())
                        .filter(|number| wanted(*number, shard, resp))
                        .map(|number| KINDS[number]);
                    cut_replies(node, relay, shard, resp, kinds);
                }
            });
        }
    });
    let after = process::memory(node.server(), "VmRSS:");
    assert!(
        after < before + (24 << 20),
        "{before} before, {after} after"
    );
}

fn cut_replies(
    node: &Node,
    relay: &Relay,
    shard: usize,
    resp: u8,
    kinds: impl Iterator<Item = &'static str>,
) {
    let mut parties =
        ["a", "victim", "c"].map(|name| Party::new(node, resp, key_at(node, shard, name)));
    let key = parties[1].key.clone();
    fill(&mut parties[1].client, &key);
    for kind in kinds {
        let command = words(&kind.replace('@', &format!("{{{key}}}")));
        parties[1].client.send(&command);
        let reply = parties[1].client.raw();
        let (mut closed, all) = (0, positions(reply.len()));
        for at in &all {
            closed += usize::from(cut_once(relay, &mut parties, &command, &reply, *at));
        }
        // Those that had a part of their reply, and no others; of an error nobody gets a part.
        let whole = all.iter().filter(|at| **at == 0 || **at == reply.len());
        let parts = match reply[0] {
            b'-' => 0,
            _ => all.len() - whole.count(),
        };
        assert_eq!(closed, parts, "{kind}");
    }
}

#[test]
fn every_position_of_a_reply_one_shard() {
    every_position(1);
}

#[test]
fn every_position_of_a_reply_four_shards() {
    every_position(4);
}

#[test]
fn a_large_reply_that_is_cut() {
    for shards in [1, 4] {
        if shards == 1 && !thorough() {
            continue;
        }
        let (node, relays) = relayed(shards);
        let shard = relays.len() - 1;
        let mut parties =
            ["a", "victim", "c"].map(|name| Party::new(&node, 2, key_at(&node, shard, name)));
        let value = "0123456789".repeat(7_000);
        let key = format!("{{{}}}large", parties[1].key);
        assert_eq!(
            parties[1].client.text(&format!("SET {key} {value}")),
            "+OK\r\n"
        );
        let command = words(&format!("GET {key}"));
        let reply = format!("$70000\r\n{value}\r\n").into_bytes();
        for at in positions(reply.len()) {
            cut_once(&relays[shard], &mut parties, &command, &reply, at);
        }
    }
}

/// Replies of other shards are not harmed, and a reply of which the client has got nothing yet becomes
/// an error, however much of it the proxy had.
#[test]
fn what_waits_for_another_shard_is_cut() {
    let (node, relays) = relayed(4);
    let keys: Vec<String> = (0..4).map(|shard| key_at(&node, shard, "w")).collect();
    let mut client = node.client();
    for key in &keys {
        assert_eq!(client.text(&format!("SET {key} {key}")), "+OK\r\n");
    }
    let bulk = |key: &String| format!("${}\r\n{key}\r\n", key.len());
    let all: String = keys.iter().map(bulk).collect();
    let lines = [
        (format!("GET {}", keys[0]), bulk(&keys[0]), false),
        (format!("GET {}", keys[1]), bulk(&keys[1]), true),
        (format!("GET {}", keys[2]), bulk(&keys[2]), false),
        (
            format!("MGET {}", keys.join(" ")),
            format!("*4\r\n{all}"),
            true,
        ),
        (format!("GET {}", keys[3]), bulk(&keys[3]), false),
        (format!("GET {}", keys[1]), bulk(&keys[1]), true),
    ];
    // What shard 1 sends: the value, an array with it, the value.
    let one = bulk(&keys[1]).len();
    let (first, second) = (one, one + one + 4);
    for at in 0..=second + one {
        relays[0].hold();
        relays[1].hold();
        let before: Vec<u64> = relays.iter().map(Relay::commands).collect();
        let sent: Vec<u8> = lines.iter().flat_map(|(line, ..)| words(line)).collect();
        client.send(&sent);
        for (relay, before) in relays.iter().zip(before).take(2) {
            let least = if relay.address == relays[0].address {
                40
            } else {
                60
            };
            until("the commands are with the shard", || {
                relay.commands() >= before + least
            });
        }
        let cuts = relays[1].cuts();
        relays[1].cut_replies_after(at);
        until("it is cut", || relays[1].cuts() > cuts);
        // The proxy notices while nothing of it can be passed on.
        until("the proxy notices", || {
            let other = node.client();
            drop(other);
            node.log()
                .matches("a connection to a shard is closed")
                .count() as u64
                >= relays[1].cuts()
        });
        relays[0].pass();
        let ends = [first, second, second + one];
        let mut own = ends.iter();
        for (line, reply, concerned) in &lines {
            let got = shown_bytes(&client.raw());
            let fails = *concerned && at < *own.next().unwrap();
            let wanted = if fails {
                shown_bytes(UNKNOWN)
            } else {
                reply.clone()
            };
            assert_eq!(got, wanted, "{line}, cut at {at}");
        }
        relays[1].pass();
        assert_eq!(client.text(&format!("GET {}", keys[1])), bulk(&keys[1]));
    }
}

/// A command that did not get out as a whole.
#[test]
fn every_position_of_a_command() {
    let (node, relays) = relayed(4);
    let mut parties = ["a", "victim", "c"].map(|name| Party::new(&node, 2, key_at(&node, 1, name)));
    let counter = format!("{{{}}}n", parties[1].key);
    let command = words(&format!("INCR {counter}"));
    for at in 0..=command.len() {
        let before = parties[0].client.text(&format!("GET {counter}"));
        relays[1].cut_commands_after(at);
        parties[1].client.send(&command);
        let got = parties[1].client.raw();
        let number = |text: &str| -> i64 {
            text.split("\r\n")
                .nth(1)
                .and_then(|text| text.parse().ok())
                .unwrap_or(0)
        };
        let text = shown_bytes(&got);
        assert!(
            text == shown_bytes(UNKNOWN) || at == command.len() && text.starts_with(':'),
            "{text}"
        );
        relays[1].pass();
        for party in &mut parties {
            party.is_well("after a cut command");
        }
        let after = parties[0].client.text(&format!("GET {counter}"));
        let more = number(&after) - number(&before);
        assert!(
            more == 0 || more == 1 && at == command.len(),
            "cut at {at}: {more} more"
        );
    }
}

/// Connections of a client's own: a transaction, a blocking command, a push message.
#[test]
fn connections_of_ones_own_are_cut() {
    for (shards, resp) in [(1, 2), (4, 3)] {
        let (node, relays) = relayed(shards);
        let shard = relays.len() - 1;
        let relay = &relays[shard];
        let mut other = Party::new(&node, resp, key_at(&node, shard, "other"));
        let key = key_at(&node, shard, "x");
        let cases: &[(&[&str], &str, usize)] = &[
            (&["MULTI", "SET @ 1", "GET @", "EXEC"], "EXEC", 35),
            (&["RPUSH @l x", "BLPOP @l 0"], "BLPOP", 25),
            (&["WATCH @", "MULTI", "GET @"], "MULTI", 12),
        ];
        for (lines, last, length) in cases {
            for at in 0..=*length {
                let mut client = node.client();
                client.ask(&format!("HELLO {resp}"));
                client.text(&format!("DEL {key}"));
                let sent: Vec<u8> = lines
                    .iter()
                    .flat_map(|line| words(&line.replace('@', &format!("{{{key}}}"))))
                    .collect();
                relay.cut_replies_after(at);
                client.send(&sent);
                let mut got = Vec::new();

                for _ in *lines {
                    match client.try_raw() {
                        Some(raw) => got.push(shown_bytes(&raw)),
                        None => break,
                    }
                }
                relay.pass();
                let what = format!("{last} cut at {at}: {got:?}");
                assert_eq!(other.client.text("ECHO 1"), "$1\r\n1\r\n", "{what}");
                other.is_well(&what);
                if got.len() == lines.len() {
                    // It stays, and a transaction that is open can be ended.
                    client.ask("DISCARD");
                    assert_eq!(client.text("ECHO 2"), "$1\r\n2\r\n", "{what}");
                    client.text(&format!("SET {key} y"));
                    assert_eq!(client.text(&format!("GET {key}")), "$1\r\ny\r\n", "{what}");
                }
            }
        }
        let mut direct = Client::connect(relay.address);
        assert!(shown(&direct.ask("PING")).contains("PONG"));
    }
}
