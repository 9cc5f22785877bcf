//! Databases with several shards: commands go where their keys are, replies come in the order of the
//! commands, and what is split comes back as one.

use crate::support::client::{Client, command, words};
use crate::support::node::{Node, VALKEY};
use crate::support::{process, until};
use resp::slot::key_slot;
use resp::value::Value;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};

pub const SHARDS: u16 = 4;

fn shard_of(node: &Node, key: &str) -> usize {
    let slot = key_slot(key.as_bytes());
    let shards = &node.config.databases[0].shards;
    shards
        .iter()
        .position(|shard| (shard.slots.first..=shard.slots.last).contains(&slot))
        .unwrap()
}

/// A key with this beginning for each shard.
pub fn keys(node: &Node, name: &str) -> Vec<String> {
    (0..usize::from(SHARDS))
        .map(|shard| {
            (0..)
                .map(|number| format!("{name}{number}"))
                .find(|key| shard_of(node, key) == shard)
                .unwrap()
        })
        .collect()
}

fn integer(value: &Value) -> i64 {
    match value {
        Value::Integer(number) => *number,
        other => panic!("no number: {other:?}"),
    }
}

#[test]
fn keys_are_where_their_slots_are() {
    let mut node = Node::sharded(VALKEY, SHARDS);
    let mut client = node.client();
    for number in 0..400 {
        assert_eq!(client.text(&format!("SET key{number} {number}")), "+OK\r\n");
    }
    for shard in 0..usize::from(SHARDS) {
        let mut direct = Client::connect(node.shard(shard).direct);
        let Value::Array(found) = direct.ask("KEYS *") else {
            panic!("KEYS gives an array");
        };
        assert!(found.len() > 50, "{} keys on shard {shard}", found.len());
        for key in found {
            let key = String::from_utf8(key.text().unwrap().to_vec()).unwrap();
            assert_eq!(shard_of(&node, &key), shard, "{key}");
        }
    }
    assert_eq!(client.text("DBSIZE"), ":400\r\n");
    assert_eq!(client.text("FLUSHALL"), "+OK\r\n");
    assert_eq!(client.text("DBSIZE"), ":0\r\n");
}

#[test]
fn replies_come_in_the_order_of_the_commands() {
    let node = Node::sharded(VALKEY, SHARDS);
    let mut client = node.client();
    let mut random = 1_u64;
    let (mut sent, mut wanted) = (Vec::new(), Vec::new());
    for number in 0..10_000_u64 {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        let key = format!("k{}", (random >> 33) % 50);
        let many: Vec<String> = (0..5).map(|at| format!("m{at}")).collect();
        match (random >> 20) % 8 {
            0 => {
                sent.extend(words(&format!("ECHO {number}")));
                let text = number.to_string();
                wanted.push(format!("${}\r\n{text}\r\n", text.len()));
            }
            1 => {
                let mut line = "MSET".to_owned();
                for key in &many {
                    line.push_str(&format!(" {key} v{number}"));
                }
                sent.extend(words(&line));
                wanted.push("+OK\r\n".to_owned());
                sent.extend(words(&format!("MGET {}", many.join(" "))));
                let value = format!("v{number}");
                let one = format!("${}\r\n{value}\r\n", value.len());
                wanted.push(format!("*5\r\n{}", one.repeat(5)));
            }
            2 => {
                sent.extend(words(&format!("RPUSH list{number} a b c")));
                sent.extend(words(&format!("LRANGE list{number} 0 -1")));
                sent.extend(words(&format!("DEL list{number} nothing{number}")));
                wanted.push(":3\r\n".to_owned());
                wanted.push("*3\r\n$1\r\na\r\n$1\r\nb\r\n$1\r\nc\r\n".to_owned());
                wanted.push(":1\r\n".to_owned());
            }
            3 => {
                sent.extend(words(&format!("LPOP {key}")));
                wanted.push("-WRONGTYPE or null".to_owned());
            }
            _ => {
                sent.extend(words(&format!("SET {key} {number}")));
                sent.extend(words(&format!("GET {key}")));
                wanted.push("+OK\r\n".to_owned());
                let text = number.to_string();
                wanted.push(format!("${}\r\n{text}\r\n", text.len()));
            }
        }
    }
    let mut writer = client.stream.try_clone().unwrap();
    let writing = std::thread::spawn(move || {
        std::io::Write::write_all(&mut writer, &sent).unwrap();
    });
    for (number, wanted) in wanted.iter().enumerate() {
        let got = String::from_utf8(client.raw()).unwrap();
        if wanted.starts_with("-WRONGTYPE or") {
            assert!(got.starts_with("-WRONGTYPE") || got == "$-1\r\n", "{got}");
        } else {
            assert_eq!(&got, wanted, "reply {number}");
        }
    }
    writing.join().unwrap();
}

