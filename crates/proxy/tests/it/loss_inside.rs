//! Transactions, watched keys, blocking commands and subscriptions whose shard dies, over one shard and
//! over several: each command that it concerns gets one error, and the client's connection stays.

use crate::fault::key_at;
use crate::support::client::{Client, shown, words};
use crate::support::node::{Node, VALKEY};
use crate::support::until;

const UNKNOWN: &str =
    "-ERR connection to the shard was lost, the outcome of this command is unknown\r\n";
const LOST: &str = "-ERR connection to the shard was lost inside this transaction, it will be discarded at EXEC\r\n";
const EXECABORT: &str = "-EXECABORT Transaction discarded because of previous errors.\r\n";

/// A node, and a key of its last shard.
fn nodes() -> Vec<(Node, usize, String)> {
    [
        ("redis-6.2.", 1),
        (VALKEY, 1),
        ("redis-7.0.", 4),
        (VALKEY, 4),
    ]
    .into_iter()
    .map(|(name, shards)| {
        let node = if shards == 1 {
            Node::with(name, |_| {})
        } else {
            Node::sharded(name, shards)
        };
        let shard = usize::from(shards) - 1;
        let key = key_at(&node, shard, "k");
        (node, shard, key)
    })
    .collect()
}

fn all(lines: &[&str]) -> Vec<u8> {
    lines.iter().flat_map(|line| words(line)).collect()
}

/// Commands that the proxy has read and that have no reply.
pub fn in_flight(node: &Node, count: u64) {
    // The next that comes may have been written before they were sent.
    let told = node.exec.count() + 1;
    until("they are in flight", || {
        let seen = node.exec.last();
        node.exec.count() > told && seen.is_some_and(|seen| seen.databases[0].in_flight >= count)
    });
}

/// Lets a client have had a connection of its own to the shard, which is kept for a while.
pub fn warm(client: &mut Client, key: &str) {
    for line in [&format!("WATCH {key}"), "UNWATCH", &format!("GET {key}")] {
        client.ask(line);
    }
}

/// Sends while the shard does not answer, and kills it; returns what the client gets.
fn killed(
    node: &mut Node,
    shard: usize,
    client: &mut Client,
    lines: &[&str],
    flying: u64,
) -> Vec<String> {
    node.shard(shard).freeze(true);
    client.send(&all(lines));
    in_flight(node, flying);
    node.shard(shard).kill();
    let got = lines.iter().map(|_| shown(&client.reply())).collect();
    node.shard(shard).restart();
    got
}

/// The client has nothing more of the past, and works.
fn is_well(client: &mut Client, key: &str) {
    assert_eq!(client.text("ECHO well"), "$4\r\nwell\r\n");
    assert_eq!(client.text(&format!("SET {key} v")), "+OK\r\n");
    assert_eq!(client.text("MULTI"), "+OK\r\n");
    assert_eq!(client.text(&format!("GET {key}")), "+QUEUED\r\n");
    assert_eq!(client.text("EXEC"), "*1\r\n$1\r\nv\r\n");
    assert_eq!(client.waiting(), 0);
}

#[test]
fn a_whole_transaction_in_flight() {
    for (mut node, shard, key) in nodes() {
        let mut client = node.client();
        let (set, get) = (format!("SET {key} x"), format!("GET {key}"));
        warm(&mut client, &key);
        let lines = ["MULTI", &set, &get, "EXEC", &get];
        let flying = if shard == 0 { 5 } else { 4 };
        let got = killed(&mut node, shard, &mut client, &lines, flying);
        let queued = if shard == 0 { UNKNOWN } else { got[1].as_str() };
        // The transaction may have run.
        assert_eq!(got[0], "+OK\r\n");
        assert_eq!(got[1..4], [queued, UNKNOWN, UNKNOWN]);
        assert!(got[4] == UNKNOWN || got[4] == "_\r\n", "{got:?}");
        is_well(&mut client, &key);
    }
}

