//! Closing a gate: nothing more is forwarded, and what is under way comes to its end.

use super::{Closed, Gate, Outcome, refuse, tell};
use crate::bounds;
use crate::worker::Worker;
use crate::worker::backend::{Effect, Phase, Use};
use crate::worker::client::{Lane, Wait};
use crate::worker::link::LinkId;
use crate::worker::session::Transaction;
use crate::worker::timers::Timer;
use model::Epoch;
use model::proxy::ProxyShard;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::sync::mpsc::Sender;

impl Worker {
    pub(super) fn hold_order(
        &mut self,
        served: usize,
        shard: usize,
        epoch: Epoch,
        patience: Duration,
        answer: Sender<Outcome>,
    ) {
        let known = self.epoch_of(served, shard);
        if known != Some(epoch) {
            let known = known.map_or_else(|| "none".to_owned(), |epoch| epoch.to_string());
            refuse(
                Some(answer),
                format!("the epoch is {known} here, not {epoch}"),
            );
            return;
        }
        self.close_gate(served, shard, epoch, patience, Some(answer));
    }

    /// Closes the gate of a shard under its present epoch.
    pub(in crate::worker) fn close_gate(
        &mut self,
        served: usize,
        shard: usize,
        epoch: Epoch,
        patience: Duration,
        answer: Option<Sender<Outcome>>,
    ) {
        let number = self.next_number();
        self.set_gate_timer(patience, served, shard, number);
        let links = &mut self.served[served].shards[shard];
        let gate = links.gate.get_or_insert_with(Box::<Gate>::default);
        if let Some(closed) = &mut gate.closed {
            // Ordered again: it is as it was, with new patience.
            closed.number = number;
            closed.over = false;
            if closed.held {
                tell(answer, Outcome::default());
            } else {
                // There are no more than orders under way.
                closed.answers.extend(answer);
            }
            return;
        }
        gate.closed = Some(Closed {
            epoch,
            since: Instant::now(),
            held: false,
            over: false,
            answers: answer.into_iter().collect(),
            waited: 0,
            halves: Vec::new(),
            look_at: self.now,
            number,
        });
        for link in &mut links.links {
            link.ready = false;
        }
        self.gates.closing.push((served, shard));
        self.stop_connecting(served, shard);
        self.open_spares(served, shard, bounds::PREPARED_MAX);
        for index in self.backends_of(served, Some(shard)) {
            self.queue_backend(index);
        }
    }

    /// Whether a gate stays as it is although a configuration names this target.
    pub(in crate::worker) fn keeps_gate(
        &self,
        served: usize,
        shard: usize,
        wanted: Option<&ProxyShard>,
    ) -> bool {
        let gate = self.served[served].shards[shard].gate.as_deref();
        let closed = gate.and_then(|gate| gate.closed.as_ref());
        closed.is_some_and(|closed| {
            !wanted.is_some_and(|wanted| wanted.serving && wanted.epoch > closed.epoch)
        })
    }

    /// Closes the gate of a target that was held before this server knew it; `true`: it was.
    pub(in crate::worker) fn close_if_noted(&mut self, served: usize, shard: usize) -> bool {
        let known = &self.served[served];
        let Some(target) = &known.shards[shard].target else {
            return false;
        };
        let noted = known
            .database
            .closed
            .iter()
            .find(|gate| gate.shard == target.uid && target.epoch <= gate.epoch);
        let Some(noted) = noted else {
            return false;
        };
        tracing::info!(database = %known.database.uid, shard = %target.uid, "commands of this shard are held until it has a new epoch");
        let (epoch, patience) = (
            noted.epoch,
            Duration::from_millis(u64::from(noted.patience_ms)),
        );
        self.close_gate(served, shard, epoch, patience, None);
        true
    }

