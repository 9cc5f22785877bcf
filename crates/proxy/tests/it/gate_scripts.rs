//! Planned moves of a primary whose clients run scripts by their hashes.

use crate::support::node::VALKEY;
use crate::support::pair::{Load, Pair};
use std::sync::atomic::Ordering;

const BODY: &str = "\"return redis.call('INCR', KEYS[1])\"";

fn moves_with_scripts(engine: &'static str) {
    let mut pair = Pair::of(engine, engine, 2);
    let mut client = pair.node.client();
    let loaded = client.text(&format!("SCRIPT LOAD {BODY}"));
    let sha = loaded.split("\r\n").nth(1).unwrap().to_owned();
    // This one is only ever seen in EVAL.
    let other = "\"return redis.call('INCR', KEYS[1]) + 0\"";
    assert_eq!(client.text(&format!("EVAL {other} 1 seen")), ":1\r\n");
    let seen = pair.node.client().text(&format!("SCRIPT LOAD {other}"));
    let seen = seen.split("\r\n").nth(1).unwrap().to_owned();
    let mut loads: Vec<Load<'_>> = Vec::new();
    for (number, sha) in [&sha, &sha, &seen].into_iter().enumerate() {
        let mut client = pair.node.client();
        loads.push(Box::new(move |stop| {
            let mut count = 0;
            while !stop.load(Ordering::Relaxed) {
                count += 1;
                let line = format!("EVALSHA {sha} 1 script{number}");
                if count % 2 == 0 {
                    assert_eq!(client.text(&line), format!(":{count}\r\n"));
                } else {
                    assert_eq!(client.text("MULTI"), "+OK\r\n");
                    assert_eq!(client.text(&line), "+QUEUED\r\n");
                    assert_eq!(client.text("EXEC"), format!("*1\r\n:{count}\r\n"));
                }
            }
        }));
    }
    // New ones are loaded all the while, also when the next primary has got the others already.
    let mut client = pair.node.client();
    loads.push(Box::new(move |stop| {
        let mut count = 0;
        while !stop.load(Ordering::Relaxed) {
            count += 1;
            let loaded = client.text(&format!("SCRIPT LOAD \"return {count}\""));
            let sha = loaded.split("\r\n").nth(1).unwrap().to_owned();
            assert_eq!(
                client.text(&format!("EVALSHA {sha} 0")),
                format!(":{count}\r\n")
            );
        }
    }));
    pair.move_under(20, loads);
    pair.tell(engine);
    // What is forgotten stays so.
    let mut client = pair.node.client();
    assert_eq!(client.text("SCRIPT FLUSH"), "+OK\r\n");
    for _ in 0..2 {
        let reply = client.text(&format!("EVALSHA {sha} 1 k"));
        assert!(reply.starts_with("-NOSCRIPT"), "{reply}");
        pair.direct[1 - pair.primary].text("SCRIPT FLUSH");
        pair.move_primary();
    }
}

#[test]
fn valkey_9_moves_with_scripts() {
    moves_with_scripts(VALKEY);
}

#[test]
fn valkey_8_moves_with_scripts() {
    moves_with_scripts("valkey-8.0.");
}

#[test]
fn redis_7_moves_with_scripts() {
    moves_with_scripts("redis-7.0.");
}

#[test]
fn redis_6_moves_with_scripts() {
    moves_with_scripts("redis-6.2.");
}

/// Without preparation, and by a configuration alone.
#[test]
fn scripts_come_with_any_new_primary() {
    let mut pair = Pair::start(VALKEY);
    let mut client = pair.node.client();
    let loaded = client.text(&format!("SCRIPT LOAD {BODY}"));
    let sha = loaded.split("\r\n").nth(1).unwrap().to_owned();
    let next = pair.shard(1, 2);
    assert_eq!(pair.hold(30_000).refusal, None);
    pair.fail_over();
    assert_eq!(pair.release(&next).refusal, None);
    assert_eq!(client.text(&format!("EVALSHA {sha} 1 k")), ":1\r\n");
    pair.publish();
    pair.direct[1].text("SCRIPT FLUSH");
    pair.epoch = 3;
    pair.publish();
    assert_eq!(client.text(&format!("EVALSHA {sha} 1 k")), ":2\r\n");
}
