//! `CONFIG SET notify-keyspace-events` of a client: the wish goes to `cnm_exec`, and the client hears what
//! became of it.

use crate::support::client::words;
use crate::support::node::{Node, VALKEY};
use crate::support::until;

const ENGINES: [&str; 4] = ["redis-6.2.", "redis-7.0.", "valkey-8.0.", VALKEY];

fn wished(node: &Node, count: usize) {
    until("so many wishes have come", || {
        node.exec.wishes().len() == count
    });
}

#[test]
fn a_wish_is_granted_or_refused() {
    for shards in [1, 3] {
        let node = match shards {
            1 => Node::start(),
            shards => Node::sharded(VALKEY, shards),
        };
        let mut client = node.client();
        let set = "CONFIG SET notify-keyspace-events KEA";
        // What comes behind it waits, and has its reply behind it.
        client.send(&words("SET key value"));
        client.send(&words(set));
        client.send(&words("GET key"));
        wished(&node, 1);
        let wish = node.exec.wishes().remove(0);
        assert_eq!(wish.notify_keyspace_events, "KEA");
        assert_eq!(wish.database, node.config.databases[0].uid);
        assert_eq!(wish.client, client.stream.local_addr().unwrap().to_string());
        assert_eq!(client.raw(), b"+OK\r\n");
        node.exec.grant(wish.number, None);
        assert_eq!(client.raw(), b"+OK\r\n");
        assert_eq!(client.raw(), b"$5\r\nvalue\r\n");
        client.send(&words("config set NOTIFY-keyspace-events ''"));
        wished(&node, 2);
        let wish = node.exec.wishes().remove(1);
        assert_eq!(wish.notify_keyspace_events, "");
        node.exec.grant(wish.number, Some("ERR no\r\n+OK"));
        assert_eq!(client.raw(), b"-ERR no  +OK\r\n");
        assert!(client.pings());
    }
}

/// The same wish of several clients is one; another one waits for it.
#[test]
fn wishes_of_several_clients() {
    let mut node = Node::start();
    node.reconfigure(|config| config.settings.threads = 2);
    let mut clients: Vec<_> = (0..4).map(|_| node.client()).collect();
    let send = |client: &mut crate::support::client::Client, flags: &str| {
        client.send(&words(&format!(
            "CONFIG SET notify-keyspace-events {flags}"
        )));
    };
    send(&mut clients[0], "KEA");
    wished(&node, 1);
    for (client, flags) in clients[1..].iter_mut().zip(["Ex", "KEA", "Ex"]) {
        send(client, flags);
    }
    let first = node.exec.wishes().remove(0);
    node.exec.grant(first.number, None);
    assert_eq!(clients[0].raw(), b"+OK\r\n");
    // How many are sent depends on which have come by then: two alike may share one.
    let others = &mut clients[1..];
    std::thread::scope(|scope| {
        let answered = scope.spawn(move || {
            for client in others {
                assert_eq!(client.raw(), b"+OK\r\n");
            }
        });
        let mut granted = 1;
        until("all are answered", || {
            for wish in node.exec.wishes().split_off(granted) {
                node.exec.grant(wish.number, None);
                granted += 1;
            }
            answered.is_finished()
        });
        assert!((3..=4).contains(&granted), "{granted} were sent");
        answered.join().unwrap();
    });
}

/// Without `cnm_exec` a client hears so at once; if it goes away in between, that nothing is known.
#[test]
fn nobody_answers() {
    let mut node = Node::start();
    let mut client = node.client();
    let set = words("CONFIG SET notify-keyspace-events KEA");
    client.send(&set);
    wished(&node, 1);
    node.exec.hang_up();
    let answer = String::from_utf8(client.raw()).unwrap();
    assert!(answer.starts_with("-ERR it is not known"), "{answer}");
    assert!(client.pings());
    // An older cnm_exec would not know what to do with it.
    node.reconfigure(|config| config.takes_wishes = false);
    client.send(&set);
    let answer = String::from_utf8(client.raw()).unwrap();
    assert!(answer.starts_with("-ERR this node's cnm_exec"), "{answer}");
    assert_eq!(node.exec.wishes().len(), 1);
    let seen = node.exec.count();
    until("it is told of again", || node.exec.count() > seen);
    assert!(client.pings());
}

/// What is no wish is answered as before, and wrong flags in the engine's words.
#[test]
fn what_is_no_wish() {
    for engine in ENGINES {
        let node = Node::with(engine, |_| {});
        let (mut client, mut direct) = (node.client(), node.direct());
        let wrong = "CONFIG SET notify-keyspace-events K!";
        assert_eq!(client.text(wrong), direct.text(wrong), "{engine}");
        for refused in [
            "CONFIG SET maxmemory 1",
            "CONFIG SET notify-keyspace-events KEA maxmemory 1",
            "CONFIG SET notify-keyspace-events",
            "CONFIG REWRITE",
        ] {
            let answer = client.text(refused);
            assert!(answer.starts_with("-ERR"), "{refused}: {answer}");
        }
        assert_eq!(node.exec.wishes().len(), 0);
        // A wish waits for nobody but its own client; one that leaves is forgotten.
        let mut leaver = node.client();
        leaver.send(&words("CONFIG SET notify-keyspace-events AKE"));
        wished(&node, 1);
        drop(leaver);
        assert!(client.pings());
        node.exec.grant(node.exec.wishes()[0].number, None);
        assert!(client.pings());
    }
}
