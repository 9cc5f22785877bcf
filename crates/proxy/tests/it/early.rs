//! What comes in a transaction before its first key: it decides nothing, whatever it is and whatever the engine
//! says to it.

use crate::fault::{key_at, relayed};
use crate::loss_inside::{in_flight, warm};
use crate::support::client::{Client, command, words};
use crate::support::node::{Node, VALKEY};
use crate::support::{process, until};

const SHARDS: u16 = 4;
const ENGINES: [&str; 4] = ["redis-6.2.", "redis-7.0.", "valkey-8.0.", VALKEY];

/// What an engine says to these is what a client gets.
const AS_THE_ENGINE: &[&str] = &[
    "WAIT 0 0",
    "WAIT 0",
    "WAIT x 0",
    "WAITAOF 0 0 0",
    "PING",
    "PING a b",
    "ECHO e",
    "ECHO",
    "PUBLISH channel message",
    "PUBLISH channel",
    "SELECT 0",
    "SELECT x",
    "SELECT",
    "SELECT 0 0",
    "EVAL 'return 7' 0",
    "EVAL 'return 7' x",
    "EVAL 'return 7' 5 a",
    "EVAL 'return 7'",
    "EVALSHA ffffffffffffffffffffffffffffffffffffffff 0",
    "EVAL_RO 'return 7' 0",
    "FCALL nosuch 0",
    "CLIENT GETNAME",
    "CLIENT NOSUCH",
    "CLIENT",
    "CONFIG GET maxmemory-policy",
    "CONFIG GET",
    "CONFIG",
    "COMMAND NOSUCH",
    "COMMAND GETKEYS GET a",
    "ACL WHOAMI",
    "ACL WHOAMI x",
    "AUTH",
    "OBJECT NOSUCH a",
    "OBJECT",
    "XGROUP CREATE a",
    "XREAD COUNT 1 STREAMS a",
    "SLOWLOG GET x",
    "SCRIPT NOSUCH",
    "DBSIZE x",
    "UNWATCH",
    "UNWATCH x",
    "WATCH",
    "WATCH another",
    "MULTI",
    "MULTI x",
    "DISCARD x",
    "RESET x",
    "nosuch",
    "nosuch another",
    "SET another",
    "MSETNX another",
];

/// Each engine has its own of these.
const VARIES: &[&str] = &["TIME", "INFO server", "ROLE", "CLIENT ID", "CLIENT INFO"];

/// Some engines refuse these to the user that the proxy has there.
const GUARDED: &[&str] = &[
    "CLIENT HELP",
    "CONFIG HELP",
    "ACL HELP",
    "COMMAND HELP",
    "SLOWLOG LEN",
    "SLOWLOG RESET",
    "LATENCY LATEST",
    "LATENCY DOCTOR",
    "LASTSAVE",
    "PFSELFTEST",
];

/// Refused by the proxy.
const REFUSED: &[&str] = &[
    "DBSIZE",
    "SCAN 0",
    "RANDOMKEY",
    "SCRIPT LOAD 'return 1'",
    "FLUSHALL",
    "SELECT 1",
    "CLIENT NO-TOUCH on",
    "CLIENT TRACKING on",
    "CONFIG SET maxmemory 1",
    "ACL LIST",
    "SAVE",
    "SUBSCRIBE channel",
    "MONITOR",
];

fn ask(client: &mut Client, lines: &[&str], at_once: bool) -> Vec<String> {
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    if !at_once {
        return lines.iter().map(|line| client.text(line)).collect();
    }
    let sent: Vec<Vec<u8>> = lines.iter().map(|line| words(line)).collect();
    client.send(&sent.concat());
    lines.iter().map(|_| text(client.raw())).collect()
}

fn transaction<'a>(early: &[&'a str], key: &'a str) -> Vec<String> {
    let mut lines = vec!["MULTI".to_owned()];
    lines.extend(early.iter().map(|line| (*line).to_owned()));
    lines.extend([
        format!("SET {key} v"),
        format!("STRLEN {key}"),
        "EXEC".to_owned(),
    ]);
    lines
}

