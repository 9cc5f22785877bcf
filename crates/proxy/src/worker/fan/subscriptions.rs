//! Subscriptions over several shards.
//!
//! A client subscribes on every shard, or on that of a shard channel, and what is so is known when all of them
//! have answered. What one of them refuses is undone at the others: the client is as it was before.

use super::{Due, How, Part, Unsent};
use crate::handover::record::Bytes;
use crate::stats::ErrorKind;
use crate::worker::Worker;
use crate::worker::backend::{Confirm, Effect, Phase};
use crate::worker::client::Lane;
use crate::worker::lanes::Flow;
use crate::worker::own_words::encode_own;
use crate::worker::session::Subscriptions;
use resp::command::Subscription;
use resp::request::{Args, encode};
use std::collections::{BTreeMap, BTreeSet};

/// What a command asks for that begins subscriptions (`on`) or ends them. Without names it ends all of the
/// kind.
#[derive(Debug)]
pub(super) struct Change {
    kind: Subscription,
    on: bool,
    names: Vec<Vec<u8>>,
}

impl Change {
    pub(super) fn new(kind: Subscription, on: bool, names: Vec<Vec<u8>>) -> Self {
        Self { kind, on, names }
    }

    /// Whether it is about this subscription.
    fn is_about(&self, kind: Subscription, name: &[u8]) -> bool {
        self.kind == kind && (self.names.is_empty() || self.names.iter().any(|known| known == name))
    }
}

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

    pub(super) fn counts(&self) -> Subscriptions {
        Subscriptions {
            channels: self.channels.len() as u64,
            patterns: self.patterns.len() as u64,
            shard_channels: self.shard_channels.len() as u64,
        }
    }

    /// What a command asks for is so. Returns what the engine would say.
    pub(super) fn change(&mut self, change: Change, resp: u8) -> Vec<u8> {
        let Change { kind, on, names } = change;
        let mut text = Vec::new();
        let all = if names.is_empty() {
            self.of(kind).iter().cloned().collect()
        } else {
            names
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

fn word(kind: Subscription, on: bool) -> &'static str {
    match (kind, on) {
        (Subscription::Channel, true) => "subscribe",
        (Subscription::Channel, false) => "unsubscribe",
        (Subscription::Pattern, true) => "psubscribe",
        (Subscription::Pattern, false) => "punsubscribe",
        (Subscription::Shard, true) => "ssubscribe",
        (Subscription::Shard, false) => "sunsubscribe",
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
    let word = word(kind, on);
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
        // Of commands that have no answer yet it is not known whether they will be refused.
        let unknown = fan.opening > 0;
        let before: Vec<Vec<u8>> = fan.subscribed.of(kind).iter().cloned().collect();
        let idle =
            !unknown && before.is_empty() && !self.clients[front].session.own.subscriptions.any();
        if !on && idle && self.wants_a_subscription(front) {
            let word = word(kind, false);
            let text = format!("-NOSUB '{word}' command executed not in subscribed mode\r\n");
            self.count_error(front, ErrorKind::Refused);
            self.say(front, text.into_bytes());
            return Flow::Next;
        }
        let parts = if !on && idle {
            Vec::new()
        } else if kind == Subscription::Shard {
            if names.is_empty() && unknown && !self.barrier(front) {
                return Flow::Hold;
            }
            let before: Vec<&[u8]> = before.iter().map(Vec::as_slice).collect();
            self.by_shard(front, name, if names.is_empty() { &before } else { names })
        } else {
            let whole = |shard| Unsent { shard, frame: None };
            (0..self.shards(front)).map(whole).collect()
        };
        let names = names.iter().map(|name| name.to_vec()).collect();
        let change = Change::new(kind, on, names);
        if parts.is_empty() {
            let text = self.change_names(front, change);
            self.say(front, text);
            return Flow::Next;
        }
        let has_own = |leg: usize| matches!(self.clients[leg].lane, Lane::Own(_));
        if on && !self.legs_of(front).any(has_own) {
            let shards: Vec<usize> = parts.iter().map(|part| part.shard).collect();
            self.open_together(self.clients[front].served, &shards, resp);
        }
        self.fan_send(front, parts.into(), How::Confirmed(change), frame)
    }

    fn change_names(&mut self, front: usize, change: Change) -> Vec<u8> {
        let resp = self.clients[front].session.resp;
        let Some(fan) = self.fan_mut(front) else {
            return Vec::new();
        };
        let text = fan.subscribed.change(change, resp);
        let counts = fan.subscribed.counts();
        self.clients[front].session.own.subscriptions = counts;
        text
    }

    /// All shards have answered a command that begins or ends subscriptions; `parts`: what each has to say
    /// against it. Returns what the client hears. What one shard has refused is taken back at the others.
    pub(super) fn confirmed(
        &mut self,
        front: usize,
        change: Change,
        shards: &[usize],
        parts: &[Vec<u8>],
    ) -> Vec<u8> {
        let Some(error) = parts.iter().find(|part| !part.is_empty()) else {
            return self.change_names(front, change);
        };
        let obeyed = shards.iter().zip(parts).filter(|(_, part)| part.is_empty());
        for (shard, _) in obeyed {
            let names = self.to_take_back(front, *shard, &change);
            if !names.is_empty() && !self.take_back_names(front, *shard, &change, names) {
                self.end_unknown(front);
            }
        }
        error.clone()
    }

    /// The names for which a shard has done what another one has refused. Those that a later command is
    /// about are left to that one.
    fn to_take_back(&self, front: usize, shard: usize, change: &Change) -> Vec<Vec<u8>> {
        let Change { kind, on, names } = change;
        let Some(fan) = self.fan(front) else {
            return Vec::new();
        };
        let known = match kind {
            Subscription::Channel => &fan.subscribed.channels,
            Subscription::Pattern => &fan.subscribed.patterns,
            Subscription::Shard => &fan.subscribed.shard_channels,
        };
        let later = |name: &Vec<u8>| {
            fan.order.iter().any(|due| match due {
                Due::Merged {
                    merge: How::Confirmed(later),
                    ..
                } => later.is_about(*kind, name),
                _ => false,
            })
        };
        let is_there = |name: &Vec<u8>| {
            *kind != Subscription::Shard
                || self.shard_of(front, resp::slot::key_slot(name)) == shard
        };
        let all: BTreeSet<&Vec<u8>> = match names.is_empty() {
            true => known.iter().collect(),
            false => names.iter().collect(),
        };
        all.into_iter()
            .filter(|name| known.contains(*name) != *on && is_there(name) && !later(name))
            .cloned()
            .collect()
    }

    /// Undoes at one shard what a command has done there. `false`: not now.
    fn take_back_names(
        &mut self,
        front: usize,
        shard: usize,
        change: &Change,
        names: Vec<Vec<u8>>,
    ) -> bool {
        let leg = self.leg(front, shard);
        let id = self.link_of(leg);
        let Lane::Own(place) = self.clients[leg].lane else {
            return false;
        };
        let backend = &self.backends[place];
        let usable = backend.phase == Phase::Ready
            && backend.target == self.served[id.served].shards[id.shard].number
            && !self.is_closed(id)
            && !self.has_lapsed(id);
        if !usable {
            return false;
        }
        let mut words = vec![word(change.kind, !change.on).as_bytes()];
        words.extend(names.iter().map(Vec::as_slice));
        let count = Confirm::Count(names.len() as u64);
        let mut frame = Vec::new();
        encode_own(words, &mut frame);
        self.send_unheard(leg, place, &frame, Effect::Confirm(change.kind, count));
        true
    }

    /// Closes a client of which it cannot be said what it is subscribed to.
    pub(super) fn end_unknown(&mut self, front: usize) {
        let peer = self.clients[front].session.peer;
        tracing::warn!(%peer, "a client is closed: some shards refused a subscription or its end, and at others it cannot be taken back");
        self.count_error(front, ErrorKind::Unavailable);
        self.doomed.push(self.client_id(front));
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

    /// Whether the engine has an error for who ends a subscription and has none: Valkey 8.0 alone does.
    fn wants_a_subscription(&self, front: usize) -> bool {
        let engine = self.served[self.clients[front].served].engine.as_ref();
        let version = engine.and_then(|engine| engine.version.text());
        version.is_some_and(|version| version.starts_with(b"8.0."))
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

    /// Whether the client may send nothing now but what is about its subscriptions, or it is not known yet
    /// whether it may.
    pub(super) fn only_subscribes(&self, front: usize) -> bool {
        let session = &self.clients[front].session;
        let unknown = self.fan(front).is_some_and(|fan| fan.opening > 0);
        session.subscribed_in_resp2() || (session.resp == 2 && unknown)
    }

    /// A shard where the client is subscribed.
    pub(super) fn subscribed_shard(&self, front: usize) -> Option<usize> {
        let subscribed = |leg: &usize| self.clients[*leg].session.own.subscriptions.any();
        let leg = self.legs_of(front).find(subscribed)?;
        match &self.clients[leg].part {
            Part::Leg(leg) => Some(leg.shard),
            Part::Whole | Part::Front(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn confirmations_are_counted_as_the_engine_does() {
        let mut names = Names::default();
        let mut change = |kind, on, changed: &[&[u8]], resp| {
            let changed = changed.iter().map(|name| name.to_vec()).collect();
            let change = Change::new(kind, on, changed);
            String::from_utf8(names.change(change, resp)).unwrap()
        };
        let got = change(Subscription::Channel, true, &[b"a", b"b", b"a"], 2);
        let one = |name: &str, count: u8| {
            format!("*3\r\n$9\r\nsubscribe\r\n$1\r\n{name}\r\n:{count}\r\n")
        };
        assert_eq!(got, one("a", 1) + &one("b", 2) + &one("a", 2));
        let got = change(Subscription::Pattern, true, &[b"p"], 3);
        assert_eq!(got, ">3\r\n$10\r\npsubscribe\r\n$1\r\np\r\n:3\r\n");
        let got = change(Subscription::Shard, true, &[b"s"], 3);
        assert_eq!(got, ">3\r\n$10\r\nssubscribe\r\n$1\r\ns\r\n:1\r\n");
        change(Subscription::Channel, false, &[], 2);
        let got = change(Subscription::Channel, false, &[], 2);
        assert_eq!(got, "*3\r\n$11\r\nunsubscribe\r\n$-1\r\n:1\r\n");
    }
}
