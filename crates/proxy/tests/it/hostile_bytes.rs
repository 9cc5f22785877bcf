//! Clients that send what is no command, or far too much of it: the engine's answer, bounded memory, and
//! nobody else notices.

use crate::support::client::{Client, command, words};
use crate::support::node::{Node, VALKEY};
use crate::support::random::{Random, setting};
use crate::support::{process, until};
use std::fmt::Write as _;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

const MIB: u64 = 1024 * 1024;

fn nodes() -> [Node; 2] {
    [Node::start(), Node::sharded(VALKEY, 4)]
}

/// Sends bytes, waits for as many as are wanted, says that no more comes, and returns all that came until
/// the other end closed.
fn talk(address: SocketAddr, bytes: &[u8], wanted: usize) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream
        .set_read_timeout(Some(crate::support::PATIENCE))
        .unwrap();
    let mut writer = stream.try_clone().unwrap();
    let bytes = bytes.to_vec();
    // The other end may close before it has all.
    let writing = std::thread::spawn(move || writer.write_all(&bytes));
    let mut got = Vec::new();
    let mut buffer = [0; 4096];
    let mut said = false;
    loop {
        if got.len() >= wanted && !said && writing.is_finished() {
            let _ = stream.shutdown(Shutdown::Write);
            said = true;
        }
        if got.len() >= wanted && !said {
            std::thread::yield_now();
            continue;
        }
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => break,
            Ok(count) => got.extend_from_slice(&buffer[..count]),
            Err(error) => panic!("{error} after {}", got.escape_ascii()),
        }
    }
    let _ = writing.join().unwrap();
    got.escape_ascii().to_string()
}

#[test]
fn the_engines_answer_to_what_is_no_command() {
    let nested = b"*1\r\n".repeat(1_000);
    let inline = vec![b'x'; 1 << 20];
    let zeros = vec![0; 100_000];
    let long_header = [b"*1".as_slice(), &vec![b'1'; 70_000]].concat();
    let long_bulk = [b"*1\r\n$1".as_slice(), &vec![b'1'; 70_000]].concat();
    let cases: &[&[u8]] = &[
        b"*2147483648\r\n",
        b"*-2\r\nPING\r\n",
        b"$-2\r\n",
        b"*1\r\n$-2\r\n",
        b"*1\r\n$-1\r\n",
        b"*1\r\n$600000000\r\n",
        b"*1\r\n$536870912\r\n",
        b"*1\r\n$536870913\r\n",
        b"*1\r\n$99999999999999999999\r\n",
        b"*99999999999999999999\r\n",
        b"*x\r\n",
        b"*\r\n",
        b"*1\r\n:1\r\n",
        b"*1\r\n+PING\r\n",
        b"*1\r\n$4\r\nPINGxx",
        b"*1\r\n$4\r\nPING\r\n*1\r\n!\r\n",
        b"*1\r\n\r\n",
        b"*01\r\n$4\r\nPING\r\n",
        b"*+1\r\n$4\r\nPING\r\n",
        b"*1\r\n$ 4\r\nPING\r\n",
        b"*1\n$4\nPING\n",
        b"PING \"unbalanced\r\n",
        b"PING a\"b\r\n",
        b"\xfe\xfd\r\n",
        b"*1\r\n$0\r\n\r\n",
        b"*2\r\n$0\r\n\r\n$1\r\nx\r\n",
        b"*0\r\n*-1\r\n\r\n\n PING\r\n",
        &nested,
        &inline,
        &zeros,
        &long_header,
        &long_bulk,
    ];
    for node in nodes() {
        let (mut other, mut direct) = (node.client(), node.direct());
        for case in cases {
            let wanted = engine_talk(node.engine.direct, case, &mut direct);
            let got = talk(node.endpoint, case, wanted.len());
            let shown = case[..case.len().min(40)].escape_ascii();
            assert_eq!(got, wanted.escape_ascii().to_string(), "{shown}");
            assert!(other.pings(), "{shown}");
        }
    }
}

