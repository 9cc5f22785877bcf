//! Gates on one of several shards: its clients' parts move, the other shards' do not.

use crate::support::client::{Client, words};
use crate::support::engine::PASSWORD;
use crate::support::node::{Node, VALKEY};
use crate::support::until;
use model::gate::GateOrder;
use model::proxy::ShardAddress;
use model::{Epoch, ShardUid};
use resp::value::Value;
use std::collections::BTreeSet;

/// The second of three shards gets a new epoch under a gate; the engine stays.
struct Moves {
    node: Node,
    epoch: u64,
}

impl Moves {
    fn start() -> Self {
        Self {
            node: Node::sharded(VALKEY, 3),
            epoch: 1,
        }
    }

    fn turn(&mut self, meanwhile: impl FnOnce()) {
        self.turn_within(60_000, meanwhile);
    }

    /// Its engine takes over itself, and cannot be reached.
    fn lose_its_way(&mut self) {
        let mut next = self.node.config.databases[0].shards[1].clone();
        next.epoch = Epoch(self.epoch + 1);
        next.address = ShardAddress::Unix("/nowhere".into());
        let (shard, epoch) = (ShardUid(2), Epoch(self.epoch));
        let patience_ms = 60_000;
        for order in [
            GateOrder::Hold {
                shard,
                epoch,
                patience_ms,
            },
            GateOrder::Release { shard, next },
        ] {
            assert_eq!(self.node.exec.ordered(order).refusal, None);
        }
        self.epoch += 1;
    }

    /// Clients wait no longer than that.
    fn turn_within(&mut self, patience_ms: u32, meanwhile: impl FnOnce()) {
        let uid = ShardUid(2);
        let rights = model::documents::PROXY_RIGHTS.join(" ");
        let mut direct = Client::connect(self.node.more[0].direct);
        let mut user = |epoch: u64, rights: &str| {
            let line = format!("ACL SETUSER proxy@e{epoch} reset on >{PASSWORD} {rights}");
            assert_eq!(direct.text(&line), "+OK\r\n");
        };
        user(self.epoch + 1, &rights);
        let mut next = self.node.config.databases[0].shards[1].clone();
        next.epoch = Epoch(self.epoch + 1);
        next.user = format!("proxy@e{}", self.epoch + 1);
        let exec = self.node.exec.clone();
        let order = |what| assert_eq!(exec.ordered(what).refusal, None);
        order(GateOrder::Prepare {
            shard: uid,
            epoch: Epoch(self.epoch),
            next: next.clone(),
        });
        order(GateOrder::Hold {
            shard: uid,
            epoch: Epoch(self.epoch),
            patience_ms,
        });
        user(self.epoch, "");
        meanwhile();
        order(GateOrder::Release {
            shard: uid,
            next: next.clone(),
        });
        self.node
            .reconfigure(|config| config.databases[0].shards[1] = next);
        self.epoch += 1;
    }
}

/// A key of a shard.
fn key(shard: usize, name: &str) -> String {
    (0..)
        .map(|n| format!("{name}{n}"))
        .find(|key| usize::from(resp::slot::key_slot(key.as_bytes())) * 3 / 16_384 == shard)
        .unwrap()
}

/// An `EXEC` that is looked into gets an error instead of being sent: the client hears it, and no reply is
/// another command's.
#[test]
fn a_refused_exec_is_answered() {
    let mut moves = Moves::start();
    let mut clients = [(); 3].map(|()| moves.node.client());
    let ends = ["EXEC", "EXEC", &format!("INCR {}", key(1, "n"))];
    for client in &mut clients {
        assert_eq!(client.text("MULTI"), "+OK\r\n");
        assert_eq!(client.text(&format!("INCR {}", key(1, "n"))), "+QUEUED\r\n");
        assert_eq!(client.text("CLIENT ID"), "+QUEUED\r\n");
    }
    moves.lose_its_way();
    for (client, line) in clients.iter_mut().zip(ends) {
        client.send(&words(line));
    }
    for client in &mut clients {
        let told = client.raw();
        assert!(
            told.starts_with(b"-TRYAGAIN "),
            "{}",
            String::from_utf8_lossy(&told)
        );
    }
    moves.turn(|| {});
    assert!(clients[2].text("EXEC").starts_with("-EXECABORT"));
    for client in &mut clients {
        let elsewhere = key(0, "n");
        assert_eq!(client.text(&format!("EXISTS {elsewhere}")), ":0\r\n");
        assert_eq!(client.text(&format!("EXISTS {}", key(1, "n"))), ":0\r\n");
        assert_eq!(
            client
                .text(&format!("ECHO {elsewhere}"))
                .split("\r\n")
                .nth(1),
            Some(elsewhere.as_str())
        );
    }
}

