//! Planned moves of a primary with subscribers, clients that cache, and `MONITOR`: messages come once and in
//! order, invalidations are complete.

use crate::support::client::{Client, words};
use crate::support::node::VALKEY;
use crate::support::pair::{Load, Pair};
use crate::support::until;
use resp::value::Value;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

fn runs(stop: &AtomicBool) -> bool {
    !stop.load(Ordering::Relaxed)
}

fn parts(value: &Value) -> Vec<Vec<u8>> {
    let (Value::Array(items) | Value::Push(items)) = value else {
        panic!("{value:?} is no message");
    };
    items
        .iter()
        .map(|item| item.text().unwrap_or_default().to_vec())
        .collect()
}

/// Every message of one sequence, once and in order, until the last one.
fn listen(mut client: Client, kind: &str, received: &AtomicU64) {
    let mut next = 1;
    loop {
        let message = parts(&client.reply());
        assert_eq!(String::from_utf8_lossy(&message[0]), kind);
        let payload = String::from_utf8(message.last().unwrap().clone()).unwrap();
        if payload == "end" {
            return;
        }
        assert_eq!(payload, next.to_string(), "{kind}");
        received.store(next, Ordering::Relaxed);
        next += 1;
    }
}

/// Publishes a sequence; now and then one waits for the next step, so that there is silence too.
fn publish(
    mut client: Client,
    command: &str,
    channel: &str,
    all: &[&AtomicU64],
    stop: &AtomicBool,
) {
    let mut count = 0;
    while runs(stop) {
        count += 1;
        let reply = client.text(&format!("{command} {channel} {count}"));
        assert!(reply.starts_with(':'), "{reply}");
        if count % 50 == 0 {
            until("all have received it", || {
                all.iter()
                    .all(|received| received.load(Ordering::Relaxed) == count)
            });
        }
    }
    client.text(&format!("{command} {channel} end"));
}

fn subscriber(pair: &Pair, resp: u8, line: &str) -> Client {
    let mut client = pair.node.client();
    if resp == 3 {
        client.ask("HELLO 3");
    }
    client.send(&words(line));
    // Each name has a confirmation.
    for _ in line.split(' ').skip(1) {
        client.raw();
    }
    client
}

fn moves_with_subscribers(first: &'static str, second: &'static str, moves: usize) {
    let mut pair = Pair::of(first, second, 2);
    let shard_channels = !first.starts_with("redis-6");
    let counts: Vec<AtomicU64> = (0..10).map(|_| AtomicU64::new(0)).collect();
    let mut kinds = vec![
        (
            "c1",
            "PUBLISH",
            vec![
                (2, "SUBSCRIBE c1 other", "message"),
                (3, "SUBSCRIBE c1", "message"),
                (2, "PSUBSCRIBE c1* x", "pmessage"),
                (3, "PSUBSCRIBE c*1", "pmessage"),
            ],
        ),
        (
            "c2",
            "PUBLISH",
            vec![
                (2, "SUBSCRIBE c2", "message"),
                (3, "PSUBSCRIBE ?2", "pmessage"),
            ],
        ),
    ];
    if shard_channels {
        kinds.push((
            "s1",
            "SPUBLISH",
            vec![
                (2, "SSUBSCRIBE s1", "smessage"),
                (3, "SSUBSCRIBE s1 s9", "smessage"),
            ],
        ));
    }
    let mut loads: Vec<Load<'_>> = Vec::new();
    let mut place = counts.iter();
    for (channel, command, listeners) in kinds {
        let mut all = Vec::new();
        for (resp, line, kind) in listeners {
            let (client, received) = (subscriber(&pair, resp, line), place.next().unwrap());
            all.push(received);
            loads.push(Box::new(move |_| listen(client, kind, received)));
        }
        let client = pair.node.client();
        loads.push(Box::new(move |stop| {
            publish(client, command, channel, &all, stop)
        }));
    }
    pair.move_under(moves, loads);
    pair.tell(first);
}

#[test]
fn valkey_9_moves_with_subscribers() {
    moves_with_subscribers(VALKEY, VALKEY, 40);
}

#[test]
fn valkey_8_moves_with_subscribers() {
    moves_with_subscribers("valkey-8.0.", "valkey-8.0.", 20);
}

#[test]
fn redis_7_moves_with_subscribers() {
    moves_with_subscribers("redis-7.0.", "redis-7.0.", 20);
}

#[test]
fn redis_6_moves_with_subscribers() {
    moves_with_subscribers("redis-6.2.", "redis-6.2.", 40);
}

/// An upgrade: the new primary has another version, and stays primary.
#[test]
fn subscribers_move_to_a_newer_engine() {
    for engine in ["redis-6.2.", "redis-7.0.", "valkey-8.0."] {
        moves_with_subscribers(engine, VALKEY, 1);
    }
}

