//! A long command that breaks off while it is passed on: that it is none is said behind the replies to the
//! commands before it.

use crate::fault::{key_at, relayed};
use crate::support::client::{Client, command, words};
use crate::support::node::Node;
use crate::support::relay::Relay;
use crate::support::until;

/// Long enough to be passed on before all of it has come.
static VALUE: [u8; 300_000] = [b'v'; 300_000];

fn next(client: &mut Client) -> String {
    String::from_utf8(client.raw()).unwrap()
}

/// A `SET` that goes on with this.
fn broken(key: &str, bad: &str) -> Vec<u8> {
    let mut whole = command(&[b"SET", key.as_bytes(), &VALUE]);
    whole[1] = b'5';
    whole.extend_from_slice(bad.as_bytes());
    whole
}

/// A client that has a connection of its own to the last shard, whose next commands wait for their replies;
/// the last of them breaks off.
fn waiting(node: &Node, relays: &[Relay], bad: &str) -> Client {
    let (a, b) = (key_at(node, 0, "a"), key_at(node, relays.len() - 1, "b"));
    let mut client = node.client();
    let set = command(&[b"SET", b.as_bytes(), &VALUE]);
    client.send(&set);
    assert_eq!(client.raw(), b"+OK\r\n");
    for relay in relays {
        relay.hold();
    }
    let seen = || {
        node.exec
            .last()
            .map_or(0, |seen| seen.databases[0].commands)
    };
    let before = {
        let told = node.exec.count();
        until("it was told since", || node.exec.count() > told + 1);
        seen()
    };
    client.send(&set);
    client.send(&words(&format!("STRLEN {b}")));
    client.send(&words(&format!("EXISTS {a}")));
    client.send(&broken(&b, bad));
    until("all are on their way", || seen() >= before + 4);
    client
}

const BAD: [(&str, &str); 3] = [
    ("x\r\n", "-ERR Protocol error: expected '$', got 'x'\r\n"),
    ("$-1\r\n", "-ERR Protocol error: invalid bulk length\r\n"),
    (
        "$4\r\nPXxx\r\n$1\r\n1yy",
        "-ERR Protocol error: invalid CRLF in request\r\n",
    ),
];

#[test]
fn it_is_said_in_its_turn() {
    for shards in [1, 4] {
        let (node, relays) = relayed(shards);
        for (bad, error) in BAD {
            let mut client = waiting(&node, &relays, bad);
            for relay in &relays {
                relay.pass();
            }
            for wanted in ["+OK\r\n", ":300000\r\n", ":0\r\n", error] {
                assert_eq!(next(&mut client), wanted, "{shards} shards");
            }
            assert_eq!(client.try_raw(), None);
            // Nothing of it is left anywhere.
            let b = key_at(&node, relays.len() - 1, "b");
            assert_eq!(node.client().text(&format!("STRLEN {b}")), ":300000\r\n");
        }
    }
}

/// The shard is lost before it has answered.
#[test]
fn it_is_said_after_a_loss() {
    let (node, relays) = relayed(1);
    for (bad, error) in BAD {
        let mut client = waiting(&node, &relays, bad);
        relays[0].cut();
        relays[0].pass();
        for _ in 0..3 {
            let got = next(&mut client);
            assert!(
                got.contains("the outcome of this command is unknown"),
                "{got}"
            );
        }
        assert!(next(&mut client).starts_with("-TRYAGAIN"));
        assert_eq!(next(&mut client), error);
        assert_eq!(client.try_raw(), None);
        until("the shard is there again", || {
            node.client().text("EXISTS x") == ":0\r\n"
        });
    }
}
