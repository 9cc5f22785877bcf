//! `CLIENT PAUSE` through the proxy: what waits is what waits in the engine, and nothing is lost.

use crate::fault::key_at;
use crate::support::client::{Client, command, words};
use crate::support::engine::Engine;
use crate::support::node::{Node, VALKEY};
use crate::support::until;
use std::io::Read;
use std::net::SocketAddr;
use std::time::Duration;

/// A pause that no test sees the end of.
const LONG: &str = "3600000";

/// Whether a client has got nothing by the time that others, who asked later, have their answers. `other`
/// is not held up.
fn waits(client: &mut Client, other: &mut Client) -> bool {
    for _ in 0..3 {
        other.ask("CLIENT ID");
    }
    nothing_came(client)
}

fn nothing_came(client: &mut Client) -> bool {
    let wait = Duration::from_millis(40);
    client.stream.set_read_timeout(Some(wait)).unwrap();
    let mut buffer = [0; 4096];
    let nothing = match client.stream.read(&mut buffer) {
        Ok(count) => {
            client.kept.extend_from_slice(&buffer[..count]);
            false
        }
        Err(_) => true,
    };
    let patience = crate::support::PATIENCE;
    client.stream.set_read_timeout(Some(patience)).unwrap();
    nothing
}

/// Commands that wait, or do not, while writes are paused; the engine itself says which.
const COMMANDS: &[&str] = &[
    "GET k",
    "SET k v",
    "SET k",
    "NOSUCH",
    "PUBLISH a b",
    "SPUBLISH a b",
    "PFCOUNT h",
    "EVAL 'return 1' 0",
    "EVAL_RO 'return 1' 0",
    "EVALSHA ffffffffffffffffffffffffffffffffffffffff 0",
    "FCALL f 0",
    "SCRIPT LOAD 'return 1'",
    "FUNCTION FLUSH",
    "FUNCTION LIST",
    "FLUSHALL",
    "BLPOP q 0.01",
    "SORT k",
    "GETEX k",
    "TOUCH k",
    "EXEC",
    "DISCARD",
    "WATCH k",
    "WAIT 0 0",
    "SELECT 1",
    "PING",
    "CLIENT GETNAME",
    "CONFIG GET maxmemory",
    "XGROUP CREATE s g $ MKSTREAM",
    "RESET",
    "GEORADIUS k 1 1 1 m",
    "BITFIELD k GET u4 0",
];

/// Ends a pause: over a connection that has not been held up.
fn unpause(client: &mut Client) {
    assert_eq!(client.text("CLIENT UNPAUSE"), "+OK\r\n");
}

fn writes_wait_as_in_the_engine(name: &'static str) {
    let node = Node::with(name, |_| {});
    let (mut control, mut direct) = (node.client(), node.direct());
    // One after the other: the proxy itself is a client of that engine.
    let asked = |control: &mut Client, address: SocketAddr| -> Vec<bool> {
        let pause = format!("CLIENT PAUSE {LONG} WRITE");
        assert_eq!(control.text(&pause), "+OK\r\n");
        let mut clients = Vec::new();
        for line in COMMANDS {
            let mut client = Client::connect(address);
            client.send(&words(line));
            clients.push(client);
        }
        // What does not wait is answered by then.
        let mut waited = Vec::new();
        for client in &mut clients {
            waited.push(waits(client, control));
        }
        unpause(control);
        for (client, line) in clients.iter_mut().zip(COMMANDS) {
            // In Valkey 8.0 a blocking command that waited for a pause has no time-out any more.
            assert!(
                line.starts_with("BLPOP") || client.try_raw().is_some(),
                "{line} gets its reply"
            );
        }
        waited
    };
    let wanted = asked(&mut direct, node.engine.direct);
    let got = asked(&mut control, node.endpoint);
    for ((line, wanted), got) in COMMANDS.iter().zip(wanted).zip(got) {
        assert_eq!(got, wanted, "{name}: {line}");
    }
}

#[test]
fn writes_wait_as_in_redis_6_2() {
    writes_wait_as_in_the_engine("redis-6.2.");
}

#[test]
fn writes_wait_as_in_redis_7_0() {
    writes_wait_as_in_the_engine("redis-7.0.");
}

#[test]
fn writes_wait_as_in_valkey_8_0() {
    writes_wait_as_in_the_engine("valkey-8.0.");
}

#[test]
fn writes_wait_as_in_valkey_9_1() {
    writes_wait_as_in_the_engine(VALKEY);
}