fn refs(lines: &[String]) -> Vec<&str> {
    lines.iter().map(String::as_str).collect()
}

#[test]
fn the_engine_says_it_and_the_first_key_decides() {
    for name in ENGINES {
        let node = Node::sharded(name, SHARDS);
        let keys = [0, 1, 3].map(|shard| key_at(&node, shard, "early"));
        let (mut client, mut direct) = (node.client(), node.direct());
        let pairs = AS_THE_ENGINE
            .iter()
            .enumerate()
            .map(|(at, line)| vec![*line, AS_THE_ENGINE[(at * 7 + 3) % AS_THE_ENGINE.len()]]);
        let alone = AS_THE_ENGINE.iter().map(|line| vec![*line]);
        for (number, early) in alone.chain(pairs).enumerate() {
            for (at, key) in keys.iter().enumerate() {
                let lines = transaction(&early, key);
                let at_once = (number + at) % 2 == 0;
                let wanted = ask(&mut direct, &refs(&lines), at_once);
                let got = ask(&mut client, &refs(&lines), at_once);
                assert_eq!(got, wanted, "{name}: {lines:?}");
            }
        }
    }
}

#[test]
fn what_each_engine_has_of_its_own() {
    let node = Node::sharded(VALKEY, SHARDS);
    let mut client = node.client();
    let key = key_at(&node, 3, "early");
    for line in VARIES {
        let got = ask(&mut client, &refs(&transaction(&[line], &key)), false);
        assert_eq!(got[1..4], ["+QUEUED\r\n"; 3], "{line}");
        assert!(got[4].starts_with("*3\r\n"), "{line}: {got:?}");
        assert!(got[4].ends_with("+OK\r\n:1\r\n"), "{line}: {got:?}");
    }
}

#[test]
fn what_the_engine_may_refuse_is_answered_at_once() {
    for name in ENGINES {
        for shards in [1, SHARDS] {
            let node = match shards {
                1 => Node::with(name, |_| {}),
                _ => Node::sharded(name, shards),
            };
            let mut client = node.client();
            let key = key_at(&node, usize::from(shards) - 1, "early");
            for line in GUARDED {
                let got = ask(&mut client, &refs(&transaction(&[line], &key)), false);
                assert_eq!(got[2..4], ["+QUEUED\r\n"; 2], "{name}: {line}: {got:?}");
                if got[1] == "+QUEUED\r\n" {
                    assert!(got[4].ends_with("+OK\r\n:1\r\n"), "{name}: {line}: {got:?}");
                } else {
                    let text = format!("-ERR {line} is not available");
                    let known = got[1].starts_with(&text);
                    assert!(known, "{name}, {shards}: {line}: {got:?}");
                    assert!(got[4].starts_with("-EXECABORT"), "{name}: {line}: {got:?}");
                }
            }
        }
    }
}

#[test]
fn what_is_refused_spoils_it_wherever_it_will_be() {
    for name in ["redis-6.2.", VALKEY] {
        let node = Node::sharded(name, SHARDS);
        let mut client = node.client();
        for line in REFUSED {
            for shard in [0, 3] {
                let key = key_at(&node, shard, "refused");
                let got = ask(&mut client, &refs(&transaction(&[line], &key)), false);
                assert!(got[1].starts_with('-'), "{line}: {got:?}");
                assert_eq!(got[2..4], ["+QUEUED\r\n"; 2], "{line}");
                assert!(got[4].starts_with("-EXECABORT"), "{line}: {got:?}");
            }
        }
        assert_eq!(client.text("DBSIZE"), ":0\r\n");
    }
}

/// A `PUBLISH` of so many bytes.
fn publish(length: usize) -> Vec<u8> {
    let of = |payload: usize| command(&[b"PUBLISH", b"c", &vec![b'x'; payload]]);
    let more = of(length).len() - length;
    // The payload's length may have a digit less.
    (0..3)
        .map(|less| of(length - more + less))
        .find(|frame| frame.len() == length)
        .unwrap()
}

