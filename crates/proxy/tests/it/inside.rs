//! `CLIENT`, `CONFIG` and the like inside a transaction: what the proxy answers itself comes at `EXEC`, in
//! its place, as the engine does it.

use crate::fault::key_at;
use crate::support::client::{Client, words};
use crate::support::node::{Node, VALKEY};

/// Commands whose words and replies are the engine's, inside a transaction.
const AS_THE_ENGINE: &[&str] = &[
    "CLIENT",
    "CLIENT NOSUCH",
    "CLIENT ID x",
    "CLIENT GETNAME",
    "CLIENT SETNAME name",
    "CLIENT SETNAME 'a b'",
    "CLIENT SETNAME",
    "CLIENT REPLY ON",
    "CLIENT REPLY XX",
    "CLIENT TRACKING ON",
    "CLIENT TRACKING ON BCAST",
    "CLIENT TRACKING XX",
    "CLIENT TRACKING",
    "CLIENT CACHING YES",
    "CLIENT TRACKINGINFO",
    "CLIENT GETREDIR",
    "CLIENT NO-TOUCH ON",
    "CLIENT NO-TOUCH x",
    "CLIENT NO-EVICT ON",
    "CLIENT NO-EVICT x",
    "CLIENT SETINFO lib-name x",
    "CLIENT SETINFO lib-nam x",
    "CLIENT SETINFO lib-name",
    "CLIENT CAPA redirect",
    "CLIENT KILL ID 999999999",
    "CLIENT KILL 1.2.3.4:5",
    "CLIENT KILL",
    "CLIENT UNBLOCK 999999999",
    "CLIENT UNBLOCK 1 TIMEOUT x",
    "CLIENT UNBLOCK x",
    "CLIENT LIST TYPE nosuch",
    "CLIENT PAUSE 0",
    "CLIENT PAUSE 1 READ",
    "CLIENT PAUSE",
    "CLIENT UNPAUSE",
    "CLIENT UNPAUSE x",
    "CONFIG GET maxmemory-policy",
    "CONFIG GET nosuch",
    "CONFIG GET",
    "CONFIG",
    "ACL WHOAMI",
    "ACL WHOAMI x",
    "ACL",
    "AUTH x",
    "AUTH",
    "AUTH a b c",
    "RESET",
];

/// What a client gets for `MULTI`, `GET`, this, `GET` and `EXEC`, and afterwards.
fn asked(client: &mut Client, key: &str, line: &str) -> Vec<String> {
    let lines = [
        &format!("SET {key} v"),
        "MULTI",
        &format!("GET {key}"),
        line,
        &format!("STRLEN {key}"),
        "EXEC",
        "CLIENT GETNAME",
    ];
    client.send(
        &lines
            .iter()
            .flat_map(|line| words(line))
            .collect::<Vec<u8>>(),
    );
    client.send(&words("PING"));
    let mut got = Vec::new();
    while got.len() <= lines.len() {
        let text = String::from_utf8_lossy(&client.raw()).into_owned();
        // When an invalidation comes is not promised.
        if !text.starts_with('>') {
            got.push(text);
        }
    }
    got
}

fn as_the_engine(name: &'static str, shards: u16) {
    let node = if shards == 1 {
        Node::with(name, |_| {})
    } else {
        Node::sharded(name, shards)
    };
    let several = |line: &str| {
        let about_all = line.contains("TRACKING") || line.contains("NO-TOUCH");
        about_all && !line.ends_with("INFO")
    };
    for resp in [2, 3] {
        for line in AS_THE_ENGINE {
            let (mut client, mut direct) = (node.client(), node.direct());
            for client in [&mut client, &mut direct] {
                client.ask(&format!("HELLO {resp}"));
            }
            let key = key_at(&node, usize::from(shards) - 1, "inside");
            let (got, wanted) = (
                asked(&mut client, &key, line),
                asked(&mut direct, &key, line),
            );
            if shards > 1 && several(line) && !wanted[5].starts_with("-EXECABORT") {
                assert!(
                    got[3].contains("not available on a database with"),
                    "{line}: {got:?}"
                );
                assert!(got[5].starts_with("-EXECABORT"), "{line}: {got:?}");
                continue;
            }
            assert_eq!(got, wanted, "{name}, {shards} shards, RESP{resp}: {line}");
        }
    }
}

#[test]
fn as_redis_6_2() {
    as_the_engine("redis-6.2.", 1);
    as_the_engine("redis-6.2.", 4);
}

#[test]
fn as_redis_7_0() {
    as_the_engine("redis-7.0.", 1);
}

#[test]
fn as_valkey_8_0() {
    as_the_engine("valkey-8.0.", 1);
}

