//! The number of workers changes while clients are served: none loses its connection, its place in the
//! order, or what it has set.

use crate::connections::id;
use crate::support::client::{Client, words};
use crate::support::node::{Node, VALKEY};
use crate::support::{process, until};
use model::tuning::ProxySettings;
use resp::value::Value;
use std::sync::atomic::{AtomicBool, Ordering};

impl Node {
    fn resize(&mut self, threads: u32) {
        self.reconfigure(|config| config.settings = ProxySettings::fixed(threads));
        until("so many workers get clients", || {
            self.exec.last().is_some_and(|seen| seen.threads == threads)
        });
    }

    /// Threads of the server that are workers, by their names.
    fn workers(&self) -> Vec<String> {
        let folder = format!("/proc/{}/task", self.server());
        let tasks = std::fs::read_dir(folder).unwrap();
        let name = |task: std::io::Result<std::fs::DirEntry>| {
            std::fs::read_to_string(task.ok()?.path().join("comm")).ok()
        };
        let mut names: Vec<String> = tasks
            .filter_map(name)
            .filter(|name| name.starts_with("worker-"))
            .collect();
        names.sort();
        names
    }

    fn wait_for_workers(&self, count: usize) {
        until("so many workers run", || self.workers().len() == count);
    }
}

fn set_up(shards: u16) -> Node {
    match shards {
        1 => Node::start(),
        shards => Node::sharded(VALKEY, shards),
    }
}

/// Clients with something of their own: a name, RESP3, a database, a subscription, a transaction, watched
/// keys, a blocked command.
struct Sessions {
    named: Client,
    resp3: Client,
    subscriber: Client,
    transaction: Client,
    watching: Client,
    blocked: Client,
    ids: Vec<String>,
}

impl Sessions {
    fn open(node: &Node) -> Self {
        let mut all = Self {
            named: node.client(),
            resp3: node.client(),
            subscriber: node.client(),
            transaction: node.client(),
            watching: node.client(),
            blocked: node.client(),
            ids: Vec::new(),
        };
        all.named.text("CLIENT SETNAME somebody");
        all.named.text("CLIENT SETINFO lib-name library");
        all.resp3.text("HELLO 3");
        all.subscriber.text("SUBSCRIBE channel");
        all.transaction.text("MULTI");
        all.transaction.text("SET {t}key inside");
        all.watching.text("WATCH {w}key");
        all.ids = all.numbers();
        all.blocked.send(&words("BLPOP {b}queue 0"));
        all
    }

    fn numbers(&mut self) -> Vec<String> {
        [&mut self.named, &mut self.resp3]
            .into_iter()
            .map(|client| client.text("CLIENT ID"))
            .collect()
    }

    fn check(mut self, node: &Node) {
        let mut other = node.client();
        assert_eq!(self.numbers(), self.ids);
        assert_eq!(self.named.ask("CLIENT GETNAME"), Value::bulk("somebody"));
        assert!(self.named.text("CLIENT INFO").contains("lib-name=library"));
        other.text("HSET hash field value");
        let map = self.resp3.ask("HGETALL hash");
        assert!(matches!(map, Value::Map(_)), "{map:?}");
        assert_eq!(other.text("PUBLISH channel text"), ":1\r\n");
        assert!(String::from_utf8_lossy(&self.subscriber.raw()).contains("text"));
        assert_eq!(
            self.transaction.ask("EXEC"),
            Value::Array(vec![Value::Simple(b"OK".to_vec())])
        );
        other.text("SET {w}key other");
        self.watching.text("MULTI");
        self.watching.text("PING");
        assert_eq!(self.watching.ask("EXEC"), Value::Null);
        assert_eq!(other.text("RPUSH {b}queue element"), ":1\r\n");
        assert!(String::from_utf8_lossy(&self.blocked.raw()).contains("element"));
        // Others have left, and may not have gone yet.
        until("only these are listed", || {
            other.text("CLIENT LIST").matches("id=").count() == 7
        });
    }
}

#[test]
fn more_and_fewer_workers_under_load() {
    for shards in [1, 3] {
        let mut node = set_up(shards);
        let sessions = Sessions::open(&node);
        let endpoint = node.endpoint;
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for number in 0..12 {
                let over = &over;
                scope.spawn(move || {
                    let mut client = Client::connect(endpoint);
                    let (mut sent, mut seen) = (0, 0);
                    while !over.load(Ordering::Relaxed) {
                        let batch = 1 + (number * 7 + seen) % 30;
                        client.send(&words(&format!("INCR key{number}")).repeat(batch as usize));
                        sent += batch;
                        while seen < sent {
                            seen += 1;
                            assert_eq!(client.reply(), Value::Integer(seen));
                        }
                        // Some rest, so that they can go elsewhere.
                        if number % 3 == 0 {
                            std::thread::yield_now();
                        }
                    }
                });
            }
            for threads in [3, 1, 4, 2, 5, 1] {
                node.resize(threads);
            }
            over.store(true, Ordering::Relaxed);
        });
        sessions.check(&node);
        node.wait_for_workers(1);
    }
}

