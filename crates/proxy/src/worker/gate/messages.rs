//! Subscriptions when the primary moves: no message is lost, none comes twice.
//!
//! A replica gives its subscribers what its primary publishes, in the same order. So the client is
//! subscribed at the next primary too, both connections listen to a marker channel of this client alone, and
//! a marker is published. What comes before the marker is the old connection's; what comes after it, the new
//! one's. The marker goes over a shard channel, which patterns do not see; engines before 7.0 have none, and
//! there the proxy looks at every message of a client with patterns and hides the markers.
//!
//! In a planned move the marker is published at the old primary, before the gate is held. If there was no
//! time for that (nothing was prepared, or the old primary stays), it is published at the new one after the
//! release, and the old connection is read until it comes.

use crate::bounds;
use crate::worker::Worker;
use crate::worker::backend::{Backend, Effect, Next, Phase, Rewrite, Run, Use};
use crate::worker::client::{ClientId, Lane, Wait};
use crate::worker::fan::Part;
use crate::worker::filter::Generation;
use crate::worker::own_words::encode_own;
use resp::request::Args;
use std::ops::Range;

/// What a connection with subscriptions has while they move.
#[derive(Debug, Default)]
pub(crate) struct Moving {
    /// The client's marker channel; empty: only others' markers are hidden.
    marker: Vec<u8>,
    /// Markers go over usual channels, so patterns see them.
    plain: bool,
    side: Side,
    /// The beginning of a message.
    part: Vec<u8>,
    /// What had been received behind the marker.
    left: Vec<u8>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Side {
    /// Nothing moves.
    #[default]
    Still,
    /// It is left: its messages count up to the marker.
    Old {
        /// It listens to the marker channel.
        listens: bool,
        /// The marker was published.
        published: bool,
        /// The marker has come.
        seen: bool,
    },
    /// It takes over: its messages count from the marker on.
    New {
        /// The marker has come.
        seen: bool,
    },
}

/// What a whole message is to this module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Item {
    /// Something for the client.
    Other,
    /// A message of a channel.
    Message,
    /// The client's own marker.
    Marker,
    /// That the marker channel is listened to.
    Listens,
    /// That it is not any more.
    Gone,
    /// Another client's marker.
    Hidden,
}

impl Moving {
    /// Of one that only hides others' markers: the beginning of a message.
    pub(in crate::worker) fn into_part(self) -> Vec<u8> {
        let Self {
            marker: _,
            plain: _,
            side: _,
            part,
            left: _,
        } = self;
        part
    }

    /// One that only hides others' markers.
    pub(in crate::worker) fn hiding(part: Vec<u8>) -> Self {
        Self {
            plain: true,
            part,
            ..Self::default()
        }
    }

    fn classify(&mut self, prefix: &[u8]) -> Item {
        let Some(first) = self.part.first_mut() else {
            return Item::Other;
        };
        let kind = std::mem::replace(first, b'*');
        let item = item(&self.part, kind, prefix, &self.marker);
        if let Some(first) = self.part.first_mut() {
            *first = kind;
        }
        item
    }
}

fn item(part: &[u8], kind: u8, prefix: &[u8], marker: &[u8]) -> Item {
    if !matches!(kind, b'*' | b'>') {
        return Item::Other;
    }
    let mut args = Args::of(part);
    let what = args.next().unwrap_or_default();
    let channel = match what {
        b"pmessage" => args.nth(1),
        _ => args.next(),
    };
    let channel = channel.unwrap_or_default();
    let ours = channel.starts_with(prefix);
    match what {
        b"message" | b"smessage" if ours && channel == marker => Item::Marker,
        b"message" | b"smessage" | b"pmessage" if !ours => Item::Message,
        b"subscribe" | b"ssubscribe" if ours && channel == marker => Item::Listens,
        b"unsubscribe" | b"sunsubscribe" if ours && channel == marker => Item::Gone,
        b"message" | b"smessage" | b"pmessage" if ours => Item::Hidden,
        _ => Item::Other,
    }
}

