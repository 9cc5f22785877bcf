//! What changes a connection, in every odd order: over one shard and over four a client gets what one
//! engine alone gives to it.
//!
//! `MAINSTAY_FUZZ_SEED` and `MAINSTAY_FUZZ_ROUNDS` try others, or more.

use crate::support::PATIENCE;
use crate::support::client::words;
use crate::support::engine::Engine;
use crate::support::node::{Node, VALKEY};
use crate::support::random::{Random, setting};
use resp::reply::ReplyFramer;
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

const CLIENTS: u64 = 6;
const STEPS: usize = 90;

/// Steps; `@` is the client's own tag.
const STEPS_OF: &[&str] = &[
    "CLIENT REPLY ON",
    "CLIENT REPLY ON",
    "CLIENT REPLY OFF",
    "CLIENT REPLY SKIP",
    "CLIENT REPLY x",
    "RESET",
    "RESET",
    "RESET x",
    "MULTI",
    "MULTI",
    "MULTI x",
    "EXEC",
    "EXEC",
    "EXEC x",
    "DISCARD",
    "DISCARD x",
    "WATCH @k",
    "WATCH",
    "UNWATCH",
    "SUBSCRIBE @ch",
    "SUBSCRIBE @ch @c2 @ch",
    "SUBSCRIBE",
    "UNSUBSCRIBE @ch",
    "UNSUBSCRIBE",
    "PSUBSCRIBE @c*",
    "PUNSUBSCRIBE @c*",
    "PUNSUBSCRIBE",
    "SSUBSCRIBE @s",
    "SUNSUBSCRIBE @s",
    "SUNSUBSCRIBE",
    "HELLO 2",
    "HELLO 3",
    "HELLO",
    "HELLO 4",
    "HELLO x",
    "HELLO 3 SETNAME @name",
    "HELLO 2 NOSUCH",
    "CLIENT TRACKING ON",
    "CLIENT TRACKING OFF",
    "CLIENT TRACKING ON OPTIN",
    "CLIENT TRACKING ON OPTOUT",
    "CLIENT TRACKING ON NOLOOP",
    "CLIENT CACHING YES",
    "CLIENT CACHING NO",
    "CLIENT CACHING x",
    "CLIENT TRACKINGINFO",
    "CLIENT GETREDIR",
    "CLIENT NO-TOUCH ON",
    "CLIENT NO-TOUCH OFF",
    "CLIENT GETNAME",
    "CLIENT SETNAME @n",
    "CLIENT",
    "CLIENT NOSUCH",
    "SELECT 0",
    "SELECT 1",
    "SELECT x",
    "SELECT",
    "SELECT 99",
    "GET @k",
    "GET @k",
    "SET @k v",
    "INCR @n",
    "GET",
    "PING",
    "PING x",
    "PING x y",
    "ECHO @e",
    "PUBLISH @ch m",
    "BLPOP @l 0.01",
    "RPUSH @l x",
    "nosuch @k",
    "nosuch",
    "WAIT 0 0",
    "WAIT 0",
    "EVAL \"return 1\" 0",
    "EVAL \"return 1\" x",
    "OBJECT NOSUCH @k",
    "ACL WHOAMI",
    "AUTH default x",
    "CONFIG GET maxmemory-policy",
    "EVAL \"return redis.call('GET',KEYS[1])\" 1 @k",
];

/// Over several shards it does not show that a `CLIENT CACHING` waits for the next command; over one that waits for
/// the next one that the engine gets.
const SHOWS_CACHING: &str = "CLIENT TRACKINGINFO";

/// What is known of the connection: only where the proxy differs on purpose.
#[derive(Default)]
struct State {
    resp3: bool,
    transaction: bool,
    watching: bool,
    tracking: bool,
    subscribed: BTreeSet<String>,
    silent: bool,
    skip: bool,
}

struct Made {
    lines: Vec<String>,
    several: bool,
    /// The engine has no shard channels.
    six: bool,
    state: State,
    tag: String,
}

