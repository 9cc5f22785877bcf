//! What is sent to shards that no client asked for, and how it stays out of what clients see by `MONITOR`.

use super::Worker;
use model::own_words;
use resp::request::encode;
use std::ops::Range;

/// An address in a line of `MONITOR` is never longer: that of a unix socket is up to 108 bytes.
const BEFORE_NAME_MAX: usize = 512;
/// What is before a command's name.
const BEFORE_NAME: &[u8] = b"] \"";
/// The same if a script runs it: that is a client's.
const SCRIPT: &[u8] = b" lua] \"";

/// Appends a command of the proxy's own, spelled so that it can be told from those of clients.
pub(super) fn encode_own<'a>(
    words: impl IntoIterator<Item = &'a [u8], IntoIter: ExactSizeIterator>,
    out: &mut Vec<u8>,
) {
    let start = out.len();
    encode(words, out);
    spell(&mut out[start..]);
}

/// Appends a command of a client that is said once more on its behalf.
pub(super) fn encode_again(frame: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(frame);
    spell(&mut out[start..]);
}

/// Spells the name of the command at the start of `frame` as the platform does.
fn spell(frame: &mut [u8]) {
    if let Some(name) = name(frame) {
        own_words::spell(&mut frame[name]);
    }
}

/// Where the name of a command is.
fn name(frame: &[u8]) -> Option<Range<usize>> {
    let mut ends = memchr::memchr_iter(b'\n', frame);
    let (_, length) = (ends.next()?, ends.next()?);
    let rest = &frame[length + 1..];
    Some(length + 1..length + 1 + memchr::memchr(b'\r', rest)?)
}

/// What is to be done with a line of `MONITOR`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// The client gets it.
    Shown,
    /// It is about the platform's own work.
    Hidden,
    /// It has not come far enough.
    Unknown,
}

impl Line {
    /// Of the beginning of a line, or of a whole one.
    pub(super) fn of(line: &[u8], whole: bool) -> Self {
        let unknown = if whole || line.len() > BEFORE_NAME_MAX {
            Self::Shown
        } else {
            Self::Unknown
        };
        let Some(at) = memchr::memmem::find(line, BEFORE_NAME) else {
            return unknown;
        };
        let start = at + BEFORE_NAME.len();
        if line[..start].ends_with(SCRIPT) {
            return Self::Shown;
        }
        let Some(length) = memchr::memchr(b'"', &line[start..]) else {
            return unknown;
        };
        // Only connections of the platform say these: for clients, the proxy answers them.
        let name = &line[start..start + length];
        let greeting = [&b"HELLO"[..], b"AUTH"]
            .iter()
            .any(|known| name.eq_ignore_ascii_case(known));
        if greeting || own_words::is_own(name) {
            Self::Hidden
        } else {
            Self::Shown
        }
    }
}

impl Worker {
    /// Takes a line of `MONITOR`, or a part of one: its beginning is kept until it says whose work it is about.
    pub(super) fn take_line(
        &mut self,
        index: usize,
        client: usize,
        bytes: &[u8],
        range: Range<usize>,
        complete: bool,
    ) {
        let backend = &mut self.backends[index];
        if backend.passed_on {
            backend.passed_on = !complete;
            self.deliver(client, bytes, range);
            return;
        }
        let part = &bytes[range.clone()];
        if backend.error_line.is_empty() {
            match Line::of(part, complete) {
                Line::Shown => {
                    backend.passed_on = !complete;
                    self.deliver(client, bytes, range);
                }
                Line::Hidden if complete => {}
                Line::Hidden | Line::Unknown => backend.error_line.extend_from_slice(part),
            }
            return;
        }
        // Of a line that is hidden, no more is needed than what says so.
        if Line::of(&backend.error_line, false) != Line::Hidden {
            backend.error_line.extend_from_slice(part);
        }
        match Line::of(&backend.error_line, complete) {
            Line::Shown => {
                backend.passed_on = !complete;
                let line = std::mem::take(&mut backend.error_line);
                self.give(client, &line, bytes);
            }
            Line::Hidden if complete => backend.error_line.clear(),
            Line::Hidden | Line::Unknown => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_platform_are_known() {
        for line in [
            &b"+1795698780.114501 [0 unix:/run/[1]/s] \"HELLO\" \"2\" \"AUTH\" \"(redacted)\"\r\n"
                [..],
            b"+1.0 [0 unix:/run/1.sock] \"AUTH\" \"(redacted)\"\r\n",
            b"+1.0 [0 unix:/run/1.sock] \"iNFO\"\r\n",
            b"+1.0 [0 127.0.0.1:20000] \"pING\"\r\n",
            b"+1.0 [3 [::1]:20000] \"sELECT\" \"3\"\r\n",
        ] {
            assert_eq!(Line::of(line, true), Line::Hidden);
            let decided = line.iter().rposition(|byte| *byte == b'"').unwrap();
            for end in 0..line.len() {
                let found = Line::of(&line[..end], false);
                assert_ne!(found, Line::Shown, "{end}");
                assert!(end <= decided || found == Line::Hidden, "{end}");
            }
        }
    }

    #[test]
    fn lines_of_clients_are_shown() {
        for line in [
            &b"+1.0 [0 127.0.0.1:1] \"SET\" \"a\" \"] \\\"HELLO\\\" \"\r\n"[..],
            b"+1.0 [0 127.0.0.1:1] \"SET\" \"a\" \"] \\\"pING\"\r\n",
            b"+1.0 [0 lua] \"GET\" \"HELLO\"\r\n",
            b"+1.0 [0 lua] \"iNFO\"\r\n",
            b"+1.0 [0 unix:/run/1.sock] \"info\"\r\n",
            b"+1.0 [0 unix:/run/1.sock] \"Ping\"\r\n",
            b"+OK\r\n",
        ] {
            assert_eq!(Line::of(line, true), Line::Shown);
            for end in 0..line.len() {
                assert_ne!(Line::of(&line[..end], false), Line::Hidden, "{end}");
            }
        }
        let long = [b"+1.0 [0 ", &b"x".repeat(BEFORE_NAME_MAX)[..]].concat();
        assert_eq!(Line::of(&long, false), Line::Shown);
    }

    #[test]
    fn own_commands_are_spelled() {
        let mut out = b"before".to_vec();
        encode_own([&b"CLIENT"[..], b"NO-TOUCH", b"ON"], &mut out);
        encode_again(b"*2\r\n$9\r\nsubscribe\r\n$1\r\na\r\n", &mut out);
        let wanted = "before*3\r\n$6\r\ncLIENT\r\n$8\r\nNO-TOUCH\r\n$2\r\nON\r\n*2\r\n$9\r\nsUBSCRIBE\r\n$1\r\na\r\n";
        assert_eq!(out, wanted.as_bytes());
    }
}
