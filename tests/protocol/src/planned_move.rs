//! A planned move of a primary: gates, the engine's own failover, and what a later leader makes of it.
//!
//! Two engines, two proxies, the present leader and one that was replaced and does not know it: whatever
//! that one still does is what a message does that was under way. Time is left out: a lease ends whenever
//! it likes, and who waits for its end goes on only then (the models `lease` and `promise` show why one
//! may say so). Users of an epoch are never revoked here: nothing below needs it.

mod engine;
mod leader;
mod proxy;

use crate::explore::Healable;
use controller::switchover::recovery::{OldPrimary, Recovery, Target};
use stateright::{Model, Property};

/// The rules; each can be left out.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Rules {
    /// The promotion lock is asked for before the gates are ordered, and the target's promises have ended
    /// by then.
    pub promises_waited: bool,
    /// The engine's failover is asked for only when each proxy has answered its gate or has no lease.
    pub gates_answered: bool,
    /// A gate is answered when nothing of that proxy is in flight any more.
    pub gate_drains: bool,
    /// No lease for a proxy that has not applied a gate that was ordered.
    pub refuse_behind_gate: bool,
    /// A gate counts as applied in a renewal only when it is answered: nothing is in flight any more.
    pub applied_is_drained: bool,
    /// A proxy never lifts a gate by itself.
    pub no_lifting: bool,
    /// Gates open under the new epoch only when both engines say that the move is complete.
    pub both_complete: bool,
    /// A recovery that goes forward without having seen the old primary completed commits before it
    /// opens gates.
    pub unseen_committed_first: bool,
    /// Agents and proxies refuse orders of an earlier leader.
    pub generations: bool,
    /// After an interruption the old primary's engine decides, not the target's.
    pub old_decides: bool,
    /// An undo is committed before any gate opens.
    pub undo_committed_first: bool,
    /// A move that was undone without a word of the old primary's agent: that engine serves only when the target
    /// still followed it after every proxy of an earlier epoch had lost its lease.
    pub unheard_fenced: bool,
    /// A recovery that ends in a failover waits for gates or leases.
    pub failover_waits: bool,
    /// A target that calls itself primary after an undo is demoted when it is seen.
    pub demote_stray: bool,
}

impl Rules {
    /// All of them.
    pub const ALL: Self = Self {
        promises_waited: true,
        gates_answered: true,
        gate_drains: true,
        refuse_behind_gate: true,
        applied_is_drained: true,
        no_lifting: true,
        both_complete: true,
        unseen_committed_first: true,
        generations: true,
        old_decides: true,
        undo_committed_first: true,
        unheard_fenced: true,
        failover_waits: true,
        demote_stray: true,
    };
}

/// How many of each fault there may be.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Bounds {
    /// Ends of an engine's process during the move.
    pub crashes: u8,
    /// New processes of a proxy.
    pub restarts: u8,
    /// Writes of clients.
    pub writes: u8,
    /// Proxies, one or two.
    pub proxies: usize,
}

/// The model.
#[derive(Clone, Copy, Debug)]
pub struct PlannedMove {
    /// What holds.
    pub rules: Rules,
    /// What may happen.
    pub bounds: Bounds,
}

/// One of the two engines.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Engine {
    /// The primary of epoch 0.
    Old,
    /// The one that is to be the primary of epoch 1.
    Target,
}

/// What a gate does.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Gate {
    /// Commands pass.
    Open,
    /// Commands wait.
    Closed,
}

/// A write that left for an engine.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct InFlight {
    /// Its bit in the sets of writes.
    pub write: u8,
    /// Epoch of the connection.
    pub epoch: u8,
    /// The engine.
    pub engine: Engine,
    /// The engine has carried it out; the reply is on its way.
    pub done: bool,
}

