//! Looking for more before going to sleep.
//!
//! A client that waits for each reply has its worker go to sleep twice a command: until the shard answers, and until the
//! next command comes. Each sleep costs a wake-up, which takes longer than the shard does. So a worker that has met
//! no more than one event a turn for a while looks for the next one for some microseconds before it sleeps. A worker with
//! several busy clients does not: their commands come together, and the processor is the shards'. Measured with one
//! client on two cores: 1.05 to 1.10 of a direct connection's rate instead of 0.74 (docs/benchmarks.md).

use std::time::Duration;

/// How long it looks. A shard on this node has answered by then, if there is a core for it.
pub(super) const LOOK: Duration = Duration::from_micros(40);
/// So many turns with one event each, and looking begins.
const LONE_TURNS: u32 = 16;
/// Chances that are passed by after it was in vain: the first time, and most. Each further time in a row it is four times
/// as many.
const RESTS: (u32, u32) = (4, 1024);

/// What a worker waits for.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) enum Awaited {
    /// A shard had something to say last.
    #[default]
    Client,
    /// A client had.
    Shard,
}

/// Whether looking is worth it.
#[derive(Debug, Default)]
pub(super) struct Linger {
    /// Events of this turn.
    events: u32,
    /// Turns with one event each, one after the other.
    lone: u32,
    awaited: Awaited,
    /// A client that thinks for long is one thing, a shard that answers at once another.
    for_client: Patience,
    for_shard: Patience,
}

#[derive(Debug)]
struct Patience {
    /// Chances that are still passed by.
    rest: u32,
    next: u32,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            rest: 0,
            next: RESTS.0,
        }
    }
}

impl Linger {
    /// There was an event, and this is awaited next.
    #[inline]
    pub(super) const fn saw(&mut self, awaited: Awaited) {
        self.events = self.events.saturating_add(1);
        self.awaited = awaited;
    }

    #[inline]
    pub(super) const fn turn_ends(&mut self) {
        self.lone = if self.events > 1 {
            0
        } else {
            self.lone.saturating_add(1)
        };
        self.events = 0;
    }

    /// Whether to look now.
    #[inline]
    pub(super) const fn is_worth_it(&mut self) -> bool {
        if self.lone < LONE_TURNS {
            return false;
        }
        let patience = self.patience();
        let worth_it = patience.rest == 0;
        patience.rest = patience.rest.saturating_sub(1);
        worth_it
    }

    /// It was looked, and something came in time or not.
    pub(super) fn was(&mut self, worth_it: bool) {
        let patience = self.patience();
        if worth_it {
            *patience = Patience::default();
        } else {
            patience.rest = patience.next;
            patience.next = (patience.next * 4).min(RESTS.1);
        }
    }

    const fn patience(&mut self) -> &mut Patience {
        match self.awaited {
            Awaited::Client => &mut self.for_client,
            Awaited::Shard => &mut self.for_shard,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(linger: &mut Linger, events: &[Awaited]) {
        for awaited in events {
            linger.saw(*awaited);
        }
        linger.turn_ends();
    }

    fn lone() -> Linger {
        let mut linger = Linger::default();
        for _ in 0..LONE_TURNS {
            assert!(!linger.is_worth_it());
            turn(&mut linger, &[Awaited::Shard]);
        }
        linger
    }

    #[test]
    fn single_events_begin_it_and_several_at_a_time_end_it() {
        let mut linger = lone();
        assert!(linger.is_worth_it());
        turn(&mut linger, &[Awaited::Shard, Awaited::Shard]);
        assert!(!linger.is_worth_it());
    }

    #[test]
    fn what_is_in_vain_is_tried_less_and_less() {
        let mut linger = lone();
        let mut passed = Vec::new();
        for _ in 0..6 {
            let mut rest = 0;
            while !linger.is_worth_it() {
                rest += 1;
            }
            passed.push(rest);
            linger.was(false);
        }
        assert_eq!(passed, [0, 4, 16, 64, 256, 1024]);
        while !linger.is_worth_it() {}
        linger.was(true);
        assert!(linger.is_worth_it());
    }

    #[test]
    fn a_client_that_thinks_does_not_keep_it_from_awaiting_the_shard() {
        let mut linger = lone();
        turn(&mut linger, &[Awaited::Client]);
        assert!(linger.is_worth_it());
        linger.was(false);
        assert!(!linger.is_worth_it());
        turn(&mut linger, &[Awaited::Shard]);
        assert!(linger.is_worth_it());
    }
}
