//! Losing a connection to a shard: who was promised what, and what is told to whom.

use super::Worker;
use super::backend::{Effect, Phase, Rewrite, Run, Use};
use super::client::{Lane, Streaming, Wait};
use super::session::{Db, Transaction, Watch};
use crate::stats::ErrorKind;
use crate::texts;
use resp::reply::Head;
use std::collections::VecDeque;

/// What became of a command whose reply did not come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// It may have run.
    Unknown,
    /// It was not sent as a whole, so it did not run.
    NotWhole,
    /// It was queued in a transaction that will not run.
    Queued,
    /// It is a `MULTI`. The transaction is open for the client, which hears at `EXEC` that it is lost: an
    /// error could be taken to mean that none is open, and what follows would be meant to run at once.
    Begun,
}

impl Fate {
    /// What its client hears, and as which error that is counted.
    fn told(self) -> (&'static [u8], Option<ErrorKind>) {
        match self {
            Self::Unknown => (texts::OUTCOME_UNKNOWN, Some(ErrorKind::OutcomeUnknown)),
            Self::NotWhole => (texts::NOT_RUN, Some(ErrorKind::Unavailable)),
            Self::Queued => (texts::TRANSACTION_LOST, Some(ErrorKind::Unavailable)),
            Self::Begun => (texts::OK, None),
        }
    }
}

impl Worker {
    /// A connection is lost: everybody who waits for a reply from it gets an error instead, and
    /// what it held for a client is gone.
    pub(super) fn lose(&mut self, index: usize, reason: &str) {
        let backend = &mut self.backends[index];
        let (id, usage, phase) = (backend.link, backend.usage, backend.phase);
        let half_sent = backend.half_sent;
        let half_received = !backend.framer.at_start() && backend.passed_on;
        let book = backend.take_book();
        if !book.is_empty() {
            backend.stream.forget_unsent();
        }
        if !matches!(usage, Use::Idle(_)) {
            self.tell_trouble(id, phase == Phase::Ready, reason);
        }
        self.drop_backend(index);
        if let Use::Own(owner) = usage
            && let Some(client) = self.find(owner)
        {
            self.clients[client].lane = Lane::Shared;
        }

        let fates = self.fates(usage, &book, half_sent);
        for (number, (run, fate)) in book.into_iter().zip(fates).enumerate() {
            let Some(client) = self.find(run.client) else {
                continue;
            };
            // Part of its reply has been sent: nothing can follow that.
            if number == 0 && half_received && !self.forget_part(client) {
                self.close_client(client);
                continue;
            }
            self.fail_run(client, &run, fate);
            match run.effect {
                Effect::Freed => self.freed(run.client),
                Effect::Unblocked => {
                    self.let_go_answered(client, false);
                    self.fulfil(run.client, true, 0);
                }
                Effect::LetGo => self.let_go(client, false),
                _ => {}
            }
        }
        if let Use::Own(owner) = usage
            && let Some(client) = self.find(owner)
        {
            self.lost_own(client, phase, half_received);
        }
        if let Use::Next(what) = usage {
            self.lost_prepared(id, index, what, reason);
        }
        let was_shared = self.link(id).is_some_and(|link| link.shared == Some(index));
        if usage == Use::Shared && was_shared {
            self.link_failed(id, reason);
        }
        self.no_script_lane(id, index);
    }

    /// What became of each run that was in flight; `half_sent`: the last one was not sent as a whole.
    fn fates(&self, usage: Use, book: &VecDeque<Run>, half_sent: bool) -> Vec<Fate> {
        let Use::Own(owner) = usage else {
            return vec![Fate::Unknown; book.len()];
        };
        let session = self.find(owner).map(|client| &self.clients[client].session);
        let mut open = session.is_some_and(|session| session.own.transaction == Transaction::Open);
        let last_exec = book.iter().rposition(|run| run.effect == Effect::Exec);
        let mut fates = Vec::with_capacity(book.len());
        for (number, run) in book.iter().enumerate() {
            let runs = last_exec.is_some_and(|exec| exec >= number);
            let fate = match run.effect {
                _ if half_sent && number + 1 == book.len() => Fate::NotWhole,
                Effect::Multi if !open => Fate::Begun,
                Effect::Exec | Effect::ExecRefused | Effect::Discard => Fate::Unknown,
                _ if open && !runs => Fate::Queued,
                _ => Fate::Unknown,
            };
            open = match run.effect {
                Effect::Multi => true,
                Effect::Exec | Effect::ExecRefused | Effect::Discard => false,
                _ => open,
            };
            fates.push(fate);
        }
        fates
    }

