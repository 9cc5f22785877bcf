//! Leases: clients of a replicated database are answered only while this proxy holds one.

use crate::support::client::{Client, shown, words};
use crate::support::exec::Policy;
use crate::support::node::{Node, VALKEY};
use crate::support::{process, until};
use model::lease::LeaseLength;
use rustix::process::Signal;
use std::io::Read;
use std::time::{Duration, Instant};

pub const UNKNOWN: &str =
    "-ERR connection to the shard was lost, the outcome of this command is unknown\r\n";
/// What a command hears that has waited for a lease long enough.
pub const NO_LEASE: &str = "-TRYAGAIN no lease: this node's cnm_exec does not answer; \
    the command did not run; try again\r\n";
/// What a command hears where no lease will come.
pub const NO_QUORUM: &str = "-TRYAGAIN no lease: there is no quorum, most voters of the configuration do not answer; \
    the command did not run; try again\r\n";
/// What the log says when clients wait for a lease.
pub const WAITS: &str = "clients of replicated databases wait";

/// A database that needs a lease, and gets one.
pub fn leased() -> Node {
    Node::with(VALKEY, |config| {
        config.databases[0].lease = Some(Vec::new());
    })
}

/// From now on no renewal is answered. Returns when the lease has run out.
pub fn run_out(node: &Node) {
    node.exec.leases(Policy::Silent);
    let before = node.log().matches(WAITS).count();
    until("the lease runs out", || {
        node.log().matches(WAITS).count() > before
    });
}

/// Waits until commands are answered again.
pub fn served_again(node: &Node) {
    until("the database is served", || {
        node.client().text("EXISTS nothing") == ":0\r\n"
    });
}

/// Nothing comes to a client for a while.
#[track_caller]
pub fn hears_nothing(client: &mut Client) {
    assert_eq!(client.waiting(), 0);
    let patience = client.stream.read_timeout().unwrap();
    let short = Some(Duration::from_millis(300));
    client.stream.set_read_timeout(short).unwrap();
    let mut byte = [0; 64];
    let heard = client.stream.read(&mut byte);
    client.stream.set_read_timeout(patience).unwrap();
    if let Ok(count) = heard {
        panic!("it hears {:?}", String::from_utf8_lossy(&byte[..count]));
    }
}

/// A client whose command is with the engine, which does not run.
pub fn in_flight(node: &Node, line: &str) -> Client {
    let mut client = node.client();
    assert!(client.pings());
    node.engine.freeze(true);
    client.send(&words(line));
    until("the command is in flight", || {
        node.exec
            .last()
            .is_some_and(|seen| seen.databases[0].in_flight == 1)
    });
    client
}

/// The engine goes on, and has run a counter's only command.
pub fn engine_answers(node: &Node) {
    node.engine.freeze(false);
    let mut direct = node.direct();
    until("the engine has run it", || {
        direct.text("GET n") == "$1\r\n1\r\n"
    });
}

#[test]
fn a_lease_is_asked_for_again_and_again() {
    let mut node = leased();
    let mut client = node.client();
    assert_eq!(client.text("INCR n"), ":1\r\n");
    // Longer than one lasts.
    let before = node.exec.renewals();
    until("it is asked for", || node.exec.renewals() > before + 8);
    assert_eq!(client.text("INCR n"), ":2\r\n");
    assert!(!node.log().contains(WAITS));
    // What it says of configurations is true, at once.
    for _ in 0..3 {
        node.reconfigure(|_| {});
        until("it names the configuration", || {
            node.exec.renewed() == node.config.revision.0
        });
    }
}

#[test]
fn a_database_with_one_copy_needs_none() {
    let node = Node::with(VALKEY, |_| {});
    node.exec.leases(Policy::Silent);
    let mut client = node.client();
    let before = node.exec.count();
    until("some time has passed", || node.exec.count() > before + 2);
    assert_eq!(client.text("INCR n"), ":1\r\n");
    assert_eq!(node.exec.renewals(), 0);
}

#[test]
fn without_a_lease_nothing_is_sent() {
    let node = leased();
    let (mut early, mut late) = (node.client(), node.client());
    assert_eq!(early.text("INCR n"), ":1\r\n");
    run_out(&node);
    early.send(&words("INCR n"));
    late.send(&words("INCR n").repeat(3));
    hears_nothing(&mut early);
    assert_eq!(node.direct().text("GET n"), "$1\r\n1\r\n");
    node.exec.leases(Policy::Granted);
    let mut got: Vec<String> = vec![shown(&early.reply())];
    got.extend((0..3).map(|_| shown(&late.reply())));
    got.sort();
    assert_eq!(got, [":2\r\n", ":3\r\n", ":4\r\n", ":5\r\n"]);
    until("that is told", || {
        node.log().contains("the lease is there again")
    });
}

