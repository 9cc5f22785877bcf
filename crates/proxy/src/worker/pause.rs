//! `CLIENT PAUSE`: the clients of a database wait, with all their commands or with those that may write.
//!
//! The engine knows nothing of it: there it would stop replication, and the clients of other proxies.
//! Here a command that has to wait stays where it is, and its client is not read any more, so nothing
//! piles up. All workers of this proxy obey before the client that asked hears `OK`, and by then what
//! had been sent to the shards is answered, so that nothing runs afterwards that should wait.

use super::Worker;
use super::backend::{Effect, Use};
use super::client::{Streaming, Wait};
use super::fan::Part;
use super::filter::Generation;
use super::gather::Gather;
use model::DatabaseUid;
use resp::command::{self, Class, Command, Flags};
use resp::number::strict_i64;
use resp::request::Args;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long `OK` waits at most for what had been sent before.
const FENCE: Duration = Duration::from_secs(1);
/// A pause that is taken over again is the same if it ends so little later.
const SLACK: Duration = Duration::from_millis(20);
/// No pause lasts longer; the engines' own limit is some ages of the universe.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// Counts the changes of all pauses of this process: a worker that has seen another number looks.
static CHANGES: AtomicU64 = AtomicU64::new(0);

/// Which commands wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Paused {
    /// None.
    #[default]
    Nothing,
    /// Those that may write.
    Writes,
    /// All.
    All,
}

/// The pause of a database, for all workers.
#[derive(Debug, Default)]
pub(crate) struct Pause(Mutex<Option<(Paused, Instant)>>);

impl Pause {
    /// Begins one. If there is one already, what holds up more and what lasts longer stays.
    pub(super) fn begin(&self, what: Paused, until: Instant, now: Instant) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = state.filter(|(_, end)| *end > now);
        let (known, end) = before.unwrap_or((what, until));
        *state = Some((known.max(what), end.max(until)));
        CHANGES.fetch_add(1, Ordering::AcqRel);
    }

    pub(super) fn end(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
        CHANGES.fetch_add(1, Ordering::AcqRel);
    }

    /// Whether all commands wait, or those that may write, and for how long still, ms.
    pub(crate) fn left(&self, now: Instant) -> Option<(bool, u64)> {
        let (what, until) = self.now(now)?;
        let left = until.saturating_duration_since(now).as_millis();
        Some((what == Paused::All, u64::try_from(left).unwrap_or(u64::MAX)))
    }

    /// Goes on with the pause of another process.
    pub(crate) fn take_over(&self, (all, left): (bool, u64)) {
        let what = if all { Paused::All } else { Paused::Writes };
        let now = Instant::now();
        let until = now + Duration::from_millis(left).min(LONGEST);
        let known = self.now(now);
        if !known.is_some_and(|(known, end)| known >= what && end + SLACK >= until) {
            self.begin(what, until, now);
        }
    }

    /// What waits, and until when.
    fn now(&self, now: Instant) -> Option<(Paused, Instant)> {
        let state = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.filter(|(_, end)| *end > now)
    }
}

/// The same, as a worker knows it.
#[derive(Debug, Default)]
pub(crate) struct Held {
    what: Paused,
    until: Option<Instant>,
    /// Pauses that begin: until all is answered that was sent before, everything waits.
    fences: u32,
}

impl Held {
    /// Whether a pause is about to begin.
    pub(crate) fn begins(&self) -> bool {
        self.fences > 0
    }

    /// Whether any command waits.
    #[inline]
    pub(crate) fn any(&self) -> bool {
        self.what != Paused::Nothing || self.fences > 0
    }
}

/// What a worker has to do about pauses.
#[derive(Debug, Default)]
pub(crate) struct Pauses {
    seen: u64,
    /// When the next one ends, or has waited long enough to begin.
    next: Option<Instant>,
    fences: Vec<Fence>,
}

/// A pause that begins when all is answered that was sent before.
#[derive(Debug)]
struct Fence {
    served: usize,
    database: DatabaseUid,
    gather: Arc<Gather>,
    until: Instant,
}

