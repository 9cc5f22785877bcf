//! Clients of databases with several shards.
//!
//! Such a client is a *front* with a *leg* for each shard that it has used. The front has the socket,
//! the session and the order of the replies; a leg is to its shard what a client of a one-shard database
//! is: it has a lane, connections of its own when it needs them, and the engine's state on them. So all
//! rules of a lane hold for each leg, and this module only decides which leg a command goes to and brings
//! the legs' replies into the order of the commands.
//!
//! | file | what |
//! |---|---|
//! | [`command`], [`burst`] | which leg a command goes to, and splitting |
//! | [`order`] | replies in the order of the commands, and merging |
//! | [`early`] | what comes in a transaction before its first key |
//! | [`transaction`] | `WATCH`, `MULTI` and `EXEC` on one of several shards |
//! | [`carry`] | going to another process |
//! | [`subscriptions`] | what a client is subscribed to |
//! | [`messages`] | messages, invalidations, `MONITOR`: what shards send unasked |

mod burst;
mod carry;
mod command;
mod early;
mod messages;
mod order;
mod subscriptions;
mod transaction;

use super::Worker;
use super::client::{Client, Lane, Wait};
use super::lanes::Flow;
use super::session::{ReplyMode, Session};
use crate::merge::{Merge, Part as SplitPart};
pub(super) use burst::Burst;
use resp::reply::simple_run;
use std::collections::VecDeque;
use std::sync::Arc;
pub(super) use transaction::Queue;

/// Whether a client is one of several.
#[derive(Debug)]
pub(crate) enum Part {
    /// Its database has one shard.
    Whole,
    /// It has legs.
    Front(Box<Fan>),
    /// It is one.
    Leg(Box<Leg>),
}

/// What a front has beside what every client has.
#[derive(Debug, Default)]
pub(crate) struct Fan {
    /// What the client is due, oldest first.
    order: VecDeque<Due>,
    /// Places of its legs, by shard.
    legs: Vec<Option<usize>>,
    /// Bytes of replies that legs hold until it is their turn.
    held: usize,
    /// Parts of the command that is being sent which are not sent yet.
    unsent: VecDeque<Unsent>,
    /// A long command goes to this shard as it comes.
    streaming: Option<usize>,
    /// How much was known of a long command when it was looked in vain where it goes.
    looked: usize,
    transaction: Queue,
    /// The shard whose keys are watched.
    watched: Option<usize>,
    subscribed: subscriptions::Names,
    /// `OPTIN` (yes) or `OPTOUT` (no) of `CLIENT TRACKING`.
    optin: Option<bool>,
    /// The same, as the last one asked for it.
    optin_asked: Option<bool>,
    /// A `CLIENT CACHING` that is for the next command, wherever that goes.
    caching: Option<Vec<u8>>,
    /// Part of a reply has gone out: no message may come between.
    mid: bool,
    /// Messages that wait for the end of that reply.
    messages: VecDeque<Vec<u8>>,
    /// Confirmations that are due.
    opening: usize,
}

impl Fan {
    /// Whether the client has all that it is due.
    pub(super) fn is_settled(&self) -> bool {
        self.order.is_empty()
    }

    /// Whether no part of a command is still to be sent.
    pub(super) fn is_sent(&self) -> bool {
        self.unsent.is_empty()
    }

    /// Commands that are queued here because no shard has the transaction yet; `None`: one has it.
    pub(super) fn queued_here(&self) -> Option<usize> {
        match &self.transaction {
            Queue::Here(early) => Some(early.count()),
            Queue::No | Queue::At(_) | Queue::Lost => None,
        }
    }

    /// Whether nothing of the client is here but its legs.
    pub(super) fn is_bare(&self) -> bool {
        self.order.is_empty()
            && self.held == 0
            && self.unsent.is_empty()
            && self.streaming.is_none()
            && self.transaction == Queue::No
            && self.watched.is_none()
            && self.optin.is_none()
            && self.caching.is_none()
            && !self.mid
            && self.messages.is_empty()
            && self.opening == 0
    }
}

/// What a leg has beside what every client has.
#[derive(Debug)]
pub(crate) struct Leg {
    /// Place of its front.
    front: usize,
    pub(super) shard: usize,
    /// What waits for its turn, in the order in which the shard sent it. The first one is a reply: a message
    /// that is behind none waits for nothing.
    waiting: VecDeque<Waiting>,
    /// The beginning of the next one.
    part: Vec<u8>,
    /// The rest of that one is dropped.
    drops: bool,
    /// A message, or the beginning of one.
    message: Vec<u8>,
    /// The `CLIENT CACHING` for the command that is being sent is on its way.
    cached: bool,
}

