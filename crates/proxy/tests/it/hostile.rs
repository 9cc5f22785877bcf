//! Clients and moments that try to make the proxy do wrong.

use crate::support::client::{Client, words};
use crate::support::engine::Engine;
use crate::support::node::{Node, VALKEY};
use crate::support::until;
use std::net::Shutdown;

/// Waits until the engine has as many blocked clients.
fn blocked(direct: &mut Client, count: usize) {
    let wanted = format!("blocked_clients:{count}\r\n");
    until("the clients are blocked", || {
        direct.text("INFO clients").contains(&wanted)
    });
}

/// `EXEC` and `DISCARD` that are errors: what they leave must be known, or a connection with watched
/// keys of one client goes to another, whose transactions then fail, and the first one's watch is
/// silently lost.
#[test]
fn transactions_that_end_with_an_error() {
    let node = Node::start();
    let mut direct = node.direct();
    for wrong in ["EXEC", "DISCARD"] {
        let (mut client, mut other) = (node.client(), node.client());
        assert_eq!(client.text("WATCH k"), "+OK\r\n");
        assert_eq!(
            client.text(wrong),
            format!("-ERR {wrong} without MULTI\r\n")
        );
        assert_eq!(client.text("EXISTS nothing"), ":0\r\n");
        // This one would get the first one's connection if that were given up.
        assert_eq!(other.text("MULTI"), "+OK\r\n");
        assert_eq!(direct.text("SET k other"), "+OK\r\n");
        assert_eq!(other.text("EXEC"), "*0\r\n");
        assert_eq!(client.text("MULTI"), "+OK\r\n");
        assert_eq!(client.text("SET k lost"), "+QUEUED\r\n");
        assert_eq!(client.text("EXEC"), "_\r\n", "the watched key was changed");
    }
    // With an argument `EXEC` ends the transaction all the same.
    let mut client = node.client();
    assert_eq!(client.text("MULTI"), "+OK\r\n");
    assert!(client.text("EXEC x").starts_with("-EXECABORT"));
    assert_eq!(client.text("EXISTS nothing"), ":0\r\n");
    assert_eq!(client.text("WATCH k"), "+OK\r\n");
    assert_eq!(client.text("SET k again"), "+OK\r\n");
    assert_eq!(client.text("DISCARD"), "-ERR DISCARD without MULTI\r\n");
    drop(client);
    until("nothing is left of it", || {
        let list = direct.text("CLIENT LIST");
        !list
            .lines()
            .any(|line| line.contains(" user=proxy@e1") && line.contains(" flags=d"))
    });
    let mut other = node.client();
    assert_eq!(other.text("MULTI"), "+OK\r\n");
    assert_eq!(other.text("EXEC"), "*0\r\n");
}

/// A group called like an option does not hide that a command blocks.
#[test]
fn what_blocks_never_goes_over_the_shared_connection() {
    let node = Node::start();
    let (mut blocking, mut other, mut direct) = (node.client(), node.client(), node.direct());
    assert_eq!(direct.text("XGROUP CREATE s STREAMS $ MKSTREAM"), "+OK\r\n");
    assert_eq!(direct.text("XGROUP CREATE s g $"), "+OK\r\n");
    blocking.send(&words(
        "XREADGROUP GROUP STREAMS STREAMS BLOCK 0 STREAMS s >",
    ));
    blocked(&mut direct, 1);
    assert_eq!(other.text("SET k v"), "+OK\r\n");
    assert_eq!(other.text("XADD s 1-1 f v"), "$3\r\n1-1\r\n");
    assert!(blocking.raw().starts_with(b"*1\r\n"));
}

/// A client that has left takes nothing out of a list, even if it said so together with its command.
#[test]
fn a_client_that_left_takes_nothing() {
    let node = Node::start();
    let (mut other, mut direct) = (node.client(), node.direct());
    for before in [&b""[..], b"PING\r\n", b"SET k v\r\nWATCH k\r\nGET k\r\n"] {
        let mut client = node.client();
        client.send(&[before, b"BLPOP queue 0\r\nCLIENT ID\r\n"].concat());
        client.stream.shutdown(Shutdown::Write).unwrap();
        while client.try_raw().is_some() {}
        blocked(&mut direct, 0);
        assert_eq!(other.text("RPUSH queue item"), ":1\r\n");
        assert_eq!(other.text("LPOP queue"), "$4\r\nitem\r\n");
    }
}

