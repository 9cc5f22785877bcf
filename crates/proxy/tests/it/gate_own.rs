//! Planned moves of a primary while clients have connections of their own: transactions, watched keys,
//! blocking commands, numbered databases.

use crate::support::client::{Client, words};
use crate::support::engine::PASSWORD;
use crate::support::node::VALKEY;
use crate::support::pair::{Load, Pair};
use crate::support::until;
use resp::value::Value;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

fn runs(stop: &AtomicBool) -> bool {
    !stop.load(Ordering::Relaxed)
}

/// Transactions step by step, and as one batch.
fn transactions(mut client: Client, db: u32, stop: &AtomicBool) {
    let key = format!("multi{db}");
    if db > 0 {
        assert_eq!(client.text(&format!("SELECT {db}")), "+OK\r\n");
    }
    let (mut count, mut rounds) = (0, 0);
    while runs(stop) {
        rounds += 1;
        let wanted = format!("*2\r\n:{}\r\n:{}\r\n", count + 1, count + 2);
        count += 2;
        let lines = [
            "MULTI",
            &format!("INCR {key}"),
            &format!("INCR {key}"),
            "EXEC",
        ];
        if rounds % 2 == 0 {
            client.send(&lines.map(words).concat());
            for wanted in ["+OK\r\n", "+QUEUED\r\n", "+QUEUED\r\n"] {
                assert_eq!(String::from_utf8_lossy(&client.raw()), wanted);
            }
            assert_eq!(String::from_utf8_lossy(&client.raw()), wanted);
        } else {
            assert_eq!(client.text(lines[0]), "+OK\r\n");
            assert_eq!(client.text(lines[1]), "+QUEUED\r\n");
            assert_eq!(client.text(lines[2]), "+QUEUED\r\n");
            assert_eq!(client.text(lines[3]), wanted);
        }
    }
    let value = client.text(&format!("GET {key}"));
    assert_eq!(value.split("\r\n").nth(1), Some(count.to_string().as_str()));
}

/// Counts up under watch; whoever gets null tries again.
fn watching(mut client: Client, done: &AtomicU64, stop: &AtomicBool) {
    while runs(stop) {
        assert_eq!(client.text("WATCH watched"), "+OK\r\n");
        let value: u64 = match client.ask("GET watched") {
            Value::Null => 0,
            value => std::str::from_utf8(value.text().unwrap())
                .unwrap()
                .parse()
                .unwrap(),
        };
        assert_eq!(client.text("MULTI"), "+OK\r\n");
        assert_eq!(
            client.text(&format!("SET watched {}", value + 1)),
            "+QUEUED\r\n"
        );
        client.send(&words("EXEC"));
        match client.raw().as_slice() {
            b"*1\r\n+OK\r\n" => drop(done.fetch_add(1, Ordering::Relaxed)),
            b"*-1\r\n" => {}
            other => panic!("{}", String::from_utf8_lossy(other)),
        }
    }
}

/// Values that were taken, and how many were given.
#[derive(Default)]
struct Queue {
    taken: Mutex<Vec<u64>>,
    given: AtomicU64,
}

impl Queue {
    fn give(&self, mut client: Client, line: &str, stop: &AtomicBool, takers: u64) {
        let mut count = 0;
        while runs(stop) {
            count += 1;
            let reply = client.text(&line.replace("%", &count.to_string()));
            assert!(!reply.starts_with('-'), "{reply}");
            if count % 3 == 0 {
                // Takers are to block now and then.
                until("it is taken", || {
                    self.taken.lock().unwrap().len() as u64 == count
                });
            }
        }
        self.given.store(count, Ordering::Relaxed);
        // The last ones are for those that still wait.
        for taker in 0..takers {
            let reply = client.text(&line.replace("%", &(u64::MAX / 2 + taker).to_string()));
            assert!(!reply.starts_with('-'), "{reply}");
        }
    }

    fn take(&self, mut client: Client, line: &str, number: impl Fn(&Value) -> Option<u64>) {
        loop {
            let reply = client.ask(line);
            assert!(!matches!(reply, Value::Error(_)), "{line}: {reply:?}");
            let Some(value) = number(&reply) else {
                continue;
            };
            if value >= u64::MAX / 2 {
                return;
            }
            self.taken.lock().unwrap().push(value);
        }
    }

