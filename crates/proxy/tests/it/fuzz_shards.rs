//! Random command sequences of several clients at once: over four shards they get what one engine alone
//! gives to each of them.
//!
//! Every client has keys and channels of its own, under several hash tags and under none.
//! `MAINSTAY_FUZZ_SEED` and `MAINSTAY_FUZZ_ROUNDS` try others, or more.

use crate::families::FAMILIES;
use crate::support::PATIENCE;
use crate::support::client::words;
use crate::support::engine::Engine;
use crate::support::node::{Node, VALKEY};
use crate::support::random::{Random, setting};
use resp::reply::ReplyFramer;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

const CLIENTS: u64 = 6;
const STEPS: usize = 150;

/// Commands over keys of one tag; `@` is the tag.
const BLOCKING: &[&str] = &[
    "BLPOP @l 0.02",
    "BRPOP @nothing @l 0.02",
    "BLMOVE @l @l2 LEFT RIGHT 0.01",
    "BLMPOP 0.01 2 @nothing @l LEFT COUNT 2",
    "BZPOPMIN @z @z2 0.01",
    "BZMPOP 0.01 1 @z MAX",
    "BLPOP @k1 0.01",
    "BLPOP @l x",
    "XREAD BLOCK 10 STREAMS @x $",
    "XREADGROUP GROUP @grp c BLOCK 10 STREAMS @x >",
    "BRPOPLPUSH @l @l2 0.01",
];

/// Commands that say nothing about the shard of a transaction, right ones and wrong ones.
const EARLY: &[&str] = &[
    "PING",
    "ECHO %",
    "WAIT 0 0",
    "WAIT 0",
    "WAITAOF 0 0 0",
    "SELECT 0",
    "SELECT",
    "EVAL \"return 1\" 0",
    "EVAL \"return 1\" x",
    "EVAL \"return 1\" 5 #",
    "FCALL nosuch 0",
    "CLIENT GETNAME",
    "CLIENT NOSUCH",
    "CONFIG GET",
    "COMMAND NOSUCH",
    "OBJECT NOSUCH #",
    "XREAD COUNT 1 STREAMS @x",
    "UNWATCH",
    "WATCH",
    "MULTI x",
    "DISCARD x",
    "RESET x",
    "nosuch",
    "SET #",
];

/// Those of a family that are about keys, and have no other numbered database in them.
fn keyed(template: &str) -> bool {
    let other = [
        "PUBLISH",
        "SPUBLISH",
        "PUBSUB",
        "MOVE",
        "COPY # # DB",
        "SELECT",
        "COMMAND",
        "SCRIPT",
        // A pattern may lead to another shard, so this is refused.
        "SORT @l BY nosort GET",
    ];
    template.contains(['@', '#']) && !other.iter().any(|start| template.starts_with(start))
}

/// A sequence for one client.
struct Made {
    random: Random,
    client: u64,
    lines: Vec<String>,
    count: usize,
    families: Vec<&'static str>,
}

impl Made {
    fn new(client: u64, seed: u64) -> Self {
        let mut made = Self {
            random: Random(seed.wrapping_mul(1_000_003) + client * 7_919),
            client,
            lines: Vec::new(),
            count: 0,
            families: FAMILIES
                .iter()
                .copied()
                .filter(|line| keyed(line))
                .collect(),
        };
        while made.lines.len() < STEPS {
            made.step();
        }
        made
    }

    fn tag(&mut self) -> String {
        format!(
            "{{c{}{}}}",
            self.client,
            self.random.pick(&["a", "b", "c", "d", "e"])
        )
    }

    fn value(&mut self) -> String {
        self.count += 1;
        let long = if self.random.below(80) == 0 {
            self.random.below(90_000)
        } else {
            0
        };
        format!("c{}v{}{}", self.client, self.count, "y".repeat(long))
    }

    /// A key of no tag.
    fn free(&mut self) -> String {
        format!("c{}free{}", self.client, self.random.below(12))
    }

    fn fill(&mut self, template: &str, tag: &str) {
        let mut line = String::new();
        for letter in template.chars() {
            match letter {
                '@' => line.push_str(tag),
                '#' => {
                    let other = [
                        "l", "h", "s", "z", "x", "n", "k0", "k1", "k2", "k3", "k1", "k2",
                    ];
                    line.push_str(tag);
                    line.push_str(self.random.pick(&other));
                }
                '%' => line.push_str(&self.value()),
                other => line.push(other),
            }
        }
        self.lines.push(line);
    }

    fn keyed(&mut self, tag: &str) {
        let template = self.families[self.random.below(self.families.len())];
        self.fill(template, tag);
    }

