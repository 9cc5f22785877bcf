//! What a connection can be besides commands and replies.

use crate::support::client::{Client, words};
use crate::support::node::{Node, VALKEY};
use crate::support::until;
use model::Secret;
use std::time::Duration;

fn with_password() -> Node {
    Node::with(VALKEY, |config| {
        config.databases[0].password = Some(Secret::new("pass word"))
    })
}

#[test]
fn password() {
    let node = with_password();
    let mut client = node.client();
    let noauth = "-NOAUTH Authentication required.\r\n";
    for line in [
        "GET k",
        "CLIENT ID",
        "SHUTDOWN",
        "MULTI",
        "NOSUCH",
        "SUBSCRIBE a",
    ] {
        assert_eq!(client.text(line), noauth, "{line}");
    }
    assert!(
        client
            .text("HELLO 3")
            .starts_with("-NOAUTH HELLO must be called")
    );
    let wrong = "-WRONGPASS invalid username-password pair or user is disabled.\r\n";
    assert_eq!(client.text("AUTH wrong"), wrong);
    assert_eq!(client.text("AUTH other 'pass word'"), wrong);
    assert_eq!(client.text("HELLO 3 AUTH default wrong"), wrong);
    assert_eq!(client.text("GET k"), noauth);
    assert_eq!(client.text("AUTH 'pass word'"), "+OK\r\n");
    assert_eq!(client.text("SET k v"), "+OK\r\n");
    assert_eq!(client.text("RESET"), "+RESET\r\n");
    assert_eq!(client.text("GET k"), noauth);
    assert!(
        client
            .text("HELLO 3 AUTH default 'pass word' SETNAME me")
            .starts_with('%')
    );
    assert_eq!(client.text("CLIENT GETNAME"), "$2\r\nme\r\n");
    assert_eq!(client.text("GET missing"), "_\r\n");
    // Nobody may send much before it has signed in.
    let mut client = node.client();
    client.send(b"*11\r\n");
    assert_eq!(
        client.raw(),
        b"-ERR Protocol error: unauthenticated multibulk length\r\n"
    );
    assert!(client.try_raw().is_none());
    let mut client = node.client();
    client.send(b"*1\r\n$16385\r\n");
    assert_eq!(
        client.raw(),
        b"-ERR Protocol error: unauthenticated bulk length\r\n"
    );
    assert!(!node.log().contains("pass word"));
}

#[test]
fn refused_by_name() {
    let node = Node::start();
    let mut client = node.client();
    for line in [
        "REPLICAOF NO ONE",
        "slaveof no one",
        "FAILOVER",
        "SHUTDOWN NOSAVE",
        "CONFIG SET maxmemory 1",
        "CONFIG RESETSTAT",
        "CONFIG REWRITE",
        "ACL SETUSER x",
        "ACL LIST",
        "DEBUG SLEEP 1",
        "MODULE LOAD x",
        "SAVE",
        "BGSAVE",
        "BGREWRITEAOF",
        "SYNC",
        "PSYNC ? -1",
        "REPLCONF listening-port 1",
        "MIGRATE h 1 k 0 1",
        "CLIENT IMPORT-SOURCE ON",
        "SCRIPT DEBUG YES",
    ] {
        let answer = client.text(line);
        assert!(
            answer.starts_with("-ERR ") && answer.contains("is not available"),
            "{line}: {answer}"
        );
    }
    // Secrets of the engine are not shown.
    for resp in ["HELLO 2", "HELLO 3"] {
        client.text(resp);
        let shown = client.text("CONFIG GET *");
        assert!(
            shown.contains("masterauth") && shown.contains("maxmemory"),
            "{shown}"
        );
        assert!(!shown.contains("replication-secret"));
    }
    // Inside a transaction a refusal spoils it, as the engine's own would.
    let mut client = node.client();
    for refused in [
        "SHUTDOWN",
        "CONFIG SET maxmemory 1",
        "CONFIG REWRITE",
        "ACL LIST",
        "MODULE LOAD x",
        "CLIENT IMPORT-SOURCE ON",
        "HELLO 3",
        "SUBSCRIBE a",
        "MONITOR",
    ] {
        assert_eq!(client.text("MULTI"), "+OK\r\n");
        assert_eq!(client.text("SET spoiled 1"), "+QUEUED\r\n");
        let answer = client.text(refused);
        assert!(
            answer.contains("not allowed inside a transaction")
                || answer.contains("is not available"),
            "{refused}: {answer}"
        );
        let exec = "-EXECABORT Transaction discarded because of previous errors.\r\n";
        assert_eq!(client.text("EXEC"), exec);
    }
    assert_eq!(client.text("EXISTS spoiled"), ":0\r\n");
}

