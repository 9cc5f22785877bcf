//! Which shards a command goes to.

use super::{SHARDS, line, plan, taken_apart};
use crate::compatibility::is_refused;
use crate::merge::{Merge, Plan};
use resp::command::{Command, KeyRule, RequestPolicy, all};

fn parts(plan: Option<Plan>) -> (Vec<(u16, String)>, Merge) {
    let Some(Plan::Parts(parts, merge)) = plan else {
        panic!("no parts: {plan:?}");
    };
    let parts = parts
        .into_iter()
        .map(|part| (part.shard, String::from_utf8(part.frame).unwrap()))
        .collect();
    (parts, merge)
}

fn frame(words: &str) -> String {
    String::from_utf8(line(words)).unwrap()
}

#[test]
fn commands_with_keys_are_split_by_shard() {
    // '1' is on shard 1, and so on; '4' on shard 0.
    let (found, merge) = parts(taken_apart("MGET k3 k1 k4 k1 k7"));
    assert_eq!(
        found,
        [
            (0, frame("MGET k4")),
            (1, frame("MGET k1 k1")),
            (3, frame("MGET k3 k7")),
        ]
    );
    assert_eq!(merge, Merge::Values(vec![vec![2], vec![1, 3], vec![0, 4]]));
    let (found, merge) = parts(taken_apart("mset k2 a k1 b k6 c k2 d"));
    assert_eq!(
        found,
        [(1, frame("mset k1 b")), (2, frame("mset k2 a k6 c k2 d"))]
    );
    assert_eq!(merge, Merge::Same);
    for name in ["DEL", "unlink", "Exists", "TOUCH"] {
        let (found, merge) = parts(taken_apart(&format!("{name} k1 k2 k1")));
        assert_eq!(found.len(), 2, "{name}");
        assert_eq!(found[0].1, frame(&format!("{name} k1 k1")));
        assert_eq!(merge, Merge::Sum);
    }
}

#[test]
fn all_or_nothing_needs_one_shard() {
    let (found, _) = parts(taken_apart("MSETNX k1 a k5 b"));
    assert_eq!(found, [(1, frame("MSETNX k1 a k5 b"))]);
    let Some(Plan::Refuse(text)) = taken_apart("MSETNX k1 a k2 b") else {
        panic!("it is refused");
    };
    assert!(text.starts_with(b"-CROSSSLOT "));
}

#[test]
fn wrong_arguments_are_for_an_engine() {
    for wrong in ["DEL", "MGET", "MSET k1", "MSET k1 a k2", "MSETNX k1 a k2"] {
        assert_eq!(taken_apart(wrong), Some(Plan::Anywhere), "{wrong}");
    }
    assert_eq!(taken_apart("RENAME k1 k2"), None);
    assert_eq!(taken_apart("GET k1"), None);
}

#[test]
fn rules_for_commands_without_keys() {
    for (words, merge) in [
        ("DBSIZE", Merge::Sum),
        ("dbsize", Merge::Sum),
        ("KEYS *", Merge::Concatenation),
        ("RANDOMKEY", Merge::AnyKey),
        ("FLUSHALL ASYNC", Merge::Same),
        ("FLUSHDB", Merge::Same),
        ("SCRIPT LOAD x", Merge::Same),
        ("script exists a b", Merge::Minima),
        ("SCRIPT FLUSH", Merge::Same),
        ("SCRIPT KILL", Merge::AnySuccess),
        ("SCRIPT SHOW a", Merge::AnySuccess),
        ("FUNCTION LOAD REPLACE x", Merge::Same),
        ("FUNCTION KILL", Merge::AnySuccess),
        ("FUNCTION STATS", Merge::Running),
        ("PUBSUB SHARDCHANNELS", Merge::Union),
        ("PUBSUB SHARDNUMSUB a b", Merge::Counts),
        ("WAIT 1 0", Merge::Minimum),
        ("WAITAOF 0 1 0", Merge::Minima),
        ("SLOWLOG GET", Merge::Newest(Some(10))),
        ("SLOWLOG GET 3", Merge::Newest(Some(3))),
        ("SLOWLOG GET -1", Merge::Newest(None)),
        ("SLOWLOG LEN", Merge::Sum),
        ("LATENCY RESET", Merge::Sum),
        ("INFO memory", Merge::Info),
        ("CONFIG GET max*", Merge::Config),
        ("MEMORY DOCTOR", Merge::Texts),
    ] {
        assert_eq!(plan(words), Plan::Everywhere(merge), "{words}");
    }
    for words in [
        "PING", "ECHO x", "SELECT 0", "SELECT x", "SCRIPT", "NOSUCH", "SCAN",
    ] {
        assert_eq!(plan(words), Plan::Anywhere, "{words}");
    }
    for words in ["SWAPDB 0 1", "SELECT 1", "SCAN x", "SCAN -1"] {
        assert!(matches!(plan(words), Plan::Refuse(_)), "{words}");
    }
}

