//! Which leg a command goes to.

use super::burst::Burst;
use super::{Due, How, Queue, Unsent};
use crate::merge::{self, Merge, Plan};
use crate::stats::Tally;
use crate::worker::Worker;
use crate::worker::client::{Lane, Streaming};
use crate::worker::config_set::wish;
use crate::worker::lanes::Flow;
use crate::worker::session::ReplyMode;
use crate::{bounds, texts};
use resp::command::{self, Class};
use resp::keys::{PartPlace, Place};
use resp::number::strict_i64;
use resp::request::{self, Args, Whole};
use std::collections::VecDeque;

/// The shard of what names no key and may publish. Messages come to a subscriber in the order of their
/// publication only if one engine sends them all.
pub(super) const FIRST: usize = 0;

impl Worker {
    /// The shard of a slot; 0 if the configuration names none, whose link then says so.
    #[inline]
    pub(super) fn shard_of(&self, front: usize, slot: u16) -> usize {
        self.served[self.clients[front].served].shard_of(slot)
    }

    pub(super) fn shards(&self, front: usize) -> usize {
        self.served[self.clients[front].served].shards.len()
    }

    /// The shard for commands that any shard can answer: clients spread over them.
    pub(super) fn any_shard(&self, front: usize) -> usize {
        let shards = self.shards(front) as u64;
        usize::try_from(self.clients[front].session.id % shards).unwrap_or(0)
    }

    /// The short way of commands with keys of one shard, see [`Worker::pass_on`]. Returns their bytes and
    /// them by kind.
    pub(in crate::worker) fn fan_pass_on(
        &mut self,
        front: usize,
        bytes: &[u8],
        allowed: u32,
    ) -> (usize, Tally) {
        let client = &self.clients[front];
        let plain = client.session.authenticated
            && client.session.reply == ReplyMode::On
            && client.scanned == 0
            && client.framer.at_start()
            && client.streaming.is_none()
            && !self.only_subscribes(front)
            && !self.served[client.served].pause.any();
        let plain = plain
            && self.fan(front).is_some_and(|fan| {
                fan.transaction == Queue::No
                    && fan.unsent.is_empty()
                    && fan.order.len() <= bounds::DUE_MAX
            });
        let (mut used, mut commands) = (0, Tally::default());
        if !plain {
            return (used, commands);
        }
        let mut burst = std::mem::take(&mut self.burst);
        while commands.total() < allowed
            && let Some(Whole {
                length,
                name,
                first,
            }) = request::whole_with_first(&bytes[used..])
            && let Some(kind) = command::plain(name)
        {
            let frame = &bytes[used..used + length];
            if leaves_database(name, frame) {
                break;
            }
            let Place::Slot(slot) = resp::keys::place_with(frame, name, first) else {
                break;
            };
            let shard = self.shard_of(front, slot);
            if !burst.is_open(shard) {
                let Some((leg, place)) = self.plain_way(front, shard) else {
                    break;
                };
                let waiting = self.backends[place].out.len();
                burst.open(shard, (leg, place), waiting);
            }
            if !burst.push(shard, frame, kind) {
                break;
            }
            used += length;
            commands.add(kind);
        }
        self.send_burst(front, &mut burst);
        self.burst = burst;
        (used, commands)
    }

    /// The leg to a shard, and the shared connection, if nothing of that client is in the way there.
    fn plain_way(&mut self, front: usize, shard: usize) -> Option<(usize, usize)> {
        let leg = self.leg(front, shard);
        let known = &self.clients[leg];
        let shared = known.lane == Lane::Shared && !known.heavy;
        let place = self.shared_place(leg).filter(|_| shared)?;
        Some((leg, place))
    }

    /// Sends what was gathered, to each shard at once.
    fn send_burst(&mut self, front: usize, burst: &mut Burst) {
        for (shard, count) in burst.due.drain(..) {
            self.due(front, shard, count);
        }
        for shard in burst.shards.drain(..) {
            let lot = &mut burst.lots[shard];
            self.append(lot.leg, lot.place, &lot.frames, lot.commands);
            lot.clear();
        }
    }

