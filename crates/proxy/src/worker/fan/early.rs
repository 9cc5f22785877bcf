//! What comes in a transaction over several shards before its first key, which says whose shard it is.
//!
//! What every engine queues is queued here. About anything else a shard is asked, inside a transaction of its own
//! that ends with that: an unknown command, say, gets the engine's error at once, and is at no shard for it.

use super::{Fan, Queue};
use crate::worker::Worker;
use crate::worker::backend::Effect;
use crate::worker::lanes::{Flow, Sending};
use crate::worker::route::UNKNOWN_COMMAND;
use resp::command::{Command, find};
use resp::keys::{Place, place};
use resp::request::Args;

/// What is around a question; spelled as what is the proxy's own.
const ASK: &[u8] = b"*1\r\n$5\r\nmULTI\r\n";
const ASKED: &[u8] = b"*1\r\n$7\r\ndISCARD\r\n";
const QUEUED: &[u8] = b"+QUEUED\r\n";
/// Most bytes that are queued before the first key. What is beyond is at the first shard.
const QUEUED_MAX: usize = 1024 * 1024;

/// The beginning of a transaction.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Early {
    /// What is queued: the engine will queue it, too.
    frames: Vec<Vec<u8>>,
    /// Bytes of that.
    bytes: usize,
    /// The client has heard of an error: `EXEC` will refuse.
    spoiled: bool,
    /// A shard is asked about this.
    asked: Option<Vec<u8>>,
}

impl Early {
    /// Commands that are queued.
    pub(super) fn count(&self) -> usize {
        self.frames.len()
    }

    fn has_room(&self, frame: &[u8]) -> bool {
        self.spoiled || self.bytes + frame.len() <= QUEUED_MAX
    }

    /// What will not run need not be kept.
    fn queue(&mut self, frame: Vec<u8>) {
        if !self.spoiled {
            self.bytes += frame.len();
            self.frames.push(frame);
        }
    }

    fn ask(&mut self, frame: &[u8]) {
        self.asked = Some(if self.spoiled {
            Vec::new()
        } else {
            frame.to_vec()
        });
    }

    /// What opens the transaction at a shard, behind `MULTI`: if it is spoiled here, so it is there.
    pub(super) fn into_frames(self) -> Vec<Vec<u8>> {
        let mut frames = self.frames;
        frames.extend(self.spoiled.then(|| UNKNOWN_COMMAND.to_vec()));
        frames
    }

    /// The same from another process.
    pub(super) fn of_frames(mut frames: Vec<Vec<u8>>) -> Self {
        let spoils = |frame: &mut Vec<u8>| frame == UNKNOWN_COMMAND;
        let spoiled = frames.pop_if(spoils).is_some();
        Self {
            bytes: frames.iter().map(Vec::len).sum(),
            frames,
            spoiled,
            asked: None,
        }
    }
}

impl Fan {
    fn early_mut(&mut self) -> Option<&mut Early> {
        match &mut self.transaction {
            Queue::Here(early) => Some(early),
            Queue::No | Queue::At(_) | Queue::Lost => None,
        }
    }
}

impl Worker {
    fn early(&mut self, front: usize) -> Option<&mut Early> {
        self.fan_mut(front)?.early_mut()
    }

    /// Whether a command may be queued here.
    pub(super) fn fits_early(&mut self, front: usize, frame: &[u8]) -> bool {
        self.early(front).is_some_and(|early| early.has_room(frame))
    }

    /// An error of the proxy's own: the shard hears of it when it is known.
    pub(super) fn spoil_early(&mut self, front: usize, text: &[u8]) -> Flow {
        if let Some(early) = self.early(front) {
            early.spoiled = true;
        }
        self.fan_reply(front, text)
    }

    /// Queues a command for which there is room. `sure`: every engine does.
    pub(super) fn queue_early(
        &mut self,
        front: usize,
        frame: &[u8],
        sending: Sending,
        sure: bool,
    ) -> Flow {
        if !sure {
            return self.ask_early(front, frame, sending);
        }
        if let Some(early) = self.early(front) {
            early.queue(frame.to_vec());
        }
        self.fan_reply(front, QUEUED)
    }

    /// Asks a shard what it says to a command, and waits for that.
    fn ask_early(&mut self, front: usize, frame: &[u8], sending: Sending) -> Flow {
        let shard = self.any_shard(front);
        // It is for the transaction.
        let caching = self.fan_mut(front).and_then(|fan| fan.caching.take());
        let mut sent = false;
        let flow = self.let_shard(front, shard, |worker, leg| {
            let place = match worker.own(leg) {
                Ok(place) => place,
                Err(flow) => return flow,
            };
            if !worker.has_room(leg, place) {
                return Flow::Hold;
            }
            sent = true;
            worker.send_unheard(leg, place, ASK, Effect::Multi);
            let effect = Effect::Asked;
            worker.push_now(leg, place, frame, Sending { effect, ..sending });
            worker.send_unheard(leg, place, ASKED, Effect::Discard);
            Flow::Next
        });
        if let Some(fan) = self.fan_mut(front) {
            fan.caching = caching;
        }
        if sent {
            if let Some(early) = self.early(front) {
                early.ask(frame);
            }
            self.barrier(front);
        } else if flow == Flow::Next {
            self.set_queue(front, Queue::Lost);
        }
        flow
    }