    /// Connections that are not ready are of no use any more: greeting would reach the primary.
    fn stop_connecting(&mut self, served: usize, shard: usize) {
        let number = self.served[served].shards[shard].number;
        let early: Vec<usize> = self
            .backends
            .iter()
            .filter(|(_, backend)| {
                (backend.link.served, backend.link.shard) == (served, shard)
                    && backend.target == number
                    && backend.phase != Phase::Ready
            })
            .map(|(index, _)| index)
            .collect();
        for index in early {
            let (usage, id) = (self.backends[index].usage, self.backends[index].link);
            self.drop_backend(index);
            match usage {
                Use::Own(owner) => {
                    if let Some(client) = self.find(owner) {
                        self.own_not_there(client);
                        if self.clients[client].wait == Wait::Link
                            && let Some(link) = self.link_mut(id)
                        {
                            link.waiters.push(owner);
                        }
                    }
                }
                Use::Shared => {
                    if let Some(link) = self.link_mut(id)
                        && link.shared == Some(index)
                    {
                        link.shared = None;
                    }
                }
                Use::Leaving | Use::Idle(_) | Use::Next(_) => {}
            }
        }
    }

    /// A client's own connection is no more, but nothing is lost: another one is opened for its next
    /// command, if it needs one.
    pub(super) fn own_not_there(&mut self, client: usize) {
        let known = &mut self.clients[client];
        known.lane = if known.session.shareable() {
            Lane::Shared
        } else {
            Lane::Gone
        };
    }

    /// Whether there is anything to be seen to at the end of a turn.
    #[inline]
    pub(in crate::worker) fn gates_close(&self) -> bool {
        self.gates.look || !self.gates.closing.is_empty() || !self.gates.late.is_empty()
    }

    /// Sees how far the gates are that close, and clients that move after one has opened.
    #[cold]
    pub(in crate::worker) fn tend_gates(&mut self) {
        self.gates.look = false;
        self.tend_late();
        for (served, shard) in std::mem::take(&mut self.gates.closing) {
            let Some(closed) = self.closed_mut(served, shard) else {
                continue;
            };
            if closed.held {
                continue;
            }
            if self.comes_to_rest(served, shard) {
                self.mute_rest(served, shard);
                if let Some(closed) = self.closed_mut(served, shard) {
                    closed.held = true;
                    for answer in std::mem::take(&mut closed.answers) {
                        tell(Some(answer), Outcome::default());
                    }
                }
            } else {
                self.gates.closing.push((served, shard));
            }
        }
    }

    /// Whether a connection must come to its end for a gate that closes.
    #[inline]
    pub(in crate::worker) fn must_end(&self, index: usize) -> bool {
        if self.gates.closing.is_empty() {
            return false;
        }
        let backend = &self.backends[index];
        let LinkId { served, shard, .. } = backend.link;
        self.gates.closing.contains(&(served, shard))
            && self.served[served].shards[shard].number == backend.target
    }

    /// Ends long commands that are not whole and of which nothing more comes: they have not run.
    fn end_halves(&mut self, served: usize, shard: usize) {
        let received = |worker: &Self, index: usize| {
            let backend = &worker.backends[index];
            let owner = match backend.usage {
                Use::Own(owner) if backend.half_sent => worker.find(owner)?,
                _ => return None,
            };
            let front = &worker.clients[worker.front_of(owner)];
            let stopped = !front.readable && backend.out.is_empty();
            stopped.then_some(front.session.received)
        };
        let halves: Vec<(usize, u64)> = self
            .backends_of(served, Some(shard))
            .into_iter()
            .filter_map(|index| Some((index, received(self, index)?)))
            .collect();
        let now = self.now;
        let Some(closed) = self.closed_mut(served, shard) else {
            return;
        };
        if halves.is_empty() || now < closed.look_at {
            return;
        }
        closed.look_at = now + bounds::HALF_SENT;
        let before = std::mem::replace(&mut closed.halves, halves.clone());
        self.timers.set(bounds::HALF_SENT, Timer::Look);
        for half in halves {
            if before.contains(&half) {
                self.lose(half.0, "its primary moves, and a command does not go on");
            }
        }
    }

