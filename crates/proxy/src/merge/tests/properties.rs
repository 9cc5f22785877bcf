//! What must hold for any bytes of shards and of clients. `fuzz/` includes this file and looks for bytes
//! for which it does not; the test beside it changes known ones by chance.

use crate::merge::{Merge, Part, Plan, keyless, split};
use resp::reply::ReplyFramer;
use resp::request::{Args, Progress, RequestFramer, RequestLimits, Shape};
use resp::value::Value;

/// Between the replies of the shards in the bytes of a case: no reply of an engine has it in a header.
const BETWEEN: u8 = 0xff;
/// Kinds of [`Merge`] that a case may choose.
const KINDS: u8 = 19;

/// Checks that the replies of shards become one reply. The first byte chooses how they are put together,
/// the second the version of the protocol; then the replies follow with 0xff between them.
///
/// # Panics
/// Something does not hold.
pub(crate) fn combined(data: &[u8]) {
    let [kind, more, replies @ ..] = data else {
        return;
    };
    let parts: Vec<&[u8]> = replies.split(|byte| *byte == BETWEEN).collect();
    let merge = merge(*kind, *more, &parts);
    let resp = 2 + (more & 1);
    let mut out = b"before".to_vec();
    merge.combine(&parts, resp, &mut out);
    let reply = out
        .strip_prefix(b"before")
        .unwrap_or_else(|| panic!("{merge:?} changed what was there"));
    let mut framer = ReplyFramer::default();
    let got = framer.advance(reply);
    assert!(
        got.is_ok_and(|got| got.complete && got.consumed == reply.len()),
        "{merge:?} of {parts:?}: {got:?} of {reply:?}"
    );
    let values: Option<Vec<Value>> = parts.iter().map(|part| decoded(part)).collect();
    if let (Some(values), Some(got)) = (values, decoded(reply))
        && let Some(wanted) = expected(&merge, &values)
    {
        assert_eq!(got, wanted, "{merge:?} of {parts:?}");
    }
}

fn decoded(reply: &[u8]) -> Option<Value> {
    let (value, length) = Value::decode(reply).ok()?;
    (length == reply.len()).then_some(value)
}

fn merge(kind: u8, more: u8, parts: &[&[u8]]) -> Merge {
    match kind % KINDS {
        0 => Merge::Same,
        1 => Merge::AnySuccess,
        2 => Merge::Sum,
        3 => Merge::Minimum,
        4 => Merge::Minima,
        5 => Merge::Values(places(parts)),
        6 => Merge::Concatenation,
        7 => Merge::Union,
        8 => Merge::Counts,
        9 => Merge::AnyKey,
        10 => Merge::Newest((more & 2 == 0).then_some(usize::from(more >> 2))),
        11 => {
            let shards = u16::from(more >> 1).max(1);
            let shard = u16::from(more) % shards;
            Merge::Scan { shard, shards }
        }
        12 => Merge::Texts,
        13 => Merge::Info,
        14 => Merge::Config,
        15 => Merge::MemoryStats,
        16 => Merge::Running,
        17 => Merge::LatencyLatest,
        _ => Merge::LatencyHistory,
    }
}

/// Places of the values of each part: of all of them in turn.
fn places(parts: &[&[u8]]) -> Vec<Vec<u32>> {
    let mut next = 0;
    let mut places: Vec<Vec<u32>> = vec![Vec::new(); parts.len()];
    let counts: Vec<usize> = parts
        .iter()
        .map(|part| match decoded(part) {
            Some(Value::Array(items)) => items.len(),
            _ => 1,
        })
        .collect();
    for round in 0..counts.iter().copied().max().unwrap_or(0) {
        for (places, count) in places.iter_mut().zip(&counts) {
            if round < *count {
                places.push(next);
                next += 1;
            }
        }
    }
    places
}

