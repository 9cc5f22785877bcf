//! Clients that write without a pause through something like a proxy: a gate that holds them, and that
//! lets them go on with another engine.

use crate::bench::*;
use crate::replica_set::Member;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Writers.
const WRITERS: u64 = 4;
/// Writes that a writer sends at once.
const BATCH: u64 = 10;
/// Pause of a writer after a batch: 4 × 10 in about 4 ms are 10,000 a second.
const PAUSE: Duration = Duration::from_millis(4);

/// Where writers may write.
#[derive(Debug)]
struct Gate {
    state: Mutex<State>,
    changed: Condvar,
    /// Batches that were acknowledged, by writer.
    written: [AtomicU64; WRITERS as usize],
}

#[derive(Debug)]
struct State {
    /// Number of the engine that takes writes; `None`: they are held.
    open: Option<usize>,
    /// Batches at an engine.
    in_flight: u64,
    ends: bool,
    /// When a held writer had its first reply again.
    first_reply: Option<Instant>,
}

/// The load. Its writers end when it is asked for the result.
pub(crate) struct Load {
    gate: Arc<Gate>,
    writers: Vec<JoinHandle<()>>,
}

/// What a move did to the clients.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Held {
    /// From the order to hold until nothing was in flight.
    pub(crate) drain: Duration,
    /// From the order to hold until the first reply of the new primary.
    pub(crate) whole: Duration,
}

impl Load {
    /// Starts to write to the first of some engines, as the proxies' users of consecutive epochs from
    /// this one on. Connections to the later ones are made when the gate opens towards them.
    pub(crate) fn start(members: &[&Member], epoch: u64) -> Self {
        let gate = Arc::new(Gate {
            state: Mutex::new(State {
                open: Some(0),
                in_flight: 0,
                ends: false,
                first_reply: None,
            }),
            changed: Condvar::new(),
            written: std::array::from_fn(|_| AtomicU64::new(0)),
        });
        let writers = (0..WRITERS)
            .map(|writer| {
                let gate = Arc::clone(&gate);
                let sockets: Vec<_> = members
                    .iter()
                    .map(|m| m.node.config.node.shard_socket(SHARD))
                    .collect();
                std::thread::spawn(move || write(&gate, writer, &sockets, epoch))
            })
            .collect();
        Self { gate, writers }
    }

    /// Waits until so many more writes were acknowledged.
    pub(crate) async fn goes_on(&self, writes: u64) {
        let wanted = self.written() + writes;
        eventually("writes go on", || {
            assert!(
                !self.writers.iter().any(JoinHandle::is_finished),
                "a write failed"
            );
            self.written() >= wanted
        })
        .await;
    }

    fn written(&self) -> u64 {
        let batches = self.gate.written.iter().map(|w| w.load(Ordering::Relaxed));
        batches.sum::<u64>() * BATCH
    }

    /// Holds the writers; returns when nothing is in flight.
    pub(crate) fn hold(&self) -> Instant {
        let since = Instant::now();
        let mut state = self.gate.state.lock().unwrap();
        state.open = None;
        while state.in_flight > 0 {
            state = self.gate.changed.wait(state).unwrap();
        }
        state.first_reply = None;
        since
    }

    /// Lets them go on with an engine.
    pub(crate) fn release(&self, engine: usize) {
        self.gate.state.lock().unwrap().open = Some(engine);
        self.gate.changed.notify_all();
    }

    /// When they had a reply again.
    pub(crate) async fn first_reply(&self) -> Instant {
        eventually("a reply", || {
            self.gate.state.lock().unwrap().first_reply.is_some()
        })
        .await;
        self.gate.state.lock().unwrap().first_reply.unwrap()
    }

    /// Ends the writers; how many batches of each were acknowledged.
    pub(crate) fn end(self) -> Written {
        self.gate.state.lock().unwrap().ends = true;
        self.gate.changed.notify_all();
        for writer in self.writers {
            writer.join().unwrap();
        }
        let batches = self.gate.written.iter().map(|w| w.load(Ordering::Relaxed));
        Written(batches.collect())
    }
}

/// Acknowledged batches by writer.
pub(crate) struct Written(Vec<u64>);

impl Written {
    /// Every acknowledged write, once and not twice, is in the data of this engine, and nothing else.
    pub(crate) fn is_all_in(&self, member: &Member, what: &str) {
        let mut cnm = member.node.as_cnm();
        for (writer, batches) in self.0.iter().enumerate() {
            let length: u64 = say(&mut cnm, &format!("LLEN list-{writer}")).unwrap();
            assert_eq!(length, batches * BATCH, "{what}: writes of writer {writer}");
            let list: Vec<u64> = say(&mut cnm, &format!("LRANGE list-{writer} 0 -1")).unwrap();
            let wrong = list
                .iter()
                .zip(0..)
                .find(|(value, number)| **value != *number);
            assert_eq!(wrong, None, "{what}: writer {writer}");
        }
    }

    pub(crate) fn count(&self) -> u64 {
        self.0.iter().sum::<u64>() * BATCH
    }
}

/// One writer: appends the next numbers to its list.
fn write(gate: &Gate, writer: u64, sockets: &[std::path::PathBuf], epoch: u64) {
    let connect = |engine: usize| {
        let epoch = epoch + engine as u64;
        let socket = sockets[engine].display();
        let url = format!("unix://{socket}?user=proxy%40e{epoch}&pass=proxy-password-{epoch}");
        redis::Client::open(url).unwrap().get_connection().ok()
    };
    let mut connections: Vec<Option<redis::Connection>> = sockets.iter().map(|_| None).collect();
    let mut next = 0u64;
    loop {
        let engine = {
            let mut state = gate.state.lock().unwrap();
            while state.open.is_none() && !state.ends {
                // The next connection is there before the gate opens, if its user is.
                state = gate.changed.wait(state).unwrap();
            }
            if state.ends {
                return;
            }
            state.in_flight += 1;
            state.open.unwrap()
        };
        if connections[engine].is_none() {
            connections[engine] = connect(engine);
        }
        let connection = connections[engine].as_mut().unwrap();
        let mut pipeline = redis::pipe();
        for number in next..next + BATCH {
            pipeline
                .cmd("RPUSH")
                .arg(format!("list-{writer}"))
                .arg(number)
                .ignore();
        }
        let result = pipeline.exec(connection);
        let mut state = gate.state.lock().unwrap();
        state.in_flight -= 1;
        if state.first_reply.is_none() {
            state.first_reply = Some(Instant::now());
        }
        drop(state);
        gate.changed.notify_all();
        result.unwrap();
        next += BATCH;
        gate.written[writer as usize].fetch_add(1, Ordering::Relaxed);
        for (later, connection) in connections.iter_mut().enumerate().skip(engine + 1) {
            if connection.is_none() {
                *connection = connect(later);
            }
        }
        std::thread::sleep(PAUSE);
    }
}
