//! Every command and subcommand that an engine lists, with plausible and with wrong arguments: no
//! reply ever tells the name of the proxy's user, and every command gets its reply.

use crate::support::client::{Client, command};
use crate::support::engine::USER;
use crate::support::node::{Node, VALKEY};
use proxy::compatibility::{Kind, difference};
use resp::value::Value;

/// Arguments to try. One of them fits nearly every command, the others are wrong.
const ARGUMENTS: &[&[&str]] = &[
    &[],
    &["x"],
    &["k", "1"],
    &["k", "x", "1"],
    &["0", "k", "1"],
    &["1", "k"],
    &["k", "0", "1", "x"],
    &["k", "0", "0", "1", "2", "3"],
    &["1", "1", "1", "1", "1", "1", "1", "1"],
];

/// These end or change the connection, or wait: they are tried elsewhere.
const LEFT_OUT: &[&str] = &[
    "host:",
    "post",
    "quit",
    "reset",
    "monitor",
    "hello",
    "client|reply",
    "subscribe",
    "psubscribe",
    "ssubscribe",
    "unsubscribe",
    "punsubscribe",
    "sunsubscribe",
    "client|kill",
];

fn text(value: &Value) -> String {
    String::from_utf8_lossy(value.text().unwrap_or_default()).into_owned()
}

/// Subcommands of engines that do not list them.
const OLD: &[(&str, &[&str])] = &[
    (
        "acl",
        &[
            "help", "whoami", "list", "users", "cat", "genpass", "log", "getuser", "setuser",
        ],
    ),
    (
        "client",
        &[
            "help", "id", "info", "list", "getname", "setname", "tracking", "caching", "pause",
            "unpause", "unblock",
        ],
    ),
    ("config", &["help", "get", "set", "rewrite", "resetstat"]),
    (
        "latency",
        &["help", "doctor", "graph", "latest", "history", "reset"],
    ),
    (
        "memory",
        &["help", "doctor", "stats", "usage", "purge", "malloc-stats"],
    ),
    ("module", &["help", "list", "load", "unload"]),
    (
        "object",
        &["help", "encoding", "freq", "idletime", "refcount"],
    ),
    ("pubsub", &["help", "channels", "numsub", "numpat"]),
    (
        "script",
        &["help", "load", "exists", "flush", "kill", "debug"],
    ),
    ("slowlog", &["help", "get", "len", "reset", "nosuch"]),
    ("xgroup", &["help", "create", "destroy"]),
    ("xinfo", &["help", "stream", "groups"]),
    ("cluster", &["help", "info", "slots", "nodes"]),
];

/// Names as words: `["client", "list"]`.
fn commands(direct: &mut Client) -> Vec<Vec<String>> {
    let Value::Array(rows) = direct.ask("COMMAND") else {
        panic!("COMMAND answers with an array");
    };
    let mut found = Vec::new();
    for row in rows {
        let Value::Array(fields) = row else { continue };
        let name = text(&fields[0]);
        let mut subs: Vec<String> = match fields.get(9) {
            Some(Value::Array(subs)) => subs
                .iter()
                .filter_map(|sub| match sub {
                    Value::Array(fields) => Some(text(&fields[0])),
                    _ => None,
                })
                .collect(),
            _ => Vec::new(),
        };
        if subs.is_empty()
            && let Some((_, old)) = OLD.iter().find(|(known, _)| *known == name)
        {
            subs = old.iter().map(|sub| format!("{name}|{sub}")).collect();
        }
        subs.push(name);
        found.extend(
            subs.into_iter()
                .filter(|full| !LEFT_OUT.contains(&full.as_str()))
                .map(|full| full.split('|').map(str::to_owned).collect::<Vec<_>>()),
        );
    }
    assert!(found.len() > 250, "{found:?}");
    found
}

/// The command with all arguments: alone, in a script, in a transaction.
fn pipeline(name: &[String], number: usize) -> (Vec<u8>, String) {
    let mut sent = Vec::new();
    let lines: Vec<Vec<&str>> = ARGUMENTS
        .iter()
        .map(|arguments| {
            let words = name.iter().map(String::as_str);
            words.chain(arguments.iter().copied()).collect()
        })
        .collect();
    for words in &lines {
        let bytes: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
        // What opens a transaction is closed again; what blocks is let go by the second client.
        sent.push(command(&bytes));
    }
    let mut pipeline = sent.concat();
    let words: Vec<&[u8]> = name.iter().map(|word| word.as_bytes()).collect();
    let mut script: Vec<&[u8]> = vec![b"EVAL", b"return redis.pcall(unpack(ARGV))", b"0"];
    script.extend(&words);
    pipeline.extend(command(&script));
    pipeline.extend(command(&[b"DISCARD"]));
    pipeline.extend(command(&[b"MULTI"]));
    pipeline.extend(sent.concat());
    pipeline.extend(command(&[b"EXEC"]));
    pipeline.extend(command(&[b"DISCARD"]));
    pipeline.extend(command(&[b"RESET"]));
    let token = format!("end{number}");
    pipeline.extend(command(&[b"ECHO", token.as_bytes()]));
    (pipeline, token)
}

fn walk(engine: &'static str) {
    let node = Node::with(engine, |_| {});
    let all = commands(&mut node.direct());
    let mut leaks = Vec::new();
    for (number, name) in all.iter().enumerate() {
        let (pipeline, token) = pipeline(name, number);
        let mut client = node.client();
        client.send(&pipeline);
        let end = format!("${}\r\n{token}\r\n", token.len()).into_bytes();
        let mut helper = None;
        loop {
            client
                .stream
                .set_read_timeout(Some(std::time::Duration::from_millis(60)))
                .unwrap();
            let mut byte = [0];
            if client.waiting() == 0 && client.stream.peek(&mut byte).is_err() {
                // It blocks: another client frees it.
                let helper = helper.get_or_insert_with(|| node.client());
                let id = helper.text("CLIENT LIST");
                for line in id
                    .lines()
                    .filter(|line| line.contains(" flags=") && line.contains("b db="))
                {
                    let id = line.split([' ', '=']).nth(1).unwrap();
                    helper.text(&format!("CLIENT UNBLOCK {id}"));
                }
                continue;
            }
            client
                .stream
                .set_read_timeout(Some(crate::support::PATIENCE))
                .unwrap();
            let Some(raw) = client.try_raw() else {
                panic!("{engine}: {name:?} ended the connection");
            };
            if raw == end {
                break;
            }
            let reply = String::from_utf8_lossy(&raw);
            let sub = name.get(1).map_or("", String::as_str);
            let meant = difference(&name[0], sub).is_some_and(|d| d.kind != Kind::Different);
            // Redis 6.2 tells no wrong subcommand from one that its user may not use.
            let old = engine == "redis-6.2.";
            if reply.contains("is not available: this") && !meant && !old && name.len() == 2 {
                leaks.push(format!(
                    "{name:?} is refused, and the table does not say so"
                ));
            }
            if reply.contains("proxy@") || reply.contains(USER) {
                leaks.push(format!("{name:?}: {reply}"));
            }
        }
    }
    assert!(leaks.is_empty(), "{engine}: {leaks:#?}");
}

#[test]
fn redis_6_2() {
    walk("redis-6.2.");
}

#[test]
fn redis_7_0() {
    walk("redis-7.0.");
}

#[test]
fn valkey_8_0() {
    walk("valkey-8.0.");
}

#[test]
fn valkey_9_1() {
    walk(VALKEY);
}
