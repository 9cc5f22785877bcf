//! The name of the user that the proxy signs in with never comes out.

use crate::fault::relayed;
use crate::support::client::{Client, command, words};
use crate::support::node::{Node, VALKEY};

const SCRIPTS: &[&str] = &[
    "return redis.call('lastsave')",
    "return redis.pcall('lastsave')",
    "return {1,redis.pcall('lastsave'),'proxy@e1 as data',{redis.pcall('lastsave')},2}",
];

fn has_no_name(client: &mut Client, bytes: &[u8], replies: usize) {
    client.send(bytes);
    for _ in 0..replies {
        let got = client.raw();
        let text = String::from_utf8_lossy(&got).replace("proxy@e1 as data", "");
        assert!(!text.contains("proxy@"), "{text}");
    }
}

#[test]
fn errors_inside_replies() {
    for (name, shards) in [
        ("redis-6.2.", 1),
        ("valkey-8.0.", 1),
        (VALKEY, 1),
        (VALKEY, 4),
    ] {
        let node = if shards == 1 {
            Node::with(name, |_| {})
        } else {
            Node::sharded(name, shards)
        };
        for resp in [2, 3] {
            let mut client = node.client();
            client.ask(&format!("HELLO {resp}"));
            for script in SCRIPTS {
                let eval = command(&[b"EVAL", script.as_bytes(), b"0"]);
                has_no_name(&mut client, &eval, 1);
                // Over a connection of its own, and inside a transaction.
                let own = [words("WATCH k"), eval.clone(), words("UNWATCH")].concat();
                has_no_name(&mut client, &own, 3);
                let inside = [words("MULTI"), eval.clone(), words("EXEC")].concat();
                has_no_name(&mut client, &inside, 3);
                let looked_into = [
                    words("MULTI"),
                    words("CLIENT GETNAME"),
                    eval.clone(),
                    words("ACL WHOAMI"),
                    words("EXEC"),
                ];
                has_no_name(&mut client, &looked_into.concat(), 5);
            }
        }
    }
}

/// What the engine says about users and connections.
#[test]
fn what_tells_of_users() {
    for name in ["redis-6.2.", "redis-7.0.", VALKEY] {
        let node = Node::with(name, |_| {});
        let mut monitor = node.client();
        monitor.text("MONITOR");
        node.direct().text("CONFIG SET slowlog-log-slower-than 0");
        for resp in [2, 3] {
            let mut client = node.client();
            client.ask(&format!("HELLO {resp}"));
            // Connections of its own greet the engine.
            client.ask("SELECT 3");
            for line in [
                "ACL WHOAMI",
                "ACL LOG",
                "ACL LIST",
                "ACL USERS",
                "ACL GETUSER default",
                "CLIENT LIST",
                "CLIENT INFO",
                "CLIENT NO-EVICT on",
                "INFO everything",
                "SLOWLOG GET 100",
                "COMMANDLOG GET 100 slow",
                "LATENCY DOCTOR",
                "LATENCY HISTOGRAM",
                "LATENCY LATEST",
                "COMMAND",
                "COMMAND DOCS",
                "CONFIG GET *",
                "MODULE LIST",
                "LASTSAVE",
                "DEBUG OBJECT k",
                "FUNCTION STATS",
                "MEMORY DOCTOR",
                "CLUSTER INFO",
                "ROLE",
            ] {
                client.send(&words(line));
                let got = String::from_utf8_lossy(&client.raw()).into_owned();
                assert!(
                    !got.contains("proxy@") && !got.contains("engine-secret"),
                    "{line}: {got}"
                );
            }
        }
        monitor.send(&words("RESET"));
        loop {
            let line = String::from_utf8_lossy(&monitor.raw()).into_owned();
            assert!(
                !line.contains("proxy@") && !line.contains("engine-secret"),
                "{line}"
            );
            if line == "+RESET\r\n" {
                break;
            }
        }
    }
}

/// Rights that are taken away between `MULTI` and `EXEC`, and while a client is there.
#[test]
fn rights_that_are_taken_away() {
    for name in ["redis-6.2.", "redis-7.0.", VALKEY] {
        let node = Node::with(name, |_| {});
        let (mut client, mut direct) = (node.client(), node.direct());
        client.text("MULTI");
        client.text("INCR k");
        direct.text("ACL SETUSER proxy@e1 -incr");
        let reply = client.text("EXEC");
        assert!(
            reply.contains("NOPERM") && !reply.contains("proxy@"),
            "{reply}"
        );
        let reply = client.text("INCR k");
        assert!(
            reply.contains("NOPERM") && !reply.contains("proxy@"),
            "{reply}"
        );
    }
}

/// The name is not seen either if it comes in pieces.
#[test]
fn in_pieces() {
    let (node, relays) = relayed(1);
    let mut client = node.client();
    let script = command(&[b"EVAL", SCRIPTS[2].as_bytes(), b"0"]);
    client.send(&script);
    let whole = client.raw();
    assert!(String::from_utf8_lossy(&whole).contains("User default has no permissions"));
    for piece in 1..=9 {
        relays[0].dribble(piece);
        client.send(&script);
        assert_eq!(client.raw(), whole, "in pieces of {piece}");
        client.send(&words("LASTSAVE"));
        assert!(client.raw().starts_with(b"-ERR LASTSAVE is not available"));
        client.send(&command(&[b"EVAL", SCRIPTS[0].as_bytes(), b"0"]));
        let error = String::from_utf8(client.raw()).unwrap();
        assert!(error.contains("User default has no permissions"), "{error}");
    }
}