impl Backend {
    fn side(&self) -> Side {
        self.moving
            .as_ref()
            .map_or(Side::Still, |moving| moving.side)
    }

    /// Whether nothing of its subscriptions moves now; others' markers may be hidden.
    pub(in crate::worker) fn is_still(&self) -> bool {
        self.moving.as_ref().is_none_or(|moving| {
            moving.side == Side::Still && moving.marker.is_empty() && moving.left.is_empty()
        })
    }

    /// Whether all that is the client's has come over a connection that is left.
    pub(super) fn is_over(&self) -> bool {
        match self.side() {
            Side::Old { seen, .. } => seen,
            Side::Still | Side::New { .. } => true,
        }
    }
}

impl Worker {
    /// Whether a client's engine has shard channels.
    fn has_shard_channels(&self, client: usize) -> bool {
        self.generation_of(client) > Generation::Six
    }

    /// On an engine without shard channels, patterns see the markers of others.
    pub(super) fn hide_markers(&mut self, client: usize, place: usize) {
        if !self.has_shard_channels(client) {
            self.backends[place].moving.get_or_insert_default().plain = true;
        }
    }

    /// The marker channel of a client.
    fn marker(&self, client: usize) -> Vec<u8> {
        let session = &self.clients[client].session;
        let mut name = self.gates.prefix.clone();
        name.extend_from_slice(format!("{:x}:{}", self.gates.random, session.id).as_bytes());
        if let Part::Leg(leg) = &self.clients[client].part {
            name.extend_from_slice(format!(":{}", leg.shard).as_bytes());
        }
        name
    }

    /// Has the connection that will be left listen to the marker channel. `false`: it has just taken over itself, and
    /// still listens to the marker of that.
    pub(super) fn listen_on_old(&mut self, index: usize, client: usize) -> bool {
        match self.backends[index].side() {
            Side::Still => {}
            Side::Old { .. } => return true,
            Side::New { .. } => return false,
        }
        let (marker, plain) = (self.marker(client), !self.has_shard_channels(client));
        let mut frame = Vec::new();
        encode_own([listen(plain), &marker], &mut frame);
        let backend = &mut self.backends[index];
        backend.out.push(&frame);
        backend.moving = Some(Box::new(Moving {
            marker,
            plain,
            side: Side::Old {
                listens: false,
                published: false,
                seen: false,
            },
            ..Moving::default()
        }));
        self.mark_backend(index);
        true
    }

    /// The words with which the connection that takes over listens to the marker channel; they have one
    /// reply.
    pub(super) fn listen_on_new(&mut self, index: usize, client: usize, out: &mut Vec<u8>) -> u32 {
        let Lane::Own(old) = self.clients[client].lane else {
            return 0;
        };
        let Some(moving) = self.backends.get(old).and_then(|old| old.moving.as_ref()) else {
            return 0;
        };
        if moving.marker.is_empty() {
            return 0;
        }
        let (marker, plain) = (moving.marker.clone(), moving.plain);
        encode_own([listen(plain), &marker], out);
        self.backends[index].moving = Some(Box::new(Moving {
            marker,
            plain,
            side: Side::New { seen: false },
            ..Moving::default()
        }));
        1
    }

    /// Publishes a client's marker over the connection that all share, if both of its connections listen.
    pub(super) fn publish_marker(&mut self, old: usize, client: usize) {
        let next = self.clients[client]
            .keep
            .as_ref()
            .and_then(|keep| keep.next);
        let listens = next.is_some_and(|next| {
            let next = self.backends.get(next);
            next.is_some_and(|next| next.phase == Phase::Ready && next.set_up)
        });
        let Side::Old {
            listens: true,
            published: false,
            ..
        } = self.backends[old].side()
        else {
            return;
        };
        let id = self.backends[old].link;
        if !listens || self.is_held(id) {
            return;
        }
        let shared = self
            .links_of(id.served, id.shard)
            .into_iter()
            .find_map(|id| {
                let place = self.link(id)?.shared?;
                (self.backends[place].phase == Phase::Ready).then_some(place)
            });
        let Some(place) = shared else {
            return;
        };
        let Some(moving) = &mut self.backends[old].moving else {
            return;
        };
        let publish: &[u8] = if moving.plain {
            b"PUBLISH"
        } else {
            b"SPUBLISH"
        };
        let mut frame = Vec::new();
        encode_own([publish, &moving.marker, b""], &mut frame);
        moving.side = Side::Old {
            listens: true,
            published: true,
            seen: false,
        };
        self.send_for_nobody(place, &frame);
    }

