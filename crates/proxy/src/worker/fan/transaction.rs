//! Transactions over several shards run on one of them: the one whose keys are watched, or else that of
//! the first key after `MULTI`. What comes before that key is for [`super::early`].

use super::Fan;
use super::command::FIRST;
use super::early::Early;
use crate::texts;
use crate::worker::Worker;
use crate::worker::backend::{Effect, Rewrite};
use crate::worker::client::Lane;
use crate::worker::filter::Generation;
use crate::worker::lanes::{Flow, Sending};
use crate::worker::own_words::encode_own;
use crate::worker::queued::{Inside, PLACEHOLDER, What};
use crate::worker::route::guarded;
use crate::worker::session::{ReplyMode, Transaction, Watch};
use resp::command::Class;
use resp::keys::Place;
use resp::number::strict_i64;
use resp::request::Args;

const MULTI: &[u8] = b"*1\r\n$5\r\nMULTI\r\n";

/// Where a transaction is.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) enum Queue {
    /// None is open.
    #[default]
    No,
    /// `MULTI` was sent, and commands without a key; which shard it is for is not known yet.
    Here(Early),
    /// It is open at this shard.
    At(usize),
    /// The shard could not be reached for it: `EXEC` will refuse.
    Lost,
}

/// Where a command inside a transaction goes.
enum Goes {
    /// To this shard, which has its keys.
    Shard(usize),
    /// Wherever the transaction is. Every engine queues it.
    Along,
    /// The same, but the engine may have an error for it.
    Unsure,
    /// The same, and it ends the transaction.
    Ends,
    /// Nowhere; this is the engine's error, which changes nothing.
    Answer(&'static [u8]),
    /// Nowhere; this error spoils the transaction.
    Refuse(Vec<u8>),
}

impl Worker {
    /// `MULTI`, `WATCH`, `UNWATCH` outside of a transaction, and `EXEC` with arguments.
    pub(super) fn fan_transaction(
        &mut self,
        front: usize,
        class: Class,
        frame: &[u8],
        args: &Args<'_>,
    ) -> Flow {
        let watched = self.fan(front).and_then(|fan| fan.watched);
        match (class, watched) {
            (Class::Multi, None) if args.left() == 0 => {
                self.set_queue(front, Queue::Here(Early::default()));
                self.fan_reply(front, texts::OK)
            }
            (Class::Multi, Some(shard)) if args.left() == 0 => {
                let flow = self.at_shard(front, shard, frame);
                if flow == Flow::Next {
                    self.set_queue(front, Queue::At(shard));
                }
                flow
            }
            (Class::Watch, _) => {
                let shard = match resp::keys::place(frame) {
                    Place::Slot(slot) => Some(self.shard_of(front, slot)),
                    Place::Several => self.common_shard(front, frame),
                    Place::Anywhere | Place::Unclear => {
                        return self.at_shard(front, self.any_shard(front), frame);
                    }
                };
                let Some(shard) = shard.filter(|shard| watched.is_none_or(|at| at == *shard))
                else {
                    return self.fan_reply(front, texts::CROSSSLOT_WATCH);
                };
                let flow = self.at_shard(front, shard, frame);
                if flow == Flow::Next {
                    self.set_watched(front, Some(shard));
                }
                flow
            }
            // `EXEC` with arguments is refused, and lets go of what is watched nevertheless.
            (Class::Unwatch, Some(shard)) if args.left() == 0 => {
                self.let_watched_go(front, shard, frame)
            }
            (Class::Exec, Some(shard)) => self.let_watched_go(front, shard, frame),
            // The engine has the words for what is wrong, and for `UNWATCH` without a watch.
            _ => self.at_shard(front, self.any_shard(front), frame),
        }
    }

    /// Sends what lets go of watched keys to the shard that has them.
    fn let_watched_go(&mut self, front: usize, shard: usize, frame: &[u8]) -> Flow {
        let flow = self.at_shard(front, shard, frame);
        if flow == Flow::Next {
            self.set_watched(front, None);
        }
        flow
    }