/// Commands without keys that one shard answers for all: what they say does not depend on data, or the
/// session, or the shard's link, has the answer.
const ANYWHERE: &[&str] = &[
    "PUBSUB CHANNELS",
    "PUBSUB NUMPAT",
    "PUBSUB NUMSUB",
    // Sessions and transactions.
    "ASKING",
    "AUTH",
    "CLIENT",
    "DISCARD",
    "ECHO",
    "EXEC",
    "HELLO",
    "MULTI",
    "PING",
    "PSUBSCRIBE",
    "PUBLISH",
    "PUNSUBSCRIBE",
    "QUIT",
    "READONLY",
    "READWRITE",
    "RESET",
    "SELECT",
    "SUBSCRIBE",
    "UNSUBSCRIBE",
    "UNWATCH",
    "MONITOR",
    "ACL WHOAMI",
    "CONFIG SET",
    // First words of HTTP.
    "HOST:",
    "POST",
    // The same on all shards.
    "COMMAND",
    "LOLWUT",
    "ROLE",
    "TIME",
    "FUNCTION DUMP",
    "FUNCTION LIST",
    // A cursor is missing; no subcommand.
    "SCAN",
    "ACL",
    "COMMANDLOG",
    "CONFIG",
    "FUNCTION",
    "LATENCY",
    "MEMORY",
    "MODULE",
    "OBJECT",
    "PUBSUB",
    "SCRIPT",
    "SLOWLOG",
    "XGROUP",
    "XINFO",
];

/// A command that comes with a newer engine fails here until it is decided what becomes of it.
#[test]
fn every_command_without_keys_is_decided() {
    let mut seen = 0;
    for command in all() {
        decided(command, command.name, &mut seen);
        for sub in command.subcommands {
            decided(sub, &format!("{} {}", command.name, sub.name), &mut seen);
        }
    }
    assert!(seen > 100, "{seen}");
}

fn decided(command: &Command, words: &str, seen: &mut usize) {
    if command.keys != KeyRule::Keyless {
        return;
    }
    *seen += 1;
    let (outer, sub) = match words.split_once(' ') {
        Some((outer, sub)) => (outer, Some(sub)),
        None => (words, None),
    };
    // What is refused, the shard's link refuses.
    let listed = ANYWHERE.contains(&words)
        || is_refused(outer, sub)
        || ["CLIENT", "COMMAND"].contains(&outer)
        || words.ends_with(" HELP");
    match plan(words) {
        Plan::Anywhere => assert!(listed, "{words} is not decided"),
        _ => assert!(!listed, "{words} is in the list for no reason"),
    }
    // What the engines' own cluster clients send to all shards goes to all here.
    if command.request == RequestPolicy::AllShards && !listed {
        assert!(matches!(plan(words), Plan::Everywhere(_)), "{words}");
    }
}

#[test]
fn a_cursor_is_taken_apart() {
    let Plan::Parts(parts, merge) = plan("SCAN 46 MATCH a* COUNT 5") else {
        panic!("it goes to one shard");
    };
    assert_eq!(parts.len(), 1);
    assert_eq!(parts[0].shard, 2);
    assert_eq!(parts[0].frame, line("SCAN 11 MATCH a* COUNT 5"));
    let (shard, shards) = (2, SHARDS);
    assert_eq!(merge, Merge::Scan { shard, shards });
    assert!(matches!(plan("SCAN 18446744073709551615"), Plan::Parts(..)));
    assert_eq!(
        plan("SCAN 18446744073709551616"),
        Plan::Refuse(b"-ERR invalid cursor\r\n".to_vec())
    );
}