/// Only so much is held until the first key comes; then it is at the first shard.
#[test]
fn what_is_held_is_bounded() {
    const HELD: usize = 1024 * 1024;
    let node = Node::sharded(VALKEY, SHARDS);
    let (near, far) = (key_at(&node, 0, "held"), key_at(&node, 3, "held"));
    let mut client = node.client();
    client.text("CLIENT SETNAME me");
    for beyond in [false, true] {
        assert_eq!(client.text("MULTI"), "+OK\r\n");
        client.send(&publish(if beyond { HELD - 5 } else { HELD - 14 }));
        assert_eq!(client.raw(), b"+QUEUED\r\n");
        // The shard gets 14 bytes for it.
        assert_eq!(client.text("CLIENT GETNAME"), "+QUEUED\r\n");
        let (key, other) = match beyond {
            true => (&near, &far),
            false => (&far, &near),
        };
        assert_eq!(client.text(&format!("SET {key} v")), "+QUEUED\r\n");
        let got = client.text("EXEC");
        assert_eq!(got, "*3\r\n:0\r\n$2\r\nme\r\n+OK\r\n");
        client.text("MULTI");
        client.text("nosuch");
        // Nothing is held for a transaction that will not run.
        for _ in 0..2 {
            client.send(&publish(HELD));
            assert_eq!(client.raw(), b"+QUEUED\r\n");
        }
        assert_eq!(client.text(&format!("SET {other} v")), "+QUEUED\r\n");
        assert!(client.text("EXEC").starts_with("-EXECABORT"));
    }
    client.text("MULTI");
    for _ in 0..2 {
        client.send(&publish(HELD));
        assert_eq!(client.raw(), b"+QUEUED\r\n");
    }
    let far = client.text(&format!("SET {far} v"));
    assert!(far.starts_with("-CROSSSLOT"), "{far}");
    assert!(client.text("EXEC").starts_with("-EXECABORT"));
}

/// A command that is passed on as it comes decides, too; one that cannot be spoils the transaction.
#[test]
fn long_commands() {
    let node = Node::sharded(VALKEY, SHARDS);
    let (near, far) = (key_at(&node, 0, "long"), key_at(&node, 3, "long"));
    let value = vec![b'x'; 65 * 1024 * 1024];
    let mut client = node.client();
    client.text("MULTI");
    client.text("WAIT 0 0");
    client.send(&command(&[b"SET", far.as_bytes(), &value]));
    assert_eq!(client.raw(), b"+QUEUED\r\n");
    assert_eq!(client.text(&format!("STRLEN {far}")), "+QUEUED\r\n");
    let length = value.len();
    let wanted = format!("*3\r\n:0\r\n+OK\r\n:{length}\r\n");
    assert_eq!(client.text("EXEC"), wanted);
    // Before the first key and behind it.
    for early in [true, false] {
        client.text("MULTI");
        if !early {
            assert_eq!(client.text(&format!("SET {near} v")), "+QUEUED\r\n");
        }
        let (near, far) = (near.as_bytes(), far.as_bytes());
        client.send(&command(&[b"MSET", near, &value, far, b"v"]));
        let refused = client.raw();
        let text = String::from_utf8_lossy(&refused);
        assert!(text.contains("too long to be split"), "{text}");
        assert!(client.text("EXEC").starts_with("-EXECABORT"));
    }
    assert_eq!(client.text(&format!("EXISTS {near}")), ":0\r\n");
}

