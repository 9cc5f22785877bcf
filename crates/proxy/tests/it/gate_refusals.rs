//! Gates that do not open, orders that are refused, and clients that wait too long.

use crate::support::client::{Client, shown, words};
use crate::support::node::VALKEY;
use crate::support::pair::{Pair, uid};
use crate::support::{process, until};
use model::gate::GateOrder;
use model::{Epoch, ShardUid};
use rustix::process::Signal;

const MOVING: &str = "-TRYAGAIN the shard of this database is being moved, and the command has waited \
    long enough; it did not run; try again\r\n";

/// Commands of the proxy's users that an engine has run.
fn commands(pair: &mut Pair, engine: usize, name: &str) -> u64 {
    let stats = pair.direct[engine].text("INFO commandstats");
    let calls = format!("cmdstat_{name}:calls=");
    let rest = stats.split(&calls).nth(1).unwrap_or("0,");
    rest.split(',').next().unwrap().parse().unwrap()
}

fn reached(client: &mut Client) -> bool {
    client.pings()
}

#[test]
fn orders_that_do_not_fit_are_refused() {
    let mut pair = Pair::start(VALKEY);
    let exec = pair.node.exec.clone();
    let next = pair.shard(1, 2);
    let refusal = |what| exec.ordered(what).refusal.unwrap_or_default();
    let hold = |shard, epoch| GateOrder::Hold {
        shard: ShardUid(shard),
        epoch: Epoch(epoch),
        patience_ms: 1000,
    };
    assert!(refusal(hold(1, 2)).contains("the epoch is 1 here, not 2"));
    assert!(refusal(hold(1, 0)).contains("the epoch is 1 here, not 0"));
    assert!(refusal(hold(9, 1)).contains("database 1 with primary shard 9 is not served here"));
    let prepare = |epoch, next| GateOrder::Prepare {
        shard: uid(0),
        epoch: Epoch(epoch),
        next,
    };
    assert!(refusal(prepare(2, next.clone())).contains("the epoch is 1"));
    let mut same = next.clone();
    same.epoch = Epoch(1);
    assert!(refusal(prepare(1, same)).contains("does not follow"));
    // Nobody listens there.
    let mut gone = next.clone();
    gone.address = model::proxy::ShardAddress::Tcp(std::net::SocketAddr::new(
        pair.node.engine.direct.ip(),
        20_999,
    ));
    assert!(refusal(prepare(1, gone)).contains("the next primary: the shard cannot be reached"));
    let mut stranger = next.clone();
    stranger.password = model::Secret::new("wrong");
    assert!(refusal(prepare(1, stranger)).contains("WRONGPASS"));
    let mut old = next.clone();
    old.epoch = Epoch(1);
    let release = |next| GateOrder::Release {
        shard: uid(0),
        next,
    };
    assert!(refusal(release(old)).contains("does not follow"));
    // None of it closed anything, and it works when it is right.
    assert!(reached(&mut pair.node.client()));
    assert_eq!(refusal(prepare(1, next)), "");
    pair.node.exec.publish(&pair.node.config);
    assert!(reached(&mut pair.node.client()));
    pair.move_primary();
}

#[test]
fn a_closed_gate_opens_only_for_a_higher_epoch() {
    let mut pair = Pair::start(VALKEY);
    let mut client = pair.node.client();
    assert_eq!(client.text("INCR n"), ":1\r\n");
    assert_eq!(pair.hold(60_000).refusal, None);
    let before = commands(&mut pair, 0, "incr");
    client.send(&words("INCR n"));
    let mut others: Vec<Client> = (0..3).map(|_| pair.node.client()).collect();
    for other in &mut others {
        other.send(&words("GET n"));
    }
    // Another configuration of the same epoch, the loss of cnm_exec, and an epoch that does not serve.
    pair.node
        .reconfigure(|config| config.databases[0].name = "renamed".to_owned());
    pair.node.exec.cut();
    pair.node.reconfigure(|config| {
        config.databases[0].shards[0].serving = false;
        config.databases[0].shards[0].epoch = Epoch(2);
    });
    pair.node.reconfigure(|config| {
        config.databases[0].shards[0].serving = true;
        config.databases[0].shards[0].epoch = Epoch(1);
    });
    assert_eq!(commands(&mut pair, 0, "incr"), before);
    // The same primary again, by a configuration.
    let again = pair.shard(0, 2);
    pair.node
        .reconfigure(|config| config.databases[0].shards[0] = again);
    assert_eq!(client.raw(), b":2\r\n");
    for other in &mut others {
        assert_eq!(other.raw(), b"$1\r\n2\r\n");
    }
    pair.epoch = 2;
    pair.move_primary();
    assert_eq!(client.text("INCR n"), ":3\r\n");
}

