//! What to begin with: every command of the engines' tables, and replies of every type.

use resp::command::{Command, KeyRule, all};
use resp::request::encode;

/// Streams for [`super::request::check`].
pub(crate) fn requests() -> Vec<Vec<u8>> {
    let mut seeds: Vec<Vec<u8>> = Vec::new();
    for command in all() {
        if command.subcommands.is_empty() {
            seeds.push(commands(&[command.name], command));
        }
        for sub in command.subcommands {
            seeds.push(commands(&[command.name, sub.name], sub));
        }
    }
    for stream in [
        &b"PING\r\nSET key \"two words \\x41\"\nGET 'it''s'\r\n"[..],
        b"\r\n*0\r\n*-1\r\n*1\r\n$4\r\nPING\r\n",
        b"*3\r\n$03\r\nSET\r\n$+1\r\na\r\n$1\r\nb\r\n",
        b"*2\r\n$3\r\nGET\r\n$536870912\r\nabc",
        b"*5\r\n$4\r\nEVAL\r\n$8\r\nreturn 1\r\n$1\r\n2\r\n$3\r\n{a}\r\n$4\r\n{a}b\r\n",
        b"*6\r\n$5\r\nXREAD\r\n$5\r\nBLOCK\r\n$1\r\n0\r\n$7\r\nSTREAMS\r\n$1\r\nx\r\n$1\r\n$\r\n",
        b"*6\r\n$4\r\nSORT\r\n$1\r\na\r\n$2\r\nBY\r\n$4\r\nw_*x\r\n$5\r\nSTORE\r\n$1\r\nb\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\n\r\n",
    ] {
        seeds.push([&[0, 1], stream].concat());
        seeds.push([&[1, 7], stream].concat());
    }
    seeds
}

/// A command of the right arity, and one with twice the arguments.
fn commands(names: &[&str], command: &Command) -> Vec<u8> {
    let least = usize::from(command.arity.unsigned_abs()).max(names.len());
    let mut stream = vec![0, 5];
    for total in [least, least * 2] {
        let mut words: Vec<&[u8]> = names.iter().map(|name| name.as_bytes()).collect();
        let counted = !matches!(command.keys, KeyRule::Keyless | KeyRule::Range(..));
        for at in words.len()..total {
            // Numbers where a count of keys may be, words of options, keys of one slot and of others.
            words.push(match at {
                1 => b"{a}1",
                2 if counted => b"1",
                _ if at % 4 == 3 => b"{a}2",
                _ if at % 4 == 0 => b"STORE",
                _ => b"b",
            });
        }
        encode(words, &mut stream);
    }
    stream
}

/// Streams for [`super::reply::check`].
pub(crate) fn replies() -> Vec<Vec<u8>> {
    REPLIES
        .iter()
        .enumerate()
        .map(|(at, reply)| {
            let next = REPLIES[(at * 7 + 1) % REPLIES.len()];
            [&[(at % 9) as u8], *reply, next, reply].concat()
        })
        .collect()
}

/// One reply each.
pub(crate) const REPLIES: &[&[u8]] = &[
    b"+OK\r\n",
    b"+\r\n",
    b"-ERR unknown command 'x', with args beginning with: \r\n",
    b"-NOPERM User default@1 has no permissions\r\n",
    b":0\r\n",
    b":-9223372036854775808\r\n",
    b":+5\r\n",
    b"$-1\r\n",
    b"$0\r\n\r\n",
    b"$5\r\na\r\nbc\r\n",
    b"*-1\r\n",
    b"*0\r\n",
    b"*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$4\r\ntext\r\n",
    b"*2\r\n*2\r\n:1\r\n*0\r\n-ERR inside\r\n",
    b"*2\r\n$2\r\n10\r\n*2\r\n$1\r\na\r\n$1\r\nb\r\n",
    b"_\r\n",
    b"#t\r\n",
    b",1.5e10\r\n",
    b",-inf\r\n",
    b"(3492890328409238509324850943850943825024385\r\n",
    b"!11\r\nERR by text\r\n",
    b"=9\r\ntxt:a\r\nb\r\n\r\n",
    b"%2\r\n+a\r\n:1\r\n+b\r\n*1\r\n_\r\n",
    b"~2\r\n+a\r\n+b\r\n",
    b">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n",
    b"|1\r\n+ttl\r\n:3600\r\n$1\r\nv\r\n",
    b"*?\r\n:1\r\n*?\r\n.\r\n.\r\n",
    b"$?\r\n;3\r\nabc\r\n;0\r\n",
    b"%?\r\n+a\r\n:1\r\n.\r\n",
];