    fn check(&self) {
        let mut taken = self.taken.lock().unwrap().clone();
        taken.sort_unstable();
        let all: Vec<u64> = (1..=self.given.load(Ordering::Relaxed)).collect();
        assert_eq!(taken, all);
    }
}

fn parse(value: &Value) -> u64 {
    std::str::from_utf8(value.text().unwrap())
        .unwrap()
        .parse()
        .unwrap()
}

fn items(value: &Value) -> &[Value] {
    match value {
        Value::Array(items) => items,
        _ => &[],
    }
}

fn taken_at(place: usize) -> impl Fn(&Value) -> Option<u64> {
    move |reply| items(reply).get(place).map(parse)
}

fn moves_with_own_connections(engine: &'static str, moves: usize) {
    let mut pair = Pair::of(engine, engine, 2);
    let (lists, moved, sorted) = (Queue::default(), Queue::default(), Queue::default());
    let done = AtomicU64::new(0);
    let client = || pair.node.client();
    let mut loads: Vec<Load<'_>> = Vec::new();
    for db in [0, 5] {
        let client = client();
        loads.push(Box::new(move |stop| transactions(client, db, stop)));
    }
    for _ in 0..2 {
        let (client, done) = (client(), &done);
        loads.push(Box::new(move |stop| watching(client, done, stop)));
    }
    for (queue, give, takers) in [
        (
            &lists,
            "RPUSH q %",
            &["BLPOP other q 0", "BRPOP q 0.2", "BLPOP q 30"][..],
        ),
        (
            &moved,
            "RPUSH from %",
            &["BLMOVE from to LEFT RIGHT 0", "BRPOPLPUSH from to 0.3"],
        ),
        (&sorted, "ZADD z % %", &["BZPOPMIN z 0", "BZPOPMAX z 1"]),
    ] {
        let giver = client();
        let count = takers.len() as u64;
        loads.push(Box::new(move |stop| queue.give(giver, give, stop, count)));
        for take in takers {
            let client = client();
            loads.push(Box::new(move |_| match take.as_bytes()[1..3] {
                [b'L', b'M'] | [b'R', b'P'] if !take.contains(" q ") => {
                    queue.take(client, take, |reply| match reply {
                        Value::Bulk(_) => Some(parse(reply)),
                        _ => None,
                    });
                }
                [b'Z', _] => queue.take(client, take, taken_at(1)),
                _ => queue.take(client, take, taken_at(1)),
            }));
        }
    }
    pair.move_under(moves, loads);
    for queue in [&lists, &moved, &sorted] {
        queue.check();
    }
    let value = pair.node.client().text("GET watched");
    let done = done.into_inner().to_string();
    assert_eq!(value.split("\r\n").nth(1), Some(done.as_str()));
    pair.tell(engine);
}

#[test]
fn valkey_9_moves_with_own_connections() {
    moves_with_own_connections(VALKEY, 30);
}

#[test]
fn redis_6_moves_with_own_connections() {
    moves_with_own_connections("redis-6.2.", 30);
}

/// The entries of the first stream of a reply.
fn entries(reply: &Value) -> Vec<Value> {
    let stream = items(reply).first();
    stream.map_or_else(Vec::new, |stream| items(&items(stream)[1]).to_vec())
}

fn number(entry: &Value) -> u64 {
    parse(&items(&items(entry)[1])[1])
}

