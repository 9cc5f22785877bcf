//! Which fault when: the same seed gives the same steps. The victim's number is drawn here too; who
//! that is depends on who is primary by then.

use super::faults::{Kind, On};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};
use std::time::Duration;

/// Share of the steps that are moves, beside those that are drawn.
const MOVES: f64 = 0.3;

/// One step.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Step {
    /// Counts them from 0: replica sets are met in turn.
    pub(crate) number: usize,
    /// Before it.
    pub(crate) pause: Duration,
    pub(crate) kind: Kind,
    /// On whom.
    pub(crate) on: On,
    /// How long it lasts, if it does.
    pub(crate) length: Duration,
    /// A cut: only what the node sends.
    pub(crate) one_way: bool,
    /// Whether a move is ordered before it ends.
    pub(crate) moves_meanwhile: bool,
}

/// Steps without end.
pub(crate) struct Schedule {
    random: StdRng,
    kinds: Vec<Kind>,
    count: usize,
}

impl Schedule {
    pub(crate) fn new(seed: u64, kinds: &[Kind]) -> Self {
        Self {
            random: StdRng::seed_from_u64(seed),
            kinds: kinds.to_vec(),
            count: 0,
        }
    }
}

impl Iterator for Schedule {
    type Item = Step;

    fn next(&mut self) -> Option<Step> {
        let random = &mut self.random;
        // Moves come between the faults.
        let moves = self.kinds.contains(&Kind::Move) && random.random_bool(MOVES);
        let kind = match moves {
            true => Kind::Move,
            false => *self.kinds.choose(random)?,
        };
        let on = match random.random_range(0..4) {
            0 => On::Primary,
            1 => On::Replica,
            2 => On::PrimaryNode,
            _ => On::Node(random.random_range(0..3)),
        };
        let number = self.count;
        self.count += 1;
        Some(Step {
            number,
            pause: Duration::from_millis(random.random_range(50..800)),
            kind,
            on,
            length: kind.length(random.random_range(0.0..1.0)),
            one_way: random.random_bool(0.5),
            moves_meanwhile: random.random_bool(0.3),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Schedule;
    use crate::chaos::Kind;

    #[test]
    fn a_seed_gives_the_same_steps_and_another_seed_others() {
        let steps = |seed| Schedule::new(seed, &Kind::ALL).take(50).collect::<Vec<_>>();
        assert_eq!(steps(7), steps(7));
        assert_ne!(steps(7), steps(8));
    }
}
