//! Replies in the order of the commands, though shards answer when they like.
//!
//! The oldest thing that a client is due says whose reply may go out. Replies of that leg go straight to
//! the client; those of the others are held until it is their turn.

use super::{Due, How, Part, Waiting};
use crate::stats::ErrorKind;
use crate::worker::Worker;
use crate::{bounds, texts};
use resp::reply::simple_run;
use std::ops::Range;

impl Worker {
    /// Notes that the next replies are one shard's.
    pub(super) fn due(&mut self, front: usize, shard: usize, more: u32) {
        let Some(fan) = self.fan_mut(front) else {
            return;
        };
        match fan.order.back_mut() {
            Some(Due::Replies { shard: last, count }) if *last == shard => *count += more,
            _ => fan.order.push_back(Due::Replies { shard, count: more }),
        }
    }

    /// Takes the last note back: the command was not sent.
    pub(super) fn not_due(&mut self, front: usize) {
        let Some(fan) = self.fan_mut(front) else {
            return;
        };
        match fan.order.back_mut() {
            Some(Due::Replies { count, .. }) if *count > 1 => *count -= 1,
            _ => drop(fan.order.pop_back()),
        }
    }

    /// Answers a client itself, when its turn comes.
    pub(super) fn fan_answer(&mut self, front: usize, text: &[u8]) {
        if !self.clients[front].session.takes_reply() {
            return;
        }
        self.count_answer(front, text);
        let Some(fan) = self.fan_mut(front) else {
            return;
        };
        if fan.order.is_empty() {
            self.give(front, text, &[]);
        } else {
            fan.order.push_back(Due::Text(text.into()));
        }
    }

    /// The shard whose replies go straight to the client.
    fn turn_of(&self, front: usize) -> Option<(usize, u32)> {
        match self.fan(front)?.order.front()? {
            Due::Replies { shard, count } => Some((*shard, *count)),
            Due::Merged { .. } | Due::Text(_) => None,
        }
    }

    /// How many of `most` simple replies may be taken at once: those of a leg one by one while a reply is made of
    /// those of several.
    #[inline]
    pub(in crate::worker) fn most_at_once(&self, client: usize, most: u32) -> u32 {
        match &self.clients[client].part {
            Part::Leg(leg) if self.turn_of(leg.front).is_none() => 1,
            Part::Whole | Part::Front(_) | Part::Leg(_) => most,
        }
    }

    /// Takes whole simple replies of a leg, so many: gives the client those whose turn it is, and keeps the others.
    pub(in crate::worker) fn leg_brings(
        &mut self,
        client: usize,
        bytes: &[u8],
        range: Range<usize>,
        mut count: u32,
    ) {
        let Part::Leg(leg) = &self.clients[client].part else {
            return;
        };
        let (front, shard) = (leg.front, leg.shard);
        let mut at = range.start;
        while count > 0 {
            let now = match self.turn_of(front) {
                Some((turn, due)) if turn == shard => due.min(count),
                Some(_) => return self.keep_for_later(front, client, &bytes[at..range.end], count),
                None => 1,
            };
            let length = match now == count {
                true => range.end - at,
                false => simple_run(&bytes[at..range.end], now).0,
            };
            if length < bounds::GATHERED_MAX {
                self.give(client, &bytes[at..at + length], bytes);
            } else {
                self.deliver(client, bytes, at..at + length);
            }
            self.leg_gave(front, client, shard, now, bytes);
            at += length;
            count -= now;
        }
    }

    fn keep_for_later(&mut self, front: usize, leg: usize, bytes: &[u8], count: u32) {
        if let Some(state) = self.leg_state(leg) {
            state.keep_replies(bytes, count);
            self.holds_more(front, bytes.len());
        }
    }

    /// Who gets a part of a reply now: the client, or the front of a leg. `None`: the leg has kept it.
    #[inline]
    pub(in crate::worker) fn receiver(&mut self, client: usize, bytes: &[u8]) -> Option<usize> {
        match &self.clients[client].part {
            Part::Whole | Part::Front(_) => Some(client),
            Part::Leg(leg) => {
                let (front, shard) = (leg.front, leg.shard);
                if self.turn_of(front).is_some_and(|(turn, _)| turn == shard) {
                    if let Some(fan) = self.fan_mut(front) {
                        fan.mid = true;
                    }
                    return Some(front);
                }
                self.hold(front, client, bytes);
                None
            }
        }
    }