    /// `EXEC` while nothing but subscriptions is possible: an engine refuses it, and lets go of what is watched.
    pub(super) fn exec_while_subscribed(
        &mut self,
        front: usize,
        subscribed: usize,
        frame: &[u8],
    ) -> Flow {
        let Some(watched) = self.fan(front).and_then(|fan| fan.watched) else {
            return self.at_shard(front, subscribed, frame);
        };
        let leg = self.leg(front, watched);
        if self.clients[leg].session.own.subscriptions.any() {
            return self.let_watched_go(front, watched, frame);
        }
        if let Lane::Own(place) = self.clients[leg].lane {
            let mut unwatch = Vec::new();
            encode_own([&b"UNWATCH"[..]], &mut unwatch);
            self.send_unheard(leg, place, &unwatch, Effect::Unwatch);
        }
        self.set_watched(front, None);
        self.at_shard(front, subscribed, frame)
    }

    pub(super) fn set_queue(&mut self, front: usize, queue: Queue) {
        let state = match queue {
            Queue::No => Transaction::No,
            Queue::Here(_) | Queue::At(_) => Transaction::Open,
            Queue::Lost => Transaction::Lost,
        };
        if let Some(fan) = self.fan_mut(front) {
            fan.transaction = queue;
            // What the client's connection means is seen in one place.
            self.clients[front].session.own.transaction = state;
        }
    }

    fn set_watched(&mut self, front: usize, shard: Option<usize>) {
        let state = match shard {
            Some(_) => Watch::Set,
            None => Watch::No,
        };
        if let Some(fan) = self.fan_mut(front) {
            fan.watched = shard;
            self.clients[front].session.own.watch = state;
        }
    }

    /// A command inside a transaction.
    pub(super) fn fan_in_transaction(
        &mut self,
        front: usize,
        class: Class,
        name: &[u8],
        frame: &[u8],
        args: &Args<'_>,
    ) -> Flow {
        let at = match self.fan(front).map(|fan| &fan.transaction) {
            Some(Queue::At(shard)) => Some(*shard),
            Some(Queue::Lost) => return self.lost_transaction(front, class),
            _ => None,
        };
        if answered_here(class) {
            return self.fan_inside(front, class, name, frame, args);
        }
        let goes = match class {
            Class::Plain
            | Class::Cursor
            | Class::Blocking
            | Class::BlockingOption
            | Class::Script
            | Class::Wait => self.goes_with_keys(front, name, frame, args, at),
            _ => self.goes_without_keys(front, class, args),
        };
        let shard = match (at, goes) {
            (_, Goes::Refuse(text)) => return self.fan_spoil(front, at, &text),
            (Some(at), Goes::Shard(shard)) if at != shard => {
                return self.fan_spoil(front, Some(at), texts::CROSSSLOT);
            }
            (Some(at), _) => return self.fan_queue(front, at, class, frame, args),
            (None, Goes::Answer(text)) => return self.fan_reply(front, text),
            (None, Goes::Along) if self.fits_early(front, frame) => {
                return self.queue_early(front, frame, Sending::plain(), true);
            }
            (None, Goes::Unsure) if self.fits_early(front, frame) => {
                let sending = match class {
                    Class::Guarded => guarded(name, args),
                    _ => Sending::plain(),
                };
                return self.queue_early(front, frame, sending, false);
            }
            (None, Goes::Shard(shard)) => shard,
            (None, Goes::Along | Goes::Unsure | Goes::Ends) => FIRST,
        };
        match self.open_at(front, shard) {
            Ok(()) => self.fan_queue(front, shard, class, frame, args),
            Err(flow) => flow,
        }
    }

    /// Where a command goes that has keys, or might have.
    fn goes_with_keys(
        &self,
        front: usize,
        name: &[u8],
        frame: &[u8],
        args: &Args<'_>,
        at: Option<usize>,
    ) -> Goes {
        match resp::keys::place(frame) {
            Place::Slot(_) if at.is_none() && self.is_surely_wrong(front, name, args) => {
                Goes::Unsure
            }
            Place::Slot(slot) => Goes::Shard(self.shard_of(front, slot)),
            Place::Several => match self.common_shard(front, frame) {
                Some(shard) => Goes::Shard(shard),
                None => Goes::Refuse(texts::CROSSSLOT.to_vec()),
            },
            // Its keys may be where it goes outside of a transaction.
            Place::Unclear if at.is_none() && !self.engine_is_listed(front) => Goes::Shard(FIRST),
            Place::Unclear => Goes::Unsure,
            Place::Anywhere if !is_local(name) => Goes::Refuse(texts::refused_over_shards(
                &format!("{} inside a transaction", texts::shown(name)),
            )),
            Place::Anywhere if self.is_surely_queued(front, frame) => Goes::Along,
            Place::Anywhere => Goes::Unsure,
        }
    }

