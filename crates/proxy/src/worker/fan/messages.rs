//! What shards send unasked: messages of subscriptions, invalidations, the lines of `MONITOR`.
//!
//! A client subscribes on every shard, so whatever publishes — a client, a script, a transaction, a
//! shard's own events of its keys — reaches it once. The legs' confirmations are kept back and the
//! client gets one. Messages are handed on whole, between two replies.

use super::{Due, How, Part, Unsent};
use crate::handover::record::Bytes;
use crate::merge::Merge;
use crate::texts;
use crate::worker::Worker;
use crate::worker::backend::Effect;
use crate::worker::client::Lane;
use crate::worker::conceal::is_greeting;
use crate::worker::effects::Came;
use crate::worker::lanes::Flow;
use resp::command::Subscription;
use resp::request::{Args, encode};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// What a client is subscribed to.
#[derive(Debug, Default)]
pub(crate) struct Names {
    channels: BTreeSet<Vec<u8>>,
    patterns: BTreeSet<Vec<u8>>,
    shard_channels: BTreeSet<Vec<u8>>,
}

impl Names {
    pub(super) fn write(self) -> [Vec<Bytes>; 3] {
        let Self {
            channels,
            patterns,
            shard_channels,
        } = self;
        [channels, patterns, shard_channels].map(|names| names.into_iter().map(Bytes).collect())
    }

    pub(super) fn read(names: [Vec<Bytes>; 3]) -> Self {
        let [channels, patterns, shard_channels] =
            names.map(|names| names.into_iter().map(|name| name.0).collect());
        Self {
            channels,
            patterns,
            shard_channels,
        }
    }

    fn of(&mut self, kind: Subscription) -> &mut BTreeSet<Vec<u8>> {
        match kind {
            Subscription::Channel => &mut self.channels,
            Subscription::Pattern => &mut self.patterns,
            Subscription::Shard => &mut self.shard_channels,
        }
    }

    /// The number that a confirmation tells: the engines count channels and patterns together.
    fn count(&self, kind: Subscription) -> usize {
        match kind {
            Subscription::Channel | Subscription::Pattern => {
                self.channels.len() + self.patterns.len()
            }
            Subscription::Shard => self.shard_channels.len(),
        }
    }

    /// Subscribes to these names, or ends it; without names it ends all of the kind. Returns what the
    /// engine would say.
    fn change(&mut self, kind: Subscription, on: bool, names: &[&[u8]], resp: u8) -> Vec<u8> {
        let mut text = Vec::new();
        let all: Vec<Vec<u8>> = match names {
            [] => self.of(kind).iter().cloned().collect(),
            names => names.iter().map(|name| name.to_vec()).collect(),
        };
        for name in &all {
            if on {
                self.of(kind).insert(name.clone());
            } else {
                self.of(kind).remove(name);
            }
            confirm(kind, on, Some(name), self.count(kind), resp, &mut text);
        }
        if all.is_empty() {
            confirm(kind, on, None, self.count(kind), resp, &mut text);
        }
        text
    }
}

fn confirm(
    kind: Subscription,
    on: bool,
    name: Option<&[u8]>,
    count: usize,
    resp: u8,
    out: &mut Vec<u8>,
) {
    let word = match (kind, on) {
        (Subscription::Channel, true) => "subscribe",
        (Subscription::Channel, false) => "unsubscribe",
        (Subscription::Pattern, true) => "psubscribe",
        (Subscription::Pattern, false) => "punsubscribe",
        (Subscription::Shard, true) => "ssubscribe",
        (Subscription::Shard, false) => "sunsubscribe",
    };
    let head = if resp == 3 { '>' } else { '*' };
    out.extend_from_slice(format!("{head}3\r\n${}\r\n{word}\r\n", word.len()).as_bytes());
    match name {
        Some(name) => {
            out.extend_from_slice(format!("${}\r\n", name.len()).as_bytes());
            out.extend_from_slice(name);
            out.extend_from_slice(b"\r\n");
        }
        None if resp == 3 => out.extend_from_slice(b"_\r\n"),
        None => out.extend_from_slice(b"$-1\r\n"),
    }
    out.extend_from_slice(format!(":{count}\r\n").as_bytes());
}

impl Worker {
    /// `SUBSCRIBE` and its kind (`on`), and their ends.
    pub(super) fn fan_subscribe(
        &mut self,
        front: usize,
        kind: Subscription,
        on: bool,
        frame: &[u8],
    ) -> Flow {
        let words: Vec<&[u8]> = Args::of(frame).collect();
        let Some((name, names)) = words.split_first() else {
            return Flow::Next;
        };
        if on && names.is_empty() {
            // The engine says that a name is missing.
            return self.at_shard(front, self.any_shard(front), frame);
        }
        let resp = self.clients[front].session.resp;
        let Some(fan) = self.fan_mut(front) else {
            return Flow::Next;
        };
        let before: Vec<Vec<u8>> = fan.subscribed.of(kind).iter().cloned().collect();
        let idle = before.is_empty() && !self.clients[front].session.own.subscriptions.any();
        let parts = if !on && idle {
            Vec::new()
        } else if kind == Subscription::Shard {
            let before: Vec<&[u8]> = before.iter().map(Vec::as_slice).collect();
            self.by_shard(front, name, if names.is_empty() { &before } else { names })
        } else {
            let whole = |shard| Unsent { shard, frame: None };
            (0..self.shards(front)).map(whole).collect()
        };
        let Some(fan) = self.fan_mut(front) else {
            return Flow::Next;
        };
        let text = fan.subscribed.change(kind, on, names, resp);
        let (channels, patterns, shard_channels) = (
            fan.subscribed.channels.len() as u64,
            fan.subscribed.patterns.len() as u64,
            fan.subscribed.shard_channels.len() as u64,
        );
        let known = &mut self.clients[front].session.own.subscriptions;
        known.channels = channels;
        known.patterns = patterns;
        known.shard_channels = shard_channels;
        if parts.is_empty() {
            self.say(front, text);
            return Flow::Next;
        }
        let has_own = |leg: usize| matches!(self.clients[leg].lane, Lane::Own(_));
        if on && !self.legs_of(front).any(has_own) {
            let shards: Vec<usize> = parts.iter().map(|part| part.shard).collect();
            self.open_together(self.clients[front].served, &shards, resp);
        }
        self.fan_send(front, parts.into(), How::Confirmed(text), frame)
    }