/// Entries of a stream: read on from the last one, and by a group.
fn moves_with_streams(engine: &'static str) {
    let mut pair = Pair::of(engine, engine, 2);
    let mut first = pair.node.client();
    assert_eq!(first.text("XGROUP CREATE s g $ MKSTREAM"), "+OK\r\n");
    let (plain, group) = (Queue::default(), Queue::default());
    let (plain_ref, group_ref) = (&plain, &group);
    let (giver, reader) = (pair.node.client(), pair.node.client());
    let mut loads: Vec<Load<'_>> = vec![
        Box::new(move |stop| {
            let mut giver = giver;
            let mut count = 0;
            while runs(stop) {
                count += 1;
                giver.text(&format!("XADD s * n {count}"));
                if count % 5 == 0 {
                    until("all have read", || {
                        [plain_ref, group_ref]
                            .iter()
                            .all(|queue| queue.taken.lock().unwrap().len() as u64 == count)
                    });
                }
            }
            for queue in [plain_ref, group_ref] {
                queue.given.store(count, Ordering::Relaxed);
            }
            for _ in 0..3 {
                giver.text(&format!("XADD s * n {}", u64::MAX / 2));
            }
        }),
        Box::new(move |_| {
            let (mut reader, mut last) = (reader, "0".to_owned());
            loop {
                let reply = reader.ask(&format!("XREAD COUNT 2 BLOCK 0 STREAMS s {last}"));
                for entry in entries(&reply) {
                    let id = items(&entry)[0].text().unwrap().to_vec();
                    last = String::from_utf8(id).unwrap();
                    match number(&entry) {
                        value if value >= u64::MAX / 2 => return,
                        value => plain_ref.taken.lock().unwrap().push(value),
                    }
                }
            }
        }),
    ];
    for consumer in 0..2 {
        let mut reader = pair.node.client();
        loads.push(Box::new(move |_| {
            loop {
                let line = format!("XREADGROUP GROUP g c{consumer} COUNT 1 BLOCK 200 STREAMS s >");
                let reply = reader.ask(&line);
                assert!(!matches!(reply, Value::Error(_)), "{reply:?}");
                for entry in entries(&reply) {
                    let id = String::from_utf8(items(&entry)[0].text().unwrap().to_vec()).unwrap();
                    assert_eq!(reader.text(&format!("XACK s g {id}")), ":1\r\n");
                    match number(&entry) {
                        value if value >= u64::MAX / 2 => return,
                        value => group_ref.taken.lock().unwrap().push(value),
                    }
                }
            }
        }));
    }
    pair.move_under(20, loads);
    plain.check();
    group.check();
}

#[test]
fn valkey_9_moves_with_streams() {
    moves_with_streams(VALKEY);
}

#[test]
fn redis_6_moves_with_streams() {
    moves_with_streams("redis-6.2.");
}

fn blocked(pair: &mut Pair, count: usize) {
    let primary = pair.primary;
    until("they block", || {
        let list = pair.direct[primary].text("CLIENT LIST");
        list.lines().filter(|line| line.contains("flags=b")).count() == count
    });
}

#[test]
fn what_blocks_goes_on_at_the_new_primary() {
    let mut pair = Pair::start(VALKEY);
    let lines = [
        "BLPOP q1 0",
        "BLMPOP 0 1 q2 LEFT",
        "BZMPOP 100 1 z1 MIN",
        "XREAD BLOCK 0 STREAMS s1 s2 $ $",
        "XREAD BLOCK 100000 STREAMS gone $",
        "WAIT 2 0",
    ];
    let mut setting = pair.node.client();
    setting.text("XADD s1 5-5 old 1");
    setting.text("XADD s2 5-5 old 1");
    let mut clients: Vec<Client> = lines
        .iter()
        .enumerate()
        .map(|(number, line)| {
            let mut client = pair.node.client();
            // In another numbered database, for some.
            if number == 4 {
                assert_eq!(client.text("SELECT 7"), "+OK\r\n");
            }
            client.send(&words(line));
            client
        })
        .collect();
    // What comes behind stays behind.
    clients[0].send(&words("RPUSH after 1"));
    let count = lines.len();
    for _ in 0..3 {
        blocked(&mut pair, count);
        pair.move_primary();
    }
    blocked(&mut pair, count);
    assert_eq!(setting.text("EXISTS after"), ":0\r\n");
    for line in [
        "RPUSH q1 a",
        "RPUSH q2 b",
        "ZADD z1 1 c",
        "XADD s2 6-6 new 1",
    ] {
        setting.text(line);
    }
    setting.text("SELECT 7");
    setting.text("XADD gone 1-1 new 2");
    let wanted: [&[u8]; 5] = [
        b"*2\r\n$2\r\nq1\r\n$1\r\na\r\n",
        b"*2\r\n$2\r\nq2\r\n*1\r\n$1\r\nb\r\n",
        b"*2\r\n$2\r\nz1\r\n*1\r\n*2\r\n$1\r\nc\r\n$1\r\n1\r\n",
        b"*1\r\n*2\r\n$2\r\ns2\r\n*1\r\n*2\r\n$3\r\n6-6\r\n*2\r\n$3\r\nnew\r\n$1\r\n1\r\n",
        b"*1\r\n*2\r\n$4\r\ngone\r\n*1\r\n*2\r\n$3\r\n1-1\r\n*2\r\n$3\r\nnew\r\n$1\r\n2\r\n",
    ];
    for (client, wanted) in clients.iter_mut().zip(wanted) {
        let got = client.raw();
        assert_eq!(
            String::from_utf8_lossy(&got),
            String::from_utf8_lossy(wanted)
        );
    }
    assert_eq!(clients[0].raw(), b":1\r\n");
    // Two copies there never are: WAIT is let go by a client.
    let id = clients.pop().unwrap();
    let mut waiting = id;
    let list = setting.text("CLIENT LIST");
    let line = list.lines().find(|line| line.contains("flags=b")).unwrap();
    let id = line.split("id=").nth(1).unwrap().split(' ').next().unwrap();
    assert_eq!(
        setting.text(&format!("CLIENT UNBLOCK {id} ERROR")),
        ":1\r\n"
    );
    assert!(waiting.raw().starts_with(b"-UNBLOCKED"));
}

