//! Reading clients: where their commands end.

use super::Worker;
use super::backend::Effect;
use super::client::{Lane, Streaming, Wait};
use super::lanes::Flow;
use crate::bounds;
use resp::request::{Progress, RequestError, RequestLimits, Shape};
use std::io::{self, Read};
use std::time::Instant;

impl Worker {
    /// Looks at what a client has sent: what was kept first, then one receive.
    pub(super) fn read_client(&mut self, index: usize) {
        let Some(client) = self.clients.get_mut(index) else {
            return;
        };
        client.queued = false;
        let mut receive = std::mem::take(&mut self.receive);
        self.read_with(index, &mut receive);
        self.receive = receive;
        self.close_if_blocked(index);
    }

    /// Closes a client that has left while a command of it blocks: it will not take what that waits
    /// for, so the engine must not hand it out. Commands before it get their replies.
    pub(super) fn close_if_blocked(&mut self, index: usize) -> bool {
        let Some(client) = self.clients.get(index) else {
            return false;
        };
        let Lane::Own(backend) = client.lane else {
            return false;
        };
        let blocked = client.ended
            && client.blocking > 0
            && self.backends[backend]
                .book
                .front()
                .is_some_and(|run| run.effect == Effect::Blocking);
        if blocked {
            self.close_client(index);
        }
        blocked
    }