    fn hold(&mut self, front: usize, leg: usize, bytes: &[u8]) {
        let Some(state) = self.leg_state(leg) else {
            return;
        };
        if state.drops {
            return;
        }
        state.part.extend_from_slice(bytes);
        self.holds_more(front, bytes.len());
    }

    /// So many bytes more are held for a client; what is too much closes it.
    pub(super) fn holds_more(&mut self, front: usize, bytes: usize) {
        if let Some(fan) = self.fan_mut(front) {
            fan.held += bytes;
        }
        let too_much = |worker: &Self| {
            let fan = worker.fan(front);
            fan.is_some_and(|fan| fan.held > bounds::HELD_MAX)
        };
        if too_much(self) {
            self.give_up_merging(front);
        }
        if too_much(self) {
            let peer = self.clients[front].session.peer;
            let most = bounds::HELD_MAX;
            tracing::warn!(%peer, most, "a client is closed: what waits for an earlier reply of another shard is more bytes than are held for one client");
            self.count_error(front, ErrorKind::Unread);
            self.doomed.push(self.client_id(front));
        }
    }

    /// If the client's next reply is made of those of several shards, it becomes an error: nothing of them is
    /// held any more.
    fn give_up_merging(&mut self, front: usize) {
        let Some(Due::Merged { shards, merge }) =
            self.fan_mut(front).and_then(|fan| fan.order.front_mut())
        else {
            return;
        };
        if !matches!(merge, How::Merge(_)) {
            return;
        }
        *merge = How::TooLarge;
        let mut freed = 0;
        for shard in shards.clone() {
            let leg = self.leg(front, shard);
            let Some(state) = self.leg_state(leg) else {
                continue;
            };
            let bytes = match state.pop_reply() {
                Some(reply) => {
                    state.waiting.push_front(Waiting::Reply(Vec::new()));
                    reply
                }
                None => {
                    state.drops = true;
                    std::mem::take(&mut state.part)
                }
            };
            freed += bytes.len();
        }
        if let Some(fan) = self.fan_mut(front) {
            fan.held -= freed;
        }
        let peer = self.clients[front].session.peer;
        tracing::warn!(%peer, most = bounds::HELD_MAX, "a reply of several shards is too large to be put together: the client gets an error");
        self.count_error(front, ErrorKind::Refused);
    }

    /// Gives a client a reply, or part of one, that is not in the receive buffer. What it has in
    /// `receive` goes first.
    pub(in crate::worker) fn give(&mut self, client: usize, text: &[u8], receive: &[u8]) {
        let Some(client) = self.receiver(client, text) else {
            return;
        };
        let known = &mut self.clients[client];
        if known.wait == crate::worker::Wait::Farewell || known.keeps_behind_exec(text) {
            return;
        }
        let slice = std::mem::replace(&mut known.slice, 0..0);
        known.out.push(&receive[slice]);
        known.out.push(text);
        self.mark_client(client);
    }

    /// So many replies of a client are whole.
    #[inline]
    pub(in crate::worker) fn given(&mut self, client: usize, replies: u32, receive: &[u8]) {
        if let Part::Leg(leg) = &self.clients[client].part {
            let (front, shard) = (leg.front, leg.shard);
            self.leg_gave(front, client, shard, replies, receive);
        }
    }

    fn leg_gave(&mut self, front: usize, leg: usize, shard: usize, replies: u32, receive: &[u8]) {
        let turn = self.turn_of(front);
        let Some(fan) = self.fan_mut(front) else {
            return;
        };
        if turn.is_some_and(|(turn, _)| turn == shard) {
            fan.mid = false;
            let over = match fan.order.front_mut() {
                Some(Due::Replies { count, .. }) => {
                    *count = count.saturating_sub(replies);
                    *count == 0
                }
                _ => false,
            };
            // They came before what legs hold.
            self.release_messages(front, receive);
            if over && let Some(fan) = self.fan_mut(front) {
                fan.order.pop_front();
                self.next_turn(front, receive);
            }
            return;
        }
        let merging = matches!(fan.order.front(), Some(Due::Merged { .. }));
        if let Some(state) = self.leg_state(leg) {
            let reply = std::mem::take(&mut state.part);
            state.drops = false;
            state.waiting.push_back(Waiting::Reply(reply));
        }
        if merging {
            self.next_turn(front, receive);
        }
    }

