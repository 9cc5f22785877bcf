//! `LATENCY LATEST` and `HISTORY`.

use resp::value::Value;
use std::collections::BTreeMap;

/// Samples of an event that an engine keeps.
const HISTORY_MAX: usize = 160;

/// The whole reply as a value.
pub(super) fn decode(reply: &[u8]) -> Option<Value> {
    let (value, used) = Value::decode(reply).ok()?;
    (used == reply.len()).then_some(value)
}

fn array(reply: &[u8]) -> Option<Vec<Value>> {
    match decode(reply)? {
        Value::Array(items) => Some(items),
        _ => None,
    }
}

fn integer(value: &Value) -> Option<i64> {
    match value {
        Value::Integer(number) => Some(*number),
        _ => None,
    }
}

/// An entry for each event: name, time, latest, highest, and in newer engines sum and number of the
/// samples. Time and latest are those of the shard where it happened last.
pub(super) fn latest(parts: &[&[u8]], resp: u8, out: &mut Vec<u8>) -> Option<()> {
    let mut events: Vec<(Vec<u8>, Vec<i64>)> = Vec::new();
    for part in parts {
        for event in array(part)? {
            let Value::Array(fields) = event else {
                return None;
            };
            let (name, numbers) = fields.split_first()?;
            let name = name.text()?.to_vec();
            let numbers: Vec<i64> = numbers.iter().map(integer).collect::<Option<_>>()?;
            if numbers.len() < 3 {
                return None;
            }
            match events.iter_mut().find(|(known, _)| *known == name) {
                Some((_, known)) => join(known, &numbers),
                None => events.push((name, numbers)),
            }
        }
    }
    let entries = events.into_iter().map(|(name, numbers)| {
        let numbers = numbers.into_iter().map(Value::Integer);
        Value::Array(std::iter::once(Value::Bulk(name)).chain(numbers).collect())
    });
    Value::Array(entries.collect()).write(resp, out);
    Some(())
}

fn join(known: &mut [i64], other: &[i64]) {
    if other[0] > known[0] {
        known[..2].copy_from_slice(&other[..2]);
    }
    known[2] = known[2].max(other[2]);
    for (sum, more) in known.iter_mut().zip(other).skip(3) {
        *sum = sum.saturating_add(*more);
    }
}

/// Pairs of a second and the highest latency in it, oldest first; the newest 160, as an engine has.
pub(super) fn history(parts: &[&[u8]], resp: u8, out: &mut Vec<u8>) -> Option<()> {
    let mut samples: BTreeMap<i64, i64> = BTreeMap::new();
    for part in parts {
        for sample in array(part)? {
            let Value::Array(sample) = sample else {
                return None;
            };
            let [time, latency] = sample.as_slice() else {
                return None;
            };
            let (time, latency) = (integer(time)?, integer(latency)?);
            let highest = samples.entry(time).or_insert(latency);
            *highest = latency.max(*highest);
        }
    }
    let surplus = samples.len().saturating_sub(HISTORY_MAX);
    let pairs = samples
        .into_iter()
        .skip(surplus)
        .map(|(time, latency)| Value::Array(vec![Value::Integer(time), Value::Integer(latency)]));
    Value::Array(pairs.collect()).write(resp, out);
    Some(())
}
