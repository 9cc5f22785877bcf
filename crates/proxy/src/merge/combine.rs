//! The replies of the shards become one.

use super::{Merge, info, latency, memory, scan, walk};
use rand::Rng;
use resp::reply::simple_run;
use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};

const DIFFERENT: &[u8] =
    b"-ERR the shards of this database answered in different ways; repeat the command\r\n";
const UNREADABLE: &[u8] = b"-ERR the replies of this database's shards cannot be put together\r\n";
/// What `SCRIPT KILL` says on a shard where nothing runs.
const NOT_BUSY: &[u8] = b"-NOTBUSY ";

impl Merge {
    /// Appends one reply. `parts` are the shards' replies, whole, in the order of the parts (or of the
    /// shards), in version `resp` of the protocol (2 or 3), in which the client gets its reply too.
    /// Bytes that are no such replies give an error. Attributes of a part are left out.
    pub(crate) fn combine(&self, parts: &[&[u8]], resp: u8, out: &mut Vec<u8>) {
        let start = out.len();
        let bare: Vec<&[u8]>;
        let parts = if parts.iter().any(|part| part.starts_with(b"|")) {
            bare = parts.iter().map(|part| walk::bare(part)).collect();
            &bare
        } else {
            parts
        };
        if self.try_combine(parts, resp, out).is_none() {
            out.truncate(start);
            out.extend_from_slice(UNREADABLE);
        }
    }

    fn try_combine(&self, parts: &[&[u8]], resp: u8, out: &mut Vec<u8>) -> Option<()> {
        let tells = |part: &&&[u8]| match self {
            Self::AnySuccess => false,
            _ => walk::is_error(part),
        };
        if let Some(error) = parts.iter().find(tells) {
            return copy(error, out);
        }
        match self {
            Self::Same => same(parts, out),
            Self::AnySuccess => {
                let success = parts.iter().find(|part| !walk::is_error(part));
                // A script that cannot be killed says more than a shard where none runs.
                let busy = || parts.iter().find(|part| !part.starts_with(NOT_BUSY));
                copy(success.or_else(busy).or(parts.first())?, out)
            }
            Self::Sum => number(parts, out, i64::saturating_add),
            Self::Minimum => number(parts, out, i64::min),
            Self::Minima => minima(parts, out),
            Self::Values(places) => values(parts, places, out),
            Self::Concatenation => concatenation(parts, out),
            Self::Union => union(parts, out),
            Self::Counts => counts(parts, out),
            Self::AnyKey => any_key(parts, out),
            Self::Newest(count) => newest(parts, *count, out),
            Self::Scan { shard, shards } => scan::combine(parts.first()?, *shard, *shards, out),
            Self::Texts => texts(parts, out),
            Self::Info => info::combine(parts, out),
            Self::Config => memory::config(parts, out),
            Self::MemoryStats => memory::stats(parts, resp, out),
            Self::Running => running(parts, out),
            Self::LatencyLatest => latency::latest(parts, resp, out),
            Self::LatencyHistory => latency::history(parts, resp, out),
        }
    }
}

/// Appends a reply as it is.
fn copy(reply: &[u8], out: &mut Vec<u8>) -> Option<()> {
    if !walk::is_whole(reply) {
        return None;
    }
    out.extend_from_slice(reply);
    Some(())
}

fn same(parts: &[&[u8]], out: &mut Vec<u8>) -> Option<()> {
    let (first, others) = parts.split_first()?;
    if others.iter().all(|other| other == first) {
        copy(first, out)
    } else {
        out.extend_from_slice(DIFFERENT);
        Some(())
    }
}

fn number(parts: &[&[u8]], out: &mut Vec<u8>, join: fn(i64, i64) -> i64) -> Option<()> {
    let numbers: Option<Vec<i64>> = parts.iter().map(|part| walk::integer(part)).collect();
    walk::number(numbers?.into_iter().reduce(join)?, out);
    Some(())
}

fn minima(parts: &[&[u8]], out: &mut Vec<u8>) -> Option<()> {
    let mut least: Option<Vec<i64>> = None;
    for part in parts {
        let numbers: Option<Vec<i64>> = walk::items(part)?.into_iter().map(walk::integer).collect();
        let numbers = numbers?;
        least = Some(match least {
            None => numbers,
            Some(least) if least.len() == numbers.len() => {
                let pairs = least.into_iter().zip(numbers);
                pairs.map(|(one, other)| one.min(other)).collect()
            }
            Some(_) => return None,
        });
    }
    let least = least?;
    walk::open(b'*', least.len(), out);
    for value in least {
        walk::number(value, out);
    }
    Some(())
}

fn values(parts: &[&[u8]], places: &[Vec<u32>], out: &mut Vec<u8>) -> Option<()> {
    if parts.len() != places.len() {
        return None;
    }
    let total = places.iter().map(Vec::len).sum();
    let mut all: Vec<&[u8]> = vec![&[]; total];
    for (part, places) in parts.iter().zip(places) {
        let items = walk::items(part)?;
        if items.len() != places.len() {
            return None;
        }
        for (item, place) in items.into_iter().zip(places) {
            *all.get_mut(*place as usize)? = item;
        }
    }
    out.reserve(parts.iter().map(|part| part.len()).sum());
    array(&all, out);
    Some(())
}