/// A pattern that takes everything sees no marker, and subscriptions can be changed between moves.
#[test]
fn markers_are_seen_by_nobody() {
    for engine in [VALKEY, "redis-6.2."] {
        let mut pair = Pair::of(engine, engine, 2);
        let mut all: Vec<Client> = (0..4)
            .map(|n| subscriber(&pair, 2 + n % 2, "PSUBSCRIBE *"))
            .collect();
        let mut publisher = pair.node.client();
        for round in 0..8 {
            pair.move_primary();
            publisher.text(&format!("PUBLISH a{round} x"));
            for client in &mut all {
                let message = parts(&client.reply());
                let wanted = ["pmessage", "*", &format!("a{round}"), "x"];
                assert_eq!(message, wanted.map(|part| part.as_bytes().to_vec()));
            }
        }
        // The engine's own counts are what they would be without a move.
        let one = &mut all[0];
        one.send(&words("SUBSCRIBE b"));
        assert_eq!(one.raw(), b"*3\r\n$9\r\nsubscribe\r\n$1\r\nb\r\n:2\r\n");
        one.send(&words("PUNSUBSCRIBE"));
        assert_eq!(one.raw(), b"*3\r\n$12\r\npunsubscribe\r\n$1\r\n*\r\n:1\r\n");
        pair.move_primary();
        publisher.text("PUBLISH b y");
        assert_eq!(parts(&one.reply())[2], b"y");
        one.send(&words("UNSUBSCRIBE"));
        assert_eq!(one.raw(), b"*3\r\n$11\r\nunsubscribe\r\n$1\r\nb\r\n:0\r\n");
        assert_eq!(one.text("PING"), "+PONG\r\n");
    }
}

/// Events of keys: as many as there are commands.
#[test]
fn events_of_keys_come_once() {
    let mut pair = Pair::of(VALKEY, VALKEY, 2);
    for direct in &mut pair.direct {
        direct.text("CONFIG SET notify-keyspace-events AK");
    }
    let listener = subscriber(&pair, 2, "SUBSCRIBE __keyspace@0__:n");
    let (mut writer, mut listener) = (pair.node.client(), listener);
    let count = &AtomicU64::new(0);
    pair.move_under(
        20,
        vec![
            Box::new(move |stop| {
                let mut done = 0;
                while runs(stop) {
                    done += 1;
                    assert_eq!(writer.text("INCR n"), format!(":{done}\r\n"));
                    if done % 20 == 0 {
                        until("they have come", || count.load(Ordering::Relaxed) == done);
                    }
                }
                until("they have come", || count.load(Ordering::Relaxed) == done);
                assert_eq!(writer.text("DEL n"), ":1\r\n");
            }),
            Box::new(move |_| {
                loop {
                    match parts(&listener.reply())[2].as_slice() {
                        b"incrby" => drop(count.fetch_add(1, Ordering::Relaxed)),
                        b"del" => return,
                        other => panic!("{}", String::from_utf8_lossy(other)),
                    }
                }
            }),
        ],
    );
}

/// A client that caches is told of each change, or to forget all.
fn caches<'a>(pair: &Pair, how: &str, key: &str, seen: &'a AtomicU64) -> Load<'a> {
    let mut client = pair.node.client();
    client.ask("HELLO 3");
    assert_eq!(client.text(&format!("CLIENT TRACKING ON {how}")), "+OK\r\n");
    let (key, optin) = (key.to_owned(), how == "OPTIN");
    Box::new(move |_| {
        let mut early = 0;
        loop {
            if optin {
                client.send(&words("CLIENT CACHING YES"));
            }
            client.send(&words(&format!("GET {key}")));
            let mut replies = 1 + usize::from(optin);
            let mut value = 0;
            while replies > 0 {
                match client.reply() {
                    Value::Push(items) => {
                        assert_eq!(items[0].text(), Some(&b"invalidate"[..]));
                        early += 1;
                    }
                    Value::Simple(_) => replies -= 1,
                    Value::Bulk(text) => {
                        value = std::str::from_utf8(&text).unwrap().parse().unwrap();
                        replies -= 1;
                    }
                    Value::Null => replies -= 1,
                    other => panic!("{other:?}"),
                }
            }
            if value == u64::MAX {
                return;
            }
            seen.store(value, Ordering::Relaxed);
            // One that came before the reply may be about it.
            if std::mem::take(&mut early) == 0 {
                match client.reply() {
                    Value::Push(items) => assert_eq!(items[0].text(), Some(&b"invalidate"[..])),
                    other => panic!("{other:?}"),
                }
            }
        }
    })
}