    /// Does what a command asks for. `args` are those after the name.
    pub(in crate::worker) fn fan_command(
        &mut self,
        front: usize,
        class: Class,
        name: &[u8],
        frame: &[u8],
        args: &Args<'_>,
    ) -> Flow {
        if self.fan(front).is_some_and(|fan| !fan.unsent.is_empty()) {
            return self.send_unsent(front, frame);
        }
        // The engine says that the arguments are too many.
        let class = match class {
            Class::Reset if args.left() > 0 && self.clients[front].session.authenticated => {
                Class::Plain
            }
            other => other,
        };
        let greeting = matches!(
            class,
            Class::Auth | Class::Hello | Class::Quit | Class::Reset
        );
        if !self.clients[front].session.authenticated && !greeting {
            return self.fan_reply(front, texts::NOAUTH);
        }
        let inside = self
            .fan(front)
            .is_some_and(|fan| fan.transaction != Queue::No);
        if inside || class == Class::Multi {
            self.note_write(front, class, frame);
        }
        if inside && !matches!(class, Class::Quit | Class::Reset | Class::Foreign) {
            return self.fan_in_transaction(front, class, name, frame, args);
        }
        let session = &self.clients[front].session;
        let leaving = matches!(class, Class::Quit | Class::Reset | Class::Foreign);
        if session.own.monitor && !leaving {
            return self.fan_reply(front, texts::MONITORING);
        }
        let subscribing = matches!(class, Class::Subscribe(_) | Class::Unsubscribe(_));
        if self.only_subscribes(front) && !subscribing && !leaving {
            // The engine has the right words for what is not allowed now. Which shard knows of a
            // subscription, and whether there is one, is seen by its confirmation.
            if !self.barrier(front) {
                return Flow::Hold;
            }
            // Any other shard would do it, wherever the keys are.
            if let Some(shard) = self.subscribed_shard(front) {
                return match class {
                    Class::Exec => self.exec_while_subscribed(front, shard, frame),
                    _ => self.at_shard(front, shard, frame),
                };
            }
        }
        match class {
            Class::Foreign => self.foreign(front),
            _ if greeting => self.local(front, class, frame, args.clone()),
            Class::Multi | Class::Watch | Class::Unwatch => {
                self.fan_transaction(front, class, frame, args)
            }
            Class::Exec if args.left() > 0 => self.fan_transaction(front, class, frame, args),
            Class::Config if wish(args).is_some() => self.local(front, class, frame, args.clone()),
            Class::Client => self.fan_client(front, frame, args),
            Class::Select => self.fan_select(front, frame, args),
            Class::Subscribe(kind) => self.fan_subscribe(front, kind, true, frame),
            Class::Unsubscribe(kind) => self.fan_subscribe(front, kind, false, frame),
            Class::Monitor if args.left() == 0 => self.fan_monitor(front, frame),
            Class::Blocking | Class::BlockingOption => {
                let flow = self.fan_plain(front, name, frame);
                // The engine looks at nothing more of a client that is blocked.
                if flow == Flow::Next && self.clients.contains(front) {
                    self.barrier(front);
                }
                flow
            }
            _ => self.fan_plain(front, name, frame),
        }
    }

    /// Answers when the client's turn comes.
    pub(super) fn fan_reply(&mut self, front: usize, text: &[u8]) -> Flow {
        self.fan_answer(front, text);
        Flow::Next
    }

    /// Sends a command where its keys are.
    pub(super) fn fan_plain(&mut self, front: usize, name: &[u8], frame: &[u8]) -> Flow {
        if leaves_database(name, frame) {
            return self.fan_reply(front, texts::SELECT_OVER_SHARDS);
        }
        match resp::keys::place(frame) {
            Place::Slot(slot) => self.at_shard(front, self.shard_of(front, slot), frame),
            Place::Unclear => self.at_shard(front, FIRST, frame),
            Place::Several => match self.common_shard(front, frame) {
                Some(shard) => self.at_shard(front, shard, frame),
                // The engine says so.
                None if self.is_unknown(front, name) => {
                    self.at_shard(front, self.any_shard(front), frame)
                }
                None => self.fan_split(front, name, frame),
            },
            Place::Anywhere if may_publish(name) => self.at_shard(front, FIRST, frame),
            Place::Anywhere => {
                let shards = u16::try_from(self.shards(front)).unwrap_or(u16::MAX);
                let plan = merge::keyless(name, frame, shards);
                self.fan_plan(front, plan, frame)
            }
        }
    }

