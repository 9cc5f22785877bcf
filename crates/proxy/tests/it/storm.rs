//! Very many clients at once: those that are there go on, and nothing is left of the others.

use crate::support::client::{Client, words};
use crate::support::node::{Node, VALKEY};
use crate::support::{process, until};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

const MIB: u64 = 1024 * 1024;

fn descriptors(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

/// How many connections this machine lets a test open, up to `wanted`. This process has one end of each,
/// the proxy the other one.
fn connections(wanted: u64) -> usize {
    let most = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
    let count = most.map_or(wanted, |most| wanted.min(most.saturating_sub(4_096)));
    process::need_descriptors(count + 2_048);
    if count < wanted {
        eprintln!("the descriptor limit allows {count} connections, not {wanted}");
    }
    usize::try_from(count).unwrap()
}

/// Fifty clients that work until told to stop; returns what the slowest of them did while `during` ran.
fn with_workers<T>(endpoint: SocketAddr, during: impl FnOnce() -> T) -> (T, u64) {
    let done = AtomicBool::new(false);
    let counts: Vec<AtomicU64> = (0..50).map(|_| AtomicU64::new(0)).collect();
    std::thread::scope(|scope| {
        for (number, count) in counts.iter().enumerate() {
            let done = &done;
            scope.spawn(move || {
                let mut client = Client::connect(endpoint);
                while !done.load(Ordering::Relaxed) {
                    let turn = count.load(Ordering::Relaxed) + 1;
                    let text = client.text(&format!("INCR worker{number}"));
                    assert_eq!(text, format!(":{turn}\r\n"));
                    count.store(turn, Ordering::Relaxed);
                }
            });
        }
        until("all are at work", || {
            counts.iter().all(|count| count.load(Ordering::Relaxed) > 0)
        });
        let before: Vec<u64> = counts
            .iter()
            .map(|count| count.load(Ordering::Relaxed))
            .collect();
        let result = during();
        let turns = |number: usize| counts[number].load(Ordering::Relaxed) - before[number];
        let least = (0..counts.len()).map(turns).min().unwrap();
        done.store(true, Ordering::Relaxed);
        (result, least)
    })
}

fn storm(node: &Node) {
    let wanted = connections(10_000);
    let server = node.server();
    let mut control = node.client();
    // Everything is opened once that is kept.
    control.text("GET worker1");
    let (descriptors_before, memory_before) =
        (descriptors(server), process::memory(server, "VmRSS:"));
    let ((clients, memory), least) = with_workers(node.endpoint, || {
        let openers: Vec<_> = (0..8)
            .map(|_| {
                let (endpoint, share) = (node.endpoint, wanted / 8);
                std::thread::spawn(move || -> Vec<TcpStream> {
                    (0..share)
                        .map(|_| TcpStream::connect(endpoint).unwrap())
                        .collect()
                })
            })
            .collect();
        let clients: Vec<TcpStream> = openers
            .into_iter()
            .flat_map(|opener| opener.join().unwrap())
            .collect();
        // All are let in, and each one is served.
        until("all are let in", || {
            node.exec
                .last()
                .is_some_and(|seen| seen.databases[0].connections >= clients.len() as u64)
        });
        // The list itself takes memory.
        let memory = process::memory(server, "VmRSS:");
        let list = control.text("CLIENT LIST");
        let lines = list.lines().filter(|line| line.contains("id=")).count();
        assert_eq!(lines, clients.len() + 51, "CLIENT LIST shows all");
        (clients, memory)
    });
    assert!(least > 0, "somebody got nothing while the others came");
    let per_client = memory.saturating_sub(memory_before) / clients.len() as u64;
    assert!(per_client < 4_096, "{per_client} bytes for an idle client");
    eprintln!("{per_client} bytes for a client, {least} turns");
    for stream in clients.iter().step_by(97) {
        let mut client = Client {
            stream: stream.try_clone().unwrap(),
            kept: Vec::new(),
        };
        assert!(client.pings());
    }
    drop(clients);
    nothing_is_left(node, &mut control, descriptors_before, memory_before);
}

fn nothing_is_left(node: &Node, control: &mut Client, descriptors_before: usize, memory: u64) {
    let server = node.server();
    until("the connections are gone", || {
        let list = control.text("CLIENT LIST");
        list.lines().filter(|line| line.contains("id=")).count() == 1
    });
    until("the descriptors are given back", || {
        descriptors(server) <= descriptors_before + 4
    });
    // The allocator gives back when it is used.
    let large = words(&format!("SET large {}", "x".repeat(1 << 20)));
    until("the memory is given back", || {
        control.send(&large);
        assert_eq!(control.raw(), b"+OK\r\n");
        process::memory(server, "VmRSS:") < memory + 24 * MIB
    });
}

fn come_and_go(node: &Node) {
    let server = node.server();
    let mut control = node.client();
    control.text("GET worker1");
    let (descriptors_before, memory_before) =
        (descriptors(server), process::memory(server, "VmRSS:"));
    let get = words("GET worker1");
    let ((), least) = with_workers(node.endpoint, || {
        let openers: Vec<_> = (0..4_usize)
            .map(|opener| {
                let (endpoint, get) = (node.endpoint, get.clone());
                std::thread::spawn(move || {
                    for number in 0..2_500 {
                        let mut client = Client::connect(endpoint);
                        // Some say something before they go, some take the answer.
                        if (number + opener) % 3 > 0 {
                            client.send(&get);
                        }
                        if number % 3 == 1 && opener == 0 {
                            client.raw();
                        }
                    }
                })
            })
            .collect();
        for opener in openers {
            opener.join().unwrap();
        }
    });
    assert!(
        least > 0,
        "somebody got nothing while the others came and went"
    );
    nothing_is_left(node, &mut control, descriptors_before, memory_before);
}

/// One after the other: the descriptors of this process are for one of them. With one shard only if
/// `MAINSTAY_THOROUGH` is set.
fn each(test: impl Fn(&Node)) {
    test(&Node::sharded(VALKEY, 4));
    if std::env::var_os("MAINSTAY_THOROUGH").is_some() {
        test(&Node::start());
    }
}

#[test]
fn ten_thousand_at_once() {
    each(storm);
}

#[test]
fn ten_thousand_come_and_go() {
    each(come_and_go);
}