/// The words for wrong arguments are the engine's.
#[test]
fn wrong_arguments() {
    for name in ["redis-6.2.", "redis-7.0.", "valkey-8.0.", VALKEY] {
        let node = Node::with(name, |_| {});
        for line in [
            "CLIENT PAUSE",
            "CLIENT PAUSE x",
            "CLIENT PAUSE -1",
            "CLIENT PAUSE 1.5",
            "CLIENT PAUSE 1 READ",
            "CLIENT PAUSE x READ",
            "CLIENT PAUSE 9223372036854775807",
            "CLIENT PAUSE 99999999999999999999",
            "CLIENT PAUSE 0 ALL x",
            "CLIENT UNPAUSE x",
            "CLIENT UNPAUSE",
            "CLIENT PAUSE 0",
            "CLIENT PAUSE 0 write",
        ] {
            let (mut client, mut direct) = (node.client(), node.direct());
            assert_eq!(client.text(line), direct.text(line), "{name}: {line}");
        }
    }
}

/// With `ALL` nothing is answered but what is wrong, until the time is over.
#[test]
fn all_wait_until_it_is_over() {
    for (name, shards) in [
        ("redis-6.2.", 1),
        (VALKEY, 1),
        ("redis-7.0.", 4),
        (VALKEY, 4),
    ] {
        let node = if shards == 1 {
            Node::with(name, |_| {})
        } else {
            Node::sharded(name, shards)
        };
        let mut control = node.client();
        let lines = [
            "GET k",
            "PING",
            "CLIENT ID",
            "MULTI",
            "HELLO 3",
            "DBSIZE",
            "CLIENT UNPAUSE",
            "RESET",
            "SUBSCRIBE a",
        ];
        let mut clients: Vec<Client> = lines.iter().map(|_| node.client()).collect();
        assert!(clients.iter_mut().all(Client::pings));
        assert_eq!(control.text("CLIENT PAUSE 700"), "+OK\r\n");
        let mut wrong = node.client();
        assert!(wrong.text("GET").starts_with("-ERR wrong number"));
        assert!(wrong.text("NOSUCH").starts_with("-ERR unknown command"));
        for (client, line) in clients.iter_mut().zip(lines) {
            client.send(&words(line));
        }
        control.send(&words("PING"));
        for (client, line) in clients.iter_mut().zip(lines) {
            let wait = Duration::from_millis(1);
            client.stream.set_read_timeout(Some(wait)).unwrap();
            assert!(client.stream.read(&mut [0; 64]).is_err(), "{name}: {line}");
            let patience = crate::support::PATIENCE;
            client.stream.set_read_timeout(Some(patience)).unwrap();
        }
        for (client, line) in clients.iter_mut().zip(lines) {
            assert!(client.try_raw().is_some(), "{name}: {line}");
        }
        assert_eq!(control.raw(), b"+PONG\r\n");
    }
}

/// A pipeline behind a write waits in its order, in bounds, and loses nothing.
#[test]
fn a_pipeline_waits_in_its_order() {
    for shards in [1, 4] {
        let node = if shards == 1 {
            Node::start()
        } else {
            Node::sharded(VALKEY, shards)
        };
        let (mut control, mut client) = (node.client(), node.client());
        assert_eq!(
            control.text(&format!("CLIENT PAUSE {LONG} WRITE")),
            "+OK\r\n"
        );
        let mut sent = words("GET n0");
        for number in 0..5000 {
            sent.extend(words(&format!("INCR n{}", number % 10)));
        }
        let mut writer = client.stream.try_clone().unwrap();
        let writing = std::thread::spawn(move || {
            std::io::Write::write_all(&mut writer, &sent).unwrap();
        });
        // The read before them is answered.
        assert_eq!(client.raw(), b"$-1\r\n");
        assert!(waits(&mut client, &mut control));
        assert_eq!(control.text("GET n0"), "_\r\n");
        let flags = control.text("CLIENT LIST");
        assert!(flags.contains(" flags=b "), "{flags}");
        unpause(&mut control);
        for number in 0..5000 {
            let wanted = format!(":{}\r\n", number / 10 + 1);
            assert_eq!(String::from_utf8(client.raw()).unwrap(), wanted);
        }
        writing.join().unwrap();
    }
}

