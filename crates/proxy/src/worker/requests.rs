//! Reading clients: where their commands end.

use super::Worker;
use super::backend::Effect;
use super::client::{Lane, Streaming, Wait};
use super::fan::Part;
use super::lanes::Flow;
use super::session::ReplyMode;
use crate::bounds;
use crate::stats::{ErrorKind, Tally};
use resp::command::{self, Kind, kind};
use resp::inline;
use resp::request::{Args, Progress, RequestError, RequestLimits, Shape};
use std::io::{self, Read};

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
        if !self.clients.get(index).is_some_and(|client| client.ended) {
            return false;
        }
        let blocks = |place: usize| {
            let client = &self.clients[place];
            let Lane::Own(backend) = client.lane else {
                return false;
            };
            let front = self.backends[backend].book.front();
            client.blocking > 0 && front.is_some_and(|run| run.effect == Effect::Blocking)
        };
        let blocked = blocks(index) || self.legs_of(index).any(blocks);
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
        if self.clients[index].exec.is_some() && !self.go_on_with_exec(index) {
            return;
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
        let Some(stream) = &mut client.stream else {
            return;
        };
        match stream.read(receive) {
            Ok(0) => {
                client.ended = true;
                client.readable = false;
                self.close_if_done(index);
            }
            Ok(count) => {
                // A short read has taken all; what comes later is a new event. The end of the
                // stream may have been announced already.
                client.readable = count == receive.len() || client.ended;
                client.session.active = self.now;
                client.session.received += count as u64;
                client.stats.count_ingress(count);
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

    pub(super) fn takes_commands(&self, index: usize) -> bool {
        self.clients.get(index).is_some_and(|client| {
            // What is owed comes before the reply to whatever is next.
            client.wait == Wait::Nothing
                && client.departs.since == 0
                && client.owed.is_none()
                && client.exec.is_none()
                && !self.too_much(index, client.out.len())
                && (matches!(client.part, Part::Whole) || self.fan_has_room(index))
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
        // What it has sent is looked at where it goes.
        if client.departs.since > 0 {
            return;
        }
        let own = &client.session.own;
        let streams = own.subscriptions.any() || own.monitor || own.tracking;
        // While its next command is held up by a pause, the engines close it, too.
        let paused = client.ended && client.wait == Wait::Paused;
        let waits = client.readable || client.wait != Wait::Nothing;
        if (waits && !paused) || client.owed.is_some() || client.exec.is_some() {
            return;
        }
        let out = client.out.is_empty();
        let in_flight = |part: usize| self.clients[part].in_flight > 0;
        let due = match &client.part {
            // The rest of a command that is cut off never comes, nor does its reply.
            _ if client.ended && client.streaming.is_some() => !self.settled_but_broken(index),
            Part::Front(fan) => !fan.is_settled() || self.legs_of(index).any(in_flight),
            Part::Whole | Part::Leg(_) => in_flight(index),
        };
        if !due && (streams || out) {
            self.close_client(index);
        }
    }

    /// Whether a client is to be closed as soon as it has nothing under way.
    pub(super) fn drains(&self, index: usize) -> bool {
        self.draining || self.served[self.clients[index].served].database.drains
    }

    fn draining_now(&self, index: usize) -> bool {
        let client = &self.clients[index];
        self.drains(index)
            && client.tail.is_empty()
            && client.session.shareable()
            && self.settled(index)
    }

    /// Takes commands from `bytes` as far as they can be taken; returns how far.
    fn parse(&mut self, index: usize, bytes: &[u8]) -> usize {
        let mut start = 0;
        let mut commands = Tally::default();
        // Whether what is left could be whole commands that have to wait.
        let mut waits = false;
        let mut allowed = self.allowance(index);
        let counted = allowed != u32::MAX;
        self.held = self.clients[index].held;
        loop {
            if allowed == 0 || !self.takes_commands(index) {
                waits = start < bytes.len();
                break;
            }
            let (used, passed) = match self.clients[index].part {
                Part::Front(_) => self.fan_pass_on(index, &bytes[start..], allowed),
                Part::Whole | Part::Leg(_) => self.pass_on(index, &bytes[start..], allowed),
            };
            if used > 0 {
                start += used;
                allowed -= passed.total();
                commands.add_all(passed);
                if start == bytes.len() {
                    break;
                }
                continue;
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
            match self.take_one(index, &bytes[start..], &mut commands) {
                Ok(used) => {
                    allowed -= 1;
                    start += used;
                }
                Err(held) => {
                    waits = held;
                    break;
                }
            }
        }
        self.parsed(index, commands, waits);
        if counted && self.clients.contains(index) {
            self.tell_rate_of(index);
        }
        if allowed == 0 && start < bytes.len() {
            self.allowance_used(index);
        }
        start
    }

    /// Takes the command at the start of `bytes`, the long way, and counts it. Returns its bytes, or as many
    /// as have come if it is passed on as it comes; `Err`: not now, and whether it is whole and waits.
    #[inline]
    fn take_one(
        &mut self,
        index: usize,
        bytes: &[u8],
        commands: &mut Tally,
    ) -> Result<usize, bool> {
        let client = &mut self.clients[index];
        let limits = limits(client);
        let scanned = client.scanned;
        match client.framer.advance(&bytes[scanned..], limits) {
            Ok(Progress::Complete { consumed, shape }) => {
                client.scanned = 0;
                let end = scanned + consumed;
                self.behind = end < bytes.len() || client.readable;
                self.placed_at(index, 0);
                match self.dispatch(index, &bytes[..end], shape) {
                    Flow::Next => {
                        count_kind(&bytes[..end], shape, commands);
                        Ok(end)
                    }
                    // The same command is looked at again.
                    flow => Err(flow == Flow::Hold),
                }
            }
            Ok(Progress::Incomplete { consumed }) => {
                client.scanned += consumed;
                match self.begin_if_long(index, bytes) {
                    0 => Err(false),
                    used => {
                        count_kind(&bytes[..used], Shape::Array, commands);
                        Ok(used)
                    }
                }
            }
            Err(error) => {
                self.not_understood(index, error);
                Err(false)
            }
        }
    }

    /// Passes on what has come of a command that is too long to be held. Returns its bytes; 0: it is
    /// not, or not now.
    fn begin_if_long(&mut self, index: usize, bytes: &[u8]) -> usize {
        let known = self.clients[index].scanned;
        if bytes.len() <= bounds::STREAM_ABOVE || known == 0 || !self.may_be_placed(index, known) {
            return 0;
        }
        match self.begin_stream(index, &bytes[..known]) {
            Flow::Next => {
                if let Some(client) = self.clients.get_mut(index) {
                    client.scanned = 0;
                }
                known
            }
            Flow::Hold | Flow::More => 0,
        }
    }

    /// The short way of what most clients send: passes on commands that are whole, may go over the
    /// connection that all share, and are nothing special, all at once. Returns their bytes and them by
    /// kind; none: the next command goes the long way.
    #[inline]
    fn pass_on(&mut self, index: usize, bytes: &[u8], allowed: u32) -> (usize, Tally) {
        let client = &self.clients[index];
        let known = client.lane == Lane::Shared
            && client.session.authenticated
            && client.session.reply == ReplyMode::On
            && client.scanned == 0
            && client.framer.at_start()
            && client.streaming.is_none()
            && !client.heavy
            && !self.served[client.served].pause.any();
        if !known {
            return (0, Tally::default());
        }
        let Some(place) = self.shared_place(index) else {
            return (0, Tally::default());
        };
        let room = bounds::SHARD_OUT_MAX.saturating_sub(self.backends[place].out.len());
        let (used, commands) = match allowed {
            u32::MAX => plain_run::<false>(bytes, room, allowed),
            _ => plain_run::<true>(bytes, room, allowed),
        };
        if used > 0 {
            self.append(index, place, &bytes[..used], commands);
        }
        (used, commands)
    }

    /// Counts the commands that were taken, and notes since when the others wait.
    fn parsed(&mut self, index: usize, commands: Tally, waits: bool) {
        self.held = 0;
        self.asked.0 += 1;
        self.asked.1 += u64::from(commands.total());
        if let Some(client) = self.clients.get_mut(index) {
            client.session.commands += u64::from(commands.total());
            client.stats.count_requests(commands);
            client.held = match client.held {
                _ if !waits => 0,
                0 => self.clock,
                since => since,
            };
        }
    }

    /// Passes on more of a long command. Returns the bytes used and whether it is whole.
    fn stream_on(&mut self, index: usize, bytes: &[u8]) -> Result<(usize, bool), RequestError> {
        if let Some(Streaming::Broken(error)) = self.clients[index].streaming {
            return if self.barrier(index) {
                Err(error)
            } else {
                Ok((0, false))
            };
        }
        let carrier = self.carrier(index);
        let to_shard = matches!(self.clients[carrier].streaming, Some(Streaming::ToShard));
        let place = match self.clients[carrier].lane {
            Lane::Own(place) if to_shard => Some(place),
            _ => None,
        };
        if let Some(place) = place
            && self.backends[place].out.len() > bounds::SHARD_OUT_MAX
        {
            let name = self.client_id(carrier);
            self.backends[place].stalled.push(name);
            self.clients[index].wait = Wait::Leg;
            self.clients[carrier].wait = Wait::Room;
            return Ok((0, false));
        }
        if self.stream_waits(index) {
            return Ok((0, false));
        }
        let client = &mut self.clients[index];
        let limits = limits(client);
        let (used, whole) = match client.framer.advance(bytes, limits) {
            Ok(Progress::Complete { consumed, .. }) => (consumed, true),
            Ok(Progress::Incomplete { consumed }) => (consumed, false),
            Err(error) => {
                client.streaming = Some(Streaming::Broken(error));
                return self.stream_on(index, bytes);
            }
        };
        if whole {
            self.streamed(index);
        }
        if let Some(place) = place {
            let backend = &mut self.backends[place];
            backend.out.push(&bytes[..used]);
            backend.half_sent = !whole;
            self.mark_backend(place);
        }
        Ok((used, whole))
    }

    /// A client sent what is no command: its turn comes after its replies.
    fn not_understood(&mut self, index: usize, error: RequestError) {
        if self.barrier(index) {
            self.protocol_error(index, error);
        } else {
            client_rescan(&mut self.clients[index]);
        }
    }

    /// A client sent what is no command: it gets the reason and is closed.
    pub(super) fn protocol_error(&mut self, index: usize, error: RequestError) {
        let peer = self.clients[index].session.peer;
        tracing::info!(%peer, %error, "a client is closed");
        self.count_error(index, ErrorKind::Protocol);
        let client = &mut self.clients[index];
        match error {
            // The engines send the byte as it came.
            RequestError::NoBulk(byte) => {
                let parts: [&[u8]; 3] = [
                    b"-ERR Protocol error: expected '$', got '",
                    &[byte],
                    b"'\r\n",
                ];
                client.out.push(&parts.concat());
            }
            _ => client.out.push(format!("-ERR {error}\r\n").as_bytes()),
        }
        self.farewell(index);
    }
}

/// How far `bytes` are commands that are whole and nothing special, and how many of each kind: until there
/// are `room` bytes, or, if they are counted, `allowed` commands.
#[inline]
fn plain_run<const COUNTED: bool>(bytes: &[u8], room: usize, allowed: u32) -> (usize, Tally) {
    let (mut used, mut commands, mut left) = (0, Tally::default(), allowed);
    while used < room
        && (!COUNTED || left > 0)
        && let Some((length, name)) = resp::request::whole(&bytes[used..])
        && let Some(kind) = command::plain(name)
    {
        used += length;
        commands.add(kind);
        if COUNTED {
            left -= 1;
        }
    }
    (used, commands)
}

/// Counts a command that went another than the short way. `frame` may be the beginning of it.
fn count_kind(frame: &[u8], shape: Shape, commands: &mut Tally) {
    let kind = match shape {
        Shape::Empty => return,
        Shape::Array => Args::of(frame).next().map_or(Kind::Other, kind),
        Shape::Inline => {
            let words = inline::split(frame.trim_ascii_end()).unwrap_or_default();
            words.first().map_or(Kind::Other, |name| kind(name))
        }
    };
    commands.add(kind);
}

fn limits(client: &super::Client) -> RequestLimits {
    RequestLimits {
        authenticated: client.session.authenticated,
    }
}

/// The bytes are shown to the framer again later.
fn client_rescan(client: &mut super::Client) {
    client.framer = resp::request::RequestFramer::default();
    client.scanned = 0;
}
