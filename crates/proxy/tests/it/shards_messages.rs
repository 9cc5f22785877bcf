//! What several shards send unasked: messages, invalidations, the lines of `MONITOR`.

use crate::shards::{SHARDS, keys};
use crate::support::client::{Client, words};
use crate::support::node::{Node, VALKEY};

/// What has come to a client, as text.
fn next(client: &mut Client) -> String {
    String::from_utf8(client.raw()).unwrap()
}

fn message(resp: u8, text: &str) -> String {
    let head = if resp == 3 { '>' } else { '*' };
    let length = text.len();
    format!("{head}3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n${length}\r\n{text}\r\n")
}

#[test]
fn messages_come_once_from_wherever_they_are_published() {
    let mut node = Node::sharded(VALKEY, SHARDS);
    for shard in 0..usize::from(SHARDS) {
        let mut direct = Client::connect(node.shard(shard).direct);
        direct.text("CONFIG SET notify-keyspace-events KEA");
    }
    let keys = keys(&node, "p");
    for resp in [2, 3] {
        let (mut subscriber, mut other) = (node.client(), node.client());
        subscriber.ask(&format!("HELLO {resp}"));
        subscriber.send(&words("SUBSCRIBE news __keyevent@0__:del"));
        let head = if resp == 3 { '>' } else { '*' };
        let wanted = format!("{head}3\r\n$9\r\nsubscribe\r\n$4\r\nnews\r\n:1\r\n");
        assert_eq!(next(&mut subscriber), wanted);
        assert!(next(&mut subscriber).ends_with(":2\r\n"));
        subscriber.send(&words("PSUBSCRIBE n*"));
        assert!(next(&mut subscriber).ends_with("psubscribe\r\n$2\r\nn*\r\n:3\r\n"));
        assert_eq!(other.text("PUBLISH news hello"), ":2\r\n");
        assert_eq!(next(&mut subscriber), message(resp, "hello"));
        assert!(next(&mut subscriber).contains("pmessage"));
        for key in &keys {
            published_by_all_means(key, resp, &mut subscriber, &mut other);
        }
        let wanted = "*2\r\n$4\r\nnews\r\n:1\r\n";
        assert_eq!(other.text("PUBSUB NUMSUB news"), wanted);
        assert_eq!(other.text("PUBSUB NUMPAT"), ":1\r\n");
        if resp == 3 {
            commands_between_messages(&mut subscriber, &keys);
        } else {
            assert!(subscriber.text("GET a").starts_with("-ERR Can't execute"));
            subscriber.send(&words("PING"));
            assert_eq!(next(&mut subscriber), "*2\r\n$4\r\npong\r\n$0\r\n\r\n");
        }
        subscriber.send(&words("UNSUBSCRIBE"));
        assert!(next(&mut subscriber).contains("unsubscribe"));
        assert!(next(&mut subscriber).ends_with(":1\r\n"));
        subscriber.send(&words("PUNSUBSCRIBE n*"));
        assert!(next(&mut subscriber).ends_with(":0\r\n"));
        assert_eq!(subscriber.text("GET nothing"), "_\r\n");
        assert_eq!(other.text("PUBLISH news x"), ":0\r\n");
        // Shard channels.
        subscriber.send(&words(&format!("SSUBSCRIBE {} {}", keys[0], keys[2])));
        assert!(next(&mut subscriber).ends_with(":1\r\n"));
        assert!(next(&mut subscriber).ends_with(":2\r\n"));
        assert_eq!(other.text(&format!("SPUBLISH {} x", keys[2])), ":1\r\n");
        assert!(next(&mut subscriber).contains("smessage"));
        subscriber.send(&words("SUNSUBSCRIBE"));
        next(&mut subscriber);
        assert!(next(&mut subscriber).ends_with(":0\r\n"));
    }
}

/// Who has no subscription hears about its end what an engine says, each in its own words.
#[test]
fn no_subscription_to_end() {
    for engine in ["redis-6.2.", "redis-7.0.", "valkey-8.0.", VALKEY] {
        let mut node = Node::sharded(engine, SHARDS);
        let mut direct = Client::connect(node.shard(0).direct);
        let mut client = node.client();
        let lines = [
            "PING",
            "UNSUBSCRIBE",
            "UNSUBSCRIBE a",
            "PUNSUBSCRIBE a",
            "SUBSCRIBE a",
            "PUNSUBSCRIBE b",
            "UNSUBSCRIBE a",
            "UNSUBSCRIBE a",
        ];
        for line in lines.into_iter().chain(["PING"]) {
            assert_eq!(client.text(line), direct.text(line), "{engine}: {line}");
        }
    }
}