/// Something whole that a leg keeps.
#[derive(Debug)]
enum Waiting {
    Reply(Vec<u8>),
    /// So many simple ones ([`resp::reply::simple_run`]), from `at` on.
    Replies {
        bytes: Vec<u8>,
        at: usize,
        count: u32,
    },
    /// It came behind a reply that waits. Before it, an invalidation would be about something that the client
    /// does not have yet, and what it then gets would stay with it for ever.
    Message(Vec<u8>),
}

impl Waiting {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Reply(bytes) | Self::Message(bytes) => bytes,
            Self::Replies { bytes, at, .. } => bytes.get(*at..).unwrap_or_default(),
        }
    }

    /// How many replies or messages it is.
    fn count(&self) -> u32 {
        match self {
            Self::Reply(_) | Self::Message(_) => 1,
            Self::Replies { count, .. } => *count,
        }
    }

    /// Takes the first of several replies.
    fn split_first(&mut self) -> Option<Vec<u8>> {
        let Self::Replies { bytes, at, count } = self else {
            return None;
        };
        let rest = bytes.get(*at..)?;
        let reply = rest.get(..simple_run(rest, 1).0)?.to_vec();
        *at += reply.len();
        *count -= 1;
        Some(reply)
    }
}

impl Leg {
    /// Bytes that it keeps until it is its turn.
    fn holds(&self) -> usize {
        let waiting = self.waiting.iter().map(|waiting| waiting.bytes().len());
        self.part.len() + waiting.sum::<usize>()
    }

    fn has_whole(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Takes the oldest reply, if it is the first of what waits.
    fn pop_reply(&mut self) -> Option<Vec<u8>> {
        let first = self.waiting.front_mut()?;
        if let Some(reply) = first.split_first() {
            if first.count() == 0 {
                self.waiting.pop_front();
            }
            return Some(reply);
        }
        match self
            .waiting
            .pop_front_if(|first| matches!(first, Waiting::Reply(_)))?
        {
            Waiting::Reply(reply) => Some(reply),
            Waiting::Replies { .. } | Waiting::Message(_) => None,
        }
    }

    /// Keeps whole simple replies: so many are these.
    fn keep_replies(&mut self, new: &[u8], more: u32) {
        if let Some(Waiting::Replies { bytes, count, .. }) = self.waiting.back_mut() {
            bytes.extend_from_slice(new);
            *count += more;
            return;
        }
        self.waiting.push_back(Waiting::Replies {
            bytes: new.to_vec(),
            at: 0,
            count: more,
        });
    }

    /// Whether messages wait behind replies.
    pub(super) fn has_messages(&self) -> bool {
        let is_message = |waiting: &Waiting| matches!(waiting, Waiting::Message(_));
        self.waiting.iter().any(is_message)
    }
}

/// What a client is due.
#[derive(Debug)]
enum Due {
    /// So many replies of one leg.
    Replies { shard: usize, count: u32 },
    /// One reply, made of one of each of these legs.
    Merged { shards: Box<[usize]>, merge: How },
    /// This.
    Text(Box<[u8]>),
}

/// How one reply is made of several.
#[derive(Debug)]
enum How {
    Merge(Merge),
    /// The same, and messages begin with it.
    Opening(Merge),
    /// The legs have nothing to say, or an error. Without one, this is so from now on.
    Confirmed(subscriptions::Change),
    /// It was a merge, and would have been too large: the client hears that.
    TooLarge,
    /// The same as `Confirmed`, of a client that came from another process: it is so already, and this is said.
    Told(Vec<u8>),
}

/// A part of a command.
#[derive(Debug)]
struct Unsent {
    shard: usize,
    /// `None`: the command as it is.
    frame: Option<Vec<u8>>,
}

impl From<SplitPart> for Unsent {
    fn from(part: SplitPart) -> Self {
        Self {
            shard: usize::from(part.shard),
            frame: Some(part.frame),
        }
    }
}

impl Worker {
    /// The client that has the socket: itself, or the front of a leg.
    #[inline]
    pub(super) fn front_of(&self, index: usize) -> usize {
        match &self.clients[index].part {
            Part::Whole | Part::Front(_) => index,
            Part::Leg(leg) => leg.front,
        }
    }

    /// The legs of a client.
    pub(super) fn legs_of(&self, index: usize) -> impl Iterator<Item = usize> + '_ {
        let legs: &[Option<usize>] = match &self.clients[index].part {
            Part::Front(fan) => &fan.legs,
            Part::Whole | Part::Leg(_) => &[],
        };
        legs.iter().filter_map(|leg| *leg)
    }

    fn fan(&self, front: usize) -> Option<&Fan> {
        match &self.clients.get(front)?.part {
            Part::Front(fan) => Some(fan),
            Part::Whole | Part::Leg(_) => None,
        }
    }