#[test]
fn as_valkey_9_1() {
    as_the_engine(VALKEY, 1);
    as_the_engine(VALKEY, 4);
}

/// `CLIENT REPLY` inside a transaction cuts holes into the reply to `EXEC`, in the engines too.
#[test]
fn replies_that_are_not_wanted() {
    for name in ["redis-6.2.", "redis-7.0.", "valkey-8.0."] {
        let node = Node::with(name, |_| {});
        for mode in ["OFF", "SKIP"] {
            let mut got = [node.client(), node.direct()].map(|mut client| {
                let lines = [
                    "SET k v",
                    "MULTI",
                    "GET k",
                    &format!("CLIENT REPLY {mode}"),
                    "CLIENT GETNAME",
                    "STRLEN k",
                    "EXEC",
                    "ECHO one",
                    "ECHO two",
                    "CLIENT REPLY ON",
                    "ECHO end",
                ];
                client.send(
                    &lines
                        .iter()
                        .flat_map(|line| words(line))
                        .collect::<Vec<u8>>(),
                );
                let mut bytes = Vec::new();
                let mut buffer = [0; 4096];
                while !bytes.ends_with(b"$3\r\nend\r\n") {
                    let count = std::io::Read::read(&mut client.stream, &mut buffer).unwrap();
                    assert!(count > 0);
                    bytes.extend_from_slice(&buffer[..count]);
                }
                String::from_utf8(bytes).unwrap()
            });
            let wanted = got[1].clone();
            assert_eq!(std::mem::take(&mut got[0]), wanted, "{name}: {mode}");
        }
    }
}

/// One that ends itself gets what comes before, as from the engine.
fn ends_itself(client: &mut Client) {
    let lines = [
        "MULTI",
        "GET n",
        "CLIENT KILL TYPE normal SKIPME no",
        "GET n",
        "EXEC",
    ];
    client.send(
        &lines
            .iter()
            .flat_map(|line| words(line))
            .collect::<Vec<u8>>(),
    );
    for _ in 0..4 {
        client.raw();
    }
    assert!(client.try_raw().is_none());
    assert_eq!(client.kept, b"*3\r\n$1\r\n2\r\n:8\r\n");
}

/// What is asked of all workers, several times in one transaction, in the order of the commands.
#[test]
fn questions_to_all_workers() {
    for shards in [1, 4] {
        let mut node = if shards == 1 {
            Node::start()
        } else {
            Node::sharded(VALKEY, shards)
        };
        node.threads(4);
        let mut others: Vec<Client> = (0..8).map(|_| node.client()).collect();
        for (number, other) in others.iter_mut().enumerate() {
            assert_eq!(other.text(&format!("CLIENT SETNAME o{number}")), "+OK\r\n");
        }
        let id = others[3].text("CLIENT ID");
        let id = id.trim().trim_start_matches(':');
        let mut client = node.client();
        let lines = [
            "MULTI",
            "CLIENT SETNAME me",
            "INCR n",
            "CLIENT LIST",
            &format!("CLIENT KILL ID {id}"),
            "CLIENT LIST",
            "INCR n",
            "CLIENT GETNAME",
            "EXEC",
            "GET n",
        ];
        client.send(
            &lines
                .iter()
                .flat_map(|line| words(line))
                .collect::<Vec<u8>>(),
        );
        assert_eq!(client.raw(), b"+OK\r\n");
        for _ in 0..7 {
            assert_eq!(client.raw(), b"+QUEUED\r\n");
        }
        let got = String::from_utf8(client.raw()).unwrap();
        assert!(got.starts_with("*7\r\n+OK\r\n:1\r\n$"), "{got}");
        assert!(got.ends_with(":2\r\n$2\r\nme\r\n"), "{got}");
        let (before, after) = got
            .split_once("\r\n:1\r\n$")
            .unwrap()
            .1
            .split_once("\r\n:1\r\n$")
            .unwrap();
        for (list, there) in [(before, true), (after, false)] {
            assert_eq!(list.contains("name=o3 "), there, "{list}");
            assert!(list.contains("name=o7 "), "{list}");
            let mine = list.lines().find(|line| line.contains("name=me ")).unwrap();
            assert!(
                mine.contains(" flags=x ") && mine.contains(" multi=7 "),
                "{mine}"
            );
        }
        assert_eq!(client.raw(), b"$1\r\n2\r\n");
        assert!(others[3].try_raw().is_none());
        ends_itself(&mut client);
    }
}

