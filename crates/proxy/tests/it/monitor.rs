//! What a client sees by `MONITOR`: what clients sent, and nothing of the platform's own work.

use crate::fault::{key_at, relayed};
use crate::support::client::Client;
use crate::support::node::{Node, VALKEY};
use crate::support::until;

/// The names in lines that have come, up to those of the command that every shard is asked at the end.
fn seen(monitor: &mut Client, shards: usize) -> Vec<String> {
    let (mut names, mut ends) = (Vec::new(), 0);
    while ends < shards {
        let line = String::from_utf8(monitor.raw()).unwrap();
        assert!(line.starts_with('+'), "{line}");
        let (_, command) = line.split_once("] \"").unwrap();
        match command.split('"').next().unwrap() {
            "DBSIZE" => ends += 1,
            name => names.push(name.to_owned()),
        }
    }
    // Of several shards, lines come as they come.
    names.sort();
    names
}

/// Does what makes the proxy say something of its own to the shards; returns what clients said.
fn work(node: &Node, key: &str, shards: usize) -> Vec<String> {
    let mut client = node.client();
    // A connection of the client's own is greeted.
    assert_eq!(client.text(&format!("WATCH {key}")), "+OK\r\n");
    assert_eq!(client.text("UNWATCH"), "+OK\r\n");
    // The engine queues something in place of what the proxy answers.
    client.text("MULTI");
    client.text(&format!("SET {key} v"));
    client.text("CLIENT GETNAME");
    assert_eq!(client.text("EXEC"), "*2\r\n+OK\r\n_\r\n");
    // Over several shards one of them is asked, before the transaction is at any.
    for line in ["MULTI", "nosuch", "DISCARD"] {
        client.text(line);
    }
    // That writes something ahead of it.
    assert_eq!(client.text("WAIT 0 10"), ":0\r\n");
    // The engine is told to let the one go, and to end the other.
    let (mut freed, mut gone) = (node.client(), node.client());
    let block = crate::support::client::words(&format!("BLPOP {{{key}}}none 0"));
    freed.send(&block);
    gone.send(&block);
    let mut engine = Client::connect(node.more.last().unwrap_or(&node.engine).direct);
    let mut blocked = |wanted: usize| {
        until("clients block", || {
            engine.text("CLIENT LIST").matches("flags=b").count() == wanted
        });
    };
    blocked(2);
    drop(gone);
    blocked(1);
    let list = client.text("CLIENT LIST");
    let line = list.lines().find(|line| line.contains("flags=b"));
    let (id, _) = line.unwrap().split_once(' ').unwrap();
    let id = id.rsplit('=').next().unwrap();
    assert_eq!(client.text(&format!("CLIENT UNBLOCK {id}")), ":1\r\n");
    freed.raw();
    // What agents and keepers say.
    let mut agent = node.direct();
    agent.ask("AUTH default any");
    agent.ask(&format!("{} server", model::own_words::INFO));
    agent.ask(model::own_words::PING);
    client.text("DBSIZE");
    let mut said = vec!["WATCH", "UNWATCH", "MULTI", "SET", "EXEC", "BLPOP", "BLPOP"];
    said.extend(["MULTI", "DISCARD"]);
    said.resize(said.len() + shards, "WAIT");
    said.sort_unstable();
    said.into_iter().map(str::to_owned).collect()
}

fn shows_only_clients(node: &Node, name: &str, shards: usize) {
    for resp in [2, 3] {
        let mut monitor = node.client();
        monitor.ask(&format!("HELLO {resp}"));
        assert_eq!(monitor.text("MONITOR"), "+OK\r\n");
        let said = work(node, &key_at(node, shards - 1, "k"), shards);
        assert_eq!(seen(&mut monitor, shards), said, "{name}, {shards}");
    }
}

#[test]
fn only_what_clients_said() {
    for name in ["redis-6.2.", "redis-7.0.", "valkey-8.0.", VALKEY] {
        shows_only_clients(&Node::with(name, |_| {}), name, 1);
        shows_only_clients(&Node::sharded(name, 2), name, 2);
    }
}

/// A line may come in any pieces.
#[test]
fn lines_in_pieces() {
    for shards in [1, 2] {
        let (node, relays) = relayed(shards);
        for piece in [3, 40] {
            for relay in &relays {
                relay.dribble(piece);
            }
            shows_only_clients(&node, "in pieces", usize::from(shards));
        }
    }
}

/// Scripts are clients', and so is a command whose arguments look like the platform's.
#[test]
fn nothing_of_clients_is_left_out() {
    let node = Node::start();
    let (mut monitor, mut client) = (node.client(), node.client());
    assert_eq!(monitor.text("MONITOR"), "+OK\r\n");
    client.text("EVAL \"return redis.call('pING')\" 0");
    client.text("ECHO '] \"pING\" \"HELLO\"'");
    client.text(&format!("ECHO {}", "long".repeat(50_000)));
    client.text("ping");
    client.text("DBSIZE");
    assert_eq!(
        seen(&mut monitor, 1),
        ["ECHO", "ECHO", "EVAL", "pING", "ping"]
    );
}
