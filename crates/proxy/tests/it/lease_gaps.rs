//! Leases: clients that have connections of their own, while there is none.

use crate::lease::{NO_LEASE, UNKNOWN, hears_nothing, leased, run_out, served_again};
use crate::support::client::{Client, shown, words};
use crate::support::exec::Policy;
use crate::support::node::Node;
use crate::support::until;

/// A subscriber, a client whose command blocks, one in a transaction, one that watches all, one that
/// caches.
struct Parties {
    subscriber: Client,
    blocked: Client,
    open: Client,
    monitor: Client,
    caching: Client,
}

fn parties(node: &Node) -> Parties {
    let [
        mut subscriber,
        mut blocked,
        mut open,
        mut monitor,
        mut caching,
    ] = std::array::from_fn(|_| node.client());
    subscriber.text("SUBSCRIBE a");
    blocked.send(&words("BLPOP q 0"));
    assert_eq!(open.text("MULTI"), "+OK\r\n");
    assert_eq!(open.text("INCR n"), "+QUEUED\r\n");
    caching.ask("HELLO 3");
    assert_eq!(caching.text("CLIENT TRACKING ON"), "+OK\r\n");
    assert_eq!(caching.text("GET cached"), "_\r\n");
    let mut direct = node.direct();
    until("it is blocked", || {
        direct.text("INFO clients").contains("blocked_clients:1")
    });
    assert_eq!(monitor.text("MONITOR"), "+OK\r\n");
    Parties {
        subscriber,
        blocked,
        open,
        monitor,
        caching,
    }
}

/// What happens at the engine meanwhile.
fn happens(node: &Node) {
    let mut direct = node.direct();
    assert_eq!(direct.text("PUBLISH a message"), ":1\r\n");
    assert_eq!(direct.text("RPUSH q element"), ":1\r\n");
    assert_eq!(direct.text("SET cached 1"), "+OK\r\n");
}

#[test]
fn nothing_is_lost_in_a_short_gap() {
    let node = leased();
    let mut parties = parties(&node);
    run_out(&node);
    happens(&node);
    parties.open.send(&words("EXEC"));
    for client in [
        &mut parties.subscriber,
        &mut parties.blocked,
        &mut parties.open,
        &mut parties.monitor,
        &mut parties.caching,
    ] {
        hears_nothing(client);
    }
    node.exec.leases(Policy::Granted);
    let message = "*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$7\r\nmessage\r\n";
    assert_eq!(shown(&parties.subscriber.reply()), message);
    let element = "*2\r\n$1\r\nq\r\n$7\r\nelement\r\n";
    assert_eq!(shown(&parties.blocked.reply()), element);
    assert_eq!(shown(&parties.open.reply()), "*1\r\n:1\r\n");
    assert!(shown(&parties.monitor.reply()).contains("PUBLISH"));
    let stale = ">2\r\n$10\r\ninvalidate\r\n*1\r\n$6\r\ncached\r\n";
    assert_eq!(shown(&parties.caching.reply()), stale);
    for client in [&mut parties.blocked, &mut parties.open] {
        assert_eq!(client.text("PING"), "+PONG\r\n");
    }
}

#[test]
fn in_a_long_one_each_hears_of_it() {
    let node = leased();
    let mut parties = parties(&node);
    run_out(&node);
    happens(&node);
    parties.open.send(&words("INCR n"));
    for client in [
        &mut parties.subscriber,
        &mut parties.monitor,
        &mut parties.caching,
    ] {
        assert!(client.try_raw().is_none(), "it is closed");
    }
    assert_eq!(shown(&parties.blocked.reply()), UNKNOWN);
    let lost = shown(&parties.open.reply());
    assert!(
        lost.starts_with("-ERR connection to the shard was lost inside this transaction"),
        "{lost}"
    );
    node.exec.leases(Policy::Granted);
    served_again(&node);
    assert!(parties.open.text("EXEC").starts_with("-EXECABORT"));
    assert_eq!(parties.open.text("EXISTS n"), ":0\r\n");
    assert_eq!(parties.blocked.text("EXISTS q"), ":0\r\n");
}

/// Connections are opened and greeted all the same, but nothing of a client goes over them.
#[test]
fn connections_may_be_opened_in_a_gap() {
    let mut node = leased();
    let mut client = node.client();
    assert_eq!(client.text("SELECT 3"), "+OK\r\n");
    assert_eq!(client.text("SET k v"), "+OK\r\n");
    run_out(&node);
    node.engine.kill();
    node.engine.restart();
    let mut direct = node.direct();
    until("the proxy has signed in", || {
        direct.text("CLIENT LIST").contains("user=proxy@e1")
    });
    assert_eq!(client.text("INCR n"), NO_LEASE);
    assert_eq!(direct.text("INFO keyspace"), "$12\r\n# Keyspace\r\n\r\n");
    node.exec.leases(Policy::Granted);
    served_again(&node);
    assert_eq!(client.text("INCR n"), ":1\r\n");
    assert_eq!(direct.text("DBSIZE"), ":0\r\n", "it is in database 3");
}
