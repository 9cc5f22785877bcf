//! What proxies and their clients do.

use super::leader::open;
use super::{
    Action, Engine, Gate, InFlight, Line, OldState, PlannedMove, State, TargetState, Wrong,
};
use model::lease::{Moment, Validity, may_answer, may_grant, may_send};
use model::{Epoch, Revision};

pub(super) fn actions(model: &PlannedMove, state: &State, actions: &mut Vec<Action>) {
    actions.push(Action::LeaderNotHeard);
    for proxy in 0..state.proxies.len() {
        actions.extend([
            Action::CarryOut { proxy },
            Action::Refused { proxy },
            Action::Answer { proxy },
            Action::ConnectionLost { proxy },
            Action::Read { proxy },
            Action::LeaseEnds { proxy },
            Action::Renew { proxy },
            Action::AskPromises { proxy },
            Action::PromisesEnd { proxy },
            Action::LearnConfiguration { proxy },
        ]);
        if state.writes < model.bounds.writes {
            actions.push(Action::Send { proxy });
        }
        if state.restarts < model.bounds.restarts {
            actions.push(Action::RestartProxy { proxy });
        }
        if !model.rules.no_lifting {
            actions.push(Action::LiftGate { proxy });
        }
    }
}

/// Carries out a step of a proxy; `false`: it is none of these.
pub(super) fn apply(model: &PlannedMove, state: &mut State, action: Action) -> bool {
    match action {
        Action::Send { proxy } => send(state, proxy),
        Action::CarryOut { proxy } => carry_out(state, proxy),
        Action::Refused { proxy } => refused(state, proxy),
        Action::Answer { proxy } => answer(state, proxy),
        Action::ConnectionLost { proxy } => state.proxies[proxy].in_flight = None,
        Action::Read { proxy } => read(state, proxy),
        Action::LeaseEnds { proxy } => state.proxies[proxy].lease = false,
        Action::Renew { proxy } => renew(model, state, proxy),
        Action::AskPromises { proxy } => ask_promises(state, proxy),
        Action::PromisesEnd { proxy } => state.proxies[proxy].promised = false,
        Action::LiftGate { proxy } => state.proxies[proxy].gate = Gate::Open,
        Action::RestartProxy { proxy } => restart(state, proxy),
        Action::LearnConfiguration { proxy } if state.serving => {
            let (epoch, primary) = (state.epoch, state.primary);
            open(state, proxy, epoch, primary, 0);
        }
        Action::LearnConfiguration { .. } => {}
        Action::LeaderNotHeard => state.leader_heard = false,
        _ => return false,
    }
    true
}

const NOW: Moment = Moment(0);

fn validity(state: &State, proxy: usize) -> Validity {
    let proxy = &state.proxies[proxy];
    Validity::Until(Moment(u64::from(proxy.lease || proxy.promised)))
}

fn send(state: &mut State, proxy: usize) {
    let valid = validity(state, proxy);
    let write = 1 << state.writes;
    let sender = &mut state.proxies[proxy];
    let gated = sender.gate == Gate::Closed;
    if may_send(NOW, valid, gated) && sender.in_flight.is_none() {
        sender.in_flight = Some(InFlight {
            write,
            epoch: sender.epoch,
            engine: sender.engine,
            done: false,
        });
        state.writes += 1;
    }
}

fn carry_out(state: &mut State, proxy: usize) {
    let Some(flight) = state.proxies[proxy].in_flight.filter(|flight| !flight.done) else {
        return;
    };
    if state.takes_writes(flight.engine) {
        state.data[flight.engine as usize] |= flight.write;
        state.proxies[proxy].in_flight = Some(InFlight {
            done: true,
            ..flight
        });
    }
}

/// The engine says that it takes no writes: the command did not run.
fn refused(state: &mut State, proxy: usize) {
    let Some(flight) = state.proxies[proxy].in_flight.filter(|flight| !flight.done) else {
        return;
    };
    let holds = flight.engine == Engine::Old && state.old == OldState::Waiting;
    if !state.takes_writes(flight.engine) && !holds {
        state.proxies[proxy].in_flight = None;
    }
}

fn answer(state: &mut State, proxy: usize) {
    let valid = validity(state, proxy);
    let reader = &mut state.proxies[proxy];
    let Some(flight) = reader.in_flight.filter(|flight| flight.done) else {
        return;
    };
    reader.in_flight = None;
    let (connection, current) = (Epoch(flight.epoch.into()), Epoch(reader.epoch.into()));
    if !may_answer(NOW, valid, connection, current, false) {
        return;
    }
    state.acknowledged |= flight.write;
    let (epoch, engine) = match state.serving {
        true => state.opened().max((state.epoch, state.primary)),
        false => state.opened(),
    };
    if epoch > flight.epoch && state.data_of(engine) & flight.write == 0 {
        state.wrong = Some(Wrong::LateAcknowledgement);
    }
}

/// Sent and answered in one moment, so whatever was acknowledged before must be seen.
fn read(state: &mut State, proxy: usize) {
    let valid = validity(state, proxy);
    let reader = &state.proxies[proxy];
    let answers = match reader.engine {
        Engine::Old => !matches!(state.old, OldState::InProgress | OldState::Gone),
        Engine::Target => state.target != TargetState::Gone,
    };
    if !may_send(NOW, valid, reader.gate == Gate::Closed) || !answers {
        return;
    }
    let lacks = state.acknowledged & !state.excused & !state.data_of(reader.engine);
    if lacks != 0 {
        state.wrong = Some(Wrong::StaleRead);
    }
}

fn renew(model: &PlannedMove, state: &mut State, proxy: usize) {
    let asking = &state.proxies[proxy];
    let undrained = asking.gate == Gate::Closed && asking.in_flight.is_some();
    let ordered = match (state.intent, state.leader.line) {
        (false, _) => asking.epoch < state.epoch,
        (true, Line::Idle | Line::Locking) => false,
        (true, _) => {
            asking.generation < super::LEADER || undrained && model.rules.applied_is_drained
        }
    };
    let behind = ordered && model.rules.refuse_behind_gate;
    let proxy = &mut state.proxies[proxy];
    let granted = may_grant(true, Revision(0), Revision(u64::from(behind))).is_ok();
    proxy.lease |= granted;
}

fn ask_promises(state: &mut State, proxy: usize) {
    let free = !state.leader_heard && !state.locked && state.epoch == 0;
    let proxy = &mut state.proxies[proxy];
    if free && proxy.epoch == 0 {
        proxy.promised = true;
    }
}

/// A new process: it knows the last configuration from its disk, and no gate.
fn restart(state: &mut State, proxy: usize) {
    let proxy = &mut state.proxies[proxy];
    proxy.gate = Gate::Open;
    proxy.generation = 0;
    proxy.lease = false;
    proxy.promised = false;
    proxy.in_flight = None;
    state.restarts += 1;
}