    /// Gives the client what its legs hold, as far as it is their turn.
    fn next_turn(&mut self, front: usize, receive: &[u8]) {
        let full = !self.fan_has_room(front);
        while let Some(due) = self.fan_mut(front).and_then(|fan| fan.order.pop_front()) {
            match due {
                Due::Text(text) => self.give(front, &text, receive),
                Due::Replies { shard, count } => {
                    let missing = self.release(front, shard, count, receive);
                    if missing > 0 {
                        let count = missing;
                        if let Some(fan) = self.fan_mut(front) {
                            fan.order.push_front(Due::Replies { shard, count });
                        }
                        break;
                    }
                }
                Due::Merged { shards, merge } => {
                    let Some(parts) = self.parts(front, &shards) else {
                        for shard in &shards {
                            let leg = self.leg(front, *shard);
                            self.read_on(leg);
                        }
                        if let Some(fan) = self.fan_mut(front) {
                            fan.order.push_front(Due::Merged { shards, merge });
                        }
                        break;
                    };
                    let opening = !matches!(merge, How::Merge(_) | How::TooLarge);
                    let mut reply = Vec::new();
                    match merge {
                        How::Merge(merge) | How::Opening(merge) => {
                            let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
                            merge.combine(&parts, self.clients[front].session.resp, &mut reply);
                        }
                        How::Confirmed(change) => {
                            reply = self.confirmed(front, change, &shards, &parts);
                        }
                        How::TooLarge => reply.extend_from_slice(texts::TOO_LARGE_TOGETHER),
                        How::Told(text) => match parts.iter().find(|part| !part.is_empty()) {
                            Some(error) => {
                                reply = error.clone();
                                self.end_unknown(front);
                            }
                            None => reply = text,
                        },
                    }
                    // They may be large, and so may be what is made of them: it is there once more now.
                    drop(parts);
                    self.give(front, &reply, receive);
                    drop(reply);
                    if let Some(fan) = self.fan_mut(front) {
                        fan.opening -= usize::from(opening);
                    }
                    for shard in shards {
                        let leg = self.leg(front, shard);
                        self.release_first_messages(front, leg, receive);
                        self.read_on(leg);
                    }
                }
            }
        }
        self.check_barrier(front);
        if full && self.fan_has_room(front) {
            self.queue_if_open(front);
        }
    }

    /// Gives the client up to `count` replies of a leg, and the beginning of the next one; returns how
    /// many are missing.
    fn release(&mut self, front: usize, shard: usize, mut count: u32, receive: &[u8]) -> u32 {
        let leg = self.leg(front, shard);
        while count > 0 {
            let given = self.release_first(front, leg, count, receive);
            if given == 0 {
                break;
            }
            self.release_first_messages(front, leg, receive);
            count -= given;
        }
        if count > 0 {
            let part = self
                .leg_state(leg)
                .map(|state| std::mem::take(&mut state.part));
            let part = part.unwrap_or_default();
            if let Some(fan) = self.fan_mut(front) {
                fan.mid = !part.is_empty();
            }
            self.release_bytes(front, &part, receive);
        }
        self.read_on(leg);
        count
    }

    /// Gives the client the first that a leg keeps, at most so many replies; returns how many they were.
    fn release_first(&mut self, front: usize, leg: usize, most: u32, receive: &[u8]) -> u32 {
        let first = self
            .leg_state(leg)
            .and_then(|state| state.waiting.pop_front());
        match first {
            Some(Waiting::Reply(reply)) => {
                self.release_bytes(front, &reply, receive);
                1
            }
            Some(Waiting::Replies { bytes, at, count }) => {
                let rest = bytes.get(at..).unwrap_or_default();
                let (length, given) = match most >= count {
                    true => (rest.len(), count),
                    false => (simple_run(rest, most).0, most),
                };
                self.release_bytes(front, rest.get(..length).unwrap_or_default(), receive);
                if given < count
                    && let Some(state) = self.leg_state(leg)
                {
                    let (at, count) = (at + length, count - given);
                    state
                        .waiting
                        .push_front(Waiting::Replies { bytes, at, count });
                }
                given
            }
            // It would have been given when it became the first.
            Some(Waiting::Message(_)) | None => 0,
        }
    }