/// What the replies must become, where that is easily said: of numbers and of flat arrays.
fn expected(merge: &Merge, values: &[Value]) -> Option<Value> {
    let numbers = || -> Option<Vec<i64>> { values.iter().map(number).collect() };
    let arrays = || -> Option<Vec<&Vec<Value>>> { values.iter().map(array).collect() };
    match merge {
        Merge::Sum => {
            let sum = numbers()?.into_iter().reduce(i64::saturating_add)?;
            Some(Value::Integer(sum))
        }
        Merge::Minimum => Some(Value::Integer(numbers()?.into_iter().min()?)),
        Merge::Concatenation => {
            let all: Vec<Value> = arrays()?.into_iter().flatten().cloned().collect();
            let bulk = all.iter().all(|value| matches!(value, Value::Bulk(_)));
            bulk.then_some(Value::Array(all))
        }
        Merge::Values(places) => {
            let mut all: Vec<(u32, Value)> = Vec::new();
            for (items, places) in arrays()?.into_iter().zip(places) {
                all.extend(places.iter().copied().zip(items.iter().cloned()));
            }
            all.sort_by_key(|(place, _)| *place);
            Some(Value::Array(
                all.into_iter().map(|(_, value)| value).collect(),
            ))
        }
        Merge::Same => {
            let (first, others) = values.split_first()?;
            let same = others.iter().all(|other| other == first);
            (same && matches!(first, Value::Simple(_))).then(|| first.clone())
        }
        _ => None,
    }
}

fn number(value: &Value) -> Option<i64> {
    match value {
        Value::Integer(number) => Some(*number),
        _ => None,
    }
}

fn array(value: &Value) -> Option<&Vec<Value>> {
    match value {
        Value::Array(items) => Some(items),
        _ => None,
    }
}

/// Checks what becomes of a client's command over several shards. The first byte says how many there are;
/// then the command follows.
///
/// # Panics
/// Something does not hold.
pub(crate) fn taken_apart(data: &[u8]) {
    let [shards, frame @ ..] = data else {
        return;
    };
    let shards = u16::from(*shards).max(1);
    if !is_command(frame) {
        return;
    }
    let words: Vec<&[u8]> = Args::of(frame).collect();
    let shard_of = |key: &[u8]| resp::slot::key_slot(key) % shards;
    if let Some(plan) = split(words[0], frame, &shard_of) {
        planned(&plan, shards, &words);
        if let Plan::Parts(parts, merge) = &plan {
            every_word_once(parts, merge, &words, &shard_of);
        }
    }
    let plan = keyless(words[0], frame, shards);
    planned(&plan, shards, &words);
    if let Plan::Parts(parts, Merge::Scan { shard, .. }) = &plan {
        let cursor = |frame: &[u8]| {
            let text = std::str::from_utf8(Args::of(frame).nth(1)?).ok()?;
            text.parse::<u64>().ok()
        };
        let (client, engine) = (cursor(frame), cursor(&parts[0].frame));
        let again = engine.map(|engine| engine * u64::from(shards) + u64::from(*shard));
        assert_eq!(again, client, "the cursor of {words:?}");
    }
}

fn is_command(frame: &[u8]) -> bool {
    let limits = RequestLimits {
        authenticated: true,
    };
    let whole = Progress::Complete {
        consumed: frame.len(),
        shape: Shape::Array,
    };
    RequestFramer::default().advance(frame, limits) == Ok(whole)
}

/// Parts are commands of the same name, each for another shard, in the order of the shards.
fn planned(plan: &Plan, shards: u16, words: &[&[u8]]) {
    match plan {
        Plan::Parts(parts, _) => {
            assert!(!parts.is_empty() && parts.is_sorted_by(|one, next| one.shard < next.shard));
            for part in parts {
                assert!(
                    part.shard < shards && is_command(&part.frame),
                    "{part:?} of {words:?}"
                );
                assert_eq!(Args::of(&part.frame).next(), Some(words[0]));
            }
        }
        Plan::Refuse(reply) => {
            let got = ReplyFramer::default().advance(reply);
            assert!(
                got.is_ok_and(|got| got.complete && got.consumed == reply.len()),
                "{words:?}"
            );
            assert_eq!(reply.first(), Some(&b'-'));
        }
        Plan::Everywhere(_) | Plan::Anywhere => {}
    }
}

