//! Reading shards: whose reply it is. Replies flow through; a client gets them straight from the
//! receive buffer if nothing else waits for it.

use super::Worker;
use super::backend::{Backend, Phase, Rewrite, Use};
use super::client::{ClientId, Wait};
use super::fan::Part;
use crate::bounds;
use crate::stats::ErrorKind;
use std::io::{self, Write};
use std::ops::Range;

const UNASKED: &str = "the shard sent a reply that nobody asked for";
/// Begins no reply: the rest of one that is too long is not kept.
const NOTHING: u8 = 0;
const TOO_LONG: &str = "the shard sent too long a reply to a command that the proxy looks into";

impl Worker {
    pub(super) fn read_backend(&mut self, index: usize) {
        let Some(backend) = self.backends.get_mut(index) else {
            return;
        };
        backend.queued = false;
        let generation = backend.generation;
        if backend.phase == Phase::Connecting {
            self.connecting(index);
        }
        let mut receive = std::mem::take(&mut self.reply_receive);
        for _ in 0..bounds::READS_PER_TURN {
            if !self.is_current(index, generation) || !self.may_read(index) {
                break;
            }
            self.receive_replies(index, &mut receive);
        }
        self.reply_receive = receive;
        if self.is_current(index, generation) && self.may_read(index) {
            self.queue_backend(index);
        }
    }

    fn is_current(&self, index: usize, generation: u32) -> bool {
        self.backends
            .get(index)
            .is_some_and(|backend| backend.generation == generation)
    }

