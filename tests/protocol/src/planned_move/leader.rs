//! What leaders do, line by line.

use super::{
    Action, Engine, FORMER, Gate, HandOver, LEADER, Leader, Line, OldState, PlannedMove, State,
    TargetState, Wrong,
};
use controller::switchover::recovery::{self, OldPrimary, Recovery, Target};

pub(super) fn actions(model: &PlannedMove, state: &State, actions: &mut Vec<Action>) {
    actions.extend([
        Action::StoreIntent,
        Action::Lock,
        Action::BeginGates,
        Action::Commit,
        Action::Undo,
        Action::UndoUnheard,
        Action::SeeFollows,
        Action::ServeUnheard,
        Action::HearOld,
        Action::GiveRole,
        Action::Promote(Engine::Old),
        Action::Promote(Engine::Target),
        Action::Follow,
    ]);
    if state.begun {
        actions.push(Action::LeaderReplaced);
    }
    if model.rules.demote_stray {
        actions.push(Action::Demote);
    }
    for former in [false, true] {
        if former && state.former.is_none() {
            continue;
        }
        actions.extend([
            Action::GatesDone { former },
            Action::OrderFailover { former },
            Action::SeeCompleted { former },
            Action::Abort { former },
            Action::KillTarget { former },
        ]);
        for flag in [false, true] {
            actions.extend([
                Action::AskOld {
                    former,
                    heard: flag,
                },
                Action::AskTarget {
                    former,
                    heard: flag,
                },
                Action::Decide {
                    former,
                    deadline_passed: flag,
                },
            ]);
        }
        for proxy in 0..state.proxies.len() {
            actions.extend([
                Action::OrderGate { former, proxy },
                Action::AnswerGate { former, proxy },
                Action::Release { former, proxy },
            ]);
        }
    }
    for proxy in 0..state.proxies.len() {
        actions.push(Action::TellGeneration { proxy });
        if !model.rules.undo_committed_first {
            actions.push(Action::OpenEarly { proxy });
        }
    }
}

const fn generation(former: bool) -> u8 {
    if former { FORMER } else { LEADER }
}

/// Carries out a step of a leader; `false`: it is nobody's of these. A step that cannot be taken changes
/// nothing.
pub(super) fn apply(model: &PlannedMove, state: &mut State, action: Action) -> bool {
    match action {
        Action::StoreIntent => store_intent(state),
        Action::Lock => lock(model, state),
        Action::BeginGates => begin_gates(model, state),
        Action::OrderGate { former, proxy } => order_gate(model, state, former, proxy),
        Action::AnswerGate { former, proxy } => answer_gate(model, state, former, proxy),
        Action::GatesDone { former } => gates_done(model, state, former),
        Action::OrderFailover { former } => order_failover(model, state, former),
        Action::SeeCompleted { former } => see_completed(model, state, former),
        Action::Release { former, proxy } => release(model, state, former, proxy),
        Action::Commit => commit(state),
        Action::LeaderReplaced => replace(state),
        Action::AskOld { former, heard } => ask_old(model, state, former, heard),
        Action::AskTarget { former, heard } => ask_target(model, state, former, heard),
        Action::Decide {
            former,
            deadline_passed,
        } => decide(model, state, former, deadline_passed),
        Action::TellGeneration { proxy } => tell_generation(state, proxy),
        Action::Abort { former } => abort(model, state, former),
        Action::KillTarget { former } => kill_target(model, state, former),
        Action::OpenEarly { proxy } => {
            if state.leader.line == Line::Acting(Recovery::Undo) {
                open(state, proxy, 2, Engine::Old, LEADER);
            }
        }
        Action::Undo => undo(state),
        Action::UndoUnheard => undo_unheard(state),
        Action::SeeFollows => see_follows(model, state),
        Action::ServeUnheard => serve_unheard(state),
        Action::HearOld => hear_old(model, state),
        Action::GiveRole => give_role(model, state),
        Action::Promote(engine) => promote(model, state, engine),
        Action::Demote => demote(state),
        Action::Follow => follow(state),
        _ => return false,
    }
    true
}

fn store_intent(state: &mut State) {
    let ready = state.old == OldState::Primary && state.target == TargetState::Follows;
    if state.leader.line == Line::Idle && !state.begun && ready {
        state.begun = true;
        state.intent = true;
        state.leader_heard = true;
        state.leader.line = Line::Locking;
    }
}