/// What a paused client sends is not read: nothing piles up in the proxy.
#[test]
fn nothing_piles_up() {
    let node = Node::start();
    let (mut control, client) = (node.client(), node.client());
    assert_eq!(
        control.text(&format!("CLIENT PAUSE {LONG} WRITE")),
        "+OK\r\n"
    );
    let before = crate::support::process::memory(node.server(), "VmRSS:");
    let mut writer = client.stream.try_clone().unwrap();
    writer.set_nonblocking(true).unwrap();
    let value = command(&[b"SET", b"k", &vec![b'x'; 60_000]]);
    let mut sent = 0;
    // Until the sockets' own buffers are full.
    until("it takes no more", || {
        let mut at = 0;
        while at < value.len() {
            match std::io::Write::write(&mut writer, &value[at..]) {
                Ok(count) => at += count,
                Err(_) => return true,
            }
        }
        sent += value.len();
        assert!(sent < 64 << 20, "{sent} bytes were taken");
        false
    });
    let after = crate::support::process::memory(node.server(), "VmRSS:");
    assert!(after < before + (4 << 20), "{before} before, {after} after");
    assert!(control.pings());
    // One that leaves meanwhile is gone at once, and has written nothing.
    let mut leaver = node.client();
    leaver.send(&words("SET left v"));
    assert!(waits(&mut leaver, &mut control));
    drop(leaver);
    until("it is gone", || {
        control.text("CLIENT LIST").matches(" laddr=").count() == 2
    });
    unpause(&mut control);
    assert_eq!(control.text("EXISTS left"), ":0\r\n");
    let mut client = client;
    assert_eq!(client.raw(), b"+OK\r\n");
}

/// A long value that is passed on as it comes is held up before it is whole.
#[test]
fn a_value_that_is_under_way_waits() {
    for shards in [1, 4] {
        let node = if shards == 1 {
            Node::start()
        } else {
            Node::sharded(VALKEY, shards)
        };
        let (mut control, mut client) = (node.client(), node.client());
        let key = key_at(&node, usize::from(shards) - 1, "large");
        let value = vec![b'x'; 500_000];
        let whole = command(&[b"SET", key.as_bytes(), &value]);
        let (first, rest) = whole.split_at(200_000);
        client.send(first);
        until("it is under way", || {
            let list = control.text("CLIENT LIST");
            list.lines().any(|line| line.contains("tot-net-in=200000"))
        });
        assert_eq!(
            control.text(&format!("CLIENT PAUSE {LONG} WRITE")),
            "+OK\r\n"
        );
        client.send(rest);
        assert!(waits(&mut client, &mut control));
        assert_eq!(control.text(&format!("EXISTS {key}")), ":0\r\n");
        unpause(&mut control);
        assert_eq!(client.raw(), b"+OK\r\n");
        assert_eq!(control.text(&format!("STRLEN {key}")), ":500000\r\n");
    }
}

/// Transactions: a write is not queued meanwhile, and what is queued does not run.
#[test]
fn transactions_wait() {
    for (name, shards) in [
        ("redis-6.2.", 1),
        (VALKEY, 1),
        ("redis-6.2.", 4),
        (VALKEY, 4),
    ] {
        let node = if shards == 1 {
            Node::with(name, |_| {})
        } else {
            Node::sharded(name, shards)
        };
        let mut control = node.client();
        let (mut writing, mut reading, mut fresh) = (node.client(), node.client(), node.client());
        for (client, line) in [(&mut writing, "SET k v"), (&mut reading, "GET k")] {
            assert_eq!(client.text("MULTI"), "+OK\r\n");
            assert_eq!(client.text(line), "+QUEUED\r\n");
        }
        assert_eq!(
            control.text(&format!("CLIENT PAUSE {LONG} WRITE")),
            "+OK\r\n"
        );
        assert_eq!(reading.text("EXEC"), "*1\r\n_\r\n");
        writing.send(&words("EXEC"));
        assert_eq!(fresh.text("MULTI"), "+OK\r\n");
        fresh.send(&[words("INCR n"), words("EXEC")].concat());
        assert!(waits(&mut writing, &mut control) && waits(&mut fresh, &mut control));
        assert_eq!(control.text("EXISTS k n"), ":0\r\n");
        unpause(&mut control);
        assert_eq!(writing.raw(), b"*1\r\n+OK\r\n");
        assert_eq!(fresh.raw(), b"+QUEUED\r\n");
        assert_eq!(fresh.raw(), b"*1\r\n:1\r\n");
        // A transaction that only reads, after one that wrote.
        assert_eq!(
            control.text(&format!("CLIENT PAUSE {LONG} WRITE")),
            "+OK\r\n"
        );
        for (line, wanted) in [
            ("MULTI", "+OK\r\n"),
            ("GET n", "+QUEUED\r\n"),
            ("EXEC", "*1\r\n$1\r\n1\r\n"),
        ] {
            assert_eq!(writing.text(line), wanted);
        }
        // The pause of a transaction begins with its `EXEC`.
        unpause(&mut control);
        for (line, wanted) in [
            ("MULTI", "+OK\r\n"),
            ("INCR n", "+QUEUED\r\n"),
            (&format!("CLIENT PAUSE {LONG} WRITE"), "+QUEUED\r\n"),
            ("INCR n", "+QUEUED\r\n"),
            ("EXEC", "*3\r\n:2\r\n+OK\r\n:3\r\n"),
        ] {
            assert_eq!(writing.text(line), wanted);
        }
        reading.send(&words("INCR n"));
        assert!(waits(&mut reading, &mut control));
        unpause(&mut control);
        assert_eq!(reading.raw(), b":4\r\n");
    }
}