/// The arguments of `CLIENT PAUSE`, behind that word.
///
/// # Errors
/// What the engine says to wrong ones.
pub(super) fn read_pause(
    args: &[&[u8]],
    generation: Generation,
) -> Result<(Paused, Duration), Vec<u8>> {
    let what = match args.get(1).map(|word| word.to_ascii_lowercase()).as_deref() {
        None | Some(b"all") => Paused::All,
        Some(b"write") => Paused::Writes,
        Some(_) => return Err(b"-ERR CLIENT PAUSE mode must be WRITE or ALL\r\n".to_vec()),
    };
    let millis = args.first().and_then(|word| strict_i64(word));
    let Some(millis) = millis else {
        return Err(b"-ERR timeout is not an integer or out of range\r\n".to_vec());
    };
    let Ok(length) = u64::try_from(millis) else {
        return Err(b"-ERR timeout is negative\r\n".to_vec());
    };
    let clock = jiff::Timestamp::now().as_millisecond();
    let length = match millis.checked_add(clock) {
        Some(_) => Duration::from_millis(length).min(LONGEST),
        // Older ones let it overflow, and the pause is over.
        None if generation < Generation::Eight => Duration::ZERO,
        None => return Err(b"-ERR timeout is out of range\r\n".to_vec()),
    };
    Ok((what, length))
}

impl Worker {
    /// Takes up what has changed about pauses.
    pub(super) fn follow_pauses(&mut self) {
        let changes = CHANGES.load(Ordering::Acquire);
        if std::mem::replace(&mut self.pauses.seen, changes) != changes {
            self.look_at_pauses();
        }
    }

    /// Takes up the pauses of all databases, as they are now.
    pub(super) fn look_at_pauses(&mut self) {
        let now = Instant::now();
        let databases: Vec<usize> = self.served.iter().map(|(served, _)| served).collect();
        for served in databases {
            let known = &mut self.served[served];
            let state = known.database.pause.now(now);
            let before = known.pause.what;
            known.pause.what = state.map_or(Paused::Nothing, |(what, _)| what);
            known.pause.until = state.map(|(_, until)| until);
            if known.pause.what < before {
                self.wake_paused(served);
            }
        }
        self.next_pause();
    }

    fn next_pause(&mut self) {
        let ends = self
            .served
            .iter()
            .filter_map(|(_, known)| known.pause.until);
        let fences = self.pauses.fences.iter().map(|fence| fence.until);
        self.pauses.next = ends.chain(fences).min();
    }

    /// When something is to be done about pauses.
    #[inline]
    pub(super) fn next_pause_at(&self) -> Option<Instant> {
        self.pauses.next
    }

    /// Ends pauses whose time is over.
    #[inline]
    pub(super) fn end_pauses(&mut self) {
        if self.pauses.next.is_some_and(|next| next <= self.now) {
            self.look_at_pauses();
        }
    }

    fn wake_paused(&mut self, served: usize) {
        let waits = |client: &super::Client| client.served == served && client.wait == Wait::Paused;
        for index in self.fronts(waits) {
            self.resume(index);
        }
    }

    /// A pause of a database begins or has ended. `true`: it begins, and the answer waits for what was
    /// sent before.
    pub(super) fn take_pause(&mut self, database: DatabaseUid, gather: &Arc<Gather>) {
        self.follow_pauses();
        let Some(&served) = self.by_uid.get(&database) else {
            return;
        };
        if self.served[served].pause.what == Paused::Nothing {
            return;
        }
        gather.one_more();
        self.served[served].pause.fences += 1;
        self.pauses.fences.push(Fence {
            served,
            database,
            gather: Arc::clone(gather),
            until: Instant::now() + gather.patience(FENCE),
        });
        self.next_pause();
    }

    /// Lets pauses begin for which all is answered.
    #[inline]
    pub(super) fn check_fences(&mut self) {
        if !self.pauses.fences.is_empty() {
            self.let_pauses_begin();
        }
    }

    #[cold]
    fn let_pauses_begin(&mut self) {
        let now = Instant::now();
        for fence in std::mem::take(&mut self.pauses.fences) {
            let there = self.by_uid.get(&fence.database) == Some(&fence.served);
            if there && !self.stopped && fence.until > now && !self.all_answered(fence.served) {
                self.pauses.fences.push(fence);
                continue;
            }
            if there {
                let held = &mut self.served[fence.served].pause;
                held.fences = held.fences.saturating_sub(1);
                if held.fences == 0 {
                    self.wake_paused(fence.served);
                }
            }
            self.part_done(&fence.gather, 0);
        }
        self.next_pause();
    }

