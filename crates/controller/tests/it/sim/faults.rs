//! What goes wrong, and how moves are carried out in a world in which anything may.

use super::bugs::Bug;
use super::{Sim, all_nodes, uids};
use controller::database::plan::Step;
use controller::switchover::plan as switchover;
use controller::switchover::recovery::{OldPrimary, Recovery, Target, decide};
use jiff::{SignedDuration, Timestamp};
use model::documents::{Role, RoleMove, Shard};
use model::intent::{Intent, MaintenanceWish, MigrateWhat, Pace, Restore};
use model::{NodeUid, ShardUid};
use rand::Rng;

impl Sim {
    pub(super) fn fault(&mut self) {
        let all = uids(&self.shards());
        let Some(shard) = self.pick(&all) else {
            return;
        };
        match self.rng.random_range(0..15) {
            0 | 1 => {
                self.note(format!("redis:{shard} dies"));
                self.world.crash(shard);
            }
            2 => {
                self.note(format!("redis:{shard} is started again by somebody"));
                self.world.restart(shard);
            }
            3 | 4 => {
                let node = self.pick(&all_nodes()).unwrap();
                if self.world.silent.contains(&node) {
                    self.note(format!("node:{node} is heard again"));
                    self.world.silent.retain(|n| *n != node);
                } else if self.rng.random() {
                    self.note(format!("node:{node} falls silent"));
                    self.world.falls_silent(node);
                } else {
                    self.note(format!("node:{node} is cut off"));
                    self.world.falls_silent(node);
                    self.cut_off(node);
                }
            }
            5 => {
                self.note(format!("redis:{shard} loses its link"));
                self.world.link(shard, false, false);
            }
            6 => {
                self.note(format!("redis:{shard} syncs anew"));
                self.world.link(shard, false, true);
            }
            7 => {
                self.note(format!("redis:{shard} is linked"));
                self.world.link(shard, true, false);
            }
            8 => {
                self.world.patient = !self.world.patient;
                self.note("time passes");
            }
            9 => self.ask(&Intent::FailoverShards {
                database: None,
                shards: vec![shard],
                immediate: false,
            }),
            10 => {
                let node = self.pick(&all_nodes()).unwrap();
                self.ask(&Intent::MigrateShards {
                    what: MigrateWhat::Shards {
                        shards: vec![shard],
                    },
                    node,
                    override_policy: false,
                });
            }
            11 => self.maintenance(),
            12 => self.operate(),
            13 => self.hang(shard),
            _ => self.time_passes(),
        }
    }

    fn hang(&mut self, shard: ShardUid) {
        let told = if self.world.hung.remove(&shard) {
            "answers again"
        } else {
            self.world.hung.insert(shard);
            // One that does not end is fenced as one that is not heard.
            self.world.out_of_sight.insert(shard);
            "hangs"
        };
        self.note(format!("redis:{shard} {told}"));
    }