/// A proxy.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Proxy {
    /// Epoch that it serves.
    pub epoch: u8,
    /// Engine that it serves.
    pub engine: Engine,
    /// Its gate.
    pub gate: Gate,
    /// Highest generation of a leader that it obeyed.
    pub generation: u8,
    /// Which leaders have its answer that its gate is closed, a bit for each generation.
    pub answered: u8,
    /// It holds a lease of the primary node.
    pub lease: bool,
    /// It holds promises.
    pub promised: bool,
    /// Its only command under way.
    pub in_flight: Option<InFlight>,
}

/// Where a leader is in its work.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Line {
    /// It knows of no move.
    Idle,
    /// The intent is stored; the target's lock is asked for.
    Locking,
    /// Gates are ordered.
    Gating,
    /// Proxies hold; the engine's failover is to be ordered.
    Ordering,
    /// It waits for the engines.
    Watching,
    /// The move is complete: gates open under epoch 1, then it is committed.
    Completed,
    /// The move is to be committed before any gate opens.
    Committing,
    /// It found an intent, and asks both agents.
    Looking(Option<OldPrimary>, Option<Target>),
    /// What it decided.
    Acting(Recovery),
    /// The move is undone, and nobody serves: leases of earlier epochs are waited for, then the target is asked.
    /// Whether it still followed.
    Fencing(bool),
    /// Gates open under the committed epoch.
    Opening,
}

/// A leader, or one that was.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Leader {
    /// Where it is.
    pub line: Line,
}

/// Generation of today's leader. Only the order of generations counts, so they are moved down at each
/// change: leaders may change without end in a space that has one.
pub const LEADER: u8 = 2;
/// Generation of the leader before; 0 is everybody earlier.
pub const FORMER: u8 = 1;

/// State of the old primary's engine.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum OldState {
    /// It takes writes.
    Primary,
    /// It holds writes until the target has all.
    Waiting,
    /// It has demoted itself.
    InProgress,
    /// It follows the target.
    Follows,
    /// Its process ended.
    Gone,
}

/// State of the target's engine.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum TargetState {
    /// It follows the old primary.
    Follows,
    /// It takes writes.
    Primary,
    /// Its process ended.
    Gone,
}

/// The engines' own hand-over, on its way between them.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum HandOver {
    /// None.
    None,
    /// Asked by the old primary.
    Asked,
    /// Accepted by the target; the old primary does not know it yet.
    Accepted,
}

/// Everything.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct State {
    /// Committed epoch.
    pub epoch: u8,
    /// Committed primary.
    pub primary: Engine,
    /// It may be used.
    pub serving: bool,
    /// A move's intent is stored.
    pub intent: bool,
    /// A move was begun; there is only one.
    pub begun: bool,
    /// Today's leader.
    pub leader: Leader,
    /// The one before, which does not know it.
    pub former: Option<Leader>,
    /// Highest generation that each agent obeyed.
    pub agents: [u8; 2],
    /// The target's node promises nothing.
    pub locked: bool,
    /// Both nodes have heard a leader within a lease's length.
    pub leader_heard: bool,
    /// The old primary's engine.
    pub old: OldState,
    /// The target's engine.
    pub target: TargetState,
    /// What is between them.
    pub hand_over: HandOver,
    /// Writes that each engine has.
    pub data: [u8; 2],
    /// The proxies, sorted: which is which does not matter.
    pub proxies: Vec<Proxy>,
    /// Writes sent so far.
    pub writes: u8,
    /// Writes that clients know to be done.
    pub acknowledged: u8,
    /// Writes whose loss is allowed: an engine was lost that alone had them.
    pub excused: u8,
    /// Ends of processes so far.
    pub crashes: u8,
    /// New proxy processes so far.
    pub restarts: u8,
    /// What went wrong.
    pub wrong: Option<Wrong>,
}

/// What must never happen.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Wrong {
    /// A write was acknowledged that the engine that serves a later epoch does not have.
    LateAcknowledgement,
    /// Gates opened at an engine that lacks an acknowledged write, in a move without a loss.
    Lost,
    /// A client read data that lack a write that had been acknowledged before.
    StaleRead,
}