#[test]
fn crossing_shards() {
    let node = Node::sharded(VALKEY, SHARDS);
    let mut client = node.client();
    let keys = keys(&node, "c");
    let (a, b) = (&keys[0], &keys[1]);
    for line in [
        format!("MSETNX {a} 1 {b} 2"),
        format!("RENAME {a} {b}"),
        format!("SUNION {a} {b}"),
        format!("EVAL return 2 {a} {b}"),
        format!("LMOVE {a} {b} LEFT LEFT"),
        format!("BITOP AND {a} {b} {a}"),
    ] {
        let line = line.replace("EVAL return 2", "EVAL 'return 1' 2");
        let reply = client.text(&line);
        assert!(reply.starts_with("-CROSSSLOT "), "{line}: {reply}");
    }
    // One shard is enough, whatever the slots.
    let same: Vec<String> = (0..200)
        .map(|number| format!("s{number}"))
        .filter(|key| shard_of(&node, key) == 2)
        .take(2)
        .collect();
    assert_ne!(key_slot(same[0].as_bytes()), key_slot(same[1].as_bytes()));
    client.text(&format!("SET {} x", same[0]));
    assert_eq!(
        client.text(&format!("RENAME {} {}", same[0], same[1])),
        "+OK\r\n"
    );
    assert!(
        client
            .text("MOVE a 1")
            .starts_with("-ERR DB index is out of range")
    );
    assert!(
        client
            .text("COPY {a}1 {a}2 DB 1")
            .starts_with("-ERR DB index is out of range")
    );
    assert_eq!(client.text("COPY {a}1 {a}2"), ":0\r\n");
    assert_eq!(client.text("SELECT 0"), "+OK\r\n");
    assert!(
        client
            .text("SELECT 1")
            .starts_with("-ERR DB index is out of range")
    );
    assert!(client.text("NOSUCH a").starts_with("-ERR unknown command"));
    assert!(
        client
            .text("GET")
            .starts_with("-ERR wrong number of arguments")
    );
}

