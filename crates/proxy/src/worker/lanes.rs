//! The shared connection, a connection of one's own, and the way between them.
//!
//! A client's commands go over one connection at a time. Before the first byte on another one, all
//! its replies on the old one are in (the barrier). Part of a command is never written to a shared
//! connection. Scripts have a shared connection of their own ([`super::script_lane`]).

use super::Worker;
use super::backend::{Phase, Rewrite, Run, Use};
use super::client::{Lane, Streaming, Wait};
use super::fan::Part;
use super::link::NotOpened;
use super::session::{Db, Transaction};
use crate::stats::Tally;
use crate::{bounds, texts};
use resp::request::Args;

/// Goes to the copies and changes nothing: a message to a shard channel of nobody, which patterns do
/// not see.
const MARK: &[u8] = b"*3\r\n$8\r\nsPUBLISH\r\n$13\r\nmainstay:wait\r\n$0\r\n\r\n";
/// Engines before 7.0 have no shard channels, but count every command as a write.
const MARK_6: &[u8] = b"*1\r\n$4\r\npING\r\n";

/// What became of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flow {
    /// It is on its way or answered: the next one.
    Next,
    /// It must be looked at again when what the client waits for has come.
    Hold,
    /// It must be looked at again when more of it has come.
    More,
}

/// How a command is to be sent.
#[derive(Clone, Debug)]
pub(super) struct Sending {
    pub(super) effect: super::backend::Effect,
    pub(super) rewrite: Rewrite,
    /// The reply is wanted even if `CLIENT REPLY` says otherwise.
    pub(super) always: bool,
    /// It runs a script.
    pub(super) script: bool,
}

impl Sending {
    pub(super) fn plain() -> Self {
        Self::effect(super::backend::Effect::None)
    }

    pub(super) fn effect(effect: super::backend::Effect) -> Self {
        Self {
            effect,
            rewrite: Rewrite::None,
            always: false,
            script: false,
        }
    }

    pub(super) fn script() -> Self {
        Self {
            script: true,
            ..Self::plain()
        }
    }

    pub(super) fn rewritten(rewrite: Rewrite) -> Self {
        Self {
            rewrite,
            ..Self::plain()
        }
    }
}

impl Worker {
    /// Whether a client has all its replies, and nothing is half-way to it.
    pub(super) fn settled(&self, index: usize) -> bool {
        let client = &self.clients[index];
        if let Some(Streaming::Broken(_)) = client.streaming {
            return self.settled_but_broken(index);
        }
        if let Part::Front(fan) = &client.part {
            let settled = client.in_flight == 0 && fan.is_settled();
            let mut legs = self.legs_of(index);
            return settled && legs.all(|leg| self.settled(leg) && !self.is_parked(leg));
        }
        client.in_flight == 0
            && match client.lane {
                Lane::Own(backend) => self.backends[backend].framer.at_start(),
                Lane::Shared | Lane::Gone => true,
            }
    }

    /// The same of a client whose command broke off while it was passed on: that one is never answered.
    pub(super) fn settled_but_broken(&self, index: usize) -> bool {
        let carrier = self.carrier(index);
        std::iter::once(index)
            .chain(self.legs_of(index))
            .all(|part| {
                let client = &self.clients[part];
                let (half, between) = match client.lane {
                    Lane::Own(place) => {
                        let backend = &self.backends[place];
                        (backend.half_sent, backend.framer.at_start())
                    }
                    Lane::Shared | Lane::Gone => (false, true),
                };
                between && client.in_flight == u32::from(half && part == carrier)
            })
    }

    /// Waits until the client has all its replies; `true`: it has.
    pub(super) fn barrier(&mut self, index: usize) -> bool {
        let settled = self.settled(index);
        if !settled {
            self.clients[index].wait = Wait::Barrier;
        }
        settled
    }

    /// Wakes a client that waited for its replies, if they are in.
    #[inline]
    pub(super) fn check_barrier(&mut self, index: usize) {
        if self.clients[index].wait == Wait::Barrier && self.settled(index) {
            self.resume(index);
        }
        if let Part::Leg(_) = self.clients[index].part {
            let front = self.front_of(index);
            if self.clients[front].wait == Wait::Barrier && self.settled(front) {
                self.resume(front);
            }
        }
        // Who has left is closed when nothing of it is under way. What it is not told of makes no write after which
        // that would be seen.
        let front = self.front_of(index);
        if (self.clients[front].ended || self.drains(front)) && self.clients[index].in_flight == 0 {
            self.queue_if_open(front);
        }
    }

