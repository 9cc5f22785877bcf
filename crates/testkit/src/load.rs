//! A cheap load: each client appends its values to a list, one after the other at a steady pace, over a
//! connection of its own, and writes down what it saw. All clients share one thread.

use crate::history::{Append, Micros, Outcome, Value};
use anyhow::Context as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Longest answer that is read, bytes.
const ANSWER_MAX: usize = 4096;
/// Between two attempts to connect.
const AGAIN: Duration = Duration::from_millis(20);
/// An attempt to connect is given up after this.
const CONNECTING: Duration = Duration::from_secs(2);

/// The time of a history, and what the wall's clock says of its beginning.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    began: Instant,
    wall: jiff::Timestamp,
}

impl Clock {
    /// Begins now.
    #[must_use]
    pub fn start() -> Self {
        Self {
            began: Instant::now(),
            wall: jiff::Timestamp::now(),
        }
    }

    /// Now.
    #[must_use]
    pub fn now(&self) -> Micros {
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// A moment that an event names (RFC 3339); before the beginning it is the beginning.
    #[must_use]
    pub fn of_event(&self, time: &str) -> Option<Micros> {
        let time: jiff::Timestamp = time.parse().ok()?;
        let since = time.as_microsecond() - self.wall.as_microsecond();
        Some(u64::try_from(since).unwrap_or(0))
    }
}

/// What is to be written.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Endpoints; clients are spread over them.
    pub targets: Vec<SocketAddr>,
    /// Clients.
    pub clients: u16,
    /// Lists; clients are spread over them.
    pub lists: u16,
    /// Between two appends of a client.
    pub every: Duration,
    /// A client gives an answer up after this, and connects anew.
    pub patience: Duration,
}

/// The key of a list.
#[must_use]
pub fn key(list: u16) -> String {
    format!("list:{list}")
}

/// A load that runs.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
    thread: JoinHandle<anyhow::Result<Vec<Append>>>,
}

impl Load {
    /// Starts it.
    ///
    /// # Errors
    /// When there is no endpoint or no thread.
    pub fn start(plan: Plan, clock: Clock) -> anyhow::Result<Self> {
        anyhow::ensure!(
            !plan.targets.is_empty() && plan.lists > 0,
            "no endpoint or no list"
        );
        let stop = Arc::new(AtomicBool::new(false));
        let acknowledged = Arc::new(AtomicU64::new(0));
        let shared = (Arc::clone(&stop), Arc::clone(&acknowledged));
        let thread = std::thread::Builder::new()
            .name("load".to_owned())
            .spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()?;
                runtime.block_on(all(plan, clock, shared))
            })?;
        Ok(Self {
            stop,
            acknowledged,
            thread,
        })
    }

    /// How many appends have been acknowledged.
    #[must_use]
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// Ends it: what each client saw.
    ///
    /// # Errors
    /// When the load itself failed.
    pub fn stop(self) -> anyhow::Result<Vec<Append>> {
        self.stop.store(true, Ordering::Relaxed);
        match self.thread.join() {
            Ok(seen) => seen,
            Err(_) => anyhow::bail!("the load's thread panicked"),
        }
    }
}

type Shared = (Arc<AtomicBool>, Arc<AtomicU64>);

async fn all(plan: Plan, clock: Clock, shared: Shared) -> anyhow::Result<Vec<Append>> {
    let mut clients = Vec::new();
    for number in 0..plan.clients {
        let node = usize::from(number) % plan.targets.len();
        let client = Client {
            number,
            node,
            target: plan.targets[node],
            list: number % plan.lists,
            every: plan.every,
            patience: plan.patience,
            clock,
            shared: shared.clone(),
            seen: Vec::new(),
        };
        // Spread over the pace, so that appends do not come in waves.
        let after = plan.every * u32::from(number) / u32::from(plan.clients);
        clients.push(tokio::spawn(client.run(after)));
    }
    let mut seen = Vec::new();
    for client in clients {
        seen.extend(client.await.context("a client panicked")?);
    }
    Ok(seen)
}

struct Client {
    number: u16,
    node: usize,
    target: SocketAddr,
    list: u16,
    every: Duration,
    patience: Duration,
    clock: Clock,
    shared: Shared,
    seen: Vec<Append>,
}

impl Client {
    fn stopped(&self) -> bool {
        self.shared.0.load(Ordering::Relaxed)
    }