    /// Whether the shards owe no reply but to commands that block, or that are not whole there.
    fn all_answered(&self, served: usize) -> bool {
        let answered = self.backends.iter().all(|(_, backend)| {
            let first = backend.book.front();
            let blocks = first.is_some_and(|run| run.effect == Effect::Blocking);
            backend.link.served != served
                || backend.book.is_empty()
                || (matches!(backend.usage, Use::Own(_)) && blocks)
                || (backend.half_sent && backend.book.len() == 1)
        });
        answered
            && self
                .clients
                .iter()
                .filter(|(_, client)| client.served == served)
                .all(|(_, client)| match &client.part {
                    Part::Front(fan) => fan.is_sent(),
                    Part::Whole | Part::Leg(_) => true,
                })
    }

    /// Whether a command has to wait; then its client does. `frame` may be the beginning of it.
    #[inline]
    pub(super) fn waits_for_pause(&mut self, index: usize, class: Class, frame: &[u8]) -> bool {
        if !self.served[self.clients[index].served].pause.any() {
            return false;
        }
        let waits = self.is_paused(index, class, frame);
        if waits {
            self.clients[index].wait = Wait::Paused;
        }
        waits
    }

    #[cold]
    fn is_paused(&self, index: usize, class: Class, frame: &[u8]) -> bool {
        let client = &self.clients[index];
        let held = &self.served[client.served].pause;
        match &client.part {
            // Its front has waited.
            Part::Leg(_) => return false,
            // Part of it has been sent.
            Part::Front(fan) if !fan.is_sent() => return false,
            _ => {}
        }
        if held.fences > 0 {
            return true;
        }
        let mut args = Args::of(frame);
        let command = args.next().and_then(command::find);
        let Some(command) = command.filter(|known| known.takes(args.left() + 1)) else {
            // The engine says at once what is wrong with it.
            return false;
        };
        let greeting = matches!(class, Class::Auth | Class::Hello | Class::Reset);
        if matches!(class, Class::Refused | Class::Foreign)
            || !(client.session.authenticated || greeting || class == Class::Quit)
        {
            return false;
        }
        if self.engine_knows(index, command) == Some(false) {
            return false;
        }
        let six = self.generation_of(index) == Generation::Six;
        match held.what {
            Paused::Nothing => false,
            Paused::All => !(six && class == Class::Quit),
            Paused::Writes if class == Class::Exec => client.writes,
            Paused::Writes => may_write(command, args, six),
        }
    }

    /// Whether the engine of a client's database knows a command; `None`: that is not known of this engine.
    pub(super) fn engine_knows(&self, index: usize, command: &Command) -> Option<bool> {
        let engine = self.served[self.clients[index].served].engine.as_ref()?;
        let (server, version) = (engine.server.text()?, engine.version.text()?);
        let server = String::from_utf8_lossy(server);
        let name = format!("{server}-{}", String::from_utf8_lossy(version));
        command.known.has(&name)
    }

    /// Whether more of a command that is passed on as it comes has to wait: as a whole, it would run.
    #[inline]
    pub(super) fn stream_waits(&mut self, index: usize) -> bool {
        let client = &self.clients[index];
        let held = &self.served[client.served].pause;
        let waits = held.any()
            && (held.fences > 0 || held.what == Paused::All || client.streams_write)
            && !matches!(client.streaming, Some(Streaming::Skip));
        if waits {
            self.clients[index].wait = Wait::Paused;
        }
        waits
    }

    /// Notes whether a command that is passed on as it comes may write.
    pub(super) fn note_stream(&mut self, index: usize, part: &[u8]) {
        let mut args = Args::of(part);
        let command = args.next().and_then(command::find);
        let six = self.generation_of(index) == Generation::Six;
        self.clients[index].streams_write =
            command.is_some_and(|command| may_write(command, args, six));
    }

    /// Notes that a command goes into a transaction, as far as a pause asks for that.
    pub(super) fn note_write(&mut self, index: usize, class: Class, frame: &[u8]) {
        let client = &self.clients[index];
        if class == Class::Multi {
            if client.session.own.transaction == super::session::Transaction::No {
                self.clients[index].writes = false;
            }
            return;
        }
        if client.writes {
            return;
        }
        let mut args = Args::of(frame);
        if let Some(command) = args.next().and_then(command::find) {
            let six = self.generation_of(index) == Generation::Six;
            self.clients[index].writes = may_write(command, args, six);
        }
    }
}

