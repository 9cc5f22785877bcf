//! The agents: what each has in its ledgers, and by which rules it refuses. They are those of `crates/agent`
//! (`shard/checks.rs`, `start.rs`, `promote.rs`, `follow.rs`, `keeper.rs`, `hand_over.rs`, `stop.rs`), and no others:
//! an agent knows nothing of terms, nor who leads.

use crate::world::World;
use model::command::{AgentCommand, AgentRefusal, EngineSpec};
use model::documents::Role;
use model::observation::{EngineState, ShardObservation};
use model::{Epoch, Generation, NodeUid, ShardUid};
use std::collections::BTreeMap;

/// What an agent answers.
pub(super) type Answer = Result<Option<ShardObservation>, AgentRefusal>;

/// A shard's ledger, as far as orders are judged by it. It is on disk: an agent that starts again has it.
#[derive(Clone, Debug)]
pub(super) struct Ledger {
    generation: Generation,
    pub(super) epoch: Epoch,
    prepared: Epoch,
    settled: Epoch,
    role: Option<(Role, Epoch, String)>,
}

/// All agents.
#[derive(Debug, Default)]
pub(super) struct Agents {
    ledgers: BTreeMap<(NodeUid, ShardUid), Ledger>,
    /// Shards that were removed, and at which generation.
    removed: BTreeMap<(NodeUid, ShardUid), Generation>,
    /// A bug: orders of epochs that are over are carried out.
    pub(super) forget_epochs: bool,
}

fn stale<T>(reason: impl Into<String>) -> Result<T, AgentRefusal> {
    let reason = reason.into();
    Err(AgentRefusal::Stale { reason })
}

fn not_yet<T>(reason: impl Into<String>) -> Result<T, AgentRefusal> {
    let reason = reason.into();
    Err(AgentRefusal::NotYet { reason })
}

impl Agents {
    /// What they must have written down for the world to be as it is.
    pub(super) fn of(world: &World) -> Self {
        let mut agents = Self::default();
        for (node, seen) in &world.nodes {
            for shard in &seen.shards {
                let role = shard.role.zip(shard.epoch).zip(shard.run_id.clone());
                let ledger = Ledger {
                    generation: shard.generation,
                    epoch: shard.epoch.unwrap_or_default(),
                    prepared: Epoch(0),
                    settled: Epoch(0),
                    role: role.map(|((role, epoch), run_id)| (role, epoch, run_id)),
                };
                agents.ledgers.insert((*node, shard.shard), ledger);
            }
        }
        agents
    }

    /// Carries an order out, or refuses it.
    pub(super) fn obey(
        &mut self,
        world: &mut World,
        node: NodeUid,
        shard: ShardUid,
        command: AgentCommand,
    ) -> Answer {
        match command {
            AgentCommand::EnsureEngine(spec) => self.ensure(world, node, spec)?,
            AgentCommand::RemoveEngine { generation, .. } => {
                return self.remove(world, (node, shard), generation);
            }
            _ if !self.ledgers.contains_key(&(node, shard)) => {
                return not_yet(format!("this node has no shard {shard}"));
            }
            AgentCommand::KillEngine {
                generation, run_id, ..
            } => {
                let known = self.ledger(node, shard)?.generation;
                if generation < known {
                    return stale(format!("generation {known} is known"));
                }
                if world.run_id(shard).as_ref() == Some(&run_id) {
                    world.crash(shard);
                }
            }
            role => self.role(world, (node, shard), role)?,
        }
        Ok(world.shard_seen(shard).cloned())
    }

    fn ledger(&mut self, node: NodeUid, shard: ShardUid) -> Result<&mut Ledger, AgentRefusal> {
        match self.ledgers.get_mut(&(node, shard)) {
            Some(ledger) => Ok(ledger),
            None => not_yet("it was never started here"),
        }
    }