#[test]
fn a_gate_is_opened_to_the_same_engine() {
    let mut pair = Pair::start(VALKEY);
    let mut client = pair.node.client();
    for round in 1..5 {
        let next = pair.shard(1, pair.epoch + 1);
        assert_eq!(pair.prepare(&next).refusal, None);
        assert_eq!(pair.hold(60_000).refusal, None);
        client.send(&words("INCR n"));
        let undo = pair.shard(0, pair.epoch + 2);
        assert_eq!(pair.release(&undo).refusal, None);
        assert_eq!(client.raw(), format!(":{round}\r\n").into_bytes());
    }
    pair.move_primary();
    assert_eq!(client.text("INCR n"), ":5\r\n");
}

#[test]
fn a_reply_that_never_comes_keeps_a_gate_from_being_held() {
    let mut pair = Pair::start(VALKEY);
    let mut client = pair.node.client();
    assert!(client.pings());
    pair.node.engine.freeze(true);
    client.send(&words("INCR n"));
    until("it is under way", || {
        let seen = pair.node.exec.last();
        seen.is_some_and(|seen| seen.in_flight > 0)
    });
    let order = pair.node.exec.order(pair.hold_order(60_000));
    let mut late = pair.node.client();
    late.send(&words("INCR n"));
    until("the late client is there", || {
        let seen = pair.node.exec.last();
        seen.is_some_and(|seen| seen.connections == 2)
    });
    assert_eq!(pair.node.exec.answer_to(order), None);
    pair.node.engine.freeze(false);
    assert_eq!(client.raw(), b":1\r\n");
    until("it is held", || {
        let answer = pair.node.exec.answer_to(order);
        answer.is_some_and(|answer| answer.refusal.is_none())
    });
    // The late client's command was before the order, or is not there.
    let before = commands(&mut pair, 0, "incr");
    pair.direct[0].text("ACL SETUSER proxy@e1 -@all");
    pair.fail_over();
    assert_eq!(commands(&mut pair, 0, "incr"), before);
    let next = pair.shard(1, 2);
    assert_eq!(pair.release(&next).refusal, None);
    assert_eq!(late.raw(), b":2\r\n");
}

/// A hold that never comes to be is answered when the gate is opened again.
#[test]
fn an_undo_answers_the_hold_that_it_ends() {
    let mut pair = Pair::start(VALKEY);
    let mut client = pair.node.client();
    assert!(client.pings());
    pair.node.engine.freeze(true);
    client.send(&words("INCR n"));
    until("it is under way", || {
        let seen = pair.node.exec.last();
        seen.is_some_and(|seen| seen.in_flight > 0)
    });
    let order = pair.node.exec.order(pair.hold_order(60_000));
    pair.node.engine.freeze(false);
    until("it is held", || pair.node.exec.answer_to(order).is_some());
    let undo = pair.shard(0, 3);
    assert_eq!(pair.release(&undo).refusal, None);
    assert_eq!(client.raw(), b":1\r\n");
    assert_eq!(client.text("INCR n"), ":2\r\n");
}

