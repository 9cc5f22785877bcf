//! The slow log: which commands took long, and where.
//!
//! On the way of a command nothing is done for it but remembering its first bytes. Only when a reply
//! is late is it looked at what those say: the name and the first key, never a value.

use jiff::Timestamp;
use model::DatabaseUid;
use model::observation::{ProxyDatabaseObservation, SLOW_TEXT_MAX, SLOW_TOLD, SlowCommand};
use model::tuning::SLOWLOG_LEN;
use resp::command::{KeyRule, find};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};

/// Bytes of a command that are remembered: enough for the heads, a name and a key of
/// [`SLOW_TEXT_MAX`].
const HEAD: usize = 112;
/// Slow commands that wait for the control thread; when there are more, they are only counted.
const QUEUE: usize = 256;

/// The beginning of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    bytes: [u8; HEAD],
    len: u8,
}

impl Head {
    /// Of nothing.
    pub(crate) const EMPTY: Self = Self {
        bytes: [0; HEAD],
        len: 0,
    };

    /// Of the command at the start of `frames`.
    #[inline]
    #[must_use]
    pub(crate) fn of(frames: &[u8]) -> Self {
        if let Some(first) = frames.first_chunk() {
            return Self {
                bytes: *first,
                len: HEAD as u8,
            };
        }
        let mut head = Self::EMPTY;
        head.bytes[..frames.len()].copy_from_slice(frames);
        head.len = frames.len() as u8;
        head
    }

    /// What is remembered.
    #[must_use]
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    /// The name in capitals, and the first key, both cut.
    fn shown(&self) -> (String, Option<String>) {
        let mut words = Words {
            rest: &self.bytes[..usize::from(self.len)],
            cut: false,
        };
        words.line(b'*');
        let name = words.next().unwrap_or_default();
        let Some(command) = find(name) else {
            return (text(name).to_ascii_uppercase(), None);
        };
        // Whatever does not stand where a key must stand may be a value, and is not shown.
        let key = match command.keys {
            KeyRule::Range(at, ..) => words.nth(usize::from(at).saturating_sub(1)),
            // Without keys, what follows the count is a value.
            KeyRule::Counted(at, _) => match words.nth(usize::from(at).saturating_sub(1)) {
                Some(b"0") | None => None,
                Some(_) => words.next(),
            },
            KeyRule::StoredCounted(..) | KeyRule::Geo(_) | KeyRule::Sort => words.next(),
            KeyRule::SortReadOnly => words.next(),
            KeyRule::Streams => {
                words.find(|word| word.eq_ignore_ascii_case(b"STREAMS"));
                words.next()
            }
            KeyRule::Keyless | KeyRule::Channels(..) | KeyRule::Migrate | KeyRule::Stralgo => None,
        };
        // A part of a key that looks like another key is worse than none.
        let key = key.filter(|key| !words.cut || key.len() >= SLOW_TEXT_MAX);
        (command.name.to_owned(), key.map(text))
    }
}

/// The arguments at the beginning of a command. The last one may be cut.
struct Words<'a> {
    rest: &'a [u8],
    /// The one that came last is.
    cut: bool,
}

impl<'a> Words<'a> {
    /// The number of a header.
    fn line(&mut self, kind: u8) -> Option<usize> {
        let end = memchr::memchr(b'\n', self.rest)?;
        let (line, rest) = self.rest.split_at(end + 1);
        self.rest = rest;
        let text = line.strip_prefix(&[kind])?.strip_suffix(b"\r\n")?;
        std::str::from_utf8(text).ok()?.parse().ok()
    }
}

impl<'a> Iterator for Words<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let length = self.line(b'$')?;
        self.cut = length > self.rest.len();
        let word = &self.rest[..length.min(self.rest.len())];
        let end = length.saturating_add(2).min(self.rest.len());
        self.rest = &self.rest[end..];
        Some(word)
    }
}