fn array(items: &[&[u8]], out: &mut Vec<u8>) {
    walk::open(b'*', items.len(), out);
    for item in items {
        out.extend_from_slice(item);
    }
}

/// There may be millions of elements, so they are counted, not collected.
fn concatenation(parts: &[&[u8]], out: &mut Vec<u8>) -> Option<()> {
    let mut total = 0_usize;
    for part in parts {
        let (count, rest) = walk::aggregate(part)?;
        let (length, counted, _) = simple_run(rest, u32::MAX);
        let simple = counted as usize == count && length == rest.len();
        if !simple && !walk::is_whole(part) {
            return None;
        }
        total = total.checked_add(count)?;
    }
    out.reserve(parts.iter().map(|part| part.len()).sum());
    walk::open(b'*', total, out);
    for part in parts {
        out.extend_from_slice(walk::aggregate(part)?.1);
    }
    Some(())
}

fn union(parts: &[&[u8]], out: &mut Vec<u8>) -> Option<()> {
    let mut known = HashSet::new();
    let mut all = Vec::new();
    for part in parts {
        all.extend(
            walk::items(part)?
                .into_iter()
                .filter(|item| known.insert(*item)),
        );
    }
    array(&all, out);
    Some(())
}

fn counts(parts: &[&[u8]], out: &mut Vec<u8>) -> Option<()> {
    let mut places: HashMap<&[u8], usize> = HashMap::new();
    let mut sums: Vec<(&[u8], i64)> = Vec::new();
    let kind = *parts.first()?.first()?;
    for (at, part) in parts.iter().enumerate() {
        let items = walk::items(part)?;
        let (pairs, []) = items.as_chunks::<2>() else {
            return None;
        };
        // A name that was asked for twice is there twice, in every reply at the same places.
        for (place, [name, count]) in pairs.iter().enumerate() {
            let count = walk::integer(count)?;
            let found = match sums.get(place) {
                Some((known, _)) if at > 0 && known == name => Some(place),
                _ if at > 0 => places.get(name).copied(),
                _ => None,
            };
            match found.and_then(|found| sums.get_mut(found)) {
                Some((_, sum)) => *sum = sum.saturating_add(count),
                None => {
                    places.entry(name).or_insert(sums.len());
                    sums.push((name, count));
                }
            }
        }
    }
    let headed = if kind == b'%' {
        sums.len()
    } else {
        sums.len() * 2
    };
    walk::open(kind, headed, out);
    for (name, sum) in sums {
        out.extend_from_slice(name);
        walk::number(sum, out);
    }
    Some(())
}

fn any_key(parts: &[&[u8]], out: &mut Vec<u8>) -> Option<()> {
    let keys: Vec<&&[u8]> = parts.iter().filter(|part| !walk::is_null(part)).collect();
    match keys.len() {
        0 => copy(parts.first()?, out),
        count => copy(keys[rand::rng().random_range(0..count)], out),
    }
}

/// Entries are arrays whose second element is their time in seconds; every shard has its newest first.
fn newest(parts: &[&[u8]], count: Option<usize>, out: &mut Vec<u8>) -> Option<()> {
    let mut entries: Vec<(i64, &[u8])> = Vec::new();
    for part in parts {
        for entry in walk::items(part)? {
            let time = walk::integer(walk::items(entry)?.get(1)?)?;
            entries.push((time, entry));
        }
    }
    entries.sort_by_key(|(time, _)| Reverse(*time));
    entries.truncate(count.unwrap_or(usize::MAX));
    let entries: Vec<&[u8]> = entries.into_iter().map(|(_, entry)| entry).collect();
    array(&entries, out);
    Some(())
}

fn texts(parts: &[&[u8]], out: &mut Vec<u8>) -> Option<()> {
    let mut whole = Vec::new();
    let mut kind = None;
    for (shard, part) in parts.iter().enumerate() {
        let (found, text) = walk::body(part)?;
        kind = kind.or(Some(found));
        if !whole.is_empty() {
            whole.push(b'\n');
        }
        whole.extend_from_slice(format!("# Shard {}\n", shard + 1).as_bytes());
        whole.extend_from_slice(text);
        if !text.ends_with(b"\n") {
            whole.push(b'\n');
        }
    }
    let Some(kind) = kind else {
        return copy(parts.first()?, out);
    };
    walk::text(kind, &whole, out);
    Some(())
}

fn running(parts: &[&[u8]], out: &mut Vec<u8>) -> Option<()> {
    let mut chosen = None;
    for part in parts {
        let items = walk::items(part)?;
        let (pairs, []) = items.as_chunks::<2>() else {
            return None;
        };
        let runs = pairs.iter().any(|[name, value]| {
            walk::bulk(name) == Some(b"running_script") && !walk::is_null(value)
        });
        if runs {
            chosen = chosen.or(Some(part));
        }
    }
    copy(chosen.or(parts.first())?, out)
}