/// One step. `former`: the leader that was replaced does it.
#[derive(Clone, Copy, Debug, PartialEq)]
#[expect(missing_docs, reason = "named for what they do")]
pub enum Action {
    StoreIntent,
    Lock,
    BeginGates,
    OrderGate { former: bool, proxy: usize },
    AnswerGate { former: bool, proxy: usize },
    GatesDone { former: bool },
    OrderFailover { former: bool },
    SeeCompleted { former: bool },
    Release { former: bool, proxy: usize },
    Commit,
    LeaderReplaced,
    AskOld { former: bool, heard: bool },
    AskTarget { former: bool, heard: bool },
    Decide { former: bool, deadline_passed: bool },
    TellGeneration { proxy: usize },
    Abort { former: bool },
    KillTarget { former: bool },
    OpenEarly { proxy: usize },
    Undo,
    UndoUnheard,
    SeeFollows,
    ServeUnheard,
    HearOld,
    GiveRole,
    Promote(Engine),
    Demote,
    Follow,
    Send { proxy: usize },
    CarryOut { proxy: usize },
    Refused { proxy: usize },
    Answer { proxy: usize },
    ConnectionLost { proxy: usize },
    Read { proxy: usize },
    LeaseEnds { proxy: usize },
    Renew { proxy: usize },
    AskPromises { proxy: usize },
    PromisesEnd { proxy: usize },
    LiftGate { proxy: usize },
    RestartProxy { proxy: usize },
    LearnConfiguration { proxy: usize },
    LeaderNotHeard,
    Replicate,
    DemoteItself,
    CatchUpTimeout,
    TargetRejects,
    TargetAccepts,
    OldContinues,
    CrashOld,
    CrashTarget,
}

impl State {
    fn line(&self, former: bool) -> Option<Line> {
        let leader = if former {
            self.former
        } else {
            Some(self.leader)
        };
        leader.map(|leader| leader.line)
    }

    /// Brings what makes no difference any more into one form, so that fewer states differ.
    fn settle(&mut self) {
        let silent = |line: Line| match line {
            Line::Idle | Line::Locking | Line::Committing | Line::Opening | Line::Fencing(_) => {
                true
            }
            Line::Looking(old, target) => old.is_none() || target.is_none(),
            Line::Acting(Recovery::Undo | Recovery::Failover { .. }) => true,
            _ => false,
        };
        self.former = self.former.filter(|former| !silent(former.line));
        let counts =
            |line: Line| matches!(line, Line::Gating | Line::Acting(Recovery::Failover { .. }));
        let mut heeded = 0;
        for (leader, bit) in [(Some(self.leader), LEADER), (self.former, FORMER)] {
            if leader.is_some_and(|leader| counts(leader.line)) {
                heeded |= 1 << bit;
            }
        }
        self.leader_heard &= !self.locked && self.epoch == 0;
        for proxy in &mut self.proxies {
            proxy.answered &= heeded;
            if self.former.is_none() && proxy.generation == FORMER {
                proxy.generation = 0;
            }
        }
        if self.former.is_none() {
            for agent in &mut self.agents {
                if *agent == FORMER {
                    *agent = 0;
                }
            }
        }
        self.proxies.sort_unstable();
    }

    fn set_line(&mut self, former: bool, line: Line) {
        if !former {
            self.leader.line = line;
        } else if let Some(leader) = &mut self.former {
            leader.line = line;
        }
    }

    /// What an engine has.
    #[must_use]
    pub fn data_of(&self, engine: Engine) -> u8 {
        self.data[engine as usize]
    }

    /// The engine of the highest epoch under which a proxy was opened.
    fn opened(&self) -> (u8, Engine) {
        self.proxies
            .iter()
            .map(|proxy| (proxy.epoch, proxy.engine))
            .fold((0, Engine::Old), std::cmp::max)
    }

    /// Whether an engine takes writes.
    #[must_use]
    pub fn takes_writes(&self, engine: Engine) -> bool {
        match engine {
            Engine::Old => self.old == OldState::Primary,
            Engine::Target => self.target == TargetState::Primary,
        }
    }

