//! What the proxy counts and measures, against loads that are known.

use crate::support::client::{Client, shown, words};
use crate::support::node::{Node, VALKEY};
use crate::support::until;
use model::observation::{ProxyCounts, ProxyDatabaseObservation, SlowCommand};
use model::proxy::ProxyConfig;

impl Node {
    fn seen(&self) -> ProxyDatabaseObservation {
        self.exec
            .last()
            .map(|mut observed| observed.databases.remove(0))
            .unwrap_or_default()
    }

    /// What was counted, once `ready` holds.
    #[track_caller]
    fn counted(
        &self,
        what: &str,
        ready: impl Fn(&ProxyDatabaseObservation) -> bool,
    ) -> ProxyDatabaseObservation {
        until(what, || ready(&self.seen()));
        self.seen()
    }

    #[track_caller]
    fn slow(&self, command: &str) -> SlowCommand {
        let is = |slow: &&SlowCommand| slow.command == command;
        let seen = self.counted("it is slow", |seen| seen.slow.iter().any(|slow| is(&slow)));
        seen.slow.iter().find(is).unwrap().clone()
    }
}

fn requests(counts: &ProxyCounts) -> (u64, u64, u64) {
    (counts.read_req, counts.write_req, counts.other_req)
}

/// A client that counts its bytes.
struct Counting {
    client: Client,
    sent: u64,
    got: u64,
}

impl Counting {
    fn of(client: Client) -> Self {
        Self {
            client,
            sent: 0,
            got: 0,
        }
    }

    /// Sends all at once, and takes so many replies.
    fn send(&mut self, bytes: &[u8], replies: usize) {
        self.client.send(bytes);
        self.sent += bytes.len() as u64;
        for _ in 0..replies {
            self.got += self.client.raw().len() as u64;
        }
    }
}

/// GET 300 + 1 + 1, HGETALL; SET 50 + 1 + 3, LPUSH, INCR; PING 2, NOSUCH, SHUTDOWN, CONFIG, HELLO, MULTI,
/// EXEC.
fn known_load(client: &mut Counting) {
    for number in 0..50 {
        client.send(&words(&format!("SET key{number} value")), 1);
    }
    client.send(&words("GET key1").repeat(300), 300);
    client.send(b"PING\r\nget key1\r\n*1\r\n$4\r\nPING\r\n", 3);
    // Its pieces come one by one.
    for byte in words("HGETALL nothing") {
        client.send(&[byte], 0);
    }
    client.send(&[], 1);
    let large = vec![b'x'; 3 << 20];
    client.send(
        &crate::support::client::command(&[b"SET", b"large", &large]),
        1,
    );
    client.send(&words("GET large"), 1);
    // Errors: of the engine, in a pipeline and alone, in RESP3; of the proxy.
    client.send(&words("LPUSH key1 x").repeat(20), 20);
    client.send(&words("NOSUCH x"), 1);
    client.send(&words("SHUTDOWN"), 1);
    client.send(&words("CONFIG SET maxmemory 1"), 1);
    client.send(&words("HELLO 3"), 1);
    client.send(&words("INCR key1"), 1);
    // A connection of its own.
    client.send(&words("MULTI"), 1);
    client.send(&words("SET key2 x").repeat(3), 3);
    client.send(&words("EXEC"), 1);
}

#[test]
fn a_known_load_is_counted_exactly() {
    let node = Node::start();
    let mut client = Counting::of(node.client());
    known_load(&mut client);
    let seen = node.counted("all is counted", |seen| {
        seen.since_start.egress_bytes >= client.got && seen.in_flight == 0
    });
    let counts = seen.since_start;
    assert_eq!(requests(&counts), (303, 75, 8));
    assert_eq!(seen.commands, 303 + 75 + 8);
    assert_eq!(
        (counts.ingress_bytes, counts.egress_bytes),
        (client.sent, client.got)
    );
    assert_eq!((counts.errors.engine, counts.errors.refused), (22, 2));
    assert_eq!(
        (counts.accepted, counts.refused, seen.connections),
        (1, 0, 1)
    );
    // What the proxy answers itself is at no shard: SHUTDOWN, CONFIG, HELLO.
    assert_eq!(
        (counts.read_res, counts.write_res, counts.other_res),
        (303, 75, 5)
    );
    let (shared, own) = (
        seen.latency.shared.since_start,
        seen.latency.own.since_start,
    );
    assert_eq!(shared.count + own.count, 303 + 75 + 5);
    assert!(
        own.count >= 6,
        "MULTI, SET three times, EXEC, the large SET: {own:?}"
    );
    for times in [shared, own] {
        assert!(times.p50_us <= times.p99_us && times.p99_us <= times.max_us * 17 / 16);
    }
    // The whole proxy has this database alone.
    let whole = node.exec.last().unwrap();
    assert_eq!(whole.since_start, whole.databases[0].since_start);
    assert_eq!(
        whole.latency.shared.since_start,
        whole.databases[0].latency.shared.since_start
    );
    drop(client);
    node.counted("it has left", |seen| seen.connections == 0);
}

