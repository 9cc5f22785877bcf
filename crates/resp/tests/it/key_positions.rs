//! Keys as `COMMAND GETKEYS` of real engines finds them.

use crate::engine::Engine;
use crate::generator::{Chance, Words, case};
use resp::command::{KeyRule, all, find};
use resp::keys::{PartPlace, Place, keys, place, place_of_part};
use resp::request::encode;
use resp::slot::key_slot;
use resp::value::Value;
use std::collections::BTreeMap;

/// Cases of each command.
const CASES: usize = 120;
/// Commands sent at once.
const BATCH: usize = 500;

fn frame(words: &[Vec<u8>]) -> Vec<u8> {
    let mut frame = Vec::new();
    encode(words.iter().map(Vec::as_slice), &mut frame);
    frame
}

/// Cases of all commands that an engine knows.
fn cases(engine: &str, seed: u64) -> Vec<Words> {
    let mut chance = Chance(seed);
    let mut cases = Vec::new();
    for command in all() {
        if command.known.has(engine) != Some(true) {
            continue;
        }
        for _ in 0..CASES {
            cases.push(case(&mut chance, &[command.name], command));
        }
        for sub in command.subcommands {
            for _ in 0..CASES / 4 {
                cases.push(case(&mut chance, &[command.name, sub.name], sub));
            }
        }
    }
    cases
}

/// What the engine says: the keys, none if it answers with an error.
fn getkeys(engine: &mut Engine, cases: &[Words]) -> Vec<Words> {
    let mut answers = Vec::new();
    for batch in cases.chunks(BATCH) {
        let asked: Vec<Words> = batch
            .iter()
            .map(|words| {
                let mut asked = vec![b"COMMAND".to_vec(), b"GETKEYS".to_vec()];
                asked.extend_from_slice(words);
                asked
            })
            .collect();
        answers.extend(engine.ask(&asked).into_iter().map(|answer| {
            match answer {
                Value::Array(keys) => keys
                    .iter()
                    .map(|key| key.text().unwrap().to_vec())
                    .collect(),
                Value::Error(_) => Vec::new(),
                other => panic!("{other:?}"),
            }
        }));
    }
    answers
}

/// Why we differ from `GETKEYS`: what it finds is not always what the command does when it runs.
fn why_different(words: &[Vec<u8>], clear: bool) -> Option<&'static str> {
    let word = |at: usize| words.get(at).map_or(&b""[..], Vec::as_slice);
    let is = |word: &[u8], wanted: &str| word.eq_ignore_ascii_case(wanted.as_bytes());
    let count = |wanted: &[&str]| {
        let fits = |word: &&Vec<u8>| wanted.iter().any(|wanted| is(word, wanted));
        words.iter().filter(fits).count()
    };
    let name = String::from_utf8(words[0].to_ascii_uppercase()).unwrap();
    match name.as_str() {
        "MSET" | "MSETNX" | "MSETEX" if !clear => Some("a key without a value is refused"),
        "EXPIRE" | "EXPIREAT" | "PEXPIRE" | "PEXPIREAT" | "PFDEBUG" | "XSETID" | "ZRANK"
        | "ZREVRANK"
            if clear =>
        {
            Some("another engine takes more arguments")
        }
        "OBJECT" | "XGROUP" | "XINFO" if !clear => Some("no such subcommand"),
        "PFMERGE" if words.len() == 2 => Some("it runs with nothing but its target"),
        "MIGRATE" if count(&["KEYS"]) > 0 && !word(3).is_empty() => {
            Some("a key and KEYS together are refused")
        }
        "GEORADIUS" | "GEORADIUSBYMEMBER" if count(&["STORE", "STOREDIST"]) > 1 => {
            Some("the last one counts")
        }
        "GEORADIUS" if is(word(5), "STORE") || is(word(5), "STOREDIST") => Some("it is the unit"),
        "SORT" if count(&["STORE"]) > 1 => Some("the key to store at may be named so"),
        "XREAD" | "XREADGROUP" if count(&["STREAMS"]) > 1 => {
            Some("the value of an option may be named so")
        }
        "XREAD" | "XREADGROUP" if !clear => Some("a wrong option is refused"),
        "XREADGROUP" if !is(word(1), "GROUP") => Some("without a group it is refused"),
        _ if words.iter().any(|word| word == b"01") => Some("no count has leading zeros"),
        _ => None,
    }
}