fn moves_with_caches(engine: &'static str) {
    let mut pair = Pair::of(engine, engine, 2);
    let seen: Vec<AtomicU64> = (0..3).map(|_| AtomicU64::new(0)).collect();
    let mut writer = pair.node.client();
    let mut loads: Vec<Load<'_>> = Vec::new();
    for (how, seen) in ["", "OPTIN", "BCAST PREFIX cached"].into_iter().zip(&seen) {
        loads.push(caches(&pair, how, "cached", seen));
    }
    let all = &seen;
    loads.push(Box::new(move |stop| {
        let mut count = 0;
        while runs(stop) || count < 10 {
            count += 1;
            assert_eq!(writer.text("INCR cached"), format!(":{count}\r\n"));
            until("all know of the change", || {
                all.iter().all(|seen| seen.load(Ordering::Relaxed) == count)
            });
        }
        // They know the last one.
        writer.text(&format!("SET cached {}", u64::MAX));
    }));
    pair.move_under(20, loads);
    pair.tell(engine);
}

#[test]
fn valkey_9_moves_with_caches() {
    moves_with_caches(VALKEY);
}

#[test]
fn redis_6_moves_with_caches() {
    moves_with_caches("redis-6.2.");
}

#[test]
fn all_is_to_be_forgotten_after_a_move() {
    let mut pair = Pair::start(VALKEY);
    let mut client = pair.node.client();
    client.ask("HELLO 3");
    client.text("CLIENT TRACKING ON NOLOOP");
    for _ in 0..3 {
        client.text("GET k");
        pair.move_primary();
        assert_eq!(client.raw(), b">2\r\n$10\r\ninvalidate\r\n_\r\n");
        let info = client.text("CLIENT TRACKINGINFO");
        assert!(info.contains("noloop"), "{info}");
    }
}

/// What a transaction has turned on or off is so at the next primary, too.
#[test]
fn tracking_that_a_transaction_turns_on_or_off_moves() {
    let mut pair = Pair::start(VALKEY);
    let client = || {
        let mut client = pair.node.client();
        client.ask("HELLO 3");
        client
    };
    let (mut on, mut off, mut discarded) = (client(), client(), client());
    assert_eq!(off.text("CLIENT TRACKING ON"), "+OK\r\n");
    for (client, last) in [
        (&mut on, "CLIENT TRACKING ON NOLOOP"),
        (&mut off, "CLIENT TRACKING OFF"),
    ] {
        assert_eq!(client.text("MULTI"), "+OK\r\n");
        // An error when it runs.
        for line in ["CLIENT TRACKING ON BCAST OPTIN", last] {
            assert_eq!(client.text(line), "+QUEUED\r\n");
        }
        let reply = client.text("EXEC");
        assert!(reply.starts_with("*2\r\n-") && reply.ends_with("\r\n+OK\r\n"));
    }
    assert_eq!(discarded.text("MULTI"), "+OK\r\n");
    let line = "CLIENT TRACKING ON NOLOOP";
    assert_eq!(discarded.text(line), "+QUEUED\r\n");
    assert_eq!(discarded.text("DISCARD"), "+OK\r\n");
    assert_eq!(discarded.text("CLIENT TRACKING ON"), "+OK\r\n");
    for _ in 0..2 {
        on.text("GET k");
        pair.move_primary();
        for client in [&mut on, &mut discarded] {
            assert_eq!(client.raw(), b">2\r\n$10\r\ninvalidate\r\n_\r\n");
        }
        let info = on.text("CLIENT TRACKINGINFO");
        assert!(info.contains("noloop"), "{info}");
        let info = discarded.text("CLIENT TRACKINGINFO");
        assert!(info.contains("\non\r\n"), "{info}");
        assert!(!info.contains("noloop"), "{info}");
        let info = off.text("CLIENT TRACKINGINFO");
        assert!(info.contains("off\r\n"), "{info}");
    }
}

/// A command that is longer than what is held of others: all its names are known.
#[test]
fn names_of_long_commands_move() {
    let mut pair = Pair::start(VALKEY);
    let mut client = pair.node.client();
    let names: Vec<String> = (0..6_000).map(|n| format!("channel:{n:020}")).collect();
    for (word, names) in [("SUBSCRIBE", &names[..]), ("UNSUBSCRIBE", &names[..4_000])] {
        client.send(&words(&format!("{word} {}", names.join(" "))));
        for name in names {
            assert_eq!(parts(&client.reply())[1], name.as_bytes());
        }
    }
    let mut publisher = pair.node.client();
    for _ in 0..2 {
        pair.move_primary();
        for (name, listeners) in [(0, 0), (3_999, 0), (4_000, 1), (5_999, 1)] {
            let line = format!("PUBLISH {} x", names[name]);
            assert_eq!(publisher.text(&line), format!(":{listeners}\r\n"), "{name}");
        }
        for name in [4_000, 5_999] {
            assert_eq!(parts(&client.reply())[1], names[name].as_bytes());
        }
    }
}

