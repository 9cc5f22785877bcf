//! The checks, on seeds that are changed by chance.

use super::{reply, request, seeds};
use proptest::prelude::*;
use proptest::sample::Index;

/// A change of a stream.
#[derive(Clone, Debug)]
enum Change {
    Byte(Index, u8),
    Bytes(Index, &'static [u8]),
    Cut(Index),
    Without(Index, usize),
    Twice(Index, Index),
}

impl Change {
    fn make(&self, stream: &mut Vec<u8>) {
        if stream.is_empty() {
            return;
        }
        match self {
            Self::Byte(at, byte) => *at.get_mut(stream) = *byte,
            Self::Bytes(at, bytes) => {
                let at = at.index(stream.len());
                stream.splice(at..at, bytes.iter().copied());
            }
            Self::Cut(at) => stream.truncate(at.index(stream.len())),
            Self::Without(at, count) => {
                let at = at.index(stream.len());
                stream.drain(at..(at + count).min(stream.len()));
            }
            Self::Twice(from, to) => {
                let (from, to) = (from.index(stream.len()), to.index(stream.len()));
                let copied = stream[from.min(to)..from.max(to)].to_vec();
                stream.splice(to..to, copied);
            }
        }
    }
}

const BYTES: &[&[u8]] = &[
    b"\r\n",
    b"*",
    b"$",
    b"*1\r\n",
    b"$0\r\n\r\n",
    b"-1",
    b"9223372036854775807",
    b"0",
    b"\"",
    b"{",
    b"}",
    b"_\r\n",
    b"|1\r\n",
    b"*?\r\n",
    b".\r\n",
    b"%1\r\n",
    b";0\r\n",
    b"\0",
];

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        3 => (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Change::Byte(at, byte)),
        3 => (any::<Index>(), proptest::sample::select(BYTES)).prop_map(|(at, bytes)| Change::Bytes(at, bytes)),
        1 => any::<Index>().prop_map(Change::Cut),
        2 => (any::<Index>(), 1_usize..5).prop_map(|(at, count)| Change::Without(at, count)),
        1 => (any::<Index>(), any::<Index>()).prop_map(|(from, to)| Change::Twice(from, to)),
    ]
}

/// Some of the seeds one after the other, changed.
fn changed(seeds: Vec<Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let some = prop::collection::vec(proptest::sample::select(seeds), 1..4);
    (some, prop::collection::vec(change(), 0..5)).prop_map(|(some, changes)| {
        let mut stream = some.concat();
        changes.iter().for_each(|change| change.make(&mut stream));
        stream
    })
}

#[test]
fn every_seed_holds() {
    seeds::requests()
        .iter()
        .for_each(|seed| request::check(seed));
    seeds::replies().iter().for_each(|seed| reply::check(seed));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn requests(stream in changed(seeds::requests())) {
        request::check(&stream);
    }

    #[test]
    fn replies(stream in changed(seeds::replies())) {
        reply::check(&stream);
    }
}
