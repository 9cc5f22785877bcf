//! Figures: `cargo test -p resp --release --test it -- --ignored --nocapture nanoseconds`.

use resp::command::{classify, find};
use resp::keys::{place, place_of_part};
use resp::request::encode;
use std::hint::black_box;
use std::time::{Duration, Instant};

/// How long each is measured, several times; the best counts.
const ROUND: Duration = Duration::from_millis(60);
const ROUNDS: usize = 7;

fn best(name: &str, mut work: impl FnMut()) {
    let mut best = f64::INFINITY;
    for _ in 0..ROUNDS {
        let (mut count, began) = (0_u32, Instant::now());
        while began.elapsed() < ROUND {
            for _ in 0..1000 {
                work();
            }
            count += 1000;
        }
        best = best.min(began.elapsed().as_secs_f64() * 1e9 / f64::from(count));
    }
    println!("{name:>32} {best:>8.1} ns");
}

fn frame(words: &[&str]) -> Vec<u8> {
    let mut frame = Vec::new();
    encode(words.iter().map(|word| word.as_bytes()), &mut frame);
    frame
}

#[test]
#[ignore = "prints figures"]
fn nanoseconds() {
    for name in [
        "GET",
        "set",
        "HSET",
        "EXPIRE",
        "XREADGROUP",
        "ZREMRANGEBYSCORE",
        "NOSUCH",
    ] {
        let bytes = name.as_bytes();
        best(&format!("classify {name}"), || {
            black_box(classify(black_box(bytes)));
        });
        best(&format!("find {name}"), || {
            black_box(find(black_box(bytes)));
        });
    }
    let key = |number: u32| format!("{{user:10}}.k{number}");
    let keys: Vec<String> = (0..10).map(key).collect();
    let mut mget = vec!["MGET"];
    mget.extend(keys.iter().map(String::as_str));
    let script = "return redis.call('get', KEYS[1])";
    for (name, words) in [
        ("GET", vec!["GET", "user:1000:name"]),
        (
            "SET",
            vec!["SET", "user:1000:name", "a value of some bytes"],
        ),
        ("PING", vec!["PING"]),
        ("MGET of 10", mget),
        (
            "EVAL",
            vec!["EVAL", script, "1", "user:1000:name", "argument"],
        ),
        (
            "XREAD",
            vec!["XREAD", "COUNT", "10", "STREAMS", "user:1000:log", "$"],
        ),
        (
            "OBJECT ENCODING",
            vec!["OBJECT", "ENCODING", "user:1000:name"],
        ),
    ] {
        let frame = frame(&words);
        best(&format!("place {name}"), || {
            black_box(place(black_box(&frame)));
        });
    }
    let set = frame(&["SET", "user:1000:name", "a value of some bytes"]);
    best("place_of_part SET", || {
        black_box(place_of_part(black_box(&set[..set.len() - 4])));
    });
    best("key_slot of 14 bytes", || {
        black_box(resp::slot::key_slot(black_box(b"user:1000:name")));
    });
}