#[test]
fn transactions_run_on_one_shard() {
    let node = Node::sharded(VALKEY, SHARDS);
    let mut client = node.client();
    let keys = keys(&node, "t");
    for key in &keys {
        assert_eq!(client.text("MULTI"), "+OK\r\n");
        assert_eq!(client.text("PING"), "+QUEUED\r\n");
        assert_eq!(client.text(&format!("INCR {key}")), "+QUEUED\r\n");
        assert_eq!(client.text(&format!("GET {key}")), "+QUEUED\r\n");
        assert_eq!(client.text("EXEC"), "*3\r\n+PONG\r\n:1\r\n$1\r\n1\r\n");
    }
    // Keys of another shard spoil it.
    client.text("MULTI");
    client.text(&format!("INCR {}", keys[0]));
    assert!(
        client
            .text(&format!("INCR {}", keys[1]))
            .starts_with("-CROSSSLOT")
    );
    assert!(client.text("EXEC").starts_with("-EXECABORT"));
    assert_eq!(client.text(&format!("GET {}", keys[0])), "$1\r\n1\r\n");
    // Without any key.
    client.text("MULTI");
    assert_eq!(client.text("PING"), "+QUEUED\r\n");
    assert_eq!(client.text("DISCARD"), "+OK\r\n");
    client.text("MULTI");
    client.text("PING");
    assert_eq!(client.text("EXEC"), "*1\r\n+PONG\r\n");
    client.text("MULTI");
    assert_eq!(client.text("EXEC"), "*0\r\n");
    assert!(client.text("EXEC").starts_with("-ERR EXEC without MULTI"));
    assert!(
        client
            .text("DISCARD")
            .starts_with("-ERR DISCARD without MULTI")
    );
    // Watching.
    let mut other = node.client();
    for changed in [false, true] {
        assert_eq!(client.text(&format!("WATCH {}", keys[2])), "+OK\r\n");
        if changed {
            other.text(&format!("SET {} other", keys[2]));
        }
        assert!(
            client
                .text(&format!("WATCH {}", keys[3]))
                .starts_with("-CROSSSLOT")
        );
        client.text("MULTI");
        assert_eq!(client.text(&format!("SET {} x", keys[2])), "+QUEUED\r\n");
        let wanted = if changed { "_\r\n" } else { "*1\r\n+OK\r\n" };
        assert_eq!(client.text("EXEC"), wanted);
    }
    client.text(&format!("WATCH {}", keys[2]));
    assert_eq!(client.text("UNWATCH"), "+OK\r\n");
    other.text(&format!("SET {} again", keys[2]));
    client.text("MULTI");
    client.text(&format!("GET {}", keys[2]));
    assert_eq!(client.text("EXEC"), "*1\r\n$5\r\nagain\r\n");
    // All in one go.
    let mut sent = Vec::new();
    for line in [
        format!("SET {} 1", keys[1]),
        "MULTI".to_owned(),
        format!("INCR {}", keys[1]),
        "EXEC".to_owned(),
        format!("GET {}", keys[0]),
    ] {
        sent.extend(words(&line));
    }
    client.send(&sent);
    let got: Vec<u8> = (0..5).flat_map(|_| client.raw()).collect();
    assert_eq!(got, b"+OK\r\n+OK\r\n+QUEUED\r\n*1\r\n:2\r\n$1\r\n1\r\n");
}

#[test]
fn a_blocking_command_holds_what_comes_after_it() {
    let node = Node::sharded(VALKEY, SHARDS);
    let (mut client, mut other) = (node.client(), node.client());
    let keys = keys(&node, "b");
    let mut sent = words(&format!("BLPOP {} 0", keys[1]));
    sent.extend(words(&format!("SET {} after", keys[2])));
    client.send(&sent);
    until("the client is blocked", || {
        let mut direct = Client::connect(node.more[0].direct);
        direct.text("INFO clients").contains("blocked_clients:1")
    });
    assert_eq!(other.text(&format!("GET {}", keys[2])), "_\r\n");
    assert_eq!(other.text(&format!("RPUSH {} x", keys[1])), ":1\r\n");
    let key = &keys[1];
    let wanted = format!("*2\r\n${}\r\n{key}\r\n$1\r\nx\r\n", key.len());
    assert_eq!(String::from_utf8(client.raw()).unwrap(), wanted);
    assert_eq!(client.raw(), b"+OK\r\n");
    assert_eq!(other.text(&format!("GET {}", keys[2])), "$5\r\nafter\r\n");
    // A client that leaves takes nothing with it.
    client.send(&words(&format!("BLPOP {} 0", keys[1])));
    until("the client is blocked again", || {
        let mut direct = Client::connect(node.more[0].direct);
        direct.text("INFO clients").contains("blocked_clients:1")
    });
    drop(client);
    until("its connection has ended", || {
        let mut direct = Client::connect(node.more[0].direct);
        direct.text("INFO clients").contains("blocked_clients:0")
    });
    other.text(&format!("RPUSH {} y", keys[1]));
    assert_eq!(other.text(&format!("LLEN {}", keys[1])), ":1\r\n");
}