#[test]
fn watch_sees_other_clients() {
    let node = Node::start();
    let (mut one, mut two) = (node.client(), node.client());
    assert_eq!(one.text("WATCH k"), "+OK\r\n");
    assert_eq!(two.text("SET k 1"), "+OK\r\n");
    assert_eq!(one.text("MULTI"), "+OK\r\n");
    assert_eq!(one.text("GET k"), "+QUEUED\r\n");
    one.send(&words("EXEC"));
    assert_eq!(one.raw(), b"*-1\r\n");
    // A transaction of one does not see what another does meanwhile.
    for client in [&mut one, &mut two] {
        assert_eq!(client.text("MULTI"), "+OK\r\n");
        assert_eq!(client.text("INCR k"), "+QUEUED\r\n");
    }
    assert_eq!(two.text("EXEC"), "*1\r\n:2\r\n");
    assert_eq!(one.text("EXEC"), "*1\r\n:3\r\n");
}

#[test]
fn a_blocked_client_blocks_nobody_else() {
    let node = Node::start();
    let (mut blocked, mut other) = (node.client(), node.client());
    // What follows it waits for it, in order.
    blocked.send(&[words("BLPOP queue 0"), words("PING after")].concat());
    until("it is blocked", || {
        other.text("INFO clients").contains("blocked_clients:1")
    });
    for number in 0..100 {
        assert_eq!(other.text(&format!("SET k{number} v")), "+OK\r\n");
    }
    assert_eq!(other.text("RPUSH queue first"), ":1\r\n");
    assert_eq!(
        blocked.text("GET k7"),
        "*2\r\n$5\r\nqueue\r\n$5\r\nfirst\r\n"
    );
    assert_eq!(blocked.raw(), b"$5\r\nafter\r\n");
    assert_eq!(blocked.raw(), b"$1\r\nv\r\n");
    // A client that leaves while it is blocked takes nothing.
    blocked.send(&words("BLPOP queue 0"));
    until("it is blocked", || {
        other.text("INFO clients").contains("blocked_clients:1")
    });
    drop(blocked);
    until("it is gone", || {
        other.text("INFO clients").contains("blocked_clients:0")
    });
    assert_eq!(other.text("RPUSH queue second"), ":1\r\n");
    assert_eq!(other.text("LLEN queue"), ":1\r\n");
    // Blocking reads of streams too.
    let mut reader = node.client();
    reader.send(&words("XREAD BLOCK 0 STREAMS stream $"));
    until("it is blocked", || {
        other.text("INFO clients").contains("blocked_clients:1")
    });
    other.text("XADD stream 1-1 f v");
    assert!(crate::support::client::shown(&reader.reply()).contains("stream"));
}

#[test]
fn publish_and_subscribe() {
    let node = Node::start();
    for hello in ["HELLO 2", "HELLO 3"] {
        let (mut subscriber, mut publisher) = (node.client(), node.client());
        let mut direct = node.direct();
        let lines = [
            "SUBSCRIBE a b a",
            "PSUBSCRIBE x*",
            "SSUBSCRIBE s",
            "PING",
            "PING text",
            "GET k",
            "CLIENT ID x y z",
            "UNSUBSCRIBE b",
            "UNSUBSCRIBE nothing",
            "SUBSCRIBE c",
        ];
        subscriber.text(hello);
        direct.text(hello);
        for client in [&mut subscriber, &mut direct] {
            client.send(
                &lines
                    .iter()
                    .flat_map(|line| words(line))
                    .collect::<Vec<u8>>(),
            );
        }
        for _ in 0..12 {
            let (got, wanted) = (subscriber.raw(), direct.raw());
            assert_eq!(
                String::from_utf8_lossy(&got),
                String::from_utf8_lossy(&wanted)
            );
        }
        assert_eq!(publisher.text("PUBLISH a hello"), ":2\r\n");
        assert_eq!(publisher.text("PUBLISH xyz pattern"), ":2\r\n");
        assert_eq!(publisher.text("SPUBLISH s shard"), ":2\r\n");
        for _ in 0..3 {
            assert_eq!(subscriber.raw(), direct.raw());
        }
        if hello == "HELLO 3" {
            assert!(
                subscriber
                    .text("CLIENT LIST")
                    .contains("sub=2 psub=1 ssub=1")
            );
        }
        // A message never lands inside a reply, nor a reply inside a message.
        for client in [&mut subscriber, &mut direct] {
            client.send(
                &[
                    "PUNSUBSCRIBE",
                    "UNSUBSCRIBE",
                    "SUNSUBSCRIBE",
                    "GET k",
                    "UNSUBSCRIBE",
                ]
                .iter()
                .flat_map(|line| words(line))
                .collect::<Vec<u8>>(),
            );
        }
        // The order of channels is the engine's whim: compare the counts.
        for _ in 0..6 {
            let tail = |raw: Vec<u8>| raw.rsplit(|b| *b == b':').next().map(<[u8]>::to_vec);
            assert_eq!(tail(subscriber.raw()), tail(direct.raw()));
        }
        // Free again: what the proxy answers itself works.
        assert!(subscriber.text("CLIENT ID").starts_with(':'));
    }
}

