//! Commands with keys on several shards.

use super::{Merge, Part, Plan};
use crate::texts;
use resp::request::{Args, encode};
use std::collections::BTreeMap;

/// How such a command is taken apart.
struct Rule {
    name: &'static [u8],
    /// Arguments from one key to the next.
    step: usize,
    replies: Replies,
}

enum Replies {
    Sum,
    Same,
    Values,
    /// All or nothing: one shard only.
    OneShard,
}

const RULES: &[Rule] = &[
    rule(b"DEL", 1, Replies::Sum),
    rule(b"EXISTS", 1, Replies::Sum),
    rule(b"MGET", 1, Replies::Values),
    rule(b"MSET", 2, Replies::Same),
    rule(b"MSETNX", 2, Replies::OneShard),
    rule(b"TOUCH", 1, Replies::Sum),
    rule(b"UNLINK", 1, Replies::Sum),
];

const fn rule(name: &'static [u8], step: usize, replies: Replies) -> Rule {
    Rule {
        name,
        step,
        replies,
    }
}

/// Takes a command apart whose keys are on several shards; `None`: it cannot be, it needs all its keys
/// on one shard. A command with wrong arguments goes [`Plan::Anywhere`]: an engine says what is wrong.
pub(crate) fn split(
    name: &[u8],
    frame: &[u8],
    shard_of_key: &dyn Fn(&[u8]) -> u16,
) -> Option<Plan> {
    let rule = RULES
        .iter()
        .find(|rule| name.eq_ignore_ascii_case(rule.name))?;
    let mut args = Args::of(frame);
    let name = args.next().unwrap_or(name);
    let args: Vec<&[u8]> = args.collect();
    if args.is_empty() || !args.len().is_multiple_of(rule.step) {
        return Some(Plan::Anywhere);
    }
    let mut places: BTreeMap<u16, Vec<u32>> = BTreeMap::new();
    for (place, words) in (0_u32..).zip(args.chunks(rule.step)) {
        places
            .entry(shard_of_key(words[0]))
            .or_default()
            .push(place);
    }
    if matches!(rule.replies, Replies::OneShard) {
        return Some(match places.len() {
            1 => {
                let shard = places.keys().next().copied().unwrap_or(0);
                let frame = frame.to_vec();
                Plan::Parts(vec![Part { shard, frame }], Merge::Same)
            }
            _ => Plan::Refuse(texts::CROSSSLOT.to_vec()),
        });
    }
    let parts = places
        .iter()
        .map(|(shard, places)| Part {
            shard: *shard,
            frame: part(name, &args, rule.step, places),
        })
        .collect();
    let merge = match rule.replies {
        Replies::Values => Merge::Values(places.into_values().collect()),
        Replies::Sum => Merge::Sum,
        Replies::Same | Replies::OneShard => Merge::Same,
    };
    Some(Plan::Parts(parts, merge))
}

/// The command with the keys at `places` only.
fn part(name: &[u8], args: &[&[u8]], step: usize, places: &[u32]) -> Vec<u8> {
    let mut words = Vec::with_capacity(1 + places.len() * step);
    words.push(name);
    for place in places {
        let from = *place as usize * step;
        words.extend_from_slice(&args[from..from + step]);
    }
    let mut frame = Vec::with_capacity(words.iter().map(|word| word.len() + 16).sum());
    encode(words, &mut frame);
    frame
}