    /// Sends something whose reply is nobody's.
    pub(super) fn send_for_nobody(&mut self, place: usize, frame: &[u8]) {
        let seen = self.unseen();
        let backend = &mut self.backends[place];
        backend.out.push(frame);
        backend.expect(Run {
            client: ClientId::NOBODY,
            count: 1,
            discard: true,
            effect: Effect::None,
            rewrite: Rewrite::None,
            seen,
        });
        self.mark_backend(place);
    }

    /// Takes what comes over a connection whose subscriptions move: whole, to see what it is.
    pub(in crate::worker) fn take_moving(
        &mut self,
        index: usize,
        owner: Option<ClientId>,
        bytes: &[u8],
        range: Range<usize>,
        complete: bool,
    ) -> Result<(), &'static str> {
        let backend = &mut self.backends[index];
        let Some(moving) = &mut backend.moving else {
            return Ok(());
        };
        moving.part.extend_from_slice(&bytes[range]);
        if !complete {
            return Ok(());
        }
        let item = moving.classify(&self.gates.prefix);
        let part = std::mem::take(&mut moving.part);
        match (item, &mut moving.side) {
            (Item::Listens, Side::Old { listens, .. }) => {
                *listens = true;
                self.gates.look = true;
            }
            (Item::Marker, Side::Old { seen, .. }) => {
                *seen = true;
                backend.muted = true;
                self.gates.look = true;
            }
            (Item::Marker, Side::New { seen }) => {
                *seen = true;
                // What is behind it comes when it takes over.
                backend.muted = owner.is_none();
            }
            (Item::Gone, Side::New { .. }) => self.stand_still(index),
            (Item::Listens | Item::Marker | Item::Gone | Item::Hidden, _)
            | (Item::Message, Side::New { seen: false }) => {}
            (Item::Message | Item::Other, _) => {
                if let Some(owner) = owner {
                    if moving.side == Side::Still && !moving.plain {
                        backend.moving = None;
                    }
                    return self.hand_over(index, owner, &part, bytes);
                }
            }
        }
        Ok(())
    }

    /// Gives something whole to a client as if it were in the receive buffer.
    fn hand_over(
        &mut self,
        index: usize,
        owner: ClientId,
        part: &[u8],
        receive: &[u8],
    ) -> Result<(), &'static str> {
        let Some(client) = self.find(owner) else {
            return Ok(());
        };
        let front = self.front_of(client);
        self.flush_slice(front, receive);
        let taken = self.take_own_part(index, owner, part, 0..part.len(), true);
        if self.clients.contains(front) {
            self.flush_slice(front, part);
        }
        taken
    }

    /// Keeps what a client has in a buffer.
    fn flush_slice(&mut self, client: usize, bytes: &[u8]) {
        let known = &mut self.clients[client];
        let slice = std::mem::replace(&mut known.slice, 0..0);
        if !slice.is_empty() {
            known.out.push(&bytes[slice]);
            self.mark_client(client);
        }
    }

    /// Keeps what was received behind the marker.
    #[cold]
    pub(in crate::worker) fn keep_left(&mut self, index: usize, bytes: &[u8]) {
        if let Some(moving) = &mut self.backends[index].moving {
            moving.left.extend_from_slice(bytes);
        }
    }

    /// Reads a connection again, beginning with what was received before.
    pub(super) fn unmute(&mut self, index: usize) {
        let backend = &mut self.backends[index];
        backend.muted = false;
        let left = backend
            .moving
            .as_mut()
            .map(|moving| std::mem::take(&mut moving.left));
        let left = left.unwrap_or_default();
        let taken = self.take_replies(index, &left);
        self.write_touched(&left);
        if let Err(reason) = taken {
            self.lose(index, &reason);
            return;
        }
        if self.backends.contains(index) {
            self.queue_backend(index);
        }
    }

    /// Nothing moves on a connection any more. Where patterns may see markers, it is still looked at.
    fn stand_still(&mut self, index: usize) {
        let backend = &mut self.backends[index];
        match &mut backend.moving {
            Some(moving) if moving.plain => {
                moving.side = Side::Still;
                moving.marker = Vec::new();
            }
            moving => *moving = None,
        }
    }

    /// A connection takes over: it listens to the marker channel no more. If the marker has come, so does
    /// what was behind it.
    pub(super) fn take_subscriptions(&mut self, index: usize) {
        let backend = &mut self.backends[index];
        let Some(moving) = &backend.moving else {
            return;
        };
        if !matches!(moving.side, Side::New { .. }) {
            return;
        }
        let word: &[u8] = if moving.plain {
            b"UNSUBSCRIBE"
        } else {
            b"SUNSUBSCRIBE"
        };
        let mut frame = Vec::new();
        encode_own([word, &moving.marker], &mut frame);
        backend.out.push(&frame);
        self.mark_backend(index);
        self.unmute(index);
    }

    /// Whether a connection that is left listens to the marker channel, so that what is published at the
    /// new primary tells where it ends.
    pub(super) fn may_move_later(&self, index: usize) -> bool {
        matches!(self.backends[index].side(), Side::Old { listens: true, .. })
    }

    /// A client's subscriptions could not move with the primary: the old connection is read until a marker
    /// comes that is published at the new one.
    pub(super) fn move_later(&mut self, old: usize, client: usize, next: usize) {
        if let Some(moving) = &mut self.backends[old].moving {
            moving.side = Side::Old {
                listens: true,
                published: false,
                seen: false,
            };
        }
        self.kept(client).next = Some(next);
        self.unmute(old);
        if self.backends.contains(old) {
            self.gates.late.push((self.client_id(client), old));
            let generation = self.backends[old].generation;
            self.timers.set(
                bounds::RETIRE,
                crate::worker::timers::Timer::Retire(old, generation),
            );
        }
    }

    /// Sees how far clients are whose subscriptions move after the primary.
    pub(super) fn tend_late(&mut self) {
        let late = std::mem::take(&mut self.gates.late);
        if late.is_empty() {
            return;
        }
        for (id, old) in late {
            let Some(client) = self.moves_after(id, old) else {
                continue;
            };
            self.publish_marker(old, client);
            if self.backends[old].is_over() {
                self.move_own(client, old);
                self.wake_moved(id);
            } else {
                self.gates.late.push((id, old));
            }
        }
        let shards = self.served.iter();
        let shards =
            shards.flat_map(|(served, of)| (0..of.shards.len()).map(move |at| (served, at)));
        for (served, shard) in shards.collect::<Vec<_>>() {
            self.tell_if_prepared(served, shard);
        }
        for hold in std::mem::take(&mut self.gates.postponed) {
            self.gate_order(hold);
        }
    }

    /// The primary has moved again, and nobody waited: subscriptions that still move go to the newest one.
    pub(super) fn move_late_again(&mut self, served: usize, shard: usize) {
        let late = self.gates.late.iter();
        let late = late.filter(|(_, old)| {
            let link = self.backends.get(*old).map(|old| old.link);
            link.is_some_and(|link| (link.served, link.shard) == (served, shard))
        });
        for (id, old) in late.copied().collect::<Vec<_>>() {
            let Some(client) = self.moves_after(id, old) else {
                continue;
            };
            if let Some(next) = self.kept(client).next.take()
                && self.is_for(next, client)
            {
                self.drop_backend(next);
            }
            self.kept(client).next = self.connect_for(client, true);
            if let Some(moving) = &mut self.backends[old].moving {
                moving.side = Side::Old {
                    listens: true,
                    published: false,
                    seen: false,
                };
            }
        }
    }

    /// The client whose subscriptions still move after the primary, from this connection.
    fn moves_after(&self, id: ClientId, old: usize) -> Option<usize> {
        let client = self.find(id)?;
        (self.clients[client].lane == Lane::Own(old)).then_some(client)
    }

    /// Whether subscriptions of clients of this shard still move, after the last move of its primary.
    pub(super) fn moves_late(&self, served: usize, shard: usize) -> bool {
        let mut late = self.gates.late.iter();
        late.any(|(id, old)| {
            self.moves_after(*id, *old).is_some() && {
                let link = self.backends[*old].link;
                (link.served, link.shard) == (served, shard)
            }
        })
    }

    /// A client's own connection was exchanged while it waited for that.
    pub(super) fn wake_moved(&mut self, id: ClientId) {
        if let Some(client) = self.find(id)
            && self.clients[client].wait == Wait::Link
        {
            self.resume(client);
        }
    }

    /// A connection of an earlier epoch has had its time. If nothing is under way on it, its client moves,
    /// whatever came of a marker; `false`: it is lost.
    pub(in crate::worker) fn move_at_last(&mut self, index: usize) -> bool {
        let Use::Own(owner) = self.backends[index].usage else {
            return false;
        };
        let Some(client) = self.find(owner) else {
            return false;
        };
        let backend = &self.backends[index];
        let (id, clean) = (backend.link, backend.clean());
        let outdated = self.served[id.served].shards[id.shard].number != backend.target;
        if !clean || !outdated || self.clients[client].lane != Lane::Own(index) {
            return false;
        }
        self.backends[index].muted = false;
        self.backends[index].moving = None;
        let next = self.clients[client]
            .keep
            .as_ref()
            .and_then(|keep| keep.next);
        if let Some(next) = next
            && self.is_for(next, client)
            && let Some(moving) = &mut self.backends[next].moving
        {
            moving.side = Side::New { seen: true };
        }
        self.move_own(client, index);
        self.wake_moved(owner);
        true
    }

    /// Whether a connection is set up for a client that is still elsewhere.
    pub(super) fn is_for(&self, index: usize, client: usize) -> bool {
        let name = self.client_id(client);
        self.backends
            .get(index)
            .is_some_and(|backend| backend.usage == Use::Next(Next::Client(name)))
    }
}

