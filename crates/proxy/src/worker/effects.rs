//! What replies change in the session, and replies that are not passed on as they are.

use super::Worker;
use super::backend::{Confirm, Effect, Next, Rewrite, Use};
use super::filter::Generation;
use super::session::{Db, OwnState, Transaction, Watch};
use crate::accepted::{self, View};
use resp::command::Subscription;
use resp::reply::Head;
use resp::value::Value;
use std::borrow::Cow;

/// Settings whose values are not shown to clients.
const SECRETS: [&str; 7] = [
    "masterauth",
    "masteruser",
    "primaryauth",
    "primaryuser",
    "requirepass",
    "tls-key-file-pass",
    "tls-client-key-file-pass",
];

/// What comes over a connection of a client's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Came {
    /// The next reply that is due.
    Reply,
    /// That a subscription begins or ends.
    Confirmation(Subscription),
    /// Something that was not asked for now.
    Message,
}

impl Worker {
    /// A whole reply has come for the first entry of the order book. `bytes` is the receive buffer.
    #[inline]
    pub(super) fn reply_done(&mut self, index: usize, bytes: &[u8]) {
        self.count_reply(index);
        let clock = self.clock;
        let backend = &mut self.backends[index];
        let Some(run) = backend.book.front_mut() else {
            return;
        };
        let (id, effect, discard) = (run.client, run.effect, run.discard);
        let before = std::mem::replace(&mut backend.heard, clock);
        if let Some(seen) = run.answered(1, clock, backend.usage, &backend.stats) {
            self.slow(index, id, &seen, before);
        }
        let backend = &mut self.backends[index];
        let Some(run) = backend.book.front() else {
            return;
        };
        let rewrite = if run.count == 0 {
            backend
                .book
                .pop_front()
                .map_or(Rewrite::None, |run| run.rewrite)
        } else {
            Rewrite::None
        };
        let last =
            backend.usage == Use::Leaving && backend.book.is_empty() && backend.out.is_empty();
        if let Some(client) = self.find(id) {
            if rewrite != Rewrite::None {
                self.rewrite(index, client, rewrite, discard, bytes);
            }
            self.note_queued(index, client, effect);
            if effect != Effect::None {
                let head = *self.backends[index].framer.head();
                self.take_effect(client, effect, &head);
            }
            if effect == Effect::Unblocked {
                let done = self.backends[index].framer.head().last_integer;
                self.fulfil(id, true, u64::try_from(done).unwrap_or(0));
            }
            let known = &mut self.clients[client];
            known.in_flight -= 1;
            if known.blocking > 0 && self.clients[self.front_of(client)].ended {
                self.queue_client(client);
            }
            if !discard {
                self.given(client, 1, bytes);
            }
            self.check_barrier(client);
            if effect == Effect::Freed {
                self.freed(id);
            }
        } else {
            let backend = &mut self.backends[index];
            backend.captured = Vec::new();
            if backend.usage == Use::Next(Next::Shared) && backend.book.is_empty() {
                let id = backend.link;
                self.next_loaded(id);
            }
        }
        if last {
            self.drop_backend(index);
        }
    }

    /// Notes what the engine says to a command inside a transaction.
    #[inline]
    fn note_queued(&mut self, index: usize, client: usize, effect: Effect) {
        let own = &self.clients[client].session.own;
        // What is said again has been counted.
        if own.transaction != Transaction::Open || effect == Effect::Replayed {
            return;
        }
        let head = self.backends[index].framer.head();
        if head.kind == b'+' {
            // `DISCARD` counts too, and ends it.
            self.clients[client].in_transaction += 1;
        } else if head.is_error() && own.watch == Watch::Lost {
            // Up to Redis 7, these two are errors that change nothing.
            let lets_be = matches!(effect, Effect::Multi | Effect::Watch);
            if !lets_be || self.generation_of(client) >= Generation::Eight {
                // Now `EXEC` refuses, whatever has become of the keys.
                self.clients[client].session.own.watch = Watch::No;
            }
        }
    }