#[test]
fn what_lasts_as_long_as_its_client_likes_is_not_measured() {
    let node = Node::start();
    let mut blocked = node.client();
    blocked.send(&words("BLPOP q 0"));
    node.counted("it blocks", |seen| seen.in_flight == 1);
    node.client().text("RPUSH q x");
    assert!(shown(&blocked.reply()).contains('q'));
    let seen = node.counted("it is over", |seen| seen.in_flight == 0);
    assert_eq!(seen.latency.own.since_start.count, 0);
    assert_eq!(seen.latency.shared.since_start.count, 1);
    assert!(seen.slow.iter().all(|slow| slow.command != "BLPOP"));
}

#[test]
fn several_shards_count_a_command_once() {
    let node = Node::sharded(VALKEY, 3);
    let mut client = Counting::of(node.client());
    client.send(&words("MSET a 1 b 2 c 3 d 4 e 5 f 6"), 1);
    client.send(&words("MGET a b c d e f").repeat(10), 10);
    for key in ["a", "b", "c", "d", "e", "f"] {
        client.send(&words(&format!("GET {key}")), 1);
        client.send(&words(&format!("LPUSH {key} x")), 1);
    }
    client.send(&words("DBSIZE"), 1);
    client.send(&words("SMOVE a b c"), 1);
    let seen = node.counted("all is counted", |seen| {
        seen.since_start.egress_bytes >= client.got && seen.in_flight == 0
    });
    let counts = seen.since_start;
    assert_eq!(requests(&counts), (17, 8, 0));
    assert_eq!(
        (counts.ingress_bytes, counts.egress_bytes),
        (client.sent, client.got)
    );
    assert_eq!((counts.errors.engine, counts.errors.refused), (6, 1));
    assert!(counts.read_res > 17, "parts are measured each: {counts:?}");
}

#[test]
fn other_errors_are_told_apart() {
    let mut node = Node::with(VALKEY, |config: &mut ProxyConfig| {
        config.databases[0].max_connections = 2;
    });
    let mut client = node.client();
    assert!(client.pings());
    let mut hostile = node.client();
    hostile.send(b"*1\r\n$-2\r\n");
    assert!(shown(&hostile.reply()).contains("Protocol error"));
    assert!(hostile.try_raw().is_none());
    node.counted("it is closed", |seen| seen.connections == 1);
    let mut http = node.client();
    http.send(b"POST / HTTP/1.1\r\n\r\n");
    assert!(http.try_raw().is_none());
    node.counted("it is closed", |seen| seen.connections == 1);
    let mut second = node.client();
    assert!(second.pings());
    assert!(
        node.client()
            .try_raw()
            .unwrap()
            .starts_with(b"-ERR max number")
    );
    let seen = node.counted("it is counted", |seen| seen.since_start.refused == 1);
    assert_eq!(
        (seen.since_start.accepted, seen.since_start.errors.protocol),
        (4, 2)
    );

    node.engine.freeze(true);
    client.send(&words("INCR n").repeat(5));
    second.send(&words("GET n").repeat(2));
    node.counted("they are in flight", |seen| seen.in_flight == 7);
    node.engine.kill();
    for (client, count) in [(&mut client, 5), (&mut second, 2)] {
        for _ in 0..count {
            assert!(shown(&client.reply()).contains("outcome of this command is unknown"));
        }
    }
    until("no shard is there", || {
        client.text("GET n").starts_with("-TRYAGAIN")
    });
    let seen = node.counted("it is counted", |seen| {
        seen.since_start.errors.unavailable > 0 && seen.in_flight == 0
    });
    assert_eq!(seen.since_start.errors.outcome_unknown, 7);
    assert_eq!(seen.since_start.errors.engine, 0);
}