#[test]
fn a_reply_waits_for_the_next_lease() {
    let node = leased();
    let mut client = in_flight(&node, "INCR n");
    run_out(&node);
    engine_answers(&node);
    hears_nothing(&mut client);
    node.exec.leases(Policy::Granted);
    assert_eq!(shown(&client.reply()), ":1\r\n");
    assert_eq!(client.text("INCR n"), ":2\r\n");
    assert!(!node.log().contains("a connection to a shard is closed"));
}

#[test]
fn after_a_while_there_is_an_error() {
    let node = leased();
    let mut waits = in_flight(&node, "INCR n");
    run_out(&node);
    engine_answers(&node);
    let mut late = node.client();
    late.send(&words("INCR n"));
    assert_eq!(shown(&waits.reply()), UNKNOWN);
    assert_eq!(shown(&late.reply()), NO_LEASE);
    assert_eq!(late.text("BLPOP q 0"), NO_LEASE);
    until("it is told", || {
        node.exec.last().is_some_and(|seen| {
            let error = seen.databases[0].error.as_deref();
            error == Some("no lease: this node's cnm_exec does not answer")
        })
    });
    assert_eq!(node.direct().text("GET n"), "$1\r\n1\r\n");
    node.exec.leases(Policy::Granted);
    served_again(&node);
    assert_eq!(waits.text("INCR n"), ":2\r\n");
    assert_eq!(late.text("INCR n"), ":3\r\n");
}

/// Where nobody will come who gives a lease, nobody waits for one: those that wait hear so, those that are in flight that
/// their outcome is unknown, those that come then at once.
#[test]
fn without_a_quorum_nobody_waits() {
    let node = leased();
    let mut flies = in_flight(&node, "INCR n");
    let before = (node.exec.renewals(), node.log().matches(WAITS).count());
    node.exec.leases(Policy::NoQuorum);
    until("the lease runs out", || {
        node.log().matches(WAITS).count() > before.1
    });
    let mut waits = node.client();
    waits.send(&words("INCR n"));
    engine_answers(&node);
    assert_eq!(shown(&flies.reply()), UNKNOWN);
    assert_eq!(shown(&waits.reply()), NO_QUORUM);
    // Commands wait for as long as 16 renewals take where somebody may come.
    let asked = node.exec.renewals() - before.0;
    assert!(asked < 14, "{asked} renewals");
    assert_eq!(waits.text("INCR n"), NO_QUORUM);
    assert_eq!(flies.text("BLPOP q 0"), NO_QUORUM);
    node.exec.leases(Policy::Granted);
    served_again(&node);
    assert_eq!(waits.text("INCR n"), ":2\r\n");
}

#[test]
fn a_process_that_starts_has_none() {
    let mut node = leased();
    assert_eq!(node.client().text("INCR n"), ":1\r\n");
    node.exec.leases(Policy::Silent);
    node.restart_proxy();
    let mut client = node.client();
    client.send(&words("INCR n"));
    hears_nothing(&mut client);
    assert_eq!(node.direct().text("GET n"), "$1\r\n1\r\n");
    node.exec.leases(Policy::Granted);
    assert_eq!(shown(&client.reply()), ":2\r\n");
}

/// The process did not run while its lease ran out, and the reply was there when it ran again.
#[test]
fn a_process_that_slept_passes_nothing_on() {
    for granted in [false, true] {
        let node = leased();
        let mut client = in_flight(&node, "INCR n");
        let server = node.server();
        process::stop(server);
        let since = Instant::now();
        node.exec.leases(Policy::Silent);
        engine_answers(&node);
        until("a lease's length has passed", || {
            since.elapsed() > Duration::from_nanos(LeaseLength::PRODUCT.grantor)
        });
        process::signal(server, Signal::CONT);
        hears_nothing(&mut client);
        if granted {
            node.exec.leases(Policy::Granted);
            assert_eq!(shown(&client.reply()), ":1\r\n");
        } else {
            assert_eq!(shown(&client.reply()), UNKNOWN);
        }
    }
}

#[test]
fn several_shards_wait_each() {
    let mut node = Node::sharded(VALKEY, 2);
    node.reconfigure(|config| config.databases[0].lease = Some(Vec::new()));
    node.wait_served();
    let mut client = node.client();
    assert_eq!(client.text("MSET a 1 b 2 c 3"), "+OK\r\n");
    run_out(&node);
    client.send(&words("MGET a b c"));
    hears_nothing(&mut client);
    node.exec.leases(Policy::Granted);
    let all = "*3\r\n$1\r\n1\r\n$1\r\n2\r\n$1\r\n3\r\n";
    assert_eq!(shown(&client.reply()), all);
}