/// `RESET` and `QUIT` come through while `MONITOR` streams as fast as it can.
#[test]
fn monitor_ends_under_load() {
    let node = Node::start();
    let mut other = node.client();
    let load = words(&format!("SET k {}", "v".repeat(60_000))).repeat(60);
    for _ in 0..6 {
        let mut watcher = node.client();
        assert_eq!(watcher.text("MONITOR"), "+OK\r\n");
        other.send(&load);
        watcher.raw();
        watcher.send(b"RESET\r\n");
        until("RESET is answered", || watcher.raw() == b"+RESET\r\n");
        for _ in 0..60 {
            assert_eq!(other.raw(), b"+OK\r\n");
        }
        assert_eq!(watcher.text("PING"), "+PONG\r\n");
    }
}

/// `WAIT` counts no copy that has not got the client's writes, whatever connection they went over.
fn wait_tells_the_truth(name: &'static str) {
    let node = Node::with(name, |_| {});
    let folder = tempfile::tempdir().unwrap();
    let mut address = node.engine.direct;
    address.set_port(20_001);
    let copy = Engine::start(name, folder.path(), address);
    let mut replica = Client::connect(copy.direct);
    let from = node.engine.direct;
    node.direct().text("CONFIG SET repl-diskless-sync-delay 0");
    replica.text("CONFIG SET masterauth \"\"");
    assert_eq!(
        replica.text(&format!("REPLICAOF {} {}", from.ip(), from.port())),
        "+OK\r\n"
    );
    until("the copy is in step", || {
        replica
            .text("INFO replication")
            .contains("master_link_status:up")
    });
    let mut client = node.client();
    assert_eq!(client.text("SET k 1"), "+OK\r\n");
    until("the copy has it", || client.text("WAIT 1 1000") == ":1\r\n");
    copy.freeze(true);
    for round in 0..3 {
        assert_eq!(client.text(&format!("SET k {round}")), "+OK\r\n");
        assert_eq!(client.text("WAIT 1 150"), ":0\r\n", "the copy is stopped");
    }
    copy.freeze(false);
    until("the copy has it", || client.text("WAIT 1 1000") == ":1\r\n");
    assert_eq!(client.text("MULTI"), "+OK\r\n");
    assert_eq!(client.text("WAIT 1 0"), "+QUEUED\r\n");
    assert_eq!(client.text("PING"), "+QUEUED\r\n");
    assert!(client.text("EXEC").starts_with("*2\r\n"));
}

#[test]
fn wait_tells_the_truth_valkey_9_1() {
    wait_tells_the_truth(VALKEY);
}

#[test]
fn wait_tells_the_truth_redis_7_0() {
    wait_tells_the_truth("redis-7.0.");
}

#[test]
fn wait_tells_the_truth_redis_6_2() {
    wait_tells_the_truth("redis-6.2.");
}

/// Everybody blocks at the same moment: the engine's queue of connections is shorter than that.
#[test]
fn many_connections_of_their_own_at_once() {
    let node = Node::start();
    crate::support::process::need_descriptors(8_192);
    let mut clients: Vec<Client> = (0..1_200).map(|_| node.client()).collect();
    node.engine.freeze(true);
    for client in &mut clients {
        client.send(b"BLPOP queue 0\r\n");
    }
    // What the proxy says itself comes after it has read them.
    node.client().text("CLIENT ID");
    node.engine.freeze(false);
    let mut direct = node.direct();
    blocked(&mut direct, clients.len());
    let count = clients.len();
    for _ in 0..count {
        direct.text("RPUSH queue item");
    }
    for client in &mut clients {
        assert_eq!(client.raw(), b"*2\r\n$5\r\nqueue\r\n$4\r\nitem\r\n");
    }
}