    fn ensure(
        &mut self,
        world: &mut World,
        node: NodeUid,
        spec: EngineSpec,
    ) -> Result<(), AgentRefusal> {
        let at = (node, spec.shard);
        if let Some(known) = self.removed.get(&at)
            && spec.generation <= *known
        {
            return stale(format!("removed at generation {known}"));
        }
        if let Some(ledger) = self.ledgers.get(&at)
            && spec.generation < ledger.generation
        {
            return stale(format!("generation {} is known", ledger.generation));
        }
        let new = Ledger {
            generation: spec.generation,
            epoch: Epoch(0),
            prepared: Epoch(0),
            settled: Epoch(0),
            role: None,
        };
        let ledger = self.ledgers.entry(at).or_insert(new);
        ledger.generation = spec.generation;
        world.starts(node, spec);
        Ok(())
    }

    fn remove(
        &mut self,
        world: &mut World,
        at: (NodeUid, ShardUid),
        generation: Generation,
    ) -> Answer {
        if let Some(ledger) = self.ledgers.get(&at)
            && generation < ledger.generation
        {
            return stale(format!("generation {} is known", ledger.generation));
        }
        let known = self.removed.entry(at).or_insert(generation);
        *known = (*known).max(generation);
        if self.ledgers.remove(&at).is_some() {
            let shards = &mut world.nodes.get_mut(&at.0).unwrap().shards;
            shards.retain(|seen| seen.shard != at.1);
        }
        Ok(None)
    }

    fn role(
        &mut self,
        world: &mut World,
        at: (NodeUid, ShardUid),
        command: AgentCommand,
    ) -> Result<(), AgentRefusal> {
        let shard = at.1;
        match command {
            AgentCommand::MakePrimary {
                generation,
                run_id,
                epoch,
                ..
            } => {
                self.check_promotion(world, at, (generation, &run_id, epoch))?;
                self.becomes_primary(world, at, (run_id, epoch))
            }
            AgentCommand::Promote {
                generation,
                run_id,
                epoch,
                record,
                ..
            } => {
                self.check_promotion(world, at, (generation, &run_id, epoch))?;
                if !self.has_role(at, Role::Primary, epoch, &run_id)
                    && !world.holds_what_was_recorded(shard, &record)
                {
                    let reason = "it is not promoted: other data".to_owned();
                    return Err(AgentRefusal::Failed { reason });
                }
                self.becomes_primary(world, at, (run_id, epoch))
            }
            AgentCommand::Keep {
                generation,
                run_id,
                epoch,
                user,
                ..
            } => {
                self.check_order(world, at, generation, &run_id)?;
                self.check_epoch(at, epoch)?;
                world.keeps(shard, epoch, user).map_or(Ok(()), not_yet)
            }
            AgentCommand::Follow { .. } => self.follow(world, at, command),
            AgentCommand::Configure { generation, .. } => {
                let known = self.ledger(at.0, shard)?.generation;
                match generation.cmp(&known) {
                    std::cmp::Ordering::Less => stale("an older generation"),
                    std::cmp::Ordering::Greater => not_yet("a newer generation"),
                    std::cmp::Ordering::Equal => Ok(()),
                }
            }
            other => self.moves(world, at, other),
        }
    }

    fn follow(
        &mut self,
        world: &mut World,
        at: (NodeUid, ShardUid),
        command: AgentCommand,
    ) -> Result<(), AgentRefusal> {
        let AgentCommand::Follow {
            generation,
            run_id,
            epoch,
            primary,
            ..
        } = command
        else {
            return not_yet("no order to follow");
        };
        self.check_order(world, at, generation, &run_id)?;
        self.check_epoch(at, epoch)?;
        let lax = self.forget_epochs;
        let ledger = self.ledger(at.0, at.1)?;
        let was_primary = |role: &(Role, Epoch, String)| role.0 == Role::Primary && role.1 == epoch;
        if !lax && ledger.role.as_ref().is_some_and(was_primary) {
            return stale(format!("in epoch {epoch} it was primary itself"));
        }
        if !world.is_at_rest(at.1) {
            return not_yet("it is handing its role over");
        }
        ledger.epoch = ledger.epoch.max(epoch);
        ledger.role = Some((Role::Replica, epoch, run_id));
        world.follows(at.1, epoch, &primary);
        Ok(())
    }