/// Whether a command may change data, or what other clients see. `args` are those after the name.
fn may_write(command: &Command, mut args: Args<'_>, six: bool) -> bool {
    match command.name {
        "EVAL" => !args.next().is_some_and(writes_nothing) || six,
        "EVALSHA" | "FCALL" | "PUBLISH" | "SPUBLISH" | "PFCOUNT" => true,
        "SCRIPT" => six,
        _ if command.subcommands.is_empty() => command.flags.has(Flags::WRITE),
        _ => args
            .next()
            .and_then(|sub| command.subcommand(sub))
            .is_some_and(|sub| sub.flags.has(Flags::WRITE)),
    }
}

/// Whether a script says of itself that it writes nothing.
fn writes_nothing(script: &[u8]) -> bool {
    let line = script
        .split(|byte| *byte == b'\n')
        .next()
        .unwrap_or_default();
    let Some(flags) = line.strip_prefix(b"#!lua flags=") else {
        return false;
    };
    flags
        .split(|byte| *byte == b',')
        .any(|flag| flag == b"no-writes")
}

#[cfg(test)]
mod tests {
    use super::*;
    use resp::request::encode;

    fn writes(words: &[&str], six: bool) -> bool {
        let mut frame = Vec::new();
        encode(words.iter().map(|word| word.as_bytes()), &mut frame);
        let mut args = Args::of(&frame);
        let command = command::find(args.next().unwrap()).unwrap();
        may_write(command, args, six)
    }

    #[test]
    fn what_may_write() {
        for words in [
            &["SET", "k", "v"][..],
            &["publish", "a", "b"],
            &["PFCOUNT", "h"],
            &["EVAL", "return 1", "0"],
            &["EVAL", "#!lua\nreturn 1", "0"],
            &["EVAL", "#!lua flags=allow-stale\nreturn 1", "0"],
            &["FUNCTION", "FLUSH"],
            &["BLPOP", "q", "0"],
            &["XREADGROUP", "GROUP", "g", "c", "STREAMS", "s", ">"],
            &["SORT", "l"],
            &["XGROUP", "CREATE", "s", "g", "$"],
        ] {
            assert!(writes(words, false), "{words:?}");
        }
        for words in [
            &["GET", "k"][..],
            &["EVAL_RO", "return 1", "0"],
            &["EVAL", "#!lua flags=allow-stale,no-writes\nreturn 1", "0"],
            &["FUNCTION", "LIST"],
            &["SCRIPT", "LOAD", "return 1"],
            &["XREAD", "STREAMS", "s", "0"],
            &["MULTI"],
            &["XINFO", "STREAM", "s"],
        ] {
            assert!(!writes(words, false), "{words:?}");
        }
        assert!(writes(&["SCRIPT", "LOAD", "return 1"], true));
        assert!(writes(
            &["EVAL", "#!lua flags=no-writes\nreturn 1", "0"],
            true
        ));
    }

    #[test]
    fn the_longer_and_the_stricter_stays() {
        let pause = Pause::default();
        let now = Instant::now();
        let at = |seconds| now + Duration::from_secs(seconds);
        pause.begin(Paused::Writes, at(5), now);
        pause.begin(Paused::All, at(1), now);
        assert_eq!(pause.now(at(4)), Some((Paused::All, at(5))));
        pause.begin(Paused::Writes, at(9), now);
        assert_eq!(pause.now(at(4)), Some((Paused::All, at(9))));
        // It is over: the next one begins anew.
        pause.begin(Paused::Writes, at(20), at(10));
        assert_eq!(pause.now(at(11)), Some((Paused::Writes, at(20))));
        pause.end();
        assert_eq!(pause.now(at(11)), None);
        pause.begin(Paused::All, now, now);
        assert_eq!(pause.now(now), None);
    }

    #[test]
    fn arguments() {
        let read = |words: &[&[u8]]| read_pause(words, Generation::Nine);
        assert_eq!(read(&[b"10"]), Ok((Paused::All, Duration::from_millis(10))));
        assert_eq!(
            read(&[b"0", b"wRite"]),
            Ok((Paused::Writes, Duration::ZERO))
        );
        assert!(read(&[b"9223372036854775807"]).is_err());
        let old = read_pause(&[b"9223372036854775807"], Generation::Six);
        assert_eq!(old, Ok((Paused::All, Duration::ZERO)));
        assert_eq!(read(&[b"9000000000000000000"]), Ok((Paused::All, LONGEST)));
        let negative: &[u8] = b"-ERR timeout is negative\r\n";
        assert_eq!(read(&[b"-1"]).unwrap_err(), negative);
        assert!(
            read(&[b"x", b"READ"])
                .unwrap_err()
                .starts_with(b"-ERR CLIENT PAUSE mode")
        );
    }
}
