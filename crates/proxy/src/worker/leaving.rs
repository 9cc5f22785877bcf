//! Clients that leave or are freed while a command of theirs blocks in the engine.
//!
//! The engine sees the end of a connection only when it reads that socket. Until then it may hand
//! an element to a client that is gone. So a client that has a blocking command or subscriptions
//! under way is ended *at the engine*, by a command over the connection that all share, and vanishes
//! from `CLIENT LIST` only with the reply to that. It is the same with `CLIENT KILL` and
//! `CLIENT UNBLOCK`: they are answered when the engine has done it.

use super::Worker;
use super::backend::{Effect, Phase, Rewrite};
use super::client::{ClientId, Lane, Wait};
use super::gather::Gather;
use super::link::LinkId;
use super::own_words::encode_own;
use super::session::OwnState;
use super::timers::Timer;
use crate::bounds;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// A connection over which a client gets messages.
#[derive(Debug)]
pub(super) struct Listening {
    link: LinkId,
    target: u64,
    /// The engine's own number of it.
    number: String,
}

impl Worker {
    /// Ends a client's connection; if the engine may hand something out to it, there first.
    pub(super) fn close_client(&mut self, index: usize) {
        let index = self.front_of(index);
        if !self.begin_leaving(index) {
            self.remove_client(index);
        }
    }

    /// Ends a client's connection at once, and what only it used.
    pub(super) fn remove_client(&mut self, index: usize) {
        self.close_legs(index);
        let own = match self.clients[index].lane {
            Lane::Own(backend) => Some(backend),
            Lane::Shared | Lane::Gone => None,
        };
        if let Some(backend) = own {
            self.leave_own(index, backend);
        }
        self.forget_keep(index);
        let id = self.client_id(index);
        let mut client = self.clients.remove(index);
        if let Some(stream) = &mut client.stream {
            let _ = self.poll.registry().deregister(stream);
        }
        for backend in client.paused {
            if self.backends.contains(backend) {
                self.queue_backend(backend);
            }
        }
        let database = &self.served[client.served].database;
        database.stats.connections.fetch_sub(1, Ordering::Relaxed);
        self.stats.connections.fetch_sub(1, Ordering::Relaxed);
        self.stats.sockets.fetch_sub(1, Ordering::Relaxed);
        self.state.clients.fetch_sub(1, Ordering::Relaxed);
        if self.clients.is_empty() {
            self.clients.shrink_to_fit();
        }
        self.fulfil(id, false, 0);
    }

    /// Ends a client at the engine first, if that may hand something out to it. `false`: there is
    /// no need, or no way.
    pub(super) fn begin_leaving(&mut self, index: usize) -> bool {
        if self.clients[index].wait == Wait::Leaving {
            return true;
        }
        let mut parts: Vec<usize> = self.legs_of(index).collect();
        parts.push(index);
        let told = parts
            .iter()
            .filter(|part| self.end_at_engine(**part))
            .count();
        if told == 0 {
            return false;
        }
        let client = &mut self.clients[index];
        client.leaving = told;
        client.wait = Wait::Leaving;
        client.tail = Vec::new();
        client.owed = None;
        // The socket is watched no more: whatever comes changes nothing.
        if let Some(stream) = &mut client.stream {
            let _ = self.poll.registry().deregister(stream);
        }
        let id = self.client_id(index);
        self.timers.set(bounds::LEAVING, Timer::Leaving(id));
        true
    }

    /// Ends the own connection of a client, or of a leg, at the engine.
    fn end_at_engine(&mut self, index: usize) -> bool {
        let client = &self.clients[index];
        let Lane::Own(own) = client.lane else {
            return false;
        };
        if client.blocking == 0 && !client.session.own.subscriptions.any() {
            return false;
        }
        let Some(number) = self.engine_client(own) else {
            return false;
        };
        let words: [&[u8]; 4] = [b"CLIENT", b"KILL", b"ID", number.as_bytes()];
        if !self.tell_engine(index, own, &words, Effect::Freed) {
            return false;
        }
        self.clients[index].lane = Lane::Shared;
        self.drop_backend(own);
        true
    }

    /// The parts of a client whose command blocks: itself, or legs of it; `WAIT` does at every shard.
    pub(super) fn blocked_parts(&self, index: usize) -> Vec<usize> {
        let blocks = |part: &usize| self.clients[*part].blocking > 0;
        let parts = std::iter::once(index).chain(self.legs_of(index));
        parts.filter(blocks).collect()
    }

    /// Asks the engine to let the blocking command of a client go; `false`: it has none.
    pub(super) fn unblock(&mut self, index: usize, error: bool) -> bool {
        let client = &self.clients[index];
        let Lane::Own(own) = client.lane else {
            return false;
        };
        let Some(number) = self.engine_client(own) else {
            return false;
        };
        if client.blocking == 0 || !self.let_go_by_client(index) {
            return false;
        }
        let reason: &[u8] = if error { b"ERROR" } else { b"TIMEOUT" };
        let words: [&[u8]; 4] = [b"CLIENT", b"UNBLOCK", number.as_bytes(), reason];
        let told = self.tell_engine(index, own, &words, Effect::Unblocked);
        if !told {
            self.let_go_answered(index, false);
        }
        told
    }

