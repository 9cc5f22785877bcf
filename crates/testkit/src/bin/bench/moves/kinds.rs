//! Clients of every kind while primaries move: each one knows what its next answer must be, and counts
//! what it is not. Nothing may be lost, and nothing may come twice.

use super::Options;
use super::measure::{judge, latencies, quantile};
use super::planned::warm;
use anyhow::Context as _;
use redis::{Connection, cmd};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use testkit::cluster::Cluster;
use testkit::database::PORT;
use testkit::load::{Clock, Load};
use testkit::report::Report;

/// What is waited for at most.
const WAIT: Duration = Duration::from_secs(10);
/// Commands that are sent at once.
const PIPELINE: usize = 1_000;
/// Between two rounds of a client.
const PACE: Duration = Duration::from_millis(2);

/// What a client did and what was not as it must be.
#[derive(Default)]
struct Seen {
    rounds: u64,
    wrong: u64,
    first: Option<String>,
}

impl Seen {
    fn wrong(&mut self, what: impl Into<String>) {
        self.wrong += 1;
        let what = what.into();
        self.first.get_or_insert(what);
    }

    /// One round: `expected` is what `got` must be.
    fn expect<T: PartialEq + std::fmt::Debug>(&mut self, got: redis::RedisResult<T>, expected: &T) {
        self.rounds += 1;
        match got {
            Ok(value) if value == *expected => {}
            other => self.wrong(format!("{other:?} where {expected:?} was due")),
        }
    }
}

type Stop = Arc<AtomicBool>;

fn going(stop: &Stop) -> bool {
    std::thread::sleep(PACE);
    !stop.load(Ordering::Relaxed)
}

struct Ends {
    /// One connection through each proxy.
    connections: Vec<Connection>,
    address: SocketAddr,
}