/// What an engine answers. It forgets its replies when it sees the end of the stream, so that comes after
/// others have had their turn.
fn engine_talk(address: SocketAddr, bytes: &[u8], other: &mut Client) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).unwrap();
    let _ = stream.write_all(bytes);
    for _ in 0..3 + bytes.len() / 4_096 {
        assert!(other.pings());
    }
    let _ = stream.shutdown(Shutdown::Write);
    let mut got = Vec::new();
    // A reset comes after what was received.
    let _ = stream.read_to_end(&mut got);
    got
}

/// Commands with some bytes changed, and bytes of chance: the engine's answer each time.
#[test]
fn random_bytes() {
    let first = setting("MAINSTAY_FUZZ_SEED", 1);
    let rounds = setting("MAINSTAY_FUZZ_ROUNDS", 10) * 100;
    let valid: Vec<Vec<u8>> = [
        "GET {k}a",
        "ECHO abc",
        "PING",
        "STRLEN {k}b",
        "EXISTS {k}a {k}b",
        "GET {k}\"a b\"",
    ]
    .iter()
    .map(|line| words(line))
    .collect();
    for node in nodes() {
        let (mut other, mut direct) = (node.client(), node.direct());
        let mut closed = 0;
        for seed in first..first + rounds {
            let mut random = Random(seed);
            let mut bytes = Vec::new();
            for _ in 0..1 + random.below(6) {
                if random.below(3) == 0 {
                    let alphabet = b"*$\r\n0123456789-+:PINGget x,%~>#_";
                    for _ in 0..random.below(30) {
                        bytes.push(alphabet[random.below(alphabet.len())]);
                    }
                } else {
                    bytes.extend(&valid[random.below(valid.len())]);
                }
            }
            for _ in 0..random.below(3) {
                let at = random.below(bytes.len().max(1));
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = 32 + random.below(95) as u8;
                }
            }
            let quotes = bytes.iter().any(|byte| matches!(byte, b'"' | b'\''));
            if bytes.contains(&0) || quotes {
                // An engine does not see the end of a line behind a zero, and not all engines take text
                // right behind a quote.
                talk(node.endpoint, &bytes, 0);
                continue;
            }
            let wanted = engine_talk(node.engine.direct, &bytes, &mut direct);
            let got = talk(node.endpoint, &bytes, wanted.len());
            let wanted = wanted.escape_ascii().to_string();
            closed += u32::from(wanted.contains("Protocol error"));
            assert_eq!(got, wanted, "seed {seed}: {}", bytes.escape_ascii());
        }
        assert!(closed > 100, "{closed} of them were no commands");
        assert!(other.pings());
    }
}

/// The largest number of arguments that is one: nothing is kept for those that are to come.
#[test]
fn two_thousand_million_arguments() {
    const HEADER: &[u8] = b"*2147483647\r\n";
    process::need_descriptors(8_192);
    for node in nodes() {
        // The engine waits for them too.
        for address in [node.engine.direct, node.endpoint] {
            assert_eq!(
                talk(address, &[b"PING\r\n", HEADER].concat(), 7),
                "+PONG\\r\\n"
            );
        }
        let before = process::memory(node.server(), "VmRSS:");
        let mut other = node.client();
        let many: Vec<Client> = (0..1_000)
            .map(|_| {
                let mut client = node.client();
                client.send(HEADER);
                client
            })
            .collect();
        let mut long = node.client();
        long.send(&[HEADER, b"$3\r\nDEL\r\n"].concat());
        // Keys of one slot go on to the engine; keys of all are held, up to a bound that is not reached here.
        let some = b"$10\r\n{k}4567890\r\n".repeat(10_000);
        for _ in 0..100 {
            long.send(&some);
            assert!(other.pings());
        }
        assert_eq!(other.text("SET k v"), "+OK\r\n");
        let peak = process::memory(node.server(), "VmHWM:");
        assert!(peak < before + 64 * MIB, "{before} before, {peak} at most");
        drop((many, long));
        // What did not come whole did not run.
        assert_eq!(other.text("GET k"), "$1\r\nv\r\n");
    }
}

