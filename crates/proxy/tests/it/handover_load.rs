//! Traffic goes on while servers replace one another again and again: every reply is the right one, every
//! message comes once.

use crate::support::client::{Client, command, words};
use crate::support::node::{Node, VALKEY};
use resp::value::Value;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

const HANDOVERS: usize = 6;

/// What one client does: commands with values of its own, cut into pieces at changing places.
fn load(endpoint: SocketAddr, number: usize, over: &AtomicBool, rounds: &AtomicU64) {
    let mut client = Client::connect(endpoint);
    let key = format!("load{number}");
    let mut count = 0_usize;
    while !over.load(Ordering::Relaxed) {
        count += 1;
        let depth = 1 + (count * 7 + number) % 12;
        let value = |step: usize| {
            let length = (count * 131 + step * 17)
                % if count.is_multiple_of(50) {
                    90_000
                } else {
                    300
                };
            format!("{number}:{count}:{step}:{}", "x".repeat(length))
        };
        let mut bytes = Vec::new();
        for step in 0..depth {
            bytes.extend(command(&[b"SET", key.as_bytes(), value(step).as_bytes()]));
            bytes.extend(command(&[b"GET", key.as_bytes()]));
        }
        if count.is_multiple_of(5) {
            bytes.extend(words("MULTI"));
            bytes.extend(words(&format!("INCR {{{key}}}n")));
            bytes.extend(words("EXEC"));
        }
        let cut = (count * 37) % bytes.len();
        client.send(&bytes[..cut]);
        if count.is_multiple_of(3) {
            std::thread::yield_now();
        }
        client.send(&bytes[cut..]);
        for step in 0..depth {
            assert_eq!(client.raw(), b"+OK\r\n", "{number} {count} {step}");
            assert_eq!(client.reply(), Value::bulk(value(step).as_str()));
        }
        if count.is_multiple_of(5) {
            assert_eq!(client.raw(), b"+OK\r\n");
            assert_eq!(client.raw(), b"+QUEUED\r\n");
            let n = i64::try_from(count / 5).unwrap();
            assert_eq!(client.reply(), Value::Array(vec![Value::Integer(n)]));
        }
        rounds.fetch_add(1, Ordering::Relaxed);
    }
}

/// Publishes numbers, each once.
fn publish(endpoint: SocketAddr, over: &AtomicBool) -> u64 {
    let mut client = Client::connect(endpoint);
    let mut number = 0;
    while !over.load(Ordering::Relaxed) {
        number += 1;
        for publish in ["PUBLISH news", "SPUBLISH shard-news"] {
            client.send(&words(&format!("{publish} {number}")));
            assert!(matches!(client.reply(), Value::Integer(1..)));
        }
    }
    for publish in ["PUBLISH news", "SPUBLISH shard-news"] {
        client.text(&format!("{publish} end"));
    }
    number
}

/// Reads numbers until the end, which must come in their order, each once. Returns the last one.
fn listen(mut client: Client) -> u64 {
    let mut last = 0;
    loop {
        let message = client.reply();
        let (Value::Array(parts) | Value::Push(parts)) = &message else {
            panic!("{message:?}");
        };
        let text = String::from_utf8_lossy(parts.last().unwrap().text().unwrap()).into_owned();
        if text == "end" {
            return last;
        }
        let number: u64 = text.parse().unwrap();
        assert_eq!(number, last + 1, "messages come once and in order");
        last = number;
    }
}

#[test]
fn traffic_goes_on_over_many_handovers() {
    for shards in [1, 3] {
        let mut node = match shards {
            1 => Node::start(),
            shards => Node::sharded(VALKEY, shards),
        };
        let endpoint = node.endpoint;
        let (over, rounds) = (AtomicBool::new(false), AtomicU64::new(0));
        let subscribers: Vec<Client> =
            ["SUBSCRIBE news", "PSUBSCRIBE new*", "SSUBSCRIBE shard-news"]
                .into_iter()
                .flat_map(|line| [(line, false), (line, true)])
                .map(|(line, resp3)| {
                    let mut client = node.client();
                    if resp3 {
                        client.text("HELLO 3");
                    }
                    client.text(line);
                    client
                })
                .collect();
        std::thread::scope(|scope| {
            let (over, rounds) = (&over, &rounds);
            for number in 0..16 {
                scope.spawn(move || load(endpoint, number, over, rounds));
            }
            let publisher = scope.spawn(move || publish(endpoint, over));
            let listeners: Vec<_> = subscribers
                .into_iter()
                .map(|client| scope.spawn(move || listen(client)))
                .collect();
            for _ in 0..HANDOVERS {
                let before = rounds.load(Ordering::Relaxed);
                crate::support::until("all go on", || {
                    rounds.load(Ordering::Relaxed) > before + 100
                });
                node.replace_proxy();
            }
            over.store(true, Ordering::Relaxed);
            let published = publisher.join().unwrap();
            for listener in listeners {
                assert_eq!(listener.join().unwrap(), published);
            }
        });
        assert_eq!(
            node.log().matches("all clients are handed over").count(),
            HANDOVERS
        );
    }
}