/// Clients that rest go to a new worker, and back, and the workers that are too many end.
#[test]
fn clients_at_rest_are_shared_out() {
    for shards in [1, 2] {
        let mut node = set_up(shards);
        let mut clients: Vec<Client> = (0..60).map(|_| node.client()).collect();
        for client in &mut clients {
            assert_eq!(client.text("SET key value"), "+OK\r\n");
        }
        node.wait_for_workers(1);
        for (threads, workers) in [(3, 3), (1, 1), (2, 2)] {
            node.resize(threads);
            node.wait_for_workers(workers);
            for client in &mut clients {
                assert_eq!(client.ask("GET key"), Value::bulk("value"));
            }
            let list = clients[0].text("CLIENT LIST");
            assert_eq!(list.matches("id=").count(), 60);
        }
        // Killed wherever they are.
        let ids: Vec<String> = clients.iter_mut().skip(1).map(id).collect();
        for id in ids {
            assert_eq!(
                clients[0].text(&format!("CLIENT KILL ID {id}")),
                ":1\r\n",
                "{id}"
            );
        }
        until("they are gone", || {
            node.exec.last().is_some_and(|seen| seen.connections == 1)
        });
    }
}

/// A worker that is too many stays for a client that cannot go, and ends when that leaves.
#[test]
fn a_worker_stays_for_its_last_client() {
    let mut node = Node::start();
    node.resize(2);
    node.wait_for_workers(2);
    let mut subscribers: Vec<Client> = (0..6).map(|_| node.client()).collect();
    for client in &mut subscribers {
        client.text("SUBSCRIBE channel");
    }
    node.resize(1);
    let looked = node.exec.count();
    until("it was looked again", || node.exec.count() > looked + 3);
    assert_eq!(node.workers().len(), 2);
    let mut other = node.client();
    assert_eq!(other.text("PUBLISH channel text"), ":6\r\n");
    for client in &mut subscribers {
        assert!(String::from_utf8_lossy(&client.raw()).contains("text"));
    }
    // It comes back when it is wanted again, and then goes for good.
    node.resize(2);
    assert_eq!(node.workers().len(), 2);
    node.resize(1);
    drop(subscribers);
    node.wait_for_workers(1);
    assert!(other.pings());
}

/// A number is chosen from the cores when none is set, and settings are read again after a restart.
#[test]
fn as_many_as_the_machine_has_room_for() {
    let mut node = Node::with(VALKEY, |config| config.settings = ProxySettings::default());
    let cores = std::thread::available_parallelism().unwrap().get();
    node.wait_for_workers((cores / 2).max(1));
    node.resize(3);
    node.restart_proxy();
    node.wait_served();
    node.wait_for_workers(3);
    assert!(node.client().pings());
}

/// Starting and ending workers again and again leaves nothing behind.
#[test]
fn nothing_is_left_of_workers() {
    let mut node = Node::start();
    let mut client = node.client();
    let descriptors = |node: &Node| {
        let folder = format!("/proc/{}/fd", node.server());
        std::fs::read_dir(folder).unwrap().count()
    };
    let round = |node: &mut Node, client: &mut Client| {
        node.resize(4);
        assert!(client.pings());
        node.resize(1);
        node.wait_for_workers(1);
        assert!(client.pings());
    };
    round(&mut node, &mut client);
    let before = descriptors(&node);
    for _ in 0..8 {
        round(&mut node, &mut client);
    }
    until("all descriptors are closed", || {
        descriptors(&node) <= before
    });
    assert!(process::runs(node.server()));
}

/// Much comes with each wake-up, whoever takes it: then one worker more is better, and else it is not.
#[test]
fn deep_pipelines_get_one_more() {
    let mut node = Node::start();
    node.reconfigure(|config| config.settings = ProxySettings::default());
    let threads = |node: &Node| node.exec.last().map_or(0, |seen| seen.threads);
    let cores = std::thread::available_parallelism().unwrap().get();
    let usual = u32::try_from(*ProxySettings::default().range(cores).start()).unwrap();
    // Never more than there are cores.
    let more = (usual + 1).min(u32::try_from(cores).unwrap());
    until("as many as usual", || threads(&node) == usual);
    for (depth, wanted) in [(32, more), (1, usual)] {
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                let mut client = node.client();
                let (stop, batch) = (&stop, words("GET key").repeat(depth));
                scope.spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        client.send(&batch);
                        for _ in 0..depth {
                            assert_eq!(client.raw(), b"$-1\r\n");
                        }
                    }
                });
            }
            until("so many workers get clients", || threads(&node) == wanted);
            stop.store(true, Ordering::Relaxed);
        });
    }
}
