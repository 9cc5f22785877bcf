//! Random command sequences of several clients at once: through the proxy they get, byte for byte,
//! what another engine of the same kind gives to each of them alone.
//!
//! Every client has keys, channels and values of its own, so a reply that reached a wrong client
//! differs. `MAINSTAY_FUZZ_SEED` and `MAINSTAY_FUZZ_ROUNDS` try others, or more.

use crate::support::client::{Client, command};
use crate::support::engine::Engine;
use crate::support::node::{Node, VALKEY};
use resp::reply::ReplyFramer;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

const CLIENTS: u64 = 8;

struct Random(u64);

impl Random {
    /// A number below `limit`.
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % limit
    }

    fn one_in(&mut self, many: usize) -> bool {
        self.below(many) == 0
    }

    fn pick<'a>(&mut self, words: &[&'a str]) -> &'a str {
        words[self.below(words.len())]
    }
}

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
    silent: bool,
    count: usize,
}

/// `@` is the client's prefix, `#` a key, `%` a value of its own.
const PLAIN: &[&str] = &[
    "SET # %",
    "SET # % GET",
    "SET # % NX",
    "GET #",
    "GET #",
    "GET # #",
    "MGET # # #",
    "MSET # % # %",
    "INCR @n",
    "INCRBYFLOAT @f 0.25",
    "APPEND @a %",
    "DEL # #",
    "UNLINK #",
    "EXISTS # #",
    "STRLEN @a",
    "TYPE #",
    "EXPIRE # 1000",
    "PERSIST #",
    "RENAME # #",
    "COPY # # REPLACE",
    "RPUSH @l % %",
    "LPUSH @l %",
    "LRANGE @l 0 -1",
    "LPOP @l",
    "LPOP @l 2",
    "RPOP @nothing",
    "HSET @h f % g %",
    "HGETALL @h",
    "HMGET @h f x",
    "HDEL @h g",
    "SADD @s a",
    "SMEMBERS @s",
    "ZADD @z 1 a 2 b 3.5 c",
    "ZRANGE @z 0 -1 WITHSCORES",
    "ZSCORE @z c",
    "ZRANK @z nothing WITHSCORE",
    "XADD @x 1-* f %",
    "XRANGE @x - + COUNT 2",
    "XREAD COUNT 1 STREAMS @x 0",
    "GEOADD @g 13.361389 38.115556 Palermo",
    "GEOPOS @g Palermo nothing",
    "SETBIT @bits 7 1",
    "BITFIELD @bits GET u4 4",
    "PFADD @p a b",
    "PFCOUNT @p",
    "SINTERCARD 1 @s",
    "LCS @a @a",
    "DUMP @nothing",
    "SORT @l ALPHA",
    "OBJECT ENCODING @l",
    "OBJECT HELP",
    "MOVE @m 3",
    "PUBLISH @nobody %",
    "PUBSUB NUMSUB @ch",
    "EVAL \"return {1,'two',{3,false,true},redis.call('GET',KEYS[1]),ARGV[1]}\" 1 # %",
    "EVAL \"return redis.error_reply('MY a\\r\\n+b\\n-c')\" 0",
    "EVAL \"return redis.status_reply('a\\r\\n$3\\r\\nb')\" 0",
    "EVAL \"return {err='a\\r\\nb', ok='c\\r\\n+d'}\" 0",
    "EVAL \"redis.setresp(3); return {{map={[ARGV[1]]='b',c={1,2}}},{set={x=true}},{double=1.5}}\" 0 %",
    "EVAL \"return {big_number='12\\r\\n3'}\" 0",
    "EVAL \"return {{verbatim_string={format='t\\r\\n',string='a\\r\\nb'}},{double=3.0},{map={}}}\" 0",
    "EVAL \"local t={ARGV[1]} for i=1,200 do t={t} end return t\" 0 %",
    "EVAL \"error('a\\r\\nb')\" 0",
    "EVAL \"return redis.call('nosuch\\r\\n')\" 0",
    "EVAL \"return redis.pcall('GET')\" 0",
    "EVAL \"return redis.call('CONFIG','GET','*')\" 0",
    "EVAL \"return redis.pcall('SELECT',ARGV[1])\" 0 x",
    "EVAL \"return redis.pcall('SUBSCRIBE','x')\" 0",
    "EVAL \"return redis.pcall('BLPOP',KEYS[1],0)\" 1 @nothing",
    "EVAL \"return redis.pcall('MULTI')\" 0",
    "EVAL \"return redis.pcall('CLIENT','ID')\" 0",
    "EVALSHA ffffffffffffffffffffffffffffffffffffffff 0",
    "\"no\\r\\nsuch\" \"a\\r\\n+OK\" %",
    "nosuch %",
    "\"\"",
    "GET",
    "ECHO %",
    "PING",
    "PING %",
    "EXEC x",
    "MULTI x",
    "READONLY x",
    "WAIT 0 0",
    "XGROUP CREATE @x @grp 0 MKSTREAM",
    "XREADGROUP GROUP @grp c COUNT 1 STREAMS @x >",
    "XREADGROUP GROUP STREAMS c BLOCK 20 STREAMS @x >",
    "XINFO HELP",
    "COMMAND GETKEYS SET a %",
    "SELECT x",
    "SELECT 99",
    "SELECT",
    "FUNCTION HELP",
    "FCALL nosuch 0",
    "SCRIPT EXISTS %",
    "SCRIPT NOSUCH",
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

impl Made {
    fn key(&self, random: &mut Random) -> String {
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
                    if random.one_in(60) {
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
            let empty: &[u8] = [&b"\r\n"[..], b"*0\r\n", b"*-1\r\n", b" \n"][random.below(4)];
            self.bytes.extend_from_slice(empty);
        }
        self.shown.push(line.chars().take(100).collect());
    }

    fn put(&mut self, template: &str, random: &mut Random) {
        let line = self.fill(template, random);
        self.add(&line, random);
    }

    /// One step; the states that are followed are those in which the proxy knowingly differs.
    fn step(&mut self, random: &mut Random) {
        if self.subscribed && !self.resp3 {
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
            if random.one_in(4) {
                self.put("UNSUBSCRIBE", random);
                self.put("PUNSUBSCRIBE", random);
                self.subscribed = false;
            }
            return;
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
            4 if self.subscribed => {
                self.put("PUBLISH @ch %", random);
            }
            5 if self.subscribed && !self.transaction => {
                self.put("UNSUBSCRIBE", random);
                self.put("PUNSUBSCRIBE", random);
                self.subscribed = false;
            }
            6 if self.resp3 && !self.transaction => {
                self.tracking = !self.tracking;
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

    fn other_step(&mut self, which: usize, random: &mut Random) {
        match which {
            8 | 9 if !self.transaction => {
                let line = random.pick(ODD);
                self.put(line, random);
                if line == "RESET" {
                    let Made {
                        bytes,
                        shown,
                        prefix,
                        count,
                        ..
                    } = std::mem::take(self);
                    *self = Made {
                        bytes,
                        shown,
                        prefix,
                        count,
                        ..Made::default()
                    };
                }
            }
            8 if self.transaction => {
                let line = random.pick(&["SELECT 2", "SELECT 0", "BLPOP @l 0", "WATCH #", "MULTI"]);
                self.put(line, random);
            }
            _ => {
                let line = random.pick(PLAIN);
                self.put(line, random);
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

fn short(text: &str) -> String {
    text.chars().take(300).collect()
}

fn compare(made: &Made, seed: u64, direct: &[u8], through: &[u8]) {
    let (direct, through) = (split(direct), split(through));
    if direct == through {
        return;
    }
    let at = direct
        .iter()
        .zip(&through)
        .take_while(|(a, b)| a == b)
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
                && [" db=0 ", " sub=0 ", " psub=0 ", " ssub=0 "]
                    .iter()
                    .all(|part| line.contains(part))
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

fn setting(name: &str, otherwise: u64) -> u64 {
    std::env::var(name)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(otherwise)
}

fn rounds(engine: &'static str, rounds: u64) {
    let node = Node::with(engine, |_| {});
    let folder = tempfile::tempdir().unwrap();
    let mut address = node.engine.direct;
    address.set_port(20_001);
    let twin = Engine::start(engine, folder.path(), address);
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
fn valkey_9_1() {
    rounds(VALKEY, 6);
}
