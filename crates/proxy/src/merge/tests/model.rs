//! Splitting and merging together do what one engine does.

use super::{SHARDS, combined, command, shard_of};
use crate::merge::{Merge, Plan, split};
use proptest::prelude::*;
use resp::request::Args;
use resp::value::Value;
use std::collections::{BTreeMap, BTreeSet};

/// As much of an engine as these commands need.
#[derive(Clone, Default)]
struct Model(BTreeMap<Vec<u8>, Vec<u8>>);

impl Model {
    fn run(&mut self, frame: &[u8], resp: u8) -> Vec<u8> {
        let args: Vec<&[u8]> = Args::of(frame).collect();
        let reply = match args[0] {
            b"MGET" => {
                let value =
                    |key: &&[u8]| self.0.get(*key).cloned().map_or(Value::Null, Value::Bulk);
                Value::Array(args[1..].iter().map(value).collect())
            }
            b"MSET" => {
                for pair in args[1..].chunks(2) {
                    self.0.insert(pair[0].to_vec(), pair[1].to_vec());
                }
                Value::Simple(b"OK".to_vec())
            }
            b"DEL" => count(
                args[1..]
                    .iter()
                    .filter(|key| self.0.remove(**key).is_some()),
            ),
            _ => count(args[1..].iter().filter(|key| self.0.contains_key(**key))),
        };
        let mut out = Vec::new();
        reply.write(resp, &mut out);
        out
    }
}

fn count(found: impl Iterator) -> Value {
    Value::Integer(i64::try_from(found.count()).unwrap())
}

/// The same over shards.
fn over_shards(shards: &mut [Model], frame: &[u8], resp: u8) -> Vec<u8> {
    let name = Args::of(frame).next().unwrap();
    let Some(Plan::Parts(parts, merge)) = split(name, frame, &shard_of) else {
        panic!("it is split");
    };
    let used: BTreeSet<u16> = parts.iter().map(|part| part.shard).collect();
    assert_eq!(used.len(), parts.len());
    let replies: Vec<Vec<u8>> = parts
        .iter()
        .map(|part| shards[usize::from(part.shard)].run(&part.frame, resp))
        .collect();
    combined(&merge, &replies, resp)
}

/// Few keys, so that they come again.
fn key() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        9 => prop::collection::vec(b'a'..b'd', 1..3),
        1 => prop::collection::vec(any::<u8>(), 0..4),
    ]
}

fn words() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let keys = || prop::collection::vec(key(), 1..12);
    let value = prop::collection::vec(any::<u8>(), 0..20);
    let pairs = prop::collection::vec((key(), value), 1..8);
    prop_oneof![
        (
            prop_oneof![Just("MGET"), Just("DEL"), Just("EXISTS")],
            keys()
        )
            .prop_map(|(name, keys)| {
                std::iter::once(name.as_bytes().to_vec())
                    .chain(keys)
                    .collect()
            }),
        pairs.prop_map(|pairs| {
            let pairs = pairs.into_iter().flat_map(|(key, value)| [key, value]);
            std::iter::once(b"MSET".to_vec()).chain(pairs).collect()
        }),
    ]
}

proptest! {
    #[test]
    fn several_shards_answer_like_one(commands in prop::collection::vec(words(), 1..20), resp in 2_u8..4) {
        let mut one = Model::default();
        let mut shards = vec![Model::default(); usize::from(SHARDS)];
        for words in commands {
            let frame = command(&words);
            let wanted = one.run(&frame, resp);
            prop_assert_eq!(over_shards(&mut shards, &frame, resp), wanted);
        }
    }

    /// A scan ends, and visits every step of every shard once.
    #[test]
    fn a_scan_visits_every_shard(steps in prop::collection::vec(prop::collection::vec(1_u64..1_000_000, 0..5), 1..6)) {
        let shards = u16::try_from(steps.len()).unwrap();
        let mut cursor = b"0".to_vec();
        let mut visited = Vec::new();
        loop {
            let frame = command(&[&b"SCAN"[..], &cursor]);
            let Plan::Parts(parts, merge) = crate::merge::keyless(b"SCAN", &frame, shards) else {
                panic!("it goes to one shard");
            };
            let prop_shard = usize::from(parts[0].shard);
            let asked = Args::of(&parts[0].frame).nth(1).unwrap().to_vec();
            let asked: u64 = String::from_utf8(asked).unwrap().parse().unwrap();
            visited.push((prop_shard, asked));
            prop_assert!(visited.len() <= 64);
            // The shard's cursors come one after the other; each is known by its place.
            let done = visited.iter().filter(|(shard, _)| *shard == prop_shard).count();
            let next = steps[prop_shard].get(done - 1).copied().unwrap_or(0).to_string();
            let reply = format!("*2\r\n${}\r\n{next}\r\n*0\r\n", next.len());
            prop_assert!(matches!(merge, Merge::Scan { .. }), "{:?}", merge);
            let out = combined(&merge, &[reply], 2);
            let (Value::Array(items), _) = Value::decode(&out).unwrap() else {
                panic!("no scan");
            };
            cursor = items[0].text().unwrap().to_vec();
            if cursor == b"0" {
                break;
            }
        }
        let wanted: Vec<(usize, u64)> = steps
            .iter()
            .enumerate()
            .flat_map(|(shard, cursors)| {
                std::iter::once(0).chain(cursors.iter().copied()).map(move |cursor| (shard, cursor))
            })
            .collect();
        prop_assert_eq!(visited, wanted);
    }
}