/// Sends commands on keys with these numbers and takes their replies.
fn change(client: &mut Client, command: &str, numbers: std::ops::Range<usize>, rest: &str) {
    let lines: Vec<Vec<u8>> = numbers
        .map(|number| words(&format!("{command} come{number}{rest}")))
        .collect();
    client.send(&lines.concat());
    for _ in lines {
        assert!(!client.raw().starts_with(b"-"));
    }
}

/// One page of a scan; returns the next cursor.
fn page(client: &mut Client, cursor: &str, found: &mut BTreeSet<String>) -> String {
    let text = |value: &Value| String::from_utf8(value.text().unwrap().to_vec()).unwrap();
    let Value::Array(reply) = client.ask(&format!("SCAN {cursor} COUNT 20")) else {
        panic!("SCAN gives an array");
    };
    let Value::Array(some) = &reply[1] else {
        panic!("with an array");
    };
    found.extend(some.iter().map(text));
    text(&reply[0])
}

struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Keys come and go between any two pages, so that the tables of all shards grow and shrink while they are
/// scanned, and another client changes keys all the time: what is there from the beginning to the end comes at
/// least once, and what was gone before does not come.
#[test]
fn scanning_while_keys_come_and_go() {
    // They have tables of two kinds.
    for engine in ["redis-6.2.", VALKEY] {
        let node = Node::sharded(engine, SHARDS);
        let (mut client, mut other) = (node.client(), node.client());
        let stay: BTreeSet<String> = (0..1_000).map(|number| format!("stay{number}")).collect();
        for key in &stay {
            assert_eq!(client.text(&format!("SET {key} x")), "+OK\r\n");
        }
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let (mut third, done) = (node.client(), &done);
            // However this ends, so does the other thread.
            let _ends = Ends(done);
            scope.spawn(move || {
                for number in (90_000..90_500).cycle() {
                    if done.load(Ordering::Relaxed) {
                        return;
                    }
                    change(&mut third, "SET", number..number + 20, " x");
                    change(&mut third, "DEL", number..number + 20, "");
                }
            });
            let mut sizes = BTreeSet::new();
            for round in 0..2 {
                let (mut found, mut cursor, mut pages) = (BTreeSet::new(), "0".to_owned(), 0);
                // Those of the round before are gone.
                let gone = format!("come{}", round * 20_000);
                loop {
                    cursor = page(&mut client, &cursor, &mut found);
                    if cursor == "0" {
                        break;
                    }
                    let first = (round + 1) * 20_000 + pages % 40 * 400;
                    match pages % 80 {
                        0..40 => change(&mut other, "SET", first..first + 400, " x"),
                        _ => change(&mut other, "UNLINK", first..first + 400, ""),
                    }
                    sizes.insert(integer(&other.ask("DBSIZE")) / 4_000);
                    pages += 1;
                    assert!(pages < 10_000, "it ends");
                }
                change(
                    &mut other,
                    "DEL",
                    (round + 1) * 20_000..(round + 2) * 20_000,
                    "",
                );
                let missed: Vec<_> = stay.difference(&found).collect();
                assert!(missed.is_empty(), "{engine}, round {round}: {missed:?}");
                assert!(!found.contains(&gone));
            }
            assert!(sizes.len() >= 4, "{engine}: {sizes:?}");
        });
    }
}