    /// The shard that has all keys of a command, though they are in different slots.
    pub(super) fn common_shard(&self, front: usize, frame: &[u8]) -> Option<usize> {
        let mut keys = Vec::new();
        if !resp::keys::keys(frame, &mut keys) {
            return None;
        }
        let slots: Vec<u16> = keys.iter().map(|key| resp::slot::key_slot(key)).collect();
        let (first, rest) = slots.split_first()?;
        if rest.iter().all(|slot| slot == first) {
            // What is elsewhere is not among the keys: a pattern of `SORT`.
            return None;
        }
        let shard = self.shard_of(front, *first);
        rest.iter()
            .all(|slot| self.shard_of(front, *slot) == shard)
            .then_some(shard)
    }

    fn fan_split(&mut self, front: usize, name: &[u8], frame: &[u8]) -> Flow {
        let plan = {
            let served = &self.served[self.clients[front].served];
            let shard_of_key = |key: &[u8]| {
                u16::try_from(served.shard_of(resp::slot::key_slot(key))).unwrap_or(u16::MAX)
            };
            merge::split(name, frame, &shard_of_key)
        };
        match plan {
            Some(plan) => self.fan_plan(front, plan, frame),
            None => self.fan_reply(front, texts::CROSSSLOT),
        }
    }

    pub(super) fn fan_plan(&mut self, front: usize, plan: Plan, frame: &[u8]) -> Flow {
        match plan {
            Plan::Refuse(text) => self.fan_reply(front, &text),
            Plan::Anywhere => self.at_shard(front, self.any_shard(front), frame),
            Plan::Everywhere(merge) => {
                let whole = |shard| Unsent { shard, frame: None };
                let parts = (0..self.shards(front)).map(whole).collect();
                self.fan_send(front, parts, How::Merge(merge), frame)
            }
            Plan::Parts(parts, merge) => {
                let parts = parts.into_iter().map(Unsent::from).collect();
                self.fan_send(front, parts, How::Merge(merge), frame)
            }
        }
    }

    /// Sends the parts of a command, whose replies become one.
    pub(super) fn fan_send(
        &mut self,
        front: usize,
        parts: VecDeque<Unsent>,
        merge: How,
        frame: &[u8],
    ) -> Flow {
        let always = matches!(merge, How::Confirmed(_));
        let wanted = always || self.clients[front].session.reply == ReplyMode::On;
        let Some(fan) = self.fan_mut(front) else {
            return Flow::Next;
        };
        if wanted {
            fan.opening += usize::from(!matches!(merge, How::Merge(_)));
            let shards = parts.iter().map(|part| part.shard).collect();
            fan.order.push_back(Due::Merged { shards, merge });
        }
        fan.unsent = parts;
        self.send_unsent(front, frame)
    }

    /// Sends what is left of a command. If a leg has to wait, the command is looked at again, and this goes
    /// on where it was.
    fn send_unsent(&mut self, front: usize, frame: &[u8]) -> Flow {
        let class = Args::of(frame).next().map(command::classify);
        // What a shard has to say against these is told even to a client that wants no replies.
        let confirms = matches!(class, Some(Class::Subscribe(_) | Class::Unsubscribe(_)));
        while let Some(part) = self.fan_mut(front).and_then(|fan| fan.unsent.pop_front()) {
            let flow = self.send_part(front, part.shard, |worker, leg| {
                if confirms {
                    worker.clients[leg].session.reply = ReplyMode::On;
                }
                worker.command(leg, part.frame.as_deref().unwrap_or(frame))
            });
            if flow == Flow::Hold {
                if let Some(fan) = self.fan_mut(front) {
                    fan.unsent.push_front(part);
                }
                return Flow::Hold;
            }
        }
        if let Some(client) = self.clients.get_mut(front)
            && client.session.reply == ReplyMode::SkipNext
        {
            client.session.reply = ReplyMode::On;
        }
        self.caching_used(front);
        // The engines look at nothing more of a client that is blocked; what comes behind MONITOR is refused, or ends it.
        if matches!(class, Some(Class::Wait | Class::Monitor)) && self.clients.contains(front) {
            self.barrier(front);
        }
        Flow::Next
    }

