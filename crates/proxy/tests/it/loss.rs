//! Shards that go away, come back, and move.

use crate::support::client::{Client, shown, words};
use crate::support::node::{Node, VALKEY};
use crate::support::until;
use model::Epoch;
use model::proxy::ShardAddress;

const UNKNOWN: &str =
    "-ERR connection to the shard was lost, the outcome of this command is unknown\r\n";

fn commands_read(node: &Node, count: u64) {
    until("the commands are read", || {
        node.exec
            .last()
            .is_some_and(|observed| observed.databases[0].commands >= count)
    });
}

#[test]
fn each_command_in_flight_gets_one_error_and_the_connection_stays() {
    let mut node = Node::start();
    let (mut one, mut two) = (node.client(), node.client());
    assert!(one.pings() && two.pings());
    node.engine.freeze(true);
    one.send(&words("INCR n").repeat(5));
    two.send(&words("GET x").repeat(3));
    commands_read(&node, 10);
    node.engine.kill();
    for (client, count) in [(&mut one, 5), (&mut two, 3)] {
        for _ in 0..count {
            assert_eq!(shown(&client.reply()), UNKNOWN);
        }
    }
    // What is sent now waits for the shard.
    one.send(&words("SET k v"));
    until("the loss is told", || {
        node.exec.last().is_some_and(|observed| {
            let database = &observed.databases[0];
            !database.shards_connected && database.error.is_some()
        })
    });
    node.engine.restart();
    assert_eq!(one.raw(), b"+OK\r\n");
    assert_eq!(two.text("GET k"), "$1\r\nv\r\n");
    node.wait_served();
}

#[test]
fn without_a_shard_commands_end_with_an_error() {
    let mut node = Node::start();
    let mut client = node.client();
    assert!(client.pings());
    node.engine.kill();
    let unavailable = "-TRYAGAIN the shard of this database is not available; try again\r\n";
    until("an error comes", || client.text("GET k") == unavailable);
    // Then at once, and for what needs a connection of its own too.
    for line in ["GET k", "MULTI", "BLPOP q 0", "SUBSCRIBE a"] {
        assert_eq!(client.text(line), unavailable, "{line}");
    }
    // If it is known why, that is what they hear, on the connections that they have.
    let why = |text: Option<&str>| {
        let trouble = text.map(str::to_owned);
        move |config: &mut model::proxy::ProxyConfig| {
            config.databases[0].shards[0].trouble = trouble;
        }
    };
    node.reconfigure(why(Some("redis:1 has stopped")));
    let told = "-TRYAGAIN redis:1 has stopped; the command did not run; try again\r\n";
    for line in ["GET k", "MULTI", "BLPOP q 0", "SUBSCRIBE a"] {
        until("the reason comes", || client.text(line) == told);
    }
    node.reconfigure(why(None));
    until("it is not told any more", || {
        client.text("GET k") == unavailable
    });
    // What the proxy answers itself works all the while.
    assert!(client.text("CLIENT ID").starts_with(':'));
    assert!(client.text("HELLO 3").contains("valkey"));
    node.engine.restart();
    node.wait_served();
    assert_eq!(client.text("SET k v"), "+OK\r\n");
    // A database without a primary: the same.
    node.reconfigure(|config| config.databases[0].shards.clear());
    until("an error comes", || {
        node.client().text("GET k") == unavailable
    });
}

#[test]
fn transactions_and_watches_do_not_survive_half() {
    let mut node = Node::start();
    let (mut open, mut watching, mut selected) = (node.client(), node.client(), node.client());
    open.text("MULTI");
    open.text("SET half 1");
    watching.text("WATCH k");
    selected.text("SELECT 5");
    node.engine.kill();
    node.engine.restart();
    assert!(
        open.text("SET half 2")
            .starts_with("-ERR connection to the shard was lost inside this transaction")
    );
    assert_eq!(
        open.text("EXEC"),
        "-EXECABORT Transaction discarded because of previous errors.\r\n"
    );
    assert_eq!(open.text("EXISTS half"), ":0\r\n");
    // The keys may have changed unseen.
    assert_eq!(watching.text("MULTI"), "+OK\r\n");
    assert_eq!(watching.text("SET half 3"), "+QUEUED\r\n");
    watching.send(&words("EXEC"));
    assert_eq!(watching.raw(), b"*-1\r\n");
    assert_eq!(watching.text("MULTI"), "+OK\r\n");
    assert_eq!(watching.text("EXISTS half"), "+QUEUED\r\n");
    assert_eq!(watching.text("EXEC"), "*1\r\n:0\r\n");
    // The numbered database is chosen again.
    assert_eq!(selected.text("SET five 5"), "+OK\r\n");
    assert_eq!(open.text("EXISTS five"), ":0\r\n");
    assert_eq!(open.text("SELECT 5"), "+OK\r\n");
    assert_eq!(open.text("EXISTS five"), ":1\r\n");
}