/// A `CLIENT CACHING` is for the whole transaction, wherever that will be.
#[test]
fn what_is_asked_uses_up_no_caching() {
    let node = Node::sharded(VALKEY, SHARDS);
    let mut other = node.client();
    for shard in 0..usize::from(SHARDS) {
        let key = key_at(&node, shard, "cached");
        let mut client = node.client();
        client.ask("HELLO 3");
        client.text("CLIENT TRACKING ON OPTIN");
        client.text("CLIENT CACHING YES");
        let lines = ["MULTI", "EVAL 'return 1' x", &format!("GET {key}"), "EXEC"];
        let got = ask(&mut client, &lines, false);
        assert!(got[3].starts_with("*2\r\n-ERR value is not an integer"));
        other.text(&format!("SET {key} v"));
        let told = String::from_utf8(client.raw()).unwrap();
        assert!(told.contains("invalidate") && told.contains(&key), "{told}");
    }
}

/// A client that asks, and the shard that is asked, to which a connection is there.
fn asker(node: &Node) -> (Client, usize) {
    let mut client = node.client();
    let id: u64 = client.text("CLIENT ID").trim()[1..].parse().unwrap();
    let asked = usize::try_from(id % u64::from(SHARDS)).unwrap();
    warm(&mut client, &key_at(node, asked, "warm"));
    (client, asked)
}

/// What it would have said is not known: nothing runs.
#[test]
fn a_shard_that_is_lost_while_it_is_asked() {
    let (node, relays) = relayed(SHARDS);
    for line in ["nosuch", "EVAL 'return 1' x"] {
        let (mut client, asked) = asker(&node);
        let key = key_at(&node, (asked + 1) % usize::from(SHARDS), "lost");
        client.text("MULTI");
        client.text("PING");
        relays[asked].hold();
        client.send(&words(line));
        in_flight(&node, 3);
        relays[asked].cut();
        relays[asked].pass();
        let lost = "-ERR connection to the shard was lost inside this transaction, it will be discarded at EXEC\r\n";
        assert_eq!(String::from_utf8(client.raw()).unwrap(), lost);
        assert_eq!(client.text(&format!("SET {key} v")), lost);
        assert!(client.text("EXEC").starts_with("-EXECABORT"));
        assert_eq!(client.text(&format!("EXISTS {key}")), ":0\r\n");
        let got = ask(&mut client, &refs(&transaction(&[line], &key)), true);
        assert_eq!(got[3], "+QUEUED\r\n");
        client.text(&format!("DEL {key}"));
    }
}

#[test]
fn it_goes_over_to_another_process() {
    let mut node = Node::sharded(VALKEY, SHARDS);
    let key = key_at(&node, 3, "over");
    let mut clients: Vec<Client> = (0..2).map(|_| node.client()).collect();
    for (client, line) in clients.iter_mut().zip(["WAIT 0 0", "nosuch"]) {
        client.text("MULTI");
        client.text("PING");
        client.text(line);
    }
    node.replace_proxy();
    for client in &mut clients {
        assert_eq!(client.text("EVAL 'return 1' x"), "+QUEUED\r\n");
        assert_eq!(client.text(&format!("INCR {key}")), "+QUEUED\r\n");
    }
    let got = clients[0].text("EXEC");
    assert!(got.starts_with("*4\r\n+PONG\r\n:0\r\n-ERR"), "{got}");
    assert!(got.ends_with(":1\r\n"), "{got}");
    assert!(clients[1].text("EXEC").starts_with("-EXECABORT"));
    assert_eq!(clients[1].text(&format!("GET {key}")), "$1\r\n1\r\n");
}

/// While a shard is asked, its client stays.
#[test]
fn who_asks_goes_over_when_it_has_the_answer() {
    let (mut node, relays) = relayed(SHARDS);
    let (mut client, asked) = asker(&node);
    let key = key_at(&node, (asked + 1) % usize::from(SHARDS), "over");
    client.text("MULTI");
    relays[asked].hold();
    client.send(&words("nosuch"));
    in_flight(&node, 3);
    let old = node.server();
    node.restart_proxy();
    relays[asked].pass();
    assert!(client.raw().starts_with(b"-ERR unknown command"));
    until("the old server has ended", || !process::runs(old));
    assert_eq!(client.text(&format!("SET {key} v")), "+QUEUED\r\n");
    assert!(client.text("EXEC").starts_with("-EXECABORT"));
}
