//! What shards send unasked: messages of subscriptions, invalidations, the lines of `MONITOR`.
//!
//! A client subscribes on every shard, so whatever publishes — a client, a script, a transaction, a
//! shard's own events of its keys — reaches it once. The legs' confirmations are kept back and the
//! client gets one. Messages are handed on whole, between two replies, and behind the replies that their
//! shard sent before them.

use super::{Due, How, Part, Unsent, Waiting};
use crate::merge::Merge;
use crate::texts;
use crate::worker::Worker;
use crate::worker::backend::Effect;
use crate::worker::effects::Came;
use crate::worker::lanes::Flow;
use crate::worker::own_words::Line;
use resp::request::Args;
use std::ops::Range;

impl Worker {
    pub(super) fn fan_monitor(&mut self, front: usize, frame: &[u8]) -> Flow {
        let whole = |shard| Unsent { shard, frame: None };
        let parts = (0..self.shards(front)).map(whole).collect();
        self.fan_send(front, parts, How::Opening(Merge::Same), frame)
    }

    /// `CLIENT TRACKING`: every shard tells of its keys.
    pub(super) fn fan_tracking(&mut self, front: usize, frame: &[u8], args: &Args<'_>) -> Flow {
        let has = |word: &[u8]| args.clone().any(|arg| arg.eq_ignore_ascii_case(word));
        if has(b"REDIRECT") {
            return self.fan_reply(front, texts::NO_REDIRECT);
        }
        // What it changes is seen by its reply.
        if !self.barrier(front) {
            return Flow::Hold;
        }
        let optin = (has(b"OPTIN") || has(b"OPTOUT")).then(|| has(b"OPTIN"));
        if let Some(fan) = self.fan_mut(front) {
            fan.optin_asked = optin;
        }
        let plan = crate::merge::Plan::Everywhere(Merge::Same);
        self.fan_plan(front, plan, frame)
    }

    /// A leg's `CLIENT TRACKING` has succeeded.
    pub(in crate::worker) fn fan_tracked(&mut self, client: usize, on: bool) {
        let front = self.front_of(client);
        if let Some(fan) = self.fan_mut(front) {
            fan.optin = fan.optin_asked.filter(|_| on);
            fan.caching = None;
        }
    }

    /// `CLIENT CACHING` is about the next command; which shard that goes to is not known yet.
    pub(super) fn fan_caching(&mut self, front: usize, frame: &[u8], args: &Args<'_>) -> Flow {
        let word = args.clone().nth(1).unwrap_or_default().to_ascii_uppercase();
        let tracking = self.clients[front].session.own.tracking;
        let wanted = match word.as_slice() {
            b"YES" => Some(true),
            b"NO" => Some(false),
            _ => None,
        };
        // `CLIENT TRACKING` must have been answered before it is known what is right.
        if !self.barrier(front) {
            return Flow::Hold;
        }
        match self.fan_mut(front) {
            Some(fan)
                if tracking && wanted.is_some() && fan.optin == wanted && args.left() == 2 =>
            {
                fan.caching = Some(frame.to_vec());
                self.fan_reply(front, texts::OK)
            }
            // The engine says what is wrong.
            _ => self.aside(front, frame),
        }
    }

    /// Sends a `CLIENT` command to any shard: a `CLIENT CACHING` is not for it.
    pub(super) fn aside(&mut self, front: usize, frame: &[u8]) -> Flow {
        let caching = self.fan_mut(front).and_then(|fan| fan.caching.take());
        let flow = self.at_shard(front, self.any_shard(front), frame);
        if let Some(fan) = self.fan_mut(front) {
            fan.caching = caching;
        }
        flow
    }

    /// Sends a `CLIENT CACHING` ahead of the command that it is for.
    pub(super) fn send_caching(&mut self, front: usize, leg: usize) -> Flow {
        let Some(frame) = self.fan(front).and_then(|fan| fan.caching.clone()) else {
            return Flow::Next;
        };
        // The command may have had to wait for something since.
        if self.leg_state(leg).is_some_and(|leg| leg.cached) {
            return Flow::Next;
        }
        match self.own(leg) {
            Ok(place) => {
                self.send_unheard(leg, place, &frame, Effect::None);
                self.keep_caching(leg, &frame);
                if let Some(leg) = self.leg_state(leg) {
                    leg.cached = true;
                }
                Flow::Next
            }
            Err(flow) => flow,
        }
    }

    pub(super) fn caching_used(&mut self, front: usize) {
        let keep = self.fan(front).is_none_or(|fan| fan.caching.is_none());
        if !keep && let Some(fan) = self.fan_mut(front) {
            fan.caching = None;
        }
    }

