//! Blocking commands when a gate closes: the engine lets them go, and they are sent again to the new primary
//! with the time that is left.
//!
//! The engine is asked by `CLIENT UNBLOCK`, which may be too early (it has not read the command yet) or too
//! late (something has come). The reply to the command itself decides: only one that says `-UNBLOCKED` while
//! it was the proxy that asked is not passed on.

use super::keep::Parked;
use crate::bounds;
use crate::stats::Answered;
use crate::worker::Worker;
use crate::worker::backend::{Effect, Rewrite};
use crate::worker::client::{ClientId, Wait};
use crate::worker::fan::Part;
use crate::worker::lanes::Flow;
use crate::worker::session::{Db, ReplyMode};
use resp::command::classify;
use resp::request::{Args, encode};
use resp::value::Value;
use std::ops::Range;

const UNBLOCKED: &[u8] = b"-UNBLOCKED";

impl Worker {
    /// Asks the engine to let go the blocking command that is next on a client's own connection. `false`:
    /// there is none that can be sent again.
    pub(super) fn take_back(&mut self, index: usize, owner: ClientId) -> bool {
        let front = self.backends[index].book.front();
        let blocks = front.is_some_and(|run| run.effect == Effect::Blocking);
        let Some(client) = self.find(owner).filter(|_| blocks) else {
            return false;
        };
        let place = self.backends[index].out.is_empty();
        let Some(blocked) = self.clients[client]
            .keep
            .as_mut()
            .and_then(|keep| keep.blocked.as_mut())
        else {
            return false;
        };
        if blocked.pending || blocked.by_client || !place {
            return true;
        }
        let ends = ends(&blocked.frame);
        (blocked.asked, blocked.pending) = (true, true);
        blocked.last_ids = vec![None; ends.len()];
        self.ask_ends(client, index, &ends);
        let number = self.backends[index].engine_client.to_string();
        let words: [&[u8]; 4] = [b"CLIENT", b"UNBLOCK", number.as_bytes(), b"ERROR"];
        if !self.tell_engine(client, index, &words, Effect::LetGo)
            && let Some(keep) = &mut self.clients[client].keep
            && let Some(blocked) = &mut keep.blocked
        {
            (blocked.asked, blocked.pending) = (false, false);
        }
        true
    }

    /// Asks for the newest entries of streams, before the command that waits for later ones is let go: while
    /// it waits, there are none.
    fn ask_ends(&mut self, client: usize, index: usize, keys: &[Vec<u8>]) {
        let db = self.clients[client].session.own.db;
        let select = |worker: &mut Self, db: u32| {
            let db = db.to_string();
            worker.tell_engine(client, index, &[b"SELECT", db.as_bytes()], Effect::None);
        };
        let other = match db {
            Db::Number(db @ 1..) if !keys.is_empty() => Some(db),
            _ => None,
        };
        if let Some(db) = other {
            select(self, db);
        }
        for (number, key) in keys.iter().enumerate() {
            let rewrite = Rewrite::LastId(number);
            self.tell_engine_with(
                client,
                index,
                &[b"XINFO", b"STREAM", key],
                Effect::None,
                rewrite,
            );
        }
        if other.is_some() {
            select(self, 0);
        }
    }

    /// The engine has said what the newest entry of a stream is.
    pub(in crate::worker) fn note_last_id(&mut self, client: usize, number: usize, reply: &[u8]) {
        let id = match Value::decode(reply) {
            Ok((Value::Error(text), _)) if text.starts_with(b"ERR no such key") => {
                Some(b"0-0".to_vec())
            }
            Ok((value, _)) => value
                .pairs()
                .into_iter()
                .find(|(name, _)| name.text() == Some(b"last-generated-id"))
                .and_then(|(_, id)| Some(id.text()?.to_vec())),
            Err(_) => None,
        };
        if let Some(keep) = &mut self.clients[client].keep
            && let Some(blocked) = &mut keep.blocked
            && let Some(place) = blocked.last_ids.get_mut(number)
        {
            *place = id;
        }
    }

