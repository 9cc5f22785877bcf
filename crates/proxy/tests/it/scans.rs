//! Scans go on while the primary moves: what is there from beginning to end comes at least once.

use crate::support::client::{Client, command, words};
use crate::support::node::VALKEY;
use crate::support::pair::Pair;
use resp::value::Value;
use std::collections::BTreeSet;

const TOO_LONG: &[u8] = b"-ERR a command with a cursor is at most 64 KiB long\r\n";

/// Members of each collection, and keys beside them: enough for many pages, and for tables instead of lists.
const COUNT: usize = 2_000;

fn fill(client: &mut Client) {
    for number in 0..COUNT {
        let mut sent = words(&format!("SET key{number} x"));
        sent.extend(words(&format!("HSET hash m{number} x")));
        sent.extend(words(&format!("SADD set m{number}")));
        sent.extend(words(&format!("ZADD zset {number} m{number}")));
        client.send(&sent);
        for _ in 0..4 {
            assert!(!client.raw().starts_with(b"-"));
        }
    }
}

/// A scan that is under way.
struct Scan {
    /// The command up to the cursor.
    begins: &'static str,
    /// How many elements of a page are one.
    step: usize,
    /// What each begins with that is counted.
    prefix: &'static str,
    cursor: String,
    found: BTreeSet<Vec<u8>>,
    pages: usize,
}

impl Scan {
    fn of(begins: &'static str, step: usize, prefix: &'static str) -> Self {
        Self {
            begins,
            step,
            prefix,
            cursor: "0".to_owned(),
            found: BTreeSet::new(),
            pages: 0,
        }
    }

    fn all() -> [Self; 4] {
        [
            Self::of("SCAN", 1, "key"),
            Self::of("HSCAN hash", 2, "m"),
            Self::of("SSCAN set", 1, "m"),
            Self::of("ZSCAN zset", 2, "m"),
        ]
    }

    fn line(&self) -> String {
        format!("{} {} COUNT 50", self.begins, self.cursor)
    }

    fn take(&mut self, reply: &Value) {
        let Value::Array(reply) = reply else {
            panic!("{}: {reply:?}", self.begins);
        };
        self.cursor = String::from_utf8(reply[0].text().unwrap().to_vec()).unwrap();
        let Value::Array(items) = &reply[1] else {
            panic!("{}: {:?}", self.begins, reply[1]);
        };
        let names = items.iter().step_by(self.step);
        let names = names.map(|item| item.text().unwrap().to_vec());
        self.found
            .extend(names.filter(|name| name.starts_with(self.prefix.as_bytes())));
        self.pages += 1;
        assert!(self.pages < 10_000, "{}: it ends", self.begins);
    }

    fn is_over(&self) -> bool {
        self.pages > 0 && self.cursor == "0"
    }

    fn check(&self) {
        let (begins, found) = (self.begins, self.found.len());
        assert_eq!(found, COUNT, "{begins}: {} are missing", COUNT - found);
    }
}

/// Each scan has some pages under each primary; `ask` has the next page of one come.
fn scan_and_move(pair: &mut Pair, mut ask: impl FnMut(&mut Scan)) {
    let mut scans = Scan::all();
    for round in 1..=3 {
        // Half of what a scan needs: what was begun anew would not be over by then.
        for _ in 0..round * 8 {
            for scan in scans.iter_mut().filter(|scan| !scan.is_over()) {
                ask(scan);
            }
        }
        assert!(scans.iter().all(|scan| !scan.is_over()), "none is over yet");
        pair.move_primary();
    }
    for scan in &mut scans {
        while !scan.is_over() {
            ask(scan);
        }
        scan.check();
    }
}

fn scans_of(engine: &'static str) {
    let mut pair = Pair::of(engine, engine, 2);
    let mut client = pair.node.client();
    fill(&mut client);
    pair.wait_synced();
    for resp in [2, 3] {
        client.ask(&format!("HELLO {resp}"));
        // Pages of one scan over several connections, as a pool has them.
        let mut other = pair.node.client();
        let mut turn = false;
        scan_and_move(&mut pair, |scan| {
            turn = !turn;
            let asked = if turn { &mut client } else { &mut other };
            let reply = asked.ask(&scan.line());
            scan.take(&reply);
        });
        // On a connection of the client's own, inside transactions.
        scan_and_move(&mut pair, |scan| {
            client.send(&words("MULTI"));
            client.send(&words("PING"));
            client.send(&words(&scan.line()));
            client.send(&words("EXEC"));
            assert_eq!(client.raw(), b"+OK\r\n");
            assert_eq!(client.raw(), b"+QUEUED\r\n");
            assert_eq!(client.raw(), b"+QUEUED\r\n");
            let Value::Array(replies) = client.reply() else {
                panic!("EXEC gives an array");
            };
            scan.take(&replies[1]);
        });
    }
}

#[test]
fn valkey_9_scans_outlive_moves() {
    scans_of(VALKEY);
}