    fn read_with(&mut self, index: usize, receive: &mut [u8]) {
        if self.clients[index].owed.is_some() && self.clients[index].wait == Wait::Nothing {
            // Messages may have come meanwhile, and one may be half-way.
            if !self.barrier(index) {
                return;
            }
            let owed = self.clients[index].owed.take().unwrap_or_default();
            self.answer(index, &owed);
        }
        if !self.clients[index].tail.is_empty() && self.takes_commands(index) {
            let tail = std::mem::take(&mut self.clients[index].tail);
            self.parse_owned(index, tail);
        }
        if !self.takes_commands(index) || !self.clients[index].readable {
            self.close_if_done(index);
            return;
        }
        let client = &mut self.clients[index];
        match client.stream.read(receive) {
            Ok(0) => {
                client.ended = true;
                client.readable = false;
                self.close_if_done(index);
            }
            Ok(count) => {
                // A short read has taken all; what comes later is a new event. The end of the
                // stream may have been announced already.
                client.readable = count == receive.len() || client.ended;
                client.session.active = Instant::now();
                client.session.received += count as u64;
                if client.tail.is_empty() {
                    let used = self.parse(index, &receive[..count]);
                    if let Some(client) = self.clients.get_mut(index)
                        && used < count
                    {
                        client.tail.extend_from_slice(&receive[used..count]);
                    }
                } else {
                    let mut tail = std::mem::take(&mut client.tail);
                    tail.extend_from_slice(&receive[..count]);
                    self.parse_owned(index, tail);
                }
                if self
                    .clients
                    .get(index)
                    .is_some_and(|client| client.readable)
                    && self.takes_commands(index)
                {
                    self.queue_client(index);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                client.readable = false;
                self.close_if_done(index);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => self.queue_client(index),
            Err(_) => self.close_client(index),
        }
    }

    fn parse_owned(&mut self, index: usize, mut tail: Vec<u8>) {
        let used = self.parse(index, &tail);
        let Some(client) = self.clients.get_mut(index) else {
            return;
        };
        if used < tail.len() {
            if used > 0 {
                tail.drain(..used);
            }
            if tail.capacity() > 4 * tail.len().max(1024) {
                tail.shrink_to_fit();
            }
            if client.wait != Wait::Farewell {
                client.tail = tail;
            }
        }
    }

    fn takes_commands(&self, index: usize) -> bool {
        self.clients.get(index).is_some_and(|client| {
            // What is owed comes before the reply to whatever is next.
            client.wait == Wait::Nothing
                && client.owed.is_none()
                && client.out.len() <= bounds::CLIENT_OUT_SOFT
        })
    }

    /// Closes a client that will send no more and has got everything; when the server is being
    /// replaced, every client that has nothing under way.
    pub(super) fn close_if_done(&mut self, index: usize) {
        let Some(client) = self.clients.get(index) else {
            return;
        };
        if !client.ended && !self.draining_now(index) {
            return;
        }
        let own = &client.session.own;
        let streams = own.subscriptions.any() || own.monitor || own.tracking;
        if client.readable || client.wait != Wait::Nothing || client.owed.is_some() {
            return;
        }
        if client.in_flight == 0 && (streams || client.out.is_empty()) {
            self.close_client(index);
        }
    }

    fn draining_now(&self, index: usize) -> bool {
        let client = &self.clients[index];
        self.draining && client.tail.is_empty() && client.session.shareable() && self.settled(index)
    }

    /// Takes commands from `bytes` as far as they can be taken; returns how far.
    fn parse(&mut self, index: usize, bytes: &[u8]) -> usize {
        let mut start = 0;
        let mut commands = 0;
        self.admit_if_open(index);
        loop {
            if !self.takes_commands(index) {
                break;
            }
            let client = &mut self.clients[index];
            if client.streaming.is_some() {
                match self.stream_on(index, &bytes[start..]) {
                    Ok((used, true)) => start += used,
                    Ok((used, false)) => {
                        start += used;
                        break;
                    }
                    Err(error) => {
                        self.protocol_error(index, error);
                        break;
                    }
                }
                continue;
            }
            let limits = RequestLimits {
                authenticated: client.session.authenticated,
            };
            let scanned = client.scanned;
            match client.framer.advance(&bytes[start + scanned..], limits) {
                Ok(Progress::Complete { consumed, shape }) => {
                    client.scanned = 0;
                    let end = start + scanned + consumed;
                    match self.dispatch(index, &bytes[start..end], shape) {
                        Flow::Next => {
                            commands += u64::from(shape != Shape::Empty);
                            start = end;
                        }
                        // The same command is looked at again.
                        Flow::Hold => break,
                    }
                }
                Ok(Progress::Incomplete { consumed }) => {
                    client.scanned += consumed;
                    let known = client.scanned;
                    let long = bytes.len() - start > bounds::STREAM_ABOVE;
                    if !(long && known > 0) {
                        break;
                    }
                    match self.begin_stream(index, &bytes[start..start + known]) {
                        Flow::Next => {
                            commands += 1;
                            start += known;
                            if let Some(client) = self.clients.get_mut(index) {
                                client.scanned = 0;
                            }
                        }
                        Flow::Hold => break,
                    }
                }
                Err(error) => {
                    if self.barrier(index) {
                        self.protocol_error(index, error);
                    } else {
                        client_rescan(&mut self.clients[index]);
                    }
                    break;
                }
            }
        }
        self.count(index, commands);
        start
    }

    /// The password may have been taken away since the client came.
    fn admit_if_open(&mut self, index: usize) {
        if let Some(client) = self.clients.get_mut(index) {
            let password = &self.served[client.served].database.password;
            client.session.authenticated |= password.is_none();
        }
    }

    fn count(&mut self, index: usize, commands: u64) {
        if commands == 0 {
            return;
        }
        if let Some(client) = self.clients.get_mut(index) {
            client.session.commands += commands;
            let served = client.served;
            self.served[served]
                .database
                .stats
                .add_commands(self.number, commands);
        }
    }

    /// Passes on more of a long command. Returns the bytes used and whether it is whole.
    fn stream_on(&mut self, index: usize, bytes: &[u8]) -> Result<(usize, bool), RequestError> {
        let to_shard = matches!(self.clients[index].streaming, Some(Streaming::ToShard));
        let place = match self.clients[index].lane {
            Lane::Own(place) if to_shard => Some(place),
            _ => None,
        };
        if let Some(place) = place
            && self.backends[place].out.len() > bounds::SHARD_OUT_MAX
        {
            let name = self.client_id(index);
            self.backends[place].stalled.push(name);
            self.clients[index].wait = Wait::Room;
            return Ok((0, false));
        }
        let client = &mut self.clients[index];
        let limits = RequestLimits {
            authenticated: client.session.authenticated,
        };
        let progress = client.framer.advance(bytes, limits)?;
        let (used, whole) = match progress {
            Progress::Complete { consumed, .. } => (consumed, true),
            Progress::Incomplete { consumed } => (consumed, false),
        };
        if whole {
            client.streaming = None;
        }
        if let Some(place) = place {
            let backend = &mut self.backends[place];
            backend.out.push(&bytes[..used]);
            backend.half_sent = !whole;
            self.mark_backend(place);
        }
        Ok((used, whole))
    }

    /// A client sent what is no command: it gets the reason and is closed.
    pub(super) fn protocol_error(&mut self, index: usize, error: RequestError) {
        let peer = self.clients[index].session.peer;
        tracing::info!(%peer, %error, "a client is closed");
        let client = &mut self.clients[index];
        client.out.push(format!("-ERR {error}\r\n").as_bytes());
        self.farewell(index);
    }
}

/// The bytes are shown to the framer again later.
fn client_rescan(client: &mut super::Client) {
    client.framer = resp::request::RequestFramer::default();
    client.scanned = 0;
}