    /// The engine's own number of a connection.
    fn engine_client(&self, place: usize) -> Option<String> {
        let backend = &self.backends[place];
        (backend.phase == Phase::Ready).then(|| backend.engine_client.to_string())
    }

    /// The connections over which a client gets messages, as the engines name them.
    pub(super) fn listening(&self, index: usize) -> Vec<Listening> {
        let mut parts: Vec<usize> = self.legs_of(index).collect();
        parts.push(index);
        let listens = |part: &usize| self.clients[*part].session.own.subscriptions.any();
        let found = parts.into_iter().filter(listens).filter_map(|part| {
            let Lane::Own(own) = self.clients[part].lane else {
                return None;
            };
            let backend = &self.backends[own];
            Some(Listening {
                link: backend.link,
                target: backend.target,
                number: self.engine_client(own)?,
            })
        });
        found.collect()
    }

    /// Ends such connections, at the engines too; `true`: the client waits for that. What anybody publishes once it
    /// has its answer does not reach it.
    pub(super) fn stop_listening(&mut self, index: usize) -> bool {
        let connections = self.listening(index);
        if connections.is_empty() {
            return false;
        }
        self.close_legs(index);
        if let Lane::Own(own) = self.clients[index].lane {
            self.leave_own(index, own);
        }
        self.clients[index].session.own = OwnState::default();
        for connection in connections {
            let (link, target) = (connection.link, connection.target);
            let Some(place) = self.shared_beside(link, target) else {
                continue;
            };
            let words: [&[u8]; 4] = [b"CLIENT", b"KILL", b"ID", connection.number.as_bytes()];
            let mut frame = Vec::new();
            encode_own(words, &mut frame);
            self.send_unheard(index, place, &frame, Effect::None);
        }
        !self.barrier(index)
    }

    /// The connection that all share to the engine of another one.
    fn shared_beside(&self, link: LinkId, target: u64) -> Option<usize> {
        [link.resp, 5 - link.resp].into_iter().find_map(|resp| {
            let id = LinkId { resp, ..link };
            let link = self.link(id)?;
            // A gate that closes lets this pass: it helps what is under way to its end.
            let open = link.ready || (self.is_closed(id) && !self.is_held(id));
            let place = link.shared.filter(|_| open)?;
            (self.backends[place].target == target).then_some(place)
        })
    }

    /// Sends a command about a client's own connection over the one that all share. Its reply is
    /// nobody's.
    pub(super) fn tell_engine(
        &mut self,
        index: usize,
        own: usize,
        words: &[&[u8]],
        effect: Effect,
    ) -> bool {
        self.tell_engine_with(index, own, words, effect, Rewrite::None)
    }

    /// The same; what is to be done with the reply beside that.
    pub(super) fn tell_engine_with(
        &mut self,
        index: usize,
        own: usize,
        words: &[&[u8]],
        effect: Effect,
        rewrite: Rewrite,
    ) -> bool {
        let (link, target) = (self.backends[own].link, self.backends[own].target);
        let shared = self.shared_beside(link, target);
        let Some(place) = shared else {
            return false;
        };
        let mut frame = Vec::new();
        encode_own(words.iter().copied(), &mut frame);
        self.send_unheard_with(index, place, &frame, effect, rewrite);
        true
    }

    /// Notes that an answer waits for what the engine says about a client.
    pub(super) fn promise(&mut self, index: usize, gather: &Arc<Gather>) {
        gather.one_more();
        let id = self.client_id(index);
        self.promised.push((id, Arc::clone(gather)));
    }

    /// What answers waited for has happened to a client; `done`: so many times.
    pub(super) fn fulfil(&mut self, id: ClientId, unblocked: bool, done: u64) {
        if self.promised.is_empty() {
            return;
        }
        let due = |(client, gather): &mut (ClientId, Arc<Gather>)| {
            *client == id && (!unblocked || gather.is_unblock())
        };
        for (_, gather) in self.promised.extract_if(.., due).collect::<Vec<_>>() {
            self.part_done(&gather, done);
        }
    }

    /// The engine has freed a client that leaves, or a leg of one.
    pub(super) fn freed(&mut self, id: ClientId) {
        let Some(index) = self.find(id).map(|part| self.front_of(part)) else {
            return;
        };
        let client = &mut self.clients[index];
        client.leaving = client.leaving.saturating_sub(1);
        if client.leaving == 0 {
            self.left(self.client_id(index));
        }
    }

    /// A client that leaves is free, or was not in time.
    pub(super) fn left(&mut self, id: ClientId) {
        if let Some(index) = self.find(id)
            && self.clients[index].wait == Wait::Leaving
        {
            self.remove_client(index);
        }
    }
}
