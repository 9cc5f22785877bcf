//! When watched keys are let go, and that nothing overtakes the reply to an `EXEC`.

use crate::fault::{key_at, relayed};
use crate::support::client::{Client, words};
use crate::support::node::{Node, VALKEY};
use crate::support::until;

fn nodes() -> impl Iterator<Item = (&'static str, Node, String)> {
    ["redis-6.2.", "redis-7.0.", "valkey-8.0.", VALKEY]
        .into_iter()
        .flat_map(|name| [(name, 1), (name, 4)])
        .map(|(name, shards)| {
            let node = match shards {
                1 => Node::with(name, |_| {}),
                _ => Node::sharded(name, shards),
            };
            let key = key_at(&node, usize::from(shards) - 1, "watched");
            (name, node, key)
        })
}

/// What a client gets for `EXEC` that watched a key, said this, and saw the key change.
fn after(client: &mut Client, other: &mut Client, key: &str, line: &str) -> [String; 2] {
    assert_eq!(client.text(&format!("WATCH {key}")), "+OK\r\n");
    let said = client.text(line);
    assert_eq!(other.text(&format!("SET {key} v")), "+OK\r\n");
    assert_eq!(client.text("MULTI"), "+OK\r\n");
    assert_eq!(client.text("PING"), "+QUEUED\r\n");
    [said, client.text("EXEC")]
}

/// `EXEC` with arguments is refused, and lets go of what is watched; without a transaction nothing else does.
#[test]
fn what_lets_watched_keys_go() {
    for (name, node, key) in nodes() {
        let (mut client, mut other) = (node.client(), node.client());
        let (mut alone, mut beside) = (node.direct(), node.direct());
        for line in [
            "EXEC x",
            "EXEC",
            "DISCARD",
            "DISCARD x",
            "UNWATCH",
            "UNWATCH x",
        ] {
            let wanted = after(&mut alone, &mut beside, "own", line);
            let got = after(&mut client, &mut other, &key, line);
            assert_eq!(got, wanted, "{name}, {}: {line}", node.more.len() + 1);
        }
    }
}

/// The same while nothing but subscriptions is possible, wherever those are.
#[test]
fn exec_while_subscribed_lets_go() {
    for (name, node, key) in nodes() {
        let first = key_at(&node, 0, "channel");
        let starts = [
            ("SUBSCRIBE ch".to_owned(), "UNSUBSCRIBE ch"),
            ("PSUBSCRIBE p*".to_owned(), "PUNSUBSCRIBE p*"),
            // At one shard: that of the key, or another.
            (format!("SSUBSCRIBE {key}"), "SUNSUBSCRIBE"),
            (format!("SSUBSCRIBE {first}"), "SUNSUBSCRIBE"),
        ];
        let (mut other, mut beside) = (node.client(), node.direct());
        for (start, end) in &starts {
            if name.starts_with("redis-6") && start.starts_with('S') && !start.starts_with("SU") {
                continue;
            }
            for line in ["EXEC", "EXEC x", "DISCARD"] {
                let talk = |client: &mut Client, other: &mut Client, key: &str| {
                    let mut got = vec![client.text(&format!("WATCH {key}")), client.text(start)];
                    got.push(client.text(line));
                    got.push(client.text(end));
                    other.text(&format!("SET {key} v"));
                    got.push(client.text("MULTI"));
                    got.push(client.text("PING"));
                    got.push(client.text("EXEC"));
                    got
                };
                let wanted = talk(&mut node.direct(), &mut beside, "own");
                let got = talk(&mut node.client(), &mut other, &key);
                assert_eq!(
                    got,
                    wanted,
                    "{name}, {}: {start}, {line}",
                    node.more.len() + 1
                );
            }
        }
    }
}

/// Whether it lets go is decided when it runs: the subscription may have ended by then.
#[test]
fn exec_behind_the_end_of_a_subscription_keeps_watching() {
    for (name, node, key) in nodes() {
        for line in ["EXEC", "DISCARD"] {
            let mut client = node.client();
            assert_eq!(client.text(&format!("WATCH {key}")), "+OK\r\n");
            client.ask("SUBSCRIBE ch");
            client.send(&[words("UNSUBSCRIBE ch"), words(line)].concat());
            client.raw();
            let said = client.text("PING");
            assert!(said.ends_with("without MULTI\r\n"), "{name}: {said}");
            node.client().text(&format!("SET {key} v"));
            // Nobody else gets the connection that watches.
            let mut stranger = node.client();
            stranger.text("MULTI");
            stranger.text("PING");
            assert_eq!(stranger.text("EXEC"), "*1\r\n+PONG\r\n", "{name}");
            assert_eq!(client.raw(), b"+PONG\r\n");
            client.text("MULTI");
            assert_eq!(
                client.text("EXEC"),
                "_\r\n",
                "{name}, {}",
                node.more.len() + 1
            );
        }
    }
}

