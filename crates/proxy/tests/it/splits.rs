//! Every split point: commands and replies of every kind that come byte by byte, both ways.

use crate::fault::relayed;
use crate::support::client::{Client, shown, words};
use crate::support::node::Node;
use std::io::Write;
use std::time::Duration;

/// Commands of every kind with their replies in RESP2, over one key.
const STEPS: &[(&str, &str)] = &[
    ("SET @ value", "+OK\r\n"),
    ("GET @", "$5\r\nvalue\r\n"),
    ("GET @none", "null"),
    ("STRLEN @", ":5\r\n"),
    (
        "LPUSH @ x",
        "-WRONGTYPE Operation against a key holding the wrong kind of value\r\n",
    ),
    ("DEL @list @hash", ":any\r\n"),
    ("RPUSH @list a '' c", ":3\r\n"),
    (
        "LRANGE @list 0 -1",
        "*3\r\n$1\r\na\r\n$0\r\n\r\n$1\r\nc\r\n",
    ),
    ("LRANGE @none 0 -1", "*0\r\n"),
    (
        "EVAL \"return {1,{2,{'x'}}}\" 1 @",
        "*2\r\n:1\r\n*2\r\n:2\r\n*1\r\n$1\r\nx\r\n",
    ),
    ("MULTI", "+OK\r\n"),
    ("APPEND @ s", "+QUEUED\r\n"),
    ("GET @none", "+QUEUED\r\n"),
    ("EXEC", "*2\r\n:6\r\nnull"),
    ("BLPOP @list 0", "list"),
    ("ECHO hello", "$5\r\nhello\r\n"),
    ("PING", "+PONG\r\n"),
    ("MGET @ @none other{2} other{5} other{9}", "mget"),
    ("MSET one{1} 1 two{2} 2 three{3} 3", "+OK\r\n"),
    ("EXISTS one{1} two{2} three{3} @", ":4\r\n"),
    ("CLIENT SETNAME me", "+OK\r\n"),
    (
        "NOSUCH @",
        "-ERR unknown command 'NOSUCH', with args beginning with: '@' \r\n",
    ),
    ("RESET", "+RESET\r\n"),
];

fn wanted(reply: &str, key: &str, null: &str) -> String {
    match reply {
        "list" => {
            let list = format!("{key}list");
            format!("*2\r\n${}\r\n{list}\r\n$1\r\na\r\n", list.len())
        }
        "mget" => format!("*5\r\n$6\r\nvalues\r\n{}", null.repeat(4)),
        other => other.replace("null", null).replace('@', key),
    }
}

/// One round; `pieces` gives the bytes out.
fn round(client: &mut Client, key: &str, resp: u8, mut send: impl FnMut(&mut Client, &[u8])) {
    let null = if resp == 3 { "_\r\n" } else { "$-1\r\n" };
    client.ask(&format!("HELLO {resp}"));
    for (line, reply) in STEPS {
        let command = words(&line.replace('@', key));
        send(client, &command);
        let got = shown(&client.reply());
        // What is decoded shows every null in one way.
        let got = if resp == 2 {
            got.replace("_\r\n", "$-1\r\n")
        } else {
            got
        };
        if *reply != ":any\r\n" {
            assert_eq!(got, wanted(reply, key, null), "{line}");
        }
        if *line == "RESET" {
            return;
        }
    }
}

#[test]
fn commands_and_replies_byte_by_byte() {
    for shards in [1, 4] {
        let (node, relays) = relayed(shards);
        for relay in &relays {
            relay.dribble(1);
        }
        std::thread::scope(|scope| {
            for number in 0..3 {
                let node = &node;
                scope.spawn(move || {
                    let mut client = node.client();
                    for resp in [2, 3] {
                        round(
                            &mut client,
                            &format!("{{k{number}}}"),
                            resp,
                            |client, bytes| {
                                for byte in bytes {
                                    client.send(&[*byte]);
                                }
                            },
                        );
                    }
                });
            }
        });
    }
}

/// Every command is cut in two at each of its bytes, alone and with others around it.
#[test]
fn commands_in_two_pieces() {
    for shards in [1, 4] {
        let node = if shards == 1 {
            Node::start()
        } else {
            Node::sharded(crate::support::node::VALKEY, shards)
        };
        std::thread::scope(|scope| {
            for resp in [2, 3] {
                let node = &node;
                scope.spawn(move || {
                    let mut client = node.client();
                    for at in 1..=60 {
                        round(
                            &mut client,
                            &format!("{{r{resp}}}"),
                            resp,
                            |client, bytes| {
                                let (one, two) = bytes.split_at(at % bytes.len());
                                client.send(one);
                                std::thread::sleep(Duration::from_micros(200));
                                client.send(two);
                            },
                        );
                    }
                });
            }
        });
    }
}

/// A pipeline of all of them, cut at every byte.
#[test]
fn a_pipeline_in_two_pieces() {
    let node = Node::sharded(crate::support::node::VALKEY, 4);
    let mut sent = Vec::new();
    let steps: Vec<_> = STEPS
        .iter()
        .filter(|(line, _)| !line.starts_with("RESET"))
        .collect();
    for (line, _) in &steps {
        sent.extend(words(&line.replace('@', "{p}")));
    }
    let mut client = node.client();
    client.ask("HELLO 2");
    for at in 1..sent.len() {
        client.stream.write_all(&sent[..at]).unwrap();
        std::thread::sleep(Duration::from_micros(200));
        client.stream.write_all(&sent[at..]).unwrap();
        for (line, reply) in &steps {
            let got = shown(&client.reply()).replace("_\r\n", "$-1\r\n");
            if *reply != ":any\r\n" {
                assert_eq!(got, wanted(reply, "{p}", "$-1\r\n"), "{line}, cut at {at}");
            }
        }
        assert_eq!(client.waiting(), 0);
    }
}