/// A byte a second, from a thousand clients.
#[test]
fn slow_writers_delay_nobody() {
    process::need_descriptors(8_192);
    for node in nodes() {
        let before = process::memory(node.server(), "VmRSS:");
        let mut slow: Vec<Client> = (0..1_000).map(|_| node.client()).collect();
        let mut other = node.client();
        let get = words("GET slow");
        for at in 0..get.len() {
            for client in &mut slow {
                client.send(&get[at..=at]);
            }
            for number in 0..50 {
                assert_eq!(other.text(&format!("SET k{number} v{at}")), "+OK\r\n");
            }
        }
        other.text("SET slow done");
        let after = process::memory(node.server(), "VmRSS:");
        assert!(after < before + 24 * MIB, "{before} before, {after} after");
        for client in &mut slow {
            let got = client.raw();
            assert!(got == b"$-1\r\n" || got == b"$4\r\ndone\r\n");
        }
    }
}

/// Nothing is read of the replies until all is sent that goes in.
#[test]
fn a_hundred_thousand_commands_that_are_not_read() {
    const COUNT: usize = 100_000;
    for node in nodes() {
        let mut other = node.client();
        let mut client = node.client();
        let before = process::memory(node.server(), "VmRSS:");
        let mut sent = Vec::new();
        for number in 0..COUNT {
            let line = match number % 5 {
                0 => format!("SET d{} {number}", number % 1_000),
                1 => format!("GET d{}", (number - 1) % 1_000),
                2 => format!("MGET d{} x{number} y{number}", (number - 2) % 1_000),
                3 => format!("ECHO {number}"),
                _ => format!("EXISTS a{number} b{number}"),
            };
            sent.extend(words(&line));
        }
        let mut writer = client.stream.try_clone().unwrap();
        let writing = std::thread::spawn(move || writer.write_all(&sent).unwrap());
        // The proxy has stopped reading, or has read all.
        let mut last = 0;
        until("the proxy reads no more", || {
            std::thread::sleep(Duration::from_millis(100));
            let now = node
                .exec
                .last()
                .map_or(0, |seen| seen.databases[0].commands);
            std::mem::replace(&mut last, now) == now && now > 1_000
        });
        for number in 0..200 {
            assert_eq!(other.text(&format!("SET other{number} v")), "+OK\r\n");
        }
        let peak = process::memory(node.server(), "VmHWM:");
        assert!(peak < before + 64 * MIB, "{before} before, {peak} at most");
        for number in 0..COUNT {
            let bulk = |number: usize| {
                let text = number.to_string();
                format!("${}\r\n{text}\r\n", text.len())
            };
            let wanted = match number % 5 {
                0 => "+OK\r\n".to_owned(),
                1 => bulk(number - 1),
                2 => format!("*3\r\n{}$-1\r\n$-1\r\n", bulk(number - 2)),
                3 => bulk(number),
                _ => ":0\r\n".to_owned(),
            };
            assert_eq!(
                String::from_utf8_lossy(&client.raw()),
                wanted,
                "reply {number}"
            );
        }
        writing.join().unwrap();
    }
}

/// What the proxy answers itself is held as a whole in however many pieces it comes: over one shard up to 64 KiB.
#[test]
fn long_commands_that_no_shard_gets() {
    let in_pieces = |client: &mut Client, other: &mut Client, frame: &[u8]| {
        for piece in frame.chunks(20_000) {
            client.send(piece);
            // It has been looked at.
            assert!(other.pings() && other.pings());
        }
    };
    let named = |length: usize| words(&format!("CLIENT SETNAME {}", "n".repeat(length)));
    for node in nodes() {
        let (mut client, mut other) = (node.client(), node.client());
        in_pieces(&mut client, &mut other, &named(60_000));
        assert_eq!(client.raw(), b"+OK\r\n");
        let name = client.text("CLIENT GETNAME");
        assert!(name.starts_with("$60000\r\n"), "{name}");
    }
    let node = Node::start();
    let (mut client, mut other) = (node.client(), node.client());
    in_pieces(&mut client, &mut other, &named(100_000));
    let refused = String::from_utf8(client.raw()).unwrap();
    assert!(
        refused.starts_with("-ERR the command is too long"),
        "{refused}"
    );
    assert!(client.pings());
}

