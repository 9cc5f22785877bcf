//! Cursors of `SCAN`, `HSCAN`, `SSCAN` and `ZSCAN`, which outlive a move of the primary.
//!
//! The engine's cursor is a place in the tables of one process. Another process lays its tables out by another random
//! seed, so a scan that went on there would miss keys. A client's cursor is therefore `engine cursor * 1000 + mark`,
//! where the mark is the epoch of the shard, modulo 1000. A cursor with another mark begins anew at that shard: what was
//! there from the scan's beginning to its end is returned at least once, as the engine promises it, moves or not.

use crate::merge::walk;
use model::Epoch;
use resp::request::{Args, encode};

/// How many marks there are: so many epochs must pass within one scan until a mark is taken for another's.
const MARKS: u64 = 1000;
/// Longest beginning of a reply, up to the end of the cursor: `*2`, `$20` and the 20 digits of the largest number.
const HEAD_MAX: usize = "*2\r\n$20\r\n\r\n".len() + 20;

/// Under which epoch of its shard a cursor was given out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark(u16);

impl Mark {
    pub(crate) fn of(epoch: Epoch) -> Self {
        Self(u16::try_from(epoch.0 % MARKS).unwrap_or_default())
    }
}

/// Digits only, as every cursor is that was ever given out.
pub(crate) fn number(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// A command with the engine's cursor instead of the client's; `None`: it goes as it is. What is no cursor is left to
/// the engine, which says so.
pub(crate) fn to_engine(frame: &[u8], mark: Mark) -> Option<Vec<u8>> {
    with_cursor(frame, |cursor| match cursor {
        cursor if cursor % MARKS == u64::from(mark.0) => cursor / MARKS,
        _ => 0,
    })
}

/// A command with the engine's cursor, as it begins anew at another process; `None`: it goes as it is.
pub(crate) fn begun_anew(frame: &[u8]) -> Option<Vec<u8>> {
    with_cursor(frame, |_| 0)
}

fn with_cursor(frame: &[u8], other: impl FnOnce(u64) -> u64) -> Option<Vec<u8>> {
    let mut words: Vec<&[u8]> = Args::of(frame).collect();
    let at = if words.first()?.len() == "SCAN".len() {
        1
    } else {
        2
    };
    let known = number(words.get(at)?).filter(|known| *known > 0)?;
    let new = other(known).to_string();
    words[at] = new.as_bytes();
    let mut changed = Vec::with_capacity(frame.len());
    encode(words, &mut changed);
    Some(changed)
}

/// The beginning of a reply with a cursor.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Beginning {
    /// The cursor is not whole.
    Short,
    /// The reply goes to the client as it is: the scan is over, or it is no such reply.
    Same,
    /// So many bytes of it are replaced by these.
    Marked(usize, Vec<u8>),
}

impl Beginning {
    /// Looks at what has come of a reply.
    pub(crate) fn of(reply: &[u8], mark: Mark) -> Self {
        match Self::cursor(reply) {
            None if reply.len() < HEAD_MAX => Self::Short,
            None => Self::Same,
            Some((_, 0)) => Self::Same,
            Some((length, engine)) => {
                let marked = engine.checked_mul(MARKS);
                match marked.and_then(|cursor| cursor.checked_add(u64::from(mark.0))) {
                    Some(cursor) => {
                        let mut head = Vec::with_capacity(HEAD_MAX);
                        walk::open(b'*', 2, &mut head);
                        walk::text(b'$', cursor.to_string().as_bytes(), &mut head);
                        Self::Marked(length, head)
                    }
                    None => Self::Same,
                }
            }
        }
    }

    /// The engine's cursor, and where what follows it begins.
    fn cursor(reply: &[u8]) -> Option<(usize, u64)> {
        let (2, rest) = walk::aggregate(reply)? else {
            return None;
        };
        let length = walk::length(&rest[..rest.len().min(HEAD_MAX)])?;
        let cursor = number(walk::bulk(&rest[..length])?)?;
        Some((reply.len() - rest.len() + length, cursor))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(words: &[&str]) -> Vec<u8> {
        let mut frame = Vec::new();
        encode(words.iter().map(|word| word.as_bytes()), &mut frame);
        frame
    }

    #[test]
    fn a_cursor_goes_back_to_the_epoch_that_gave_it() {
        let (old, new) = (Mark::of(Epoch(41)), Mark::of(Epoch(42)));
        let reply = b"*2\r\n$4\r\n5120\r\n*1\r\n$1\r\na\r\n";
        let Beginning::Marked(length, head) = Beginning::of(reply, old) else {
            panic!("no cursor");
        };
        assert_eq!(head, b"*2\r\n$7\r\n5120041\r\n");
        assert_eq!(&reply[length..], b"*1\r\n$1\r\na\r\n");
        for (words, at) in [
            (&["SCAN", "5120041"][..], 1),
            (&["hscan", "k", "5120041", "COUNT", "7"], 2),
        ] {
            let mut wanted = words.to_vec();
            wanted[at] = "5120";
            assert_eq!(to_engine(&frame(words), old), Some(frame(&wanted)));
            wanted[at] = "0";
            assert_eq!(to_engine(&frame(words), new), Some(frame(&wanted)));
            assert_eq!(begun_anew(&frame(words)), Some(frame(&wanted)));
        }
        // A thousand epochs later the mark is the same: that is how long a cursor may live.
        assert_eq!(Mark::of(Epoch(1041)), old);
    }

    #[test]
    fn what_is_no_cursor_is_the_engines_business() {
        let mark = Mark::of(Epoch(1));
        for words in [
            &["SCAN"][..],
            &["SCAN", "0"],
            &["SCAN", "x"],
            &["SCAN", "-1"],
            &["SCAN", "18446744073709551616"],
            &["ZSCAN", "1"],
            &["ZSCAN", "1", "0"],
        ] {
            assert_eq!(to_engine(&frame(words), mark), None, "{words:?}");
        }
        for reply in [
            &b"*2\r\n$1\r\n0\r\n*0\r\n"[..],
            b"*3\r\n$1\r\n7\r\n$1\r\n7\r\n$1\r\n7\r\n$1\r\n7\r\n",
            b"*2\r\n$20\r\n18446744073709551615\r\n*0\r\n",
            b"*2\r\n$60\r\n                                                            \r\n*0\r\n",
        ] {
            assert_eq!(Beginning::of(reply, mark), Beginning::Same);
        }
    }

    #[test]
    fn it_may_come_in_pieces() {
        let mark = Mark::of(Epoch(7));
        let reply = b"*2\r\n$16\r\n1844674407370955\r\n*1\r\n$1\r\na\r\n";
        let cursor = b"*2\r\n$16\r\n1844674407370955\r\n".len();
        for end in 0..reply.len() {
            let found = Beginning::of(&reply[..end], mark);
            match end < cursor {
                true => assert_eq!(found, Beginning::Short, "{end}"),
                false => assert!(
                    matches!(found, Beginning::Marked(at, _) if at == cursor),
                    "{end}"
                ),
            }
        }
    }
}