    fn fan_client(&mut self, front: usize, frame: &[u8], args: &Args<'_>) -> Flow {
        let sub = args.clone().next().unwrap_or_default();
        match sub.to_ascii_uppercase().as_slice() {
            b"TRACKING" => self.fan_tracking(front, frame, args),
            b"CACHING" => self.fan_caching(front, frame, args),
            b"NO-TOUCH" if args.left() == 2 => {
                self.fan_plan(front, Plan::Everywhere(Merge::Same), frame)
            }
            b"NO-TOUCH" | b"TRACKINGINFO" | b"GETREDIR" | b"HELP" => self.aside(front, frame),
            _ => self.local(front, Class::Client, frame, args.clone()),
        }
    }

    /// There is one numbered database over several shards, as in the engines' own clusters.
    fn fan_select(&mut self, front: usize, frame: &[u8], args: &Args<'_>) -> Flow {
        let words: Vec<&[u8]> = args.clone().take(2).collect();
        match words[..] {
            [word] => match strict_i64(word) {
                Some(0) => self.fan_reply(front, texts::OK),
                Some(_) => self.fan_reply(front, texts::SELECT_OVER_SHARDS),
                None => self.at_shard(front, self.any_shard(front), frame),
            },
            _ => self.at_shard(front, self.any_shard(front), frame),
        }
    }

    /// Whether it is to be looked where a long command goes, of which so many bytes are known.
    #[inline]
    pub(in crate::worker) fn may_be_placed(&self, client: usize, known: usize) -> bool {
        self.fan(client)
            .is_none_or(|fan| is_worth_a_look(known, fan.looked))
    }

    /// It was looked in vain, or the command is over (0).
    #[inline]
    pub(in crate::worker) fn placed_at(&mut self, client: usize, known: usize) {
        if let Some(fan) = self.fan_mut(client) {
            fan.looked = known;
        }
    }

    /// Begins to pass on a command that is too long to be held, if it goes to one shard as it is. Others
    /// are held until they are whole, up to a bound.
    pub(in crate::worker) fn begin_fan_stream(
        &mut self,
        front: usize,
        class: Class,
        part: &[u8],
    ) -> Flow {
        let shard = match resp::keys::place_of_part(part) {
            PartPlace::Known(Place::Slot(slot))
                if matches!(class, Class::Plain | Class::Script) =>
            {
                Some(self.shard_of(front, slot))
            }
            _ => None,
        };
        let client = &self.clients[front];
        let transaction = self.fan(front).map(|fan| &fan.transaction);
        let straight = client.session.authenticated
            && !self.only_subscribes(front)
            && match transaction {
                Some(Queue::No) => true,
                Some(Queue::At(at)) => shard == Some(*at),
                Some(Queue::Here(_)) => true,
                Some(Queue::Lost) | None => false,
            };
        if let Some(shard) = shard.filter(|_| straight) {
            let first = matches!(transaction, Some(Queue::Here(_)));
            if first && let Err(flow) = self.open_at(front, shard) {
                return flow;
            }
            let flow = self.let_shard(front, shard, |worker, leg| worker.begin_stream(leg, part));
            if flow == Flow::Next && self.clients.contains(front) {
                self.clients[front].streaming = Some(Streaming::ToShard);
                if let Some(fan) = self.fan_mut(front) {
                    fan.streaming = Some(shard);
                    fan.looked = 0;
                }
            }
            return flow;
        }
        if part.len() <= bounds::HELD_COMMAND_MAX {
            tracing::debug!(peer = %self.clients[front].session.peer, known = part.len(), "it is not known yet where a long command goes");
            self.placed_at(front, part.len());
            return Flow::More;
        }
        if !self.barrier(front) {
            return Flow::Hold;
        }
        let text = b"-ERR the command is too long to be split over shards\r\n";
        // `EXEC` is not to run what is left.
        let flow = match self.fan(front).map(|fan| &fan.transaction) {
            Some(Queue::Here(_)) => self.fan_spoil(front, None, text),
            Some(Queue::At(shard)) => self.fan_spoil(front, Some(*shard), text),
            Some(Queue::No | Queue::Lost) | None => self.fan_reply(front, text),
        };
        if flow != Flow::Next {
            return flow;
        }
        self.clients[front].streaming = Some(Streaming::Skip);
        self.placed_at(front, 0);
        Flow::Next
    }