#[test]
fn a_time_that_is_over_ends_at_the_new_primary() {
    let mut pair = Pair::start(VALKEY);
    let mut client = pair.node.client();
    client.send(&words("BLPOP q 0.5"));
    blocked(&mut pair, 1);
    pair.move_primary();
    assert_eq!(client.raw(), b"*-1\r\n");
    assert_eq!(client.text("WAIT 1 0"), ":1\r\n");
    pair.move_primary();
    assert_eq!(client.text("SET k v"), "+OK\r\n");
    assert_eq!(client.text("WAIT 1 0"), ":1\r\n");
}

#[test]
fn sessions_move_with_what_they_hold() {
    let mut pair = Pair::start(VALKEY);
    let (mut open, mut watching, mut selected) =
        (pair.node.client(), pair.node.client(), pair.node.client());
    assert_eq!(open.text("SELECT 3"), "+OK\r\n");
    assert_eq!(open.text("MULTI"), "+OK\r\n");
    assert_eq!(open.text("SET a 1"), "+QUEUED\r\n");
    assert!(open.text("SET a").starts_with("-ERR wrong number"));
    assert_eq!(watching.text("WATCH k"), "+OK\r\n");
    assert_eq!(selected.text("SELECT 9"), "+OK\r\n");
    assert!(selected.text("HELLO 3").contains("valkey"));
    let mut large = pair.node.client();
    assert_eq!(large.text("MULTI"), "+OK\r\n");
    large.send(&words(&format!("SET large {}", "x".repeat(2_000_000))));
    assert_eq!(large.raw(), b"+QUEUED\r\n");
    pair.move_primary();
    // An error makes it fail, also there.
    assert_eq!(open.text("SET b 1"), "+QUEUED\r\n");
    assert!(open.text("EXEC").starts_with("-EXECABORT"));
    assert_eq!(open.text("MULTI"), "+OK\r\n");
    assert_eq!(open.text("SET a 1"), "+QUEUED\r\n");
    pair.move_primary();
    assert_eq!(open.text("SET b 2"), "+QUEUED\r\n");
    pair.move_primary();
    assert_eq!(open.text("EXEC"), "*2\r\n+OK\r\n+OK\r\n");
    // Whether the key changed is not known.
    assert_eq!(watching.text("MULTI"), "+OK\r\n");
    assert_eq!(watching.text("SET k 1"), "+QUEUED\r\n");
    watching.send(&words("EXEC"));
    assert_eq!(watching.raw(), b"*-1\r\n");
    assert_eq!(watching.text("EXISTS k"), ":0\r\n");
    assert_eq!(selected.text("SET nine 9"), "+OK\r\n");
    let mut plain = pair.node.client();
    assert_eq!(plain.text("EXISTS nine a b"), ":0\r\n");
    plain.text("SELECT 3");
    assert_eq!(plain.text("EXISTS a b"), ":2\r\n");
    plain.text("SELECT 9");
    assert_eq!(plain.text("EXISTS nine"), ":1\r\n");
    // Too large to be kept: it says so.
    assert!(
        large
            .text("SET b 1")
            .starts_with("-ERR connection to the shard was lost inside")
    );
    assert!(large.text("EXEC").starts_with("-EXECABORT"));
    assert_eq!(large.text("EXISTS large"), ":0\r\n");
}