    /// Where a command goes that is about the transaction or the connection.
    fn goes_without_keys(&self, front: usize, class: Class, args: &Args<'_>) -> Goes {
        let early = self.generation_of(front) < Generation::Eight;
        match (class, args.left()) {
            (Class::Exec, _) | (Class::Discard, 0) => Goes::Ends,
            (Class::Unwatch, 0) => Goes::Along,
            (Class::Select, 1) => match args.clone().next().and_then(strict_i64) {
                // That it names no number is an error at `EXEC`.
                Some(0) | None => Goes::Along,
                Some(_) => Goes::Refuse(texts::SELECT_OVER_SHARDS.to_vec()),
            },
            // For these engines the error changes nothing: the transaction goes on.
            (Class::Multi, 0) if early => Goes::Answer(texts::NESTED),
            (Class::Watch, 1..) if early => Goes::Answer(texts::WATCH_INSIDE),
            _ => Goes::Unsure,
        }
    }

    /// Sends a command of a transaction to the shard that has it.
    fn fan_queue(
        &mut self,
        front: usize,
        shard: usize,
        class: Class,
        frame: &[u8],
        args: &Args<'_>,
    ) -> Flow {
        // The reply to its `EXEC` is looked into: by then nothing else may be due.
        if class == Class::Cursor && !self.barrier(front) {
            return Flow::Hold;
        }
        let leg = self.leg(front, shard);
        let looked_into = class == Class::Exec && self.looks_into_exec(front, leg);
        let (flow, made) = if looked_into {
            self.fan_exec(front, shard, frame)
        } else {
            (self.at_shard(front, shard, frame), false)
        };
        let over = class == Class::Exec || (class == Class::Discard && args.left() == 0);
        if flow == Flow::Next && over && self.clients.contains(front) {
            if made {
                self.exec_sent(front);
            }
            self.forget_later(front);
            self.set_queue(front, Queue::No);
            self.set_watched(front, None);
        }
        flow
    }

    /// Sends an `EXEC` whose reply is looked into: the client is due what is made of that. `false`: it got an error
    /// instead, which is due as any other reply, or has to wait.
    fn fan_exec(&mut self, front: usize, shard: usize, frame: &[u8]) -> (Flow, bool) {
        let wanted = self.clients[front].session.reply;
        if wanted == ReplyMode::On {
            self.due(front, shard, 1);
        }
        let mut sent = false;
        let flow = self.send_part(front, shard, |worker, leg| {
            let before = worker.clients[leg].in_flight;
            let flow = worker.send_own(leg, frame, Self::exec_sending());
            sent = flow == Flow::Next && worker.was_sent(leg, before);
            flow
        });
        let answered = flow == Flow::Next && !sent;
        match (wanted, self.clients.get_mut(front)) {
            (ReplyMode::SkipNext, Some(client)) if answered => client.session.reply = ReplyMode::On,
            (ReplyMode::On, Some(_)) if !answered => self.not_due(front),
            _ => {}
        }
        (flow, sent)
    }

    /// A command inside a transaction that no shard can answer, or only in part.
    fn fan_inside(
        &mut self,
        front: usize,
        class: Class,
        name: &[u8],
        frame: &[u8],
        args: &Args<'_>,
    ) -> Flow {
        // How many commands the shard has queued must be known.
        if !self.barrier(front) {
            return Flow::Hold;
        }
        let place = match self.fan(front).map(|fan| &fan.transaction) {
            Some(Queue::At(shard)) => Some(*shard),
            _ => None,
        };
        let leg = place.map(|shard| self.leg(front, shard));
        if let (Some(shard), Some(leg)) = (place, leg)
            && self.clients[leg].session.own.transaction == Transaction::Lost
        {
            return self.at_shard(front, shard, frame);
        }
        let (sent, sending, what) = match self.inside(front, class, name, args) {
            Inside::Refuse(text) => return self.fan_spoil(front, place, &text),
            Inside::Answer if self.holds_too_much(front, frame) => {
                return self.fan_spoil(front, place, texts::TOO_MUCH_INSIDE);
            }
            Inside::Answer => {
                let what = What::Answer(frame.into());
                (PLACEHOLDER, Sending::plain(), Some(what))
            }
            Inside::Pass(sending, what) => (frame, sending, what),
            Inside::Instead(other, what) => (other, Sending::plain(), Some(what)),
        };
        let (Some(shard), Some(leg)) = (place, leg) else {
            return self.inside_early(front, sent, sending, what);
        };
        let at = self.clients[leg].in_transaction;
        let flow = self.let_shard(front, shard, |worker, leg| {
            worker.send_own(leg, sent, sending)
        });
        if flow == Flow::Next {
            self.note_later(front, at, what);
        }
        flow
    }

