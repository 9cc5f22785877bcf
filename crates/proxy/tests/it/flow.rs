//! Large values, slow readers, deep pipelines: nothing grows without end, nobody waits for another.

use crate::support::client::{Client, command, words};
use crate::support::node::{Node, VALKEY};
use crate::support::{process, until};
use model::tuning::ClientBuffer;
use std::io::{Read, Write};

const MIB: u64 = 1024 * 1024;

fn set_large(client: &mut Client, key: &str, length: usize) {
    client.send(
        format!(
            "*3\r\n$3\r\nSET\r\n${}\r\n{key}\r\n${length}\r\n",
            key.len()
        )
        .as_bytes(),
    );
    let piece: Vec<u8> = (0..1_000_003_u32).map(|number| number as u8).collect();
    let mut left = length;
    while left > 0 {
        let now = left.min(piece.len());
        client.stream.write_all(&piece[..now]).unwrap();
        left -= now;
    }
    client.send(b"\r\n");
    assert_eq!(client.raw(), b"+OK\r\n");
}

#[test]
fn a_value_of_100_mib_both_ways() {
    let node = Node::start();
    let mut client = node.client();
    let before = process::memory(node.server(), "VmRSS:");
    set_large(&mut client, "large", 100 << 20);
    client.send(&words("GET large"));
    let mut head = [0; 12];
    client.stream.read_exact(&mut head).unwrap();
    assert_eq!(&head, b"$104857600\r\n");
    let mut buffer = vec![0; 1_000_003];
    let piece: Vec<u8> = (0..1_000_003_u32).map(|number| number as u8).collect();
    let mut left = 100 << 20;
    while left > 0 {
        let now = buffer.len().min(left);
        client.stream.read_exact(&mut buffer[..now]).unwrap();
        assert!(
            buffer[..now] == piece[..now],
            "the value comes back as it was"
        );
        left -= now;
    }
    client.stream.read_exact(&mut head[..2]).unwrap();
    assert_eq!(client.text("STRLEN large"), ":104857600\r\n");
    let peak = process::memory(node.server(), "VmHWM:");
    assert!(peak < before + 48 * MIB, "{before} before, {peak} at most");
}

#[test]
fn a_client_that_never_reads_costs_little_and_delays_nobody() {
    let node = Node::start();
    let mut other = node.client();
    set_large(&mut other, "large", 8 << 20);
    let before = process::memory(node.server(), "VmRSS:");
    let mut deaf = node.client();
    deaf.stream.set_nonblocking(true).unwrap();
    let get = words("GET large").repeat(200);
    // As much as it can: 1.6 GB of replies are asked for.
    let _ = deaf.stream.write(&get);
    // What is in flight with it waits with it; what comes later does not.
    until("the replies come", || {
        process::memory(node.server(), "VmRSS:") > before + 8 * MIB
    });
    for number in 0..2_000 {
        assert_eq!(other.text(&format!("SET k{number} v")), "+OK\r\n");
        assert_eq!(other.text(&format!("GET k{number}")), "$1\r\nv\r\n");
    }
    let peak = process::memory(node.server(), "VmHWM:");
    assert!(peak < before + 64 * MIB, "{before} before, {peak} at most");
    // For a while it stays, and gets everything once it reads.
    deaf.stream.set_nonblocking(false).unwrap();
    for _ in 0..20 {
        assert_eq!(deaf.raw().len(), (8 << 20) + 12);
    }
    drop(deaf);
    assert_eq!(other.text("GET k1"), "$1\r\nv\r\n");
}