#[test]
fn clients_that_wait_too_long_get_an_error_and_the_gate_stays() {
    let mut pair = Pair::start(VALKEY);
    let mut clients: Vec<Client> = (0..3).map(|_| pair.node.client()).collect();
    let mut open = pair.node.client();
    assert_eq!(open.text("MULTI"), "+OK\r\n");
    assert_eq!(open.text("INCR n"), "+QUEUED\r\n");
    assert_eq!(clients[0].text("INCR n"), ":1\r\n");
    assert_eq!(pair.hold(50).refusal, None);
    clients[0].send(&words("INCR n").repeat(3));
    clients[1].send(
        &[
            words("GET n"),
            words("MULTI"),
            words("INCR n"),
            words("EXEC"),
        ]
        .concat(),
    );
    clients[2].send(&words("BLPOP q 0"));
    for _ in 0..3 {
        assert_eq!(shown(&clients[0].reply()), MOVING);
    }
    assert_eq!(shown(&clients[1].reply()), MOVING);
    assert_eq!(shown(&clients[1].reply()), MOVING);
    assert!(shown(&clients[1].reply()).starts_with("-ERR connection to the shard was lost inside"));
    assert!(shown(&clients[1].reply()).starts_with("-EXECABORT"));
    assert_eq!(shown(&clients[2].reply()), MOVING);
    // Half of a transaction is none.
    open.send(&[words("INCR n"), words("EXEC")].concat());
    assert!(shown(&open.reply()).starts_with("-ERR connection to the shard was lost inside"));
    assert!(shown(&open.reply()).starts_with("-EXECABORT"));
    // New ones get it at once; what the proxy answers itself it answers.
    let mut late = pair.node.client();
    assert_eq!(late.text("GET n"), MOVING);
    assert!(late.text("CLIENT ID").starts_with(':'));
    assert_eq!(commands(&mut pair, 0, "incr"), 1);
    let undo = pair.shard(0, 3);
    assert_eq!(pair.release(&undo).refusal, None);
    for client in clients.iter_mut().chain([&mut late, &mut open]) {
        assert_eq!(client.text("GET n"), "$1\r\n1\r\n");
    }
}

/// The reply to a `MULTI` comes when the gate gives errors: what is behind it would not be queued.
#[test]
fn no_transaction_opens_behind_a_gate_that_gives_errors() {
    let mut pair = Pair::start(VALKEY);
    let (mut open, mut whole) = (pair.node.client(), pair.node.client());
    // They have connections of their own.
    assert_eq!(open.text("WATCH k"), "+OK\r\n");
    assert_eq!(whole.text("WATCH k"), "+OK\r\n");
    pair.node.engine.freeze(true);
    open.send(&words("MULTI"));
    whole.send(&[words("MULTI"), words("INCR m"), words("EXEC")].concat());
    until("they are under way", || {
        let seen = pair.node.exec.last();
        seen.is_some_and(|seen| seen.in_flight == 4)
    });
    let order = pair.node.exec.order(pair.hold_order(50));
    // The engine answers nobody; what comes to one of these is said by the gate.
    let mut late = Vec::new();
    until("the gate gives errors", || {
        let mut client = pair.node.client();
        client.send(&words("GET n"));
        late.push(client);
        late.iter().any(Client::is_told)
    });
    pair.node.engine.freeze(false);
    assert_eq!(shown(&open.reply()), "+OK\r\n");
    assert!(
        open.text("INCR n")
            .starts_with("-ERR connection to the shard was lost inside")
    );
    assert!(open.text("EXEC").starts_with("-EXECABORT"));
    // This one comes to its end.
    for wanted in ["+OK\r\n", "+QUEUED\r\n", "*1\r\n:1\r\n"] {
        assert_eq!(shown(&whole.reply()), wanted);
    }
    until("it is held", || {
        let answer = pair.node.exec.answer_to(order);
        answer.is_some_and(|answer| answer.refusal.is_none())
    });
    let undo = pair.shard(0, 3);
    assert_eq!(pair.release(&undo).refusal, None);
    assert_eq!(open.text("EXISTS n"), ":0\r\n");
}

/// A command of a transaction gets an error instead of being sent: the rest does not run without it.
#[test]
fn a_refused_command_is_not_missing_from_a_transaction() {
    let mut pair = Pair::start(VALKEY);
    let mut clients: Vec<Client> = (0..4).map(|_| pair.node.client()).collect();
    let ends = ["INCR n", "EXEC", "EXEC", "DISCARD"];
    for (number, client) in clients.iter_mut().enumerate() {
        assert_eq!(client.text("MULTI"), "+OK\r\n");
        assert_eq!(client.text("INCR n"), "+QUEUED\r\n");
        if number >= 2 {
            // The reply to its `EXEC` would be looked into.
            assert_eq!(client.text("CLIENT ID"), "+QUEUED\r\n");
        }
    }
    assert_eq!(pair.hold(60_000).refusal, None);
    let nowhere = pair.nowhere();
    assert_eq!(pair.release(&nowhere).refusal, None);
    for (client, line) in clients.iter_mut().zip(ends) {
        client.send(&words(line));
    }
    for client in &mut clients {
        let told = shown(&client.reply());
        assert!(told.starts_with("-TRYAGAIN "), "{told}");
    }
    let again = pair.shard(0, pair.epoch + 1);
    assert_eq!(pair.release(&again).refusal, None);
    assert!(
        clients[0]
            .text("INCR n")
            .starts_with("-ERR connection to the shard was lost inside")
    );
    assert!(clients[0].text("EXEC").starts_with("-EXECABORT"));
    for client in &mut clients {
        assert_eq!(client.text("EXISTS n"), ":0\r\n");
    }
    // Nothing of it is in the next one.
    for client in &mut clients {
        assert_eq!(client.text("MULTI"), "+OK\r\n");
        assert_eq!(client.text("ECHO x"), "+QUEUED\r\n");
    }
    pair.move_primary();
    for client in &mut clients {
        assert_eq!(client.text("EXEC"), "*1\r\n$1\r\nx\r\n");
    }
}