impl Made {
    fn new(client: u64, seed: u64, several: bool, six: bool) -> Self {
        let mut random = Random(seed.wrapping_mul(1_000_003) + client * 7_919);
        let mut made = Self {
            lines: Vec::new(),
            several,
            six,
            state: State::default(),
            tag: format!("{{c{client}s{seed}}}"),
        };
        while made.lines.len() < STEPS {
            let step = random.pick(STEPS_OF);
            if made.may(step) {
                made.put(step);
            }
        }
        made
    }

    /// Whether a step leads to no difference that is meant.
    fn may(&self, step: &str) -> bool {
        let state = &self.state;
        let listens = !state.subscribed.is_empty();
        let only_messages = listens && !state.resp3;
        let word = step.split(' ').next().unwrap();
        let subscribing = word.ends_with("SUBSCRIBE");
        if only_messages {
            // The proxy's own words about what is not possible now are the engine's.
            return !(subscribing && (state.silent || state.skip)) && !step.starts_with("HELLO");
        }
        if step == SHOWS_CACHING {
            // One that is wrong lets an earlier one be.
            let right = |line: &String| line.contains("CACHING YES") || line.contains("CACHING NO");
            let known = self.lines.len() - usize::from(!self.several && !self.lines.is_empty());
            if self.lines[..known].iter().any(right) {
                return false;
            }
        }
        match word {
            // Errors of these are answered even to the silent.
            _ if subscribing => !(state.transaction || state.silent || state.skip),
            "HELLO" => {
                let changes = step.contains(if state.resp3 { '2' } else { '3' });
                !changes || !(listens || state.tracking || state.transaction || state.watching)
            }
            "SELECT" if self.several => !step.ends_with(['1', '9']),
            "CLIENT" if state.transaction => {
                let about_all = step.contains("TRACKING ") || step.contains("NO-TOUCH");
                // The reply to `EXEC` gets a hole.
                !(step.contains("REPLY") || self.several && about_all)
            }
            // Where the message comes between replies is not promised.
            "PUBLISH" => !state.transaction,
            _ => true,
        }
    }

    fn put(&mut self, step: &str) {
        let state = &mut self.state;
        let only_messages = !state.subscribed.is_empty() && !state.resp3;
        let skipped = std::mem::take(&mut state.skip);
        let parts: Vec<&str> = step.split(' ').collect();
        let allowed = !only_messages || parts[0].ends_with("SUBSCRIBE") || parts[0] == "RESET";
        if allowed {
            match parts[..] {
                ["CLIENT", "REPLY", mode] if !state.transaction => {
                    state.silent = (state.silent || mode == "OFF") && mode != "ON";
                    state.skip = mode == "SKIP";
                }
                ["RESET"] => *state = State::default(),
                ["MULTI"] => state.transaction = true,
                ["EXEC"] | ["EXEC", _] | ["DISCARD"] if state.transaction => {
                    state.transaction = false;
                    state.watching = false;
                }
                ["WATCH", _] if !state.transaction => state.watching = true,
                ["UNWATCH"] if !state.transaction => state.watching = false,
                ["HELLO", "2"] if !state.transaction => state.resp3 = false,
                ["HELLO", "3", ..] if !state.transaction => state.resp3 = true,
                // Inside a transaction too, at its end.
                ["CLIENT", "TRACKING", ..] => state.tracking = true,
                ["SSUBSCRIBE" | "SUNSUBSCRIBE", ..] if self.six => {}
                ["SUBSCRIBE" | "PSUBSCRIBE" | "SSUBSCRIBE", ref names @ ..] => {
                    let names = names.iter().map(|name| format!("{}{name}", &parts[0][..1]));
                    state.subscribed.extend(names);
                }
                [
                    "UNSUBSCRIBE" | "PUNSUBSCRIBE" | "SUNSUBSCRIBE",
                    ref names @ ..,
                ] => {
                    let kind = match parts[0].as_bytes()[0] {
                        b'U' => 'S',
                        b'P' => 'P',
                        _ => 'X',
                    };
                    let gone = |known: &String| {
                        let shard = known.starts_with('S') && known.ends_with("@s");
                        let kind_of = if shard {
                            'X'
                        } else {
                            known.chars().next().unwrap()
                        };
                        kind_of == kind
                            && (names.is_empty() || names.iter().any(|name| known[1..] == **name))
                    };
                    state.subscribed.retain(|known| !gone(known));
                }
                _ => {}
            }
        }
        let _ = skipped;
        self.lines.push(step.replace('@', &self.tag));
    }
}