    /// Answers a run of commands that were in flight.
    fn fail_run(&mut self, client: usize, run: &Run, fate: Fate) {
        let known = &mut self.clients[client];
        known.in_flight -= run.count;
        if run.effect == Effect::Blocking {
            known.blocking -= 1;
            self.front_blocks(client, false);
        }
        if run.rewrite == Rewrite::Exec {
            self.count_error(client, ErrorKind::OutcomeUnknown);
            self.exec_came(client, texts::OUTCOME_UNKNOWN.to_vec(), &Head::default());
        }
        if !run.discard {
            for number in 0..run.count {
                let fate = match fate {
                    Fate::NotWhole if number + 1 < run.count => Fate::Unknown,
                    fate => fate,
                };
                let (text, kind) = fate.told();
                if let Some(kind) = kind {
                    self.count_error(client, kind);
                }
                self.give(client, text, &[]);
                self.given(client, 1, &[]);
            }
        }
        if run.effect == Effect::Asked && self.clients.contains(client) {
            self.fan_told(client, None);
        }
        let Some(known) = self.clients.get_mut(client) else {
            return;
        };
        let own = &mut known.session.own;
        match run.effect {
            Effect::Exec | Effect::ExecRefused | Effect::Discard => {
                own.transaction = Transaction::No;
                own.watch = Watch::No;
                own.select_queued = None;
            }
            // What is behind it is meant for the transaction.
            Effect::Multi => {
                own.transaction = Transaction::Lost;
                if let Some(keep) = &mut known.keep {
                    keep.forget_transaction();
                }
            }
            Effect::Watch => own.watch = Watch::Lost,
            Effect::Tracking(on) => {
                if let Some(keep) = &mut known.keep {
                    keep.tracked(on, false);
                }
            }
            _ => {}
        }
        self.check_barrier(client);
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
            self.close_deaf(client);
            return;
        }
        if let Some(keep) = &mut known.keep {
            keep.unsubscribed();
            keep.forget_transaction();
        }
        if own.transaction != Transaction::No {
            own.transaction = Transaction::Lost;
            own.select_queued = None;
            known.forget_later();
        }
        let own = &mut known.session.own;
        if own.watch == Watch::Set {
            own.watch = Watch::Lost;
        }
        known.lane = if known.session.shareable() {
            Lane::Shared
        } else {
            Lane::Gone
        };
        if let Some(Streaming::ToShard) = known.streaming {
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

    /// Nobody can be told on a connection without its subscriptions that messages are missing: it ends, and the
    /// client subscribes again.
    pub(super) fn close_deaf(&mut self, client: usize) {
        let peer = self.clients[client].session.peer;
        tracing::info!(%peer, "a client is closed: its subscriptions or its tracking were lost with the shard's connection");
        // What came whole is still for it.
        let id = self.client_id(client);
        self.flush_client(self.front_of(client));
        if self.find(id).is_some() {
            self.close_client(client);
        }
    }

    /// A command got an error instead of being sent. If it was to be part of a transaction, the rest of that is not
    /// to run without it; if it was to end it, it has, and without running.
    #[cold]
    pub(super) fn missing_inside(&mut self, index: usize, effect: Effect) {
        let Some(client) = self.clients.get_mut(index) else {
            return;
        };
        let own = &mut client.session.own;
        if own.transaction != Transaction::Open {
            return;
        }
        own.transaction = Transaction::Lost;
        own.select_queued = None;
        client.forget_later();
        if let Some(keep) = &mut client.keep {
            keep.forget_transaction();
        }
        let id = self.client_id(index);
        if let Lane::Own(place) = self.clients[index].lane {
            self.lose(place, "a command of a transaction was not sent");
        }
        let ends = matches!(effect, Effect::Exec | Effect::ExecRefused | Effect::Discard);
        if ends && let Some(client) = self.find(id) {
            let own = &mut self.clients[client].session.own;
            own.transaction = Transaction::No;
            own.watch = Watch::No;
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