    fn is_gone(&self, engine: Engine) -> bool {
        match engine {
            Engine::Old => self.old == OldState::Gone,
            Engine::Target => self.target == TargetState::Gone,
        }
    }
}

impl Model for PlannedMove {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let proxy = Proxy {
            epoch: 0,
            engine: Engine::Old,
            gate: Gate::Open,
            generation: 0,
            answered: 0,
            lease: true,
            promised: false,
            in_flight: None,
        };
        vec![State {
            epoch: 0,
            primary: Engine::Old,
            serving: true,
            intent: false,
            begun: false,
            leader: Leader { line: Line::Idle },
            former: None,
            agents: [0; 2],
            locked: false,
            leader_heard: false,
            old: OldState::Primary,
            target: TargetState::Follows,
            hand_over: HandOver::None,
            data: [0; 2],
            proxies: vec![proxy; self.bounds.proxies],
            writes: 0,
            acknowledged: 0,
            excused: 0,
            crashes: 0,
            restarts: 0,
            wrong: None,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.wrong.is_some() {
            return;
        }
        leader::actions(self, state, actions);
        engine::actions(self, state, actions);
        proxy::actions(self, state, actions);
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        let known = leader::apply(self, &mut state, action)
            || engine::apply(&mut state, action)
            || proxy::apply(self, &mut state, action);
        if !known || state == *last {
            return None;
        }
        state.settle();
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(
                "no write is acknowledged that a later primary lacks",
                |_, s: &State| s.wrong != Some(Wrong::LateAcknowledgement),
            ),
            Property::always("a move loses nothing", |_, s: &State| {
                s.wrong != Some(Wrong::Lost)
            }),
            Property::always("nobody reads what is out of date", |_, s: &State| {
                s.wrong != Some(Wrong::StaleRead)
            }),
            Property::sometimes("a move completes under load", |_, s: &State| {
                s.epoch == 1 && s.acknowledged != 0
            }),
            Property::sometimes("a move is undone", |_, s: &State| {
                s.epoch == 2 && s.primary == Engine::Old
            }),
        ]
    }
}

impl Healable for PlannedMove {
    fn is_fault(&self, _: &State, action: &Action) -> bool {
        matches!(
            action,
            Action::TargetRejects
                | Action::AskOld { heard: false, .. }
                | Action::AskTarget { heard: false, .. }
                | Action::Send { .. }
                | Action::Read { .. }
                | Action::AskPromises { .. }
                | Action::LiftGate { .. }
                | Action::RestartProxy { .. }
                | Action::LeaderNotHeard
                | Action::CrashOld
                | Action::CrashTarget
                | Action::OpenEarly { .. }
        ) || matches!(
            action,
            Action::OrderGate { former: true, .. }
                | Action::OrderFailover { former: true }
                | Action::Release { former: true, .. }
                | Action::Abort { former: true }
                | Action::KillTarget { former: true }
        )
    }

    fn is_well(&self, state: &State) -> bool {
        let served = !state.intent
            && state.takes_writes(state.primary)
            && state.proxies.iter().all(|proxy| {
                proxy.epoch == state.epoch
                    && proxy.engine == state.primary
                    && proxy.gate == Gate::Open
                    && proxy.lease
            });
        // Lost once more, after the move, or the move has happened although it was undone unheard: that is the business
        // of an unplanned failover.
        let follows = state.primary == Engine::Old && state.old == OldState::Follows;
        let lost_again =
            !state.intent && (state.is_gone(state.primary) || !state.serving && follows);
        let both_lost = state.old == OldState::Gone && state.target == TargetState::Gone;
        // The other one follows, or is gone and will be replaced.
        let redundant = match state.primary {
            Engine::Old => state.target != TargetState::Primary,
            Engine::Target => matches!(state.old, OldState::Follows | OldState::Gone),
        };
        state.wrong.is_some() || (served && redundant) || lost_again || both_lost
    }
}