    fn receive_replies(&mut self, index: usize, receive: &mut [u8]) {
        let backend = &mut self.backends[index];
        match backend.stream.read(receive) {
            Ok(0) => self.lose(index, "the shard closed the connection"),
            Ok(_) if !backend.may_answer() => self.not_answered(index),
            Ok(count) => {
                backend.readable = count == receive.len() || backend.ended;
                let taken = self.take_replies(index, &receive[..count]);
                self.write_touched(&receive[..count]);
                if let Err(reason) = taken {
                    self.lose(index, &reason);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => backend.readable = false,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => self.lose(
                index,
                &format!("the connection to the shard broke: {error}"),
            ),
        }
    }

    /// Whether there is something to read, and its receiver can take it.
    fn may_read(&mut self, index: usize) -> bool {
        let backend = &self.backends[index];
        if !backend.readable || backend.phase == Phase::Connecting || backend.muted {
            return false;
        }
        if !self.lease_lets_read(index) {
            return false;
        }
        let backend = &self.backends[index];
        let usage = backend.usage;
        let receiver = match usage {
            Use::Own(owner) => Some(owner),
            Use::Shared | Use::Leaving => backend.book.front().map(|run| run.client),
            Use::Idle(_) | Use::Next(_) => None,
        };
        let Some(client) = receiver.and_then(|id| self.find(id)) else {
            return true;
        };
        // What a leg holds waits for other shards, not for the client. Its own connection may wait
        // with it; one that others share may not.
        let front = self.front_of(client);
        let waiting = self.clients[front].untaken();
        match usage {
            // A gate that closes waits for all replies.
            Use::Own(_) if waiting <= self.limits(front).out_hard && self.must_end(index) => true,
            Use::Own(_) if self.too_much(front, waiting) => {
                if self.brings_unasked(front, index) {
                    return self.is_kept_up_with(front, waiting);
                }
                self.pause(front, index);
                false
            }
            Use::Own(_) if self.leg_is_full(client) => {
                self.pause(client, index);
                false
            }
            Use::Shared if self.too_much(front, waiting) => {
                // The others go on over a new connection; what is in flight here comes in order.
                self.clients[client].heavy = true;
                self.detach(index);
                true
            }
            Use::Leaving
                if waiting > self.limits(front).out_hard && !self.is_relieved(front, index) =>
            {
                self.pause(front, index);
                self.is_in_the_way(front, index);
                false
            }
            _ => true,
        }
    }

    /// Reads a connection no more until the client has taken what waits for it.
    fn pause(&mut self, client: usize, backend: usize) {
        let paused = &mut self.clients[client].paused;
        if !paused.contains(&backend) {
            paused.push(backend);
        }
    }

    #[inline]
    pub(super) fn take_replies(&mut self, index: usize, bytes: &[u8]) -> Result<(), String> {
        let generation = self.backends[index].generation;
        let mut at = 0;
        while at < bytes.len() && self.is_current(index, generation) {
            let used = self.take_simple(index, bytes, at);
            if used > 0 {
                at += used;
                continue;
            }
            let got = self.backends[index]
                .framer
                .advance_to_error(&bytes[at..])
                .map_err(|error| error.to_string())?;
            let range = at..at + got.consumed;
            at = range.end;
            self.take_part(index, bytes, range, got.complete)?;
            if self
                .backends
                .get(index)
                .is_some_and(|backend| backend.muted)
            {
                self.keep_left(index, &bytes[at..]);
                break;
            }
        }
        Ok(())
    }

    /// The short way of what most commands get: takes the simple replies at `at` that are the next ones
    /// of one client and change nothing, all at once. Returns their bytes; 0: the next reply goes the
    /// long way.
    #[inline]
    fn take_simple(&mut self, index: usize, bytes: &[u8], at: usize) -> usize {
        let backend = &mut self.backends[index];
        let shared = matches!(backend.usage, Use::Shared | Use::Leaving);
        if !shared || backend.phase != Phase::Ready || !backend.framer.at_start() {
            return 0;
        }
        let Some(run) = backend.book.front_mut() else {
            return 0;
        };
        if run.discard || !run.is_plain() {
            return 0;
        }
        let (id, most) = (run.client, run.count);
        let client = self.find(id);
        let most = client.map_or(most, |client| self.most_at_once(client, most));
        let (used, count, errors) = resp::reply::simple_run(&bytes[at..], most);
        if count == 0 {
            return 0;
        }
        let clock = self.clock;
        let backend = &mut self.backends[index];
        let Some(run) = backend.book.front_mut() else {
            return 0;
        };
        let before = std::mem::replace(&mut backend.heard, clock);
        let slow = run.answered(count, clock, backend.usage, &backend.stats);
        if errors > 0 {
            backend.stats.count_errors(ErrorKind::Engine, errors);
        }
        if run.count == 0 {
            backend.book.pop_front();
        }
        let last =
            backend.usage == Use::Leaving && backend.book.is_empty() && backend.out.is_empty();
        if let Some(client) = client {
            self.clients[client].in_flight -= count;
            if let Part::Leg(_) = self.clients[client].part {
                self.leg_brings(client, bytes, at..at + used, count);
            } else {
                self.deliver(client, bytes, at..at + used);
            }
            self.check_barrier(client);
        }
        if let Some(seen) = slow {
            self.slow(index, id, &seen, before);
        }
        if last {
            self.drop_backend(index);
        }
        used
    }

    /// Takes a reply, or the part of one that has come.
    #[inline]
    fn take_part(
        &mut self,
        index: usize,
        bytes: &[u8],
        range: Range<usize>,
        complete: bool,
    ) -> Result<(), &'static str> {
        let backend = &mut self.backends[index];
        if backend.phase != Phase::Ready {
            return self.take_greeting(index, bytes, range, complete);
        }
        if let Use::Next(super::backend::Next::Client(_)) = backend.usage {
            return self.take_moving(index, None, bytes, range, complete);
        }
        if let Use::Own(owner) = backend.usage {
            if backend.moving.is_some() {
                return self.take_moving(index, Some(owner), bytes, range, complete);
            }
            return self.take_own_part(index, owner, bytes, range, complete);
        }
        let push = backend.framer.head().kind == b'>';
        let Some(run) = backend.book.front() else {
            return if push { Ok(()) } else { Err(UNASKED) };
        };
        if push {
            return Ok(());
        }
        let id = run.client;
        if let Some(mark) = run.mark() {
            if let Some(client) = self.find(id) {
                self.deliver_cursor(index, client, mark, bytes, range, complete)?;
            }
        } else if run.captured() {
            capture(backend, &bytes[range])?;
        } else if !run.discard
            && let Some(client) = self.find(id)
        {
            self.deliver_part(index, client, bytes, range, complete)?;
        }
        if complete {
            self.reply_done(index, bytes);
        }
        Ok(())
    }

    /// What comes before a connection is ready. Messages are none of the replies that are waited for.
    fn take_greeting(
        &mut self,
        index: usize,
        bytes: &[u8],
        range: Range<usize>,
        complete: bool,
    ) -> Result<(), &'static str> {
        let set_up = self.is_set_up(index);
        let backend = &mut self.backends[index];
        if !set_up {
            capture(backend, &bytes[range])?;
        }
        let unasked: [&[u8]; 4] = [b"message", b"pmessage", b"smessage", b"invalidate"];
        if complete && !(set_up && unasked.contains(&backend.framer.head().first())) {
            self.greeted(index);
        }
        Ok(())
    }

