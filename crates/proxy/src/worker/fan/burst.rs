//! What one client has sent at once, by shard: each gets its part in one piece. What is done for a piece is done
//! once then, not for each command.

use crate::bounds;
use crate::stats::Tally;
use resp::command::Kind;

/// Most bytes that the room for a part keeps.
const KEPT: usize = 64 * 1024;

/// The parts, and the order in which their replies are due.
#[derive(Debug, Default)]
pub(in crate::worker) struct Burst {
    /// By shard.
    pub(super) lots: Vec<Lot>,
    /// Those that have one.
    pub(super) shards: Vec<usize>,
    /// Shards in turn, and how many replies of each.
    pub(super) due: Vec<(usize, u32)>,
}

/// The part of one shard.
#[derive(Debug, Default)]
pub(super) struct Lot {
    open: bool,
    /// Whose it is, and the connection that it goes to.
    pub(super) leg: usize,
    pub(super) place: usize,
    /// Bytes that the connection takes besides.
    room: usize,
    pub(super) frames: Vec<u8>,
    pub(super) commands: Tally,
}

impl Lot {
    pub(super) fn clear(&mut self) {
        self.open = false;
        self.frames.clear();
        self.frames.shrink_to(KEPT);
        self.commands = Tally::default();
    }
}

impl Burst {
    pub(super) fn is_open(&self, shard: usize) -> bool {
        self.lots.get(shard).is_some_and(|lot| lot.open)
    }

    /// Begins a part: its leg and connection, and how many bytes wait there.
    pub(super) fn open(&mut self, shard: usize, (leg, place): (usize, usize), waiting: usize) {
        if self.lots.len() <= shard {
            self.lots.resize_with(shard + 1, Lot::default);
        }
        // As without parts: the command that goes beyond is the last one.
        let Some(room) = bounds::SHARD_OUT_MAX.checked_sub(waiting) else {
            return;
        };
        let lot = &mut self.lots[shard];
        (lot.open, lot.leg, lot.place, lot.room) = (true, leg, place, room);
        self.shards.push(shard);
    }

    /// One more command; `false`: it has to wait.
    pub(super) fn push(&mut self, shard: usize, frame: &[u8], kind: Kind) -> bool {
        let Some(lot) = self.lots.get_mut(shard) else {
            return false;
        };
        if !lot.open || lot.frames.len() > lot.room {
            return false;
        }
        lot.frames.extend_from_slice(frame);
        lot.commands.add(kind);
        match self.due.last_mut() {
            Some((last, count)) if *last == shard => *count += 1,
            _ => self.due.push((shard, 1)),
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_bounded_and_in_turn() {
        let mut burst = Burst::default();
        let (frame, get) = ([0; 100], Kind::Read);
        assert!(!burst.push(2, &frame, get), "it was not begun");
        burst.open(2, (7, 8), bounds::SHARD_OUT_MAX + 1);
        assert!(
            !burst.is_open(2) && !burst.push(2, &frame, get),
            "there is no room"
        );
        burst.open(2, (7, 8), bounds::SHARD_OUT_MAX - 150);
        burst.open(0, (5, 6), 0);
        let pushed = [2, 2, 0, 2].map(|shard| burst.push(shard, &frame, get));
        assert_eq!(pushed, [true, true, true, false]);
        assert_eq!(burst.due, [(2, 2), (0, 1)]);
        assert_eq!(burst.shards, [2, 0]);
        let lot = &mut burst.lots[2];
        assert_eq!((lot.leg, lot.place, lot.commands.total()), (7, 8, 2));
        lot.clear();
        assert!(lot.frames.is_empty() && !burst.is_open(2));
    }
}