#[test]
fn parts_of_clients_move() {
    let mut moves = Moves::start();
    let client = || moves.node.client();
    let (mut blocked, mut elsewhere, mut open, mut watching) =
        (client(), client(), client(), client());
    let (here, there) = (key(1, "q"), key(0, "q"));
    let mut direct = Client::connect(moves.node.more[0].direct);
    blocked.send(&words(&format!("BLPOP {here} 0")));
    // What comes behind it waits for it.
    blocked.send(&words(&format!("INCR {}", key(0, "n"))));
    elsewhere.send(&words(&format!("BLPOP {there} 0")));
    assert_eq!(open.text("MULTI"), "+OK\r\n");
    assert_eq!(open.text("PING"), "+QUEUED\r\n");
    assert_eq!(open.text(&format!("INCR {}", key(1, "n"))), "+QUEUED\r\n");
    assert_eq!(watching.text(&format!("WATCH {}", key(1, "w"))), "+OK\r\n");
    let mut is_blocked = |count: usize| {
        until("it blocks", || {
            let list = direct.text("CLIENT LIST");
            list.lines().filter(|line| line.contains("flags=b")).count() == count
        });
    };
    for _ in 0..3 {
        is_blocked(1);
        moves.turn(|| {});
    }
    is_blocked(1);
    let mut other = moves.node.client();
    assert_eq!(other.text(&format!("RPUSH {here} x")), ":1\r\n");
    assert_eq!(other.text(&format!("RPUSH {there} y")), ":1\r\n");
    let popped =
        |key: &str, value: char| format!("*2\r\n${}\r\n{key}\r\n$1\r\n{value}\r\n", key.len());
    assert_eq!(String::from_utf8_lossy(&blocked.raw()), popped(&here, 'x'));
    assert_eq!(blocked.raw(), b":1\r\n");
    assert_eq!(
        String::from_utf8_lossy(&elsewhere.raw()),
        popped(&there, 'y')
    );
    assert_eq!(open.text("EXEC"), "*2\r\n+PONG\r\n:1\r\n");
    assert_eq!(watching.text("MULTI"), "+OK\r\n");
    assert_eq!(
        watching.text(&format!("SET {} 1", key(1, "w"))),
        "+QUEUED\r\n"
    );
    watching.send(&words("EXEC"));
    assert_eq!(watching.raw(), b"*-1\r\n");
}

