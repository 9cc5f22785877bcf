//! More of what goes over: bytes of all lengths, limits, pauses, leases; what does not go, and why.

use crate::handover::listed;
use crate::lease::leased;
use crate::support::client::{Client, words};
use crate::support::exec::Policy;
use crate::support::node::{Node, VALKEY};
use crate::support::pair::Pair;
use crate::support::{process, until};
use model::Secret;
use model::proxy::ProxySettings;
use resp::value::Value;
use std::io::{Read, Write};
use std::net::Shutdown;

const LARGE: usize = 100 * 1024 * 1024;

fn nodes() -> [Node; 2] {
    [Node::start(), Node::sharded(VALKEY, 3)]
}

/// Bytes of which none is where another could be.
fn pattern(length: usize, seed: usize) -> Vec<u8> {
    (0..length)
        .map(|at| (at.wrapping_mul(31).wrapping_add(at >> 11) ^ seed) as u8)
        .collect()
}

#[test]
fn who_has_signed_in_is_known() {
    let mut node = Node::with(VALKEY, |config| {
        config.databases[0].password = Some(Secret::new("secret"));
    });
    let (mut inside, mut outside) = (node.client(), node.client());
    inside.text("AUTH secret");
    assert!(outside.text("GET key").starts_with("-NOAUTH"));
    node.replace_proxy();
    assert_eq!(inside.text("SET key value"), "+OK\r\n");
    assert!(outside.text("GET key").starts_with("-NOAUTH"));
    assert_eq!(outside.text("AUTH secret"), "+OK\r\n");
    assert_eq!(outside.ask("GET key"), Value::bulk("value"));
}

/// A value of 100 MB is half sent, and half received, while the server is replaced.
#[test]
fn a_large_value_goes_on_in_the_middle() {
    for mut node in nodes() {
        let value = pattern(LARGE, 1);
        let (mut writer, mut reader) = (node.client(), node.client());
        let head = format!("*3\r\n$3\r\nSET\r\n$5\r\nlarge\r\n${LARGE}\r\n");
        writer.send(head.as_bytes());
        let (first, second) = value.split_at(LARGE / 2 + 17);
        writer.send(first);
        node.replace_proxy();
        writer.send(second);
        writer.send(b"\r\n");
        assert_eq!(writer.raw(), b"+OK\r\n");
        reader.send(&words("GET large"));
        let head = format!("${LARGE}\r\n");
        let mut got = vec![0; head.len() + LARGE / 2];
        reader.stream.read_exact(&mut got).unwrap();
        node.replace_proxy();
        let mut rest = vec![0; LARGE - LARGE / 2 + 2];
        reader.stream.read_exact(&mut rest).unwrap();
        got.extend(rest);
        assert!(got.starts_with(head.as_bytes()) && got.ends_with(b"\r\n"));
        assert!(got[head.len()..head.len() + LARGE] == value);
        assert!(reader.pings() && writer.pings());
    }
}

/// Clients that take none of their replies go over with what waits for them, whether they have more to say
/// or not.
#[test]
fn slow_readers_hold_up_nobody() {
    for mut node in nodes() {
        let mut setter = node.client();
        let mut value = pattern(300_000, 7);
        value.iter_mut().for_each(|byte| *byte = b'a' + *byte % 26);
        let text = String::from_utf8(value).unwrap();
        setter.text(&format!("SET value {text}"));
        let mut slow: Vec<Client> = (0..3).map(|_| node.client()).collect();
        for client in &mut slow {
            client.send(&words("GET value").repeat(40));
        }
        slow[2].stream.shutdown(Shutdown::Write).unwrap();
        assert!(setter.pings());
        node.replace_proxy();
        node.replace_proxy();
        assert!(setter.pings());
        let wanted = format!("${}\r\n{text}\r\n", text.len());
        for (number, client) in slow.iter_mut().enumerate() {
            for _ in 0..40 {
                assert!(client.raw() == wanted.as_bytes());
            }
            assert!(number == 2 || client.pings());
        }
        assert!(
            slow[2].try_raw().is_none(),
            "it has said that it sends no more"
        );
    }
}

