//! A script that does not end: others hear that the engine is busy, as they would without a proxy, and what it does
//! not keep goes on.

use crate::fault::key_at;
use crate::support::client::{Client, words};
use crate::support::node::{Node, VALKEY};
use crate::support::until;

const ENDLESS: &str = "EVAL 'while true do end' 1";
const ASIDE: &str = "a script takes long";

/// With one shard, or several, whose engines are busy after a moment.
fn node(engine: &'static str, shards: u16) -> Node {
    let node = match shards {
        1 => Node::with(engine, |_| {}),
        shards => Node::sharded(engine, shards),
    };
    for engine in std::iter::once(&node.engine).chain(&node.more) {
        let set = Client::connect(engine.direct).text("CONFIG SET lua-time-limit 100");
        assert_eq!(set, "+OK\r\n");
    }
    node
}

/// Sends to an engine that stands still until all of it is on its way.
fn at_once(node: &Node, send: impl FnOnce() -> u64) {
    node.engine.freeze(true);
    let wanted = send();
    until("all of it is in flight", || node.in_flight() == wanted);
    node.engine.freeze(false);
}

fn is_busy(client: &mut Client, line: &str) {
    let text = client.text(line);
    assert!(text.starts_with("-BUSY"), "{line}: {text}");
}

fn others_hear_it(engine: &'static str, shards: u16) {
    let node = node(engine, shards);
    let key = key_at(&node, 0, "k");
    let (mut runs, mut others) = (node.client(), [node.client(), node.client()]);
    // The way of scripts is there from the first one on.
    assert_eq!(runs.text(&format!("EVAL 'return 1' 1 {key}")), ":1\r\n");
    at_once(&node, || {
        // What it sends behind its script waits for that.
        let both = [
            words(&format!("{ENDLESS} {key}")),
            words(&format!("INCR {key}")),
        ];
        runs.send(&both.concat());
        until("the script is on its way", || node.in_flight() >= 2);
        for other in &mut others {
            other.send(&words(&format!("GET {key}")));
        }
        4
    });
    // They came before the script, or while it ran.
    for other in &mut others {
        let text = String::from_utf8(other.raw()).unwrap();
        assert!(text == "$-1\r\n" || text.starts_with("-BUSY"), "{text}");
    }
    let mut fresh = node.client();
    for other in others.iter_mut().chain([&mut fresh]) {
        is_busy(other, &format!("GET {key}"));
        is_busy(other, &format!("SET {key} 1"));
    }
    if shards > 1 {
        let elsewhere = key_at(&node, 1, "k");
        let eval = format!("EVAL 'return redis.call(\"INCR\",KEYS[1])' 1 {elsewhere}");
        assert_eq!(fresh.text(&eval), ":1\r\n");
    }
    until("other scripts go another way", || {
        node.log().contains(ASIDE)
    });
    for line in [
        "EVAL 'return 1' 1",
        "EVALSHA 0000000000000000000000000000000000000000 1",
    ] {
        is_busy(&mut fresh, &format!("{line} {key}"));
        is_busy(&mut others[0], &format!("{line} {key}"));
    }
    assert_eq!(others[0].text("SCRIPT KILL"), "+OK\r\n");
    let killed = runs.text(&format!("EVAL 'return 2' 1 {key}"));
    assert!(
        killed.starts_with("-ERR") && killed.contains("SCRIPT KILL"),
        "{killed}"
    );
    assert_eq!(runs.raw(), b":1\r\n");
    assert_eq!(runs.raw(), b":2\r\n");
    for other in others.iter_mut().chain([&mut fresh]) {
        assert_eq!(other.text(&format!("GET {key}")), "$1\r\n1\r\n");
        assert_eq!(other.text(&format!("EVAL 'return 3' 1 {key}")), ":3\r\n");
    }
    assert_eq!(node.log().matches(ASIDE).count(), 1);
}

#[test]
fn others_hear_that_it_is_busy() {
    for engine in ["redis-6.2.", "redis-7.0.", "valkey-8.0.", VALKEY] {
        others_hear_it(engine, 1);
    }
    others_hear_it(VALKEY, 2);
}

/// The connection for scripts is lost: a script hears that, others are not concerned, and the next one has another.
#[test]
fn the_way_of_scripts_is_lost() {
    let node = node(VALKEY, 1);
    let (mut client, mut other) = (node.client(), node.client());
    assert_eq!(client.text("EVAL 'return 1' 0"), ":1\r\n");
    client.send(&words(&format!("{ENDLESS} k")));
    until("the engine is busy", || {
        other.text("GET k").starts_with("-BUSY")
    });
    let mut direct = node.direct();
    assert_eq!(direct.text("SCRIPT KILL"), "+OK\r\n");
    assert!(client.text("EVAL 'return 2' 0").contains("SCRIPT KILL"));
    assert_eq!(client.raw(), b":2\r\n");
    let list = direct.text("CLIENT LIST");
    let scripts = list.lines().find(|line| line.contains("cmd=eval"));
    let id = scripts.and_then(|line| line.split_once("id=")?.1.split_once(' '));
    let (id, _) = id.unwrap();
    node.engine.freeze(true);
    client.send(&words("EVAL 'return 3' 0"));
    other.send(&words("GET k"));
    until("both are on their way", || node.in_flight() == 2);
    direct.send(&words(&format!("CLIENT KILL ID {id}")));
    node.engine.freeze(false);
    assert_eq!(other.raw(), b"$-1\r\n");
    // The engine may have come to it before.
    let text = String::from_utf8(client.raw()).unwrap();
    assert!(text == ":3\r\n" || text.contains("outcome"), "{text}");
    assert_eq!(direct.raw(), b":1\r\n");
    assert_eq!(client.text("EVAL 'return 4' 0"), ":4\r\n");
    assert_eq!(other.text("EVAL 'return 5' 0"), ":5\r\n");
}

/// Scripts and other commands of one client run in the order in which it sends them, whichever way they go.
#[test]
fn in_the_order_of_one_client() {
    for shards in [1, 2] {
        let node = node(VALKEY, shards);
        let key = key_at(&node, 0, "k");
        let mut client = node.client();
        let eval = format!("EVAL 'return redis.call(\"INCR\",KEYS[1])' 1 {key}");
        let round = [
            words(&format!("INCR {key}")),
            words(&eval),
            words(&eval),
            words(&format!("INCR {key}")),
        ];
        client.send(&round.concat().repeat(500));
        for number in 1..=2_000 {
            assert_eq!(client.raw(), format!(":{number}\r\n").into_bytes());
        }
    }
}