    /// Reads the connections again that were not read since a leg holds much.
    fn read_on(&mut self, leg: usize) {
        for backend in std::mem::take(&mut self.clients[leg].paused) {
            if self.backends.contains(backend) {
                self.queue_backend(backend);
            }
        }
    }

    /// Whether a leg holds so much that it is to be read no more. What is made of parts of several legs
    /// needs the whole of each, however much that is.
    pub(in crate::worker) fn leg_is_full(&self, client: usize) -> bool {
        let Part::Leg(leg) = &self.clients[client].part else {
            return false;
        };
        let first = self.fan(leg.front).and_then(|fan| fan.order.front());
        let needed = !leg.has_whole()
            && matches!(first, Some(Due::Merged { shards, .. }) if shards.contains(&leg.shard));
        !needed && self.too_much(client, leg.holds())
    }

    fn release_bytes(&mut self, front: usize, bytes: &[u8], receive: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        if let Some(fan) = self.fan_mut(front) {
            fan.held -= bytes.len();
        }
        self.give(front, bytes, receive);
    }

    /// One whole reply of each of these legs, if all have one.
    fn parts(&mut self, front: usize, shards: &[usize]) -> Option<Vec<Vec<u8>>> {
        let legs: Vec<usize> = shards.iter().map(|shard| self.leg(front, *shard)).collect();
        let whole =
            |leg: &usize| matches!(&self.clients[*leg].part, Part::Leg(leg) if leg.has_whole());
        if !legs.iter().all(whole) {
            return None;
        }
        let parts: Vec<Vec<u8>> = legs
            .iter()
            .filter_map(|leg| self.leg_state(*leg)?.pop_reply())
            .collect();
        let bytes: usize = parts.iter().map(Vec::len).sum();
        if let Some(fan) = self.fan_mut(front) {
            fan.held -= bytes;
        }
        Some(parts)
    }

    /// Forgets the beginning of a reply that the leg has kept and that will not be whole. `false`: the
    /// client has got it already.
    pub(in crate::worker) fn forget_part(&mut self, client: usize) -> bool {
        let Some(state) = self.leg_state(client) else {
            return false;
        };
        let front = state.front;
        let part = std::mem::take(&mut state.part);
        let dropped = std::mem::take(&mut state.drops);
        if part.is_empty() && !dropped {
            return false;
        }
        if let Some(fan) = self.fan_mut(front) {
            fan.held -= part.len();
        }
        true
    }

    /// Replies that a front is due; `None`: the client is no front.
    pub(in crate::worker) fn fan_due(&self, front: usize) -> Option<u32> {
        let count = |due: &Due| match due {
            Due::Replies { count, .. } => *count,
            Due::Merged { .. } | Due::Text(_) => 1,
        };
        Some(self.fan(front)?.order.iter().map(count).sum())
    }

    /// Whether a front has sent part of a command.
    pub(in crate::worker) fn fan_is_midway(&self, front: usize) -> bool {
        self.fan(front)
            .is_some_and(|fan| !fan.unsent.is_empty() || fan.streaming.is_some())
    }

    /// Bytes that a leg keeps until it is its turn.
    pub(in crate::worker) fn holds(&self, client: usize) -> usize {
        match &self.clients[client].part {
            Part::Leg(leg) => leg.holds(),
            Part::Whole | Part::Front(_) => 0,
        }
    }

    /// Whether a front may take another command: what its legs hold is bounded.
    pub(in crate::worker) fn fan_has_room(&self, front: usize) -> bool {
        self.fan(front)
            .is_none_or(|fan| !self.too_much(front, fan.held) && fan.order.len() <= bounds::DUE_MAX)
    }
}
