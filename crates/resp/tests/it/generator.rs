//! Commands by chance: every command of the table, with arguments that fit and ones that do not.

use resp::command::{Command, KeyRule};

pub(crate) type Words = Vec<Vec<u8>>;

/// Numbers that depend on the seed alone (SplitMix64).
pub(crate) struct Chance(pub(crate) u64);

impl Chance {
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((mixed ^ (mixed >> 31)) % bound as u64) as usize
    }

    fn one_in(&mut self, bound: usize) -> bool {
        self.below(bound) == 0
    }

    fn pick(&mut self, from: &[&str]) -> Vec<u8> {
        from[self.below(from.len())].as_bytes().to_vec()
    }
}

const KEYS: &[&str] = &[
    "a", "b", "key:1", "key:2", "{t}1", "{t}2", "x{t}", "{}", "{", "", "STORE", "streams", "get",
    "\r\n", "1",
];
const NUMBERS: &[&str] = &[
    "0",
    "1",
    "2",
    "3",
    "4",
    "-1",
    "x",
    "01",
    "9223372036854775807",
    "",
];
const WORDS: &[&str] = &[
    "COUNT",
    "block",
    "GROUP",
    "NOACK",
    "STREAMS",
    "store",
    "STOREDIST",
    "BY",
    "GET",
    "LIMIT",
    "ASC",
    "ALPHA",
    "KEYS",
    "AUTH",
    "AUTH2",
    "COPY",
    "WITHDIST",
    "ANY",
    "EX",
    "NX",
    "LEFT",
    "MIN",
    "WEIGHTS",
    "AGGREGATE",
    "*",
    "w_*",
    "{t}w_*",
    "{t}*->f",
    "w_*{t}",
    "#",
    "nosort",
    "LCS",
    "STRINGS",
    "REPLACE",
    "DB",
];

/// Any argument.
fn any(chance: &mut Chance) -> Vec<u8> {
    let from = [KEYS, KEYS, NUMBERS, WORDS][chance.below(4)];
    chance.pick(from)
}

/// A case of `command`; `names` is its name, or its container's and its own.
pub(crate) fn case(chance: &mut Chance, names: &[&str], command: &Command) -> Words {
    let mut words: Words = names
        .iter()
        .map(|name| match chance.below(3) {
            0 => name.to_ascii_lowercase().into_bytes(),
            _ => name.as_bytes().to_vec(),
        })
        .collect();
    if !chance.one_in(3) && shaped(chance, command.keys, &mut words) {
        return words;
    }
    let least = usize::from(command.arity.unsigned_abs());
    let count = if chance.one_in(5) {
        1 + chance.below(least + 4)
    } else if command.arity < 0 {
        least + chance.below(8)
    } else {
        least
    };
    while words.len() < count {
        words.push(any(chance));
    }
    words
}

/// Arguments as the rule wants them, mostly. `false`: any will do.
fn shaped(chance: &mut Chance, rule: KeyRule, words: &mut Words) -> bool {
    match rule {
        KeyRule::Counted(at, step) | KeyRule::StoredCounted(at, step) => {
            while words.len() < usize::from(at) {
                words.push(any(chance));
            }
            let count = chance.below(5);
            words.push(count.to_string().into_bytes());
            let given = if chance.one_in(6) {
                chance.below(6)
            } else {
                count
            };
            for _ in 0..given * usize::from(step) {
                words.push(chance.pick(KEYS));
            }
        }
        KeyRule::Streams => {
            if words[0].len() == 10 || chance.one_in(8) {
                words.push(b"group".to_vec());
                words.push(chance.pick(KEYS));
                words.push(chance.pick(KEYS));
            }
            for _ in 0..chance.below(3) {
                words.push(chance.pick(&["COUNT", "BLOCK"]));
                words.push(chance.pick(KEYS));
            }
            if chance.one_in(6) {
                words.push(chance.pick(WORDS));
            }
            words.push(chance.pick(&["STREAMS", "streams"]));
            let count = 1 + chance.below(4);
            for _ in 0..2 * count - usize::from(chance.one_in(6)) {
                words.push(chance.pick(KEYS));
            }
            return true;
        }
        KeyRule::Geo(from) => {
            while words.len() < usize::from(from) {
                words.push(chance.pick(KEYS));
            }
        }
        KeyRule::Sort | KeyRule::SortReadOnly => words.push(chance.pick(KEYS)),
        KeyRule::Migrate => {
            for from in [KEYS, NUMBERS, &["", "", "key"], NUMBERS, NUMBERS] {
                words.push(chance.pick(from));
            }
        }
        KeyRule::Stralgo => {
            words.push(b"LCS".to_vec());
            for _ in 0..chance.below(3) {
                words.push(chance.pick(&["IDX", "LEN", "WITHMATCHLEN"]));
            }
            words.push(chance.pick(&["KEYS", "keys", "STRINGS"]));
            for _ in 0..2 - usize::from(chance.one_in(6)) {
                words.push(chance.pick(KEYS));
            }
            return true;
        }
        _ => return false,
    }
    for _ in 0..chance.below(6) {
        words.push(any(chance));
    }
    true
}
