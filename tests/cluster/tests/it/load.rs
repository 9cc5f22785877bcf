//! Clients that write while a test does something to their database.

use crate::story::served;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use testkit::cluster::Cluster;
use testkit::wait;

/// How long a client thinks before its next write. Clients that write flat out leave two cores, and the disk below
/// them, nothing for three nodes: their configuration store would be what is tested.
const THINKS: Duration = Duration::from_micros(300);

/// A client that writes one number after the other into a key of its own.
pub(crate) struct Writer {
    stop: Arc<AtomicBool>,
    /// How many were acknowledged so far.
    count: Arc<AtomicU64>,
    thread: JoinHandle<Written>,
}

#[derive(Debug, Default)]
pub(crate) struct Written {
    pub(crate) key: String,
    /// The last one that was acknowledged.
    pub(crate) acknowledged: u64,
    /// The last one that was sent.
    pub(crate) sent: u64,
    pub(crate) errors: Vec<String>,
    /// The longest that one took.
    pub(crate) worst: Duration,
}

pub(crate) fn writer(cluster: &Cluster, node: usize, port: u16, key: String) -> Writer {
    let mut connection = served(cluster, node, port);
    let stop = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&stop);
    let count = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&count);
    let thread = std::thread::spawn(move || {
        let mut written = Written {
            key,
            ..Written::default()
        };
        while !told.load(Ordering::Relaxed) {
            written.sent += 1;
            let began = Instant::now();
            let answer = redis::cmd("INCR")
                .arg(&written.key)
                .query::<u64>(&mut connection);
            written.worst = written.worst.max(began.elapsed());
            match answer {
                Ok(value) => {
                    written.acknowledged = value;
                    counted.fetch_add(1, Ordering::Relaxed);
                    std::thread::sleep(THINKS);
                }
                Err(error) => {
                    written.errors.push(error.to_string());
                    // It may have been carried out: go on from what is there.
                    std::thread::sleep(Duration::from_millis(5));
                }
            }
        }
        written
    });
    Writer {
        stop,
        count,
        thread,
    }
}

pub(crate) fn stop(writers: Vec<Writer>) -> Vec<Written> {
    for writer in &writers {
        writer.stop.store(true, Ordering::Relaxed);
    }
    writers
        .into_iter()
        .map(|writer| writer.thread.join().unwrap())
        .collect()
}

pub(crate) fn value(connection: &mut redis::Connection, key: &str) -> u64 {
    redis::cmd("GET").arg(key).query(connection).unwrap()
}

/// How many writes each has had acknowledged.
pub(crate) fn counts(writers: &[Writer]) -> Vec<u64> {
    let count = |writer: &Writer| writer.count.load(Ordering::Relaxed);
    writers.iter().map(count).collect()
}

/// Waits until every writer has had more writes acknowledged since.
pub(crate) fn go_on(writers: &[Writer], why: &str) {
    go_on_by(writers, 1, why);
}

/// Waits until every writer has had so many more writes acknowledged.
pub(crate) fn go_on_by(writers: &[Writer], more: u64, why: &str) {
    let before = counts(writers);
    wait::until(why, Duration::from_secs(30), || {
        let now = counts(writers);
        if before
            .iter()
            .zip(&now)
            .all(|(then, now)| *now >= then + more)
        {
            return Ok(());
        }
        Err(format!("{before:?}, then {now:?}"))
    })
    .unwrap();
}
