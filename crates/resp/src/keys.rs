//! Where a command's keys are, and so where it must run.
//!
//! | function | for |
//! |---|---|
//! | [`place`] | a whole command |
//! | [`place_with`] | the same when its name and its first argument are known |
//! | [`place_of`] | the same when the command was looked up already |
//! | [`place_of_part`] | a long command that has not wholly come |
//! | [`keys`] | all keys |
//! | [`split`], [`policies`] | commands that concern several shards |

mod rules;

use crate::command::{Command, KeyRule, RequestPolicy, ResponsePolicy, find};
use crate::request::Args;
use crate::slot::key_slot;
use rules::{Sink, Stop, walk};

/// Where a command must run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// It has no key.
    Anywhere,
    /// All its keys, or its shard channels, are in this slot.
    Slot(u16),
    /// They are in different slots. So is what a `SORT` reaches by a pattern after `BY` or `GET`,
    /// unless the pattern has a hash tag before its `*`.
    Several,
    /// It is no command, or its arity or syntax is wrong: the engine will say so, whichever it is.
    Unclear,
}

/// Where a command must run of which not all bytes are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PartPlace {
    /// Nothing is known yet: more bytes are needed.
    More,
    /// It is certain, whatever follows.
    Known(Place),
    /// Its first keys are in this slot; more may follow, which may be in others.
    First(u16),
}

/// How a command with keys on several shards is split; every part is a command of the same name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    /// Every argument is a key: `DEL`, `UNLINK`, `EXISTS`, `TOUCH`, `MGET`.
    Keys,
    /// Keys and values in turn: `MSET`.
    Pairs,
}

/// Longest beginning of a command that may end before its name and its subcommand are whole, bytes:
/// no known name is a fifth as long.
const NAMES_MAX: usize = 256;

/// Where a whole command, an array of bulk strings, must run.
#[inline]
#[must_use]
pub fn place(frame: &[u8]) -> Place {
    let mut args = Args::of(frame);
    args.next()
        .and_then(find)
        .map_or(Place::Unclear, |command| place_of(command, &args))
}

/// The same; its name and its first argument, as [`crate::request::whole_with_first`] has found them.
#[inline]
#[must_use]
pub fn place_with(frame: &[u8], name: &[u8], first: Option<&[u8]>) -> Place {
    let Some(command) = find(name) else {
        return Place::Unclear;
    };
    if let (KeyRule::Range(1, 1, 1), Some(key)) = (command.keys, first) {
        return Place::Slot(key_slot(key));
    }
    let mut args = Args::of(frame);
    args.next();
    place_of(command, &args)
}

/// Where `command` must run; `args` are those after its name, all of them.
#[inline]
#[must_use]
pub fn place_of(command: &Command, args: &Args<'_>) -> Place {
    if command.keys == KeyRule::Range(1, 1, 1) {
        // One key: nearly all commands.
        return match args.clone().next() {
            Some(key) => Place::Slot(key_slot(key)),
            None => Place::Unclear,
        };
    }
    match part_of(command, args) {
        PartPlace::Known(place) => place,
        PartPlace::More | PartPlace::First(_) => Place::Unclear,
    }
}

/// Where a command must run of which `part` is the beginning.
#[must_use]
pub fn place_of_part(part: &[u8]) -> PartPlace {
    let mut args = Args::of(part);
    match args.next() {
        Some(name) => find(name).map_or(PartPlace::Known(Place::Unclear), |command| {
            part_of(command, &args)
        }),
        None if part.len() > NAMES_MAX => PartPlace::Known(Place::Unclear),
        None => PartPlace::More,
    }
}

/// All keys of a whole command, in no certain order, added to `out`. Shard channels and patterns are
/// no keys. `false`: it is no command, or its arity or syntax is wrong; `out` is as it was.
#[must_use]
pub fn keys<'a>(frame: &'a [u8], out: &mut Vec<&'a [u8]>) -> bool {
    let mut args = Args::of(frame);
    let Some((command, total)) = args
        .next()
        .and_then(find)
        .and_then(|c| settle(c, &args).ok())
    else {
        return false;
    };
    let before = out.len();
    if command.takes(total) && walk(command.keys, &args, &mut List(out)).is_ok() {
        return true;
    }
    out.truncate(before);
    false
}