/// A transaction of a client with tracking is opened again after the move: what comes at `EXEC` in the proxy's words still
/// comes in its place, without the engine's passwords.
#[test]
fn a_transaction_that_moved_is_looked_into() {
    let mut pair = Pair::start(VALKEY);
    let mut client = pair.node.client();
    client.ask("HELLO 3");
    let id = client.text("CLIENT ID");
    for moves in [1, 2] {
        assert_eq!(client.text("CLIENT TRACKING ON"), "+OK\r\n");
        assert_eq!(client.text("MULTI"), "+OK\r\n");
        assert_eq!(client.text("PING"), "+QUEUED\r\n");
        for _ in 0..moves {
            pair.move_primary();
            // It is told to forget what it has cached.
            assert!(client.raw().starts_with(b">2\r\n$10\r\ninvalidate"));
        }
        assert_eq!(client.text("CONFIG GET masterauth"), "+QUEUED\r\n");
        assert_eq!(client.text("CLIENT ID"), "+QUEUED\r\n");
        client.send(&words("EXEC"));
        let got = String::from_utf8(client.raw()).unwrap();
        assert!(!got.contains(PASSWORD), "{got}");
        assert!(got.starts_with("*3\r\n+PONG\r\n"), "{got}");
        assert!(got.ends_with(&id), "{got}");
    }
}

/// What was queued in a transaction that is lost is nothing of what comes after it.
#[test]
fn a_lost_transaction_leaves_nothing() {
    let mut pair = Pair::start(VALKEY);
    let mut client = pair.node.client();
    assert_eq!(client.text("MULTI"), "+OK\r\n");
    assert_eq!(client.text("SET a 1"), "+QUEUED\r\n");
    let primary = pair.primary;
    let list = pair.direct[primary].text("CLIENT LIST");
    let own = list
        .lines()
        .find(|line| line.contains(" multi=1 "))
        .unwrap();
    let number = own.split("id=").nth(1).unwrap();
    let number = number.split(' ').next().unwrap().to_owned();
    pair.direct[primary].text(&format!("CLIENT KILL ID {number}"));
    until("the loss is seen", || {
        client.text("SET a 2").starts_with("-ERR conn")
    });
    assert!(client.text("EXEC").starts_with("-EXECABORT"));
    client.send(&words("SUBSCRIBE news"));
    assert!(client.raw().ends_with(b":1\r\n"));
    pair.move_primary();
    let mut other = pair.node.client();
    assert_eq!(other.text("PUBLISH news x"), ":1\r\n");
    assert!(client.raw().ends_with(b"$1\r\nx\r\n"));
    assert_eq!(other.text("EXISTS a"), ":0\r\n");
}

/// A long value is half-way when the gate closes.
#[test]
fn a_long_command_comes_to_its_end_or_has_not_run() {
    let mut pair = Pair::start(VALKEY);
    let (mut whole, mut half) = (pair.node.client(), pair.node.client());
    let value = vec![b'x'; 300_000];
    for client in [&mut whole, &mut half] {
        client.send(b"*3\r\n$3\r\nSET\r\n$1\r\n");
    }
    whole.send(b"w\r\n$300000\r\n");
    half.send(b"h\r\n$300000\r\n");
    half.send(&value[..200_000]);
    whole.send(&value[..200_000]);
    let mut direct = pair.node.direct();
    until("both are streamed", || {
        let list = direct.text("CLIENT LIST");
        let large = list.lines().filter(|line| {
            let size = line
                .split("qbuf=")
                .nth(1)
                .and_then(|rest| rest.split(' ').next());
            size.and_then(|size| size.parse::<u64>().ok()).unwrap_or(0) > 100_000
        });
        large.count() == 2
    });
    let order = pair.node.exec.order(pair.hold_order(60_000));
    whole.send(&value[200_000..]);
    whole.send(b"\r\n");
    assert_eq!(whole.raw(), b"+OK\r\n");
    assert!(
        half.raw().starts_with(
            b"-TRYAGAIN connection to the shard was lost before the command was whole"
        )
    );
    until("it is held", || pair.node.exec.answer_to(order).is_some());
    half.send(&value[200_000..]);
    half.send(b"\r\n");
    pair.fail_over();
    let next = pair.shard(1, 2);
    assert_eq!(pair.release(&next).refusal, None);
    assert_eq!(half.text("EXISTS h w"), ":1\r\n");
}