/// Whether an agent takes an order of this generation; it keeps the highest.
fn obeys(model: &PlannedMove, state: &mut State, engine: Engine, generation: u8) -> bool {
    let known = &mut state.agents[engine as usize];
    if model.rules.generations && *known > generation {
        return false;
    }
    *known = (*known).max(generation);
    true
}

fn lock(model: &PlannedMove, state: &mut State) {
    let asks = match state.leader.line {
        Line::Locking => model.rules.promises_waited,
        Line::Ordering | Line::Acting(Recovery::Failover { .. }) => true,
        _ => false,
    };
    if asks && obeys(model, state, Engine::Target, LEADER) {
        state.locked = true;
    }
}

fn begin_gates(model: &PlannedMove, state: &mut State) {
    let quiet = state.locked && state.proxies.iter().all(|proxy| !proxy.promised);
    if state.leader.line == Line::Locking && (quiet || !model.rules.promises_waited) {
        state.leader.line = Line::Gating;
    }
}

fn order_gate(model: &PlannedMove, state: &mut State, former: bool, proxy: usize) {
    let orders = matches!(
        state.line(former),
        Some(Line::Gating | Line::Acting(Recovery::Failover { .. }))
    );
    let mine = generation(former);
    let proxy = &mut state.proxies[proxy];
    // A gate names the epoch before the move; a proxy that serves a later one refuses it. Closed there, it would stay so
    // if the next leader finds the move complete: gates open under a higher epoch only.
    if orders && proxy.epoch == 0 && (!model.rules.generations || proxy.generation <= mine) {
        proxy.generation = proxy.generation.max(mine);
        proxy.gate = Gate::Closed;
    }
}

fn answer_gate(model: &PlannedMove, state: &mut State, former: bool, proxy: usize) {
    let mine = generation(former);
    let line = state.line(former);
    let failover = matches!(line, Some(Line::Acting(Recovery::Failover { .. })));
    let proxy = &mut state.proxies[proxy];
    if !(failover || line == Some(Line::Gating)) || proxy.gate == Gate::Open {
        return;
    }
    if proxy.generation != mine {
        return;
    }
    if failover {
        // What is in flight to an engine that is lost will not be waited for: its outcome is unknown.
        proxy.in_flight = None;
    }
    if proxy.in_flight.is_none() || !model.rules.gate_drains {
        proxy.answered |= 1 << mine;
    }
}

fn gates_done(model: &PlannedMove, state: &mut State, former: bool) {
    let bit = 1 << generation(former);
    let answered = |p: &super::Proxy| p.answered & bit != 0 || !p.lease;
    let done = state.proxies.iter().all(answered) || !model.rules.gates_answered;
    if state.line(former) == Some(Line::Gating) && done {
        state.set_line(former, Line::Ordering);
    }
}

fn order_failover(model: &PlannedMove, state: &mut State, former: bool) {
    if state.line(former) != Some(Line::Ordering) || !state.locked {
        return;
    }
    if obeys(model, state, Engine::Old, generation(former)) {
        if state.old == OldState::Primary {
            state.old = OldState::Waiting;
        }
        state.set_line(former, Line::Watching);
    }
}

fn see_completed(model: &PlannedMove, state: &mut State, former: bool) {
    let followed = state.old == OldState::Follows || !model.rules.both_complete;
    let complete = state.target == TargetState::Primary && followed;
    if state.line(former) == Some(Line::Watching) && complete {
        state.set_line(former, Line::Completed);
    }
}

fn release(model: &PlannedMove, state: &mut State, former: bool, proxy: usize) {
    let mine = generation(former);
    let known = state.proxies[proxy].generation;
    if model.rules.generations && known > mine {
        return;
    }
    match state.line(former) {
        Some(Line::Completed) => open(state, proxy, 1, Engine::Target, mine),
        Some(Line::Opening) if !former && state.serving => {
            let (epoch, primary) = (state.epoch, state.primary);
            open(state, proxy, epoch, primary, mine);
        }
        _ => {}
    }
}

