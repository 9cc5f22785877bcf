//! Commands without keys: which shards they go to.

use super::{Merge, Plan, scan};
use crate::texts;
use resp::number::strict_i64;
use resp::request::Args;

/// Entries of `SLOWLOG GET` without a number.
const SLOWLOG_DEFAULT: usize = 10;
/// Arguments that are looked at, the name included.
const LOOKED_AT: usize = 3;
/// Longest name of a command or subcommand that has a rule here.
const NAME_MAX: usize = 16;

/// Commands that are refused here and not on one shard.
pub(crate) const REFUSED: &[&str] = &["SWAPDB"];

/// Decides where a command without keys goes. One that is not named here goes to any one shard: it
/// says nothing about data, or the shard's link refuses or answers it itself.
pub(crate) fn keyless(name: &[u8], frame: &[u8], shards: u16) -> Plan {
    let args: Vec<&[u8]> = Args::of(frame).take(LOOKED_AT).collect();
    let word = |at: usize| {
        let word = args.get(at).copied().unwrap_or_default();
        word.get(..NAME_MAX).unwrap_or(word).to_ascii_uppercase()
    };
    let name = name.get(..NAME_MAX).unwrap_or(name).to_ascii_uppercase();
    let merge = match &name[..] {
        b"SCAN" => return scan::plan(frame, shards),
        b"SELECT" => return select(args.get(1).copied()),
        other if REFUSED.iter().any(|known| known.as_bytes() == other) => {
            return Plan::Refuse(texts::refused_over_shards(&texts::shown(other)));
        }
        b"DBSIZE" => Some(Merge::Sum),
        b"KEYS" => Some(Merge::Concatenation),
        b"RANDOMKEY" => Some(Merge::AnyKey),
        b"FLUSHDB" | b"FLUSHALL" => Some(Merge::Same),
        b"WAIT" => Some(Merge::Minimum),
        b"WAITAOF" => Some(Merge::Minima),
        b"INFO" => Some(Merge::Info),
        b"SCRIPT" => script(&word(1)),
        b"FUNCTION" => function(&word(1)),
        b"PUBSUB" => pubsub(&word(1)),
        b"MEMORY" => memory(&word(1)),
        b"CONFIG" if word(1) == b"GET" => Some(Merge::Config),
        b"LATENCY" => latency(&word(1)),
        b"SLOWLOG" => log(&word(1), args.get(2).copied()),
        _ => None,
    };
    merge.map_or(Plan::Anywhere, Plan::Everywhere)
}

/// There is one numbered database over several shards.
fn select(number: Option<&[u8]>) -> Plan {
    match number.and_then(strict_i64) {
        Some(0) | None => Plan::Anywhere,
        Some(_) => Plan::Refuse(texts::SELECT_OVER_SHARDS.to_vec()),
    }
}

fn script(sub: &[u8]) -> Option<Merge> {
    match sub {
        b"LOAD" | b"FLUSH" => Some(Merge::Same),
        b"EXISTS" => Some(Merge::Minima),
        b"KILL" | b"SHOW" => Some(Merge::AnySuccess),
        _ => None,
    }
}

fn function(sub: &[u8]) -> Option<Merge> {
    match sub {
        b"LOAD" | b"DELETE" | b"FLUSH" | b"RESTORE" => Some(Merge::Same),
        b"KILL" => Some(Merge::AnySuccess),
        b"STATS" => Some(Merge::Running),
        _ => None,
    }
}

/// Who subscribes to a channel or a pattern does so on every shard: one knows all. A shard channel is on
/// the shard of its slot.
fn pubsub(sub: &[u8]) -> Option<Merge> {
    match sub {
        b"SHARDCHANNELS" => Some(Merge::Union),
        b"SHARDNUMSUB" => Some(Merge::Counts),
        _ => None,
    }
}

fn memory(sub: &[u8]) -> Option<Merge> {
    match sub {
        b"STATS" => Some(Merge::MemoryStats),
        b"DOCTOR" | b"MALLOC-STATS" => Some(Merge::Texts),
        b"PURGE" => Some(Merge::Same),
        _ => None,
    }
}

fn latency(sub: &[u8]) -> Option<Merge> {
    match sub {
        b"LATEST" => Some(Merge::LatencyLatest),
        b"HISTORY" => Some(Merge::LatencyHistory),
        b"RESET" => Some(Merge::Sum),
        _ => None,
    }
}

fn log(sub: &[u8], count: Option<&[u8]>) -> Option<Merge> {
    match sub {
        b"LEN" => Some(Merge::Sum),
        b"RESET" => Some(Merge::Same),
        b"GET" => {
            // A negative number asks for all; of what is no number an engine says so.
            let count = match count {
                None => Some(SLOWLOG_DEFAULT),
                Some(text) => strict_i64(text).and_then(|count| usize::try_from(count).ok()),
            };
            Some(Merge::Newest(count))
        }
        _ => None,
    }
}
