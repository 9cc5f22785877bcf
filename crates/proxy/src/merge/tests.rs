mod info;
mod model;
mod plans;
mod properties;
mod replies;

use super::{Merge, Plan, keyless, split};
use resp::request::encode;

const SHARDS: u16 = 4;

/// A command of these words.
fn command<W: AsRef<[u8]>>(words: &[W]) -> Vec<u8> {
    let mut frame = Vec::new();
    encode(words.iter().map(AsRef::as_ref), &mut frame);
    frame
}

/// A command of the words of a line.
fn line(line: &str) -> Vec<u8> {
    command(&line.split(' ').collect::<Vec<_>>())
}

/// The shard is the key's last byte.
fn shard_of(key: &[u8]) -> u16 {
    key.last().map_or(0, |byte| u16::from(*byte) % SHARDS)
}

/// What a command without keys becomes.
fn plan(words: &str) -> Plan {
    let name = words.split(' ').next().unwrap_or_default();
    keyless(name.as_bytes(), &line(words), SHARDS)
}

/// What a command with keys becomes.
fn taken_apart(words: &str) -> Option<Plan> {
    let name = words.split(' ').next().unwrap_or_default();
    split(name.as_bytes(), &line(words), &shard_of)
}

/// The reply that `parts` make.
fn combined<P: AsRef<[u8]>>(merge: &Merge, parts: &[P], resp: u8) -> Vec<u8> {
    let parts: Vec<&[u8]> = parts.iter().map(AsRef::as_ref).collect();
    let mut out = b"before".to_vec();
    merge.combine(&parts, resp, &mut out);
    assert!(out.starts_with(b"before"));
    out.split_off(6)
}
