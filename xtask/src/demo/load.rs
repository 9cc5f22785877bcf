//! Traffic: unique writes and reads of what was written, over connections that stay open. Counts
//! errors, lost connections, and acknowledged writes that are not there.

use anyhow::{Context, Result, bail, ensure};
use std::fmt;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Connections to each endpoint.
pub(crate) const CONNECTIONS: usize = 8;
/// Keys of a connection: each is overwritten in turn, so that memory has a bound.
const KEYS: u64 = 2_000;
/// An answer that takes longer counts as an error.
const ANSWER: Duration = Duration::from_secs(10);
/// An endpoint of a new database opens within this.
const OPEN: Duration = Duration::from_secs(30);
/// Wait before a lost connection is opened again.
const AGAIN: Duration = Duration::from_millis(50);
/// Between two requests of a connection: traffic, not a benchmark.
pub(crate) const PACE: Duration = Duration::from_millis(2);
/// Longest answer that is read, bytes.
const VALUE_MAX: u64 = 1024;

/// What happened.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) requests: u64,
    /// Answers that are errors.
    pub(crate) errors: u64,
    pub(crate) first_error: Option<String>,
    /// Connections that ended, each opened again.
    pub(crate) dropped: u64,
    /// Acknowledged writes that a later read did not find.
    pub(crate) lost: u64,
    /// Longest answer.
    longest: Duration,
    pub(crate) seconds: f64,
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.requests += other.requests;
        self.errors += other.errors;
        self.dropped += other.dropped;
        self.lost += other.lost;
        self.longest = self.longest.max(other.longest);
        self.first_error = self.first_error.take().or(other.first_error);
    }

    /// Whether all went well.
    pub(crate) fn check(&self) -> Result<()> {
        ensure!(self.requests > 0, "no request was answered");
        ensure!(
            self.lost == 0,
            "{} acknowledged writes were lost",
            self.lost
        );
        if self.errors > 0 {
            let first = self.first_error.as_deref().unwrap_or_default();
            bail!("{} requests got errors, the first: {first}", self.errors);
        }
        ensure!(
            self.dropped == 0,
            "{} connections were dropped",
            self.dropped
        );
        Ok(())
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rate = (self.requests as f64 / self.seconds.max(0.001)).round();
        write!(
            f,
            "    {} requests in {:.1} s ({rate} a second), errors {}, dropped connections {}, lost \
             acknowledged writes {}, longest answer {:.1} ms",
            self.requests,
            self.seconds,
            self.errors,
            self.dropped,
            self.lost,
            self.longest.as_secs_f64() * 1_000.0
        )
    }
}

/// Waits until an endpoint takes connections.
pub(crate) fn wait_until_open(endpoint: SocketAddr) -> Result<()> {
    let deadline = Instant::now() + OPEN;
    loop {
        match TcpStream::connect_timeout(&endpoint, ANSWER) {
            Ok(_) => return Ok(()),
            Err(error) if Instant::now() >= deadline => {
                return Err(error).with_context(|| format!("{endpoint} does not open"));
            }
            Err(_) => std::thread::sleep(AGAIN),
        }
    }
}

/// Traffic that runs.
#[derive(Debug)]
pub(crate) struct Load {
    end: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Tally>>,
    /// Longest answer of each connection since it was asked for last, µs.
    longest: Vec<Arc<AtomicU64>>,
    began: Instant,
}

impl Load {
    /// Opens so many connections to each endpoint, then begins; each writes, reads, and rests for `pace`.
    pub(crate) fn start(
        endpoints: Vec<SocketAddr>,
        connections: usize,
        pace: Duration,
    ) -> Result<Self> {
        let end = Arc::new(AtomicBool::new(false));
        let mut open = Vec::new();
        for endpoint in endpoints {
            for _ in 0..connections {
                let name = format!("demo:{}", open.len());
                let mut client = Client::new(name, endpoint, pace);
                client
                    .connect()
                    .with_context(|| format!("connect to {endpoint}"))?;
                open.push(client);
            }
        }
        let longest = open
            .iter()
            .map(|client| Arc::clone(&client.longest))
            .collect();
        let threads = open
            .into_iter()
            .map(|client| {
                let end = Arc::clone(&end);
                std::thread::spawn(move || client.run(&end))
            })
            .collect();
        Ok(Self {
            end,
            threads,
            longest,
            began: Instant::now(),
        })
    }

    /// The longest answer of each connection since this was asked last, µs.
    pub(crate) fn take_longest(&self) -> Vec<u64> {
        let all = self.longest.iter();
        all.map(|one| one.swap(0, Ordering::Relaxed)).collect()
    }

    /// Ends it; gives what happened.
    pub(crate) fn end(self) -> Result<Tally> {
        self.end.store(true, Ordering::Relaxed);
        let mut tally = Tally::default();
        for thread in self.threads {
            match thread.join() {
                Ok(one) => tally.add(one),
                Err(_) => bail!("a thread of the load broke down"),
            }
        }
        tally.seconds = self.began.elapsed().as_secs_f64();
        Ok(tally)
    }
}