    /// Helps what is outstanding at the present primary to its end; `true`: nothing is.
    fn comes_to_rest(&mut self, served: usize, shard: usize) -> bool {
        self.end_halves(served, shard);
        let number = self.served[served].shards[shard].number;
        // Of a client that is between two processes it is not known what is outstanding.
        let mut rest = self.stats.carried.load(Ordering::Acquire) == 0;
        if !rest {
            self.timers.set(bounds::ASK_AGAIN, Timer::Look);
        }
        for index in self.backends_of(served, Some(shard)) {
            let Some(backend) = self.backends.get(index) else {
                continue;
            };
            if backend.target != number {
                continue;
            }
            let owner = match backend.usage {
                Use::Own(owner) => self.find(owner).map(|client| (owner, client)),
                _ => None,
            };
            if let Some((owner, _)) = owner
                && self.take_back(index, owner)
            {
                rest = false;
                continue;
            }
            let backend = &self.backends[index];
            let quiet = backend.book.is_empty()
                && backend.out.is_empty()
                && backend.framer.at_start()
                && !backend.half_sent;
            rest &= quiet || backend.muted;
            if let Some((_, client)) = owner
                && quiet
            {
                rest &= self.moves_early(index, client);
            }
        }
        rest
    }

    /// Does for a client what must be done before the primary moves; `true`: it is done.
    fn moves_early(&mut self, index: usize, client: usize) -> bool {
        let keep = self.clients[client].keep.as_ref();
        let (early, subscribed) = keep.map_or((false, false), |keep| {
            (keep.is_early(), keep.is_subscribed())
        });
        if !early {
            return true;
        }
        if !subscribed {
            return self.set_up_early(client);
        }
        if !self.listen_on_old(index, client) {
            return false;
        }
        let there = self.set_up_early(client);
        let has_next = self.clients[client]
            .keep
            .as_ref()
            .is_some_and(|keep| keep.next.is_some());
        if !has_next {
            // It moves after the release; then it listens at least.
            return there && self.may_move_later(index);
        }
        self.publish_marker(index, client);
        self.backends[index].is_over()
    }

    /// Messages that still come are read after the release, or never: then one that is half-way does not
    /// keep a client.
    fn mute_rest(&mut self, served: usize, shard: usize) {
        let number = self.served[served].shards[shard].number;
        for index in self.backends_of(served, Some(shard)) {
            let backend = &mut self.backends[index];
            if backend.target == number && matches!(backend.usage, Use::Own(_)) {
                backend.muted = true;
            }
        }
    }

    /// Whether a client's own connection has a transaction that is open, or will be when its replies are in.
    fn stays_open(&self, index: usize) -> bool {
        let backend = &self.backends[index];
        let Use::Own(owner) = backend.usage else {
            return false;
        };
        let Some(client) = self.find(owner) else {
            return false;
        };
        let open = self.clients[client].session.own.transaction == Transaction::Open;
        backend
            .book
            .iter()
            .fold(open, |open, run| match run.effect {
                Effect::Multi => true,
                Effect::Exec | Effect::ExecRefused | Effect::Discard => false,
                _ => open,
            })
    }

    /// Clients have waited long enough. Transactions are given up first: a command that was to be part of
    /// one and gets an error must not be missing from it.
    pub(super) fn patience_over(&mut self, served: usize, shard: usize) {
        let Some(closed) = self.closed_mut(served, shard) else {
            return;
        };
        closed.over = true;
        let number = self.served[served].shards[shard].number;
        let open: Vec<usize> = self
            .backends
            .iter()
            .filter(|(_, backend)| {
                (backend.link.served, backend.link.shard) == (served, shard)
                    && backend.target == number
            })
            .map(|(index, _)| index)
            .filter(|index| self.stays_open(*index))
            .collect();
        for index in open {
            self.lose(index, "its primary moves for too long");
        }
        for id in self.links_of(served, shard) {
            self.wake_waiters(id);
        }
    }
}