    /// A shard was asked about a command. `good`: it queues it; `None`: it was lost meanwhile, as the client has
    /// heard.
    pub(in crate::worker) fn fan_told(&mut self, leg: usize, good: Option<bool>) {
        let front = self.front_of(leg);
        let Some(early) = self.early(front) else {
            return;
        };
        match (good, early.asked.take()) {
            (Some(true), Some(frame)) if early.spoiled || may_run_anywhere(&frame) => {
                early.queue(frame);
            }
            (Some(false), _) => early.spoiled = true,
            // An engine of another release than the database's takes what none is known to take: it is to run at no
            // wrong shard.
            (Some(true), _) | (None, _) => self.set_queue(front, Queue::Lost),
        }
    }

    /// Whether every engine of the client's database queues a command that is like this one.
    pub(super) fn is_surely_queued(&self, front: usize, frame: &[u8]) -> bool {
        let mut args = Args::of(frame);
        let name = args.next().unwrap_or_default();
        let command = meant(name, &args);
        command.is_some_and(|command| self.engine_knows(front, command) == Some(true))
    }

    /// Whether no engine takes such a command, the client's neither: it has too few or too many arguments.
    pub(super) fn is_surely_wrong(&self, front: usize, name: &[u8], args: &Args<'_>) -> bool {
        meant(name, args).is_none() && self.engine_is_listed(front)
    }

    /// Whether the client's engine surely has no such command.
    pub(super) fn is_unknown(&self, front: usize, name: &[u8]) -> bool {
        find(name).is_some_and(|command| self.engine_knows(front, command) == Some(false))
    }

    /// Whether it is known what commands the client's engine has.
    pub(super) fn engine_is_listed(&self, front: usize) -> bool {
        find(b"PING").is_some_and(|ping| self.engine_knows(front, ping).is_some())
    }
}

/// Whether a command that an engine queues has no key that it would find or make at a shard: it has none, or words
/// that are an error at `EXEC`.
fn may_run_anywhere(frame: &[u8]) -> bool {
    let mut args = Args::of(frame);
    let Some(command) = args.next().and_then(find) else {
        return false;
    };
    // Redis 6.2 looks at the arguments of a subcommand only then.
    let later =
        || !command.subcommands.is_empty() && meant(command.name.as_bytes(), &args).is_none();
    matches!(place(frame), Place::Anywhere | Place::Unclear) || later()
}

/// The command or subcommand that is meant, if it may have so many arguments.
fn meant(name: &[u8], args: &Args<'_>) -> Option<&'static Command> {
    let command = find(name)?;
    let command = match args.clone().next() {
        Some(sub) if !command.subcommands.is_empty() => command.subcommand(sub)?,
        _ => command,
    };
    command.takes(args.left() + 1).then_some(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(words: &[&str]) -> Vec<u8> {
        let mut frame = Vec::new();
        resp::request::encode(words.iter().map(|word| word.as_bytes()), &mut frame);
        frame
    }

    #[test]
    fn what_is_meant() {
        let is = |words: &[&str]| {
            let frame = frame(words);
            let mut args = Args::of(&frame);
            let name = args.next().unwrap();
            meant(name, &args).map(|command| command.name)
        };
        assert_eq!(is(&["wait", "0", "0"]), Some("WAIT"));
        assert_eq!(is(&["config", "get", "x"]), Some("GET"));
        for wrong in [
            &["nosuch"][..],
            &["WAIT", "0"],
            &["SET", "k"],
            &["CONFIG"],
            &["CONFIG", "NOSUCH"],
            &["CONFIG", "GET"],
        ] {
            assert_eq!(is(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn what_has_a_key_runs_where_it_is() {
        for anywhere in [
            &["PING"][..],
            &["EVAL", "return 1", "x"],
            &["OBJECT", "NOSUCH", "k"],
            &["XGROUP", "CREATE", "k"],
        ] {
            assert!(may_run_anywhere(&frame(anywhere)), "{anywhere:?}");
        }
        // No engine is known that takes the first ones.
        for (words, at) in [
            (&["SET", "k"][..], Place::Slot(resp::slot::key_slot(b"k"))),
            (&["NOSUCH", "k"], Place::Unclear),
            (
                &["XGROUP", "CREATE", "k", "g", "$"],
                Place::Slot(resp::slot::key_slot(b"k")),
            ),
        ] {
            assert_eq!(place(&frame(words)), at);
            assert!(!may_run_anywhere(&frame(words)), "{words:?}");
        }
    }

    #[test]
    fn an_error_is_carried_to_the_shard() {
        let mut early = Early::default();
        early.queue(frame(&["PING"]));
        early.spoiled = true;
        early.queue(frame(&["TIME"]));
        assert_eq!(early.count(), 1);
        let frames = early.into_frames();
        assert_eq!(frames, [frame(&["PING"]), UNKNOWN_COMMAND.to_vec()]);
        // By way of another process, too.
        let again = Early::of_frames(frames.clone());
        assert!(again.spoiled && again.count() == 1);
        assert_eq!(again.into_frames(), frames);
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut early = Early::default();
        let large = vec![0; QUEUED_MAX / 2];
        for _ in 0..2 {
            assert!(early.has_room(&large));
            early.queue(large.clone());
        }
        assert!(!early.has_room(b"x"));
        let again = Early::of_frames(early.into_frames());
        assert!(!again.has_room(b"x") && again.has_room(b""));
        // What will not run is not kept.
        let mut early = Early {
            spoiled: true,
            ..Early::default()
        };
        for _ in 0..3 {
            assert!(early.has_room(&large));
            early.queue(large.clone());
            early.ask(&large);
        }
        assert!(early.frames.is_empty() && early.asked == Some(Vec::new()));
    }
}