/// A second pause makes the first one longer or stricter, never shorter or milder.
#[test]
fn the_longer_and_the_stricter_stays() {
    let node = Node::start();
    let (mut control, mut client, mut reader) = (node.client(), node.client(), node.client());
    assert_eq!(
        control.text(&format!("CLIENT PAUSE {LONG} WRITE")),
        "+OK\r\n"
    );
    assert_eq!(control.text("CLIENT PAUSE 1 WRITE"), "+OK\r\n");
    client.send(&words("SET k v"));
    assert!(waits(&mut client, &mut control));
    assert_eq!(reader.text("GET k"), "_\r\n");
    unpause(&mut control);
    assert_eq!(client.raw(), b"+OK\r\n");
    assert_eq!(control.text("CLIENT PAUSE 300 WRITE"), "+OK\r\n");
    assert_eq!(control.text("CLIENT PAUSE 1 ALL"), "+OK\r\n");
    // Reads wait now too, until the end of the longer one.
    client.send(&words("SET k w"));
    reader.send(&words("GET k"));
    assert!(nothing_came(&mut reader));
    assert!(client.try_raw().is_some() && reader.try_raw().is_some());
    assert!(control.pings());
}

/// All workers obey before `OK`, whatever the load, and nothing is written after it.
fn nothing_is_written_after_ok(mut node: Node, workers: u32) {
    node.threads(workers);
    let endpoint = node.endpoint;
    let stop = std::sync::atomic::AtomicBool::new(false);
    let mut control = node.client();
    let keys: Vec<String> = (0..8).map(|number| format!("load{number}")).collect();
    std::thread::scope(|scope| {
        for key in &keys {
            let stop = &stop;
            scope.spawn(move || {
                let mut client = Client::connect(endpoint);
                let mut count = 0;
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    client.send(&words(&format!("INCR {key}")).repeat(20));
                    for _ in 0..20 {
                        count += 1;
                        assert_eq!(client.raw(), format!(":{count}\r\n").into_bytes());
                    }
                }
            });
        }
        let mut last = Vec::new();
        for _ in 0..25 {
            assert_eq!(
                control.text(&format!("CLIENT PAUSE {LONG} WRITE")),
                "+OK\r\n"
            );
            let sum = |control: &mut Client| -> Vec<String> {
                let get = |key| control.text(&format!("GET {key}"));
                keys.iter().map(get).collect()
            };
            let first = sum(&mut control);
            for _ in 0..5 {
                assert_eq!(sum(&mut control), first);
            }
            unpause(&mut control);
            let before = std::mem::replace(&mut last, first);
            until("they go on", || sum(&mut control) != last);
            assert_ne!(before, last);
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

#[test]
fn nothing_is_written_after_ok_two_workers() {
    nothing_is_written_after_ok(Node::start(), 2);
}

#[test]
fn nothing_is_written_after_ok_four_workers_four_shards() {
    nothing_is_written_after_ok(Node::sharded(VALKEY, 4), 4);
}

/// Another database of the same proxy goes on, and so does what the engine does itself.
#[test]
fn others_are_not_paused() {
    let folder = tempfile::tempdir().unwrap();
    let mut node = Node::prepare(VALKEY, |_| {});
    let mut address = node.engine.direct;
    address.set_port(20_001);
    let second = Engine::start(VALKEY, folder.path(), address);
    let mut other = node.config.databases[0].clone();
    other.uid = model::DatabaseUid(2);
    other.name = "other".to_owned();
    other.listen[0].set_port(12_001);
    other.shards[0].address = model::proxy::ShardAddress::Unix(second.socket.clone());
    let elsewhere = other.listen[0];
    node.config.databases.push(other);
    node.exec.publish(&node.config);
    node.launch();
    node.wait_served();
    let mut control = node.client();
    let (mut elsewhere, mut direct) = (Client::connect(elsewhere), node.direct());
    assert_eq!(
        control.text(&format!("CLIENT PAUSE {LONG} WRITE")),
        "+OK\r\n"
    );
    assert_eq!(elsewhere.text("SET k v"), "+OK\r\n");
    assert_eq!(direct.text("SET k v"), "+OK\r\n");
    assert!(direct.text("INFO clients").contains("paused_reason:none"));
    // It lasts through a change of the configuration.
    node.reconfigure(|config| config.databases[0].max_connections = 100);
    let mut client = node.client();
    client.send(&words("SET k w"));
    assert!(waits(&mut client, &mut control));
    unpause(&mut control);
    assert_eq!(client.raw(), b"+OK\r\n");
}