/// Opens a proxy's gate under a higher epoch than its own.
pub(super) fn open(state: &mut State, proxy: usize, epoch: u8, engine: Engine, generation: u8) {
    if state.proxies[proxy].epoch >= epoch {
        return;
    }
    // Opened under an epoch that is over already: nobody answers there without a lease.
    let outdated = epoch < state.opened().0.max(state.epoch);
    let lacks = state.acknowledged & !state.excused & !state.data_of(engine);
    if lacks != 0 && !outdated {
        state.wrong = Some(Wrong::Lost);
    }
    let proxy = &mut state.proxies[proxy];
    proxy.epoch = epoch;
    proxy.engine = engine;
    proxy.gate = Gate::Open;
    // A promise is for one epoch.
    proxy.promised = false;
    proxy.generation = proxy.generation.max(generation);
}

fn commit(state: &mut State) {
    let may = matches!(state.leader.line, Line::Completed | Line::Committing);
    if may && state.intent {
        state.epoch = 1;
        state.primary = Engine::Target;
        state.intent = false;
        state.leader.line = Line::Opening;
    }
}

/// Another leader, or the same one that gives up and begins anew: either way under a new generation.
fn replace(state: &mut State) {
    let line = if state.intent {
        Line::Looking(None, None)
    } else {
        Line::Opening
    };
    if state.leader.line == line && state.former.is_none() {
        return;
    }
    state.former = Some(state.leader);
    state.leader = Leader { line };
    for agent in &mut state.agents {
        *agent = agent.saturating_sub(1);
    }
    for proxy in &mut state.proxies {
        proxy.generation = proxy.generation.saturating_sub(1);
        proxy.answered = (proxy.answered >> 1) & (1 << FORMER);
    }
}

fn ask_old(model: &PlannedMove, state: &mut State, former: bool, heard: bool) {
    let Some(Line::Looking(None, target)) = state.line(former) else {
        return;
    };
    let old = if !heard {
        OldPrimary::Unreachable
    } else if obeys(model, state, Engine::Old, generation(former)) {
        match state.old {
            OldState::Primary => OldPrimary::Primary,
            OldState::Waiting => OldPrimary::WaitingForSync,
            OldState::InProgress => OldPrimary::InProgress,
            OldState::Follows => OldPrimary::Completed,
            OldState::Gone => OldPrimary::Gone,
        }
    } else {
        return;
    };
    state.set_line(former, Line::Looking(Some(old), target));
}

fn ask_target(model: &PlannedMove, state: &mut State, former: bool, heard: bool) {
    let Some(Line::Looking(old, None)) = state.line(former) else {
        return;
    };
    let target = if !heard {
        Target::Unreachable
    } else if obeys(model, state, Engine::Target, generation(former)) {
        match state.target {
            TargetState::Follows => Target::Replica,
            TargetState::Primary => Target::Primary,
            TargetState::Gone => Target::Gone,
        }
    } else {
        return;
    };
    state.set_line(former, Line::Looking(old, Some(target)));
}

fn decide(model: &PlannedMove, state: &mut State, former: bool, deadline_passed: bool) {
    let Some(Line::Looking(Some(old), Some(target))) = state.line(former) else {
        return;
    };
    let recovery = if model.rules.old_decides {
        recovery::decide(old, target, deadline_passed)
    } else if target == Target::Primary {
        Recovery::Forward {
            gates_may_open_first: true,
        }
    } else {
        Recovery::Undo
    };
    let line = match recovery {
        Recovery::Forward {
            gates_may_open_first,
        } => {
            if gates_may_open_first || !model.rules.unseen_committed_first {
                Line::Completed
            } else {
                Line::Committing
            }
        }
        Recovery::Poll => Line::Looking(None, None),
        other => Line::Acting(other),
    };
    state.set_line(former, line);
}

fn tell_generation(state: &mut State, proxy: usize) {
    let recovering = matches!(state.leader.line, Line::Looking(..) | Line::Acting(_));
    if recovering && state.intent {
        let proxy = &mut state.proxies[proxy];
        proxy.generation = LEADER;
        if proxy.epoch == 0 {
            proxy.gate = Gate::Closed;
        }
    }
}

fn abort(model: &PlannedMove, state: &mut State, former: bool) {
    let aborting = matches!(
        state.line(former),
        Some(Line::Acting(Recovery::Abort | Recovery::KillTargetAndAbort))
    );
    if aborting && obeys(model, state, Engine::Old, generation(former)) {
        if matches!(state.old, OldState::Waiting | OldState::InProgress) {
            state.old = OldState::Primary;
        }
        state.set_line(former, Line::Looking(None, None));
    }
}