    /// Over several shards.
    fn split(&mut self) {
        let name = self.random.pick(&[
            "MGET", "MSET", "DEL", "EXISTS", "UNLINK", "TOUCH", "MGET", "MSET",
        ]);
        let mut line = name.to_owned();
        for _ in 0..1 + self.random.below(7) {
            let key = if self.random.below(4) == 0 {
                format!("{}{}", self.tag(), self.random.pick(&["l", "h", "n", "k1"]))
            } else {
                self.free()
            };
            line.push_str(&format!(" {key}"));
            if name == "MSET" {
                line.push_str(&format!(" {}", self.value()));
            }
        }
        self.lines.push(line);
    }

    fn transaction(&mut self) {
        let tag = self.tag();
        let watched = self.random.below(3);
        if watched > 0 {
            self.fill("WATCH # #", &tag);
            if watched == 1 {
                self.keyed(&tag);
            }
            if self.random.below(8) == 0 {
                return self.lines.push("UNWATCH".to_owned());
            }
        }
        self.lines.push("MULTI".to_owned());
        while self.random.below(2) == 0 {
            let line = self.random.pick(EARLY);
            self.fill(line, &tag);
        }
        for _ in 0..self.random.below(6) {
            match self.random.below(12) {
                0 => self.fill("GET", &tag),
                1 => self.fill("MULTI", &tag),
                2 => self.fill("WATCH #", &tag),
                3 => {
                    let line = self.random.pick(EARLY);
                    self.fill(line, &tag);
                }
                4 => self.fill("nosuch #", &tag),
                6 => {
                    let line = self.random.pick(&[
                        "CLIENT SETNAME %",
                        "CLIENT GETNAME",
                        "CLIENT NO-EVICT on",
                        "CLIENT GETREDIR",
                        "CLIENT GETNAME x",
                        "CLIENT UNBLOCK 0",
                        "CONFIG GET maxmemory-policy",
                        "ACL WHOAMI",
                        "AUTH",
                    ]);
                    self.fill(line, &tag);
                }
                5 => self.fill("BLPOP @l 0", &tag),
                _ => self.keyed(&tag),
            }
        }
        let end = self.random.pick(&["EXEC", "EXEC", "EXEC", "DISCARD"]);
        self.lines.push(end.to_owned());
    }

    fn step(&mut self) {
        let tag = self.tag();
        match self.random.below(30) {
            0..=6 => self.split(),
            7 | 8 => self.transaction(),
            9 => {
                let line = self.random.pick(BLOCKING);
                self.fill(line, &tag);
            }
            10 => self.fill("ECHO %", &tag),
            11 => self.fill("HELLO 3", &tag),
            12 => self.fill("HELLO 2", &tag),
            13 => {
                let line = self.random.pick(&[
                    "CLIENT REPLY SKIP",
                    "PING %",
                    "PING",
                    "EXEC",
                    "DISCARD",
                    "UNWATCH",
                    "RESET",
                    "RESET x",
                    "CLIENT SETNAME %",
                    "CLIENT GETNAME",
                    "GET",
                    "nosuch #",
                    "SELECT 0",
                    "MSET",
                    "MSET # % #",
                    "MGET",
                    "EVAL \"return 1\" 5 #",
                    "EVAL \"return 1\" x #",
                    "EVAL \"return 1\" -1",
                    "DEL",
                ]);
                self.fill(line, &tag);
            }
            14 if self.random.below(2) == 0 => self.messages(&tag),
            15 if self.random.below(3) == 0 => {
                self.fill("CLIENT REPLY OFF", &tag);
                self.keyed(&tag);
                self.split();
                self.transaction();
                self.fill("CLIENT REPLY ON", &tag);
            }
            16 => {
                self.fill("SET # %", &tag);
                self.fill("GET #", &tag);
            }
            17 | 18 => {
                let number = self.random.below(12) + 20;
                self.lines
                    .push(format!("INCR c{}free{number}", self.client));
            }
            _ => self.keyed(&tag),
        }
    }

    /// Subscriptions, with commands between messages.
    fn messages(&mut self, tag: &str) {
        self.fill("HELLO 3", tag);
        self.fill("SUBSCRIBE @ch @c2", tag);
        self.fill("PSUBSCRIBE @c*", tag);
        for _ in 0..self.random.below(5) {
            self.fill("PUBLISH @ch %", tag);
            self.keyed(tag);
            self.split();
        }
        self.fill("UNSUBSCRIBE @ch", tag);
        self.fill("UNSUBSCRIBE", tag);
        self.fill("PUNSUBSCRIBE", tag);
        // In RESP2, with nothing but subscriptions.
        self.fill("HELLO 2", tag);
        self.fill("SUBSCRIBE @ch @c2", tag);
        self.fill("PING %", tag);
        self.fill("GET #", tag);
        self.fill("UNSUBSCRIBE @ch", tag);
        self.fill("UNSUBSCRIBE", tag);
    }
}