    /// The same before the first key.
    fn inside_early(
        &mut self,
        front: usize,
        frame: &[u8],
        sending: Sending,
        what: Option<What>,
    ) -> Flow {
        if !self.fits_early(front, frame) {
            // When the shard has queued what is before it, it is looked at again.
            return match self.open_at(front, FIRST) {
                Ok(()) => {
                    self.barrier(front);
                    Flow::Hold
                }
                Err(flow) => flow,
            };
        }
        let at = self.fan(front).and_then(Fan::queued_here).unwrap_or(0);
        let sure = sending.rewrite == Rewrite::None && self.is_surely_queued(front, frame);
        let flow = self.queue_early(front, frame, sending, sure);
        if flow == Flow::Next {
            self.note_later(front, at, what);
        }
        flow
    }

    fn lost_transaction(&mut self, front: usize, class: Class) -> Flow {
        let text = match class {
            Class::Exec => texts::EXECABORT,
            Class::Discard => texts::OK,
            _ => return self.fan_reply(front, texts::TRANSACTION_LOST),
        };
        self.set_queue(front, Queue::No);
        self.set_watched(front, None);
        self.forget_later(front);
        self.fan_reply(front, text)
    }

    /// An error inside a transaction: the engine hears of it, so that `EXEC` refuses.
    pub(super) fn fan_spoil(&mut self, front: usize, at: Option<usize>, text: &[u8]) -> Flow {
        match at {
            Some(shard) => self.let_shard(front, shard, |worker, leg| worker.refuse(leg, text)),
            None => self.spoil_early(front, text),
        }
    }

    /// Opens the transaction at a shard, with what was queued here; its replies have been given.
    pub(super) fn open_at(&mut self, front: usize, shard: usize) -> Result<(), Flow> {
        let flow = self.send_part(front, shard, |worker, leg| {
            // If there is no connection, nobody is due the error.
            worker.clients[leg].session.reply = ReplyMode::Off;
            let place = match worker.own(leg) {
                Ok(place) => place,
                Err(flow) => return flow,
            };
            let early = match worker.fan_mut(front).map(|fan| &mut fan.transaction) {
                Some(Queue::Here(early)) => std::mem::take(early),
                _ => Early::default(),
            };
            worker.send_unheard(leg, place, MULTI, Effect::Multi);
            for frame in early.into_frames() {
                worker.send_unheard(leg, place, &frame, Effect::None);
            }
            worker.set_queue(front, Queue::At(shard));
            Flow::Next
        });
        let opened = matches!(
            self.fan(front).map(|fan| &fan.transaction),
            Some(Queue::At(_))
        );
        if opened {
            // It went ahead of `MULTI`, and is for the whole transaction.
            self.caching_used(front);
            Ok(())
        } else if flow == Flow::Next {
            self.set_queue(front, Queue::Lost);
            Err(self.fan_reply(front, texts::NO_CONNECTION))
        } else {
            Err(flow)
        }
    }
}

/// Whether the proxy answers a command itself, or only allows some of it.
fn answered_here(class: Class) -> bool {
    matches!(
        class,
        Class::Client
            | Class::Command
            | Class::Config
            | Class::Acl
            | Class::Auth
            | Class::Hello
            | Class::Monitor
            | Class::Refused
            | Class::Subscribe(_)
            | Class::Unsubscribe(_)
    )
}

/// Whether a command without a key is about the connection or the server, and means the same on any
/// shard. The others are about all keys.
fn is_local(name: &[u8]) -> bool {
    const LOCAL: [&[u8]; 15] = [
        b"PING",
        b"ECHO",
        b"TIME",
        b"EVAL",
        b"EVALSHA",
        b"EVAL_RO",
        b"EVALSHA_RO",
        b"FCALL",
        b"FCALL_RO",
        b"LOLWUT",
        b"ROLE",
        b"PUBLISH",
        b"INFO",
        b"WAIT",
        b"WAITAOF",
    ];
    LOCAL.iter().any(|known| known.eq_ignore_ascii_case(name))
}
