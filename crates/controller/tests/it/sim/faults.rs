//! What goes wrong, and what operators ask for.

use super::{Sim, all_nodes, uids};
use jiff::SignedDuration;
use model::intent::{Intent, MaintenanceWish, MigrateWhat, Pace, Restore};
use model::{NodeUid, ShardUid};
use rand::Rng;
use std::time::Duration;

impl Sim {
    pub(super) fn fault(&mut self) {
        let all = uids(&self.shards());
        let Some(shard) = self.pick(&all) else {
            return;
        };
        match self.rng.random_range(0..22) {
            0..=4 => self.engine_fault(shard),
            5..=7 => self.partition(),
            8 | 9 | 20 => {
                self.note("the primary node is to be another one");
                self.leadership_moves();
            }
            10 => {
                let node = self.pick(&all_nodes()).unwrap();
                if self.rng.random() {
                    self.stops(node);
                } else {
                    self.exec_dies(node);
                }
            }
            11 => {
                self.network.stormy = !self.network.stormy;
                let stormy = self.network.stormy;
                self.note(format!("messages are late, lost and doubled: {stormy}"));
            }
            12 => self.silence(),
            13 => {
                let movable = uids(&self.movable());
                let shard = self.pick(&movable).unwrap_or(shard);
                self.ask(&Intent::FailoverShards {
                    database: None,
                    shards: vec![shard],
                    immediate: false,
                });
            }
            14 => {
                let node = self.pick(&all_nodes()).unwrap();
                self.ask(&Intent::MigrateShards {
                    what: MigrateWhat::Shards {
                        shards: vec![shard],
                    },
                    node,
                    override_policy: false,
                });
            }
            15 | 16 => self.maintenance(),
            17 => self.operate(),
            _ => self.time_passes(),
        }
    }

    fn hang(&mut self, shard: ShardUid) {
        let told = if self.world.hung.remove(&shard) {
            "answers again"
        } else {
            self.world.hung.insert(shard);
            "hangs"
        };
        self.note(format!("redis:{shard} {told}"));
    }

    fn engine_fault(&mut self, shard: ShardUid) {
        match self.rng.random_range(0..6) {
            0 | 1 => {
                self.note(format!("redis:{shard} dies"));
                self.world.crash(shard);
            }
            5 => self.power_cut(shard),
            2 => {
                self.note(format!("redis:{shard} is started again by somebody"));
                self.world.restart(shard);
            }
            3 => {
                self.note(format!("redis:{shard} loses its link"));
                self.world.disconnects(shard, false);
            }
            4 => self.hang(shard),
            _ => {
                self.note(format!("redis:{shard} syncs anew"));
                self.world.disconnects(shard, true);
            }
        }
    }

    /// All copies die at once.
    fn power_cut(&mut self, of: ShardUid) {
        let shards = self.shards();
        let Some(one) = shards.iter().find(|shard| shard.uid == of) else {
            return;
        };
        self.note(format!("redis:{of} dies, and all of its set"));
        let set = super::invariants::set(one);
        for shard in shards.iter().filter(|s| super::invariants::set(s) == set) {
            self.world.crash(shard.uid);
        }
    }

    /// A node hears nobody, or is not heard, or both; or it is as before again.
    fn partition(&mut self) {
        let node = self.pick(&all_nodes()).unwrap();
        let apart = self.world.apart.clone();
        if apart.iter().any(|(from, to)| *from == node || *to == node) {
            self.note(format!("node:{node} is reached again"));
            let whole = |(from, to): &(NodeUid, NodeUid)| *from != node && *to != node;
            self.world.apart.retain(whole);
            return;
        }
        let (hears, is_heard) = match self.rng.random_range(0..4) {
            0 => (true, false),
            1 => (false, true),
            _ => (false, false),
        };
        self.note(format!(
            "node:{node} is cut off: hears others {hears}, is heard {is_heard}"
        ));
        for other in all_nodes().into_iter().filter(|other| *other != node) {
            if !is_heard {
                self.world.apart.insert((node, other));
            }
            if !hears {
                self.world.apart.insert((other, node));
            }
        }
        self.world.lose_links();
    }

    /// `cnm_exec` of a node is stopped for a while, as the whole machine may be; then it goes on as if nothing were.
    pub(super) fn stops(&mut self, node: NodeUid) {
        let stopped = Duration::from_millis(self.rng.random_range(50..5_000));
        self.note(format!("node:{node}: cnm_exec is stopped"));
        let until = self.clock + stopped;
        self.node(node).stopped = Some(until);
    }

    /// `cnm_exec` of a node dies, and with it its agent; engines and proxies go on.
    fn exec_dies(&mut self, node: NodeUid) {
        let down = Duration::from_millis(self.rng.random_range(200..4_000));
        self.note(format!("node:{node}: cnm_exec dies"));
        self.exec_starts_again(node, down);
    }

    /// The process is another one. Its agent knows no promises of its engines any more.
    pub(super) fn exec_starts_again(&mut self, node: NodeUid, down: Duration) {
        let until = self.clock + down;
        self.node(node).starts_again(Some(until));
        if self.raft.leader == Some(node) {
            self.raft.leader = None;
        }
        self.promises.forget(node, self.clock);
        let now = self.world.now;
        let seen = self.world.nodes.get_mut(&node).unwrap();
        seen.started = now;
        for shard in &mut seen.shards {
            shard.keeper = None;
        }
    }

    /// So long that nodes that are not heard count as lost.
    fn silence(&mut self) {
        self.note("seconds pass");
        self.clock += Duration::from_secs(2);
    }

    /// So much that what waits pauses.
    pub(super) fn time_passes(&mut self) {
        self.note("half an hour passes");
        self.world.now += SignedDuration::from_mins(31);
    }

    /// An operator has an operation go on, or gives it up.
    pub(super) fn operate(&mut self) {
        let cluster = self.world.cluster();
        let running = cluster.operations.iter().filter(|o| o.ended.is_none());
        let running: Vec<_> = running.map(|o| o.uid.clone()).collect();
        let Some(operation) = self.pick(&running) else {
            return;
        };
        let intent = if self.rng.random() {
            Intent::RetryOperation { operation }
        } else {
            Intent::AbortOperation { operation }
        };
        self.ask(&intent);
    }

    fn maintenance(&mut self) {
        if self.upgrade_run().is_some_and(|run| run.is_open()) {
            // It would stand against every turn.
            return;
        }
        let node = self.pick(&all_nodes()).unwrap();
        let cluster = self.world.cluster();
        let on = cluster.node(node).unwrap().maintenance.is_none();
        let choice = self.rng.random();
        let intent = if on {
            Intent::MaintenanceOn {
                node,
                wish: MaintenanceWish {
                    keep_slave_shards: choice,
                    ..MaintenanceWish::default()
                },
                pace: Pace::default(),
            }
        } else {
            Intent::MaintenanceOff {
                node,
                restore: if choice {
                    Restore::Nothing
                } else {
                    Restore::Newest
                },
                pace: Pace::default(),
            }
        };
        self.ask(&intent);
    }

    /// What the primary node makes of it, if there is one.
    pub(super) fn ask(&mut self, intent: &Intent) {
        let Some(leader) = self.leader() else {
            return self.note(format!("{intent:?}: no primary node"));
        };
        let (clock, observed) = (self.clock, self.nodes[&leader].observed.clone());
        let answer = match self.world.request_by((&observed, clock), intent) {
            Ok(_) => "begun".to_owned(),
            Err(error) => error.error_code.to_string(),
        };
        self.barrier(leader);
        self.note(format!("{intent:?}: {answer}"));
    }
}