    /// A whole reply or message has come over a client's own connection.
    pub(super) fn own_done(
        &mut self,
        index: usize,
        client: usize,
        bytes: &[u8],
    ) -> Result<(), &'static str> {
        let came = self.came(index, client);
        let session = &mut self.clients[client].session;
        let backend = &mut self.backends[index];
        let head = *backend.framer.head();
        let front = backend.book.front_mut();
        if let Came::Confirmation(kind) = came
            && let Some(run) = front
            && let Effect::Confirm(_, count) = &mut run.effect
        {
            let left = count_subscription(&mut session.own, kind, head.last_integer);
            let over = match count {
                Confirm::All => left == 0,
                Confirm::Count(missing) => {
                    *missing = missing.saturating_sub(1);
                    *missing == 0
                }
            };
            if over {
                self.reply_done(index, bytes);
            }
        } else if came == Came::Reply {
            if self.backends[index].book.is_empty() {
                return Err("the shard sent a reply that nobody asked for");
            }
            self.reply_done(index, bytes);
        }
        // `RESET` and `QUIT` wait for the end of a message, too.
        self.check_barrier(client);
        Ok(())
    }

    /// What has come over a client's own connection, now that it is whole.
    pub(super) fn came(&self, index: usize, client: usize) -> Came {
        let session = &self.clients[client].session;
        if session.own.monitor {
            return Came::Message;
        }
        let backend = &self.backends[index];
        let head = backend.framer.head();
        let asked = backend.book.front();
        if asked.is_some_and(|run| matches!(run.effect, Effect::Confirm(..)))
            && matches!(head.kind, b'>' | b'*')
            && let Some(kind) = confirmation(head.first())
        {
            return Came::Confirmation(kind);
        }
        let message = head.kind == b'>'
            || (session.subscribed_in_resp2()
                && head.kind == b'*'
                && matches!(head.first(), b"message" | b"pmessage" | b"smessage"));
        if message { Came::Message } else { Came::Reply }
    }

    pub(super) fn take_effect(&mut self, client: usize, effect: Effect, head: &Head) {
        let good = !head.is_error();
        match effect {
            Effect::Tracking(on) => self.keep_tracking(client, on, good),
            Effect::Unblocked => self.let_go_answered(client, head.last_integer == 1 && good),
            Effect::LetGo => self.let_go(client, head.last_integer == 1 && good),
            Effect::Asked => self.fan_told(client, Some(good)),
            _ => {}
        }
        let known = &mut self.clients[client];
        let own = &mut known.session.own;
        match effect {
            Effect::None | Effect::Confirm(..) => {}
            Effect::Blocking => {
                known.blocking -= 1;
                if let Some(keep) = &mut known.keep {
                    keep.answered();
                }
                self.front_blocks(client, false);
            }
            Effect::Multi if good => {
                own.transaction = Transaction::Open;
                known.in_transaction = 0;
            }
            Effect::ExecRefused => {
                own.select_queued = None;
                own.transaction = Transaction::No;
                own.watch = Watch::No;
            }
            // Without a transaction these are errors that change nothing: keys stay watched.
            Effect::Exec | Effect::Discard if own.transaction == Transaction::No => {}
            // Whatever `EXEC` answers, the transaction is over.
            Effect::Exec | Effect::Discard if good || effect == Effect::Exec => {
                let ran = head.kind == b'*' && !head.null;
                if let Some(db) = own.select_queued.take()
                    && ran
                {
                    own.db = db;
                }
                own.transaction = Transaction::No;
                own.watch = Watch::No;
            }
            Effect::Watch if good && own.watch == Watch::No => own.watch = Watch::Set,
            Effect::Unwatch if good && own.transaction == Transaction::No => own.watch = Watch::No,
            Effect::Select(db) if good => own.db = Db::Number(db),
            Effect::Tracking(on) if good => {
                own.tracking = on;
                self.fan_tracked(client, on);
            }
            Effect::Monitor if good => own.monitor = true,
            Effect::NoTouch(on) if good => own.no_touch = on,
            _ => {}
        }
        self.front_follows(client);
    }

    fn rewrite(
        &mut self,
        index: usize,
        client: usize,
        rewrite: Rewrite,
        discard: bool,
        bytes: &[u8],
    ) {
        let captured = std::mem::take(&mut self.backends[index].captured);
        let captured = match self.backends[index].conceal(&captured) {
            Cow::Owned(other) => other,
            Cow::Borrowed(_) => captured,
        };
        if rewrite == Rewrite::Exec {
            let head = *self.backends[index].framer.head();
            self.exec_came(client, captured, &head);
            return;
        }
        if let Rewrite::LastId(number) = rewrite {
            self.note_last_id(client, number, &captured);
        }
        if discard {
            return;
        }
        match rewrite {
            Rewrite::None | Rewrite::Exec | Rewrite::LastId(_) => {
                self.give(client, &captured, bytes)
            }
            // The client has it.
            Rewrite::Cursor(_) => {}
            Rewrite::Text(text) => self.give(client, &text, bytes),
            Rewrite::Guard(text) if captured.starts_with(b"-NOPERM") => {
                self.give(client, &text, bytes);
            }
            Rewrite::Guard(_) => self.give(client, &captured, bytes),
            Rewrite::Commands(view) => {
                let shown = self.commands_shown(client, view, &captured);
                self.give(client, &shown, bytes);
            }
            Rewrite::ConfigGet => {
                let resp = self.clients[client].session.resp;
                let several = self.has_several_shards(client);
                self.give(client, &settings_shown(&captured, resp, several), bytes);
            }
        }
    }
}