    /// The engine has let the command go (`done`), or there was none to let go: then it is asked again,
    /// unless the command's reply comes.
    pub(in crate::worker) fn let_go(&mut self, client: usize, done: bool) {
        if let Some(keep) = &mut self.clients[client].keep
            && let Some(blocked) = &mut keep.blocked
            && !done
        {
            blocked.pending = false;
            self.timers
                .set(bounds::ASK_AGAIN, crate::worker::timers::Timer::Look);
        }
    }

    /// A client asks the engine to let another's command go. `false`: it is being taken back, and so it does
    /// not block now.
    pub(in crate::worker) fn let_go_by_client(&mut self, client: usize) -> bool {
        let keep = self.clients[client].keep.as_mut();
        match keep.and_then(|keep| keep.blocked.as_mut()) {
            Some(blocked) if blocked.asked => false,
            Some(blocked) => {
                blocked.by_client = true;
                true
            }
            None => true,
        }
    }

    /// That was answered. If the command was let go, its reply is the client's.
    pub(in crate::worker) fn let_go_answered(&mut self, client: usize, done: bool) {
        if let Some(keep) = &mut self.clients[client].keep
            && let Some(blocked) = &mut keep.blocked
        {
            blocked.by_client = done;
            self.gates.look = true;
        }
    }

    /// Whether an error on a client's own connection may be that of a command that was asked back.
    #[inline]
    pub(in crate::worker) fn was_asked(&self, index: usize, client: usize) -> bool {
        let keep = self.clients[client].keep.as_ref();
        keep.is_some_and(|keep| keep.blocked.as_ref().is_some_and(|blocked| blocked.asked))
            && self.backends[index]
                .book
                .front()
                .is_some_and(|run| run.effect == Effect::Blocking)
    }

    /// Takes a part of such an error. What is not the engine's `-UNBLOCKED` goes to the client.
    pub(in crate::worker) fn take_unblocked(
        &mut self,
        index: usize,
        client: usize,
        bytes: &[u8],
        range: Range<usize>,
        complete: bool,
    ) -> Result<(), &'static str> {
        let backend = &mut self.backends[index];
        backend.captured.extend_from_slice(&bytes[range]);
        if !complete {
            return Ok(());
        }
        let error = std::mem::take(&mut backend.captured);
        if error.starts_with(UNBLOCKED) {
            self.park(index, client);
            return Ok(());
        }
        if backend.book.front().is_some_and(|run| !run.discard) {
            self.give(client, &error, bytes);
        }
        self.own_done(index, client, bytes)
    }

    /// The command waits for the new primary.
    fn park(&mut self, index: usize, client: usize) {
        let clock = self.clock;
        let backend = &mut self.backends[index];
        let Some(run) = backend.book.pop_front() else {
            return;
        };
        backend
            .stats
            .count_answered(run.seen.left, run.count, Answered::Untimed);
        let known = &mut self.clients[client];
        known.in_flight -= 1;
        known.blocking -= 1;
        let blocked = known.keep.as_mut().and_then(|keep| keep.blocked.take());
        if let Some(blocked) = blocked
            && let Some(keep) = &mut known.keep
        {
            let passed = clock.saturating_sub(blocked.since);
            keep.parked = Some(Parked {
                frame: again(&blocked.frame, passed, &blocked.last_ids),
                discard: run.discard,
            });
        }
        let waits = matches!(known.part, Part::Leg(_)) || known.wait == Wait::Barrier;
        if waits {
            known.wait = Wait::Link;
        }
        self.front_blocks(client, false);
        let (id, name) = (self.link_of(client), self.client_id(client));
        let Some(closed) = self.closed_mut(id.served, id.shard) else {
            // The gate was opened meanwhile.
            self.send_parked(client);
            return;
        };
        closed.waited += 1;
        if let Some(link) = self.link_mut(id) {
            link.waiters.push(name);
        }
    }

    /// Whether a client has a command that is to be sent again.
    #[inline]
    pub(in crate::worker) fn is_parked(&self, client: usize) -> bool {
        let keep = self.clients[client].keep.as_ref();
        keep.is_some_and(|keep| keep.parked.is_some())
    }

    /// Sends a command again that was taken back. Its client waits for nothing else.
    pub(in crate::worker) fn send_parked(&mut self, client: usize) {
        let front = self.front_of(client);
        if self.clients[front].ended {
            self.close_client(front);
            return;
        }
        let known = &mut self.clients[client];
        let Some(parked) = known.keep.as_mut().and_then(|keep| keep.parked.take()) else {
            return;
        };
        if parked.discard && known.session.reply == ReplyMode::On {
            known.session.reply = ReplyMode::SkipNext;
        }
        known.wait = Wait::Nothing;
        let flow = self.command(client, &parked.frame);
        if !self.clients.contains(client) {
            return;
        }
        if flow == Flow::Hold {
            self.kept(client).parked = Some(parked);
            return;
        }
        self.check_barrier(client);
        if self.clients[client].wait == Wait::Nothing && front == client {
            self.queue_client(client);
        }
    }
}

