//! Limits of a database: commands of a client without a reply, commands and bytes a second, what is kept for
//! a client that reads slowly. They change while clients are connected, and nobody loses anything.

use crate::connections::id;
use crate::support::client::{Client, command, words};
use crate::support::node::{Node, VALKEY};
use crate::support::until;
use model::tuning::{ClientBuffer, DatabaseTuning};
use resp::value::Value;
use std::time::Instant;

impl Node {
    fn tune(&mut self, change: impl FnOnce(&mut DatabaseTuning)) {
        self.reconfigure(|config| change(&mut config.databases[0].tuning));
    }

    /// The most commands that were in flight in one of many looks.
    pub(crate) fn in_flight(&self) -> u64 {
        self.exec.last().map_or(0, |seen| seen.in_flight)
    }
}

/// `INCR`s in one piece: their replies say in which order they ran, and that none ran twice.
fn count_up(client: &mut Client, key: &str, times: i64) {
    client.send(&words(&format!("INCR {key}")).repeat(times as usize));
    for number in 1..=times {
        assert_eq!(client.reply(), Value::Integer(number));
    }
}

/// A pipeline of a thousand through a limit of a few: all replies, in order; on one shard and on several.
#[test]
fn pipelines_longer_than_allowed() {
    for shards in [1, 4] {
        let mut node = match shards {
            1 => Node::start(),
            shards => Node::sharded(VALKEY, shards),
        };
        let mut before = node.client();
        assert!(before.pings());
        for most in [1, 7, 2_047] {
            node.tune(|tuning| tuning.max_client_pipeline = most);
            count_up(&mut before, &format!("a{most}"), 1_000);
            let mut client = node.client();
            count_up(&mut client, &format!("b{most}"), 1_000);
            mixed(&mut client, most);
            large(&mut client);
        }
        assert!(before.pings());
    }
}

/// Commands that go other ways: own connections, answers of the proxy, parts for several shards.
fn mixed(client: &mut Client, round: u32) {
    let commands = [
        "CLIENT ID",
        "MULTI",
        "SET {m}a 1",
        "EXEC",
        "MSET x 1 y 2 z 3",
        "MGET x y z",
        "BLPOP {m}none 0.01",
        "WATCH {m}a",
        "UNWATCH",
        "PING",
        "WAIT 0 0",
        "ECHO end",
    ];
    for _ in 0..5 {
        let all: Vec<u8> = commands.iter().flat_map(|line| words(line)).collect();
        client.send(&all);
        let replies: Vec<Value> = commands.iter().map(|_| client.reply()).collect();
        assert_eq!(replies[11], Value::bulk("end"), "{round}");
        assert_eq!(
            replies[5],
            Value::Array(["1", "2", "3"].map(Value::bulk).to_vec())
        );
    }
}

/// A command that is passed on as it comes, between others.
fn large(client: &mut Client) {
    let value = vec![b'v'; 1 << 20];
    let mut all = words("SET small 1");
    all.extend(command(&[b"SET", b"large", &value]));
    all.extend(words("STRLEN large"));
    all.extend(words("GET small"));
    // From another thread: what the proxy does not read stays here.
    let mut writer = Client {
        stream: client.stream.try_clone().unwrap(),
        kept: Vec::new(),
    };
    let sending = std::thread::spawn(move || writer.send(&all));
    assert_eq!(client.raw(), b"+OK\r\n");
    assert_eq!(client.raw(), b"+OK\r\n");
    assert_eq!(client.reply(), Value::Integer(1 << 20));
    assert_eq!(client.reply(), Value::bulk("1"));
    sending.join().unwrap();
}

/// Of a client whose shard stands still only so many commands are on their way.
#[test]
fn no_more_in_flight_than_allowed() {
    let mut node = Node::with(VALKEY, |config| {
        config.databases[0].tuning.max_client_pipeline = 5;
    });
    let mut client = node.client();
    assert!(client.pings());
    node.engine.freeze(true);
    client.send(&words("INCR key").repeat(500));
    until("five are in flight", || node.in_flight() == 5);
    // Two more looks see no more.
    let seen = node.exec.count();
    until("it was looked again", || node.exec.count() > seen + 2);
    assert_eq!(node.in_flight(), 5);
    node.engine.freeze(false);
    for number in 1..=500 {
        assert_eq!(client.reply(), Value::Integer(number));
    }
    node.tune(|tuning| tuning.max_client_pipeline = 0);
    count_up(&mut client, "other", 500);
}

/// The time that `work` takes is at least what the rate asks for: it may take longer, never less.
fn at_least(seconds: f64, work: impl FnOnce()) {
    let began = Instant::now();
    work();
    let passed = began.elapsed().as_secs_f64();
    assert!(
        passed > seconds,
        "{passed} s instead of {seconds} s or more"
    );
}