struct Client {
    name: String,
    endpoint: SocketAddr,
    stream: Option<BufReader<TcpStream>>,
    pace: Duration,
    longest: Arc<AtomicU64>,
    tally: Tally,
    /// Number of the last write of each key that was acknowledged, and of the last that was sent:
    /// one without an answer may have happened or not.
    written: Vec<(u64, u64)>,
}

impl Client {
    fn new(name: String, endpoint: SocketAddr, pace: Duration) -> Self {
        let written = vec![(0, 0); usize::try_from(KEYS).unwrap_or(0)];
        Self {
            name,
            endpoint,
            stream: None,
            pace,
            longest: Arc::default(),
            tally: Tally::default(),
            written,
        }
    }

    fn connect(&mut self) -> Result<()> {
        let stream = TcpStream::connect_timeout(&self.endpoint, ANSWER)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER))?;
        stream.set_write_timeout(Some(ANSWER))?;
        self.stream = Some(BufReader::new(stream));
        Ok(())
    }

    fn run(mut self, end: &AtomicBool) -> Tally {
        let mut number = 0;
        while !end.load(Ordering::Relaxed) {
            number += 1;
            if self.stream.is_none() && self.connect().is_err() {
                std::thread::sleep(AGAIN);
                continue;
            }
            self.write(number);
            self.read(number.saturating_mul(7_919) % KEYS);
            std::thread::sleep(self.pace);
        }
        // At the end everything that was acknowledged must be there.
        for key in 0..KEYS {
            if self.stream.is_none() && self.connect().is_err() {
                std::thread::sleep(AGAIN);
                let _ = self.connect();
            }
            self.read(key);
        }
        self.tally
    }

    fn write(&mut self, number: u64) {
        let key = number % KEYS;
        let Ok(at) = usize::try_from(key) else { return };
        self.written[at].1 = number;
        let name = format!("{}:{key}", self.name);
        if let Some(Answer::Status) = self.request(&["SET", &name, &number.to_string()]) {
            self.written[at].0 = number;
        }
    }

    fn read(&mut self, key: u64) {
        let Ok(at) = usize::try_from(key) else { return };
        let (acknowledged, sent) = self.written[at];
        if acknowledged == 0 {
            return;
        }
        let name = format!("{}:{key}", self.name);
        if let Some(Answer::Value(value)) = self.request(&["GET", &name]) {
            let found = value.and_then(|value| value.parse::<u64>().ok());
            if found.is_none_or(|found| found < acknowledged || found > sent) {
                self.tally.lost += 1;
            }
        }
    }

    /// `None`: an error answer, or no answer; counted.
    fn request(&mut self, words: &[&str]) -> Option<Answer> {
        let stream = self.stream.as_mut()?;
        let began = Instant::now();
        match exchange(stream, words) {
            Ok(Answer::Error(text)) => {
                self.tally.requests += 1;
                self.tally.errors += 1;
                self.tally.first_error.get_or_insert(text);
                None
            }
            Ok(answer) => {
                self.tally.requests += 1;
                let took = began.elapsed();
                self.tally.longest = self.tally.longest.max(took);
                let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
                self.longest.fetch_max(us, Ordering::Relaxed);
                Some(answer)
            }
            Err(_) => {
                self.tally.dropped += 1;
                self.stream = None;
                None
            }
        }
    }
}

/// An answer of the engine.
enum Answer {
    Status,
    Value(Option<String>),
    Error(String),
}

fn exchange(stream: &mut BufReader<TcpStream>, words: &[&str]) -> Result<Answer> {
    let mut request = format!("*{}\r\n", words.len());
    for word in words {
        request.push_str(&format!("${}\r\n{word}\r\n", word.len()));
    }
    stream.get_mut().write_all(request.as_bytes())?;
    let mut line = String::new();
    stream.by_ref().take(VALUE_MAX).read_line(&mut line)?;
    let line = line.strip_suffix("\r\n").context("the connection ended")?;
    match line.split_at_checked(1) {
        Some(("+", _)) => Ok(Answer::Status),
        Some(("-", text)) => Ok(Answer::Error(text.to_owned())),
        Some(("$", "-1")) => Ok(Answer::Value(None)),
        Some(("$", length)) => {
            let length: u64 = length.parse()?;
            ensure!(
                length <= VALUE_MAX,
                "a value of {length} bytes was never written"
            );
            let mut value = vec![0; usize::try_from(length)? + 2];
            stream.read_exact(&mut value)?;
            value.truncate(value.len() - 2);
            Ok(Answer::Value(Some(String::from_utf8(value)?)))
        }
        _ => bail!("unexpected answer '{line}'"),
    }
}