/// The word to listen to a marker channel.
const fn listen(plain: bool) -> &'static [u8] {
    if plain { b"SUBSCRIBE" } else { b"SSUBSCRIBE" }
}

#[cfg(test)]
mod tests {
    use super::*;
    use resp::request::encode;

    fn kind(words: &[&str], head: u8) -> Item {
        let mut part = Vec::new();
        encode(words.iter().map(|word| word.as_bytes()), &mut part);
        item(&part, head, b"pre:", b"pre:mine")
    }

    #[test]
    fn markers_are_told_from_messages() {
        for head in [b'*', b'>'] {
            assert_eq!(kind(&["message", "a", "pre:mine"], head), Item::Message);
            assert_eq!(kind(&["pmessage", "*", "a", "x"], head), Item::Message);
            assert_eq!(kind(&["smessage", "pre:mine", ""], head), Item::Marker);
            assert_eq!(kind(&["pmessage", "*", "pre:mine", ""], head), Item::Hidden);
            assert_eq!(kind(&["message", "pre:other", ""], head), Item::Hidden);
            assert_eq!(kind(&["ssubscribe", "pre:mine"], head), Item::Listens);
            assert_eq!(kind(&["sunsubscribe", "pre:mine"], head), Item::Gone);
            assert_eq!(kind(&["subscribe", "a"], head), Item::Other);
            assert_eq!(kind(&["pong", ""], head), Item::Other);
        }
        assert_eq!(item(b"+OK\r\n", b'+', b"pre:", b"pre:mine"), Item::Other);
    }
}