    /// Orders of moves.
    fn moves(
        &mut self,
        world: &mut World,
        at: (NodeUid, ShardUid),
        command: AgentCommand,
    ) -> Result<(), AgentRefusal> {
        let shard = at.1;
        match command {
            AgentCommand::PrepareEpoch {
                generation,
                run_id,
                epoch,
                ..
            } => {
                self.check_order(world, at, generation, &run_id)?;
                self.check_epoch(at, epoch)?;
                self.check_unsettled(at, epoch)?;
                match world.shard_seen(shard).and_then(|seen| seen.epoch) {
                    None => return not_yet("it has no role yet"),
                    Some(has) if has >= epoch => return stale("its role is of a later epoch"),
                    Some(_) => {}
                }
                let ledger = self.ledger(at.0, shard)?;
                ledger.prepared = ledger.prepared.max(epoch);
                Ok(())
            }
            AgentCommand::HandOver { .. } => self.hand_over(world, at, command),
            AgentCommand::TakeOver {
                generation,
                run_id,
                epoch,
                ..
            } => {
                self.check_promotion(world, at, (generation, &run_id, epoch))?;
                if !world.calls_itself_primary(shard) {
                    return not_yet("it is no primary");
                }
                let ledger = self.ledger(at.0, shard)?;
                ledger.epoch = epoch;
                ledger.role = Some((Role::Primary, epoch, run_id));
                world.take_over(shard, epoch);
                Ok(())
            }
            AgentCommand::SettleMove { epoch, .. } => {
                let ledger = self.ledger(at.0, shard)?;
                ledger.settled = ledger.settled.max(epoch);
                if world.hung.contains(&shard) {
                    return not_yet("the engine does not answer");
                }
                self.resolve(world, at);
                Ok(())
            }
            AgentCommand::AbortHandOver {
                generation, run_id, ..
            } => {
                self.check_order(world, at, generation, &run_id)?;
                world.aborts(shard);
                self.resolve(world, at);
                Ok(())
            }
            AgentCommand::PressAcks { .. } => Ok(()),
            other => panic!("nobody orders this yet: {other:?}"),
        }
    }

    fn hand_over(
        &mut self,
        world: &mut World,
        at: (NodeUid, ShardUid),
        command: AgentCommand,
    ) -> Result<(), AgentRefusal> {
        let AgentCommand::HandOver {
            generation,
            run_id,
            epoch,
            target,
            ..
        } = command
        else {
            return not_yet("no order to hand over");
        };
        let failed = |reason: &str| {
            let reason = reason.to_owned();
            Err(AgentRefusal::Failed { reason })
        };
        self.check_order(world, at, generation, &run_id)?;
        if self.has_role(at, Role::Replica, epoch, &run_id) {
            return Ok(());
        }
        self.check_epoch(at, epoch)?;
        self.check_unsettled(at, epoch)?;
        let seen = world.shard_seen(at.1);
        match seen.and_then(|seen| seen.role.zip(seen.epoch)) {
            Some((Role::Primary, has)) if has < epoch => {}
            Some(_) => return stale("there is nothing to hand over"),
            None => return not_yet("it has no role that it could hand over"),
        }
        if self.ledger(at.0, at.1)?.prepared != epoch {
            return not_yet(format!("users of epoch {epoch} were not made here"));
        }
        if !world.is_at_rest(at.1) {
            return failed("another FAILOVER is under way");
        }
        if !world.hands_over_to(at.1, &target, epoch) {
            return failed("the engine gave up and is primary as before");
        }
        let ledger = self.ledger(at.0, at.1)?;
        ledger.epoch = ledger.epoch.max(epoch);
        ledger.role = Some((Role::Replica, epoch, run_id));
        Ok(())
    }

