//! What an engine says through the proxy is what it says itself, byte for byte.

use crate::support::client::{Client, command, words};
use crate::support::node::{Node, VALKEY};

/// Commands whose replies depend on nothing but the ones before. One line each.
const COMMANDS: &str = r#"
PING
PING hello
ECHO "a b\x00\r\n"
ECHO
SET k v
GET k
GET missing
set K v EX 100
TTL K
SET k v XX GET
SET k2 "" NX
GET k2
SETNX k2 x
GETSET k new
GETDEL k
APPEND s abc
STRLEN s
SETRANGE s 5 xyz
GETRANGE s 0 -1
INCR n
INCRBY n 41
INCRBYFLOAT n 0.5
INCR s
DECR n
MSET a 1 b 2 c 3
MGET a b c missing
DEL a b
UNLINK c
EXISTS s n nothing
TYPE s
TYPE nothing
EXPIRE s 1000
PERSIST s
OBJECT ENCODING n
RENAME s t
RENAME missing t
COPY t t2
RPUSH l a b c d
LPUSH l z
LRANGE l 0 -1
LRANGE l 5 9
LINDEX l 1
LINSERT l BEFORE b x
LLEN l
LPOP l 2
LPOP missing 2
RPOP l
LMOVE l l2 LEFT RIGHT
LTRIM l 0 0
LPOS l c
HSET h f 1 g 2
HGETALL h
HGETALL missing
HMGET h f g x
HINCRBY h f 5
HKEYS h
HEXISTS h f
HDEL h g
HRANDFIELD missing
SADD set a
SMEMBERS set
SISMEMBER set a
SMISMEMBER set a b
SPOP missing
SCARD set
SINTERCARD 1 set
ZADD z 1 a 2 b 3.5 c
ZRANGE z 0 -1 WITHSCORES
ZSCORE z c
ZSCORE z nothing
ZADD z INCR 1.25 a
ZRANGEBYSCORE z (1 +inf
ZRANK z c
ZRANK z nothing WITHSCORE
ZPOPMIN z
ZPOPMIN missing
ZMSCORE z b x
XADD x 1-1 f v
XADD x 1-2 f v g w
XRANGE x - +
XLEN x
XREAD COUNT 1 STREAMS x 0
XREAD STREAMS x 9
XGROUP CREATE x grp 0
XREADGROUP GROUP grp me COUNT 1 STREAMS x >
XPENDING x grp
XACK x grp 1-1
XINFO STREAM x
PFADD hll a b c
PFCOUNT hll
GEOADD geo 13.361389 38.115556 Palermo 15.087269 37.502669 Catania
GEODIST geo Palermo Catania km
GEOPOS geo Palermo nothing
GEOSEARCH geo FROMLONLAT 15 37 BYRADIUS 200 km ASC
SETBIT bits 7 1
BITCOUNT bits
BITFIELD bits GET u4 4
SORT l2 ALPHA
EVAL "return {1,'two',{3,false,true},redis.call('GET',KEYS[1])}" 1 n
EVAL "return redis.error_reply('MY own error')" 0
EVAL "return redis.status_reply('FINE')" 0
EVAL "redis.call('SET','viascript','1'); return redis.call('nosuch')" 0
EVALSHA ffffffffffffffffffffffffffffffffffffffff 0
SCRIPT LOAD "return 7"
SCRIPT EXISTS 5f31e1b0a1a1f3e1
FUNCTION LIST
PUBLISH nobody hello
PUBSUB CHANNELS
PUBSUB NUMSUB a
DBSIZE
KEYS nothing*
RANDOMKEY2
SCAN 0 MATCH nothing* COUNT 1000
WAIT 0 0
OBJECT FREQ n
DEBUG2
EXEC
DISCARD
UNWATCH
MULTI x
CONFIG GET maxmemory-policy
CONFIG GET nothing
CONFIG
CONFIG GET
COMMAND GETKEYS SET a b
COMMAND INFO get
TIME2
SUBSTR t 0 2
LOLWUT VERSION 5 1 1 1
LCS a b
CLIENT GETNAME
CLIENT SETNAME "my name"
CLIENT SETNAME me
CLIENT GETNAME
CLIENT SETINFO lib-name "a b"
CLIENT SETINFO lib-none x
CLIENT KILL ID x
CLIENT LIST ID
CLIENT NO-EVICT maybe
CLIENT REPLY maybe
CLIENT NOSUCH
CLIENT
CLIENT GETREDIR
CLIENT CACHING yes
SELECT 99
SELECT x
SELECT
SELECT 0
SELECT 3
DBSIZE
SET k3 in-three
SELECT 0
GET k3
MOVE t 3
SWAPDB 0 3
GET k3
SWAPDB 0 3
AUTH
AUTH x
AUTH x y
AUTH a b c
HELLO 4
HELLO x
HELLO 2 FOO
HELLO 2 AUTH a
HELLO 2 AUTH a b
HELLO 2 SETNAME "a b"
ACL WHOAMI
READONLY
ASKING
SET
GET a b c
nosuchcommand with arguments
""
"#;

const TRANSACTIONS: &str = r#"
MULTI
SET k 1
INCR k
LPUSH k x
GET k
EXEC
MULTI
MULTI
NOSUCH
EXEC
MULTI
SET k 2
DISCARD
GET k
WATCH k
MULTI
INCR k
EXEC
WATCH k
INCR k
MULTI
INCR k
EXEC
GET k
WATCH k
UNWATCH
INCR k
MULTI
INCR k
EXEC
MULTI
WATCH k
EXEC
MULTI
SELECT 2
SET in two
SELECT 0
EXEC
GET k
SELECT 2
GET in
SELECT 0
MULTI
SELECT 2
XREAD STREAMS nothing 0
EXEC
GET in
RESET
GET in
MULTI
BLPOP nothing 0
EXEC
EXEC
MULTI
EVAL "return redis.call('INCR','k')" 0
EXEC
MULTI
EXEC x
DISCARD
DBSIZE
"#;

fn replies(client: &mut Client, lines: &[Vec<u8>]) -> Vec<Vec<u8>> {
    lines
        .iter()
        .map(|line| {
            client.send(line);
            client.raw()
        })
        .collect()
}

#[track_caller]
fn assert_same(lines: &[Vec<u8>], direct: &[Vec<u8>], through: &[Vec<u8>]) {
    for ((line, direct), through) in lines.iter().zip(direct).zip(through) {
        assert_eq!(
            String::from_utf8_lossy(through),
            String::from_utf8_lossy(direct),
            "through the proxy (left), from the engine (right): {}",
            String::from_utf8_lossy(line)
        );
    }
    assert_eq!(direct.len(), through.len());
}

fn prepared(client: &mut Client, resp: u8) {
    if resp == 3 {
        assert!(client.text("HELLO 3").contains("proto"));
    }
    client.text("FLUSHALL");
    client.text("SCRIPT FLUSH");
}

fn compare(engine: &'static str, text: &str, skip: &[&str]) {
    let node = Node::with(engine, |_| {});
    let lines: Vec<Vec<u8>> = text
        .lines()
        .filter(|line| !line.is_empty() && !skip.iter().any(|word| line.starts_with(word)))
        .map(words)
        .collect();
    for resp in [2, 3] {
        let mut direct = node.direct();
        prepared(&mut direct, resp);
        let wanted = replies(&mut direct, &lines);
        let mut client = node.client();
        prepared(&mut client, resp);
        let got = replies(&mut client, &lines);
        assert_same(&lines, &wanted, &got);
        // All at once: the order must hold across changes of the way.
        let mut client = node.client();
        prepared(&mut client, resp);
        client.send(&lines.concat());
        let got: Vec<Vec<u8>> = lines.iter().map(|_| client.raw()).collect();
        assert_same(&lines, &wanted, &got);
    }
}

#[test]
fn valkey_9_1() {
    compare(VALKEY, COMMANDS, &[]);
}

#[test]
fn redis_6_2() {
    // It words what the proxy answers for itself a little differently, or does not know it.
    let skip = [
        "CLIENT", "AUTH", "HELLO", "ACL", "CLUSTER", "ASKING", "CONFIG", "COMMAND", "OBJECT",
    ];
    compare("redis-6.2.", COMMANDS, &skip);
}

#[test]
fn transactions() {
    compare(VALKEY, TRANSACTIONS, &[]);
}

#[test]
fn greeting() {
    let node = Node::start();
    let (mut direct, mut client) = (node.direct(), node.client());
    for line in [
        "HELLO",
        "HELLO 3",
        "HELLO 2 AUTH default x SETNAME n",
        "HELLO 3 SETNAME n",
    ] {
        direct.send(&words(line));
        client.send(&words(line));
        let hide = |raw: Vec<u8>| {
            let text = String::from_utf8(raw).unwrap();
            let (head, tail) = text.split_once("$2\r\nid\r\n:").unwrap();
            format!("{head}{}", tail.split_once("\r\n").unwrap().1)
        };
        assert_eq!(hide(client.raw()), hide(direct.raw()), "{line}");
    }
}

/// A pipeline cut in two at any byte gives the same replies.
#[test]
fn split_at_any_byte() {
    let node = Node::start();
    let mut pipeline = b"\r\n*0\r\nPING\r\n".to_vec();
    for line in [
        "SET k \"a\\r\\nb\"",
        "GET k",
        "MULTI",
        "INCR n",
        "EXEC",
        "SELECT 1",
        "DBSIZE",
        "SELECT 0",
        "CLIENT GETNAME",
    ] {
        pipeline.extend(words(line));
    }
    pipeline.extend(b"SET 'in line' \"\\x41\"\r\nGET 'in line'\n");
    let count = 12;
    let mut direct = node.direct();
    for split in 0..=pipeline.len() {
        direct.text("FLUSHALL");
        direct.send(&pipeline);
        let wanted: Vec<Vec<u8>> = (0..count).map(|_| direct.raw()).collect();
        direct.text("FLUSHALL");
        let mut client = node.client();
        client.send(&pipeline[..split]);
        // The first part is there before the second one is sent: its replies show it, or another
        // client's command does.
        node_has_read(&node);
        client.send(&pipeline[split..]);
        let got: Vec<Vec<u8>> = (0..count).map(|_| client.raw()).collect();
        assert_eq!(got, wanted, "cut at {split}");
    }
}

/// There is one worker: when it has answered this, it has read what was sent before.
fn node_has_read(node: &Node) {
    thread_local! {
        static OTHER: std::cell::RefCell<Option<(std::net::SocketAddr, Client)>> = const { std::cell::RefCell::new(None) };
    }
    OTHER.with_borrow_mut(|other| {
        if other
            .as_ref()
            .is_none_or(|(address, _)| *address != node.endpoint)
        {
            *other = Some((node.endpoint, node.client()));
        }
        if let Some((_, client)) = other {
            assert!(client.pings());
        }
    });
}

#[test]
fn protocol_errors_close_the_connection_with_the_engines_words() {
    let node = Node::start();
    for wrong in [
        &b"*x\r\n"[..],
        b"*1\r\n+PING\r\n",
        b"*1\r\n$-1\r\n",
        b"*1\r\n$536870913\r\n",
        b"PING \"a\r\n",
        b"*1\r\n$4\r\nPINGxxPING\r\n",
        &[b'x'; 70_000],
    ] {
        let (mut direct, mut client) = (node.direct(), node.client());
        // What was right before is answered before.
        for connection in [&mut direct, &mut client] {
            connection.send(&[b"PING\r\n", wrong].concat());
        }
        assert_eq!(client.raw(), direct.raw());
        assert_eq!(
            String::from_utf8_lossy(&client.raw()),
            String::from_utf8_lossy(&direct.raw())
        );
        assert!(client.try_raw().is_none());
    }
    assert_eq!(node.client().text("PING"), "+PONG\r\n");
}

#[test]
fn binary_keys_and_many_arguments() {
    let node = Node::start();
    let (mut direct, mut client) = (node.direct(), node.client());
    let all: Vec<u8> = (0..=255).collect();
    client.send(&command(&[b"SET", &all, &all]));
    assert_eq!(client.raw(), b"+OK\r\n");
    client.send(&command(&[b"GET", &all]));
    direct.send(&command(&[b"GET", &all]));
    assert_eq!(client.raw(), direct.raw());
    // 200,000 arguments are more than is held at a time: they are streamed.
    let mut many = vec![b"RPUSH".to_vec(), b"many".to_vec()];
    many.extend((0..200_000).map(|number| number.to_string().into_bytes()));
    client.send(&command(
        &many.iter().map(Vec::as_slice).collect::<Vec<_>>(),
    ));
    assert_eq!(client.text("LLEN many"), ":200000\r\n");
    client.send(&command(&[b"LRANGE", b"many", b"0", b"-1"]));
    direct.send(&command(&[b"LRANGE", b"many", b"0", b"-1"]));
    let first = client.raw();
    assert_eq!(first, b":200000\r\n");
    assert_eq!(client.raw(), direct.raw());
}
