//! What is kept of a client's own connection, so that it can be set up anew at another primary.

mod carry;

use crate::bounds;
use crate::stats::Tally;
use crate::worker::Worker;
use crate::worker::backend::{Effect, Next, Phase, Rewrite, Run, Seen, Use};
use crate::worker::client::Lane;
use crate::worker::cursors::said_again;
use crate::worker::lanes::{Flow, Sending};
use crate::worker::own_words::{encode_again, encode_own};
use crate::worker::session::{Db, Transaction};
use resp::command::{Class, Kind, Subscription, classify};
use resp::request::{Args, encode};
use std::collections::{BTreeSet, VecDeque};

/// Beside the session, all that a connection of one's own holds in the engine.
#[derive(Debug, Default)]
pub(crate) struct Keep {
    /// The commands since `MULTI`, as they were sent; empty: none is open.
    queue: Vec<u8>,
    /// How many they are.
    queued: u32,
    /// Those were too many to be kept.
    overflow: bool,
    /// `CLIENT TRACKING ON …` that the engine has taken.
    tracking: Vec<Vec<u8>>,
    /// There was one: the engine remembers what was read meanwhile, and tells of it whenever this connection is
    /// tracked again.
    was_tracked: bool,
    /// `CLIENT TRACKING` whose replies are to come.
    tracking_asked: VecDeque<Vec<u8>>,
    /// `CLIENT CACHING` that is for the next command.
    caching: Option<Vec<u8>>,
    /// Channels, patterns, shard channels.
    names: [BTreeSet<Vec<u8>>; 3],
    /// The blocking command that is under way.
    pub(super) blocked: Option<Blocked>,
    /// It was taken back from the old primary and is sent to the new one.
    pub(super) parked: Option<Parked>,
    /// The connection to the next primary that is set up for this client.
    pub(super) next: Option<usize>,
}

/// A blocking command.
#[derive(Debug)]
pub(super) struct Blocked {
    pub(super) frame: Vec<u8>,
    /// Since when, by the worker's clock.
    pub(super) since: u64,
    /// The engine has been asked to let it go.
    pub(super) asked: bool,
    /// The question is not answered yet.
    pub(super) pending: bool,
    /// A client has asked that.
    pub(super) by_client: bool,
    /// The newest entries of the streams that it reads from their ends, in their order.
    pub(super) last_ids: Vec<Option<Vec<u8>>>,
}

/// A blocking command that waits for the new primary.
#[derive(Debug)]
pub(super) struct Parked {
    pub(super) frame: Vec<u8>,
    pub(super) discard: bool,
}

impl Keep {
    fn names_of(&mut self, kind: Subscription) -> &mut BTreeSet<Vec<u8>> {
        &mut self.names[match kind {
            Subscription::Channel => 0,
            Subscription::Pattern => 1,
            Subscription::Shard => 2,
        }]
    }

    /// Notes a command that goes over the client's own connection.
    fn note(&mut self, frame: &[u8], effect: Effect, clock: u64) {
        match effect {
            Effect::Exec | Effect::ExecRefused | Effect::Discard => {
                self.queue = Vec::new();
                self.queued = 0;
                self.overflow = false;
            }
            Effect::Multi => self.queue_up(frame),
            _ if !self.queue.is_empty() || self.overflow => self.queue_up(frame),
            Effect::Blocking => {
                self.blocked = Some(Blocked {
                    frame: frame.to_vec(),
                    since: clock,
                    asked: false,
                    pending: false,
                    by_client: false,
                    last_ids: Vec::new(),
                });
            }
            Effect::Tracking(_) => self.tracking_asked.push_back(frame.to_vec()),
            Effect::Confirm(kind, _) => self.subscribe(kind, frame),
            _ => {}
        }
        self.caching = None;
    }

    /// Its transaction is lost, and with it what was queued.
    pub(in crate::worker) fn forget_transaction(&mut self) {
        self.queue = Vec::new();
        self.queued = 0;
        self.overflow = false;
        self.blocked = None;
    }

    /// Subscriptions that were asked for are not there: their connection is lost.
    pub(in crate::worker) fn unsubscribed(&mut self) {
        self.names = Default::default();
    }

    fn queue_up(&mut self, frame: &[u8]) {
        if self.overflow || self.queue.len() + frame.len() > bounds::TRANSACTION_KEPT {
            self.queue = Vec::new();
            self.overflow = true;
        } else {
            let again = said_again(frame);
            self.queue
                .extend_from_slice(again.as_deref().unwrap_or(frame));
            self.queued += 1;
        }
    }

