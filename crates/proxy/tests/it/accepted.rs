//! `COMMAND` tells the truth about an endpoint: each command that it names is accepted there, each one that it
//! leaves out of the engine's is refused by name.

use crate::support::client::{Client, command, words};
use crate::support::node::{Node, VALKEY};
use crate::support::process;
use resp::value::Value;
use std::collections::{BTreeMap, BTreeSet};

const ENGINES: [&str; 4] = ["redis-6.2.", "redis-7.0.", "valkey-8.0.", VALKEY];
const MIB: u64 = 1024 * 1024;

fn text(value: &Value) -> String {
    String::from_utf8_lossy(value.text().unwrap()).into_owned()
}

fn array(value: Value) -> Vec<Value> {
    match value {
        Value::Array(items) | Value::Set(items) => items,
        other => panic!("no array: {other:?}"),
    }
}

/// Names and least numbers of words of the rows, those of subcommands too: `config|get`.
fn rows(reply: Value) -> BTreeMap<String, usize> {
    let mut found = BTreeMap::new();
    for row in array(reply) {
        let mut fields = array(row);
        let Value::Integer(arity) = fields[1] else {
            panic!("no arity: {fields:?}");
        };
        let arity = usize::try_from(arity.unsigned_abs()).unwrap();
        assert!(found.insert(text(&fields[0]), arity).is_none());
        if fields.len() > 9 {
            found.extend(rows(fields.swap_remove(9)));
        }
    }
    found
}

/// Names of `COMMAND DOCS`, those of subcommands too.
fn documented(reply: &Value) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (name, doc) in reply.pairs() {
        assert!(found.insert(text(name)));
        for (key, value) in doc.pairs() {
            if key.text() == Some(b"subcommands") {
                found.extend(documented(value));
            }
        }
    }
    found
}

/// Whether a command is refused by name, with as many arguments as it has at least.
fn is_refused(node: &Node, name: &str, arity: usize) -> bool {
    let mut line: Vec<&[u8]> = name.split('|').map(str::as_bytes).collect();
    line.resize(arity.max(line.len()), b"x");
    let mut client = node.client();
    client.send(&command(&line));
    let Some(raw) = client.try_raw() else {
        // First words of HTTP, on which the engine ends the connection too.
        assert!(["host:", "post"].contains(&name), "{name}");
        return false;
    };
    let reply = String::from_utf8_lossy(&raw);
    assert!(!reply.starts_with("-NOPERM"), "{name}: {reply}");
    reply.contains(" is not available")
}

/// Whether a container is refused with each of its subcommands: an engine that does not list them has one rule
/// for most of them.
fn all_refused(node: &Node, name: &str) -> bool {
    let known = resp::command::find(name.as_bytes()).unwrap();
    known.subcommands.iter().all(|sub| {
        let full = format!("{name}|{}", sub.name);
        is_refused(node, &full, usize::from(sub.arity.unsigned_abs()))
    })
}

fn check(engine: &'static str, node: &Node) {
    let all = rows(node.direct().ask("COMMAND"));
    let mut client = node.client();
    for hello in ["HELLO 2", "HELLO 3"] {
        client.text(hello);
        let shown = rows(client.ask("COMMAND"));
        let mut wrong = Vec::new();
        for (name, arity) in &all {
            let container = !name.contains('|')
                && resp::command::find(name.as_bytes())
                    .is_some_and(|known| !known.subcommands.is_empty());
            // It is taken for one setting alone, see `wishes.rs`.
            let set = name == "config|set";
            let refused = if container {
                all_refused(node, name)
            } else {
                is_refused(node, name, *arity) && !set
            };
            if refused == shown.contains_key(name) {
                wrong.push(format!("{name}: refused is {refused}"));
            }
        }
        assert!(wrong.is_empty(), "{engine} {hello}: {wrong:#?}");
        assert!(shown.iter().all(|(name, arity)| all[name] == *arity));
        assert!(!shown.contains_key("shutdown") && shown.contains_key("get"));
        the_other_forms(engine, &mut client, &all, &shown);
    }
}

