//! Losing a connection to a shard: who was promised what, and what is told to whom.

use super::Worker;
use super::backend::{Effect, Phase, Run, Use};
use super::client::{Lane, Streaming, Wait};
use super::session::{Db, Transaction, Watch};
use crate::stats::ErrorKind;
use crate::texts;
use crate::topology::Database;

impl Worker {
    /// A connection is lost: everybody who waits for a reply from it gets an error instead, and
    /// what it held for a client is gone.
    pub(super) fn lose(&mut self, index: usize, reason: &str) {
        let backend = &mut self.backends[index];
        let (id, usage, phase) = (backend.link, backend.usage, backend.phase);
        let half_sent = backend.half_sent;
        let half_received = !backend.framer.at_start() && backend.passed_on;
        let book = backend.take_book();
        if phase == Phase::Ready && !matches!(usage, Use::Idle(_)) {
            let Database { uid, name, .. } = &*self.served[id.served].database;
            tracing::warn!(database = %uid, name, reason, "a connection to a shard is closed");
        }
        self.drop_backend(index);
        if let Use::Own(owner) = usage
            && let Some(client) = self.find(owner)
        {
            self.clients[client].lane = Lane::Shared;
        }

        let runs = book.len();
        for (number, run) in book.into_iter().enumerate() {
            let Some(client) = self.find(run.client) else {
                continue;
            };
            // Part of its reply has been sent: nothing can follow that.
            if number == 0 && half_received && !self.forget_part(client) {
                self.close_client(client);
                continue;
            }
            let cut = half_sent && number + 1 == runs;
            self.fail_run(client, &run, cut);
            match run.effect {
                Effect::Freed => self.freed(run.client),
                Effect::Unblocked => self.fulfil(run.client, true, 0),
                _ => {}
            }
        }
        if let Use::Own(owner) = usage
            && let Some(client) = self.find(owner)
        {
            self.lost_own(client, phase, half_received);
        }
        let was_shared = self.link(id).is_some_and(|link| link.shared == Some(index));
        if usage == Use::Shared && was_shared {
            self.link_failed(id, reason);
        }
    }

    /// Answers a run of commands that were in flight; `cut`: the last one was not sent as a whole.
    fn fail_run(&mut self, client: usize, run: &Run, cut: bool) {
        let known = &mut self.clients[client];
        known.in_flight -= run.count;
        if run.effect == Effect::Blocking {
            known.blocking -= 1;
            self.front_blocks(client, false);
        }
        if !run.discard {
            for number in 0..run.count {
                let last = cut && number + 1 == run.count;
                let text = if last {
                    texts::NOT_RUN
                } else {
                    texts::OUTCOME_UNKNOWN
                };
                let kind = if last {
                    ErrorKind::Unavailable
                } else {
                    ErrorKind::OutcomeUnknown
                };
                self.count_error(client, kind);
                self.give(client, text, &[]);
                self.given(client, 1, &[]);
            }
        }
        let Some(known) = self.clients.get_mut(client) else {
            return;
        };
        let farewell = run.effect == Effect::Multi;
        match run.effect {
            Effect::Exec | Effect::Discard => {
                known.session.own.transaction = Transaction::No;
                known.session.own.watch = Watch::No;
                known.session.own.select_queued = None;
            }
            Effect::Watch => known.session.own.watch = Watch::Lost,
            Effect::Select(_) => {}
            _ => {}
        }
        if farewell {
            // Whether the commands behind it were meant for a transaction cannot be known.
            self.farewell(client);
        } else {
            self.check_barrier(client);
        }
    }

    /// What the lost connection held for its client.
    fn lost_own(&mut self, client: usize, phase: Phase, half_received: bool) {
        let known = &mut self.clients[client];
        let own = &mut known.session.own;
        if known.wait == Wait::Farewell {
            return;
        }
        if own.subscriptions.any()
            || own.tracking
            || own.monitor
            || own.db == Db::Unknown
            || half_received
        {
            // Nobody can be told on such a connection that messages are missing: it ends, and the
            // client subscribes again.
            let peer = known.session.peer;
            tracing::info!(%peer, "a client is closed: its subscriptions or its tracking were lost with the shard's connection");
            self.close_client(client);
            return;
        }
        if own.transaction == Transaction::Open {
            own.transaction = Transaction::Lost;
            own.select_queued = None;
        }
        if own.watch == Watch::Set {
            own.watch = Watch::Lost;
        }
        known.lane = if known.session.shareable() {
            Lane::Shared
        } else {
            Lane::Gone
        };
        if known.streaming.is_some() {
            known.streaming = Some(Streaming::Skip);
        }
        if phase == Phase::Ready {
            if matches!(known.wait, Wait::Room | Wait::Link) {
                self.resume(client);
            }
            return;
        }
        if known.wait == Wait::Link {
            self.own_not_opened(client);
        }
    }

    /// The shard did not let the client have a connection of its own.
    fn own_not_opened(&mut self, client: usize) {
        let id = self.link_of(client);
        if self.link(id).is_some_and(|link| link.ready) {
            // It lets others in: this is not an outage that passes. The command gets an error.
            self.clients[client].refused_own = true;
            self.resume(client);
        } else {
            let name = self.client_id(client);
            self.need(id);
            if let Some(link) = self.link_mut(id) {
                link.waiters.push(name);
            }
        }
    }
}
