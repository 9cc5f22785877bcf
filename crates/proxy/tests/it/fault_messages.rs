//! Messages and invalidations that are cut at every byte: a client gets them whole, and is closed when it
//! may have missed one; nobody else notices.

use crate::fault::{key_at, relayed};
use crate::support::client::{Client, words};
use crate::support::node::Node;
use crate::support::relay::Relay;
use crate::support::until;
use resp::reply::ReplyFramer;
use std::io::Read;

/// What comes until the connection is closed.
fn to_the_end(client: &mut Client) -> Vec<u8> {
    let mut got = std::mem::take(&mut client.kept);
    let mut buffer = [0; 4096];
    loop {
        match client.stream.read(&mut buffer) {
            Ok(0) => return got,
            Ok(count) => got.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return got,
            Err(error) => panic!("it is not closed: {error}"),
        }
    }
}

/// One kind of message: how a client asks for it, what causes it, and what it is.
struct Kind {
    resp: u8,
    asked: &'static [&'static str],
    cause: &'static str,
    message: &'static str,
}

const KINDS: &[Kind] = &[
    Kind {
        resp: 2,
        asked: &["SUBSCRIBE chan"],
        cause: "PUBLISH chan hello",
        message: "*3\r\n$7\r\nmessage\r\n$4\r\nchan\r\n$5\r\nhello\r\n",
    },
    Kind {
        resp: 3,
        asked: &["PSUBSCRIBE ch*"],
        cause: "PUBLISH chan hello",
        message: ">4\r\n$8\r\npmessage\r\n$3\r\nch*\r\n$4\r\nchan\r\n$5\r\nhello\r\n",
    },
    Kind {
        resp: 3,
        asked: &["CLIENT TRACKING ON", "GET @"],
        cause: "SET @ x",
        message: ">2\r\n$10\r\ninvalidate\r\n*1\r\n$LEN\r\n@\r\n",
    },
];

fn cut(node: &Node, relay: &Relay, kind: &Kind, key: &str, at: usize, several: bool) {
    let fill = |text: &str| {
        text.replace("LEN", &key.len().to_string())
            .replace('@', key)
    };
    let message = fill(kind.message);
    let what = format!("{} cut at {at}", fill(kind.cause));
    let mut listener = node.client();
    listener.ask(&format!("HELLO {}", kind.resp));
    for line in kind.asked {
        listener.ask(&fill(line));
    }
    let mut direct = Client::connect(relay.target());
    // The listener's connections are the only ones that get anything.
    let cuts = relay.cuts();
    relay.cut_replies_after(at);
    direct.ask(&fill(kind.cause));
    direct.ask(&fill(kind.cause));
    if at <= message.len() {
        let got = to_the_end(&mut listener);
        let text = String::from_utf8_lossy(&got).into_owned();
        assert!(message.starts_with(&text), "{what}: {text}");
        if several {
            // What is not whole is not shown.
            assert!(text.is_empty() || text == message, "{what}: {text}");
        }
        let whole = at == message.len();
        assert_eq!(text.len() == message.len(), whole, "{what}: {text}");
        if !text.is_empty() {
            let framed = ReplyFramer::default().advance(&got).unwrap();
            assert_eq!(framed.complete, whole, "{what}");
        }
        until("it is cut", || relay.cuts() > cuts);
    }
    relay.pass();
    let mut other = node.client();
    assert_eq!(other.text(&format!("SET {key} {key}")), "+OK\r\n", "{what}");
    let value = format!("${}\r\n{key}\r\n", key.len());
    assert_eq!(other.text(&format!("GET {key}")), value, "{what}");
}

fn every_byte(shards: u16) {
    let (node, relays) = relayed(shards);
    let shard = relays.len() - 1;
    for kind in KINDS {
        let key = key_at(&node, shard, "message");
        let length = kind.message.len() + 2 * key.len();
        for at in 0..=length {
            cut(&node, &relays[shard], kind, &key, at, shards > 1);
        }
    }
}

#[test]
fn every_byte_one_shard() {
    every_byte(1);
}

#[test]
fn every_byte_four_shards() {
    every_byte(4);
}

/// In pieces, with replies between them: nothing lands inside another.
#[test]
fn messages_in_pieces() {
    for shards in [1, 4] {
        let (node, relays) = relayed(shards);
        for resp in [2, 3] {
            let (mut listener, mut other) = (node.client(), node.client());
            listener.ask(&format!("HELLO {resp}"));
            listener.ask("SUBSCRIBE chan");
            for relay in &relays {
                relay.dribble(3);
            }
            let mut sent = Vec::new();
            for number in 0..40 {
                other.send(&words(&format!("PUBLISH chan m{number}")));
                let line = if resp == 3 {
                    "ECHO reply"
                } else {
                    "PING reply"
                };
                listener.send(&words(line));
                sent.push(format!("m{number}"));
            }
            let (mut messages, mut replies) = (Vec::new(), 0);
            while messages.len() < 40 || replies < 40 {
                let text = String::from_utf8(listener.raw()).unwrap();
                match text.split("\r\n").collect::<Vec<_>>()[..] {
                    [_, "$7", "message", "$4", "chan", _, body, ""] => {
                        messages.push(body.to_owned())
                    }
                    ["$5", "reply", ""] | ["*2", "$4", "pong", "$5", "reply", ""] => replies += 1,
                    _ => panic!("{text}"),
                }
            }
            assert_eq!(messages, sent);
            for relay in &relays {
                relay.pass();
            }
        }
    }
}