/// All forms of `COMMAND` say the same.
fn the_other_forms(
    engine: &str,
    client: &mut Client,
    all: &BTreeMap<String, usize>,
    shown: &BTreeMap<String, usize>,
) {
    let top = |names: &BTreeMap<String, usize>| {
        let top = names.keys().filter(|name| !name.contains('|'));
        i64::try_from(top.count()).unwrap()
    };
    let count = Value::Integer(top(shown));
    assert_eq!(client.ask("COMMAND COUNT"), count);
    let old = engine.starts_with("redis-6");
    let names: Vec<&str> = all.keys().map(String::as_str).collect();
    for name in &names {
        let row = array(client.ask(&format!("COMMAND INFO {name}"))).remove(0);
        // The old engine has no rows of subcommands.
        let there = shown.contains_key(*name);
        assert_eq!(row != Value::Null, there, "{engine}: {name}");
        if there {
            let subs = rows(Value::Array(vec![row]));
            assert!(subs.iter().all(|(name, arity)| shown[name] == *arity));
        }
    }
    // In a transaction, in their places.
    client.send(&words("MULTI"));
    for line in ["COMMAND COUNT", "PING", "COMMAND INFO shutdown get"] {
        client.send(&words(line));
    }
    client.send(&words("EXEC"));
    for wanted in ["+OK\r\n", "+QUEUED\r\n", "+QUEUED\r\n", "+QUEUED\r\n"] {
        assert_eq!(client.raw(), wanted.as_bytes());
    }
    let mut done = array(client.reply());
    let mut asked = array(done.remove(2));
    assert_eq!((&done[0], &asked[0]), (&count, &Value::Null));
    assert!(rows(Value::Array(vec![asked.remove(1)])).contains_key("get"));
    assert_eq!(
        client.text("COMMAND GETKEYS MSET a 1 b 2"),
        "*2\r\n$1\r\na\r\n$1\r\nb\r\n"
    );
    if old {
        assert_eq!(client.ask("COMMAND INFO"), Value::Array(Vec::new()));
        return;
    }
    let keys = || shown.keys().cloned().collect::<BTreeSet<_>>();
    assert_eq!(rows(client.ask("COMMAND INFO")), *shown);
    let listed = array(client.ask("COMMAND LIST"));
    let listed: BTreeSet<String> = listed.iter().map(text).collect();
    assert_eq!(listed, keys());
    let some = array(client.ask("COMMAND LIST FILTERBY PATTERN c*"));
    let some: BTreeSet<String> = some.iter().map(text).collect();
    let wanted = keys().into_iter().filter(|name| name.starts_with('c'));
    assert_eq!(some, wanted.collect());
    assert_eq!(documented(&client.ask("COMMAND DOCS")), keys());
    let docs = client.ask("COMMAND DOCS shutdown config get");
    let wanted = keys().into_iter().filter(|name| {
        let outer = name.split('|').next().unwrap();
        ["config", "get"].contains(&outer)
    });
    assert_eq!(documented(&docs), wanted.collect());
}

#[test]
fn one_shard() {
    for engine in ENGINES {
        check(engine, &Node::with(engine, |_| {}));
    }
}

#[test]
fn several_shards() {
    for engine in ENGINES {
        check(engine, &Node::sharded(engine, 3));
    }
}

/// Who asks for more than is looked into gets an error. Nobody else notices.
#[test]
fn a_reply_without_end() {
    let node = Node::start();
    let (mut asker, mut other) = (node.client(), node.client());
    let before = process::memory(node.server(), "VmRSS:");
    let names = " client".repeat(5_000);
    for line in ["COMMAND DOCS", "COMMAND INFO"] {
        asker.send(&words(&format!("{line}{names}")));
        other.send(&words("PING").repeat(100));
        let reply = asker.text("PING again");
        assert!(
            reply.starts_with("-ERR the shard's reply cannot"),
            "{reply}"
        );
        assert_eq!(asker.raw(), b"$5\r\nagain\r\n");
        for _ in 0..100 {
            assert_eq!(other.raw(), b"+PONG\r\n");
        }
    }
    let peak = process::memory(node.server(), "VmHWM:");
    assert!(peak < before + 24 * MIB, "{before} before, {peak} at most");
    assert!(array(asker.ask("COMMAND LIST")).len() > 300);
}