/// Each key, with its value, is in one part: that of its shard.
fn every_word_once(
    parts: &[Part],
    merge: &Merge,
    words: &[&[u8]],
    shard_of: &dyn Fn(&[u8]) -> u16,
) {
    let step = if words[0].to_ascii_uppercase().starts_with(b"MSET") {
        2
    } else {
        1
    };
    let mut found = Vec::new();
    for (index, part) in parts.iter().enumerate() {
        let args: Vec<&[u8]> = Args::of(&part.frame).skip(1).collect();
        for (at, group) in args.chunks(step).enumerate() {
            assert_eq!(shard_of(group[0]), part.shard, "{words:?}");
            let place = match merge {
                Merge::Values(places) => Some(places[index][at]),
                _ => None,
            };
            found.push((place, group.to_vec()));
        }
    }
    let mut wanted: Vec<_> = words[1..].chunks(step).map(<[&[u8]]>::to_vec).collect();
    if found.iter().all(|(place, _)| place.is_some()) {
        found.sort_by_key(|(place, _)| *place);
    } else {
        found.sort();
        wanted.sort();
    }
    assert_eq!(
        found
            .into_iter()
            .map(|(_, group)| group)
            .collect::<Vec<_>>(),
        wanted
    );
}

/// Cases for [`combined`]: every kind, with replies that fit it.
pub(crate) fn combined_seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for (kinds, parts) in REPLIES {
        for kind in *kinds {
            for more in [4, 5, 10] {
                let mut seed = vec![*kind, more];
                seed.extend(parts.join(&[BETWEEN][..]));
                seeds.push(seed);
            }
        }
    }
    seeds
}

/// Cases for [`taken_apart`].
pub(crate) fn taken_apart_seeds() -> Vec<Vec<u8>> {
    let lines = [
        "MGET a b c {a}1 a",
        "DEL a b",
        "MSET a 1 b 2 c 3",
        "MSETNX {a}1 x {a}2 y",
        "MSETNX a x b y",
        "MSET a",
        "EXISTS",
        "SCAN 0 MATCH * COUNT 10",
        "SCAN 123456789",
        "SCAN 18446744073709551615",
        "KEYS *",
        "RANDOMKEY",
        "SELECT 1",
        "SWAPDB 0 1",
        "SCRIPT LOAD x",
        "SCRIPT EXISTS x y",
        "FUNCTION STATS",
        "PUBSUB SHARDNUMSUB a",
        "MEMORY DOCTOR",
        "CONFIG GET *",
        "LATENCY HISTORY x",
        "SLOWLOG GET 5",
        "WAITAOF 1 0 0",
        "INFO all",
    ];
    lines
        .iter()
        .map(|line| {
            let mut seed = vec![4];
            let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
            resp::request::encode(words, &mut seed);
            seed
        })
        .collect()
}