/// By a script, by a transaction, and by the shard itself, which tells of a deleted key.
fn published_by_all_means(key: &str, resp: u8, subscriber: &mut Client, other: &mut Client) {
    let script = format!("EVAL \"return redis.call('PUBLISH','news','{key}')\" 1 {key}");
    let mut sent = words(&script);
    for line in ["MULTI", &format!("SET {key} 1"), "PUBLISH news tx", "EXEC"] {
        sent.extend(words(line));
    }
    sent.extend(words(&format!("DEL {key}")));
    other.send(&sent);
    for _ in 0..6 {
        other.raw();
    }
    assert_eq!(next(subscriber), message(resp, key));
    assert!(next(subscriber).contains("pmessage"));
    assert_eq!(next(subscriber), message(resp, "tx"));
    assert!(next(subscriber).contains("pmessage"));
    let event = next(subscriber);
    assert!(
        event.contains("__keyevent@0__:del") && event.contains(key),
        "{event}"
    );
}

#[test]
fn messages_of_many_channels_keep_their_order() {
    const MESSAGES: usize = 2000;
    let node = Node::sharded(VALKEY, SHARDS);
    let (mut subscriber, mut other) = (node.client(), node.client());
    subscriber.send(&words("PSUBSCRIBE c*"));
    next(&mut subscriber);
    let mut sent = Vec::new();
    for number in 0..MESSAGES {
        // Also by a transaction and by a script, as far as they name no key.
        match number % 10 {
            3 => sent.extend(words(&format!(
                "EVAL \"return redis.call('PUBLISH','c{number}','{number}')\" 0"
            ))),
            7 => {
                for line in ["MULTI", &format!("PUBLISH c{number} {number}"), "EXEC"] {
                    sent.extend(words(line));
                }
            }
            _ => sent.extend(words(&format!("PUBLISH c{number} {number}"))),
        }
    }
    other.send(&sent);
    for number in 0..MESSAGES {
        let came = next(&mut subscriber);
        assert!(
            came.ends_with(&format!("\r\n{number}\r\n")),
            "{number}: {came:?}"
        );
    }
}

fn commands_between_messages(subscriber: &mut Client, keys: &[String]) {
    let mut sent = Vec::new();
    for number in 0..200 {
        sent.extend(words(&format!("PUBLISH news {number}")));
        sent.extend(words(&format!("MGET {}", keys.join(" "))));
    }
    subscriber.send(&sent);
    let (mut replies, mut messages) = (0, 0);
    while replies < 400 || messages < 400 {
        match next(subscriber).as_bytes()[0] {
            b'>' => messages += 1,
            _ => replies += 1,
        }
    }
    assert_eq!((replies, messages), (400, 400));
}

#[test]
fn invalidations_come_from_every_shard() {
    let node = Node::sharded(VALKEY, SHARDS);
    let (mut client, mut other) = (node.client(), node.client());
    let keys = keys(&node, "i");
    client.ask("HELLO 3");
    assert_eq!(client.text("CLIENT TRACKING ON"), "+OK\r\n");
    client.text(&format!("MGET {}", keys.join(" ")));
    for key in &keys {
        other.text(&format!("SET {key} new"));
        assert_eq!(
            next(&mut client),
            format!(
                ">2\r\n$10\r\ninvalidate\r\n*1\r\n${}\r\n{key}\r\n",
                key.len()
            )
        );
    }
    assert_eq!(client.text("CLIENT TRACKING OFF"), "+OK\r\n");
    assert_eq!(client.text("CLIENT TRACKING ON OPTIN"), "+OK\r\n");
    client.text(&format!("GET {}", keys[0]));
    assert!(
        client
            .text("CLIENT CACHING NO")
            .starts_with("-ERR CLIENT CACHING NO is only valid")
    );
    assert_eq!(client.text("CLIENT CACHING YES"), "+OK\r\n");
    client.text(&format!("GET {}", keys[1]));
    client.text(&format!("GET {}", keys[2]));
    for key in &keys {
        other.text(&format!("SET {key} newer"));
    }
    assert!(next(&mut client).contains(&keys[1]));
    assert_eq!(client.text("PING"), "+PONG\r\n");
}

#[test]
fn monitor_shows_all_shards() {
    let node = Node::sharded(VALKEY, SHARDS);
    let (mut client, mut other) = (node.client(), node.client());
    let keys = keys(&node, "m");
    assert_eq!(client.text("MONITOR"), "+OK\r\n");
    for key in &keys {
        other.text(&format!("GET {key}"));
        let line = next(&mut client);
        assert!(line.contains(&format!("\"GET\" \"{key}\"")), "{line}");
    }
    assert!(client.text("GET a").starts_with("-ERR only RESET"));
    assert_eq!(client.text("RESET"), "+RESET\r\n");
    assert_eq!(client.text(&format!("GET {}", keys[0])), "_\r\n");
}