fn shown(words: &[impl AsRef<[u8]>]) -> String {
    let words: Vec<_> = words
        .iter()
        .map(|word| String::from_utf8_lossy(word.as_ref()))
        .collect();
    format!("{words:?}")
}

fn compare(name: &str, seed: u64) {
    let mut engine = Engine::start(name);
    let cases = cases(name, seed);
    let answers = getkeys(&mut engine, &cases);
    let mut agreed: BTreeMap<String, usize> = BTreeMap::new();
    let mut intended = 0;
    for (words, mut theirs) in cases.iter().zip(answers) {
        let frame = frame(words);
        let mut ours = Vec::new();
        let clear = keys(&frame, &mut ours);
        ours.sort_unstable();
        theirs.sort_unstable();
        if ours == theirs {
            let command = String::from_utf8(words[0].to_ascii_uppercase()).unwrap();
            *agreed.entry(command).or_default() += usize::from(!ours.is_empty());
            continue;
        }
        assert!(
            why_different(words, clear).is_some(),
            "seed {seed}: {} has the keys {}, not {} (clear: {clear})",
            shown(words),
            shown(&theirs),
            shown(&ours)
        );
        intended += 1;
    }
    // Each command that has keys was really compared, and exceptions are exceptions.
    for command in all().iter().filter(|c| c.known.has(name) == Some(true)) {
        let keyed = !matches!(command.keys, KeyRule::Keyless | KeyRule::Channels(..));
        let agreed = agreed.get(command.name).copied().unwrap_or(0);
        assert!(!keyed || agreed >= CASES / 20, "{}: {agreed}", command.name);
    }
    assert!(intended < cases.len() / 25, "{intended}");
    println!(
        "{name}: {} cases, {intended} different as intended",
        cases.len()
    );
}

#[test]
fn as_valkey_9_1_finds_them() {
    compare("valkey-9.1.2", 1);
}

#[test]
fn as_valkey_8_0_finds_them() {
    compare("valkey-8.0.1", 2);
}

#[test]
fn as_redis_7_0_finds_them() {
    compare("redis-7.0.15", 3);
}

/// It has no key specs, and is the only one with `STRALGO`.
#[test]
fn as_redis_6_2_finds_them() {
    compare("redis-6.2.14", 4);
}

/// Where a command runs follows from its keys, and what its beginning says is never taken back.
#[test]
fn places_follow_from_keys() {
    for words in cases("valkey-9.1.2", 5) {
        let frame = frame(&words);
        let place = place(&frame);
        let mut found = Vec::new();
        let clear = keys(&frame, &mut found);
        let mut slots: Vec<u16> = found.iter().map(|key| key_slot(key)).collect();
        slots.sort_unstable();
        slots.dedup();
        let shown = shown(&words);
        match (clear, slots.as_slice(), place) {
            (true, [], Place::Anywhere | Place::Unclear) | (false, [], _) => {}
            (true, [slot], Place::Slot(place)) => assert_eq!(*slot, place, "{shown}"),
            (true, [_, _, ..], Place::Several) => {}
            // A pattern of SORT reaches further; channels are no keys.
            (true, [_], Place::Several) if words[0].to_ascii_uppercase().starts_with(b"SORT") => {}
            (true, [], Place::Slot(_) | Place::Several) => {
                let command = find(&words[0]).unwrap();
                assert!(matches!(command.keys, KeyRule::Channels(..)), "{shown}");
            }
            _ => panic!("{shown}: clear {clear}, slots {slots:?}, {place:?}"),
        }
        assert_eq!(place_of_part(&frame), PartPlace::Known(place), "{shown}");
        let mut first = None;
        for end in 0..frame.len() {
            match place_of_part(&frame[..end]) {
                PartPlace::More => assert_eq!(first, None, "{shown} at {end}"),
                PartPlace::First(slot) => assert_eq!(*first.get_or_insert(slot), slot, "{shown}"),
                PartPlace::Known(known) => assert_eq!(known, place, "{shown} at {end}"),
            }
        }
    }
}