/// Who takes nothing is closed in the end though only its own replies wait, whatever they are of. Who takes a little
/// now and then stays, and nobody else notices.
#[test]
fn a_client_that_takes_nothing_is_closed() {
    let node = Node::with(VALKEY, |config| {
        config.databases[0].tuning.client_buffer = ClientBuffer {
            hard: 32 << 20,
            soft: 64 << 10,
            seconds: 1,
        };
    });
    let mut other = node.client();
    set_large(&mut other, "large", 24 << 20);
    let before = process::memory(node.server(), "VmRSS:");
    let get = words("GET large");
    let [mut one, mut many, mut subscriber, mut slow] = [(); 4].map(|()| node.client());
    // All that is asked for fits into the buffer: no connection waits.
    one.send(&get);
    many.send(&get.repeat(20));
    subscriber.text("SUBSCRIBE news");
    let message = vec![b'm'; 1 << 20];
    for _ in 0..24 {
        other.send(&command(&[b"PUBLISH", b"news", &message]));
        assert_eq!(other.raw(), b":1\r\n");
    }
    slow.send(&get);
    let address = |client: &Client| format!(" addr={} ", client.stream.local_addr().unwrap());
    let deaf = [&one, &many, &subscriber].map(address);
    let mut some = vec![0; 8192];
    until("those that take nothing are gone", || {
        slow.stream.read_exact(&mut some).unwrap();
        let list = other.text("CLIENT LIST");
        assert!(list.contains(&address(&slow)), "it takes a little");
        deaf.iter().all(|address| !list.contains(address))
    });
    assert_eq!(other.text("PUBLISH news x"), ":0\r\n");
    until("it is told of them", || {
        let log = node.log();
        let told = log.matches("a client is closed: it takes no replies");
        told.count() == 3
    });
    drop((one, many, subscriber, slow));
    // The allocator gives back when it is used.
    until("what they held is given back", || {
        other.send(&get);
        assert_eq!(other.raw().len(), (24 << 20) + 13);
        process::memory(node.server(), "VmRSS:") < before + 8 * MIB
    });
}

#[test]
fn what_waits_behind_a_stuck_client_is_freed() {
    let node = Node::start();
    let mut other = node.client();
    set_large(&mut other, "large", 8 << 20);
    let mut deaf = node.client();
    // The engine is stopped, so that both clients' commands are in flight over one connection.
    node.engine.freeze(true);
    deaf.send(&words("GET large").repeat(100));
    until("the commands are read", || {
        node.exec
            .last()
            .is_some_and(|observed| observed.databases[0].commands >= 101)
    });
    other.send(&words("PING behind"));
    until("the command is read", || {
        node.exec
            .last()
            .is_some_and(|observed| observed.databases[0].commands >= 102)
    });
    node.engine.freeze(false);
    assert_eq!(other.raw(), b"$6\r\nbehind\r\n");
    until("it is told", || {
        node.log()
            .contains("a client is closed: it takes its replies too slowly")
    });
    assert_eq!(node.client().text("PING"), "+PONG\r\n");
}

/// A client that has many large replies in flight, and another one whose reply is behind them.
fn one_behind(node: &Node, replies: usize) -> (Client, Client) {
    let (mut first, mut behind) = (node.client(), node.client());
    let commands = || {
        node.exec
            .last()
            .map_or(0, |seen| seen.databases[0].commands)
    };
    let told = node.exec.count();
    until("it was told since", || node.exec.count() > told + 1);
    let before = commands();
    node.engine.freeze(true);
    first.send(&words("GET large").repeat(replies));
    until("the commands are read", || {
        commands() >= before + replies as u64
    });
    behind.send(&words("PING behind"));
    until("the command is read", || {
        commands() > before + replies as u64
    });
    (first, behind)
}

/// Clients that take nothing while others' replies are behind theirs: these come at once, and those keep what they are
/// due, as long as all of it is not too much.
#[test]
fn what_waits_behind_a_deaf_client_goes_on() {
    let node = Node::start();
    set_large(&mut node.client(), "large", 8 << 20);
    let before = process::memory(node.server(), "VmRSS:");
    let takes_all = |mut client: Client| {
        for _ in 0..9 {
            assert_eq!(client.raw().len(), (8 << 20) + 12);
        }
        assert!(client.pings());
    };
    for _ in 0..2 {
        let (deaf, mut behind) = one_behind(&node, 9);
        node.engine.freeze(false);
        assert_eq!(behind.raw(), b"$6\r\nbehind\r\n");
        // There is room for one such client, not for two: the other one goes.
        let (mut more, mut behind) = one_behind(&node, 9);
        node.engine.freeze(false);
        assert_eq!(behind.raw(), b"$6\r\nbehind\r\n");
        while more.try_raw().is_some() {}
        takes_all(deaf);
    }
    until("it is told of those that went", || {
        node.log().matches("takes its replies too slowly").count() == 2
    });
    let peak = process::memory(node.server(), "VmHWM:");
    assert!(peak < before + 192 * MIB, "{before} before, {peak} at most");
}

