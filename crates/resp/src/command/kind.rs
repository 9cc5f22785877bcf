//! Whether a command reads or writes, found as cheaply as whether it is special: most are known from
//! their length and their first three letters.

use super::table::COMMANDS;
use super::{Class, Command, Flags, find};

/// What a command does to data, as the engines' flags say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Neither: it is about the connection, the server, channels, or is a script, or is not known.
    #[default]
    Other,
    /// It reads.
    Read,
    /// It may write.
    Write,
}

impl Kind {
    /// How many there are.
    pub const COUNT: usize = 3;

    const fn of(command: &Command) -> Self {
        if command.flags.0 & Flags::WRITE.0 != 0 {
            Self::Write
        } else if command.flags.0 & Flags::READONLY.0 != 0 {
            Self::Read
        } else {
            Self::Other
        }
    }
}

/// Longest name plus one that has a place in the table.
const LENGTHS: usize = 16;
const PLACES: usize = LENGTHS << 10;

/// What all commands of a length are whose first three letters lead to the same place; `None`: they differ, or one of
/// them is special.
static KINDS: [Option<Kind>; PLACES] = kinds();

#[inline]
const fn place(length: usize, first: u8, second: u8, third: u8) -> usize {
    (length << 10) | ((first as usize & 31) << 5) | ((second ^ third) as usize & 31)
}

const fn kinds() -> [Option<Kind>; PLACES] {
    let mut kinds = [Some(Kind::Other); PLACES];
    let mut taken = [false; PLACES];
    let mut at = 0;
    while at < COMMANDS.len() {
        let command = &COMMANDS[at];
        let name = command.name.as_bytes();
        at += 1;
        if name.len() >= LENGTHS || name.len() < 3 {
            continue;
        }
        let place = place(name.len(), name[0], name[1], name[2]);
        let kind = Kind::of(command);
        let same = match kinds[place] {
            Some(known) => known as u8 == kind as u8,
            None => false,
        };
        kinds[place] = if matches!(command.class, Class::Plain) && (!taken[place] || same) {
            Some(kind)
        } else {
            None
        };
        taken[place] = true;
    }
    kinds
}

/// What a command does, if it is [`Class::Plain`]; `None`: it is special. Case is ignored. A name that
/// no engine knows may be taken for one that begins like it.
#[inline]
#[must_use]
pub fn plain(name: &[u8]) -> Option<Kind> {
    let known = match name {
        [first, second, third, ..] => KINDS.get(place(name.len(), *first, *second, *third)),
        _ => None,
    };
    match known {
        Some(Some(kind)) => Some(*kind),
        _ => look(name),
    }
}

/// What a command does, special or not.
#[must_use]
pub fn kind(name: &[u8]) -> Kind {
    find(name).map_or(Kind::Other, Kind::of)
}

fn look(name: &[u8]) -> Option<Kind> {
    match find(name) {
        None => Some(Kind::Other),
        Some(command) if command.class == Class::Plain => Some(Kind::of(command)),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{all, classify};
    use proptest::prelude::*;

    #[test]
    fn every_command_is_what_its_flags_say() {
        for command in all() {
            let plain_kind = (command.class == Class::Plain).then_some(Kind::of(command));
            let name = command.name.as_bytes();
            assert_eq!(plain(name), plain_kind, "{}", command.name);
            assert_eq!(plain(&name.to_ascii_lowercase()), plain_kind);
            assert_eq!(kind(name), Kind::of(command));
        }
        for (name, wanted) in [
            (&b"GET"[..], Kind::Read),
            (b"set", Kind::Write),
            (b"hget", Kind::Read),
            (b"HSET", Kind::Write),
            (b"PING", Kind::Other),
            (b"ECHO", Kind::Other),
            (b"", Kind::Other),
            (b"X", Kind::Other),
            (b"\xFF\xFE no such command", Kind::Other),
        ] {
            assert_eq!(plain(name), Some(wanted));
        }
    }

    proptest! {
        #[test]
        fn what_is_special_is_never_plain(name in "[A-Za-z:]{0,12}|[\\x00-\\xff]{0,18}") {
            let name = name.as_bytes();
            prop_assert_eq!(plain(name).is_none(), classify(name) != Class::Plain);
        }
    }

    #[test]
    fn the_usual_ones_need_no_second_look() {
        for name in [
            "GET", "SET", "DEL", "INCR", "HGET", "HSET", "LPUSH", "SADD", "ZADD", "EXPIRE",
        ] {
            let name = name.as_bytes();
            assert!(
                KINDS[place(name.len(), name[0], name[1], name[2])].is_some(),
                "{name:?}"
            );
        }
    }
}