#[test]
fn a_reset_subscriber_gets_no_more_messages() {
    let node = Node::start();
    let (mut subscriber, mut publisher) = (node.client(), node.client());
    subscriber.text("SUBSCRIBE a");
    assert_eq!(subscriber.text("RESET"), "+RESET\r\n");
    until("nobody is subscribed", || {
        publisher.text("PUBLISH a x") == ":0\r\n"
    });
    assert_eq!(subscriber.text("PING"), "+PONG\r\n");
    subscriber.text("SUBSCRIBE a");
    assert_eq!(subscriber.text("QUIT"), "+OK\r\n");
    assert!(subscriber.try_raw().is_none());
    until("nobody is subscribed", || {
        publisher.text("PUBLISH a x") == ":0\r\n"
    });
}

#[test]
fn tracking_and_monitor() {
    let node = Node::start();
    let (mut tracked, mut other) = (node.client(), node.client());
    tracked.text("HELLO 3");
    assert_eq!(tracked.text("CLIENT TRACKING ON"), "+OK\r\n");
    assert_eq!(tracked.text("GET k"), "_\r\n");
    other.text("SET k v");
    assert_eq!(
        tracked.text("PING"),
        ">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n"
    );
    assert_eq!(tracked.raw(), b"+PONG\r\n");
    assert!(
        tracked
            .text("CLIENT TRACKING ON REDIRECT 5")
            .starts_with("-ERR CLIENT TRACKING with")
    );
    assert_eq!(tracked.text("CLIENT TRACKING OFF"), "+OK\r\n");

    let mut monitor = node.client();
    assert_eq!(monitor.text("MONITOR"), "+OK\r\n");
    other.text("SET seen 1");
    // Not that the proxy greets the shard on another connection meanwhile.
    let line = String::from_utf8(monitor.raw()).unwrap();
    assert!(line.contains("\"SET\" \"seen\" \"1\""), "{line}");
    // Nothing else gets through: its reply could not be told from the stream.
    for line in ["GET k", "SHUTDOWN NOSAVE", "CONFIG GET masterauth"] {
        let refused = b"-ERR only RESET and QUIT are possible while MONITOR runs\r\n";
        monitor.send(&words(line));
        assert_eq!(monitor.raw(), refused);
    }
    monitor.send(&words("RESET"));
    until("the monitor is reset", || {
        other.text("SET seen 2");
        monitor.raw() == b"+RESET\r\n"
    });
    assert_eq!(monitor.text("PING"), "+PONG\r\n");
}

#[test]
fn unwanted_replies() {
    let node = Node::start();
    let mut client = node.client();
    client.send(
        &[
            "SET a 1",
            "CLIENT REPLY SKIP",
            "INCR a",
            "GET a",
            "CLIENT REPLY OFF",
            "INCR a",
            "MULTI",
            "INCR a",
            "EXEC",
            "CLIENT ID",
            "BLPOP nothing 0.01",
            "CLIENT REPLY ON",
            "GET a",
        ]
        .iter()
        .flat_map(|line| words(line))
        .collect::<Vec<u8>>(),
    );
    for wanted in [&b"+OK\r\n"[..], b"$1\r\n2\r\n", b"+OK\r\n", b"$1\r\n4\r\n"] {
        assert_eq!(client.raw(), wanted);
    }
}

