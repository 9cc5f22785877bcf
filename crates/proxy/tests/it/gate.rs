//! Planned moves of a primary under load: no error, nothing lost, nothing twice, order kept.

use crate::support::client::{Client, words};
use crate::support::node::VALKEY;
use crate::support::pair::{Pair, spread};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// Every command of one client, one by one: each reply must be the one before plus one.
fn chain(mut client: Client, key: &str, resp: u8, stop: &AtomicBool) -> (u64, Vec<u64>) {
    if resp == 3 {
        client.ask("HELLO 3");
    }
    let (mut count, mut times) = (0, Vec::new());
    while !stop.load(Ordering::Relaxed) {
        count += 1;
        let begun = Instant::now();
        let reply = client.text(&format!("INCR {key}"));
        times.push(u64::try_from(begun.elapsed().as_micros()).unwrap());
        assert_eq!(reply, format!(":{count}\r\n"));
    }
    (count, times)
}

/// A thousand commands at once, again and again.
fn deep(mut client: Client, key: &str, stop: &AtomicBool) -> u64 {
    let mut count = 0;
    while !stop.load(Ordering::Relaxed) {
        let mut batch = Vec::new();
        for number in 0..1000 {
            batch.extend(words(&format!("RPUSH {key} {}", count + number)));
        }
        client.send(&batch);
        for _ in 0..1000 {
            count += 1;
            let reply = client.raw();
            assert_eq!(String::from_utf8_lossy(&reply), format!(":{count}\r\n"));
        }
    }
    let list = client.text(&format!("LRANGE {key} 0 -1"));
    let values: Vec<&str> = list.split("\r\n").skip(2).step_by(2).collect();
    assert_eq!(values.len() as u64, count);
    for (number, value) in values.into_iter().enumerate() {
        assert_eq!(value, number.to_string());
    }
    count
}

fn plain_load(pair: &mut Pair, moves: usize) {
    let stop = AtomicBool::new(false);
    let chains: Vec<(Client, String, u8)> = (0..6)
        .map(|n| {
            (
                pair.node.client(),
                format!("chain{n}"),
                2 + u8::from(n % 3 == 0),
            )
        })
        .collect();
    let deeps: Vec<(Client, String)> = (0..2)
        .map(|n| (pair.node.client(), format!("deep{n}")))
        .collect();
    let (counts, mut times) = std::thread::scope(|scope| {
        let stop = &stop;
        let chains: Vec<_> = chains
            .into_iter()
            .map(|(client, key, resp)| scope.spawn(move || chain(client, &key, resp, stop)))
            .collect();
        let deeps: Vec<_> = deeps
            .into_iter()
            .map(|(client, key)| scope.spawn(move || deep(client, &key, stop)))
            .collect();
        let moved = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for _ in 0..moves {
                pair.move_primary();
            }
        }));
        stop.store(true, Ordering::Relaxed);
        let (mut counts, mut times) = (Vec::new(), Vec::new());
        for chain in chains {
            let (count, took) = chain.join().unwrap();
            counts.push(count);
            times.extend(took);
        }
        for deep in deeps {
            assert!(deep.join().unwrap() > 0);
        }
        if let Err(panic) = moved {
            std::panic::resume_unwind(panic);
        }
        (counts, times)
    });
    let mut client = pair.node.client();
    for (number, count) in counts.iter().enumerate() {
        let value = client.text(&format!("GET chain{number}"));
        let text = count.to_string();
        assert_eq!(value, format!("${}\r\n{text}\r\n", text.len()));
    }
    println!("  a command, µs: {} of {}", spread(&mut times), times.len());
    for direct in &mut pair.direct {
        // Only the first copy was a full one.
        let stats = direct.text("INFO stats");
        let full = stats.split("sync_full:").nth(1).unwrap();
        assert!(full.starts_with('0') || full.starts_with('1'), "{full}");
    }
}

fn moves_under_plain_load(engine: &'static str, moves: usize) {
    let mut pair = Pair::of(engine, engine, 2);
    plain_load(&mut pair, moves);
    pair.tell(engine);
}

#[test]
fn valkey_9_moves_under_load() {
    moves_under_plain_load(VALKEY, 50);
}

#[test]
fn valkey_8_moves_under_load() {
    moves_under_plain_load("valkey-8.0.", 20);
}

#[test]
fn redis_7_moves_under_load() {
    moves_under_plain_load("redis-7.0.", 20);
}

#[test]
fn redis_6_moves_under_load() {
    moves_under_plain_load("redis-6.2.", 20);
}

/// Nothing is prepared: connections are opened when the gate is.
#[test]
fn a_move_that_nobody_prepared() {
    let mut pair = Pair::start(VALKEY);
    let mut client = pair.node.client();
    assert_eq!(client.text("INCR n"), ":1\r\n");
    for round in 2..6 {
        let next = pair.shard(1 - pair.primary, pair.epoch + 1);
        assert_eq!(pair.hold(30_000).refusal, None);
        client.send(&words("INCR n"));
        pair.fail_over();
        assert_eq!(pair.release(&next).refusal, None);
        assert_eq!(client.raw(), format!(":{round}\r\n").into_bytes());
    }
}