#[test]
fn messages_and_invalidations_of_all_shards_go_on() {
    let mut moves = Moves::start();
    let mut subscriber = moves.node.client();
    subscriber.send(&words("SUBSCRIBE a b"));
    subscriber.raw();
    subscriber.raw();
    let mut pattern = moves.node.client();
    pattern.ask("HELLO 3");
    pattern.send(&words("PSUBSCRIBE *"));
    pattern.raw();
    let mut cache = moves.node.client();
    cache.ask("HELLO 3");
    assert_eq!(cache.text("CLIENT TRACKING ON"), "+OK\r\n");
    let mut writer = moves.node.client();
    let directs: Vec<_> = [0, 1].map(|n| moves.node.more[n].direct).into();
    for round in 0..6 {
        cache.text(&format!("GET {}", key(1, "t")));
        cache.text(&format!("GET {}", key(2, "t")));
        // Published at the shard itself, while it is held and before.
        let mut direct = Client::connect(directs[0]);
        direct.text(&format!("PUBLISH a before{round}"));
        moves.turn(|| drop(direct.text(&format!("PUBLISH a held{round}"))));
        writer.text(&format!("PUBLISH b after{round}"));
        let mut got = Vec::new();
        for _ in 0..3 {
            for (client, at) in [(&mut subscriber, 2), (&mut pattern, 3)] {
                match client.reply() {
                    Value::Array(items) | Value::Push(items) => {
                        got.push(String::from_utf8(items[at].text().unwrap().to_vec()).unwrap());
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
        got.sort();
        let wanted = ["after", "after", "before", "before", "held", "held"];
        assert_eq!(got, wanted.map(|word| format!("{word}{round}")));
        // All is to be forgotten; the other shard still tells.
        assert_eq!(cache.raw(), b">2\r\n$10\r\ninvalidate\r\n_\r\n");
        writer.text(&format!("SET {} {round}", key(2, "t")));
        let told = cache.raw();
        assert!(told.starts_with(b">2\r\n$10\r\ninvalidate\r\n*1"));
    }
}

/// What a tracked client is told after a move comes behind the replies that wait for another shard.
#[test]
fn what_waits_is_forgotten_too() {
    let mut moves = Moves::start();
    let (slow, here) = (key(0, "t"), key(1, "t"));
    let mut cache = moves.node.client();
    cache.ask("HELLO 3");
    assert_eq!(cache.text("CLIENT TRACKING ON"), "+OK\r\n");
    moves.node.client().text(&format!("SET {here} old"));
    let mut direct = Client::connect(moves.node.more[0].direct);
    moves.node.engine.freeze(true);
    cache.send(&words(&format!("GET {slow}")));
    cache.send(&words(&format!("GET {here}")));
    until("the shard has answered", || {
        let info = direct.text("INFO stats");
        info.contains("tracking_total_items:1\r\n")
    });
    moves.turn(|| {});
    moves.node.engine.freeze(false);
    assert_eq!(cache.raw(), b"_\r\n");
    assert_eq!(cache.raw(), b"$3\r\nold\r\n");
    assert_eq!(cache.raw(), b">2\r\n$10\r\ninvalidate\r\n_\r\n");
    assert_eq!(cache.text("PING"), "+PONG\r\n");
}

/// A shard whose gate is closed for too long refuses the end of a subscription: it goes on everywhere.
#[test]
fn the_end_of_a_subscription_is_refused() {
    let mut moves = Moves::start();
    for resp in [2, 3] {
        let mut subscriber = moves.node.client();
        subscriber.ask(&format!("HELLO {resp}"));
        subscriber.send(&words("SUBSCRIBE a b"));
        subscriber.raw();
        subscriber.raw();
        moves.turn_within(100, || {
            subscriber.send(&words("UNSUBSCRIBE a x"));
            let got = String::from_utf8(subscriber.raw()).unwrap();
            assert!(got.starts_with("-TRYAGAIN"), "{got}");
        });
        let engines = [
            moves.node.engine.direct,
            moves.node.more[0].direct,
            moves.node.more[1].direct,
        ];
        for (number, engine) in engines.into_iter().enumerate() {
            let mut direct = Client::connect(engine);
            until("it is subscribed", || {
                let counts = direct.text("PUBSUB NUMSUB a b x");
                counts == "*6\r\n$1\r\na\r\n:1\r\n$1\r\nb\r\n:1\r\n$1\r\nx\r\n:0\r\n"
            });
            direct.text(&format!("PUBLISH a {number}"));
            let got = String::from_utf8(subscriber.raw()).unwrap();
            assert!(got.ends_with(&format!("\r\n{number}\r\n")), "{got}");
        }
        subscriber.send(&words("UNSUBSCRIBE a"));
        assert!(subscriber.raw().ends_with(b":1\r\n"));
    }
}

/// The shard that got another epoch is scanned anew, the others are not.
#[test]
fn a_scan_begins_anew_at_the_shard_that_moved() {
    let mut moves = Moves::start();
    let mut client = moves.node.client();
    let keys: BTreeSet<String> = (0..3_000).map(|number| format!("key{number}")).collect();
    for key in &keys {
        assert_eq!(client.text(&format!("SET {key} x")), "+OK\r\n");
    }
    let shard_of = |key: &str| usize::from(resp::slot::key_slot(key.as_bytes())) * 3 / 16_384;
    let (mut cursor, mut found, mut twice) = (0_u64, BTreeSet::new(), [0; 3]);
    let mut turned = false;
    loop {
        let Value::Array(reply) = client.ask(&format!("SCAN {cursor} COUNT 50")) else {
            panic!("SCAN gives an array");
        };
        let text = |value: &Value| String::from_utf8(value.text().unwrap().to_vec()).unwrap();
        cursor = text(&reply[0]).parse().unwrap();
        let Value::Array(page) = &reply[1] else {
            panic!("with an array");
        };
        for key in page.iter().map(text) {
            let shard = shard_of(&key);
            twice[shard] += usize::from(!found.insert(key));
        }
        let middle = found.iter().filter(|key| shard_of(key) == 1).count() > 500;
        if middle && !std::mem::replace(&mut turned, true) {
            moves.turn(|| {});
        }
        if cursor == 0 {
            break;
        }
    }
    assert!(turned && found == keys, "{}", found.len());
    assert!(twice[1] >= 500, "{twice:?}");
    assert!(twice[0] < 100 && twice[2] < 100, "{twice:?}");
}

/// `WAIT` blocks at every shard: what comes behind it is sent when all have answered, so that it can be taken back alone
/// from a shard that moves. Here one part of it had to wait itself before it could be sent.
#[test]
fn what_is_behind_a_wait_waits_for_it() {
    let mut moves = Moves::start();
    let (mut client, mut other) = (moves.node.client(), moves.node.client());
    let directs = [0, 1].map(|shard| moves.node.shard(shard).direct);
    let [mut first, mut second] = directs.map(Client::connect);
    let waiting = |direct: &mut Client| {
        let all = direct.text("CLIENT LIST");
        let mut lines = all.lines();
        let line = lines.find(|line| line.contains("cmd=wait"));
        line.map(str::to_owned)
    };
    let list = key(1, "q");
    for value in ["a", "b", "c"] {
        let (push, pop) = (format!("RPUSH {list} {value}"), format!("BLPOP {list} 0"));
        assert_eq!(other.text(&push), ":1\r\n");
        moves.turn(|| {
            client.send(&[words("WAIT 1 1500"), words(&pop)].concat());
            until("a shard that is not held has its part", || {
                waiting(&mut first).is_some()
            });
        });
        until("it waits", || waiting(&mut second).is_some());
        // What would come behind it has come when a later command of another client is answered.
        assert_eq!(other.text(&format!("LLEN {list}")), ":1\r\n");
        let seen = waiting(&mut second).unwrap();
        assert!(seen.contains(" qbuf=0 "), "{seen}");
        moves.turn(|| {});
        assert_eq!(String::from_utf8_lossy(&client.raw()), ":0\r\n");
        let popped = String::from_utf8(client.raw()).unwrap();
        assert!(popped.ends_with(&format!("\r\n{value}\r\n")), "{popped}");
    }
}

/// A client leaves while a connection to the next primary has been set up for it: that goes with it.
#[test]
fn what_was_set_up_for_a_client_that_leaves_goes_too() {
    let mut moves = Moves::start();
    let mut direct = Client::connect(moves.node.more[0].direct);
    let mut listens = |channel: &str, count: usize| {
        until("so many listen", || {
            direct
                .text(&format!("PUBSUB NUMSUB {channel}"))
                .ends_with(&format!(":{count}\r\n"))
        });
    };
    let mut client = Some(moves.node.client());
    let subscriber = client.as_mut().unwrap();
    subscriber.send(&words("SUBSCRIBE leaving"));
    subscriber.raw();
    listens("leaving", 1);
    moves.turn_within(60_000, || drop(client.take()));
    listens("leaving", 0);
}
