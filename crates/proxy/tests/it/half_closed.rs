//! A client that says that it sends no more still gets all replies.

use crate::support::client::words;
use crate::support::node::{Node, VALKEY};
use crate::support::until;
use std::io::Write;
use std::net::Shutdown;

fn nodes() -> [Node; 2] {
    [Node::start(), Node::sharded(VALKEY, 4)]
}

/// The client says that it sends no more, right behind a pipeline: all replies come.
#[test]
fn half_closed_behind_a_pipeline() {
    for node in nodes() {
        for large in [false, true] {
            let mut client = node.client();
            let value = "v".repeat(if large { 20_000 } else { 5 });
            let mut sent = Vec::new();
            for number in 0..2_000 {
                sent.extend(words(&format!("SET h{number} {value}")));
                sent.extend(words(&format!("GET h{number}")));
                sent.extend(words(&format!("MGET h{number} h{}", number / 2)));
            }
            let mut writer = client.stream.try_clone().unwrap();
            let writing = std::thread::spawn(move || {
                writer.write_all(&sent).unwrap();
                writer.shutdown(Shutdown::Write).unwrap();
            });
            let bulk = format!("${}\r\n{value}\r\n", value.len());
            for number in 0..2_000 {
                assert_eq!(
                    client.try_raw().as_deref(),
                    Some(&b"+OK\r\n"[..]),
                    "{number}"
                );
                assert!(
                    client.try_raw().as_deref() == Some(bulk.as_bytes()),
                    "{number}"
                );
                let both = format!("*2\r\n{bulk}{bulk}");
                assert!(
                    client.try_raw().as_deref() == Some(both.as_bytes()),
                    "{number}"
                );
            }
            assert!(client.try_raw().is_none());
            writing.join().unwrap();
        }
        // A few commands and the end in one piece.
        for round in 0..50 {
            let mut client = node.client();
            let sent: Vec<u8> = (0..8)
                .flat_map(|n| words(&format!("SET e{n} {round}")))
                .collect();
            client.send(&sent);
            client.stream.shutdown(Shutdown::Write).unwrap();
            for number in 0..8 {
                assert_eq!(
                    client.try_raw().as_deref(),
                    Some(&b"+OK\r\n"[..]),
                    "{number}"
                );
            }
            assert!(client.try_raw().is_none());
        }
    }
}

/// Who leaves in the middle of a command, or wants no replies, is gone, with what the engine had of it.
#[test]
fn nothing_is_left_of_who_has_left() {
    let half = |length: usize| {
        let head: &[u8] = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1000000\r\n";
        [head, &vec![b'v'; length]].concat()
    };
    let lines = |lines: &[&str]| -> Vec<u8> { lines.iter().flat_map(|line| words(line)).collect() };
    let sent = [
        half(10),
        half(100_000),
        half(500_000),
        [lines(&["SET a 1", "GET a", "MGET a b c"]), half(500_000)].concat(),
        lines(&["CLIENT REPLY OFF", "SET a 1"]),
        lines(&["CLIENT REPLY OFF", "MGET a b c", "BLPOP l 0.01", "DBSIZE"]),
        lines(&["CLIENT REPLY SKIP", "SET a 1"]),
        [lines(&["CLIENT REPLY OFF", "MGET a b c"]), half(500_000)].concat(),
    ];
    for node in nodes() {
        for (number, sent) in sent.iter().enumerate() {
            for half_closed in [false, true] {
                let mut client = node.client();
                client.send(sent);
                if half_closed {
                    client.stream.shutdown(Shutdown::Write).unwrap();
                    let mut replies = 0;
                    while client.try_raw().is_some() {
                        replies += 1;
                    }
                    assert_eq!(replies, if number == 3 { 3 } else { 0 }, "{number}");
                }
            }
        }
        until("all are gone", || {
            let seen = node.exec.last();
            seen.is_some_and(|seen| seen.databases[0].connections == 0)
        });
        assert_eq!(node.client().text("EXISTS k"), ":0\r\n");
    }
}