#[test]
fn a_new_server_has_another_number_of_workers() {
    let mut node = Node::start();
    node.threads(3);
    let mut clients: Vec<Client> = (0..40).map(|_| node.client()).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        client.text(&format!("CLIENT SETNAME c{number}"));
        if number % 4 == 0 {
            client.text("MULTI");
        }
    }
    let mut asker = node.client();
    let before = listed(&mut asker);
    for threads in [1, 4] {
        let mut kept = node.config.clone();
        kept.settings = ProxySettings::fixed(threads);
        std::fs::write(node.persisted(), serde_json::to_vec(&kept).unwrap()).unwrap();
        node.replace_proxy();
        assert_eq!(listed(&mut asker), before);
    }
    for (number, client) in clients.iter_mut().enumerate() {
        if number % 4 == 0 {
            client.text("EXEC");
        }
        let name = format!("c{number}");
        assert_eq!(client.ask("CLIENT GETNAME"), Value::bulk(name.as_str()));
    }
}

#[test]
fn the_limit_of_connections_holds() {
    let mut node = Node::with(VALKEY, |config| config.databases[0].max_connections = 6);
    let mut clients: Vec<Client> = (0..4).map(|_| node.client()).collect();
    for client in &mut clients {
        assert!(client.pings());
    }
    node.replace_proxy();
    clients.extend((0..2).map(|_| node.client()));
    for client in &mut clients {
        assert!(client.pings());
    }
    let mut many = node.client();
    assert!(String::from_utf8_lossy(&many.raw()).contains("max number of clients"));
    assert_eq!(listed(&mut clients[0]).len(), 6);
    until("six are told of", || {
        node.exec.last().is_some_and(|seen| seen.connections == 6)
    });
    clients.truncate(1);
    until("the others are gone", || {
        node.exec.last().is_some_and(|seen| seen.connections == 1)
    });
    let ids: u64 = clients[0].text("CLIENT ID").trim()[1..].parse().unwrap();
    let mut new = node.client();
    assert!(new.text("CLIENT ID").trim()[1..].parse::<u64>().unwrap() > ids);
}

/// What is to be left out of a reply at `EXEC` is known to the old process alone.
#[test]
fn who_has_queued_command_goes_after_exec() {
    let mut node = Node::start();
    let mut client = node.client();
    let count = client.text("COMMAND COUNT");
    assert_eq!(client.text("MULTI"), "+OK\r\n");
    assert_eq!(client.text("COMMAND COUNT"), "+QUEUED\r\n");
    let old = node.server();
    node.restart_proxy();
    assert_eq!(client.text("EXEC"), format!("*1\r\n{count}"));
    until("the old server has ended", || !process::runs(old));
    assert_eq!(client.text("COMMAND COUNT"), count);
}

#[test]
fn a_pause_goes_on() {
    let mut node = Node::start();
    let (mut asker, mut waiting) = (node.client(), node.client());
    assert_eq!(asker.text("CLIENT PAUSE 60000 WRITE"), "+OK\r\n");
    waiting.send(&words("SET paused 1"));
    waiting.send(&words("GET paused"));
    node.replace_proxy();
    assert_eq!(asker.ask("GET paused"), Value::Null);
    crate::lease::hears_nothing(&mut waiting);
    assert_eq!(asker.text("CLIENT UNPAUSE"), "+OK\r\n");
    assert_eq!(waiting.raw(), b"+OK\r\n");
    assert_eq!(waiting.reply(), Value::bulk("1"));
}