    /// Replicas elsewhere lose their primaries on a node, and its replicas theirs.
    fn cut_off(&mut self, node: NodeUid) {
        let shards = self.shards();
        let place = |role: Role, of: &Shard| {
            let mut set = shards
                .iter()
                .filter(|s| s.database == of.database && s.slots == of.slots);
            set.any(|s| s.role == role && s.node == node)
        };
        for replica in shards.iter().filter(|s| s.role == Role::Replica) {
            if place(Role::Primary, replica) || replica.node == node {
                self.world.link(replica.uid, false, false);
            }
        }
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
        let node = self.pick(&all_nodes()).unwrap();
        let on = self
            .world
            .cluster()
            .node(node)
            .unwrap()
            .maintenance
            .is_none();
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

    fn ask(&mut self, intent: &Intent) {
        let answer = match self.world.request(intent) {
            Ok(_) => "begun".to_owned(),
            Err(error) => error.error_code.to_string(),
        };
        self.note(format!("{intent:?}: {answer}"));
    }

    pub(super) fn plan(&mut self) -> Vec<Step> {
        self.forge();
        self.world.plan().steps
    }

    pub(super) fn carry_out(&mut self, step: Step) -> String {
        match step {
            Step::Move(wanted) => {
                let stage = self.rng.random_range(0..6);
                self.move_role(&wanted, stage)
            }
            Step::Settle { old, new, moving } => self.settle(
                (old.shard, old.node, &old.run_id),
                (new.shard, new.node, &new.run_id),
                &moving,
            ),
            other => self.world.execute(other),
        }
    }

    /// A move that goes well, or of which nobody knows how it ended: its leader is gone at one of its
    /// stages.
    fn move_role(&mut self, wanted: &switchover::Move, stage: u32) -> String {
        let (old, new) = (wanted.old.shard, wanted.new.shard);
        let now = Timestamp::UNIX_EPOCH;
        let caught_up = self.world.offset(old) == self.world.offset(new);
        if stage > 2 && caught_up && self.bug.is_none() {
            return self.world.move_role(wanted);
        }
        let Some(begin) = switchover::begin(&self.world.cluster(), wanted, now) else {
            return "a move is not begun".to_owned();
        };
        self.world.apply(&begin);
        let told = format!("redis:{old} begins to move to redis:{new}");
        if self.moves_blindly(wanted) {
            return told;
        }
        match stage {
            0 => format!("{told}, and the leader is gone"),
            1 => {
                self.world.waits_for_sync(old);
                format!("{told}, and the leader is gone while it waits for the replica")
            }
            _ if !caught_up => format!("{told}, and the leader is gone"),
            2 => {
                self.world.hands_over(old);
                format!("{told}, and the leader is gone in the middle")
            }
            _ => {
                self.world.handed_over(wanted);
                if self.bug == Some(Bug::ProgressInMemory) {
                    self.forget(old);
                }
                format!("{told}, and the leader is gone after it")
            }
        }
    }

    fn settle(
        &mut self,
        old: (ShardUid, NodeUid, &str),
        new: (ShardUid, NodeUid, &str),
        moving: &RoleMove,
    ) -> String {
        let late = self.rng.random();
        let seen = (self.old_primary(old), self.target(new));
        let action = decide(seen.0, seen.1, late);
        let ends = (old.0, moving.epoch);
        let now = Timestamp::UNIX_EPOCH;
        match action {
            Recovery::Forward { .. } => {
                self.world.take_over(new.0, moving.epoch);
                let record = self.world.record(old.0, moving.epoch);
                let txn =
                    switchover::commit(&self.world.cluster(), ends, (0, record), now).unwrap();
                self.world.apply(&txn);
            }
            Recovery::Undo | Recovery::Failover { .. } => {
                let txn =
                    switchover::undo(&self.world.cluster(), ends, "interrupted", now).unwrap();
                self.world.apply(&txn);
            }
            Recovery::Abort => self.world.aborts(old.0),
            Recovery::KillTargetAndAbort => {
                self.world.crash(new.0);
                self.world.aborts(old.0);
            }
            // The engines come to an end by themselves.
            Recovery::Poll => self.world.aborts(old.0),
        }
        format!("settling the move of redis:{}: {seen:?}: {action:?}", old.0)
    }

    fn old_primary(&mut self, (shard, node, run_id): (ShardUid, NodeUid, &str)) -> OldPrimary {
        if self.world.silent.contains(&node) || self.world.hung.contains(&shard) {
            return OldPrimary::Unreachable;
        }
        match self.world.failover_state(shard, run_id) {
            None => OldPrimary::Gone,
            Some(("waiting-for-sync", _)) => OldPrimary::WaitingForSync,
            Some(("failover-in-progress", _)) => OldPrimary::InProgress,
            Some((_, true)) => OldPrimary::Primary,
            Some((_, false)) => OldPrimary::Completed,
        }
    }

    fn target(&mut self, (shard, node, run_id): (ShardUid, NodeUid, &str)) -> Target {
        if self.world.silent.contains(&node) || self.world.hung.contains(&shard) {
            return Target::Unreachable;
        }
        match self.world.failover_state(shard, run_id) {
            None => Target::Gone,
            Some((_, true)) => Target::Primary,
            Some((_, false)) => Target::Replica,
        }
    }
}