/// What is not watched any more cannot be lost.
#[test]
fn what_is_let_go_is_not_lost() {
    for shards in [1, 4] {
        let (node, relays) = relayed(shards);
        let mut client = node.client();
        let key = key_at(&node, usize::from(shards) - 1, "k");
        assert_eq!(client.text(&format!("WATCH {key}")), "+OK\r\n");
        assert!(client.text("EXEC x").starts_with("-EXECABORT"));
        relays.last().unwrap().cut();
        assert_eq!(client.text("MULTI"), "+OK\r\n");
        until("the shard is there again", || {
            node.client().text(&format!("GET {key}")) == "_\r\n"
        });
        client.text(&format!("GET {key}"));
        assert_eq!(client.text("EXEC"), "*1\r\n_\r\n", "{shards}");
    }
}

/// What the engine says behind the reply to an `EXEC` comes behind it, also where the proxy answers a part of
/// that: who keeps what it has read must hear afterwards that it has changed.
#[test]
fn invalidations_come_behind_exec() {
    for shards in [1, 4] {
        let (mut node, relays) = relayed(shards);
        let shard = usize::from(shards) - 1;
        let key = key_at(&node, shard, "k");
        let mut client = node.client();
        client.ask("HELLO 3");
        assert_eq!(client.text("CLIENT TRACKING ON"), "+OK\r\n");
        let mut at_engine = Client::connect(node.shard(shard).direct);
        for round in 0..20 {
            for line in [
                "MULTI",
                &format!("GET {key}"),
                &format!("HSET {{{key}}}.ran round {round}"),
                "CLIENT GETNAME",
            ] {
                assert!(client.text(line).starts_with('+'));
            }
            relays[shard].hold();
            client.send(&words("EXEC"));
            until("it has run", || {
                let ran = at_engine.text(&format!("HGET {{{key}}}.ran round"));
                ran.ends_with(&format!("\n{round}\r\n"))
            });
            at_engine.text(&format!("SET {key} {round}"));
            relays[shard].pass();
            let reply = client.text(&format!("SETRANGE {{{key}}}.note {round} x"));
            assert!(reply.starts_with("*3\r\n"), "{shards}: {reply}");
            let told = client.raw();
            assert!(told.starts_with(b">2\r\n$10\r\ninvalidate"), "{shards}");
            let next = format!(":{}\r\n", round + 1);
            assert_eq!(client.raw(), next.as_bytes());
        }
    }
}

/// Over one shard, what is watched is gone with a change of the protocol: `EXEC` answers null, as if the key had
/// changed. But a queue with an error is refused, whatever has become of the keys.
#[test]
fn an_error_is_told_before_a_change() {
    let lines = [
        "PING",
        "nosuch",
        "GET",
        "WATCH",
        "WATCH a",
        "MULTI",
        "MULTI x",
        "DISCARD x",
        "CLIENT NOSUCH",
        "CLIENT GETNAME",
        "CLIENT REPLY x",
    ];
    for name in ["redis-6.2.", "redis-7.0.", "valkey-8.0.", VALKEY] {
        let node = Node::with(name, |_| {});
        let mut other = node.client();
        for (number, line) in lines.iter().enumerate() {
            let mut got = [node.client(), node.direct()].map(|mut client| {
                client.ask(&format!("HELLO {}", 2 + number % 2));
                client.text("WATCH watched");
                client.ask(&format!("HELLO {}", 3 - number % 2));
                other.text("INCR watched");
                ["MULTI", "CLIENT GETNAME", line, "PING", "EXEC", "PING"]
                    .map(|line| client.text(line))
            });
            let [through, direct] = &mut got;
            assert_eq!(through, direct, "{name}: {line}");
        }
        let mut client = node.client();
        for lines in [&["SAVE"][..], &["nosuch", "CLIENT GETNAME"]] {
            client.ask("HELLO 3");
            client.text("WATCH watched");
            client.ask("HELLO 2");
            client.text("MULTI");
            for line in lines {
                client.text(line);
            }
            assert!(client.text("EXEC").starts_with("-EXECABORT"), "{name}");
            client.text("MULTI");
            assert_eq!(client.text("PING"), "+QUEUED\r\n");
            assert_eq!(client.text("EXEC"), "*1\r\n+PONG\r\n", "{name}");
        }
    }
}