/// Words of a command, its name in capitals.
fn words(frame: &[u8]) -> (Vec<u8>, Vec<&[u8]>) {
    let words: Vec<&[u8]> = Args::of(frame).collect();
    let name = words.first().map(|name| name.to_ascii_uppercase());
    (name.unwrap_or_default(), words)
}

/// The place of the time that a blocking command waits, and how many µs one of its units has.
fn time_place(name: &[u8], words: &[&[u8]]) -> Option<(usize, u64)> {
    debug_assert!(classify(name) != resp::command::Class::Plain);
    match name {
        b"BLMPOP" | b"BZMPOP" => Some((1, 1_000_000)),
        b"WAIT" | b"WAITAOF" => Some((words.len() - 1, 1_000)),
        b"XREAD" | b"XREADGROUP" => {
            let streams = streams_place(words)?;
            // The names of a group and of a consumer may be any.
            let first = if name == b"XREADGROUP" { 4 } else { 1 };
            let options = words.get(first..streams)?;
            let block = options
                .iter()
                .position(|word| word.eq_ignore_ascii_case(b"BLOCK"))?;
            Some((first + block + 1, 1_000))
        }
        _ => Some((words.len().checked_sub(1)?, 1_000_000)),
    }
}

/// The place of the word `STREAMS`. Keys and ids behind it are equally many, so a key of that name is not
/// taken for it.
fn streams_place(words: &[&[u8]]) -> Option<usize> {
    let name = words.first()?;
    let first = if name.eq_ignore_ascii_case(b"XREADGROUP") {
        4
    } else {
        1
    };
    let place = words
        .get(first..)?
        .iter()
        .position(|word| word.eq_ignore_ascii_case(b"STREAMS"))?;
    Some(first + place)
}

/// The keys of streams that are read from their ends (`$`).
fn ends(frame: &[u8]) -> Vec<Vec<u8>> {
    let (name, words) = words(frame);
    if name != b"XREAD" {
        return Vec::new();
    }
    let Some(streams) = streams_place(&words) else {
        return Vec::new();
    };
    let behind = &words[streams + 1..];
    let (keys, ids) = behind.split_at(behind.len() / 2);
    let ends = keys.iter().zip(ids).filter(|(_, id)| **id == b"$");
    ends.map(|(key, _)| key.to_vec()).collect()
}

/// A blocking command with the time that is left after `passed` µs, and with the ends of streams as they
/// were.
fn again(frame: &[u8], passed: u64, last_ids: &[Option<Vec<u8>>]) -> Vec<u8> {
    let (name, mut words) = words(frame);
    let time = time_place(&name, &words).and_then(|(place, unit)| {
        let text = std::str::from_utf8(words.get(place)?).ok()?;
        left(text, unit, passed).map(|time| (place, time))
    });
    if let Some((place, time)) = &time {
        words[*place] = time.as_bytes();
    }
    let mut ids = last_ids.iter();
    if name == b"XREAD"
        && let Some(streams) = streams_place(&words)
    {
        let first = streams + 1 + (words.len() - streams - 1) / 2;
        for word in words[first..].iter_mut().filter(|word| **word == b"$") {
            if let Some(Some(id)) = ids.next() {
                *word = id;
            }
        }
    }
    let mut out = Vec::new();
    encode(words, &mut out);
    out
}