/// Bytes as they may be shown: short, printable.
fn text(bytes: &[u8]) -> String {
    crate::texts::shown(&bytes[..bytes.len().min(SLOW_TEXT_MAX)])
}

/// A slow command, as a worker tells of it.
#[derive(Debug)]
pub(crate) struct Slow {
    pub(crate) database: DatabaseUid,
    pub(crate) when: Timestamp,
    pub(crate) peer: SocketAddr,
    pub(crate) client_name: Vec<u8>,
    pub(crate) head: Head,
    pub(crate) pipelined: u32,
    /// µs, see [`SlowCommand`].
    pub(crate) shard_us: u64,
    pub(crate) behind_us: u64,
    pub(crate) proxy_us: u64,
}

impl Slow {
    fn shown(&self, id: u64) -> SlowCommand {
        let (command, key) = self.head.shown();
        SlowCommand {
            id,
            when: self.when,
            client: self.peer.to_string(),
            client_name: text(&self.client_name),
            command,
            key,
            pipelined: self.pipelined,
            total_us: self.proxy_us + self.shard_us,
            shard_us: self.shard_us,
            behind_us: self.behind_us,
            proxy_us: self.proxy_us,
        }
    }
}

/// The way of slow commands from the workers to the control thread.
#[derive(Debug)]
pub(crate) struct Queue {
    sender: SyncSender<Slow>,
    /// Only the control thread takes.
    receiver: Mutex<Receiver<Slow>>,
}

impl Default for Queue {
    fn default() -> Self {
        let (sender, receiver) = sync_channel(QUEUE);
        Self {
            sender,
            receiver: Mutex::new(receiver),
        }
    }
}

impl Queue {
    /// Tells of one, without waiting: if too many wait already, it is not told.
    pub(crate) fn tell(&self, command: Slow) {
        let _ = self.sender.try_send(command);
    }

    #[cfg(test)]
    pub(super) fn hold(&self) -> impl Sized + '_ {
        self.receiver.lock().unwrap()
    }

    /// Takes all that wait.
    pub(crate) fn drain(&self) -> Vec<Slow> {
        let receiver = self.receiver.lock().unwrap_or_else(PoisonError::into_inner);
        receiver.try_iter().take(QUEUE).collect()
    }
}

/// The newest slow commands of a database.
#[derive(Debug)]
pub(super) struct Ring {
    kept: VecDeque<Slow>,
    /// How many are kept.
    most: usize,
    /// How many there have been.
    count: u64,
}

impl Default for Ring {
    fn default() -> Self {
        Self {
            kept: VecDeque::new(),
            most: *SLOWLOG_LEN.end() as usize,
            count: 0,
        }
    }
}

impl Ring {
    pub(super) fn keep(&mut self, most: usize) {
        self.most = most.min(*SLOWLOG_LEN.end() as usize);
        let surplus = self.kept.len().saturating_sub(self.most);
        self.kept.drain(..surplus);
    }

    pub(super) fn push(&mut self, command: Slow) {
        self.count += 1;
        self.kept.push_back(command);
        self.keep(self.most);
    }

    /// The newest first.
    pub(super) fn newest(&self) -> Vec<SlowCommand> {
        let numbered = self.kept.iter().rev().zip((1..=self.count).rev());
        let shown = numbered.map(|(command, id)| command.shown(id));
        shown.take(SLOW_TOLD).collect()
    }
}