/// Sends a sequence in pieces of chance; returns all that comes.
fn talk(address: SocketAddr, made: &Made, random: &mut Random) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let token = format!("the end of client {}", made.client);
    let mut sent: Vec<u8> = made.lines.iter().flat_map(|line| words(line)).collect();
    sent.extend(words("CLIENT REPLY ON"));
    sent.extend(words(&format!("ECHO '{token}'")));
    let end = format!("${}\r\n{token}\r\n", token.len()).into_bytes();
    let mut writer = stream.try_clone().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let mut rest = &sent[..];
            while !rest.is_empty() {
                let most = random
                    .pick(&["1", "20", "300", "5000", "100000"])
                    .parse()
                    .unwrap();
                let (now, later) = rest.split_at((1 + random.below(most)).min(rest.len()));
                if writer.write_all(now).is_err() {
                    return;
                }
                rest = later;
            }
        });
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

/// Replies in their order, and messages apart: when they come is not promised.
fn split(mut bytes: &[u8]) -> (Vec<String>, Vec<String>) {
    let (mut replies, mut messages) = (Vec::new(), Vec::new());
    while !bytes.is_empty() {
        let mut framer = ReplyFramer::default();
        let used = framer
            .advance(bytes)
            .map_or(bytes.len(), |got| got.consumed);
        let text = String::from_utf8_lossy(&bytes[..used]).into_owned();
        bytes = &bytes[used..];
        // The number of a connection.
        let text = match text.split_once("$2\r\nid\r\n:") {
            Some((head, tail)) => format!("{head}{}", tail.split_once("\r\n").map_or("", |t| t.1)),
            None => text,
        };
        let message = text.starts_with('>') && text.contains("message\r\n");
        if message {
            messages.push(text)
        } else {
            replies.push(text)
        }
    }
    messages.sort();
    (replies, messages)
}

/// Elements of a set or a hash come in the order of a table that every process mixes in its own way.
fn same(one: &str, two: &str) -> bool {
    let sorted = |text: &str| {
        let mut lines: Vec<String> = text.split("\r\n").map(str::to_owned).collect();
        lines.sort_unstable();
        lines
    };
    let table = one.starts_with(['*', '~', '%', '>']);
    one == two || table && sorted(one) == sorted(two)
}

fn compare(made: &Made, seed: u64, direct: &[u8], through: &[u8]) {
    let ((direct, told), (through, heard)) = (split(direct), split(through));
    let at = direct
        .iter()
        .zip(&through)
        .take_while(|(one, two)| same(one, two))
        .count();
    if at == direct.len() && at == through.len() && told == heard {
        return;
    }
    for (number, line) in made.lines.iter().enumerate() {
        eprintln!("{number:4} {}", line.chars().take(100).collect::<String>());
    }
    let part = |replies: &[String]| -> Vec<String> {
        let short = |text: &String| text.chars().take(200).collect();
        replies
            .iter()
            .skip(at.saturating_sub(4))
            .take(7)
            .map(short)
            .collect()
    };
    panic!(
        "seed {seed}, client {}: reply {at} differs, or messages do\nthrough: {:#?}\ndirect: {:#?}\n\
         heard: {heard:?}\ntold: {told:?}",
        made.client,
        part(&through),
        part(&direct)
    );
}

fn rounds(engine: &'static str, rounds: u64) {
    rounds_of(Node::sharded(engine, 4), engine, rounds);
}

fn rounds_of(node: Node, engine: &'static str, rounds: u64) {
    let folder = tempfile::tempdir().unwrap();
    let mut address = node.engine.direct;
    address.set_port(20_101);
    let twin = Engine::start(engine, folder.path(), address);
    node.look_often();
    twin.look_often();
    let first = setting("MAINSTAY_FUZZ_SEED", 1);
    for seed in first..first + setting("MAINSTAY_FUZZ_ROUNDS", rounds) {
        std::thread::scope(|scope| {
            for client in 0..CLIENTS {
                let (endpoint, direct) = (node.endpoint, twin.direct);
                scope.spawn(move || {
                    let made = Made::new(client, seed);
                    let mut random = Random(seed + client);
                    let wanted = talk(direct, &made, &mut random);
                    let got = talk(endpoint, &made, &mut random);
                    compare(&made, seed, &wanted, &got);
                });
            }
        });
    }
}

#[test]
fn four_shards_of_valkey_9_1() {
    rounds(VALKEY, 20);
}

#[test]
fn four_shards_of_redis_7_0() {
    rounds("redis-7.0.", 20);
}

#[test]
fn four_shards_of_redis_6_2_and_four_workers() {
    let mut node = Node::sharded("redis-6.2.", 4);
    node.threads(4);
    rounds_of(node, "redis-6.2.", 12);
}

#[test]
fn four_shards_of_valkey_9_1_and_two_workers() {
    let mut node = Node::sharded(VALKEY, 4);
    node.threads(2);
    rounds_of(node, VALKEY, 12);
}