    fn subscribe(&mut self, kind: Subscription, frame: &[u8]) {
        let mut args = Args::of(frame);
        let on = matches!(
            classify(args.next().unwrap_or_default()),
            Class::Subscribe(_)
        );
        let all = args.left() == 0;
        let names = self.names_of(kind);
        match on {
            true => names.extend(args.map(<[u8]>::to_vec)),
            false if all => names.clear(),
            false => {
                for name in args {
                    names.remove(name);
                }
            }
        }
    }

    /// `CLIENT TRACKING` was answered.
    pub(in crate::worker) fn tracked(&mut self, on: bool, good: bool) {
        self.was_tracked |= good && on;
        let Some(frame) = self.tracking_asked.pop_front() else {
            return;
        };
        let frame = spelled(&frame);
        match (good, on) {
            (false, _) => {}
            (true, false) => self.tracking.clear(),
            (true, true) if self.tracking.contains(&frame) => {}
            (true, true) => self.tracking.push(frame),
        }
    }

    /// Bytes of `CLIENT TRACKING` that is not answered.
    pub(in crate::worker) fn asked(&self) -> usize {
        self.tracking_asked.iter().map(Vec::len).sum()
    }

    /// The transaction that has the last `CLIENT TRACKING`, so many, does not run.
    pub(in crate::worker) fn asks_no_more(&mut self, count: usize) {
        let left = self.tracking_asked.len().saturating_sub(count);
        self.tracking_asked.truncate(left);
    }

    /// The commands that make another connection what this one is, and how many replies they have. Those
    /// of an open transaction are for a primary.
    fn set_up(&self, out: &mut Vec<u8>) -> u32 {
        let mut replies = 0;
        for frame in self.tracking.iter().chain(&self.caching) {
            encode_again(frame, out);
            replies += 1;
        }
        let words: [&[u8]; 3] = [b"SUBSCRIBE", b"PSUBSCRIBE", b"SSUBSCRIBE"];
        for (word, names) in words.into_iter().zip(&self.names) {
            for name in names {
                encode_own([word, name], out);
                replies += 1;
            }
        }
        replies
    }

    /// Whether messages are lost for the client unless another connection is set up before the move.
    pub(super) fn is_early(&self) -> bool {
        !self.tracking.is_empty() || self.is_subscribed()
    }

    pub(super) fn is_subscribed(&self) -> bool {
        self.names.iter().any(|names| !names.is_empty())
    }

    pub(in crate::worker) fn was_tracked(&self) -> bool {
        self.was_tracked
    }

    /// The blocking command was answered.
    pub(in crate::worker) fn answered(&mut self) {
        self.blocked = None;
    }

    pub(super) fn has_overflown(&self) -> bool {
        self.overflow
    }
}

/// `CLIENT TRACKING ON …` in one spelling, so that it is kept once however often it is sent. Prefixes stay as they are.
fn spelled(frame: &[u8]) -> Vec<u8> {
    let mut words = Vec::new();
    let mut prefix = false;
    for word in Args::of(frame) {
        let upper = word.to_ascii_uppercase();
        let is_prefix = prefix;
        prefix = !prefix && upper == b"PREFIX";
        words.push(if is_prefix { word.to_vec() } else { upper });
    }
    let mut out = Vec::new();
    encode(words.iter().map(Vec::as_slice), &mut out);
    out
}

impl Worker {
    /// Forgets what was kept of a client's own connection, and ends the one that was set up to take its place.
    pub(in crate::worker) fn forget_keep(&mut self, index: usize) {
        let keep = self.clients[index].keep.take();
        if let Some(next) = keep.and_then(|keep| keep.next)
            && self.is_for(next, index)
        {
            self.drop_backend(next);
        }
    }

    /// Notes a command that goes over a connection of the client's own, if it leaves something there.
    #[inline]
    pub(in crate::worker) fn keep(
        &mut self,
        index: usize,
        place: usize,
        frame: &[u8],
        effect: Effect,
    ) {
        let client = &self.clients[index];
        let matters = client.keep.is_some()
            || matches!(
                effect,
                Effect::Multi | Effect::Blocking | Effect::Tracking(_) | Effect::Confirm(..)
            );
        if matters && client.lane == Lane::Own(place) {
            let clock = self.clock;
            self.kept(index).note(frame, effect, clock);
            if matches!(effect, Effect::Confirm(Subscription::Pattern, _)) {
                self.hide_markers(index, place);
            }
        }
    }

    pub(super) fn kept(&mut self, index: usize) -> &mut Keep {
        self.clients[index].keep.get_or_insert_default()
    }

    /// A command that was noted is not whole: the rest of it goes by unseen.
    pub(in crate::worker) fn keep_part(&mut self, index: usize) {
        if let Some(keep) = &mut self.clients[index].keep {
            keep.blocked = None;
            if !keep.queue.is_empty() {
                keep.queue = Vec::new();
                keep.overflow = true;
            }
        }
    }