#[test]
fn scanning_finds_every_key() {
    let node = Node::sharded(VALKEY, SHARDS);
    let mut client = node.client();
    let mut sent = Vec::new();
    for number in 0..3000 {
        sent.extend(words(&format!("SET scan{number} x")));
    }
    client.send(&sent);
    for _ in 0..3000 {
        client.raw();
    }
    for resp in [2, 3] {
        client.ask(&format!("HELLO {resp}"));
        let mut found = BTreeSet::new();
        let mut cursor = "0".to_owned();
        let mut rounds = 0;
        loop {
            let Value::Array(reply) = client.ask(&format!("SCAN {cursor} COUNT 100")) else {
                panic!("SCAN gives an array");
            };
            cursor = String::from_utf8(reply[0].text().unwrap().to_vec()).unwrap();
            let Value::Array(some) = &reply[1] else {
                panic!("with an array");
            };
            found.extend(some.iter().map(|key| key.text().unwrap().to_vec()));
            rounds += 1;
            if cursor == "0" {
                break;
            }
            assert!(rounds < 1000, "it ends");
        }
        assert_eq!(found.len(), 3000);
        assert!(rounds > 8);
    }
    assert!(client.text("SCAN x").starts_with("-ERR invalid cursor"));
}

#[test]
fn a_lost_shard_fails_its_own_commands_only() {
    let mut node = Node::sharded(VALKEY, SHARDS);
    let mut client = node.client();
    let keys = keys(&node, "l");
    for key in &keys {
        client.text(&format!("SET {key} x"));
    }
    node.shard(2).freeze(true);
    let mut sent = Vec::new();
    for _ in 0..3 {
        for key in &keys {
            sent.extend(words(&format!("GET {key}")));
        }
        sent.extend(words(&format!("MGET {}", keys.join(" "))));
    }
    client.send(&sent);
    // The others go on meanwhile.
    let mut other = node.client();
    for shard in [0, 1, 3] {
        assert_eq!(other.text(&format!("GET {}", keys[shard])), "$1\r\nx\r\n");
    }
    node.shard(2).kill();
    for _ in 0..3 {
        for shard in 0..4 {
            let got = String::from_utf8(client.raw()).unwrap();
            if shard == 2 {
                assert!(
                    got.starts_with("-ERR connection to the shard was lost"),
                    "{got}"
                );
            } else {
                assert_eq!(got, "$1\r\nx\r\n");
            }
        }
        let got = String::from_utf8(client.raw()).unwrap();
        assert!(
            got.starts_with("-ERR connection to the shard was lost"),
            "{got}"
        );
    }
    node.shard(2).restart();
    assert_eq!(client.text(&format!("GET {}", keys[2])), "_\r\n");
    assert_eq!(client.text(&format!("SET {} y", keys[2])), "+OK\r\n");
    assert_eq!(client.text(&format!("GET {}", keys[0])), "$1\r\nx\r\n");
}

#[test]
fn large_values_and_large_commands() {
    let node = Node::sharded(VALKEY, SHARDS);
    let mut client = node.client();
    let keys = keys(&node, "v");
    let value = vec![b'x'; 5 << 20];
    // One value flows through; before and after it come small ones of other shards.
    let mut sent = words(&format!("SET {} small", keys[0]));
    sent.extend(command(&[b"SET", keys[1].as_bytes(), &value]));
    sent.extend(words(&format!("SET {} small", keys[2])));
    client.send(&sent);
    for _ in 0..3 {
        assert_eq!(client.raw(), b"+OK\r\n");
    }
    // A command that is split is held until it is whole.
    let mut args: Vec<&[u8]> = vec![b"MSET"];
    for key in &keys {
        args.extend([key.as_bytes(), &value[..1 << 20]]);
    }
    client.send(&command(&args));
    assert_eq!(client.raw(), b"+OK\r\n");
    client.send(&words(&format!("STRLEN {}", keys[1])));
    assert_eq!(client.raw(), b":1048576\r\n");
    let mut sent = Vec::new();
    for _ in 0..4 {
        sent.extend(words(&format!("MGET {}", keys.join(" "))));
        for key in &keys {
            sent.extend(words(&format!("GET {key}")));
        }
    }
    client.send(&sent);
    let one = [b"$1048576\r\n", &value[..1 << 20], b"\r\n"].concat();
    for _ in 0..4 {
        let Value::Array(values) = client.reply() else {
            panic!("MGET gives an array");
        };
        assert!(
            values
                .iter()
                .all(|got| got.text() == Some(&value[..1 << 20]))
        );
        for _ in &keys {
            assert!(client.raw() == one);
        }
    }
}