/// The new primary cannot be reached as it takes over: what is published there would never come.
#[test]
fn who_would_be_deaf_after_a_move_is_closed() {
    let mut pair = Pair::start(VALKEY);
    let (mut one, mut three) = (
        subscriber(&pair, 2, "SUBSCRIBE c"),
        subscriber(&pair, 3, "PSUBSCRIBE *"),
    );
    let mut monitor = pair.node.client();
    assert_eq!(monitor.text("MONITOR"), "+OK\r\n");
    assert_eq!(pair.hold(60_000).refusal, None);
    let nowhere = pair.nowhere();
    assert_eq!(pair.release(&nowhere).refusal, None);
    for client in [&mut one, &mut three, &mut monitor] {
        while client.try_raw().is_some() {}
    }
    let text = "a client is closed: its subscriptions or its tracking were lost";
    until("it is told of all", || {
        pair.node.log().matches(text).count() == 3
    });
}

#[test]
fn monitors_go_on() {
    let mut pair = Pair::start(VALKEY);
    let mut monitor = pair.node.client();
    assert_eq!(monitor.text("MONITOR"), "+OK\r\n");
    let mut client = pair.node.client();
    for round in 0..4 {
        let mark = format!("mark{round}");
        client.text(&format!("GET {mark}"));
        while !String::from_utf8_lossy(&monitor.raw()).contains(&mark) {}
        pair.move_primary();
    }
}

/// The next move begins while subscriptions still follow the last one: it waits for them.
fn undone_one_right_after_the_other(engine: &'static str) {
    let mut pair = Pair::start(engine);
    let (mut one, mut three) = (
        subscriber(&pair, 2, "SUBSCRIBE c"),
        subscriber(&pair, 3, "PSUBSCRIBE *"),
    );
    for count in 1..=24 {
        if count % 3 == 0 {
            let next = pair.shard(1, pair.epoch + 1);
            assert_eq!(pair.prepare(&next).refusal, None);
        }
        assert_eq!(pair.hold(60_000).refusal, None);
        pair.direct[0].text(&format!("PUBLISH c {count}"));
        let undo = pair.shard(0, pair.epoch + 2);
        assert_eq!(pair.release(&undo).refusal, None);
    }
    for number in 1..=24_u32 {
        let wanted = number.to_string().into_bytes();
        assert_eq!(parts(&one.reply())[2], wanted);
        assert_eq!(parts(&three.reply())[3], wanted);
    }
    one.send(&words("SUBSCRIBE d"));
    assert_eq!(one.raw(), b"*3\r\n$9\r\nsubscribe\r\n$1\r\nd\r\n:2\r\n");
}

#[test]
fn moves_that_are_undone_one_right_after_the_other_lose_no_message() {
    undone_one_right_after_the_other(VALKEY);
}

#[test]
fn redis_6_moves_that_are_undone_one_right_after_the_other_lose_no_message() {
    undone_one_right_after_the_other("redis-6.2.");
}

/// The old primary stays: what was published meanwhile comes, too.
#[test]
fn subscribers_stay_when_a_move_is_undone() {
    let mut pair = Pair::start(VALKEY);
    let (mut one, mut three) = (
        subscriber(&pair, 2, "SUBSCRIBE c"),
        subscriber(&pair, 3, "PSUBSCRIBE *"),
    );
    let mut publisher = pair.node.client();
    let mut count = 0;
    for prepared in [true, false, true, false] {
        if prepared {
            let next = pair.shard(1, pair.epoch + 1);
            assert_eq!(pair.prepare(&next).refusal, None);
        }
        assert_eq!(pair.hold(60_000).refusal, None);
        // By somebody else: another proxy holds later.
        count += 1;
        pair.direct[0].text(&format!("PUBLISH c {count}"));
        let undo = pair.shard(0, pair.epoch + 2);
        assert_eq!(pair.release(&undo).refusal, None);
        for _ in 0..50 {
            count += 1;
            publisher.text(&format!("PUBLISH c {count}"));
        }
        for number in count - 50..=count {
            let wanted = number.to_string().into_bytes();
            assert_eq!(parts(&one.reply())[2], wanted);
            assert_eq!(parts(&three.reply())[3], wanted);
        }
    }
    one.send(&words("SUBSCRIBE d"));
    assert_eq!(one.raw(), b"*3\r\n$9\r\nsubscribe\r\n$1\r\nd\r\n:2\r\n");
}