    async fn run(mut self, after: Duration) -> Vec<Append> {
        let mut pace = tokio::time::interval_at(tokio::time::Instant::now() + after, self.every);
        pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        let mut connection = None;
        let mut number = 0;
        while !self.stopped() {
            let Some(stream) = &mut connection else {
                connection = self.connect().await;
                continue;
            };
            pace.tick().await;
            number += 1;
            let value = Value {
                client: self.number,
                number,
            };
            let sent = self.clock.now();
            let outcome = match timeout(self.patience, append(stream, self.list, value)).await {
                Ok(outcome) => outcome,
                Err(_) => Outcome::Silent,
            };
            match outcome {
                Outcome::Acknowledged(_) => {
                    self.shared.1.fetch_add(1, Ordering::Relaxed);
                }
                Outcome::Closed(_) | Outcome::Silent | Outcome::Stray(_) => connection = None,
                Outcome::NotRun(_) | Outcome::Unknown(_) | Outcome::Odd(_) => {}
            }
            self.seen.push(Append {
                list: self.list,
                value,
                node: self.node,
                sent,
                answered: self.clock.now(),
                outcome,
            });
        }
        self.seen
    }

    async fn connect(&self) -> Option<TcpStream> {
        match timeout(CONNECTING, TcpStream::connect(self.target)).await {
            Ok(Ok(stream)) if stream.set_nodelay(true).is_ok() => Some(stream),
            _ => {
                tokio::time::sleep(AGAIN).await;
                None
            }
        }
    }
}

/// What a client sends to append a value.
#[must_use]
pub fn command(list: u16, value: Value) -> String {
    let (key, value) = (key(list), value.to_string());
    format!(
        "*3\r\n$5\r\nRPUSH\r\n${}\r\n{key}\r\n${}\r\n{value}\r\n",
        key.len(),
        value.len()
    )
}

async fn append(stream: &mut TcpStream, list: u16, value: Value) -> Outcome {
    let command = command(list, value);
    if let Err(error) = stream.write_all(command.as_bytes()).await {
        return Outcome::Closed(error.to_string());
    }
    let mut answer = Vec::with_capacity(64);
    loop {
        match stream.read_buf(&mut answer).await {
            Ok(0) => return Outcome::Closed("end of the connection".to_owned()),
            Err(error) => return Outcome::Closed(error.to_string()),
            Ok(_) => {}
        }
        if let Some(end) = answer.windows(2).position(|two| two == b"\r\n") {
            return outcome(&answer[..end], &answer[end + 2..]);
        }
        if answer.len() > ANSWER_MAX {
            return Outcome::Stray(String::from_utf8_lossy(&answer[..100]).into_owned());
        }
    }
}

/// What an answer says; `more` are bytes behind it.
fn outcome(line: &[u8], more: &[u8]) -> Outcome {
    let text = String::from_utf8_lossy(line).into_owned();
    if !more.is_empty() {
        return Outcome::Stray(format!("{text}, then {}", String::from_utf8_lossy(more)));
    }
    if let Some(length) = text.strip_prefix(':').and_then(|n| n.parse().ok()) {
        return Outcome::Acknowledged(length);
    }
    if text.starts_with("-TRYAGAIN") {
        return Outcome::NotRun(text);
    }
    if text.starts_with("-ERR") && text.contains("outcome of this command is unknown") {
        return Outcome::Unknown(text);
    }
    if text.starts_with('-') {
        return Outcome::Odd(text);
    }
    Outcome::Stray(text)
}

#[cfg(test)]
mod tests {
    use super::outcome;
    use crate::history::Outcome;

    #[test]
    fn answers_are_told_apart() {
        assert_eq!(outcome(b":7", b""), Outcome::Acknowledged(7));
        assert!(matches!(outcome(b"-TRYAGAIN x", b""), Outcome::NotRun(_)));
        let unknown =
            b"-ERR connection to the shard was lost, the outcome of this command is unknown";
        assert!(matches!(outcome(unknown, b""), Outcome::Unknown(_)));
        assert!(matches!(outcome(b"-READONLY x", b""), Outcome::Odd(_)));
        assert!(matches!(outcome(b"+OK", b""), Outcome::Stray(_)));
        assert!(matches!(outcome(b":7", b":8\r\n"), Outcome::Stray(_)));
    }
}