    pub(super) fn take_own_part(
        &mut self,
        index: usize,
        owner: ClientId,
        bytes: &[u8],
        range: Range<usize>,
        complete: bool,
    ) -> Result<(), &'static str> {
        let Some(client) = self.find(owner) else {
            return Err(UNASKED);
        };
        if self.is_message_of_leg(index, client) {
            return self.take_message(index, client, bytes, range, complete);
        }
        let session = &self.clients[client].session;
        let backend = &mut self.backends[index];
        let kind = backend.framer.head().kind;
        let session_monitors = session.own.monitor;
        let asked = kind != b'>' && !session_monitors;
        if kind == b'-' && self.was_asked(index, client) {
            return self.take_unblocked(index, client, bytes, range, complete);
        }
        if session_monitors && kind == b'+' {
            self.take_line(index, client, bytes, range, complete);
            return match complete {
                true => self.own_done(index, client, bytes),
                false => Ok(()),
            };
        }
        let backend = &mut self.backends[index];
        let mark = backend.book.front().and_then(|run| run.mark());
        match backend.book.front() {
            // A message is not what is asked for.
            Some(run)
                if asked && run.captured() && !(session.subscribed_in_resp2() && kind == b'*') =>
            {
                capture(backend, &bytes[range])?;
            }
            // Messages are arrays too, and are wanted in any case.
            Some(run)
                if asked && run.discard && !(session.subscribed_in_resp2() && kind == b'*') => {}
            _ => match mark.filter(|_| asked) {
                Some(mark) => self.deliver_cursor(index, client, mark, bytes, range, complete)?,
                None => self.deliver_part(index, client, bytes, range, complete)?,
            },
        }
        if complete {
            self.own_done(index, client, bytes)?;
        }
        Ok(())
    }

    /// Gives a part of the receive buffer to a client.
    #[inline]
    pub(super) fn deliver(&mut self, index: usize, bytes: &[u8], range: Range<usize>) {
        let Some(index) = self.receiver(index, &bytes[range.clone()]) else {
            return;
        };
        let client = &mut self.clients[index];
        if client.wait == Wait::Farewell || client.keeps_behind_exec(&bytes[range.clone()]) {
            return;
        }
        if client.slice.end == range.start && !client.slice.is_empty() {
            client.slice.end = range.end;
        } else if client.slice.is_empty() && client.out.is_empty() {
            client.slice = range;
            self.touched.push(index);
        } else {
            let slice = std::mem::replace(&mut client.slice, 0..0);
            client.out.push(&bytes[slice]);
            client.out.push(&bytes[range]);
            self.mark_client(index);
        }
    }

    /// Writes to clients what is for them in the receive buffer, and keeps what they do not take.
    #[inline]
    pub(super) fn write_touched(&mut self, bytes: &[u8]) {
        let mut touched = std::mem::take(&mut self.touched);
        for index in touched.drain(..) {
            let Some(client) = self.clients.get_mut(index) else {
                continue;
            };
            let slice = std::mem::replace(&mut client.slice, 0..0);
            let slice = bytes.get(slice).unwrap_or_default();
            if slice.is_empty() {
                continue;
            }
            let Some(stream) = &mut client.stream else {
                continue;
            };
            if !client.writable || !client.out.is_empty() {
                client.out.push(slice);
                self.mark_client(index);
                continue;
            }
            match stream.write(slice) {
                Ok(written) => {
                    client.written += written as u64;
                    client.stats.count_egress(written);
                    client.writable = written == slice.len();
                    client.out.push(&slice[written..]);
                    self.after_flush(index);
                }
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                    ) =>
                {
                    client.writable = error.kind() == io::ErrorKind::Interrupted;
                    client.out.push(slice);
                    self.mark_client(index);
                }
                Err(_) => self.close_client(index),
            }
        }
        self.touched = touched;
    }

    /// Writes what waits for a shard, once.
    pub(super) fn flush_backend(&mut self, index: usize) {
        let Some(backend) = self.backends.get_mut(index) else {
            return;
        };
        backend.dirty = false;
        if backend.phase == Phase::Connecting {
            return;
        }
        if !backend.out.is_empty() && !backend.may_send() {
            self.not_sent(index);
            return;
        }
        while backend.writable && !backend.out.is_empty() {
            let pending = backend.out.pending();
            match backend.stream.write(pending) {
                Ok(written) => {
                    backend.writable = written == pending.len();
                    backend.out.advance(written, bounds::RECEIVE);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => backend.writable = false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.lose(
                        index,
                        &format!("the connection to the shard broke: {error}"),
                    );
                    return;
                }
            }
        }
        let Some(backend) = self.backends.get_mut(index) else {
            return;
        };
        if backend.watched == backend.writable {
            backend.watched = !backend.writable;
            let (token, watched) = (super::backend_token(index), backend.watched);
            if let Err(error) = backend.stream.watch(self.poll.registry(), token, watched) {
                self.lose(index, &format!("the shard cannot be watched: {error}"));
                return;
            }
        }
        let Some(backend) = self.backends.get_mut(index) else {
            return;
        };
        if backend.out.len() <= bounds::SHARD_OUT_MAX / 2 && !backend.stalled.is_empty() {
            for id in std::mem::take(&mut backend.stalled) {
                if let Some(client) = self.find(id)
                    && self.clients[client].wait == Wait::Room
                {
                    self.resume(client);
                }
            }
        }
    }
}

fn capture(backend: &mut Backend, bytes: &[u8]) -> Result<(), &'static str> {
    let most = match backend.book.front().map(|run| &run.rewrite) {
        Some(Rewrite::Exec) => super::queued::EXEC_REPLY_MAX,
        _ => bounds::REWRITTEN_REPLY_MAX,
    };
    if backend.captured.len() + bytes.len() > most {
        let rewrite = backend.book.front().map(|run| &run.rewrite);
        if matches!(rewrite, Some(Rewrite::Commands(_))) {
            // A client may ask for as much as it likes: others use this connection.
            backend.captured = vec![NOTHING];
            return Ok(());
        }
        return Err(TOO_LONG);
    }
    if backend.captured.first() == Some(&NOTHING) {
        return Ok(());
    }
    backend.captured.extend_from_slice(bytes);
    Ok(())
}