    /// Brings a ledger up to what became of a handing over.
    pub(super) fn resolve(&mut self, world: &mut World, at: (NodeUid, ShardUid)) {
        let Some(ledger) = self.ledgers.get_mut(&at) else {
            return;
        };
        let Some(seen) = world.shard_seen(at.1) else {
            return;
        };
        let completed = seen
            .replication
            .as_ref()
            .is_some_and(|r| !r.is_primary && r.failover_state.is_empty() && r.link_up);
        let may = matches!(&ledger.role, Some((Role::Primary, epoch, run_id))
            if *epoch < ledger.prepared && seen.run_id.as_ref() == Some(run_id));
        if completed && may {
            let epoch = ledger.prepared;
            ledger.epoch = ledger.epoch.max(epoch);
            ledger.role = seen
                .run_id
                .clone()
                .map(|run_id| (Role::Replica, epoch, run_id));
            let seen = world.seen(at.1);
            (seen.role, seen.epoch) = (Some(Role::Replica), Some(epoch));
        }
    }

    fn becomes_primary(
        &mut self,
        world: &mut World,
        at: (NodeUid, ShardUid),
        (run_id, epoch): (String, Epoch),
    ) -> Result<(), AgentRefusal> {
        let ledger = self.ledger(at.0, at.1)?;
        ledger.epoch = epoch;
        ledger.role = Some((Role::Primary, epoch, run_id));
        world.becomes_primary(at.1, epoch);
        Ok(())
    }

    fn has_role(&self, at: (NodeUid, ShardUid), role: Role, epoch: Epoch, run_id: &str) -> bool {
        let given = self
            .ledgers
            .get(&at)
            .and_then(|ledger| ledger.role.as_ref());
        given.is_some_and(|given| given.0 == role && given.1 == epoch && given.2 == run_id)
    }

    fn check_order(
        &mut self,
        world: &World,
        (node, shard): (NodeUid, ShardUid),
        generation: Generation,
        run_id: &str,
    ) -> Result<(), AgentRefusal> {
        let known = self.ledger(node, shard)?.generation;
        if generation < known {
            return stale(format!("generation {known} is known"));
        }
        if generation > known {
            return not_yet(format!("generation {generation} was not ordered yet"));
        }
        let running = world
            .shard_seen(shard)
            .filter(|seen| seen.state == EngineState::Running);
        match running.and_then(|seen| seen.run_id.as_deref()) {
            Some(running) if running != run_id => {
                stale(format!("process {running} runs, {run_id} was meant"))
            }
            Some(_) if world.hung.contains(&shard) => not_yet("the engine does not answer"),
            Some(_) => Ok(()),
            None => not_yet("the engine does not run"),
        }
    }

    fn check_epoch(
        &mut self,
        (node, shard): (NodeUid, ShardUid),
        epoch: Epoch,
    ) -> Result<(), AgentRefusal> {
        let lax = self.forget_epochs;
        let known = self.ledger(node, shard)?.epoch;
        if epoch < known && !lax {
            return stale(format!("epoch {known} is known, {epoch} was ordered"));
        }
        Ok(())
    }

    fn check_unsettled(
        &mut self,
        (node, shard): (NodeUid, ShardUid),
        epoch: Epoch,
    ) -> Result<(), AgentRefusal> {
        let lax = self.forget_epochs;
        let settled = self.ledger(node, shard)?.settled;
        if epoch <= settled && !lax {
            return stale(format!("moves up to epoch {settled} are settled"));
        }
        Ok(())
    }

    fn check_promotion(
        &mut self,
        world: &World,
        at: (NodeUid, ShardUid),
        (generation, run_id, epoch): (Generation, &str, Epoch),
    ) -> Result<(), AgentRefusal> {
        let lax = self.forget_epochs;
        let ledger = self.ledger(at.0, at.1)?;
        let role = ledger.role.clone();
        if generation == ledger.generation {
            self.check_epoch(at, epoch)?;
            if let Some((role, of, process)) = role
                && of == epoch
                && !lax
            {
                if role == Role::Replica {
                    return stale(format!("in epoch {epoch} it is a replica"));
                }
                if process != run_id {
                    return stale(format!("epoch {epoch} was given to process {process}"));
                }
            }
        }
        self.check_order(world, at, generation, run_id)
    }
}