    fn fan_mut(&mut self, front: usize) -> Option<&mut Fan> {
        match &mut self.clients.get_mut(front)?.part {
            Part::Front(fan) => Some(fan),
            Part::Whole | Part::Leg(_) => None,
        }
    }

    fn leg_state(&mut self, leg: usize) -> Option<&mut Leg> {
        match &mut self.clients.get_mut(leg)?.part {
            Part::Leg(leg) => Some(leg),
            Part::Whole | Part::Front(_) => None,
        }
    }

    /// The leg to a shard; it is made when it is first needed.
    fn leg(&mut self, front: usize, shard: usize) -> usize {
        let found = self.fan(front).and_then(|fan| *fan.legs.get(shard)?);
        if let Some(leg) = found {
            return leg;
        }
        let client = &self.clients[front];
        let known = &client.session;
        let mut session = Session::new(known.id, known.peer, known.local, true);
        session.resp = known.resp;
        let part = Part::Leg(Box::new(Leg {
            front,
            shard,
            waiting: VecDeque::new(),
            part: Vec::new(),
            drops: false,
            message: Vec::new(),
            cached: false,
        }));
        let (served, stats) = (client.served, Arc::clone(&client.stats));
        self.generation = self.generation.wrapping_add(1);
        let client = Client::new(self.generation, None, served, stats, session, part);
        let leg = self.clients.insert(Box::new(client));
        if let Some(fan) = self.fan_mut(front) {
            if fan.legs.len() <= shard {
                fan.legs.resize(shard + 1, None);
            }
            fan.legs[shard] = Some(leg);
        }
        leg
    }

    /// Ends the legs of a client, and what they used. What they were due is due no more.
    pub(super) fn close_legs(&mut self, front: usize) {
        let Some(fan) = self.fan_mut(front) else {
            return;
        };
        let legs = std::mem::take(&mut fan.legs);
        *fan = Fan::default();
        self.clients[front].blocking = 0;
        for leg in legs.into_iter().flatten() {
            if let Lane::Own(backend) = self.clients[leg].lane {
                self.leave_own(leg, backend);
            }
            self.forget_keep(leg);
            let id = self.client_id(leg);
            let gone = self.clients.remove(leg);
            self.fulfil(id, false, 0);
            for backend in gone.paused {
                if self.backends.contains(backend) {
                    self.queue_backend(backend);
                }
            }
        }
    }

    /// A command of a leg blocks, or no more: so it is with its client.
    pub(super) fn front_blocks(&mut self, client: usize, blocks: bool) {
        let Part::Leg(leg) = &self.clients[client].part else {
            return;
        };
        let front = leg.front;
        let front = &mut self.clients[front];
        front.blocking = if blocks {
            front.blocking + 1
        } else {
            front.blocking.saturating_sub(1)
        };
    }

    /// Sends a command to one shard, whose reply is the client's next one.
    fn at_shard(&mut self, front: usize, shard: usize, frame: &[u8]) -> Flow {
        self.let_shard(front, shard, |worker, leg| worker.command(leg, frame))
    }

    /// Lets a leg take a command, whose reply is the client's next one.
    fn let_shard(
        &mut self,
        front: usize,
        shard: usize,
        send: impl FnOnce(&mut Self, usize) -> Flow,
    ) -> Flow {
        let wanted = self.clients[front].session.reply;
        if wanted == ReplyMode::On {
            self.due(front, shard, 1);
        }
        let flow = self.send_part(front, shard, send);
        match flow {
            Flow::Next if wanted == ReplyMode::SkipNext => {
                if let Some(client) = self.clients.get_mut(front) {
                    client.session.reply = ReplyMode::On;
                }
            }
            Flow::Hold if wanted == ReplyMode::On => self.not_due(front),
            _ => {}
        }
        if flow == Flow::Next {
            self.caching_used(front);
        }
        flow
    }

    /// Lets a leg take a command. If it has to wait, so has the client.
    fn send_part(
        &mut self,
        front: usize,
        shard: usize,
        send: impl FnOnce(&mut Self, usize) -> Flow,
    ) -> Flow {
        let leg = self.leg(front, shard);
        let flow = self.send_caching(front, leg);
        self.clients[leg].session.reply = self.clients[front].session.reply;
        let flow = match flow {
            Flow::Next => send(self, leg),
            other => other,
        };
        if flow == Flow::Next
            && let Some(leg) = self.leg_state(leg)
        {
            leg.cached = false;
        }
        if flow == Flow::Hold
            && let Some(client) = self.clients.get_mut(front)
            && client.wait == Wait::Nothing
        {
            client.wait = Wait::Leg;
        }
        flow
    }
}