#[test]
fn unwanted_replies_and_versions() {
    let node = Node::sharded(VALKEY, SHARDS);
    let mut client = node.client();
    let keys = keys(&node, "u");
    let mut sent = words("CLIENT REPLY SKIP");
    sent.extend(words(&format!("SET {} 1", keys[0])));
    sent.extend(words(&format!("SET {} 2", keys[1])));
    sent.extend(words("CLIENT REPLY SKIP"));
    sent.extend(words(&format!("MSET {} 3 {} 4", keys[2], keys[3])));
    sent.extend(words(&format!("MGET {}", keys.join(" "))));
    client.send(&sent);
    assert_eq!(client.raw(), b"+OK\r\n");
    assert_eq!(
        client.raw(),
        b"*4\r\n$1\r\n1\r\n$1\r\n2\r\n$1\r\n3\r\n$1\r\n4\r\n"
    );
    let mut sent = words("CLIENT REPLY OFF");
    for key in &keys {
        sent.extend(words(&format!("INCR {key}")));
    }
    sent.extend(words("DBSIZE"));
    sent.extend(words("CLIENT REPLY ON"));
    sent.extend(words(&format!("GET {}", keys[0])));
    client.send(&sent);
    assert_eq!(client.raw(), b"+OK\r\n");
    assert_eq!(client.raw(), b"$1\r\n2\r\n");
    client.ask("HELLO 3");
    assert_eq!(client.text("GET nothing"), "_\r\n");
    client.text(&format!("HSET {} f v", "hash"));
    assert_eq!(client.text("HGETALL hash"), "%1\r\n$1\r\nf\r\n$1\r\nv\r\n");
    assert_eq!(client.text("RESET"), "+RESET\r\n");
    assert_eq!(client.text("GET nothing"), "_\r\n");
    assert_eq!(integer(&client.ask("PUBLISH nobody x")), 0);
}

/// Many clients at once: nobody gets what is another's.
#[test]
fn clients_do_not_see_each_other() {
    let node = Node::sharded(VALKEY, SHARDS);
    let endpoint = node.endpoint;
    let clients: Vec<_> = (0..8_u64)
        .map(|number| {
            std::thread::spawn(move || {
                let mut client = Client::connect(endpoint);
                let mut random = number;
                for round in 0..60 {
                    let (mut sent, mut wanted) = (Vec::new(), Vec::new());
                    for step in 0..40_u64 {
                        random = random
                            .wrapping_mul(6_364_136_223_846_793_005)
                            .wrapping_add(99);
                        let key = format!("{number}:{}", (random >> 33) % 20);
                        let value = format!("{number}-{round}-{step}");
                        sent.extend(words(&format!("SET {key} {value}")));
                        wanted.push("+OK\r\n".to_owned());
                        if step % 7 == 0 {
                            sent.extend(words("MULTI"));
                            sent.extend(words(&format!("GET {key}")));
                            sent.extend(words("EXEC"));
                            wanted.push("+OK\r\n".to_owned());
                            wanted.push("+QUEUED\r\n".to_owned());
                            wanted.push(format!("*1\r\n${}\r\n{value}\r\n", value.len()));
                        }
                        sent.extend(words(&format!("MGET {key} {number}:none")));
                        wanted.push(format!("*2\r\n${}\r\n{value}\r\n$-1\r\n", value.len()));
                    }
                    client.send(&sent);
                    for wanted in &wanted {
                        let got = String::from_utf8(client.raw()).unwrap();
                        assert_eq!(&got, wanted, "client {number}, round {round}");
                    }
                }
            })
        })
        .collect();
    for client in clients {
        client.join().unwrap();
    }
}