/// Keeps what is told of all databases together within its bound: the oldest commands are left out.
pub(crate) fn tell_newest(databases: &mut [ProxyDatabaseObservation]) {
    let mut times: Vec<Timestamp> = databases
        .iter()
        .flat_map(|database| database.slow.iter().map(|command| command.when))
        .collect();
    if times.len() <= SLOW_TOLD {
        return;
    }
    times.sort_unstable();
    let oldest = times[times.len() - SLOW_TOLD];
    let mut room = SLOW_TOLD;
    for database in databases {
        database.slow.retain(|command| command.when >= oldest);
        database.slow.truncate(room);
        room -= database.slow.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shown(words: &[&[u8]]) -> (String, Option<String>) {
        let mut frame = Vec::new();
        resp::request::encode(words.iter().copied(), &mut frame);
        Head::of(&frame).shown()
    }

    #[test]
    fn name_and_first_key() {
        let long = [b'k'; 200];
        let cut = Some("k".repeat(64));
        let key = |text: &str| Some(text.to_owned());
        assert_eq!(shown(&[b"get", b"a b"]), ("GET".to_owned(), key("a?b")));
        assert_eq!(
            shown(&[b"SET", &long, b"secret"]),
            ("SET".to_owned(), cut.clone())
        );
        assert_eq!(shown(&[b"ZREVRANGEBYSCORE", &long]).1, cut);
        assert_eq!(shown(&[b"BITOP", b"AND", b"to", b"from"]).1, key("to"));
        assert_eq!(
            shown(&[b"EVAL", b"return 1", b"2", b"one", b"two"]).1,
            key("one")
        );
        assert_eq!(shown(&[b"ZUNIONSTORE", b"to", b"1", b"from"]).1, key("to"));
        let read: [&[u8]; 6] = [b"XREAD", b"COUNT", b"1", b"STREAMS", b"s", b"0"];
        assert_eq!(shown(&read).1, key("s"));
    }

    #[test]
    fn values_are_not_shown() {
        assert_eq!(shown(&[b"AUTH", b"secret"]), ("AUTH".to_owned(), None));
        assert_eq!(shown(&[b"ECHO", b"secret"]).1, None);
        assert_eq!(shown(&[b"PUBLISH", b"channel", b"secret"]).1, None);
        assert_eq!(shown(&[b"XREAD", b"COUNT", b"secret"]).1, None);
        assert_eq!(
            shown(&[b"no such", b"secret"]),
            ("NO?SUCH".to_owned(), None)
        );
        assert_eq!(shown(&[b"EVAL", b"return 1", b"0", b"secret"]).1, None);
        let script = [b'x'; 300];
        assert_eq!(shown(&[b"EVAL", &script, b"1", b"key"]).1, None);
        // Nor is a part of a key, however much of it is remembered.
        for length in 0..=HEAD {
            let key = shown(&[b"EVAL", &script[..length], b"1", b"slowkey"]).1;
            assert!(key.is_none_or(|key| key == "slowkey"), "{length}");
        }
        assert_eq!(Head::EMPTY.shown(), (String::new(), None));
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let (name, key) = Head::of(&bytes).shown();
            prop_assert!(name.len() <= 64 && key.is_none_or(|key| key.len() <= 64));
        }
    }

    #[test]
    fn the_newest_are_kept() {
        let queue = Queue::default();
        let slow = |shard_us| Slow {
            database: DatabaseUid(1),
            when: Timestamp::UNIX_EPOCH,
            peer: "127.0.0.1:1".parse().unwrap(),
            client_name: b"worker 7".to_vec(),
            head: Head::of(b"*1\r\n$4\r\nPING\r\n"),
            pipelined: 1,
            shard_us,
            behind_us: 0,
            proxy_us: 1,
        };
        let mut ring = Ring::default();
        for number in 0..QUEUE as u64 + 5 {
            queue.tell(slow(number));
        }
        for command in queue.drain() {
            ring.push(command);
        }
        assert!(queue.drain().is_empty());
        let newest = ring.newest();
        assert_eq!(newest.len(), SLOW_TOLD.min(ring.most));
        assert_eq!((newest[0].id, newest[0].total_us), (256, 256));
        assert_eq!((newest[1].id, newest[1].shard_us), (255, 254));
        assert_eq!(newest[0].client_name, "worker?7");
        ring.keep(1);
        assert_eq!(ring.newest().len(), 1);
        ring.push(slow(9));
        assert_eq!((ring.newest()[0].id, ring.newest().len()), (257, 1));
        ring.keep(0);
        ring.push(slow(9));
        assert!(ring.newest().is_empty());
    }
}