    /// The client whose lane carries a long command: itself, or one of its legs.
    pub(in crate::worker) fn carrier(&self, index: usize) -> usize {
        let leg = self
            .fan(index)
            .and_then(|fan| *fan.legs.get(fan.streaming?)?);
        leg.unwrap_or(index)
    }

    /// A long command is whole.
    pub(in crate::worker) fn streamed(&mut self, index: usize) {
        let carrier = self.carrier(index);
        self.clients[carrier].streaming = None;
        self.clients[index].streaming = None;
        if let Some(fan) = self.fan_mut(index) {
            fan.streaming = None;
        }
    }
}

/// Whether a long command is looked into again for its keys, after that was in vain when so many bytes of it
/// were known. Each look begins at its start: so all of them together go over no more than twice its bytes.
/// What is too long to be held is looked into in any case.
const fn is_worth_a_look(known: usize, looked: usize) -> bool {
    known >= looked.saturating_mul(2) || known > bounds::HELD_COMMAND_MAX
}

/// Whether a command reaches another numbered database than 0, the only one there is.
#[inline]
fn leaves_database(name: &[u8], frame: &[u8]) -> bool {
    if name.len() != 4 || !matches!(name[0] & 0xDF, b'C' | b'M') {
        return false;
    }
    let other = |number: Option<&[u8]>| number.and_then(strict_i64).is_some_and(|db| db != 0);
    if name.eq_ignore_ascii_case(b"MOVE") {
        return other(Args::of(frame).nth(2));
    }
    let mut args = Args::of(frame).skip(3);
    name.eq_ignore_ascii_case(b"COPY")
        && args
            .find(|arg| arg.eq_ignore_ascii_case(b"DB"))
            .is_some_and(|_| other(args.next()))
}

/// Whether a command without a key may send messages.
fn may_publish(name: &[u8]) -> bool {
    const THEY_DO: [&[u8]; 4] = [b"PUBLISH", b"EVAL", b"EVALSHA", b"FCALL"];
    THEY_DO.iter().any(|known| known.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// However a command comes, and however long it is, looking into it is no more work than reading it.
    #[test]
    fn a_long_command_is_not_read_again_and_again() {
        for length in [bounds::STREAM_ABOVE + 1, 1 << 20, bounds::HELD_COMMAND_MAX] {
            for piece in [1, 1460, bounds::RECEIVE] {
                let (mut known, mut looked, mut read) = (bounds::STREAM_ABOVE, 0, 0);
                while known < length {
                    known = (known + piece).min(length);
                    if is_worth_a_look(known, looked) {
                        (looked, read) = (known, read + known);
                    }
                }
                assert!(
                    read <= 2 * length,
                    "{read} of {length} in pieces of {piece}"
                );
                assert!(looked > length / 2 || looked == 0, "{looked} of {length}");
            }
        }
        assert!(is_worth_a_look(
            bounds::HELD_COMMAND_MAX + 1,
            bounds::HELD_COMMAND_MAX
        ));
    }
}