/// A client that takes its replies, but never fast enough, keeps those behind it no longer waiting than one
/// that takes none.
#[test]
fn what_waits_behind_a_slow_client_is_freed() {
    let node = Node::start();
    set_large(&mut node.client(), "large", 8 << 20);
    // One that takes what comes is let be, whoever waits.
    let (mut fast, mut behind) = one_behind(&node, 10);
    node.engine.freeze(false);
    for _ in 0..10 {
        assert_eq!(fast.raw().len(), (8 << 20) + 12);
    }
    assert_eq!(behind.raw(), b"$6\r\nbehind\r\n");
    assert!(fast.pings());
    assert!(!node.log().contains("too slowly"));

    let (slow, mut behind) = one_behind(&node, 200);
    let mut stream = slow.stream.try_clone().unwrap();
    let reading = std::thread::spawn(move || {
        let mut buffer = vec![0; 64 * 1024];
        let mut taken = 0;
        // As a slow line would: the pause is its speed.
        while let Ok(count @ 1..) = stream.read(&mut buffer) {
            taken += count;
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        taken
    });
    node.engine.freeze(false);
    assert_eq!(behind.raw(), b"$6\r\nbehind\r\n");
    until("it is told", || {
        node.log()
            .contains("a client is closed: it takes its replies too slowly")
    });
    drop(slow);
    let taken = reading.join().unwrap();
    assert!(taken > 0 && taken < 200 * (8 << 20));
}

/// Who does not take what comes unasked is closed at its limit: the shard keeps none of it, and keys have their room.
#[test]
fn what_comes_unasked_fills_nothing() {
    for shards in [1, 4] {
        let mut node = Node::sharded(VALKEY, shards);
        let mut direct = Client::connect(node.shard(0).direct);
        for lines in [
            &["SUBSCRIBE news"][..],
            &["HELLO 3", "PSUBSCRIBE n*"],
            &["MONITOR"],
        ] {
            let mut deaf = node.client();
            for line in lines {
                deaf.text(line);
            }
            // It takes what it is sent, if it is sent more than it may leave.
            let mut reads = node.client();
            reads.text("SUBSCRIBE news");
            let reading = std::thread::spawn(move || {
                for _ in 0..60 {
                    reads.raw();
                }
                reads
            });
            let mut publisher = node.client();
            let before = process::memory(node.server(), "VmRSS:");
            let message = vec![b'm'; 1 << 20];
            for _ in 0..60 {
                publisher.send(&command(&[b"PUBLISH", b"news", &message]));
                publisher.reply();
            }
            until(&format!("{lines:?} is closed"), || {
                node.exec.last().is_some_and(|seen| {
                    let seen = &seen.databases[0];
                    seen.connections == 2
                })
            });
            let mut reads = reading.join().unwrap();
            assert_eq!(publisher.text("PUBLISH news x"), ":1\r\n", "{lines:?}");
            assert!(
                String::from_utf8(reads.raw())
                    .unwrap()
                    .ends_with("\r\nx\r\n")
            );
            let peak = process::memory(node.server(), "VmHWM:");
            assert!(
                peak < before + 64 * MIB,
                "{lines:?}: {before} before, {peak} at most"
            );
            let used = direct.text("INFO memory");
            let used: u64 = used
                .lines()
                .find_map(|line| line.strip_prefix("used_memory_peak:"))
                .unwrap()
                .trim()
                .parse()
                .unwrap();
            assert!(used < 24 << 20, "{lines:?}: {used} in the engine");
        }
    }
}

/// Pipelines of every kind of way, over many connections at a time, each reply checked.
#[test]
fn order_under_deep_pipelines_with_changes_of_the_way() {
    let node = Node::start();
    let endpoint = node.endpoint;
    let threads: Vec<_> = (0..8_u64)
        .map(|thread| {
            std::thread::spawn(move || {
                let mut client = Client::connect(endpoint);
                let mut random = thread + 1;
                let mut counter = 0;
                for _ in 0..40 {
                    let (mut pipeline, mut wanted) = (Vec::new(), Vec::new());
                    for _ in 0..50 {
                        random = random
                            .wrapping_mul(6_364_136_223_846_793_005)
                            .wrapping_add(1_442_695_040_888_963_407);
                        step(
                            thread,
                            random >> 33,
                            &mut counter,
                            &mut pipeline,
                            &mut wanted,
                        );
                    }
                    client.send(&pipeline);
                    for (number, wanted) in wanted.iter().enumerate() {
                        let got = client.raw();
                        assert_eq!(
                            String::from_utf8_lossy(&got[..got.len().min(80)]),
                            String::from_utf8_lossy(&wanted[..wanted.len().min(80)]),
                            "reply {number}"
                        );
                        assert!(got == *wanted);
                    }
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
}

fn step(thread: u64, random: u64, counter: &mut u64, out: &mut Vec<u8>, wanted: &mut Vec<Vec<u8>>) {
    let mut add = |line: &str, reply: String| {
        out.extend(words(line));
        wanted.push(reply.into_bytes());
    };
    match random % 12 {
        0..5 => {
            *counter += 1;
            add(&format!("INCR n{thread}"), format!(":{counter}\r\n"));
        }
        5 => add(
            &format!("PING {random}"),
            format!("${}\r\n{random}\r\n", random.to_string().len()),
        ),
        6 => {
            *counter += 1;
            add("MULTI", "+OK\r\n".into());
            add(&format!("INCR n{thread}"), "+QUEUED\r\n".into());
            add("EXEC", format!("*1\r\n:{counter}\r\n"));
        }
        7 => {
            add(&format!("RPUSH q{thread} x"), ":1\r\n".into());
            add(
                &format!("BLPOP q{thread} 0"),
                format!("*2\r\n$2\r\nq{thread}\r\n$1\r\nx\r\n"),
            );
        }
        8 => {
            add("SELECT 1", "+OK\r\n".into());
            add(&format!("GET n{thread}"), "$-1\r\n".into());
            add("SELECT 0", "+OK\r\n".into());
        }
        9 => {
            add(&format!("CLIENT SETNAME c{random}"), "+OK\r\n".into());
            let name = format!("c{random}");
            add("CLIENT GETNAME", format!("${}\r\n{name}\r\n", name.len()));
        }
        10 => {
            let value = vec![b'a' + (random % 26) as u8; 200_000];
            out.extend(command(&[
                b"SET",
                format!("big{thread}").as_bytes(),
                &value,
            ]));
            wanted.push(b"+OK\r\n".to_vec());
            out.extend(words(&format!("GET big{thread}")));
            wanted.push([b"$200000\r\n", &value[..], b"\r\n"].concat());
        }
        _ => {
            add(
                &format!("SUBSCRIBE s{thread}"),
                format!("*3\r\n$9\r\nsubscribe\r\n$2\r\ns{thread}\r\n:1\r\n"),
            );
            add(
                "UNSUBSCRIBE",
                format!("*3\r\n$11\r\nunsubscribe\r\n$2\r\ns{thread}\r\n:0\r\n"),
            );
        }
    }
}

#[test]
fn idle_connections_cost_little_memory_and_no_processor() {
    let node = Node::start();
    process::need_descriptors(2_500);
    // In halves, so that what is there once does not count.
    let mut clients: Vec<Client> = Vec::new();
    let mut memory = Vec::new();
    for _ in 0..2 {
        for _ in 0..1_000 {
            let mut client = node.client();
            assert_eq!(client.text("SET k 0123456789"), "+OK\r\n");
            client.send(&command(&[b"SET", b"k", &[b'v'; 30_000]]));
            assert_eq!(client.raw(), b"+OK\r\n");
            clients.push(client);
        }
        memory.push(process::memory(node.server(), "VmRSS:"));
    }
    // The allocator takes memory by 2 MiB.
    assert!(
        memory[1] <= memory[0] + 1_000 * 4096 + 2 * MIB,
        "{memory:?}"
    );
    // Only told and looked after once a second: a tick of the kernel is 10 ms.
    let ticks = process::cpu_ticks(node.server());
    let seen = node.exec.last().map_or(0, |observed| observed.commands);
    let mut told = 0;
    until("three more observations", || {
        let count = node.exec.count();
        if told == 0 {
            told = count;
        }
        count >= told + 3
    });
    assert!(node.exec.last().unwrap().commands >= seen);
    assert!(process::cpu_ticks(node.server()) <= ticks + 5);
}
