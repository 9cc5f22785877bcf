//! Random command sequences of several clients at once: through the proxy they get, byte for byte,
//! what another engine of the same kind gives to each of them alone.
//!
//! Every client has keys, channels and values of its own, so a reply that reached a wrong client
//! differs. `MAINSTAY_FUZZ_SEED` and `MAINSTAY_FUZZ_ROUNDS` try others, or more.

use crate::families::FAMILIES;
use crate::support::client::{Client, command};
use crate::support::engine::Engine;
use crate::support::node::{Node, VALKEY};
use crate::support::random::{Random, setting};
use model::proxy::ProxySettings;
use resp::reply::ReplyFramer;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

const CLIENTS: u64 = 8;

/// What is known of the connection that the sequence is made for.
#[derive(Default)]
struct Made {
    bytes: Vec<u8>,
    shown: Vec<String>,
    prefix: String,
    transaction: bool,
    watching: bool,
    subscribed: bool,
    resp3: bool,
    tracking: bool,
    /// It was on: a second time, what was read the first time would be told by an engine alone.
    tracked: bool,
    silent: bool,
    count: usize,
}

/// Commands that wait, and are therefore not made wrong.
const WAITING: &[&str] = &[
    "WAIT 0 0",
    "XREADGROUP GROUP STREAMS c BLOCK 20 STREAMS @x >",
];

/// Those that wait, or change what the connection is.
const ODD: &[&str] = &[
    "BLPOP @l 0.02",
    "BLPOP @nothing 0.02",
    "BRPOP @nothing @l 0.01",
    "BLMOVE @l @l2 LEFT RIGHT 0.01",
    "BLMPOP 0.01 1 @nothing LEFT",
    "BZPOPMIN @z 0.01",
    "BLPOP @s 0.01",
    "BLPOP @l x",
    "XREAD BLOCK 10 STREAMS @x $",
    "XREADGROUP GROUP @grp c BLOCK 10 STREAMS @x >",
    "BRPOPLPUSH @nothing @l 0.01",
    "UNWATCH",
    "EXEC",
    "DISCARD",
    "SELECT 0",
    "SELECT 3",
    "SELECT 0",
    "CLIENT GETNAME",
    "CLIENT SETNAME %",
    "CLIENT SETNAME \"a b\"",
    "CLIENT NOSUCH",
    "CLIENT TRACKINGINFO",
    "CLIENT NO-EVICT on",
    "CLIENT NO-TOUCH on",
    "CLIENT NO-TOUCH off",
    "CONFIG GET maxmemory-policy",
    "ACL WHOAMI",
    "AUTH default %",
    "RESET",
];

/// What the proxy answers itself, inside a transaction.
const INSIDE: &[&str] = &[
    "CLIENT GETNAME",
    "CLIENT SETNAME %",
    "CLIENT SETNAME \"a b\"",
    "CLIENT NOSUCH",
    "CLIENT",
    "CLIENT GETNAME x",
    "CLIENT TRACKINGINFO",
    "CLIENT GETREDIR",
    "CLIENT NO-EVICT on",
    "CLIENT NO-TOUCH on",
    "CLIENT NO-TOUCH off",
    "CLIENT SETINFO lib-name %",
    "CLIENT UNPAUSE",
    "CLIENT UNBLOCK 0",
    "CLIENT KILL ID 999999999",
    "CLIENT PAUSE 1 READ",
    "CONFIG GET maxmemory-policy",
    "CONFIG GET",
    "ACL WHOAMI",
    "ACL WHOAMI x",
    "AUTH",
    "AUTH default %",
    "HELLO",
];

impl Made {
    /// Most keys hold strings.
    fn key(&self, random: &mut Random) -> String {
        let other = ["l", "h", "s", "z", "x", "n"];
        if random.one_in(6) {
            return format!("{}{}", self.prefix, random.pick(&other));
        }
        format!("{}k{}", self.prefix, random.below(4))
    }

    fn fill(&mut self, template: &str, random: &mut Random) -> String {
        let mut line = String::new();
        for letter in template.chars() {
            match letter {
                '@' => line.push_str(&self.prefix),
                '#' => line.push_str(&self.key(random)),
                '%' => {
                    self.count += 1;
                    line.push_str(&format!("{}v{}", self.prefix, self.count));
                    // What the proxy answers itself is never so long.
                    let local = template.starts_with("CLIENT") || template.starts_with("AUTH");
                    if random.one_in(60) && !local {
                        let long = random.below(100_000);
                        line.push_str(&"y".repeat(long));
                    }
                }
                other => line.push(other),
            }
        }
        line
    }