impl Worker {
    /// A reply of `COMMAND` as a client gets it.
    pub(super) fn commands_shown(&self, client: usize, view: View, reply: &[u8]) -> Vec<u8> {
        let resp = self.clients[client].session.resp;
        accepted::shown(view, reply, resp, self.has_several_shards(client))
    }

    pub(super) fn has_several_shards(&self, client: usize) -> bool {
        self.served[self.clients[client].served].shards.len() > 1
    }
}

fn confirmation(name: &[u8]) -> Option<Subscription> {
    match name {
        b"subscribe" | b"unsubscribe" => Some(Subscription::Channel),
        b"psubscribe" | b"punsubscribe" => Some(Subscription::Pattern),
        b"ssubscribe" | b"sunsubscribe" => Some(Subscription::Shard),
        _ => None,
    }
}

/// Notes the number that a confirmation names, and returns how many of its kind there are. Channels
/// and patterns are counted together by the engine.
fn count_subscription(own: &mut OwnState, kind: Subscription, total: i64) -> u64 {
    let total = u64::try_from(total).unwrap_or(0);
    let known = &mut own.subscriptions;
    match kind {
        Subscription::Channel => {
            known.channels = total.saturating_sub(known.patterns);
            known.channels
        }
        Subscription::Pattern => {
            known.patterns = total.saturating_sub(known.channels);
            known.patterns
        }
        Subscription::Shard => {
            known.shard_channels = total;
            total
        }
    }
}

/// The reply to `CONFIG GET` with secrets blanked, and as many databases as can be selected. What cannot be read is not
/// shown at all.
pub(super) fn settings_shown(reply: &[u8], resp: u8, several_shards: bool) -> Vec<u8> {
    let mut out = Vec::new();
    let blanked = match Value::decode(reply) {
        Ok((Value::Array(mut items), _)) => {
            for [key, value] in items.as_chunks_mut::<2>().0 {
                show(key, value, several_shards);
            }
            Value::Array(items)
        }
        Ok((Value::Map(mut pairs), _)) => {
            for (key, value) in &mut pairs {
                show(key, value, several_shards);
            }
            Value::Map(pairs)
        }
        Ok((error @ Value::Error(_), _)) => error,
        _ => Value::Error(b"ERR the reply of the engine cannot be read".to_vec()),
    };
    blanked.write(resp, &mut out);
    out
}

fn show(key: &Value, value: &mut Value, several_shards: bool) {
    let key = key.text().unwrap_or_default();
    let is = |known: &str| key.eq_ignore_ascii_case(known.as_bytes());
    if SECRETS.iter().any(|known| is(known)) {
        *value = Value::Bulk(Vec::new());
    } else if several_shards && is("databases") {
        *value = Value::bulk("1");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_do_not_come_out() {
        let reply = b"*4\r\n$10\r\nmasterauth\r\n$6\r\nhidden\r\n$7\r\nmaxconn\r\n$1\r\n5\r\n";
        let wanted = b"*4\r\n$10\r\nmasterauth\r\n$0\r\n\r\n$7\r\nmaxconn\r\n$1\r\n5\r\n";
        assert_eq!(settings_shown(reply, 2, false), wanted);
        let reply = b"%1\r\n$11\r\nREQUIREPASS\r\n$6\r\nhidden\r\n";
        assert_eq!(
            settings_shown(reply, 3, false),
            b"%1\r\n$11\r\nREQUIREPASS\r\n$0\r\n\r\n"
        );
        assert_eq!(settings_shown(b"-NOPERM x\r\n", 2, false), b"-NOPERM x\r\n");
        assert!(settings_shown(b"*2\r\n$3\r\n", 2, false).starts_with(b"-ERR"));
        let reply = b"*2\r\n$9\r\ndatabases\r\n$2\r\n16\r\n";
        assert_eq!(settings_shown(reply, 2, false), reply);
        let one = b"*2\r\n$9\r\ndatabases\r\n$1\r\n1\r\n";
        assert_eq!(settings_shown(reply, 2, true), one);
    }

    #[test]
    fn channels_and_patterns_are_counted_together() {
        let mut own = OwnState::default();
        assert_eq!(count_subscription(&mut own, Subscription::Channel, 1), 1);
        assert_eq!(count_subscription(&mut own, Subscription::Pattern, 2), 1);
        assert_eq!(count_subscription(&mut own, Subscription::Pattern, 3), 2);
        assert_eq!(count_subscription(&mut own, Subscription::Shard, 1), 1);
        assert_eq!(count_subscription(&mut own, Subscription::Channel, 2), 0);
        assert!(own.subscriptions.any());
    }
}
