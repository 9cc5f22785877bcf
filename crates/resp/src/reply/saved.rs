//! Where a framer is, as bytes, so that another process goes on with the reply.

use super::{DIGITS_MAX, FIRST_MAX, First, Head, Number, ReplyFramer, STREAMS_MAX, State};

/// Which form the bytes have.
const FORM: u8 = 1;

impl ReplyFramer {
    /// Where it is, for [`ReplyFramer::load`].
    #[must_use]
    pub fn save(&self) -> Vec<u8> {
        let Self {
            state,
            left,
            outer,
            chunks,
            first,
            head,
            error,
        } = self;
        let mut out = vec![FORM];
        match state {
            State::Type => out.push(0),
            State::Text => out.push(1),
            State::Number(number) => {
                let Number {
                    kind,
                    negative,
                    streamed,
                    digits,
                    value,
                    ended,
                } = *number;
                let flags = [negative, streamed, ended].map(u8::from);
                out.extend([2, kind, digits]);
                out.extend(flags);
                out.extend(value.to_le_bytes());
            }
            State::Body(left) => {
                out.push(3);
                out.extend(left.to_le_bytes());
            }
            State::End(missing) => out.extend([4, *missing]),
        }
        out.extend(left.to_le_bytes());
        out.push(u8::try_from(outer.len()).unwrap_or(u8::MAX));
        out.extend(outer.iter().flat_map(|left| left.to_le_bytes()));
        let first = match first {
            First::Unwanted => 0,
            First::Wanted => 1,
            First::Taking => 2,
        };
        out.extend([u8::from(*chunks), first, u8::from(*error)]);
        let Head {
            kind,
            first,
            first_len,
            last_integer,
            null,
        } = head;
        out.extend([*kind, *first_len, u8::from(*null)]);
        out.extend(first);
        out.extend(last_integer.to_le_bytes());
        out
    }

    /// A framer that goes on where another one was; `None`: the bytes are not of one.
    #[must_use]
    pub fn load(saved: &[u8]) -> Option<Self> {
        let mut from = Saved(saved);
        if from.byte()? != FORM {
            return None;
        }
        let state = match from.byte()? {
            0 => State::Type,
            1 => State::Text,
            2 => State::Number(from.number()?),
            3 => State::Body(from.word()?),
            4 => State::End(from.byte().filter(|missing| matches!(missing, 1 | 2))?),
            _ => return None,
        };
        let left = from.word()?;
        let depth = usize::from(from.byte()?);
        if depth > STREAMS_MAX {
            return None;
        }
        let mut outer = Vec::with_capacity(depth);
        for _ in 0..depth {
            outer.push(from.word().filter(|left| *left > 0)?);
        }
        let chunks = from.flag()?;
        let first = match from.byte()? {
            0 => First::Unwanted,
            1 => First::Wanted,
            2 => First::Taking,
            _ => return None,
        };
        let error = from.flag()?;
        let (kind, first_len, null) = (from.byte()?, from.byte()?, from.flag()?);
        let head = Head {
            kind,
            first_len,
            null,
            first: *from.take::<FIRST_MAX>()?,
            last_integer: from.word()? as i64,
        };
        // In the middle of a value there is one to come.
        let sound = (left > 0 || state == State::Type)
            && usize::from(first_len) <= FIRST_MAX
            && from.0.is_empty();
        sound.then_some(Self {
            state,
            left,
            outer,
            chunks,
            first,
            head,
            error,
        })
    }
}

/// What is left of the bytes.
struct Saved<'a>(&'a [u8]);

impl<'a> Saved<'a> {
    fn take<const COUNT: usize>(&mut self) -> Option<&'a [u8; COUNT]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take::<1>().map(|[byte]| *byte)
    }

    fn flag(&mut self) -> Option<bool> {
        match self.byte()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }

    fn word(&mut self) -> Option<u64> {
        self.take().copied().map(u64::from_le_bytes)
    }

    fn number(&mut self) -> Option<Number> {
        let (kind, digits) = (self.byte()?, self.byte()?);
        let (negative, streamed, ended) = (self.flag()?, self.flag()?, self.flag()?);
        let value = self.word()?;
        (digits <= DIGITS_MAX).then_some(Number {
            kind,
            negative,
            streamed,
            digits,
            value,
            ended,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every place in replies of every kind: what goes on there comes to the same end.
    #[test]
    fn another_framer_goes_on_anywhere() {
        let replies: [&[u8]; 7] = [
            b"+OK\r\n",
            b"$11\r\nhello world\r\n",
            b"*3\r\n$7\r\nmessage\r\n:-12\r\n$-1\r\n",
            b"%1\r\n+a\r\n*?\r\n:1\r\n*?\r\n.\r\n.\r\n",
            b"$?\r\n;4\r\nfour\r\n;0\r\n",
            b"|1\r\n+ttl\r\n:3\r\n>2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n",
            b"*2\r\n-ERR x\r\n_\r\n",
        ];
        for reply in replies {
            for at in 0..=reply.len() {
                let mut one = ReplyFramer::default();
                let before = one.advance_to_error(&reply[..at]).unwrap();
                let mut other = ReplyFramer::load(&one.save()).unwrap();
                assert_eq!(one.at_start(), other.at_start());
                assert_eq!(one.in_error(), other.in_error());
                let mut rest = &reply[before.consumed..];
                while !rest.is_empty() {
                    let (a, b) = (one.advance(rest), other.advance(rest));
                    assert_eq!(a, b);
                    rest = &rest[a.unwrap().consumed..];
                }
                assert_eq!(one.head(), other.head());
                assert!(other.at_start());
            }
        }
        assert!(ReplyFramer::load(b"").is_none() && ReplyFramer::load(&[1, 9]).is_none());
    }
}