    /// Answers a client itself. All its replies are in.
    pub(super) fn answer(&mut self, index: usize, bytes: &[u8]) {
        debug_assert!(self.settled(index), "an answer must not overtake a reply");
        if self.keep_for_exec(index, bytes) {
            return;
        }
        if self.clients[index].session.takes_reply() {
            self.count_answer(index, bytes);
            self.give(index, bytes, &[]);
            self.given(index, 1, &[]);
        }
    }

    /// Answers after all replies are in.
    pub(super) fn answer_in_order(&mut self, index: usize, bytes: &[u8]) -> Flow {
        if !self.barrier(index) {
            return Flow::Hold;
        }
        self.answer(index, bytes);
        Flow::Next
    }

    /// Takes no more commands; closes the client when its last bytes are written.
    pub(super) fn farewell(&mut self, index: usize) {
        let index = self.front_of(index);
        self.close_legs(index);
        if let Lane::Own(backend) = self.clients[index].lane {
            self.leave_own(index, backend);
        }
        let client = &mut self.clients[index];
        client.wait = Wait::Farewell;
        client.tail = Vec::new();
        self.mark_client(index);
    }

    /// Sends a command that any connection may carry.
    #[inline]
    pub(super) fn send(&mut self, index: usize, frame: &[u8], sending: Sending) -> Flow {
        match self.clients[index].lane {
            Lane::Shared if self.clients[index].heavy => self.send_own(index, frame, sending),
            Lane::Shared => self.send_shared(index, frame, sending),
            Lane::Own(backend) => {
                if self.clients[index].session.shareable()
                    && !self.clients[index].heavy
                    && self.settled(index)
                    && !self.backends[backend].half_sent
                    && self.backends[backend].phase == Phase::Ready
                {
                    self.leave_own(index, backend);
                    self.send_shared(index, frame, sending)
                } else {
                    self.send_own(index, frame, sending)
                }
            }
            Lane::Gone => self.send_own(index, frame, sending),
        }
    }

    #[inline]
    fn send_shared(&mut self, index: usize, frame: &[u8], sending: Sending) -> Flow {
        let id = self.link_of(index);
        let link = &self.served[id.served].shards[id.shard].links[usize::from(id.resp - 2)];
        let (true, Some(place)) = (link.ready, link.shared) else {
            return self.wait_for_link(index);
        };
        let client = &self.clients[index];
        let (under_way, via) = (client.in_flight > 0, client.via);
        let place = if under_way && link.scripts == Some(via) {
            // What it sends behind its own script goes the same way.
            via
        } else if sending.script {
            match self.script_lane(id, place) {
                Some(place) => place,
                None => return self.wait_for_spare(index, id),
            }
        } else {
            place
        };
        let client = &mut self.clients[index];
        if under_way && via != place {
            client.wait = Wait::Barrier;
            return Flow::Hold;
        }
        client.via = place;
        let script = sending.script;
        let flow = self.push(index, place, frame, sending);
        if script && flow == Flow::Next {
            self.watch_script(place);
        }
        flow
    }

    /// The shared connection that commands of the client may go to right now.
    #[inline]
    pub(super) fn shared_place(&self, index: usize) -> Option<usize> {
        let client = &self.clients[index];
        let id = self.link_of(index);
        let link = &self.served[id.served].shards[id.shard].links[usize::from(id.resp - 2)];
        let place = link.shared.filter(|_| link.ready)?;
        if client.in_flight == 0 || client.via == place {
            return Some(place);
        }
        link.scripts.filter(|scripts| *scripts == client.via)
    }

    /// Appends commands, of which nothing is special, to the shared connection.
    #[inline]
    pub(super) fn append(&mut self, index: usize, place: usize, frames: &[u8], commands: Tally) {
        let seen = self.seen(frames, commands);
        let count = seen.count;
        let client = &mut self.clients[index];
        client.via = place;
        client.in_flight += count;
        let backend = &mut self.backends[place];
        backend.out.push(frames);
        backend.expect(Run {
            client: super::ClientId {
                index: index as u32,
                generation: client.generation,
            },
            count,
            discard: false,
            effect: super::backend::Effect::None,
            rewrite: Rewrite::None,
            seen,
        });
        self.mark_backend(place);
    }