/// A transaction that does not run runs nothing of the proxy's either.
#[test]
fn what_does_not_run() {
    for shards in [1, 4] {
        let node = if shards == 1 {
            Node::start()
        } else {
            Node::sharded(VALKEY, shards)
        };
        let (mut client, mut other) = (node.client(), node.client());
        for end in ["watched", "DISCARD", "spoiled", "RESET"] {
            if end == "watched" {
                assert_eq!(client.text("WATCH k"), "+OK\r\n");
            }
            assert_eq!(client.text("MULTI"), "+OK\r\n");
            assert_eq!(client.text("GET k"), "+QUEUED\r\n");
            assert_eq!(client.text("CLIENT SETNAME wrong"), "+QUEUED\r\n");
            match end {
                "watched" => {
                    other.text("INCR k");
                    assert_eq!(client.text("EXEC"), "_\r\n");
                }
                "spoiled" => {
                    assert!(client.text("CLIENT NOSUCH").starts_with("-ERR unknown"));
                    assert!(client.text("EXEC").starts_with("-EXECABORT"));
                }
                other => assert!(client.text(other).starts_with('+')),
            }
            assert_eq!(client.text("CLIENT GETNAME"), "_\r\n", "{end}");
            // Nor is anything left for the next one.
            assert_eq!(client.text("MULTI"), "+OK\r\n");
            assert_eq!(client.text("PING"), "+QUEUED\r\n");
            assert_eq!(client.text("EXEC"), "*1\r\n+PONG\r\n");
        }
    }
}

/// Tracking that begins inside a transaction tracks what the transaction reads afterwards.
#[test]
fn tracking_begins_inside() {
    let node = Node::start();
    let (mut client, mut other) = (node.client(), node.client());
    client.ask("HELLO 3");
    for line in ["MULTI", "CLIENT TRACKING ON", "GET k", "EXEC"] {
        client.ask(line);
    }
    assert!(client.text("CLIENT LIST").contains(" flags=t "));
    other.text("SET k v");
    assert_eq!(
        client.raw(),
        b">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n"
    );
    assert!(client.pings());
}

/// Secrets of the engine are not shown, and a transaction holds only so much for the proxy.
#[test]
fn secrets_and_bounds() {
    for shards in [1, 4] {
        let node = if shards == 1 {
            Node::start()
        } else {
            Node::sharded(VALKEY, shards)
        };
        for resp in [2, 3] {
            let mut client = node.client();
            client.ask(&format!("HELLO {resp}"));
            for line in ["MULTI", "GET k", "CONFIG GET *auth", "CONFIG GET *"] {
                client.ask(line);
            }
            let shown = client.text("EXEC");
            assert!(shown.contains("masterauth") && shown.contains("maxmemory"));
            assert!(!shown.contains("replication-secret"));
            assert_eq!(client.text("MULTI"), "+OK\r\n");
            let long = "x".repeat(60_000);
            let mut refused = false;
            for _ in 0..20 {
                let answer = client.text(&format!("CLIENT SETNAME {long}"));
                refused |= answer.starts_with("-ERR too many commands in this transaction");
            }
            assert!(refused);
            assert!(client.text("EXEC").starts_with("-EXECABORT"));
            assert!(client.pings());
        }
    }
}

/// The reply to a large transaction is whole, with the proxy's own in it.
#[test]
fn a_large_transaction() {
    let node = Node::start();
    let mut client = node.client();
    client.text(&format!("SET k {}", "v".repeat(100_000)));
    let mut sent = words("MULTI");
    for _ in 0..50 {
        sent.extend(words("GET k"));
        sent.extend(words("CLIENT GETNAME"));
    }
    sent.extend(words("EXEC"));
    sent.extend(words("ECHO end"));
    client.send(&sent);
    for _ in 0..101 {
        client.raw();
    }
    let reply = client.raw();
    assert!(reply.starts_with(b"*100\r\n$100000\r\n"));
    assert_eq!(reply.len(), 6 + 50 * (9 + 100_000 + 2 + 5));
    assert_eq!(client.raw(), b"$3\r\nend\r\n");
}

/// What the engine answers itself may be as long as it likes, inside a transaction too.
#[test]
fn long_commands_that_are_passed_on() {
    let node = Node::start();
    let key = "k".repeat(200_000);
    let said = [
        words("MULTI"),
        words(&format!("COMMAND GETKEYS GET {key}")),
        words("CLIENT GETNAME"),
        words("EXEC"),
    ]
    .concat();
    let replies = |mut client: Client| -> Vec<Vec<u8>> {
        client.send(&said);
        (0..4).map(|_| client.raw()).collect()
    };
    let got = replies(node.client());
    assert_eq!(got[1], b"+QUEUED\r\n");
    assert_eq!(got, replies(node.direct()));
}