    /// `CLIENT CACHING` was sent: it is for the next command.
    pub(in crate::worker) fn keep_caching(&mut self, index: usize, frame: &[u8]) {
        self.kept(index).caching = Some(frame.to_vec());
    }

    /// `CLIENT CACHING` of a client with one shard.
    pub(in crate::worker) fn caching(&mut self, index: usize, frame: &[u8]) -> Flow {
        let flow = self.send_own(index, frame, Sending::plain());
        if flow == Flow::Next {
            self.keep_caching(index, frame);
        }
        flow
    }

    /// `CLIENT TRACKING` was sent inside a transaction: it is answered with that, and nothing before it is still
    /// to be.
    pub(in crate::worker) fn tracking_queued(&mut self, index: usize, frame: &[u8]) {
        self.kept(index).tracking_asked.push_back(frame.to_vec());
    }

    /// `CLIENT TRACKING` was answered, or will not be.
    pub(in crate::worker) fn keep_tracking(&mut self, index: usize, on: bool, good: bool) {
        if let Some(keep) = &mut self.clients[index].keep {
            keep.tracked(on, good);
        }
    }

    /// A connection for one client becomes what that client's last one was. `primary`: its engine is, so
    /// that an open transaction can be opened again.
    pub(in crate::worker) fn set_up(&mut self, index: usize, client: usize, primary: bool) {
        let known = &self.clients[client];
        let own = &known.session.own;
        let (mut out, mut replies) = (Vec::new(), 0);
        if let Db::Number(db @ 1..) = own.db {
            encode_own([b"SELECT", db.to_string().as_bytes()], &mut out);
            replies += 1;
        }
        if own.no_touch {
            encode_own([&b"CLIENT"[..], b"NO-TOUCH", b"ON"], &mut out);
            replies += 1;
        }
        if let Some(keep) = &known.keep {
            replies += keep.set_up(&mut out);
            if primary && own.transaction == Transaction::Open && !keep.overflow {
                encode_again(&keep.queue, &mut out);
                replies += keep.queued;
            }
        }
        if own.monitor && primary {
            encode_own([&b"MONITOR"[..]], &mut out);
            replies += 1;
        }
        let keep = known.keep.as_ref();
        let subscribed = keep.is_some_and(|keep| keep.is_subscribed());
        if keep.is_some_and(|keep| !keep.names[1].is_empty()) {
            self.hide_markers(client, index);
        }
        if matches!(self.backends[index].usage, Use::Next(_)) {
            // What comes before it takes over is looked at as a whole.
            self.backends[index].moving.get_or_insert_default();
            if subscribed {
                replies += self.listen_on_new(index, client, &mut out);
            }
        }
        let backend = &mut self.backends[index];
        backend.set_up = true;
        if replies == 0 {
            return;
        }
        backend.out.push(&out);
        backend.phase = match backend.phase {
            Phase::Greeting(before) => Phase::Greeting(before + replies),
            Phase::Connecting | Phase::Ready => Phase::Greeting(replies),
        };
        self.mark_backend(index);
    }

    /// A connection for one client begins as that client's last one was.
    pub(in crate::worker) fn set_up_own(&mut self, index: usize) {
        let backend = &self.backends[index];
        let primary = matches!(backend.usage, Use::Own(_));
        if let Use::Own(owner) | Use::Next(Next::Client(owner)) = backend.usage
            && let Some(client) = self.find(owner)
        {
            self.set_up(index, client, primary);
        }
    }

    /// The engine of a connection that was set up before is primary now: a transaction can be opened.
    pub(super) fn open_transaction(&mut self, index: usize, client: usize) {
        let known = &self.clients[client];
        let open = known.session.own.transaction == Transaction::Open;
        let Some(keep) = known.keep.as_ref().filter(|keep| open && keep.queued > 0) else {
            return;
        };
        let (mut queue, count) = (Vec::new(), keep.queued);
        encode_again(&keep.queue, &mut queue);
        let (name, seen) = (self.client_id(client), self.unseen());
        let mut left = Tally::default();
        for _ in 0..count {
            left.add(Kind::Other);
        }
        let backend = &mut self.backends[index];
        backend.out.push(&queue);
        backend.expect(Run {
            client: name,
            count,
            discard: true,
            effect: Effect::Replayed,
            rewrite: Rewrite::None,
            seen: Seen {
                left,
                count,
                ..seen
            },
        });
        self.clients[client].in_flight += count;
        self.mark_backend(index);
    }