    /// The names of shard channels, each where its slot is.
    fn by_shard(&self, front: usize, command: &[u8], names: &[&[u8]]) -> Vec<Unsent> {
        let mut parts: BTreeMap<usize, Vec<&[u8]>> = BTreeMap::new();
        for name in names {
            let shard = self.shard_of(front, resp::slot::key_slot(name));
            parts
                .entry(shard)
                .or_insert_with(|| vec![command])
                .push(name);
        }
        let encoded = |(shard, words): (usize, Vec<&[u8]>)| {
            let mut frame = Vec::new();
            encode(words, &mut frame);
            Unsent {
                shard,
                frame: Some(frame),
            }
        };
        parts.into_iter().map(encoded).collect()
    }

    /// Says something in its turn, even to a client that wants no replies.
    fn say(&mut self, front: usize, text: Vec<u8>) {
        let Some(fan) = self.fan_mut(front) else {
            return;
        };
        if fan.order.is_empty() {
            self.give(front, &text, &[]);
        } else {
            fan.order.push_back(Due::Text(text.into()));
        }
    }

    /// A shard where the client is subscribed.
    pub(super) fn subscribed_shard(&self, front: usize) -> usize {
        let subscribed = |leg: &usize| self.clients[*leg].session.own.subscriptions.any();
        let leg = self.legs_of(front).find(subscribed);
        match leg.map(|leg| &self.clients[leg].part) {
            Some(Part::Leg(leg)) => leg.shard,
            _ => self.any_shard(front),
        }
    }

    pub(super) fn fan_monitor(&mut self, front: usize, frame: &[u8]) -> Flow {
        let whole = |shard| Unsent { shard, frame: None };
        let parts = (0..self.shards(front)).map(whole).collect();
        let flow = self.fan_send(front, parts, How::Opening(Merge::Same), frame);
        if flow == Flow::Next && self.clients.contains(front) {
            // What comes behind it is refused, or ends it.
            self.barrier(front);
        }
        flow
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
        let front = leg.front;
        match self.came(backend, client) {
            Came::Confirmation(_) => {}
            Came::Message if self.greets(client, &message) => {}
            Came::Message => self.hand_on(front, message, bytes),
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

    /// Whether a line of `MONITOR` shows only what the proxy does itself.
    fn greets(&self, leg: usize, message: &[u8]) -> bool {
        self.clients[leg].session.own.monitor && is_greeting(message)
    }

    /// Gives a message to the client, now or when nothing is half-way to it.
    pub(in crate::worker) fn hand_on(&mut self, front: usize, message: Vec<u8>, receive: &[u8]) {
        let Some(fan) = self.fan_mut(front) else {
            return;
        };
        if fan.mid || fan.opening > 0 {
            fan.held += message.len();
            fan.messages.push_back(message);
            self.close_if_too_much(front);
        } else {
            self.give(front, &message, receive);
        }
    }

    /// Gives the client the messages that waited.
    pub(super) fn release_messages(&mut self, front: usize, receive: &[u8]) {
        while let Some(fan) = self.fan_mut(front)
            && !fan.mid
            && fan.opening == 0
            && let Some(message) = fan.messages.pop_front()
        {
            fan.held -= message.len();
            self.give(front, &message, receive);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn confirmations_are_counted_as_the_engine_does() {
        let mut names = Names::default();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        let got = names.change(Subscription::Channel, true, &[b"a", b"b", b"a"], 2);
        let one = |name: &str, count: u8| {
            format!("*3\r\n$9\r\nsubscribe\r\n$1\r\n{name}\r\n:{count}\r\n")
        };
        assert_eq!(text(got), one("a", 1) + &one("b", 2) + &one("a", 2));
        let got = names.change(Subscription::Pattern, true, &[b"p"], 3);
        assert_eq!(text(got), ">3\r\n$10\r\npsubscribe\r\n$1\r\np\r\n:3\r\n");
        let got = names.change(Subscription::Shard, true, &[b"s"], 3);
        assert_eq!(text(got), ">3\r\n$10\r\nssubscribe\r\n$1\r\ns\r\n:1\r\n");
        names.change(Subscription::Channel, false, &[], 2);
        let got = names.change(Subscription::Channel, false, &[], 2);
        assert_eq!(text(got), "*3\r\n$11\r\nunsubscribe\r\n$-1\r\n:1\r\n");
    }
}
