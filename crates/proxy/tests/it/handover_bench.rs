//! How long clients pause when the server is replaced: 10,000 connections, of which some work.
//!
//! `cargo nextest run -p proxy --cargo-profile release --run-ignored only --no-capture handover_bench`

use crate::support::client::{Client, words};
use crate::support::node::Node;
use crate::support::process;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const IDLE: usize = 9_000;
const LOADED: usize = 1_000;
const THREADS: usize = 4;
const HANDOVERS: usize = 7;
/// Before that, while nobody works.
const IDLE_HANDOVERS: usize = 5;

/// Every connection sends a command in its turn; returns how long each took, and when it was sent.
fn load(mut clients: Vec<Client>, over: &AtomicBool) -> Vec<(Instant, Duration)> {
    let mut seen = Vec::new();
    while !over.load(Ordering::Relaxed) {
        for part in clients.chunks_mut(25) {
            let sent = Instant::now();
            for client in part.iter_mut() {
                client.send(&words("SET key value"));
            }
            for client in part.iter_mut() {
                assert_eq!(client.raw(), b"+OK\r\n");
                seen.push((sent, sent.elapsed()));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
    seen
}

#[test]
#[ignore = "a measurement"]
fn ten_thousand_connections() {
    process::need_descriptors((IDLE + LOADED + 500) as u64);
    let mut node = Node::start();
    let mut idle: Vec<Client> = (0..IDLE).map(|_| node.client()).collect();
    for client in &mut idle {
        assert!(client.pings());
    }
    for _ in 0..IDLE_HANDOVERS {
        node.replace_proxy();
    }
    let over = AtomicBool::new(false);
    let mut windows = Vec::new();
    let all: Vec<(Instant, Duration)> = std::thread::scope(|scope| {
        let loads: Vec<_> = (0..THREADS)
            .map(|_| {
                let clients = (0..LOADED / THREADS).map(|_| node.client()).collect();
                let over = &over;
                scope.spawn(move || load(clients, over))
            })
            .collect();
        for _ in 0..HANDOVERS {
            std::thread::sleep(Duration::from_millis(500));
            let began = Instant::now();
            node.replace_proxy();
            windows.push((began, Instant::now()));
        }
        over.store(true, Ordering::Relaxed);
        loads
            .into_iter()
            .flat_map(|load| load.join().unwrap())
            .collect()
    });
    for client in &mut idle {
        assert!(client.pings(), "none is lost");
    }
    let log = node.log();
    for line in log
        .lines()
        .filter(|line| line.contains("all clients are handed over"))
    {
        println!("{line}");
    }
    let show = |what: &str, mut times: Vec<Duration>| {
        times.sort();
        let at = |part: usize| times[(times.len() * part / 1000).min(times.len() - 1)];
        println!(
            "{what}: {} commands, p50 {:?}, p99 {:?}, p99.9 {:?}, max {:?}",
            times.len(),
            at(500),
            at(990),
            at(999),
            times.last().unwrap()
        );
    };
    let during = |sent: &Instant, took: &Duration| {
        windows
            .iter()
            .any(|(began, ended)| *sent + *took >= *began && sent <= ended)
    };
    let (inside, outside): (Vec<_>, Vec<_>) =
        all.iter().partition(|(sent, took)| during(sent, took));
    show(
        "while servers are replaced",
        inside.iter().map(|(_, took)| *took).collect(),
    );
    show(
        "at other times",
        outside.iter().map(|(_, took)| *took).collect(),
    );
}