    fn add(&mut self, line: &str, random: &mut Random) {
        if line.starts_with("EXEC ") {
            // It is refused, and ends the transaction nevertheless.
            (self.transaction, self.watching) = (false, false);
        }
        let words = resp::inline::split(line.as_bytes()).unwrap();
        let inline = words.len() > 1 && line.len() < 1000 && random.one_in(12);
        if inline {
            self.bytes.extend_from_slice(line.as_bytes());
            self.bytes
                .extend_from_slice(if random.one_in(2) { b"\r\n" } else { b"\n" });
        } else {
            let mut words = words;
            if random.one_in(4) && !words[0].is_empty() {
                words[0].make_ascii_lowercase();
            }
            let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
            self.bytes.extend(command(&words));
        }
        if !line.ends_with("SKIP") && random.one_in(30) {
            let empty: &[u8] = [&b"\r\n"[..], b"*0\r\n", b"*-1\r\n"][random.below(3)];
            self.bytes.extend_from_slice(empty);
        }
        self.shown.push(line.chars().take(100).collect());
    }

    /// Now and then with a word too few, too many or wrong.
    fn add_spoiled(&mut self, line: &str, random: &mut Random) {
        let mut words = resp::inline::split(line.as_bytes()).unwrap();
        // Made right, these would change what is followed here, or show what others do, or the time;
        // made wrong, some are refused by name.
        let fixed = [
            "PUBSUB",
            "COMMAND",
            "MULTI",
            "EXEC",
            "DISCARD",
            "TIME",
            "DBSIZE",
            "ROLE",
            "LASTSAVE",
            "LOLWUT",
            "READONLY",
            "READWRITE",
            "ASKING",
            "SLOWLOG",
            "LATENCY",
        ];
        let spoil = if fixed.contains(&line.split(' ').next().unwrap()) {
            9
        } else {
            random.below(10)
        };
        match spoil {
            0 if words.len() > 1 => {
                words.pop();
            }
            1 => words.push(self.key(random).into_bytes()),
            2 if words.len() > 1 => {
                let at = 1 + random.below(words.len() - 1);
                let place = at == 2 && words[0].ends_with(b"SCAN");
                if place || words[at].starts_with(self.prefix.as_bytes()) {
                    // A key stays one of this client alone; a cursor is a place in a table.
                    return self.add(line, random);
                }
                let wrong = random.pick(&[
                    "",
                    "x",
                    "-1",
                    "0",
                    "1.5",
                    "9999999999999999999",
                    "(",
                    "+inf",
                    "nan",
                    "*",
                    "GET",
                    "LIMIT",
                ]);
                words[at] = match wrong {
                    "*" => self.key(random).into_bytes(),
                    other => other.as_bytes().to_vec(),
                };
            }
            _ => return self.add(line, random),
        }
        let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
        self.bytes.extend(command(&words));
        self.shown.push(format!(
            "{} (spoiled)",
            String::from_utf8_lossy(&words.join(&b' '))
                .chars()
                .take(100)
                .collect::<String>()
        ));
    }

    fn put(&mut self, template: &str, random: &mut Random) {
        let line = self.fill(template, random);
        self.add(&line, random);
    }

    /// One step; the states that are followed are those in which the proxy knowingly differs.
    fn step(&mut self, random: &mut Random) {
        if self.subscribed && !self.resp3 {
            return self.subscribed_step(random);
        }
        let which = random.below(24);
        match which {
            0 if !self.transaction => {
                self.put("MULTI", random);
                self.transaction = true;
            }
            0..=2 if self.transaction => {
                let end = random.pick(&["EXEC", "EXEC", "EXEC", "DISCARD"]);
                self.put(end, random);
                self.transaction = false;
                self.watching = false;
            }
            1 if !self.transaction => {
                self.put("WATCH # #", random);
                self.watching = true;
            }
            2 if !self.transaction && !self.tracking && !self.watching => {
                let version = if random.one_in(2) { "3" } else { "2" };
                if !(self.subscribed && version == "2") {
                    self.put(&format!("HELLO {version}"), random);
                    self.resp3 = version == "3";
                }
            }
            3 if !self.transaction => {
                let line = random.pick(&["SUBSCRIBE @ch @c2", "PSUBSCRIBE @c*", "SSUBSCRIBE @ch"]);
                if !line.starts_with("SS") {
                    self.subscribed = true;
                    self.put(line, random);
                }
            }
            // Inside a transaction, Redis 7.0 writes the message into the reply to `EXEC`.
            4 if self.subscribed && !self.transaction => {
                self.put("PUBLISH @ch %", random);
            }
            // Valkey 8.0 answers with an error where there is nothing to unsubscribe from: the proxy lets
            // it through even if no replies are wanted.
            5 if self.subscribed && !self.transaction && !self.silent => {
                self.put("UNSUBSCRIBE @ch", random);
                self.put("UNSUBSCRIBE", random);
                self.put("PUNSUBSCRIBE", random);
                self.subscribed = false;
            }
            6 if self.resp3 && !self.transaction && (self.tracking || !self.tracked) => {
                self.tracking = !self.tracking;
                self.tracked = true;
                let on = if self.tracking { "ON" } else { "OFF" };
                self.put(&format!("CLIENT TRACKING {on}"), random);
            }
            7 if !self.transaction && random.one_in(3) => {
                let line =
                    random.pick(&["CLIENT REPLY SKIP", "CLIENT REPLY OFF", "CLIENT REPLY ON"]);
                self.silent = !line.ends_with("ON") && (self.silent || line.ends_with("OFF"));
                self.put(line, random);
            }
            _ => self.other_step(which, random),
        }
    }