/// Commands with very many keys, and very large ones, over several shards.
#[test]
fn commands_that_are_split_into_much() {
    let node = Node::sharded(VALKEY, 4);
    let mut client = node.client();
    let mut other = node.client();
    let (mut set, mut get) = ("MSET".to_owned(), "MGET".to_owned());
    for number in 0..10_000 {
        write!(set, " many{number} v{number}").unwrap();
        write!(get, " many{number}").unwrap();
    }
    client.send(&words(&set));
    client.send(&words(&get));
    assert_eq!(client.raw(), b"+OK\r\n");
    let mut wanted = "*10000\r\n".to_owned();
    for number in 0..10_000 {
        let value = format!("v{number}");
        write!(wanted, "${}\r\n{value}\r\n", value.len()).unwrap();
    }
    assert!(client.raw() == wanted.as_bytes());
    // 50 MB in values of 1 MB, and in half a million keys.
    let value = vec![b'x'; 1_000_000];
    let keys: Vec<String> = (0..50).map(|number| format!("mega{number}")).collect();
    let mut args: Vec<&[u8]> = vec![b"MSET"];
    for key in &keys {
        args.extend([key.as_bytes(), &value]);
    }
    client.send(&command(&args));
    assert_eq!(client.raw(), b"+OK\r\n");
    assert!(other.pings());
    for key in &keys {
        assert_eq!(client.text(&format!("STRLEN {key}")), ":1000000\r\n");
    }
    let memory = process::memory(node.server(), "VmRSS:");
    // A command that cannot be split is refused, and what follows it is answered.
    let keys: Vec<String> = (0..80).map(|number| format!("much{number}")).collect();
    let mut args: Vec<&[u8]> = vec![b"MSET"];
    for key in &keys {
        args.extend([key.as_bytes(), &value]);
    }
    client.send(&command(&args));
    let refused = client.raw();
    assert!(
        refused.starts_with(b"-ERR the command is too long to be split over shards"),
        "{}",
        String::from_utf8_lossy(&refused)
    );
    assert_eq!(client.text("EXISTS much0"), ":0\r\n");
    assert!(client.pings() && other.pings());
    // The allocator gives back when it is used.
    until("the memory is given back", || {
        client.send(&command(&[b"MSET", b"much0", &value, b"much1", &value]));
        assert_eq!(client.raw(), b"+OK\r\n");
        process::memory(node.server(), "VmRSS:") < memory + 32 * MIB
    });
}

/// A client that sends without end to one key, and leaves in the middle.
#[test]
fn a_value_without_end() {
    for node in nodes() {
        let mut other = node.client();
        let before = process::memory(node.server(), "VmRSS:");
        let mut client = node.client();
        client.send(b"*3\r\n$3\r\nSET\r\n$7\r\nendless\r\n$500000000\r\n");
        let piece = vec![b'x'; 1 << 20];
        let size = if std::env::var_os("MAINSTAY_THOROUGH").is_some() {
            450
        } else {
            60
        };
        for number in 0..size {
            client.send(&piece);
            if number % 10 == 0 {
                assert!(other.pings());
            }
        }
        let peak = process::memory(node.server(), "VmHWM:");
        assert!(peak < before + 40 * MIB, "{before} before, {peak} at most");
        drop(client);
        assert_eq!(other.text("EXISTS endless"), ":0\r\n");
        // And one that sends small commands for ever, and never reads.
        let deaf = node.client();
        deaf.stream
            .set_write_timeout(Some(Duration::from_millis(300)))
            .unwrap();
        let append = words(&format!("GETRANGE {} 0 10", "k".repeat(1_000))).repeat(1_000);
        let mut sent = 0;
        while sent < 64 * MIB as usize {
            match (&deaf.stream).write(&append) {
                Ok(count) => sent += count,
                Err(_) => break,
            }
        }
        let peak = process::memory(node.server(), "VmHWM:");
        assert!(peak < before + 64 * MIB, "{before} before, {peak} at most");
        assert!(other.pings());
    }
}