/// What is left of a time; `None`: it is for ever, or none. What is over ends at once.
fn left(text: &str, unit: u64, passed: u64) -> Option<String> {
    if unit == 1_000_000 {
        let seconds: f64 = text.parse().ok()?;
        let left = seconds - std::time::Duration::from_micros(passed).as_secs_f64();
        (seconds > 0.0).then(|| format!("{:.6}", left.max(0.001)))
    } else {
        let millis: u64 = text.parse().ok()?;
        (millis > 0).then(|| millis.saturating_sub(passed / unit).max(1).to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent_again(line: &str, passed: u64, ids: &[Option<Vec<u8>>]) -> String {
        let mut frame = Vec::new();
        let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        encode(words, &mut frame);
        let out = again(&frame, passed, ids);
        let words: Vec<_> = Args::of(&out).map(String::from_utf8_lossy).collect();
        words.join(" ")
    }

    #[test]
    fn the_time_that_is_left() {
        let second = 1_000_000;
        for (line, passed, wanted) in [
            ("BLPOP a b 0", second, "BLPOP a b 0"),
            ("BLPOP a b 3", second, "BLPOP a b 2.000000"),
            ("blpop a 0.5", second, "blpop a 0.001000"),
            (
                "BLMOVE a b LEFT RIGHT 1.5",
                500_000,
                "BLMOVE a b LEFT RIGHT 1.000000",
            ),
            (
                "BLMPOP 2 1 a LEFT COUNT 5",
                second,
                "BLMPOP 1.000000 1 a LEFT COUNT 5",
            ),
            ("WAIT 1 1500", second, "WAIT 1 500"),
            ("WAIT 1 0", second, "WAIT 1 0"),
            ("WAITAOF 1 0 20", second, "WAITAOF 1 0 1"),
            (
                "XREAD COUNT 1 BLOCK 5000 STREAMS block 0",
                second,
                "XREAD COUNT 1 BLOCK 4000 STREAMS block 0",
            ),
            (
                "XREADGROUP GROUP block streams BLOCK 0 STREAMS s >",
                second,
                "XREADGROUP GROUP block streams BLOCK 0 STREAMS s >",
            ),
            (
                "XREADGROUP GROUP block streams BLOCK 20000 STREAMS s >",
                second,
                "XREADGROUP GROUP block streams BLOCK 19000 STREAMS s >",
            ),
        ] {
            assert_eq!(sent_again(line, passed, &[]), wanted);
        }
    }

    #[test]
    fn streams_are_read_from_where_they_ended() {
        let mut frame = Vec::new();
        let line = "XREAD BLOCK 0 STREAMS $ b c $ 1-1 $";
        let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        encode(words, &mut frame);
        assert_eq!(ends(&frame), [b"$".to_vec(), b"c".to_vec()]);
        let ids = [Some(b"5-1".to_vec()), Some(b"0-0".to_vec())];
        let wanted = "XREAD BLOCK 0 STREAMS $ b c 5-1 1-1 0-0";
        assert_eq!(sent_again(line, 7, &ids), wanted);
        // Of the first nothing is known: a list has its name.
        let ids = [None, Some(b"0-0".to_vec())];
        let wanted = "XREAD BLOCK 0 STREAMS $ b c $ 1-1 0-0";
        assert_eq!(sent_again(line, 7, &ids), wanted);
        assert!(ends(b"*3\r\n$5\r\nBLPOP\r\n$1\r\n$\r\n$1\r\n$\r\n").is_empty());
    }
}
