//! A primary and its replica behind a proxy, and moves between them as the controller makes them.

use super::client::Client;
use super::engine::{Engine, PASSWORD};
use super::node::Node;
use super::until;
use model::gate::{Answer, GateOrder};
use model::proxy::{ProxyShard, ShardAddress};
use model::{Epoch, Secret, ShardUid};
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A node with two engines, one of which is primary.
pub struct Pair {
    pub node: Node,
    pub second: Engine,
    /// Which engine is primary: 0 or 1.
    pub primary: usize,
    pub epoch: u64,
    /// The test's own connections to the engines.
    pub direct: [Client; 2],
    /// How long proxies held, as they say, µs.
    pub held: Vec<u64>,
    /// From the hold order until it was held, µs.
    pub closing: Vec<u64>,
    /// From the hold order until the answer to the release, µs.
    pub whole: Vec<u64>,
    _folder: TempDir,
}

/// Something that clients do until they are told to stop.
pub type Load<'a> = Box<dyn FnOnce(&AtomicBool) + Send + 'a>;

pub fn uid(engine: usize) -> ShardUid {
    ShardUid(engine as u64 + 1)
}

impl Pair {
    /// Both of one version.
    pub fn start(engine: &'static str) -> Self {
        Self::of(engine, engine, 1)
    }

    /// The first primary, its replica, and the number of the proxy's workers.
    pub fn of(first: &'static str, second: &'static str, threads: u32) -> Self {
        let mut node = Node::prepare(first, |config| config.settings.threads = threads);
        let folder = tempfile::Builder::new()
            .prefix("mainstay-replica-")
            .tempdir()
            .unwrap();
        let address = node.engine.direct;
        let other = SocketAddr::new(address.ip(), address.port() + 1);
        let second = Engine::start(second, folder.path(), other);
        let direct = [address, other].map(Client::connect);
        node.exec.publish(&node.config);
        node.launch();
        node.wait_served();
        let mut pair = Self {
            node,
            second,
            primary: 0,
            epoch: 1,
            direct,
            held: Vec::new(),
            closing: Vec::new(),
            whole: Vec::new(),
            _folder: folder,
        };
        for engine in 0..2 {
            let line = format!("CONFIG SET replica-announce-ip {}", address.ip());
            assert_eq!(pair.direct[engine].text(&line), "+OK\r\n");
            for line in [
                "CONFIG SET repl-backlog-size 64mb",
                "CONFIG SET repl-diskless-sync-delay 0",
                "CONFIG SET masterauth ''",
            ] {
                assert_eq!(pair.direct[engine].text(line), "+OK\r\n", "{line}");
            }
        }
        let line = format!("REPLICAOF {} {}", address.ip(), address.port());
        assert_eq!(pair.direct[1].text(&line), "+OK\r\n");
        pair.wait_synced();
        pair
    }

    pub fn address(&self, engine: usize) -> SocketAddr {
        [self.node.engine.direct, self.second.direct][engine]
    }

    fn info(&mut self, engine: usize) -> String {
        self.direct[engine].text("INFO replication")
    }

    /// Waits until the replica follows.
    pub fn wait_synced(&mut self) {
        let (primary, replica) = (self.primary, 1 - self.primary);
        until("the replica follows", || {
            self.info(replica).contains("master_link_status:up")
                && self.info(primary).contains("state=online")
        });
    }

    /// An engine as the proxy is to reach it under an epoch; its user is there afterwards.
    pub fn shard(&mut self, engine: usize, epoch: u64) -> ProxyShard {
        let mut rights = model::documents::PROXY_RIGHTS.join(" ");
        rights.push_str(" allchannels");
        for direct in &mut self.direct {
            let line = format!("ACL SETUSER proxy@e{epoch} reset on >{PASSWORD} {rights}");
            assert_eq!(direct.text(&line), "+OK\r\n");
        }
        let socket = [&self.node.engine.socket, &self.second.socket][engine];
        // One is reached as if it were on another node.
        let address = match engine {
            0 => ShardAddress::Unix(socket.clone()),
            _ => ShardAddress::Tcp(self.address(engine)),
        };
        let mut shard = self.node.config.databases[0].shards[0].clone();
        shard.uid = uid(engine);
        shard.epoch = Epoch(epoch);
        shard.address = address;
        shard.user = format!("proxy@e{epoch}");
        shard.password = Secret::new(PASSWORD);
        shard
    }

    /// The present primary under the next epoch, as if it could not be reached.
    pub fn nowhere(&mut self) -> ProxyShard {
        let mut shard = self.shard(self.primary, self.epoch + 1);
        shard.address = ShardAddress::Unix("/nowhere".into());
        shard
    }

