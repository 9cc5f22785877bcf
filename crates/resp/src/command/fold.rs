//! Finding a command by its name: the name's bytes, as two numbers in which case plays no part,
//! choose a place in an index; the same numbers tell whether what is found there is meant.

use super::Command;
use super::table::COMMANDS;

/// Places of the index: a few times the number of commands, so that most names are found at once.
const PLACES: usize = 1024;
/// Any odd number that scatters the names well (2^64 divided by the golden ratio).
const SCATTER: u64 = 0x9E37_79B9_7F4A_7C15;

static INDEX: [u16; PLACES] = index();

/// All commands, in the order of their names.
#[must_use]
pub fn all() -> &'static [Command] {
    &COMMANDS
}

/// Finds a command; case is ignored.
#[inline]
#[must_use]
pub fn find(name: &[u8]) -> Option<&'static Command> {
    let (head, tail) = ends(name);
    let mut place = place(head, tail, name.len());
    let folded = folded(head, tail, name.len());
    loop {
        let number = INDEX[place % PLACES];
        let found = COMMANDS.get(usize::from(number).wrapping_sub(1))?;
        if found.folded == folded
            && (name.len() <= Folded::WHOLE || found.name.as_bytes().eq_ignore_ascii_case(name))
        {
            return Some(found);
        }
        place += 1;
    }
}

/// A name in capitals as its first eight bytes and its last eight, which overlap in a name of less
/// than 16 bytes; shorter ones take less room. With the length that is the whole name up to
/// [`Folded::WHOLE`] bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Folded {
    head: u64,
    tail: u64,
    length: usize,
}

impl Folded {
    pub(super) const NOTHING: Self = Self {
        head: 0,
        tail: 0,
        length: 0,
    };
    const WHOLE: usize = 16;
}

#[inline]
pub(super) const fn fold(name: &[u8]) -> Folded {
    let (head, tail) = ends(name);
    folded(head, tail, name.len())
}

#[inline]
const fn folded(head: u64, tail: u64, length: usize) -> Folded {
    Folded {
        head: capitals(head),
        tail: capitals(tail),
        length,
    }
}

/// Where a name with these ends is looked for first. Case is put aside in a cheaper way than
/// [`capitals`] does it, which confuses some bytes that are no letters: here that does no harm.
#[inline]
const fn place(head: u64, tail: u64, length: usize) -> usize {
    const NO_CASE: u64 = 0xDFDF_DFDF_DFDF_DFDF;
    let mixed = (head & NO_CASE) ^ (tail & NO_CASE).rotate_left(32) ^ length as u64;
    (mixed.wrapping_mul(SCATTER) >> (u64::BITS - PLACES.trailing_zeros())) as usize
}

/// The first eight bytes of a name and its last eight.
#[inline]
const fn ends(name: &[u8]) -> (u64, u64) {
    match (name.first_chunk::<8>(), name.last_chunk::<8>()) {
        (Some(head), Some(tail)) => (u64::from_le_bytes(*head), u64::from_le_bytes(*tail)),
        _ => (short(name), 0),
    }
}

/// A name of less than eight bytes as a number: different for different names of one length.
#[inline]
const fn short(name: &[u8]) -> u64 {
    match (name.first_chunk::<4>(), name.last_chunk::<4>()) {
        (Some(head), Some(tail)) => {
            u32::from_le_bytes(*head) as u64 | (u32::from_le_bytes(*tail) as u64) << 32
        }
        _ => match name {
            [] => 0,
            [first, .., last] => {
                (*first as u64) | (name[name.len() / 2] as u64) << 8 | (*last as u64) << 16
            }
            [only] => *only as u64,
        },
    }
}

/// Eight letters at once: what is `a` to `z` becomes `A` to `Z`, any other byte stays.
#[inline]
const fn capitals(bytes: u64) -> u64 {
    const EACH: u64 = 0x0101_0101_0101_0101;
    let low = bytes & (0x7F * EACH);
    let from_a = low + (0x80 - b'a' as u64) * EACH;
    let past_z = low + (0x7F - b'z' as u64) * EACH;
    let small = (from_a ^ past_z) & !bytes & (0x80 * EACH);
    bytes - (small >> 2)
}

/// Number of the command at each place, counted from 1; 0: none. A place that is taken gives way to
/// the next.
const fn index() -> [u16; PLACES] {
    let mut index = [0_u16; PLACES];
    let mut at = 0;
    while at < COMMANDS.len() {
        let folded = COMMANDS[at].folded;
        let mut place = place(folded.head, folded.tail, folded.length);
        while index[place % PLACES] != 0 {
            place += 1;
        }
        index[place % PLACES] = at as u16 + 1;
        at += 1;
    }
    index
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn slow(name: &[u8]) -> Option<&'static str> {
        COMMANDS
            .iter()
            .map(|command| command.name)
            .find(|known| known.as_bytes().eq_ignore_ascii_case(name))
    }

    #[test]
    fn every_command_is_found_in_any_case() {
        for command in all() {
            assert_eq!(find(command.name.as_bytes()).unwrap().name, command.name);
            let small = command.name.to_ascii_lowercase();
            assert_eq!(find(small.as_bytes()).unwrap().name, command.name);
        }
        // Few names have to be looked for at a second place, and none far away.
        let far = |command: &&Command| {
            let folded = command.folded;
            let place = place(folded.head, folded.tail, folded.length);
            usize::from(INDEX[place]) == 0
                || COMMANDS[usize::from(INDEX[place]) - 1].name != command.name
        };
        assert!(all().iter().filter(far).count() < all().len() / 4);
    }

    #[test]
    fn one_byte_changed_is_another_name() {
        for command in all() {
            for at in 0..command.name.len() {
                for byte in 0..=u8::MAX {
                    let mut name = command.name.as_bytes().to_vec();
                    name[at] = byte;
                    assert_eq!(find(&name).map(|found| found.name), slow(&name), "{name:?}");
                }
            }
        }
    }

    proptest! {
        #[test]
        fn anything_else_is_not_found(name in proptest::collection::vec(any::<u8>(), 0..24)) {
            prop_assert_eq!(find(&name).map(|found| found.name), slow(&name));
        }
    }
}