#[test]
fn a_server_that_starts_keeps_a_gate_closed() {
    let mut pair = Pair::start(VALKEY);
    let mut client = pair.node.client();
    assert_eq!(client.text("INCR n"), ":1\r\n");
    let next = pair.shard(1, 2);
    assert_eq!(pair.prepare(&next).refusal, None);
    assert_eq!(pair.hold(60_000).refusal, None);
    client.send(&words("INCR n"));
    let old = pair.node.server();
    process::signal(old, Signal::KILL);
    assert!(client.try_raw().is_none());
    assert!(pair.node.launcher_fails());
    pair.node.launch();
    until("a new server speaks", || pair.node.server() != old);
    let mut client = pair.node.client();
    let before = commands(&mut pair, 0, "incr");
    client.send(&words("INCR n"));
    until("it is there", || {
        let seen = pair.node.exec.last();
        seen.is_some_and(|seen| seen.connections == 1)
    });
    pair.fail_over();
    assert_eq!(commands(&mut pair, 0, "incr"), before);
    assert_eq!(pair.release(&next).refusal, None);
    assert_eq!(client.raw(), b":2\r\n");
    // After the configuration it is forgotten, and yet another server is open.
    pair.publish();
    pair.node.restart_proxy();
    assert_eq!(pair.node.client().text("INCR n"), ":3\r\n");
    pair.move_primary();
}

/// One shard of several is held: the others go on, and each client's order is kept.
#[test]
fn only_the_shard_that_moves_is_held() {
    let node = crate::support::node::Node::sharded(VALKEY, 3);
    let exec = node.exec.clone();
    let key = |shard: usize| {
        (0..)
            .map(|n| format!("k{n}"))
            .find(|key| usize::from(resp::slot::key_slot(key.as_bytes())) * 3 / 16_384 == shard)
            .unwrap()
    };
    let keys = [key(0), key(1), key(2)];
    let (mut one, mut other) = (node.client(), node.client());
    for (number, key) in keys.iter().enumerate() {
        assert_eq!(one.text(&format!("SET {key} {number}")), "+OK\r\n");
    }
    let hold = GateOrder::Hold {
        shard: ShardUid(2),
        epoch: Epoch(1),
        patience_ms: 60_000,
    };
    assert_eq!(exec.ordered(hold).refusal, None);
    // The first of its own, one that waits, one behind it, and one of all shards.
    one.send(
        &[
            words(&format!("GET {}", keys[0])),
            words(&format!("INCR {}", keys[1])),
            words(&format!("GET {}", keys[2])),
            words(&format!("MGET {}", keys.join(" "))),
        ]
        .concat(),
    );
    assert_eq!(one.raw(), b"$1\r\n0\r\n");
    for _ in 0..9 {
        assert_eq!(other.text(&format!("INCR {}", keys[0])).len(), 4);
        assert_eq!(other.text(&format!("GET {}", keys[2])), "$1\r\n2\r\n");
    }
    let mut next = node.config.databases[0].shards[1].clone();
    next.epoch = Epoch(2);
    let release = GateOrder::Release {
        shard: ShardUid(2),
        next,
    };
    assert_eq!(exec.ordered(release).refusal, None);
    assert_eq!(one.raw(), b":2\r\n");
    assert_eq!(one.raw(), b"$1\r\n2\r\n");
    assert_eq!(
        shown(&one.reply()),
        "*3\r\n$1\r\n9\r\n$1\r\n2\r\n$1\r\n2\r\n"
    );
}