    pub fn prepare(&mut self, next: &ProxyShard) -> Answer {
        self.node.exec.ordered(GateOrder::Prepare {
            shard: uid(self.primary),
            epoch: Epoch(self.epoch),
            next: next.clone(),
        })
    }

    pub fn hold_order(&self, patience_ms: u32) -> GateOrder {
        GateOrder::Hold {
            shard: uid(self.primary),
            epoch: Epoch(self.epoch),
            patience_ms,
        }
    }

    pub fn hold(&self, patience_ms: u32) -> Answer {
        self.node.exec.ordered(self.hold_order(patience_ms))
    }

    pub fn release(&mut self, next: &ProxyShard) -> Answer {
        let answer = self.node.exec.ordered(GateOrder::Release {
            shard: uid(self.primary),
            next: next.clone(),
        });
        if answer.refusal.is_none() {
            self.primary = usize::try_from(next.uid.0).unwrap() - 1;
            self.epoch = next.epoch.0;
        }
        answer
    }

    /// Has the engines change their roles. Nothing is sent to the primary meanwhile.
    pub fn fail_over(&mut self) {
        let (old, new) = (self.primary, 1 - self.primary);
        let target = self.address(new);
        let line = format!("FAILOVER TO {} {} TIMEOUT 5000", target.ip(), target.port());
        assert_eq!(self.direct[old].text(&line), "+OK\r\n");
        let deadline = Instant::now() + super::PATIENCE;
        loop {
            // Asked so, the replica tells its offset at once; this has no reply.
            self.direct[new].send(b"*3\r\n$8\r\nREPLCONF\r\n$6\r\nGETACK\r\n$1\r\n*\r\n");
            let done = self.info(new).contains("role:master") && {
                let info = self.info(old);
                info.contains("role:slave")
                    && info.contains("master_failover_state:no-failover")
                    && info.contains("master_link_status:up")
            };
            if done {
                return;
            }
            assert!(Instant::now() < deadline, "the engines do not change roles");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Hands out a configuration that names the present primary.
    pub fn publish(&mut self) {
        let shard = self.shard(self.primary, self.epoch);
        self.node
            .reconfigure(|config| config.databases[0].shards[0] = shard);
    }

    /// A whole planned move to the other engine.
    #[track_caller]
    pub fn move_primary(&mut self) {
        let old_user = format!("proxy@e{}", self.epoch);
        let (old, new) = (self.primary, 1 - self.primary);
        let next = self.shard(new, self.epoch + 1);
        let ok = |answer: &Answer| assert_eq!(answer.refusal, None);
        ok(&self.prepare(&next));
        let begun = Instant::now();
        ok(&self.hold(30_000));
        self.closing.push(micros(begun));
        // Whatever is sent now under the old epoch is refused.
        let line = format!("ACL SETUSER {old_user} -@all");
        assert_eq!(self.direct[old].text(&line), "+OK\r\n");
        self.fail_over();
        let answer = self.release(&next);
        ok(&answer);
        self.whole.push(micros(begun));
        self.held.push(answer.held_us);
        self.publish();
        for engine in 0..2 {
            until("no connection of the old epoch is left", || {
                !self.direct[engine]
                    .text("CLIENT LIST")
                    .contains(&format!("user={old_user} "))
            });
        }
    }

    /// Moves the primary so often while loads run, each on a thread of its own until it is told to stop.
    pub fn move_under(&mut self, moves: usize, loads: Vec<Load<'_>>) {
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let stop = &stop;
            let running: Vec<_> = loads
                .into_iter()
                .map(|load| scope.spawn(move || load(stop)))
                .collect();
            let moved = catch_unwind(AssertUnwindSafe(|| {
                for _ in 0..moves {
                    self.move_primary();
                    if running.iter().any(|load| load.is_finished()) {
                        break;
                    }
                }
            }));
            stop.store(true, Ordering::Relaxed);
            for load in running {
                load.join().unwrap();
            }
            if let Err(panic) = moved {
                resume_unwind(panic);
            }
        });
    }

    /// Prints what moves took.
    pub fn tell(&mut self, what: &str) {
        println!("{what}: {} moves", self.held.len());
        for (name, times) in [
            ("until held", &mut self.closing),
            ("held", &mut self.held),
            ("hold to released", &mut self.whole),
        ] {
            println!("  {name} µs: {}", spread(times));
        }
    }
}

fn micros(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_micros()).unwrap()
}

/// Median, 99th percentile and maximum as text.
pub fn spread(times: &mut [u64]) -> String {
    times.sort_unstable();
    let at = |share: usize| times.get((times.len() * share / 100).min(times.len().max(1) - 1));
    let at = |share| at(share).copied().unwrap_or_default();
    format!("median {}, p99 {}, max {}", at(50), at(99), at(100))
}