fn kill_target(model: &PlannedMove, state: &mut State, former: bool) {
    let killing = state.line(former) == Some(Line::Acting(Recovery::KillTargetAndAbort));
    if killing && obeys(model, state, Engine::Target, generation(former)) {
        state.target = TargetState::Gone;
        state.set_line(former, Line::Acting(Recovery::Abort));
    }
}

fn undo(state: &mut State) {
    if state.leader.line == Line::Acting(Recovery::Undo) && state.intent {
        state.epoch = 2;
        state.primary = Engine::Old;
        state.intent = false;
        state.leader.line = Line::Opening;
    }
}

/// Nobody serves in the new epoch: that the old engine may is not known.
fn undo_unheard(state: &mut State) {
    let unheard = Recovery::Failover {
        old_is_candidate: false,
    };
    if state.leader.line == Line::Acting(unheard) && state.intent {
        state.epoch = 2;
        state.primary = Engine::Old;
        state.intent = false;
        state.serving = false;
        state.leader.line = Line::Fencing(false);
    }
}

fn see_follows(model: &PlannedMove, state: &mut State) {
    let fenced = state.proxies.iter().all(|proxy| !proxy.lease);
    let follows = state.target == TargetState::Follows
        && matches!(state.old, OldState::Primary | OldState::Waiting);
    if state.leader.line == Line::Fencing(false)
        && follows
        && (fenced || !model.rules.unheard_fenced)
    {
        state.leader.line = Line::Fencing(true);
    }
}

fn serve_unheard(state: &mut State) {
    if state.leader.line == Line::Fencing(true) {
        state.serving = true;
        state.leader.line = Line::Opening;
    }
}

/// A leader that finds a primary which does not serve waits for its agent: a hand-over that is still under way there is
/// given up, and an engine that has not demoted itself opened no gate of the move's epoch.
fn hear_old(model: &PlannedMove, state: &mut State) {
    let waits = state.leader.line == Line::Opening && !state.serving && !state.intent;
    if !waits || !obeys(model, state, Engine::Old, LEADER) {
        return;
    }
    match state.old {
        OldState::Primary => state.serving = true,
        OldState::Waiting | OldState::InProgress => state.old = OldState::Primary,
        OldState::Follows | OldState::Gone => {}
    }
}

/// A primary that serves and was never given the role of its epoch gets it as soon as its agent is heard: an order to
/// hand over that came late, of the move that was undone without that agent, is taken back by it.
fn give_role(model: &PlannedMove, state: &mut State) {
    let serves = state.serving && !state.intent && state.epoch == 2 && state.primary == Engine::Old;
    if serves && state.old != OldState::Gone && obeys(model, state, Engine::Old, LEADER) {
        state.old = OldState::Primary;
    }
}

fn promote(model: &PlannedMove, state: &mut State, engine: Engine) {
    let Line::Acting(Recovery::Failover { old_is_candidate }) = state.leader.line else {
        return;
    };
    let candidate = (engine == Engine::Old) == old_is_candidate && !state.is_gone(engine);
    // Promises are the node's, whatever became of the process that asked: an answered gate ends none.
    let fenced = |p: &super::Proxy| {
        (p.answered & (1 << LEADER) != 0 || !p.lease) && !p.promised && state.locked
    };
    let waited = state.proxies.iter().all(fenced) || !model.rules.failover_waits;
    if !candidate || !waited || !state.intent || !obeys(model, state, engine, LEADER) {
        return;
    }
    match engine {
        Engine::Old => state.old = OldState::Primary,
        Engine::Target => state.target = TargetState::Primary,
    }
    state.excused |= state.acknowledged & !state.data_of(engine);
    state.epoch = 2;
    state.primary = engine;
    state.intent = false;
    state.leader.line = Line::Opening;
}

fn demote(state: &mut State) {
    // Nothing is ordered of either engine before it is known whether the old one may serve.
    let stray = state.serving && !state.intent && state.epoch == 2 && state.primary == Engine::Old;
    if stray && state.target == TargetState::Primary {
        state.target = TargetState::Follows;
        state.data[1] = state.data[0];
    }
}

fn follow(state: &mut State) {
    let moved = state.epoch > 0 && !state.intent && state.primary == Engine::Target;
    if moved && !matches!(state.old, OldState::Gone | OldState::Follows) {
        state.old = OldState::Follows;
        state.data[0] = state.data[1];
        state.hand_over = HandOver::None;
    }
}