/// Kinds, and replies of two shards that fit them.
const REPLIES: &[(&[u8], &[&[u8]])] = &[
    (&[0, 1, 6], &[b"+OK\r\n", b"+OK\r\n"]),
    (&[0, 1, 2, 12], &[b"-ERR x\r\n", b"-NOTBUSY y\r\n"]),
    (&[0, 1, 13], &[b"!5\r\nERR x\r\n", b"+OK\r\n"]),
    (&[2, 3], &[b":3\r\n", b":-4\r\n", b":9223372036854775807\r\n"]),
    (&[4], &[b"*2\r\n:1\r\n:0\r\n", b"*2\r\n:0\r\n:7\r\n"]),
    (&[5, 6, 7, 9], &[b"*2\r\n$1\r\na\r\n$1\r\nb\r\n", b"*1\r\n$1\r\na\r\n", b"*0\r\n"]),
    (&[2, 3], &[b"|1\r\n$1\r\na\r\n*0\r\n:3\r\n", b":4\r\n"]),
    (
        &[5, 6, 7],
        &[
            b"|1\r\n*1\r\n$1\r\na\r\n*0\r\n|0\r\n*1\r\n$1\r\na\r\n",
            b"*2\r\n$1\r\nb\r\n|1\r\n:1\r\n:2\r\n$1\r\na\r\n",
        ],
    ),
    (&[5], &[b"*2\r\n$-1\r\n_\r\n", b"*1\r\n*1\r\n:1\r\n"]),
    (&[8], &[b"*4\r\n$1\r\na\r\n:1\r\n$1\r\nb\r\n:2\r\n", b"*2\r\n$1\r\nb\r\n:5\r\n"]),
    (&[8], &[b"%1\r\n$1\r\na\r\n:1\r\n", b"%1\r\n$1\r\na\r\n:2\r\n"]),
    (&[9], &[b"$-1\r\n", b"_\r\n", b"$1\r\nk\r\n"]),
    (&[10], &[b"*1\r\n*2\r\n:1\r\n:100\r\n", b"*1\r\n*4\r\n:0\r\n:200\r\n:5\r\n*1\r\n$4\r\nPING\r\n"]),
    (&[11], &[b"*2\r\n$1\r\n0\r\n*1\r\n$1\r\nk\r\n"]),
    (&[11], &[b"*2\r\n$20\r\n18446744073709551615\r\n*0\r\n"]),
    (&[12], &[b"$5\r\nhello\r\n", b"=9\r\ntxt:world\r\n"]),
    (
        &[13],
        &[
            b"$70\r\n# Memory\r\nused_memory:100\r\nused_memory_human:100B\r\nmaxmemory:0\r\n# Stats\r\n\r\n",
            b"$70\r\n# Memory\r\nused_memory:300\r\nused_memory_human:300B\r\nmaxmemory:9\r\n# Stats\r\n\r\n",
        ],
    ),
    (&[13], &[b"$46\r\n# Keyspace\r\ndb0:keys=1,expires=0,avg_ttl=0,x=1\r\n\r\n", b"$12\r\n# Keyspace\r\n\r\n"]),
    (&[14], &[b"*2\r\n$9\r\nmaxmemory\r\n$2\r\n10\r\n", b"*2\r\n$9\r\nmaxmemory\r\n$2\r\n20\r\n"]),
    (&[14], &[b"%1\r\n$4\r\nsave\r\n$0\r\n\r\n", b"%1\r\n$4\r\nsave\r\n$0\r\n\r\n"]),
    (
        &[15],
        &[
            b"*4\r\n$14\r\npeak.allocated\r\n:5\r\n$15\r\npeak.percentage\r\n$4\r\n99.5\r\n",
            b"*4\r\n$14\r\npeak.allocated\r\n:7\r\n$15\r\npeak.percentage\r\n$4\r\n10.5\r\n",
        ],
    ),
    (&[15], &[b"%1\r\n$4\r\ndb.0\r\n%1\r\n$26\r\noverhead.hashtable.expires\r\n:1\r\n", b"%0\r\n"]),
    (&[16], &[b"*2\r\n$14\r\nrunning_script\r\n$-1\r\n", b"*2\r\n$14\r\nrunning_script\r\n*1\r\n+x\r\n"]),
    (&[17], &[b"*1\r\n*4\r\n$4\r\nfork\r\n:100\r\n:5\r\n:9\r\n", b"*1\r\n*4\r\n$4\r\nfork\r\n:200\r\n:1\r\n:2\r\n"]),
    (&[18], &[b"*1\r\n*2\r\n:100\r\n:5\r\n", b"*2\r\n*2\r\n:50\r\n:1\r\n*2\r\n:100\r\n:2\r\n"]),
];

#[cfg(test)]
mod changed {
    use super::{combined, combined_seeds, taken_apart, taken_apart_seeds};
    use proptest::prelude::*;
    use proptest::sample::{Index, select};

    const BYTES: &[&[u8]] = &[
        b"\r\n",
        b"*",
        b"$",
        b"*0\r\n",
        b":1\r\n",
        b"-1",
        b"9223372036854775807",
        b"0",
        b"_\r\n",
        b"\xff",
        b"%1\r\n",
        b"*-1\r\n",
        b"-ERR\r\n",
        b":",
        b"=",
        b",",
        b"1.5",
        b"nan",
        b"|1\r\n",
    ];

    /// A seed with bytes put in, cut out and written over.
    fn changed(seeds: Vec<Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
        let change = (any::<Index>(), 0_usize..4, select(BYTES));
        let head = prop::option::of(any::<[u8; 2]>());
        (select(seeds), head, prop::collection::vec(change, 0..5)).prop_map(
            |(mut data, head, changes)| {
                for (at, cut, bytes) in changes {
                    let at = at.index(data.len());
                    let end = (at + cut).min(data.len());
                    data.splice(at..end, bytes.iter().copied());
                }
                if let (Some(head), Some(first)) = (head, data.first_chunk_mut()) {
                    *first = head;
                }
                data
            },
        )
    }

    #[test]
    fn every_seed_holds() {
        combined_seeds().iter().for_each(|seed| combined(seed));
        taken_apart_seeds()
            .iter()
            .for_each(|seed| taken_apart(seed));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]

        #[test]
        fn replies_become_one(data in changed(combined_seeds())) {
            combined(&data);
        }

        #[test]
        fn commands_are_taken_apart(data in changed(taken_apart_seeds())) {
            taken_apart(&data);
        }
    }
}