/// While clients are with two servers, questions about all of them wait: they are asked, with the client or without,
/// when all are in one place again; or, if some are kept, about those that are there.
#[test]
fn questions_about_all_clients_wait() {
    let mut node = leased();
    node.environment = vec![("MAINSTAY_HANDOVER_TEST", "patient".to_owned())];
    node.replace_proxy();
    let mut clients: Vec<Client> = (0..5).map(|_| node.client()).collect();
    let ids: Vec<String> = clients
        .iter_mut()
        .map(|client| client.text("CLIENT ID").trim()[1..].to_owned())
        .collect();
    clients[4].send(&words("BLPOP queue 0"));
    // The new server gets no lease: all stay with the old one.
    node.exec.leases(Policy::Silent);
    let old = node.server();
    node.restart_proxy();
    let mut new = node.client();
    new.send(&words("CLIENT LIST"));
    clients[0].send(&words("CLIENT LIST"));
    clients[1].send(&words(&format!("CLIENT KILL ID {}", ids[3])));
    clients[1].send(&words(&format!("CLIENT UNBLOCK {}", ids[4])));
    assert!(process::runs(old));
    node.exec.leases(Policy::Granted);
    until("they have gone over", || !process::runs(old));
    for client in [&mut new, &mut clients[0]] {
        let seen = String::from_utf8_lossy(&client.raw()).into_owned();
        let of_all = ids.iter().filter(|id| seen.contains(&format!("id={id} ")));
        assert!(
            of_all.count() >= 4 && seen.matches("id=").count() >= 5,
            "{seen}"
        );
    }
    assert_eq!(clients[1].raw(), b":1\r\n");
    assert_eq!(clients[1].raw(), b":1\r\n");
    assert!(clients[3].try_raw().is_none(), "it was closed");
    assert_eq!(clients[4].raw(), b"*-1\r\n");
}

/// The new server serves clients of a replicated database with its own lease only: until it has one, they
/// stay with the old one, which has.
#[test]
fn clients_go_where_there_is_a_lease() {
    let mut node = leased();
    let mut clients: Vec<Client> = (0..10).map(|_| node.client()).collect();
    let mut blocked = node.client();
    blocked.send(&words("BLPOP queue 0"));
    for client in &mut clients {
        assert_eq!(client.text("SET key value"), "+OK\r\n");
    }
    let old = node.server();
    node.replace_proxy();
    for client in &mut clients {
        assert_eq!(client.ask("GET key"), Value::bulk("value"));
    }
    assert_ne!(node.server(), old);
    clients[0].text("RPUSH queue element");
    assert!(String::from_utf8_lossy(&blocked.raw()).contains("element"));
    // Nobody has a lease now.
    node.exec.leases(Policy::Silent);
    let old = node.server();
    node.restart_proxy();
    until("it is ready as far as it can be", || {
        node.log().matches("endpoints are handed over").count() == 2
    });
    assert!(process::runs(old));
    node.exec.leases(Policy::Granted);
    until("they have gone over", || !process::runs(old));
    for client in &mut clients {
        assert_eq!(client.ask("GET key"), Value::bulk("value"));
    }
}

/// What does not come to rest is kept by the old server to the end of its drain time; others go.
#[test]
fn who_cannot_go_is_drained() {
    let mut node = Node::prepare(VALKEY, |_| {});
    node.environment = vec![("MAINSTAY_DRAIN_SECONDS", "7".to_owned())];
    node.exec.publish(&node.config);
    node.launch();
    node.wait_served();
    let (mut busy, mut idle) = (node.client(), node.client());
    assert!(busy.pings() && idle.pings());
    let old = node.server();
    node.engine.freeze(true);
    busy.send(&words("INCR counter"));
    until("it is in flight", || {
        node.exec
            .last()
            .is_some_and(|seen| seen.databases[0].in_flight == 1)
    });
    node.restart_proxy();
    until("it is kept", || {
        node.log()
            .contains("clients are kept that could not be handed over")
    });
    let told = node.log();
    assert!(told.contains("kept=1"), "the other one went");
    node.engine.freeze(false);
    assert_eq!(busy.raw(), b":1\r\n");
    assert!(
        busy.try_raw().is_none(),
        "it is closed when it has its reply"
    );
    until("the old server ends", || !process::runs(old));
    assert!(idle.pings());
}