type Kind = (&'static str, fn(Ends, &Stop) -> anyhow::Result<Seen>);
const KINDS: [Kind; 10] = [
    ("MULTI, EXEC", transactions),
    ("WATCH", watched),
    ("BLPOP", blocked),
    ("XREAD BLOCK", streamed),
    ("SUBSCRIBE", subscribed),
    ("CLIENT TRACKING", tracked),
    ("EVAL", scripts),
    ("EVALSHA", loaded_scripts),
    ("EVAL, EVALSHA inside MULTI", scripts_in_transactions),
    ("a pipeline of 1,000", pipelined),
];

pub(crate) fn run(options: &Options, report: &mut Report) -> anyhow::Result<()> {
    let runs = if options.quick { 5 } else { 20 };
    let cluster = Cluster::start(3)?;
    cluster.create_replicated(&[])?;
    cluster.whole(WAIT * 3)?;
    let clock = Clock::start();
    let load = Load::start(super::plan(&cluster, &[0, 1, 2]), clock)?;
    warm(&load)?;
    let stop: Stop = Arc::default();
    let clients = start(&cluster, &stop)?;
    let mut worst: f64 = 0.0;
    let from = clock.now();
    let mut moves = Ok(());
    for _ in 0..runs {
        std::thread::sleep(Duration::from_millis(300));
        let moved = cluster
            .primary_shard()
            .and_then(|shard| cluster.move_shard(shard.uid))
            .and_then(|moved| cluster.whole(WAIT * 3).map(|()| moved));
        match moved {
            Ok(moved) => worst = worst.max(moved.held_us as f64 / 1e3),
            Err(error) => moves = Err(error),
        }
    }
    let to = clock.now();
    stop.store(true, Ordering::Relaxed);
    let title = format!("every kind of client, {runs} moves");
    for (name, client) in clients {
        let seen = client
            .join()
            .map_err(|_| anyhow::anyhow!("{name} panicked"))?;
        let seen = seen.with_context(|| name.to_owned())?;
        println!(
            "    {name}: {} rounds, {} wrong {:?}",
            seen.rounds, seen.wrong, seen.first
        );
        let none = u64::from(seen.rounds == 0);
        let wrong = (seen.wrong + none) as f64;
        report.at_most(&format!("{title}: {name}, wrong answers"), wrong, "", 0.0);
    }
    let appends = load.stop()?;
    let (verdict, appends) = judge(&cluster, &clock, appends, Vec::new())?;
    let longest = quantile(&latencies(&appends, from, to), 1.0);
    report.at_most(
        &format!("{title}: longest answer to a write"),
        longest,
        "ms",
        30.0,
    );
    report.at_most(
        &format!("{title}: held at most, says the platform"),
        worst,
        "ms",
        10.0,
    );
    let errors: usize = verdict.counts.values().sum();
    report.at_most(
        &format!("{title}: errors and losses of writers"),
        errors as f64,
        "",
        0.0,
    );
    moves
}

type Client = (&'static str, JoinHandle<anyhow::Result<Seen>>);

/// One client of each kind.
fn start(cluster: &Cluster, stop: &Stop) -> anyhow::Result<Vec<Client>> {
    let mut clients = Vec::new();
    for (number, (name, kind)) in KINDS.into_iter().enumerate() {
        let node = number % 3;
        let ends = Ends {
            connections: vec![
                cluster.connect(node, PORT)?,
                cluster.connect((node + 1) % 3, PORT)?,
            ],
            address: cluster.endpoints()[node],
        };
        let stop = Arc::clone(stop);
        clients.push((name, std::thread::spawn(move || kind(ends, &stop))));
    }
    Ok(clients)
}

fn transactions(mut ends: Ends, stop: &Stop) -> anyhow::Result<Seen> {
    let (mut seen, c) = (Seen::default(), &mut ends.connections[0]);
    let mut expected = 0_u64;
    while going(stop) {
        expected += 1;
        cmd("MULTI").query::<()>(c)?;
        cmd("INCR").arg("multi:{a}1").query::<()>(c)?;
        cmd("INCR").arg("multi:{a}2").query::<()>(c)?;
        let got: redis::RedisResult<Vec<u64>> = cmd("EXEC").query(c);
        seen.expect(got, &vec![expected, expected]);
    }
    Ok(seen)
}

fn watched(mut ends: Ends, stop: &Stop) -> anyhow::Result<Seen> {
    let (mut seen, c) = (Seen::default(), &mut ends.connections[0]);
    let mut expected = 0_u64;
    while going(stop) {
        cmd("WATCH").arg("watched").query::<()>(c)?;
        let now: Option<u64> = cmd("GET").arg("watched").query(c)?;
        seen.expect(Ok(now.unwrap_or(0)), &expected);
        cmd("MULTI").query::<()>(c)?;
        cmd("SET").arg("watched").arg(expected + 1).query::<()>(c)?;
        // Null: a move, of which nobody knows whether it changed the key. Then it has not run.
        let ran: Option<Vec<String>> = cmd("EXEC").query(c)?;
        expected += u64::from(ran.is_some());
    }
    Ok(seen)
}

fn blocked(mut ends: Ends, stop: &Stop) -> anyhow::Result<Seen> {
    let mut seen = Seen::default();
    let (takers, givers) = ends.connections.split_at_mut(1);
    let giver = &mut givers[0];
    let mut sent = 0_u64;
    std::thread::scope(|scope| {
        let taker = scope.spawn(|| {
            let mut seen = Seen::default();
            let mut expected = 0_u64;
            loop {
                let got: redis::RedisResult<Option<(String, i64)>> =
                    cmd("BLPOP").arg("queue").arg(10).query(&mut takers[0]);
                match got {
                    Ok(Some((_, -1))) => return seen,
                    Ok(None) => {
                        seen.wrong("nothing came for 10 s");
                        return seen;
                    }
                    other => {
                        expected += 1;
                        let due = Some(("queue".to_owned(), expected.cast_signed()));
                        seen.expect(other, &due);
                    }
                }
            }
        });
        while going(stop) {
            sent += 1;
            if let Err(error) = cmd("RPUSH").arg("queue").arg(sent).query::<()>(giver) {
                seen.wrong(error.to_string());
            }
        }
        let ended = cmd("RPUSH").arg("queue").arg(-1).query::<()>(giver);
        if let Err(error) = ended {
            seen.wrong(error.to_string());
        }
        if let Ok(taken) = taker.join() {
            seen.rounds = taken.rounds;
            seen.wrong += taken.wrong;
            seen.first = seen.first.take().or(taken.first);
        }
    });
    if seen.rounds != sent {
        seen.wrong(format!("{sent} given, {} taken", seen.rounds));
    }
    Ok(seen)
}

type Entries = Vec<(String, Vec<(String, Vec<String>)>)>;

fn streamed(mut ends: Ends, stop: &Stop) -> anyhow::Result<Seen> {
    let mut seen = Seen::default();
    let (takers, givers) = ends.connections.split_at_mut(1);
    let giver = &mut givers[0];
    let taker_stop = Arc::clone(stop);
    let mut sent = 0_u64;
    std::thread::scope(|scope| {
        let taker = scope.spawn(move || {
            let (mut numbers, mut last) = (Vec::new(), "0".to_owned());
            loop {
                let answer: redis::RedisResult<Option<Entries>> = cmd("XREAD")
                    .arg(&["BLOCK", "500", "STREAMS", "stream", &last])
                    .query(&mut takers[0]);
                match answer {
                    Err(error) => return (numbers, Some(error.to_string())),
                    Ok(None) if taker_stop.load(Ordering::Relaxed) => return (numbers, None),
                    Ok(entries) => {
                        for (id, fields) in entries.into_iter().flatten().flat_map(|s| s.1) {
                            numbers.push(fields.last().and_then(|n| n.parse().ok()).unwrap_or(0));
                            last = id;
                        }
                    }
                }
            }
        });
        while going(stop) {
            sent += 1;
            let added = cmd("XADD")
                .arg(&["stream", "*", "n"])
                .arg(sent)
                .query::<()>(giver);
            if let Err(error) = added {
                seen.wrong(error.to_string());
            }
        }
        if let Ok((numbers, error)) = taker.join() {
            seen.rounds = numbers.len() as u64;
            if let Some(error) = error {
                seen.wrong(error);
            }
            let due: Vec<u64> = (1..=sent).collect();
            if numbers != due {
                seen.wrong(format!(
                    "{} of {sent} entries, or not in their order",
                    numbers.len()
                ));
            }
        }
    });
    Ok(seen)
}

fn subscribed(mut ends: Ends, stop: &Stop) -> anyhow::Result<Seen> {
    let mut seen = Seen::default();
    let (listeners, speakers) = ends.connections.split_at_mut(1);
    let speaker = &mut speakers[0];
    let mut pubsub = listeners[0].as_pubsub();
    pubsub.subscribe("news")?;
    pubsub.set_read_timeout(Some(WAIT))?;
    let mut sent = 0_u64;
    std::thread::scope(|scope| {
        let listener = scope.spawn(move || {
            let mut seen = Seen::default();
            let mut expected = 0_u64;
            loop {
                let message = pubsub.get_message().and_then(|m| m.get_payload::<i64>());
                match message {
                    Ok(-1) => return seen,
                    Err(error) => {
                        seen.wrong(error.to_string());
                        return seen;
                    }
                    other => {
                        expected += 1;
                        seen.expect(other, &expected.cast_signed());
                    }
                }
            }
        });
        while going(stop) {
            sent += 1;
            if let Err(error) = cmd("PUBLISH").arg("news").arg(sent).query::<()>(speaker) {
                seen.wrong(error.to_string());
            }
        }
        if let Err(error) = cmd("PUBLISH").arg("news").arg(-1).query::<()>(speaker) {
            seen.wrong(error.to_string());
        }
        if let Ok(heard) = listener.join() {
            seen.rounds = heard.rounds;
            seen.wrong += heard.wrong;
            seen.first = seen.first.take().or(heard.first);
        }
    });
    if seen.rounds != sent {
        seen.wrong(format!("{sent} said, {} heard", seen.rounds));
    }
    Ok(seen)
}

/// A client that caches a key is told of each change of it, or to forget all.
fn tracked(mut ends: Ends, stop: &Stop) -> anyhow::Result<Seen> {
    let mut seen = Seen::default();
    let mut stream = TcpStream::connect_timeout(&ends.address, WAIT)?;
    stream.set_read_timeout(Some(Duration::from_millis(100)))?;
    let mut bytes = Vec::new();
    stream.write_all(b"HELLO 3\r\nCLIENT TRACKING ON\r\n")?;
    anyhow::ensure!(
        read_until(&mut stream, &mut bytes, "+OK\r\n")?,
        "no tracking"
    );
    let mut number = 0_u64;
    while going(stop) {
        number += 1;
        bytes.clear();
        stream.write_all(b"GET cached\r\n")?;
        let value = format!("value-{}\r\n", number - 1);
        let due = if number == 1 { "_\r\n" } else { value.as_str() };
        if !read_until(&mut stream, &mut bytes, due)? {
            seen.wrong(format!("GET: {:?}", String::from_utf8_lossy(&bytes)));
            return Ok(seen);
        }
        // What came with the answer may already be a move's order to forget all: that is one, too.
        let set = format!("value-{number}");
        cmd("SET")
            .arg("cached")
            .arg(set)
            .query::<()>(&mut ends.connections[1])?;
        seen.rounds += 1;
        if !read_until(&mut stream, &mut bytes, "invalidate\r\n")? {
            seen.wrong(format!("round {number}: nothing said that it changed"));
        }
    }
    Ok(seen)
}

fn read_until(stream: &mut TcpStream, bytes: &mut Vec<u8>, due: &str) -> anyhow::Result<bool> {
    let deadline = Instant::now() + WAIT;
    let mut buffer = [0; 4096];
    while !bytes.windows(due.len()).any(|part| part == due.as_bytes()) {
        if Instant::now() > deadline {
            return Ok(false);
        }
        match stream.read(&mut buffer) {
            Ok(0) => anyhow::bail!("the connection ended"),
            Ok(count) => bytes.extend(&buffer[..count]),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(true)
}

const SCRIPT: &str = "return redis.call('INCR', KEYS[1])";

fn scripts(mut ends: Ends, stop: &Stop) -> anyhow::Result<Seen> {
    let (mut seen, c) = (Seen::default(), &mut ends.connections[0]);
    let mut expected = 0_u64;
    while going(stop) {
        expected += 1;
        let got = cmd("EVAL").arg(&[SCRIPT, "1", "eval"]).query(c);
        seen.expect(got, &expected);
    }
    Ok(seen)
}

fn loaded_scripts(mut ends: Ends, stop: &Stop) -> anyhow::Result<Seen> {
    let (mut seen, c) = (Seen::default(), &mut ends.connections[0]);
    let hash: String = cmd("SCRIPT").arg(&["LOAD", SCRIPT]).query(c)?;
    let mut expected = 0_u64;
    while going(stop) {
        expected += 1;
        let got = cmd("EVALSHA").arg(&[&hash, "1", "evalsha"]).query(c);
        seen.expect(got, &expected);
    }
    Ok(seen)
}

/// A transaction that was moved half-way must run whole, or not at all; its scripts are there at the new primary.
fn scripts_in_transactions(mut ends: Ends, stop: &Stop) -> anyhow::Result<Seen> {
    // Another script than that of other clients: nobody else has it loaded.
    const SCRIPT: &str = "return redis.call('INCRBY', KEYS[1], 2)";
    let (mut seen, c) = (Seen::default(), &mut ends.connections[0]);
    let hash: String = cmd("SCRIPT").arg(&["LOAD", SCRIPT]).query(c)?;
    let mut expected = 0_u64;
    while going(stop) {
        expected += 4;
        cmd("MULTI").query::<()>(c)?;
        cmd("EVAL").arg(&[SCRIPT, "1", "inside"]).query::<()>(c)?;
        cmd("EVALSHA").arg(&[&hash, "1", "inside"]).query::<()>(c)?;
        let got: redis::RedisResult<Vec<u64>> = cmd("EXEC").query(c);
        seen.expect(got, &vec![expected - 2, expected]);
    }
    Ok(seen)
}

fn pipelined(mut ends: Ends, stop: &Stop) -> anyhow::Result<Seen> {
    let (mut seen, c) = (Seen::default(), &mut ends.connections[0]);
    let mut last = 0_u64;
    while going(stop) {
        let mut pipeline = redis::pipe();
        for _ in 0..PIPELINE {
            pipeline.cmd("INCR").arg("pipeline");
        }
        let got: redis::RedisResult<Vec<u64>> = pipeline.query(c);
        let due: Vec<u64> = (last + 1..=last + PIPELINE as u64).collect();
        last += PIPELINE as u64;
        seen.rounds += 1;
        match got {
            Ok(numbers) if numbers == due => {}
            Ok(numbers) => seen.wrong(format!("{}…, {} due", numbers[0], due[0])),
            Err(error) => seen.wrong(error.to_string()),
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(seen)
}