/// Sends in pieces of chance; returns all that comes.
fn talk(address: SocketAddr, made: &Made, random: &mut Random) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let token = format!("the end of {}", made.tag);
    let mut sent: Vec<u8> = made.lines.iter().flat_map(|line| words(line)).collect();
    // A `SKIP` at the end is used up.
    sent.extend(words("PING"));
    sent.extend(words("RESET"));
    sent.extend(words(&format!("ECHO '{token}'")));
    let end = format!("${}\r\n{token}\r\n", token.len()).into_bytes();
    let mut writer = stream.try_clone().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let mut rest = &sent[..];
            while !rest.is_empty() {
                let most = random.pick(&["1", "20", "300", "5000"]).parse().unwrap();
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

/// Greetings tell the number of the connection.
fn without_ids(text: &str) -> String {
    let mut parts = text.split("$2\r\nid\r\n:");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |head, tail| {
        head + tail.split_once("\r\n").map_or("", |(_, rest)| rest)
    })
}

/// Replies in their order, and what comes unasked apart: when that comes is not promised.
fn split(mut bytes: &[u8]) -> (Vec<String>, Vec<String>) {
    let (mut replies, mut unasked) = (Vec::new(), Vec::new());
    while !bytes.is_empty() {
        let mut framer = ReplyFramer::default();
        let used = framer
            .advance(bytes)
            .map_or(bytes.len(), |got| got.consumed);
        let text = String::from_utf8_lossy(&bytes[..used]).into_owned();
        bytes = &bytes[used..];
        let text = without_ids(&text);
        let message = text.contains("message\r\n") && text.starts_with(['>', '*']);
        if message || text.contains("$10\r\ninvalidate\r\n") {
            unasked.push(text);
        } else {
            replies.push(text);
        }
    }
    unasked.sort();
    (replies, unasked)
}

/// The order of channels that end together is that of a table.
fn same(one: &str, two: &str) -> bool {
    one == two
        || one.contains("unsubscribe") && two.contains("unsubscribe") && one.len() == two.len()
}

fn compare(made: &Made, seed: u64, direct: &[u8], through: &[u8]) {
    let ((direct, told), (through, heard)) = (split(direct), split(through));
    let at = direct
        .iter()
        .zip(&through)
        .take_while(|(one, two)| same(one, two))
        .count();
    // Invalidations of what the transaction or the client itself wrote may come in another number.
    let messages = |all: &[String]| -> Vec<String> {
        all.iter()
            .filter(|text| !text.contains("invalidate"))
            .cloned()
            .collect()
    };
    if at == direct.len() && at == through.len() && messages(&told) == messages(&heard) {
        return;
    }
    for (number, line) in made.lines.iter().enumerate() {
        eprintln!("{number:4} {line}");
    }
    let part = |replies: &[String]| -> Vec<String> {
        let from = at.saturating_sub(5);
        replies.iter().skip(from).take(9).cloned().collect()
    };
    panic!(
        "seed {seed}, client {}: reply {at} differs, or messages do\nthrough: {:#?}\ndirect: {:#?}\n\
         heard: {heard:?}\ntold: {told:?}",
        made.tag,
        part(&through),
        part(&direct)
    );
}

fn rounds(engine: &'static str, shards: u16, rounds: u64) {
    let node = match shards {
        1 => Node::with(engine, |_| {}),
        _ => Node::sharded(engine, shards),
    };
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
                    let made = Made::new(client, seed, shards > 1, engine.starts_with("redis-6"));
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
fn redis_6_2() {
    rounds("redis-6.2.", 1, 25);
}

#[test]
fn redis_7_0() {
    rounds("redis-7.0.", 1, 25);
}

#[test]
fn valkey_8_0() {
    rounds("valkey-8.0.", 1, 25);
}

#[test]
fn valkey_9_1() {
    rounds(VALKEY, 1, 25);
}

#[test]
fn redis_6_2_over_four_shards() {
    rounds("redis-6.2.", 4, 25);
}

#[test]
fn valkey_9_1_over_four_shards() {
    rounds(VALKEY, 4, 25);
}