    fn subscribed_step(&mut self, random: &mut Random) {
        let line = random.pick(&[
            if self.silent { "GET" } else { "PING %" },
            "GET #",
            "SUBSCRIBE @ch @c2",
            "PSUBSCRIBE @c*",
            "MULTI",
            "UNSUBSCRIBE @c2",
            "BLPOP @l 0",
        ]);
        self.put(line, random);
        // See below for the silent.
        if !self.silent && random.one_in(4) {
            // With one channel left, the order of a table does not show.
            self.put("UNSUBSCRIBE @ch", random);
            self.put("UNSUBSCRIBE", random);
            self.put("PUNSUBSCRIBE", random);
            self.subscribed = false;
        }
    }

    fn other_step(&mut self, which: usize, random: &mut Random) {
        match which {
            8 | 9 if !self.transaction => {
                let line = random.pick(ODD);
                let waits = line.starts_with('B') || line.contains("BLOCK");
                let line = if waits && !random.one_in(3) {
                    "GET #"
                } else {
                    line
                };
                self.put(line, random);
                if line == "RESET" {
                    let Made {
                        bytes,
                        shown,
                        prefix,
                        tracked,
                        count,
                        ..
                    } = std::mem::take(self);
                    *self = Made {
                        bytes,
                        shown,
                        prefix,
                        tracked,
                        count,
                        ..Made::default()
                    };
                }
            }
            8 if self.transaction => {
                let line = random.pick(&["SELECT 2", "SELECT 0", "BLPOP @l 0", "WATCH #", "MULTI"]);
                self.put(line, random);
            }
            9 if self.transaction => {
                let line = random.pick(INSIDE);
                self.put(line, random);
            }
            10 => {
                let line = if random.one_in(3) {
                    random.pick(WAITING)
                } else {
                    random.pick(FAMILIES)
                };
                self.put(line, random);
            }
            _ => {
                let line = random.pick(FAMILIES);
                let line = self.fill(line, random);
                self.add_spoiled(&line, random);
            }
        }
    }
}

fn make(client: u64, seed: u64, steps: usize) -> (Made, String, Random) {
    let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ client);
    let mut made = Made {
        prefix: format!("c{client}s{seed}:"),
        ..Made::default()
    };
    for _ in 0..steps {
        made.step(&mut random);
    }
    let token = format!("end-of-{client}-{seed}");
    made.add("RESET", &mut random);
    made.add(&format!("ECHO {token}"), &mut random);
    (made, token, random)
}

/// Sends in pieces, and reads until the token comes.
fn talk(address: SocketAddr, bytes: &[u8], token: &str, random: &mut Random) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(8)))
        .unwrap();
    let mut cuts: Vec<usize> = (0..random.below(12))
        .map(|_| random.below(bytes.len()))
        .collect();
    cuts.push(bytes.len());
    cuts.sort_unstable();
    let mut writer = stream.try_clone().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let mut at = 0;
            for cut in cuts {
                if writer.write_all(&bytes[at..cut]).is_err() {
                    return;
                }
                at = cut;
                std::thread::yield_now();
            }
        });
        let end = format!("${}\r\n{token}\r\n", token.len()).into_bytes();
        let mut got = Vec::new();
        let mut buffer = vec![0; 64 * 1024];
        while !got.ends_with(&end) {
            match stream.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => got.extend_from_slice(&buffer[..count]),
                Err(error) => {
                    got.extend_from_slice(format!("<{error}>").as_bytes());
                    break;
                }
            }
        }
        got
    })
}

