//! Clients that send without end and read nothing: what the proxy holds of one is bounded, whatever it sends, and
//! others are served.

use crate::fault::key_at;
use crate::support::client::{Client, command};
use crate::support::node::{Node, VALKEY};
use crate::support::process;
use std::io::Write;
use std::time::Duration;

const MIB: usize = 1024 * 1024;
const SENT: usize = 160 * MIB;

/// What a client sends: at first, and then again and again.
struct Kind {
    name: &'static str,
    first: Vec<u8>,
    more: Vec<u8>,
}

fn kind(name: &'static str, first: impl Into<Vec<u8>>, more: impl Into<Vec<u8>>) -> Kind {
    let (first, more) = (first.into(), more.into());
    Kind { name, first, more }
}

/// The beginning of an argument.
fn argument(text: &str) -> String {
    format!("${}\r\n{text}\r\n", text.len())
}

/// `one` and `two` are keys with 64 KiB, of two shards if there are several.
fn kinds(one: &str, two: &str) -> Vec<Kind> {
    let filler = vec![b'x'; 256 * 1024];
    let value = vec![b'v'; 64 * 1024];
    let set = format!("*3\r\n$3\r\nSET\r\n{}$500000000\r\n", argument(two));
    let (key, other) = (argument(one), argument(two));
    let mset = format!("*5\r\n$4\r\nMSET\r\n{key}$1\r\nv\r\n{other}$500000000\r\n");
    let small = argument(&"x".repeat(1_000));
    let pairs = format!("{key}{small}{other}{small}").repeat(100);
    let gets = [
        command(&[b"GET", one.as_bytes()]),
        command(&[b"GET", two.as_bytes()]),
    ]
    .concat();
    let mget = command(&[b"MGET", one.as_bytes(), two.as_bytes()]);
    vec![
        kind("a value", set, filler.clone()),
        kind("a line", "GET ", filler.clone()),
        kind("the last value of several keys", mset, filler),
        kind("many keys", "*1000001\r\n$4\r\nMSET\r\n", pairs),
        kind(
            "small arguments",
            "*1000001\r\n$3\r\nDEL\r\n",
            "$1\r\nx\r\n".repeat(20_000),
        ),
        kind("reads", "", gets.repeat(2_000)),
        kind("reads of several keys", "", mget.repeat(2_000)),
        kind(
            "writes",
            "",
            command(&[b"SET", two.as_bytes(), &value]).repeat(4),
        ),
        kind(
            "a transaction",
            "MULTI\r\n",
            command(&[b"SET", two.as_bytes(), &value]).repeat(4),
        ),
        kind(
            "what the proxy answers",
            "",
            command(&[b"CLIENT", b"SETNAME", &value[..60_000]]).repeat(4),
        ),
    ]
}

/// Sends without reading, until so much is sent, the connection is closed, or no more is taken.
fn flood(client: &mut Client, kind: &Kind) {
    let patience = Some(Duration::from_millis(500));
    client.stream.set_write_timeout(patience).unwrap();
    let mut sent = client.stream.write_all(&kind.first).map(|()| 0);
    while let Ok(so_far) = sent
        && so_far < SENT
    {
        let next = client.stream.write_all(&kind.more);
        sent = next.map(|()| so_far + kind.more.len());
    }
}

fn bounded(shards: u16, most: usize) {
    let prepare = || match shards {
        1 => Node::with(VALKEY, |_| {}),
        _ => Node::sharded(VALKEY, shards),
    };
    let mut node = prepare();
    let (one, two) = (
        key_at(&node, 0, "k"),
        key_at(&node, usize::from(shards) - 1, "k"),
    );
    for kind in kinds(&one, &two) {
        let mut client = node.client();
        for key in [&one, &two] {
            client.text(&format!("SET {key} {}", "v".repeat(64 * 1024)));
        }
        let before = process::memory(node.server(), "VmRSS:");
        flood(&mut client, &kind);
        assert_eq!(node.client().text("PING"), "+PONG\r\n", "{}", kind.name);
        let held = process::memory(node.server(), "VmHWM:").saturating_sub(before) as usize;
        assert!(held < most, "{}, {shards}: {} MiB", kind.name, held / MIB);
        drop(client);
        node = prepare();
    }
}

#[test]
fn one_shard() {
    bounded(1, 64 * MIB);
}

#[test]
fn several_shards() {
    bounded(4, 192 * MIB);
}
