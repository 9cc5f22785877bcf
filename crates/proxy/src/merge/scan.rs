//! `SCAN` over several shards, one after the other.
//!
//! The client's cursor is `cursor at the shard * shards + shard`; that of the shard tells under which epoch it was given
//! ([`crate::cursor`]). A shard that is done is followed by the
//! next one from its start (cursor 0); 0 as a whole begins with the first shard, and ends. So each
//! shard is scanned from 0 to 0, and what the engine promises of a scan holds for all keys.

use super::{Merge, Part, Plan, walk};
use crate::cursor::number;
use resp::request::{Args, encode};

const BAD_CURSOR: &[u8] = b"-ERR invalid cursor\r\n";
const TOO_LARGE: &[u8] =
    b"-ERR the shard's cursor is too large for a database with several shards\r\n";

/// Takes the client's cursor apart.
pub(super) fn plan(frame: &[u8], shards: u16) -> Plan {
    let mut words: Vec<&[u8]> = Args::of(frame).collect();
    let Some(text) = words.get(1) else {
        return Plan::Anywhere;
    };
    let Some(cursor) = number(text) else {
        return Plan::Refuse(BAD_CURSOR.to_vec());
    };
    let count = u64::from(shards.max(1));
    let shard = u16::try_from(cursor % count).unwrap_or(0);
    let engine = (cursor / count).to_string();
    words[1] = engine.as_bytes();
    let mut frame = Vec::with_capacity(frame.len());
    encode(words, &mut frame);
    Plan::Parts(vec![Part { shard, frame }], Merge::Scan { shard, shards })
}

/// Puts the client's cursor into the shard's reply.
pub(super) fn combine(reply: &[u8], shard: u16, shards: u16, out: &mut Vec<u8>) -> Option<()> {
    let (2, rest) = walk::aggregate(reply)? else {
        return None;
    };
    let (first, keys) = rest.split_at_checked(walk::length(rest)?)?;
    if !walk::is_whole(keys) {
        return None;
    }
    let engine = number(walk::bulk(first)?)?;
    let next = match engine {
        0 if shard.saturating_add(1) < shards => Some(u64::from(shard) + 1),
        0 => Some(0),
        _ => engine
            .checked_mul(u64::from(shards.max(1)))
            .and_then(|cursor| cursor.checked_add(u64::from(shard))),
    };
    let Some(next) = next else {
        out.extend_from_slice(TOO_LARGE);
        return Some(());
    };
    walk::open(b'*', 2, out);
    walk::text(b'$', next.to_string().as_bytes(), out);
    out.extend_from_slice(keys);
    Some(())
}