#[test]
fn subscribers_are_closed_and_blocked_clients_get_an_error() {
    let mut node = Node::start();
    let (mut subscriber, mut blocked, mut tracked) = (node.client(), node.client(), node.client());
    subscriber.text("SUBSCRIBE a");
    tracked.text("HELLO 3");
    tracked.text("CLIENT TRACKING ON");
    blocked.send(&words("BLPOP q 0"));
    let mut direct = node.direct();
    until("it is blocked", || {
        direct.text("INFO clients").contains("blocked_clients:1")
    });
    node.engine.kill();
    assert!(subscriber.try_raw().is_none());
    assert!(tracked.try_raw().is_none());
    assert_eq!(shown(&blocked.reply()), UNKNOWN);
    node.engine.restart();
    assert_eq!(blocked.text("SET k v"), "+OK\r\n");
}

#[test]
fn a_half_sent_value_is_told_not_to_have_run() {
    let mut node = Node::start();
    let mut client = node.client();
    client.send(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$300000\r\n");
    client.send(&[b'x'; 200_000]);
    // The engine has got its first part.
    let mut direct = node.direct();
    until("it is streamed", || {
        direct.text("CLIENT LIST").lines().any(|line| {
            line.contains("user=proxy@e1")
                && line
                    .split("qbuf=")
                    .nth(1)
                    .and_then(|rest| rest.split(' ').next()?.parse::<u64>().ok())
                    .unwrap_or(0)
                    > 100_000
        })
    });
    node.engine.kill();
    let not_run = "-TRYAGAIN connection to the shard was lost before the command was whole, it did not run\r\n";
    assert_eq!(shown(&client.reply()), not_run);
    node.engine.restart();
    client.send(&[b'x'; 100_000]);
    client.send(b"\r\n");
    assert_eq!(client.text("EXISTS k"), ":0\r\n");
}

#[test]
fn a_new_epoch_moves_everybody() {
    let mut node = Node::start();
    // The next epoch's user of the same engine, and TCP instead of the unix socket.
    node.direct()
        .text("ACL SETUSER proxy@e2 on >other ~* &* +@all");
    let mut clients: Vec<Client> = (0..10).map(|_| node.client()).collect();
    let mut blocked = node.client();
    let mut open = node.client();
    open.text("MULTI");
    blocked.send(&words("BLPOP q 0"));
    let direct = node.engine.direct;
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let threads: Vec<_> = clients
        .drain(..)
        .enumerate()
        .map(|(number, mut client)| {
            let stop = std::sync::Arc::clone(&stop);
            std::thread::spawn(move || {
                let mut count = 0;
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    count += 1;
                    assert_eq!(
                        client.text(&format!("INCR n{number}")),
                        format!(":{count}\r\n")
                    );
                }
                count
            })
        })
        .collect();
    commands_read(&node, 500);
    node.reconfigure(|config| {
        let shard = &mut config.databases[0].shards[0];
        shard.epoch = Epoch(2);
        shard.user = "proxy@e2".to_owned();
        shard.password = model::Secret::new("other");
        shard.address = ShardAddress::Tcp(direct);
    });
    let mut control = node.direct();
    until("no connection of the old epoch is left", || {
        let list = control.text("CLIENT LIST");
        list.contains("user=proxy@e2") && !list.contains("user=proxy@e1")
    });
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    for thread in threads {
        assert!(thread.join().unwrap() > 0);
    }
    assert_eq!(shown(&blocked.reply()), UNKNOWN);
    assert!(
        open.text("SET k v")
            .starts_with("-ERR connection to the shard was lost inside")
    );
    assert_eq!(open.text("DISCARD"), "+OK\r\n");
    assert_eq!(open.text("EXISTS k"), ":0\r\n");
}

#[test]
fn a_wrong_password_of_the_engine_is_told() {
    let node = Node::prepare(VALKEY, |config| {
        config.databases[0].shards[0].password = model::Secret::new("wrong");
    });
    let mut node = node;
    node.exec.publish(&node.config);
    node.launch();
    until("it is told", || {
        node.exec.last().is_some_and(|observed| {
            observed.databases[0]
                .error
                .as_deref()
                .is_some_and(|error| error.contains("WRONGPASS"))
        })
    });
    assert!(!node.log().contains("wrong\""));
    node.reconfigure(|config| {
        config.databases[0].shards[0].password =
            model::Secret::new(crate::support::engine::PASSWORD);
    });
    node.wait_served();
    assert!(node.client().pings());
}