#[test]
fn slow_commands_say_where_the_time_went() {
    let node = Node::start();
    let (mut client, mut behind) = (node.client(), node.client());
    client.text("CLIENT SETNAME billing");
    assert!(behind.pings());
    node.engine.freeze(true);
    client.send(&words("SET slow:key secret-value"));
    node.counted("it is in flight", |seen| seen.in_flight == 1);
    behind.send(&words("HGET other:key secret-field"));
    node.counted("both are in flight", |seen| seen.in_flight == 2);
    node.engine.freeze(false);
    assert_eq!(client.raw(), b"+OK\r\n");
    assert_eq!(behind.raw(), b"$-1\r\n");
    let slow = node.slow("SET");
    assert_eq!(slow.key.as_deref(), Some("slow:key"));
    assert_eq!(slow.client, client.stream.local_addr().unwrap().to_string());
    assert_eq!((slow.client_name.as_str(), slow.pipelined), ("billing", 1));
    assert!(slow.shard_us >= 10_000 && slow.shard_us > slow.proxy_us);
    assert_eq!(slow.total_us, slow.shard_us + slow.proxy_us);
    let slow = node.slow("HGET");
    assert_eq!(slow.key.as_deref(), Some("other:key"));
    assert!(slow.behind_us > 0 && slow.behind_us <= slow.shard_us);

    // It waits in the proxy for the reply of what is before it, which comes over another connection.
    node.engine.freeze(true);
    let mut pipeline = words("GET slow:key");
    pipeline.extend(words("BLPOP nothing 0.001"));
    pipeline.extend(words("GET late:key"));
    client.send(&pipeline);
    node.counted("it is in flight", |seen| seen.in_flight == 1);
    node.engine.freeze(false);
    for _ in 0..3 {
        client.raw();
    }
    let seen = node.counted("it is slow", |seen| {
        let late = |slow: &SlowCommand| slow.key.as_deref() == Some("late:key");
        seen.slow.iter().any(late)
    });
    let slow = &seen.slow[0];
    assert_eq!(
        slow.key.as_deref(),
        Some("late:key"),
        "the newest is the first"
    );
    assert!(slow.proxy_us > slow.shard_us);

    // The engine itself is busy.
    let script = "local t=0 for i=1,3e7 do t=t+i end return 1";
    assert_eq!(client.text(&format!("EVAL '{script}' 1 lua:key")), ":1\r\n");
    let slow = node.slow("EVAL");
    assert_eq!(slow.key.as_deref(), Some("lua:key"));
    let seen = node.seen();
    assert_eq!(seen.since_start.slow, seen.slow.len() as u64);
    assert!(
        seen.slow
            .iter()
            .rev()
            .zip(1..)
            .all(|(slow, id)| slow.id == id)
    );
    let all = serde_json::to_string(&node.exec.last()).unwrap();
    assert!(!all.contains("secret"), "{all}");
}

#[test]
fn the_slow_log_is_bounded_and_the_cause_stays() {
    let node = Node::start();
    let mut clients: Vec<Client> = (0..300).map(|_| node.client()).collect();
    for client in &mut clients {
        assert!(client.pings());
    }
    node.engine.freeze(true);
    clients[0].send(&words("SET cause x"));
    node.counted("it is in flight", |seen| seen.in_flight == 1);
    for client in &mut clients[1..] {
        client.send(&words("GET victim"));
    }
    node.counted("all are in flight", |seen| seen.in_flight == 300);
    node.engine.freeze(false);
    for client in &mut clients {
        client.raw();
    }
    assert_eq!(node.slow("SET").key.as_deref(), Some("cause"));
    // On a busy machine the first PINGs are slow, too.
    let seen = node.counted("all are counted", |seen| seen.since_start.slow >= 300);
    let victim = |slow: &&SlowCommand| slow.key.as_deref() == Some("victim");
    let victims = seen.slow.iter().filter(victim).count();
    assert!(victims < 128, "{victims}");
}