#[test]
fn wait_is_about_all_shards() {
    let node = Node::sharded(VALKEY, SHARDS);
    let mut client = node.client();
    for key in keys(&node, "w") {
        client.text(&format!("SET {key} 1"));
    }
    assert_eq!(client.text("WAIT 0 100"), ":0\r\n");
    assert_eq!(client.text("WAIT 1 50"), ":0\r\n");
}

/// In engines before 8 a `MULTI` inside a transaction is an error that changes nothing.
#[test]
fn a_nested_multi_decides_nothing() {
    let node = Node::sharded("redis-7.0.", SHARDS);
    let mut client = node.client();
    for key in keys(&node, "n") {
        assert_eq!(client.text("MULTI"), "+OK\r\n");
        assert!(
            client
                .text("MULTI")
                .starts_with("-ERR MULTI calls can not be nested")
        );
        assert_eq!(client.text(&format!("INCR {key}")), "+QUEUED\r\n");
        assert_eq!(client.text("EXEC"), "*1\r\n:1\r\n");
    }
}

/// What would be put together and is larger than what is held of it gets an error; the client goes on.
#[test]
fn a_reply_that_is_too_large_to_be_put_together() {
    let node = Node::sharded(VALKEY, SHARDS);
    let keys = keys(&node, "large");
    let mut client = node.client();
    for key in &keys {
        client.text(&format!("SETRANGE {key} {} x", (8 << 20) - 1));
    }
    let line = format!("MGET {}", keys.join(" "));
    for _ in 0..2 {
        client.send(&words(&format!("{line}{}", &line[4..].repeat(9))));
        client.send(&words("ECHO next"));
        let got = String::from_utf8(client.raw()).unwrap();
        assert!(
            got.starts_with("-ERR the replies of the shards are together larger"),
            "{got:.80}"
        );
        assert_eq!(client.raw(), b"$4\r\nnext\r\n");
    }
    // As much as can be held is put together.
    client.send(&words(&format!("{line}{}", &line[4..].repeat(5))));
    assert_eq!(client.raw().len(), 5 + 24 * ((8 << 20) + 12));
    // It is there twice while it is put together, never three times.
    let peak = process::memory(node.server(), "VmHWM:");
    assert!(peak < 1 << 29, "{peak}");
}

/// Where a long command goes may be known only at its end: its keys are not read again with each of its pieces.
#[test]
fn a_long_command_is_looked_into_seldom() {
    let node = Node::sharded(VALKEY, SHARDS);
    let mut client = node.client();
    let names: Vec<String> = (0..40_000).map(|number| format!("{{t}}{number}")).collect();
    let mut parts: Vec<&[u8]> = vec![b"MSET"];
    for name in &names {
        parts.extend([name.as_bytes(), &[b'v'; 100]]);
    }
    let frame = command(&parts);
    client.send(&frame);
    assert_eq!(client.raw(), b"+OK\r\n");
    assert_eq!(client.text("DBSIZE"), ":40000\r\n");
    let looks = || {
        let log = node.log();
        log.matches("not known yet where a long command goes")
            .count()
    };
    until("it is told", || looks() > 0);
    let looks = looks();
    // Each time twice as much is known, from 32 KiB on.
    let most = (frame.len() >> 15).ilog2() as usize + 1;
    assert!((1..=most).contains(&looks), "{looks} looks, {most} at most");
}

/// One of several keys on different shards that the engine does not have is no question of slots.
#[test]
fn a_command_that_the_engine_does_not_know() {
    let node = Node::sharded("redis-6.2.", SHARDS);
    let mut client = node.client();
    assert_eq!(client.text("PING"), "+PONG\r\n");
    for line in ["LMPOP 2 a b LEFT", "ZINTERCARD 2 a b"] {
        let reply = client.text(line);
        assert!(reply.starts_with("-ERR unknown command"), "{reply}");
    }
    let reply = client.text("SINTER a b c d e f");
    assert!(reply.starts_with("-CROSSSLOT"), "{reply}");
}