#[test]
fn connections_are_the_proxys() {
    // Two workers: the answer is about all of them.
    let node = Node::with(VALKEY, |config| config.settings.threads = 2);
    let mut named: Vec<Client> = (0..6)
        .map(|number| {
            let mut client = node.client();
            assert_eq!(client.text(&format!("CLIENT SETNAME c{number}")), "+OK\r\n");
            client
        })
        .collect();
    let list = named[0].text("CLIENT LIST");
    for number in 0..6 {
        assert!(list.contains(&format!("name=c{number} ")), "{list}");
    }
    assert!(
        !list.contains("proxy@"),
        "the proxy's own connections are not shown"
    );
    let id = named[3]
        .text("CLIENT ID")
        .trim()
        .trim_start_matches(':')
        .to_owned();
    let line = named[0].text(&format!("CLIENT LIST ID {id}"));
    assert!(
        line.contains("name=c3 ") && line.matches("id=").count() == 1,
        "{line}"
    );
    assert!(named[3].text("CLIENT INFO").contains(&format!("id={id} ")));
    named[3].text("SELECT 4");
    named[3].text("MULTI");
    let line = named[0].text(&format!("CLIENT LIST ID {id}"));
    assert!(line.contains("flags=x capa= db=4 "), "{line}");
    assert_eq!(named[0].text(&format!("CLIENT KILL ID {id}")), ":1\r\n");
    assert!(named[3].try_raw().is_none());
    assert_eq!(named[0].text(&format!("CLIENT KILL ID {id}")), ":0\r\n");
    let peer = named[4].stream.local_addr().unwrap();
    assert_eq!(named[0].text(&format!("CLIENT KILL {peer}")), "+OK\r\n");
    assert!(named[4].try_raw().is_none());
    assert_eq!(named[0].text("CLIENT KILL TYPE normal SKIPME no"), ":4\r\n");
    assert!(named[0].try_raw().is_none());
}

#[test]
fn most_connections() {
    let node = Node::with(VALKEY, |config| config.databases[0].max_connections = 3);
    let mut clients: Vec<Client> = (0..3).map(|_| node.client()).collect();
    for client in &mut clients {
        assert!(client.pings());
    }
    let mut refused = node.client();
    assert_eq!(refused.raw(), b"-ERR max number of clients reached\r\n");
    assert!(refused.try_raw().is_none());
    drop(clients.pop());
    until("there is room again", || {
        Client::try_connect(node.endpoint).is_some_and(|mut client| client.pings())
    });
}

#[test]
fn numbered_databases_do_not_mix() {
    let node = Node::start();
    let mut clients: Vec<Client> = (0..4).map(|_| node.client()).collect();
    for round in 0..3 {
        for (number, client) in clients.iter_mut().enumerate() {
            client.send(
                &[
                    words(&format!("SELECT {number}")),
                    words(&format!("SET k {number}.{round}")),
                ]
                .concat(),
            );
        }
        for client in &mut clients {
            assert_eq!(client.raw(), b"+OK\r\n");
            assert_eq!(client.raw(), b"+OK\r\n");
        }
        for (number, client) in clients.iter_mut().enumerate() {
            assert_eq!(client.text("GET k"), format!("$3\r\n{number}.{round}\r\n"));
            assert_eq!(client.text("SELECT 0"), "+OK\r\n");
            assert_eq!(client.text("GET k"), format!("$3\r\n0.{round}\r\n"));
        }
    }
}

/// A transaction may choose the database: a later change of the protocol does not forget it.
#[test]
fn a_database_chosen_in_a_transaction_stays() {
    let node = Node::start();
    let mut client = node.client();
    for line in [
        "MULTI",
        "SELECT 2",
        "SET k two",
        "XREAD STREAMS nothing 0",
        "EXEC",
    ] {
        client.text(line);
    }
    assert_eq!(client.text("GET k"), "$3\r\ntwo\r\n");
    client.text("HELLO 3");
    assert_eq!(client.text("GET k"), "$3\r\ntwo\r\n");
    assert_eq!(node.client().text("EXISTS k"), ":0\r\n");
    // Nothing of it is left for others.
    drop(client);
    let mut other = node.client();
    other.text("WATCH k");
    assert_eq!(other.text("EXISTS k"), ":0\r\n");
}

#[test]
fn half_closed_clients_get_their_replies() {
    let node = Node::start();
    let mut client = node.client();
    client.send(
        &["SET k v", "MULTI", "GET k", "EXEC", "GET k"]
            .iter()
            .flat_map(|l| words(l))
            .collect::<Vec<u8>>(),
    );
    client.stream.shutdown(std::net::Shutdown::Write).unwrap();
    for wanted in [
        &b"+OK\r\n"[..],
        b"+OK\r\n",
        b"+QUEUED\r\n",
        b"*1\r\n$1\r\nv\r\n",
        b"$1\r\nv\r\n",
    ] {
        assert_eq!(client.raw(), wanted);
    }
    assert!(client.try_raw().is_none());
    client
        .stream
        .set_read_timeout(Some(Duration::from_secs(1)))
        .unwrap();
}