/// How a command is split whose keys are on several shards. `None`: it cannot be.
#[must_use]
pub fn split(command: &Command) -> Option<Split> {
    match (command.request, command.keys) {
        (RequestPolicy::MultiShard, KeyRule::Range(1, -1, 1)) => Some(Split::Keys),
        (RequestPolicy::MultiShard, KeyRule::Range(1, -1, 2)) => Some(Split::Pairs),
        _ => None,
    }
}

/// To which shards a command goes if no key says so, and how their replies become one. `sub` is its
/// first argument; it is looked at only if the command has subcommands.
#[must_use]
pub fn policies(name: &[u8], sub: Option<&[u8]>) -> (RequestPolicy, ResponsePolicy) {
    let command = find(name);
    let sub = command.and_then(|command| command.subcommand(sub?));
    sub.or(command).map_or(
        (RequestPolicy::Default, ResponsePolicy::Default),
        |command| (command.request, command.response),
    )
}

/// The command or subcommand that is meant, and the number of arguments with its name.
fn settle<'c>(command: &'c Command, args: &Args<'_>) -> Result<(&'c Command, u64), Stop> {
    let total = args.left() + 1;
    if command.subcommands.is_empty() || total == 1 {
        return Ok((command, total));
    }
    let sub = match args.clone().next() {
        Some(name) => command.subcommand(name).ok_or(Stop::Wrong)?,
        None => return Err(Stop::Short),
    };
    Ok((sub, total))
}

fn part_of(command: &Command, args: &Args<'_>) -> PartPlace {
    let (command, total) = match settle(command, args) {
        Ok(settled) => settled,
        Err(Stop::Short) => return PartPlace::More,
        Err(_) => return PartPlace::Known(Place::Unclear),
    };
    let mut slots = Slots::default();
    let ended = walk(command.keys, args, &mut slots);
    let takes = command.takes(total);
    match (ended, slots.slot) {
        (Err(Stop::Wrong), _) => PartPlace::Known(Place::Unclear),
        (Err(Stop::Enough), _) if takes => PartPlace::Known(Place::Several),
        // One slot or none is where it goes even if its arity is wrong: should an engine take it
        // all the same, it acts where the key lives.
        (Err(Stop::Enough), _) => PartPlace::Known(Place::Unclear),
        (Ok(()), Some(slot)) => PartPlace::Known(Place::Slot(slot)),
        (Ok(()), None) if takes => PartPlace::Known(Place::Anywhere),
        (Ok(()), None) => PartPlace::Known(Place::Unclear),
        (Err(Stop::Short), Some(slot)) => PartPlace::First(slot),
        (Err(Stop::Short), None) => PartPlace::More,
    }
}

/// Notes the slot; stops at the second one.
#[derive(Default)]
struct Slots {
    slot: Option<u16>,
}

impl Slots {
    fn note(&mut self, slot: u16) -> Result<(), Stop> {
        if *self.slot.get_or_insert(slot) == slot {
            Ok(())
        } else {
            Err(Stop::Enough)
        }
    }
}

impl<'a> Sink<'a> for Slots {
    fn key(&mut self, key: &'a [u8]) -> Result<(), Stop> {
        self.note(key_slot(key))
    }

    fn channel(&mut self, channel: &'a [u8]) -> Result<(), Stop> {
        self.note(key_slot(channel))
    }

    fn pattern(&mut self, tag: Option<&'a [u8]>) -> Result<(), Stop> {
        match tag {
            Some(tag) => self.note(key_slot(tag)),
            None => Err(Stop::Enough),
        }
    }
}

/// Keeps the keys.
struct List<'v, 'a>(&'v mut Vec<&'a [u8]>);

impl<'a> Sink<'a> for List<'_, 'a> {
    fn key(&mut self, key: &'a [u8]) -> Result<(), Stop> {
        self.0.push(key);
        Ok(())
    }

    fn channel(&mut self, _: &'a [u8]) -> Result<(), Stop> {
        Ok(())
    }

    fn pattern(&mut self, _: Option<&'a [u8]>) -> Result<(), Stop> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