/// To and from a server of the release before, endpoints are handed over, and clients are drained.
#[test]
fn the_release_before_is_understood() {
    let mut node = Node::start();
    let mut first = node.client();
    assert!(first.pings());
    let old = node.server();
    node.environment = vec![("MAINSTAY_HANDOVER_TEST", "version=1".to_owned())];
    node.restart_proxy();
    let middle = node.server();
    let mut second = node.client();
    assert!(first.pings() && second.pings());
    assert!(process::runs(old));
    node.environment.clear();
    node.restart_proxy();
    assert!(first.pings() && second.pings() && node.client().pings());
    assert!(process::runs(old) && process::runs(middle));
    drop((first, second));
    until("both have ended", || {
        !process::runs(old) && !process::runs(middle)
    });
}

/// To and from a server that knows one batch at a time, all clients go over; there is room for them before they come.
#[test]
fn one_batch_at_a_time() {
    let mut node = Node::start();
    let mut clients: Vec<Client> = (0..350).map(|_| node.client()).collect();
    for environment in [
        // One that tells of what is left again and again, to one that understands nothing else meanwhile.
        vec![("MAINSTAY_HANDOVER_TEST", "tells".to_owned())],
        vec![("MAINSTAY_HANDOVER_TEST", "version=2".to_owned())],
        Vec::new(),
    ] {
        assert!(clients.iter_mut().all(Client::pings));
        let old = node.server();
        node.environment = environment;
        node.restart_proxy();
        until("the old server has ended", || !process::runs(old));
        // As it fills the kernel would have doubled it to 512.
        assert!(process::descriptor_table(node.server()) > clients.len() + 256);
    }
    assert!(clients.iter_mut().all(Client::pings));
}

/// Commands cut anywhere, and replies that nobody has read, come to their end with the next server.
#[test]
fn commands_are_cut_anywhere() {
    for mut node in nodes() {
        let command = words("SET {cut}key value-of-some-length");
        let mut clients: Vec<Client> = (0..command.len()).map(|_| node.client()).collect();
        for (at, client) in clients.iter_mut().enumerate() {
            client.send(&words("ECHO before"));
            client.send(&command[..at]);
        }
        node.replace_proxy();
        for (at, client) in clients.iter_mut().enumerate() {
            client.stream.write_all(&command[at..]).unwrap();
            client.send(&words("ECHO after"));
            assert_eq!(client.reply(), Value::bulk("before"), "{at}");
            assert_eq!(client.raw(), b"+OK\r\n", "{at}");
            assert_eq!(client.reply(), Value::bulk("after"), "{at}");
        }
    }
}

/// A gate that is closed when the server is replaced: its clients go over after it has opened, and none gets
/// an error. A later move finds their connections where they are.
#[test]
fn a_primary_moves_before_and_after() {
    let mut pair = Pair::start(VALKEY);
    let mut blocked = pair.node.client();
    blocked.send(&words("BLPOP queue 0"));
    let mut subscriber = pair.node.client();
    subscriber.text("SUBSCRIBE channel");
    let mut transaction = pair.node.client();
    transaction.text("MULTI");
    transaction.text("INCR counter");
    let mut other = pair.node.client();
    other.text("SET key value");
    let loaded = other.text("SCRIPT LOAD \"return 7\"");
    let sha = loaded.split("\r\n").nth(1).unwrap().to_owned();
    pair.node.replace_proxy();
    pair.move_primary();
    assert_eq!(other.text("SET key again"), "+OK\r\n");
    assert_eq!(other.text(&format!("EVALSHA {sha} 0")), ":7\r\n");
    // Now it is closed under way.
    assert_eq!(pair.hold(60_000).refusal, None);
    let old = pair.node.server();
    other.send(&words("SET key held"));
    pair.node.restart_proxy();
    assert!(process::runs(old), "its clients wait with it");
    // As if the move were given up: the same primary under a new epoch.
    pair.epoch += 1;
    pair.publish();
    assert_eq!(other.raw(), b"+OK\r\n");
    until("all have gone over", || !process::runs(old));
    assert_eq!(
        transaction.ask("EXEC"),
        Value::Array(vec![Value::Integer(1)])
    );
    assert_eq!(other.text("PUBLISH channel text"), ":1\r\n");
    assert!(String::from_utf8_lossy(&subscriber.raw()).contains("text"));
    other.text("RPUSH queue element");
    assert!(String::from_utf8_lossy(&blocked.raw()).contains("element"));
}