/// Several clients on two workers get no more together than the rate, and everybody gets its part.
#[test]
fn commands_a_second() {
    for shards in [1, 3] {
        let mut node = match shards {
            1 => Node::start(),
            shards => Node::sharded(VALKEY, shards),
        };
        node.reconfigure(|config| {
            config.settings.threads = 2;
            config.databases[0].tuning.max_commands_per_second = 1_000;
        });
        until("there are two workers", || {
            node.exec.last().is_some_and(|seen| seen.threads == 2)
        });
        let endpoint = node.endpoint;
        // 1,200 commands, of which a tenth of a second's are free.
        at_least(0.95, || {
            let clients: Vec<_> = (0..6)
                .map(|number| {
                    std::thread::spawn(move || {
                        let mut client = Client::connect(endpoint);
                        count_up(&mut client, &format!("key{number}"), 200);
                    })
                })
                .collect();
            for client in clients {
                client.join().unwrap();
            }
        });
        // Who sends one at a time gets its turn beside one that always has more.
        let mut greedy = node.client();
        greedy.send(&words("INCR greedy").repeat(100_000));
        let mut modest = node.client();
        for number in 1..=20 {
            assert_eq!(modest.ask("INCR modest"), Value::Integer(number));
        }
        // Without a limit all that waits goes on, in order and once.
        node.tune(|tuning| tuning.max_commands_per_second = 0);
        for number in 1..=100_000 {
            assert_eq!(greedy.reply(), Value::Integer(number));
        }
    }
}

/// Bytes count both ways; what a large reply was too much is made up for before the next command.
#[test]
fn bytes_a_second() {
    let mut node = Node::start();
    let mut client = node.client();
    client.send(&command(&[b"SET", b"large", &vec![b'v'; 400_000]]));
    assert_eq!(client.raw(), b"+OK\r\n");
    node.tune(|tuning| tuning.max_bytes_per_second = 1_000_000);
    at_least(0.7, || {
        for _ in 0..3 {
            client.send(&words("STRLEN large"));
            assert_eq!(client.reply(), Value::Integer(400_000));
            client.send(&words("GET large"));
            client.raw();
        }
    });
    // A limit that would take an hour for what was taken is forgotten with it.
    node.tune(|tuning| tuning.max_bytes_per_second = 1_024);
    client.send(&words("GET large"));
    client.raw();
    client.send(b"PING\r\n");
    node.tune(|tuning| tuning.max_bytes_per_second = 0);
    assert_eq!(client.raw(), b"+PONG\r\n");
}

/// Clients that wait for their turn may leave, be listed and be killed.
#[test]
fn clients_that_wait_for_their_turn() {
    let node = Node::with(VALKEY, |config| {
        config.databases[0].tuning.max_commands_per_second = 20;
    });
    let mut client = node.client();
    let id = id(&mut client);
    client.send(&words("INCR key").repeat(10_000));
    for _ in 0..20 {
        let mut leaver = node.client();
        leaver.send(&words("INCR left").repeat(10));
    }
    let mut other = node.client();
    let list = other.text("CLIENT LIST");
    assert!(list.contains(&format!("id={id} ")), "{list}");
    assert_eq!(other.text(&format!("CLIENT KILL ID {id}")), ":1\r\n");
    while client.try_raw().is_some() {}
    until("they are gone", || {
        node.exec.last().is_some_and(|seen| seen.connections == 1)
    });
    assert!(other.pings());
}

/// A lower bound takes effect on a client that is connected, and costs it nothing.
#[test]
fn what_is_kept_for_a_slow_reader() {
    let mut node = Node::start();
    let mut client = node.client();
    client.send(&command(&[b"SET", b"key", &vec![b'v'; 100_000]]));
    assert_eq!(client.raw(), b"+OK\r\n");
    node.tune(|tuning| {
        tuning.client_buffer = ClientBuffer {
            hard: 256 << 10,
            soft: 64 << 10,
            seconds: 60,
        };
    });
    client.send(&words("GET key").repeat(400));
    let mut seen = (0, 400);
    until("nothing more is read for it", || {
        let before = seen;
        seen = (node.exec.count(), node.in_flight());
        seen.0 != before.0 && seen.1 == before.1 && seen.1 < 400
    });
    // Others are not kept waiting: they have another connection to the shard.
    let mut other = node.client();
    for _ in 0..50 {
        assert!(other.pings());
    }
    for _ in 0..400 {
        assert_eq!(client.raw().len(), 100_000 + 11);
    }
    assert!(client.pings());
    // Whose replies came to wait behind does not wait for longer than is said.
    let mut slow = node.client();
    assert!(slow.pings());
    node.engine.freeze(true);
    slow.send(&words("GET key").repeat(1_000));
    until("they are in flight", || node.in_flight() == 1_000);
    other.send(b"PING\r\n");
    until("the other one too", || node.in_flight() == 1_001);
    node.engine.freeze(false);
    assert_eq!(other.raw(), b"+PONG\r\n");
    while slow.try_raw().is_some() {}
}

/// The slow log's threshold and length are those of the database.
#[test]
fn slow_commands_as_they_are_set() {
    let mut node = Node::start();
    let mut client = node.client();
    let slow = |node: &Node| {
        let seen = node.exec.last().unwrap();
        seen.databases[0].slow.len()
    };
    client.text("SET key value");
    node.tune(|tuning| {
        tuning.slowlog_log_slower_than = 0;
        tuning.slowlog_max_len = 3;
    });
    for _ in 0..10 {
        client.text("GET key");
    }
    until("three are kept", || slow(&node) == 3);
    node.tune(|tuning| tuning.slowlog_max_len = 0);
    until("none is kept", || slow(&node) == 0);
    let counted = node.exec.last().unwrap().since_start.slow;
    assert!(counted >= 10, "{counted}");
    node.tune(|tuning| tuning.slowlog_log_slower_than = 60_000_000);
    client.text("GET key");
    let looked = node.exec.count();
    until("it was looked again", || node.exec.count() > looked + 1);
    assert_eq!(node.exec.last().unwrap().since_start.slow, counted);
}
