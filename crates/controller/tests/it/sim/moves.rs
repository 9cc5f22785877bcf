//! Moves as `switchover::execute` carries them out, by a primary node that may be gone at each of their lines, and how
//! the next one finds out how they ended. Orders of a move come at once, but for one to hand over that may come late.

use super::agents::Answer;
use super::bugs::Bug;
use super::invariants::Set;
use super::network::{Ordered, told};
use super::{Sim, all_nodes};
use controller::switchover::plan::{self as switchover, Move, NotNow, Party};
use controller::switchover::recovery::{self, Recovery, decide};
use model::command::AgentCommand;
use model::documents::RoleMove;
use model::replication::HandOverTarget;
use model::{Epoch, NodeUid};
use rand::Rng;
use store::Txn;

/// Who carries a move out, and in which term of his.
type By = (NodeUid, u64);

impl Sim {
    /// An order that is answered at once; `None`: it is not.
    fn ask_agent(&mut self, by: NodeUid, party: &Party, command: AgentCommand) -> Option<Answer> {
        if !self.talks(by, party.node) {
            return None;
        }
        Some(self.obey(party.node, party.shard, command))
    }

    /// What is made of the newest state is written by whoever is confirmed.
    fn write_of_move(&mut self, by: By, txn: Option<Txn>) -> &'static str {
        match txn {
            Some(txn) => self.commit(by, &txn),
            None => "there is nothing to store",
        }
    }

    pub(super) fn move_role(&mut self, by: By, wanted: &Move) -> String {
        let (old, new) = (&wanted.old, &wanted.new);
        let head = format!("redis:{} to redis:{}", old.shard, new.shard);
        let epoch = wanted.epoch.next();
        for party in [old, new] {
            let prepare = AgentCommand::PrepareEpoch {
                shard: party.shard,
                generation: party.generation,
                run_id: party.run_id.clone(),
                epoch,
                users: party.users.clone(),
            };
            let answer = self.ask_agent(by.0, party, prepare);
            if !matches!(answer, Some(Ok(_))) {
                return self.not_begun(by, wanted, &head);
            }
        }
        if wanted.proxies.iter().any(|node| !self.talks(by.0, *node)) {
            return self.not_begun(by, wanted, &head);
        }
        if !self.barrier(by.0) {
            return format!("{head}: not begun, it is not confirmed");
        }
        let begin = switchover::begin(&self.world.cluster(), wanted, self.world.now);
        let begun = self.write_of_move(by, begin);
        if begun != "done" {
            return format!("{head}: not begun: {begun}");
        }
        if self.moves_blindly(by, wanted) {
            return format!("{head}: begun, and stored as done");
        }
        let line = if self.calm {
            9
        } else {
            self.rng.random_range(0..10)
        };
        self.goes_on(by, wanted, (&head, line))
    }

    /// The move is stored. `line`: where its primary node is gone.
    fn goes_on(&mut self, by: By, wanted: &Move, (head, line): (&str, u32)) -> String {
        let (old, new) = (&wanted.old, &wanted.new);
        let epoch = wanted.epoch.next();
        let gone = |sim: &mut Self, when: &str| {
            sim.leadership_moves();
            format!("{head}: begun; its leader is gone {when}")
        };
        if line == 0 {
            return gone(self, "at once");
        }
        let of = self.set_of(old);
        if !self.hold(by.0, of, wanted.epoch) {
            return format!("{head}: begun, and a proxy does not hold");
        }
        if line == 1 && self.world.calls_itself_primary(old.shard) {
            self.world.waits_for_sync(old.shard);
            return gone(self, "while it waits for the replica");
        }
        if line == 2 && self.world.calls_itself_primary(old.shard) {
            self.world.hands_over(old.shard);
            return gone(self, "in the middle");
        }
        let hand_over = AgentCommand::HandOver {
            shard: old.shard,
            generation: old.generation,
            run_id: old.run_id.clone(),
            epoch,
            target: HandOverTarget {
                shard: new.shard,
                address: new.address,
                run_id: new.run_id.clone(),
            },
            deadline_ms: 2_000,
        };
        if line == 3 {
            let ordered = Ordered {
                by: by.0,
                term: by.1,
                number: self.network.number(),
                node: old.node,
                shard: old.shard,
                removal: false,
            };
            self.send_order(ordered, hand_over);
            return gone(self, "before its order has come");
        }
        let answer = self.ask_agent(by.0, old, hand_over);
        let Some(Ok(seen)) = answer else {
            let why = answer.map_or_else(|| "no answer".to_owned(), |answer| told(&answer));
            return format!("{head}: begun, and not handed over: {why}");
        };
        if line == 4 {
            if self.bug == Some(Bug::ProgressInMemory) {
                self.forget(old.shard);
            }
            return gone(self, "after it");
        }
        let handed = seen.and_then(|seen| seen.replication);
        let record = handed.and_then(|seen| recovery::record(&seen, &old.run_id, epoch));
        let take_over = take_over(new, epoch);
        let taken = self.ask_agent(by.0, new, take_over);
        if line == 5 {
            return gone(self, "before the end of it is stored");
        }
        let (state, now) = (self.world.cluster(), self.world.now);
        let commit = switchover::commit(&state, (old.shard, epoch), (0, record), now);
        let stored = self.write_of_move(by, commit);
        let taken = taken.map_or_else(|| "no answer".to_owned(), |answer| told(&answer));
        format!("{head}: moved, taken over: {taken}, stored: {stored}")
    }

    fn not_begun(&mut self, by: By, wanted: &Move, head: &str) -> String {
        if !self.barrier(by.0) {
            return format!("{head}: not prepared");
        }
        let (state, now) = (self.world.cluster(), self.world.now);
        let (primary, why) = (wanted.old.shard, NotNow::of("not prepared"));
        let refuse = switchover::refuse(&state, primary, &wanted.operation, &why, now);
        let stored = self.write_of_move(by, refuse);
        format!("{head}: not prepared, refused: {stored}")
    }

    fn set_of(&self, party: &Party) -> Set {
        let cluster = self.world.cluster();
        let mut shards = cluster.shards.iter();
        let shard = shards.find(|shard| shard.uid == party.shard).unwrap();
        super::invariants::set(shard)
    }

    /// Has proxies hold a set's commands. Whether each does, or has no lease.
    fn hold(&mut self, by: NodeUid, of: Set, epoch: Epoch) -> bool {
        let mut all = true;
        for node in all_nodes() {
            let (reached, clock) = (self.talks(by, node), self.clock);
            let proxy = self.proxies.get_mut(&node).unwrap();
            if reached {
                proxy.hold(of, epoch);
            } else {
                all &= !proxy.has_lease(clock);
            }
        }
        all
    }

    /// Finds out how a move ended, and stores it.
    pub(super) fn settle(
        &mut self,
        by: By,
        (old, new): (&Party, &Party),
        moving: &RoleMove,
    ) -> String {
        let stop = |party: &Party| AgentCommand::SettleMove {
            shard: party.shard,
            generation: party.generation,
            epoch: moving.epoch,
        };
        let old_seen = self.ask_agent(by.0, old, stop(old));
        let new_seen = self.ask_agent(by.0, new, stop(new));
        let late = self.rng.random();
        let seen = (
            recovery::old_primary(answered(old_seen.as_ref()), &old.run_id),
            recovery::target(answered(new_seen.as_ref()), &new.run_id),
        );
        let action = decide(seen.0, seen.1, late);
        let ends = (old.shard, moving.epoch);
        let now = self.world.now;
        let done = match action {
            Recovery::Forward { .. } => {
                let _ = self.ask_agent(by.0, new, take_over(new, moving.epoch));
                let record = recovery::process(answered(old_seen.as_ref()), &old.run_id)
                    .flatten()
                    .and_then(|seen| recovery::record(seen, &old.run_id, moving.epoch));
                if self.barrier(by.0) {
                    let state = self.world.cluster();
                    let commit = switchover::commit(&state, ends, (0, record), now);
                    self.write_of_move(by, commit)
                } else {
                    "not confirmed"
                }
            }
            Recovery::Undo | Recovery::Failover { .. } => {
                let of = self.set_of(old);
                let epoch = Epoch(moving.epoch.0.saturating_sub(1));
                if !self.hold(by.0, of, epoch) {
                    "a proxy that has a lease does not hold"
                } else if self.barrier(by.0) {
                    let state = self.world.cluster();
                    let undo = switchover::undo(
                        &state,
                        ends,
                        ("interrupted", action == Recovery::Undo),
                        now,
                    );
                    self.write_of_move(by, undo)
                } else {
                    "not confirmed"
                }
            }
            Recovery::Abort => {
                self.abort(by.0, old);
                "ordered"
            }
            Recovery::KillTargetAndAbort => {
                let kill = AgentCommand::KillEngine {
                    shard: new.shard,
                    generation: new.generation,
                    run_id: new.run_id.clone(),
                };
                let _ = self.ask_agent(by.0, new, kill);
                self.abort(by.0, old);
                "ordered"
            }
            Recovery::Poll => "it comes to an end by itself",
        };
        format!(
            "node:{} settles the move of redis:{}: {seen:?}: {action:?}: {done}",
            by.0, old.shard
        )
    }

    fn abort(&mut self, by: NodeUid, old: &Party) {
        let abort = AgentCommand::AbortHandOver {
            shard: old.shard,
            generation: old.generation,
            run_id: old.run_id.clone(),
        };
        let _ = self.ask_agent(by, old, abort);
    }
}

fn take_over(new: &Party, epoch: Epoch) -> AgentCommand {
    AgentCommand::TakeOver {
        shard: new.shard,
        generation: new.generation,
        run_id: new.run_id.clone(),
        epoch,
        users: new.users.clone(),
    }
}

/// What the primary node makes of an answer, as of one that never came.
fn answered(answer: Option<&Answer>) -> recovery::Answer<'_> {
    answer?.as_ref().ok().map(Option::as_ref)
}