#[test]
fn a_transaction_that_is_not_whole() {
    for (mut node, shard, key) in nodes() {
        let mut client = node.client();
        let (set, get) = (format!("SET {key} x"), format!("GET {key}"));
        warm(&mut client, &key);
        let flying = if shard == 0 { 2 } else { 1 };
        let got = killed(&mut node, shard, &mut client, &["MULTI", &set], flying);
        assert_eq!(got, ["+OK\r\n", LOST]);
        assert_eq!(client.text(&get), LOST);
        assert_eq!(client.text("EXEC"), EXECABORT);
        assert_eq!(client.text(&format!("EXISTS {key}")), ":0\r\n");
        is_well(&mut client, &key);
        // The same, when its replies had come; and with what the proxy answers in it.
        for end in ["EXEC", "DISCARD"] {
            assert_eq!(client.text("MULTI"), "+OK\r\n");
            assert_eq!(client.text(&set), "+QUEUED\r\n");
            assert_eq!(client.text("CLIENT SETNAME wrong"), "+QUEUED\r\n");
            node.shard(shard).kill();
            node.shard(shard).restart();
            until("the loss is seen", || client.text(&get) == LOST);
            assert_eq!(client.text("CLIENT SETNAME wrong"), LOST);
            let wanted = if end == "EXEC" { EXECABORT } else { "+OK\r\n" };
            assert_eq!(client.text(end), wanted);
            assert_eq!(client.text("CLIENT GETNAME"), "_\r\n");
            assert_eq!(client.text(&format!("EXISTS {key}")), ":0\r\n");
            is_well(&mut client, &key);
        }
    }
}

#[test]
fn an_exec_in_flight() {
    for (mut node, shard, key) in nodes() {
        let mut client = node.client();
        let set = format!("SET {key} x");
        for answered in [false, true] {
            assert_eq!(client.text("MULTI"), "+OK\r\n");
            assert_eq!(client.text(&set), "+QUEUED\r\n");
            if answered {
                assert_eq!(client.text("CLIENT SETNAME wrong"), "+QUEUED\r\n");
            }
            let got = killed(&mut node, shard, &mut client, &["EXEC"], 1);
            assert_eq!(got, [UNKNOWN]);
            assert_eq!(client.text("CLIENT GETNAME"), "_\r\n");
            is_well(&mut client, &key);
        }
    }
}

#[test]
fn a_watch_that_is_lost() {
    for (mut node, shard, key) in nodes() {
        let mut client = node.client();
        let set = format!("SET {key} x");
        for inside in ["", "CLIENT SETNAME wrong"] {
            assert_eq!(client.text(&format!("WATCH {key}")), "+OK\r\n");
            node.shard(shard).kill();
            node.shard(shard).restart();
            assert_eq!(client.text("MULTI"), "+OK\r\n");
            assert_eq!(client.text(&set), "+QUEUED\r\n");
            if !inside.is_empty() {
                assert_eq!(client.text(inside), "+QUEUED\r\n");
            }
            assert_eq!(client.text("EXEC"), "_\r\n", "it may have changed");
            assert_eq!(client.text("CLIENT GETNAME"), "_\r\n");
            assert_eq!(client.text(&format!("EXISTS {key}")), ":0\r\n");
            is_well(&mut client, &key);
        }
        // In flight.
        warm(&mut client, &key);
        let watch = format!("WATCH {key}");
        assert_eq!(
            killed(&mut node, shard, &mut client, &[&watch], 1),
            [UNKNOWN]
        );
        assert_eq!(client.text("MULTI"), "+OK\r\n");
        assert_eq!(client.text(&set), "+QUEUED\r\n");
        assert_eq!(client.text("EXEC"), "_\r\n");
        is_well(&mut client, &key);
    }
}

#[test]
fn a_command_that_blocks() {
    for (mut node, shard, key) in nodes() {
        let mut client = node.client();
        let mut direct = Client::connect(node.shard(shard).direct);
        client.send(&all(&[&format!("BLPOP {key} 0"), "PING"]));
        until("it is blocked", || {
            direct.text("INFO clients").contains("blocked_clients:1")
        });
        node.shard(shard).kill();
        assert_eq!(shown(&client.reply()), UNKNOWN);
        node.shard(shard).restart();
        // With several shards what comes behind it was not sent.
        let behind = shown(&client.reply());
        assert!(behind == UNKNOWN || behind == "+PONG\r\n", "{behind}");
        is_well(&mut client, &key);
    }
}