#[test]
fn valkey_8_scans_outlive_moves() {
    scans_of("valkey-8.0.");
}

#[test]
fn redis_7_scans_outlive_moves() {
    scans_of("redis-7.0.");
}

#[test]
fn redis_6_scans_outlive_moves() {
    scans_of("redis-6.2.");
}

/// What is queued before a move runs after it, and begins anew there.
#[test]
fn a_transaction_with_a_page_moves() {
    let mut pair = Pair::start(VALKEY);
    let mut client = pair.node.client();
    fill(&mut client);
    pair.wait_synced();
    for mut scan in Scan::all() {
        for _ in 0..8 {
            let reply = client.ask(&scan.line());
            scan.take(&reply);
        }
        assert_eq!(client.text("MULTI"), "+OK\r\n");
        assert_eq!(client.text(&scan.line()), "+QUEUED\r\n");
        pair.move_primary();
        let Value::Array(replies) = client.ask("EXEC") else {
            panic!("EXEC gives an array");
        };
        scan.take(&replies[0]);
        while !scan.is_over() {
            let reply = client.ask(&scan.line());
            scan.take(&reply);
        }
        scan.check();
    }
}

/// A page flows through, however long it is, and its cursor goes on; neighbours get their replies.
#[test]
fn a_page_of_many_megabytes() {
    let pair = Pair::start(VALKEY);
    let mut client = pair.node.client();
    let value = "x".repeat(16 * 1024);
    for number in 0..1_000 {
        let field = format!("f{number}");
        client.send(&command(&[
            b"HSET",
            b"h",
            field.as_bytes(),
            value.as_bytes(),
        ]));
        assert_eq!(client.raw(), b":1\r\n");
    }
    let (mut cursor, mut found, mut longest) = ("0".to_owned(), BTreeSet::new(), 0);
    loop {
        client.send(&words("SET before 1"));
        client.send(&words(&format!("HSCAN h {cursor} COUNT 700")));
        client.send(&words("GET before"));
        assert_eq!(client.raw(), b"+OK\r\n");
        let raw = client.raw();
        longest = longest.max(raw.len());
        let (Value::Array(reply), used) = Value::decode(&raw).unwrap() else {
            panic!("HSCAN gives an array");
        };
        assert_eq!(used, raw.len());
        assert_eq!(client.raw(), b"$1\r\n1\r\n");
        cursor = String::from_utf8(reply[0].text().unwrap().to_vec()).unwrap();
        let Value::Array(items) = &reply[1] else {
            panic!("with an array");
        };
        for [field, content] in items.as_chunks::<2>().0 {
            assert_eq!(content.text().unwrap(), value.as_bytes());
            found.insert(field.text().unwrap().to_vec());
        }
        if cursor == "0" {
            break;
        }
    }
    assert_eq!(found.len(), 1_000);
    assert!(longest > 8 * 1024 * 1024, "{longest}");
}

/// A cursor that nobody gave out begins a scan; what is none is refused by the engine.
#[test]
fn cursors_of_nobody() {
    let pair = Pair::start(VALKEY);
    let (mut client, mut other) = (pair.node.client(), pair.node.client());
    client.ask("SADD set a b");
    for cursor in ["1", "77", "18446744073709551615"] {
        let page = client.text(&format!("SSCAN set {cursor}"));
        assert!(page.starts_with("*2\r\n$1\r\n0\r\n*2\r\n"), "{page}");
    }
    for cursor in ["x", "1x", "18446744073709551616", "''"] {
        let direct = Client::connect(pair.node.engine.direct).text(&format!("SSCAN set {cursor}"));
        assert!(direct.starts_with("-ERR"), "{direct}");
        assert_eq!(client.text(&format!("SSCAN set {cursor}")), direct);
    }
    // It is waited for as a whole, up to a bound.
    let pattern = "y".repeat(40 * 1024);
    let page = client.text(&format!("SCAN 0 MATCH {pattern}"));
    assert_eq!(page, "*2\r\n$1\r\n0\r\n*0\r\n");
    for length in [64 * 1024, 200 * 1024] {
        let pattern = "y".repeat(length);
        let long = words(&format!("SSCAN set 0 MATCH {pattern}"));
        let (head, tail) = long.split_at(40 * 1024);
        client.send(&long);
        assert_eq!(client.raw(), TOO_LONG);
        client.send(head);
        // By the time that another one has got its answer, this has come.
        assert_eq!(other.text("PING"), "+PONG\r\n");
        client.send(tail);
        assert_eq!(client.raw(), TOO_LONG);
    }
    client.send(&words("MULTI"));
    client.send(&words(&format!(
        "SSCAN set 0 MATCH {}",
        "y".repeat(200 * 1024)
    )));
    client.send(&words("EXEC"));
    assert_eq!(client.raw(), b"+OK\r\n");
    assert_eq!(client.raw(), TOO_LONG);
    assert!(client.raw().starts_with(b"-EXECABORT"));
    assert_eq!(client.text("PING"), "+PONG\r\n");
}