    /// Sends a command over a connection of the client's own.
    pub(super) fn send_own(&mut self, index: usize, frame: &[u8], sending: Sending) -> Flow {
        match self.own(index) {
            Ok(place) => self.push(index, place, frame, sending),
            Err(flow) => {
                if flow == Flow::Next {
                    self.missing_inside(index, sending.effect);
                }
                flow
            }
        }
    }

    /// Appends a command to a connection's buffer and notes whose its reply is.
    #[inline]
    fn push(&mut self, index: usize, place: usize, frame: &[u8], sending: Sending) -> Flow {
        if !self.has_room(index, place) {
            return Flow::Hold;
        }
        self.push_now(index, place, frame, sending);
        Flow::Next
    }

    /// Whether a connection's buffer has room for a command; else its client waits for that.
    #[inline]
    pub(super) fn has_room(&mut self, index: usize, place: usize) -> bool {
        if self.backends[place].out.len() <= bounds::SHARD_OUT_MAX {
            return true;
        }
        let name = self.client_id(index);
        self.clients[index].wait = Wait::Room;
        self.backends[place].stalled.push(name);
        false
    }

    /// The same as [`Worker::push`], when there is room.
    #[inline]
    pub(super) fn push_now(&mut self, index: usize, place: usize, frame: &[u8], sending: Sending) {
        let name = Args::of(frame).next().unwrap_or_default();
        let seen = self.seen(frame, Tally::one(resp::command::kind(name)));
        let name = self.client_id(index);
        self.keep(index, place, frame, sending.effect);
        let (client, backend) = (&mut self.clients[index], &mut self.backends[place]);
        backend.out.push(frame);
        // What the client hears of an `EXEC` that is looked into is decided when that is made.
        let looked_into = sending.rewrite == Rewrite::Exec;
        let discard = looked_into || (!client.session.takes_reply() && !sending.always);
        let Sending {
            effect, rewrite, ..
        } = sending;
        client.in_flight += 1;
        let blocks = effect == super::backend::Effect::Blocking;
        client.blocking += u32::from(blocks);
        backend.expect(Run {
            client: name,
            count: 1,
            discard,
            effect,
            rewrite,
            seen,
        });
        if blocks {
            self.front_blocks(index, true);
        }
        self.mark_backend(place);
    }

    /// `WAIT` counts the copies that have what *its own connection* wrote, and the client's writes
    /// went over another one: before it, that connection writes something that nobody sees. It is in
    /// the engine's stream after all writes that the client has replies for.
    pub(super) fn write_before_wait(&mut self, index: usize) -> Result<(), Flow> {
        if !self.barrier(index) {
            return Err(Flow::Hold);
        }
        let session = &self.clients[index].session;
        if session.own.transaction == Transaction::Open || session.subscribed_in_resp2() {
            return Ok(());
        }
        let place = self.own(index)?;
        let written = self.served[self.clients[index].served]
            .engine
            .as_ref()
            .and_then(|engine| engine.version.text())
            .is_none_or(|version| !version.starts_with(b"6."));
        let mark = if written { MARK } else { MARK_6 };
        self.send_unheard(index, place, mark, super::backend::Effect::None);
        Ok(())
    }

    /// Sends something on behalf of a client whose reply it does not get.
    pub(super) fn send_unheard(
        &mut self,
        index: usize,
        place: usize,
        frame: &[u8],
        effect: super::backend::Effect,
    ) {
        self.send_unheard_with(index, place, frame, effect, Rewrite::None);
    }

    /// The same; what is to be done with the reply beside that.
    pub(super) fn send_unheard_with(
        &mut self,
        index: usize,
        place: usize,
        frame: &[u8],
        effect: super::backend::Effect,
        rewrite: Rewrite,
    ) {
        self.keep(index, place, frame, effect);
        let (client, seen) = (self.client_id(index), self.unseen());
        let backend = &mut self.backends[place];
        backend.out.push(frame);
        backend.expect(Run {
            client,
            count: 1,
            discard: true,
            effect,
            rewrite,
            seen,
        });
        self.clients[index].in_flight += 1;
        self.mark_backend(place);
    }