    /// Whether replies that come before a connection is ready are those of its setting up: what they say
    /// changes nothing.
    pub(in crate::worker) fn is_set_up(&self, index: usize) -> bool {
        let backend = &self.backends[index];
        backend.set_up && backend.engine_client > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::backend::Confirm;

    fn frame(words: &[&str]) -> Vec<u8> {
        let mut out = Vec::new();
        encode(words.iter().map(|word| word.as_bytes()), &mut out);
        out
    }

    fn set_up(keep: &Keep) -> (String, u32) {
        let mut out = Vec::new();
        let replies = keep.set_up(&mut out);
        let mut rest = out.as_slice();
        let mut lines = Vec::new();
        while let Some((length, _)) = resp::request::whole(rest) {
            let words: Vec<_> = Args::of(&rest[..length])
                .map(String::from_utf8_lossy)
                .collect();
            lines.push(words.join(" "));
            rest = &rest[length..];
        }
        (lines.join("; "), replies)
    }

    #[test]
    fn subscriptions_are_set_up_as_they_are() {
        let mut keep = Keep::default();
        let change = |keep: &mut Keep, kind, words: &[&str]| {
            keep.note(&frame(words), Effect::Confirm(kind, Confirm::All), 1);
        };
        change(
            &mut keep,
            Subscription::Channel,
            &["subscribe", "a", "b", "a"],
        );
        change(&mut keep, Subscription::Pattern, &["PSUBSCRIBE", "p*"]);
        change(&mut keep, Subscription::Shard, &["SSUBSCRIBE", "s"]);
        change(&mut keep, Subscription::Channel, &["UNSUBSCRIBE", "b", "x"]);
        assert!(keep.is_early());
        let wanted = "sUBSCRIBE a; pSUBSCRIBE p*; sSUBSCRIBE s";
        assert_eq!(set_up(&keep), (wanted.to_owned(), 3));
        change(&mut keep, Subscription::Channel, &["UNSUBSCRIBE"]);
        change(&mut keep, Subscription::Pattern, &["PUNSUBSCRIBE"]);
        change(&mut keep, Subscription::Shard, &["SUNSUBSCRIBE", "s"]);
        assert!(!keep.is_early());
    }

    #[test]
    fn tracking_counts_as_the_engine_has_taken_it() {
        let mut keep = Keep::default();
        let on = frame(&["CLIENT", "TRACKING", "ON", "BCAST", "PREFIX", "a"]);
        let more = frame(&["CLIENT", "TRACKING", "ON", "BCAST", "PREFIX", "b"]);
        for asked in [&on, &more, &on] {
            keep.note(asked, Effect::Tracking(true), 1);
        }
        keep.tracked(true, true);
        keep.tracked(true, false);
        keep.tracked(true, true);
        assert_eq!(keep.tracking.as_slice(), std::slice::from_ref(&on));
        // However it is spelled, it is kept once; prefixes are what they are.
        let same = frame(&["client", "Tracking", "on", "bcast", "prefix", "a"]);
        let other = frame(&["CLIENT", "TRACKING", "ON", "BCAST", "PREFIX", "A"]);
        for asked in [&same, &other] {
            keep.note(asked, Effect::Tracking(true), 1);
            keep.tracked(true, true);
        }
        assert_eq!(keep.tracking, [on, other]);
        keep.note(
            &frame(&["CLIENT", "TRACKING", "OFF"]),
            Effect::Tracking(false),
            1,
        );
        keep.tracked(false, true);
        assert!(!keep.is_early());
    }

    #[test]
    fn a_transaction_is_kept_up_to_a_bound() {
        let mut keep = Keep::default();
        keep.note(&frame(&["MULTI"]), Effect::Multi, 1);
        keep.note(&frame(&["BLPOP", "q", "0"]), Effect::Blocking, 1);
        keep.note(&frame(&["SET", "k", "v"]), Effect::None, 1);
        assert!(keep.blocked.is_none());
        assert_eq!(keep.queued, 3);
        keep.note(&frame(&["EXEC"]), Effect::Exec, 1);
        assert_eq!(keep.queued, 0);
        keep.note(&frame(&["MULTI"]), Effect::Multi, 1);
        let large = "x".repeat(bounds::TRANSACTION_KEPT);
        keep.note(&frame(&["SET", "k", &large]), Effect::None, 1);
        assert!(keep.has_overflown() && keep.queue.is_empty());
        keep.note(&frame(&["SET", "k", "v"]), Effect::None, 1);
        assert!(keep.queue.is_empty());
        keep.note(&frame(&["DISCARD"]), Effect::Discard, 1);
        assert!(!keep.has_overflown());
        // What is lost with its connection is nothing of the next transaction.
        keep.note(&frame(&["MULTI"]), Effect::Multi, 1);
        keep.forget_transaction();
        keep.note(&frame(&["BLPOP", "q", "0"]), Effect::Blocking, 1);
        assert!(keep.blocked.is_some() && keep.queue.is_empty());
    }
}