    /// What a leg's connection is, its client's is too.
    pub(in crate::worker) fn front_follows(&mut self, client: usize) {
        let Part::Leg(leg) = &self.clients[client].part else {
            return;
        };
        let (front, own) = (leg.front, &self.clients[client].session.own);
        let (tracking, monitor, no_touch) = (own.tracking, own.monitor, own.no_touch);
        let known = &mut self.clients[front].session.own;
        known.tracking = tracking;
        known.monitor = monitor;
        known.no_touch = no_touch;
    }

    /// Whether what comes over a leg's own connection may be a message, or a confirmation: it is looked at
    /// as a whole.
    pub(in crate::worker) fn is_message_of_leg(&self, backend: usize, client: usize) -> bool {
        let Part::Leg(_) = &self.clients[client].part else {
            return false;
        };
        let session = &self.clients[client].session;
        let kind = self.backends[backend].framer.head().kind;
        let confirms = || {
            let asked = self.backends[backend].book.front();
            asked.is_some_and(|run| matches!(run.effect, Effect::Confirm(..)))
        };
        kind == b'>'
            || session.own.monitor
            || (kind == b'*' && (session.subscribed_in_resp2() || confirms()))
    }

    /// Takes a part of one.
    pub(in crate::worker) fn take_message(
        &mut self,
        backend: usize,
        client: usize,
        bytes: &[u8],
        range: Range<usize>,
        complete: bool,
    ) -> Result<(), &'static str> {
        let Some(leg) = self.leg_state(client) else {
            return Ok(());
        };
        leg.message.extend_from_slice(&bytes[range]);
        if !complete {
            return Ok(());
        }
        let message = std::mem::take(&mut leg.message);
        match self.came(backend, client) {
            Came::Confirmation(_) => {}
            Came::Message if self.is_own_line(client, &message) => {}
            Came::Message => self.hand_on(client, message, bytes),
            Came::Reply => {
                let asked = self.backends[backend].book.front();
                if asked.is_some_and(|run| !run.discard) {
                    let shown = self.backends[backend].conceal(&message).into_owned();
                    self.give(client, &shown, bytes);
                }
            }
        }
        self.own_done(backend, client, bytes)
    }

    /// Whether it is a line of `MONITOR` that is about the platform's own work.
    fn is_own_line(&self, leg: usize, message: &[u8]) -> bool {
        self.clients[leg].session.own.monitor && Line::of(message, true) == Line::Hidden
    }

    /// Gives a message of a leg to the client: behind the leg's replies that wait for their turn, else now or
    /// when nothing is half-way to the client.
    pub(in crate::worker) fn hand_on(&mut self, leg: usize, message: Vec<u8>, receive: &[u8]) {
        let front = self.front_of(leg);
        // `WAIT` tells a number that no message is about, and other shards may take for ever to tell theirs.
        let counts = matches!(
            self.fan(front).and_then(|fan| fan.order.front()),
            Some(Due::Merged {
                merge: How::Merge(Merge::Minimum | Merge::Minima),
                ..
            })
        );
        let Some(state) = self.leg_state(leg) else {
            return;
        };
        let before: u32 = state.waiting.iter().map(Waiting::count).sum();
        if before <= u32::from(counts) {
            self.between_replies(front, message, receive);
            return;
        }
        let length = message.len();
        state.waiting.push_back(Waiting::Message(message));
        self.holds_more(front, length);
    }

    /// Gives a message to the client, now or when nothing is half-way to it.
    fn between_replies(&mut self, front: usize, message: Vec<u8>, receive: &[u8]) {
        let Some(fan) = self.fan_mut(front) else {
            return;
        };
        if fan.mid {
            let length = message.len();
            fan.messages.push_back(message);
            self.holds_more(front, length);
        } else {
            self.give(front, &message, receive);
        }
    }

    /// Gives the client the messages that waited for the end of a reply.
    pub(super) fn release_messages(&mut self, front: usize, receive: &[u8]) {
        while let Some(fan) = self.fan_mut(front)
            && !fan.mid
            && let Some(message) = fan.messages.pop_front()
        {
            fan.held -= message.len();
            self.give(front, &message, receive);
        }
    }

    /// Gives the client the messages of a leg that no reply is before any more.
    pub(super) fn release_first_messages(&mut self, front: usize, leg: usize, receive: &[u8]) {
        while let Some(state) = self.leg_state(leg)
            && let Some(Waiting::Message(message)) = state
                .waiting
                .pop_front_if(|waiting| matches!(waiting, Waiting::Message(_)))
        {
            if let Some(fan) = self.fan_mut(front) {
                fan.held -= message.len();
            }
            self.between_replies(front, message, receive);
        }
    }
}