/// Replies one by one, with client ids blanked.
fn split(mut bytes: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let mut framer = ReplyFramer::default();
        let used = framer
            .advance(bytes)
            .map_or(bytes.len(), |got| got.consumed);
        let text = String::from_utf8_lossy(&bytes[..used]).into_owned();
        found.push(match text.split_once("$2\r\nid\r\n:") {
            Some((head, tail)) => format!("{head}{}", tail.split_once("\r\n").map_or("", |t| t.1)),
            None => text,
        });
        bytes = &bytes[used..];
    }
    found
}

/// The elements of a set or a hash come in the order of a table that every process mixes in its own way.
fn unordered(reply: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = reply.split("\r\n").collect();
    if matches!(reply.as_bytes().first(), Some(b'*' | b'~' | b'%')) {
        lines.sort_unstable();
    }
    lines
}

fn short(text: &str) -> String {
    text.chars().take(300).collect()
}

fn compare(made: &Made, seed: u64, direct: &[u8], through: &[u8]) {
    let (direct, through) = (split(direct), split(through));
    let same = |(a, b): (&String, &String)| a == b || unordered(a) == unordered(b);
    if direct.len() == through.len() && direct.iter().zip(&through).all(same) {
        return;
    }
    let at = direct
        .iter()
        .zip(&through)
        .take_while(|pair| same(*pair))
        .count();
    for (number, line) in made.shown.iter().enumerate() {
        eprintln!("{number:4} {line}");
    }
    let from = at.saturating_sub(4);
    let part = |replies: &[String]| -> Vec<String> {
        replies
            .iter()
            .skip(from)
            .take(7)
            .map(|r| short(r))
            .collect()
    };
    panic!(
        "seed {seed}, client {}: reply {at} differs\nthrough: {:#?}\ndirect: {:#?}",
        made.prefix,
        part(&through),
        part(&direct)
    );
}

/// Connections that the proxy keeps for later must have nothing left of those who used them.
fn assert_clean(direct: &mut Client, seed: u64) {
    let left = |list: &str| -> Vec<String> {
        let clean = |line: &&str| {
            let flags = ["N", "U"]
                .iter()
                .any(|f| line.contains(&format!(" flags={f} ")));
            flags
                && [" db=0 ", " sub=0 ", " psub=0 "]
                    .iter()
                    .all(|part| line.contains(part))
                && (line.contains(" ssub=0 ") || !line.contains(" ssub="))
                && (line.contains(" watch=0 ") || !line.contains(" watch="))
        };
        list.lines()
            .filter(|line| line.contains(" user=proxy@e1") && !clean(line))
            .map(str::to_owned)
            .collect()
    };
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let lines = left(&direct.text("CLIENT LIST"));
        if lines.is_empty() {
            return;
        }
        assert!(Instant::now() < deadline, "after seed {seed}: {lines:#?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn rounds(engine: &'static str, rounds: u64) {
    rounds_of(Node::with(engine, |_| {}), engine, rounds);
}

fn rounds_of(node: Node, engine: &'static str, rounds: u64) {
    let folder = tempfile::tempdir().unwrap();
    let mut address = node.engine.direct;
    address.set_port(20_001);
    let twin = Engine::start(engine, folder.path(), address);
    node.look_often();
    twin.look_often();
    let mut own = node.direct();
    let first = setting("MAINSTAY_FUZZ_SEED", 1);
    for seed in first..first + setting("MAINSTAY_FUZZ_ROUNDS", rounds) {
        std::thread::scope(|scope| {
            for client in 0..CLIENTS {
                let (endpoint, direct) = (node.endpoint, twin.direct);
                scope.spawn(move || {
                    let (made, token, mut random) = make(client, seed, 60);
                    let wanted = talk(direct, &made.bytes, &token, &mut random);
                    let got = talk(endpoint, &made.bytes, &token, &mut random);
                    compare(&made, seed, &wanted, &got);
                });
            }
        });
        assert_clean(&mut own, seed);
    }
}

#[test]
fn redis_6_2() {
    rounds("redis-6.2.", 60);
}

#[test]
fn redis_7_0() {
    rounds("redis-7.0.", 60);
}

#[test]
fn valkey_8_0() {
    rounds("valkey-8.0.", 60);
}

#[test]
fn valkey_9_1() {
    rounds(VALKEY, 60);
}

#[test]
fn two_workers_on_redis_6_2() {
    let two = Node::with("redis-6.2.", |config| {
        config.settings = ProxySettings::fixed(2);
    });
    rounds_of(two, "redis-6.2.", 20);
}

#[test]
fn four_workers_on_valkey_9_1() {
    let four = Node::with(VALKEY, |config| config.settings = ProxySettings::fixed(4));
    rounds_of(four, VALKEY, 20);
}
