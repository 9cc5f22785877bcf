//! What the engines do by themselves: replication, and the hand-over of `FAILOVER`.

use super::{Action, HandOver, OldState, PlannedMove, State, TargetState};

pub(super) fn actions(model: &PlannedMove, state: &State, actions: &mut Vec<Action>) {
    actions.extend([
        Action::Replicate,
        Action::DemoteItself,
        Action::CatchUpTimeout,
        Action::TargetAccepts,
        Action::TargetRejects,
        Action::OldContinues,
    ]);
    if state.intent && state.crashes < model.bounds.crashes {
        actions.extend([Action::CrashOld, Action::CrashTarget]);
    }
}

/// Carries out a step of an engine; `false`: it is none of these.
pub(super) fn apply(state: &mut State, action: Action) -> bool {
    match action {
        Action::Replicate => replicate(state),
        Action::DemoteItself => {
            let caught_up = state.target == TargetState::Follows && state.data[0] == state.data[1];
            if state.old == OldState::Waiting && caught_up {
                state.old = OldState::InProgress;
                state.hand_over = HandOver::Asked;
            }
        }
        Action::CatchUpTimeout => {
            if state.old == OldState::Waiting {
                state.old = OldState::Primary;
            }
        }
        Action::TargetAccepts => {
            if state.hand_over == HandOver::Asked && state.target == TargetState::Follows {
                state.target = TargetState::Primary;
                state.hand_over = HandOver::Accepted;
            }
        }
        Action::TargetRejects => {
            // A refusal makes the old engine a primary again, whoever is one meanwhile.
            if state.hand_over == HandOver::Asked && state.target != TargetState::Gone {
                state.hand_over = HandOver::None;
                if state.old == OldState::InProgress {
                    state.old = OldState::Primary;
                }
            }
        }
        Action::OldContinues => {
            if state.hand_over == HandOver::Accepted {
                state.hand_over = HandOver::None;
                if state.old == OldState::InProgress {
                    state.old = OldState::Follows;
                }
            }
        }
        Action::CrashOld => {
            if state.old != OldState::Gone {
                state.old = OldState::Gone;
                state.crashes += 1;
            }
        }
        Action::CrashTarget => {
            if state.target != TargetState::Gone {
                state.target = TargetState::Gone;
                state.crashes += 1;
            }
        }
        _ => return false,
    }
    true
}

/// The next write reaches the one that follows.
fn replicate(state: &mut State) {
    let forth = matches!(state.old, OldState::Primary | OldState::Waiting)
        && state.target == TargetState::Follows;
    let back = state.old == OldState::Follows && state.target == TargetState::Primary;
    let (from, to) = match (forth, back) {
        (true, _) => (0, 1),
        (_, true) => (1, 0),
        _ => return,
    };
    let missing = state.data[from] & !state.data[to];
    state.data[to] |= missing & missing.wrapping_neg();
}
