//! `MEMORY STATS`, and `CONFIG GET`, which says how much memory the database may use.

use super::latency::decode;
use super::walk;
use resp::value::Value;

/// Settings of the first shard; `maxmemory` is the sum, 0 (no limit) if a shard has none.
pub(super) fn config(parts: &[&[u8]], out: &mut Vec<u8>) -> Option<()> {
    let (first, _) = parts.split_first()?;
    let items = walk::items(first)?;
    let (pairs, []) = items.as_chunks::<2>() else {
        return None;
    };
    let kind = *first.first()?;
    walk::open(
        kind,
        if kind == b'%' {
            pairs.len()
        } else {
            items.len()
        },
        out,
    );
    for [name, value] in pairs {
        out.extend_from_slice(name);
        match walk::bulk(name) {
            Some(b"maxmemory") => walk::text(b'$', max_memory(parts)?.to_string().as_bytes(), out),
            _ => out.extend_from_slice(value),
        }
    }
    Some(())
}

fn max_memory(parts: &[&[u8]]) -> Option<u64> {
    let mut sum = 0_u64;
    for part in parts {
        let items = walk::items(part)?;
        let [_, value] = items
            .as_chunks::<2>()
            .0
            .iter()
            .find(|[name, _]| walk::bulk(name) == Some(b"maxmemory"))?;
        let limit: u64 = std::str::from_utf8(walk::bulk(value)?).ok()?.parse().ok()?;
        if limit == 0 {
            return Some(0);
        }
        sum = sum.saturating_add(limit);
    }
    Some(sum)
}

/// Numbers are added. What depends on others is computed from their sums; other fractions are the
/// mean, weighted with the memory of the shards.
pub(super) fn stats(parts: &[&[u8]], resp: u8, out: &mut Vec<u8>) -> Option<()> {
    let parts: Vec<Value> = parts
        .iter()
        .map(|part| decode(part))
        .collect::<Option<_>>()?;
    let weights: Vec<f64> = parts
        .iter()
        .map(|part| number(part, "total.allocated").unwrap_or(1.0))
        .collect();
    let mut merged = merge(&parts.iter().collect::<Vec<_>>(), &weights)?;
    for (field, derive) in DERIVED {
        derive_field(&mut merged, field, *derive);
    }
    Value::Map(merged).write(resp, out);
    Some(())
}

type Derive = fn(&dyn Fn(&str) -> Option<f64>) -> Option<f64>;

/// Fields that follow from others, as the engines compute them.
const DERIVED: &[(&str, Derive)] = &[
    ("keys.bytes-per-key", |of| {
        let used = of("total.allocated")? - of("startup.allocated")?;
        Some(used.max(0.0) / of("keys.count")?)
    }),
    ("dataset.percentage", |of| {
        let used = of("total.allocated")? - of("startup.allocated")?;
        Some(of("dataset.bytes")? * 100.0 / used)
    }),
    ("peak.percentage", |of| {
        Some(of("total.allocated")? * 100.0 / of("peak.allocated")?)
    }),
];

fn derive_field(merged: &mut [(Value, Value)], field: &str, derive: Derive) {
    let of = |name: &str| {
        let found = merged.iter().find(|(key, _)| is(key, name))?;
        amount(&found.1)
    };
    let Some(value) = derive(&of).filter(|value| value.is_finite()) else {
        return;
    };
    if let Some((_, known)) = merged.iter_mut().find(|(key, _)| is(key, field)) {
        *known = match known {
            Value::Integer(_) => Value::Integer(value as i64),
            Value::Double(_) => Value::Double(value.to_string().into_bytes()),
            _ => Value::Bulk(value.to_string().into_bytes()),
        };
    }
}

fn is(key: &Value, name: &str) -> bool {
    key.text() == Some(name.as_bytes())
}

fn number(map: &Value, name: &str) -> Option<f64> {
    let pairs = map.pairs();
    let (_, value) = pairs.iter().find(|(key, _)| is(key, name))?;
    amount(value)
}

fn amount(value: &Value) -> Option<f64> {
    match value {
        Value::Integer(number) => Some(*number as f64),
        Value::Double(text) | Value::Bulk(text) => std::str::from_utf8(text)
            .ok()?
            .parse()
            .ok()
            .filter(|number: &f64| number.is_finite()),
        _ => None,
    }
}

/// Merges maps field by field, in the order in which the fields appear first.
fn merge(maps: &[&Value], weights: &[f64]) -> Option<Vec<(Value, Value)>> {
    let mut merged: Vec<(Value, Vec<&Value>, Vec<f64>)> = Vec::new();
    for (map, weight) in maps.iter().zip(weights) {
        if !matches!(map, Value::Map(_) | Value::Array(_)) {
            return None;
        }
        for (key, value) in map.pairs() {
            match merged.iter_mut().find(|(known, ..)| known == key) {
                Some((_, values, weights)) => {
                    values.push(value);
                    weights.push(*weight);
                }
                None => merged.push((key.clone(), vec![value], vec![*weight])),
            }
        }
    }
    merged
        .into_iter()
        .map(|(key, values, weights)| Some((key, one(&values, &weights)?)))
        .collect()
}

fn one(values: &[&Value], weights: &[f64]) -> Option<Value> {
    let first = *values.first()?;
    Some(match first {
        Value::Map(_) | Value::Array(_) => Value::Map(merge(values, weights)?),
        Value::Integer(_) => {
            let numbers = values.iter().map(|value| match value {
                Value::Integer(number) => *number,
                _ => 0,
            });
            Value::Integer(numbers.fold(0, i64::saturating_add))
        }
        Value::Double(_) | Value::Bulk(_) => {
            let known = values
                .iter()
                .zip(weights)
                .filter_map(|(value, weight)| Some((amount(value)?, *weight)));
            let (sum, weight) = known.fold((0.0, 0.0), |(sum, all), (value, weight)| {
                (sum + value * weight, all + weight)
            });
            let mean = sum / weight;
            match first {
                _ if !mean.is_finite() => first.clone(),
                Value::Double(_) => Value::Double(mean.to_string().into_bytes()),
                _ => Value::Bulk(mean.to_string().into_bytes()),
            }
        }
        other => other.clone(),
    })
}