    /// The client's own connection, ready for a command.
    pub(super) fn own(&mut self, index: usize) -> Result<usize, Flow> {
        if std::mem::take(&mut self.clients[index].refused_own) {
            return Err(self.answer_in_order(index, texts::NO_CONNECTION));
        }
        let id = self.link_of(index);
        if self.is_closed(id) {
            return Err(self.wait_at_gate(index, id));
        }
        if self.has_lapsed(id) {
            return Err(self.wait_for_lease(index, id));
        }
        if let Lane::Own(place) = self.clients[index].lane
            && self.backends[place].target != self.served[id.served].shards[id.shard].number
        {
            self.follow_primary(index, place)?;
        }
        if let Lane::Own(place) = self.clients[index].lane {
            if self.backends[place].phase == Phase::Ready {
                return Ok(place);
            }
            self.clients[index].wait = Wait::Link;
            return Err(Flow::Hold);
        }
        if !self.barrier(index) {
            return Err(Flow::Hold);
        }
        if !self.link(id).is_some_and(|link| link.ready) {
            return Err(self.wait_for_link(index));
        }
        let name = self.client_id(index);
        let idle = self.link_mut(id).and_then(|link| link.idle.pop());
        let place = match idle {
            Some(place) => {
                self.backends[place].usage = Use::Own(name);
                self.clients[index].lane = Lane::Own(place);
                self.set_up_own(place);
                self.keep_spares(id);
                place
            }
            None => match self.open(id, Use::Own(name)) {
                Ok(place) => {
                    self.keep_spares(id);
                    place
                }
                Err(NotOpened::Crowded) if self.wait_in_crowd(index, id) => {
                    return Err(Flow::Hold);
                }
                Err(reason) => {
                    tracing::warn!(%reason, "no connection for a single client can be opened");
                    return Err(self.answer_in_order(index, texts::NO_CONNECTION));
                }
            },
        };
        self.clients[index].lane = Lane::Own(place);
        if self.backends[place].phase == Phase::Ready {
            return Ok(place);
        }
        self.clients[index].wait = Wait::Link;
        Err(Flow::Hold)
    }

    /// Waits for the shared connection to be ready, up to a bound.
    fn wait_for_link(&mut self, index: usize) -> Flow {
        let id = self.link_of(index);
        if self.is_closed(id) {
            return self.wait_at_gate(index, id);
        }
        self.need(id);
        if self.lease_is_over(id) {
            return self.answer_no_lease(index, id);
        }
        if self.link(id).is_none_or(super::link::Link::hold_is_over) {
            let shards = &self.served[id.served].database.shards;
            let trouble = shards
                .get(id.shard)
                .and_then(|shard| shard.trouble.as_ref());
            let text = trouble.map(|reason| texts::did_not_run(reason));
            let text = text.as_deref().unwrap_or(texts::UNAVAILABLE);
            return self.answer_in_order(index, text);
        }
        let name = self.client_id(index);
        if let Some(link) = self.link_mut(id) {
            link.waiters.push(name);
        }
        self.clients[index].wait = Wait::Link;
        Flow::Hold
    }

    /// The client needs its own connection no more: another may have it if nothing is left of the
    /// client on it.
    pub(super) fn leave_own(&mut self, index: usize, place: usize) {
        self.clients[index].lane = Lane::Shared;
        let keep = self.clients[index].keep.as_ref();
        let tracked = keep.is_some_and(|keep| keep.was_tracked());
        if !self.is_parked(index) {
            self.forget_keep(index);
        }
        let clean = !tracked
            && self.clients[index].session.shareable()
            && self.clients[index].session.own.db == Db::Number(0)
            && self.backends[place].clean();
        let backend = &self.backends[place];
        let (id, target) = (backend.link, backend.target);
        let current = self.served[id.served].shards[id.shard].number == target;
        let room = self
            .link(id)
            .is_some_and(|link| link.idle.len() < bounds::IDLE_KEPT);
        if !(clean && current && room) {
            self.drop_backend(place);
            return;
        }
        self.lay_aside(place);
    }
}