/// Whoever listens must learn that it may have missed something: it is closed, and nothing is half.
#[test]
fn who_listens_is_closed() {
    for (mut node, shard, _) in nodes() {
        let six = node.config.databases[0].shards.len() == 1;
        for (resp, line) in [
            (2, "SUBSCRIBE a"),
            (3, "PSUBSCRIBE a*"),
            (3, "CLIENT TRACKING ON"),
            (2, "MONITOR"),
        ] {
            let mut client = node.client();
            client.ask(&format!("HELLO {resp}"));
            client.ask(line);
            node.shard(shard).kill();
            while let Some(raw) = client.try_raw() {
                assert_eq!(line, "MONITOR", "{}", String::from_utf8_lossy(&raw));
            }
            assert!(client.kept.is_empty() || line == "MONITOR", "{line}");
            node.shard(shard).restart();
            until("it is reached", || {
                node.client().text("DBSIZE").starts_with(':')
            });
        }
        // One that listened and does no more stays.
        let mut client = node.client();
        client.text("SUBSCRIBE a");
        client.text("UNSUBSCRIBE a");
        assert!(client.pings() && six == (shard == 0));
        node.shard(shard).kill();
        node.shard(shard).restart();
        until("it goes on", || client.text("DBSIZE").starts_with(':'));
    }
}

/// A shard that does not let the proxy in, at its start or later, is told of once.
#[test]
fn a_refusal_is_told_once() {
    for shards in [1_u16, 4] {
        let mut node = if shards == 1 {
            Node::prepare(VALKEY, |config| {
                config.databases[0].shards[0].password = model::Secret::new("wrong");
                config.settings = model::proxy::ProxySettings::fixed(2);
            })
        } else {
            Node::sharded(VALKEY, shards)
        };
        let shard = usize::from(shards) - 1;
        let told = |node: &Node, what: &str| {
            let log = node.log();
            let lines = log.lines().filter(|line| {
                line.contains(" WARN ")
                    && line.contains("a connection to a shard")
                    && line.contains(what)
            });
            lines.count()
        };
        if shards == 1 {
            node.exec.publish(&node.config);
            node.launch();
            refused(&node);
            until("it is told", || told(&node, "WRONGPASS") > 0);
            assert_eq!(told(&node, "WRONGPASS"), 1, "{}", node.log());
            node.reconfigure(|config| {
                let password = crate::support::engine::PASSWORD;
                config.databases[0].shards[0].password = model::Secret::new(password);
            });
        }
        node.wait_served();
        let before = told(&node, "WRONGPASS");
        // The user is taken away while it is in use.
        let mut direct = Client::connect(node.shard(shard).direct);
        assert_eq!(direct.text("ACL DELUSER proxy@e1"), ":1\r\n");
        refused(&node);
        until("it is told", || told(&node, "closed the connection") > 0);
        let count = node.exec.count();
        until("it is tried again", || node.exec.count() > count + 3);
        assert!(told(&node, "WRONGPASS") <= before + 1, "{}", node.log());
        let rights = model::documents::PROXY_RIGHTS.join(" ");
        let password = crate::support::engine::PASSWORD;
        direct.text(&format!("ACL SETUSER proxy@e1 on >{password} {rights}"));
        node.wait_served();
        until("it is told", || {
            node.log().contains("a shard is reached again")
        });
        assert!(node.client().text("DBSIZE").starts_with(':'));
    }
}

fn refused(node: &Node) {
    until("it is told", || {
        node.exec.last().is_some_and(|observed| {
            let database = &observed.databases[0];
            let error = database.error.as_deref().unwrap_or_default();
            !database.shards_connected && error.contains("WRONGPASS")
        })
    });
}
