//! Where an engine's reply ends.
//!
//! [`ReplyFramer`] is fed whatever arrived and says how far the reply goes that is being read. It
//! consumes every byte that it sees and holds none: a large reply flows through. What is still to
//! come is a count of values and of bytes, so nesting needs no memory, except for streamed
//! aggregates (`*?`), whose depth is bounded.

use memchr::memchr;

/// Deepest nesting of streamed aggregates.
const STREAMS_MAX: usize = 32;
/// Most bytes of a number in a header.
const DIGITS_MAX: u8 = 20;
/// Bytes of a reply's first element that [`Head::first`] keeps.
const FIRST_MAX: usize = 16;

/// The bytes are not a reply. The connection cannot be understood any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplyError {
    /// A value begins with something else than a type.
    #[error("the engine sent a reply of the unknown type 0x{0:02x}")]
    UnknownType(u8),
    /// A length or count is no number, or too large.
    #[error("the engine sent a reply with a bad length")]
    BadLength,
    /// CR LF is missing.
    #[error("the engine sent a reply without its end")]
    BadEnd,
    /// Streamed aggregates in one another, too deep.
    #[error("the engine sent a reply that is nested too deep")]
    TooDeep,
}

/// What [`ReplyFramer::advance`] consumed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Advance {
    /// Bytes of the input that belong to the reply: all of them unless it is complete.
    pub consumed: usize,
    /// Whether the reply ends with them.
    pub complete: bool,
}

/// What is known of a reply while and after it is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// Its type (`+`, `-`, `*`, `>` …) after any attributes; 0: not seen yet.
    pub kind: u8,
    first: [u8; FIRST_MAX],
    first_len: u8,
    /// The last integer in it.
    pub last_integer: i64,
    /// Whether it is a null of any kind.
    pub null: bool,
}

impl Head {
    /// The first element of an aggregate if it is a bulk string (its first 16 bytes).
    #[must_use]
    pub fn first(&self) -> &[u8] {
        &self.first[..usize::from(self.first_len)]
    }

    /// Whether it is an error.
    #[must_use]
    pub fn is_error(&self) -> bool {
        matches!(self.kind, b'-' | b'!')
    }
}

/// How many bytes the whole simple replies at the start of `input` have, at most `most` of them, how
/// many there are, and how many of those are errors. Simple are strings, errors without an `@`, numbers
/// and nulls; at any other reply, and at one that is not whole, it stops: [`ReplyFramer`] has the last
/// word.
#[inline]
#[must_use]
pub fn simple_run(input: &[u8], most: u32) -> (usize, u32, u32) {
    let (mut at, mut count, mut errors) = (0, 0, 0);
    while count < most {
        let Some(length) = input.get(at..).and_then(|rest| simple(rest, &mut errors)) else {
            break;
        };
        at += length;
        count += 1;
    }
    (at, count, errors)
}

/// The length of the simple reply at the start of `rest`, if it is whole. Counts errors.
#[inline]
fn simple(rest: &[u8], errors: &mut u32) -> Option<usize> {
    let (kind, text) = rest.split_first()?;
    match kind {
        b'+' => memchr(b'\n', text).map(|end| end + 2),
        // One with an `@` may name a user that is nothing to the client: it is looked at.
        b'-' => {
            let end = memchr(b'\n', text)?;
            if memchr(b'@', &text[..end]).is_some() {
                return None;
            }
            *errors += 1;
            Some(end + 2)
        }
        b':' => {
            let digits = text.strip_prefix(b"-").unwrap_or(text);
            let end = digits.iter().take(19).position(|byte| *byte == b'\r')?;
            let whole = end > 0
                && digits[..end].iter().all(u8::is_ascii_digit)
                && digits.get(end + 1) == Some(&b'\n');
            whole.then(|| rest.len() - digits.len() + end + 2)
        }
        b'_' => text.starts_with(b"\r\n").then_some(3),
        b'$' if text.starts_with(b"-1\r\n") => Some(5),
        b'$' => {
            let mut length = 0;
            for (index, byte) in text.iter().take(9).enumerate() {
                let digit = byte.wrapping_sub(b'0');
                if digit <= 9 {
                    length = length * 10 + usize::from(digit);
                    continue;
                }
                let end = 1 + index + 2 + length + 2;
                let whole = index > 0
                    && text[index..].starts_with(b"\r\n")
                    && rest.get(end - 2..end)? == b"\r\n";
                return whole.then_some(end);
            }
            None
        }
        _ => None,
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// Before the type of a value.
    #[default]
    Type,
    /// In a line that ends a value, after its type.
    Text,
    /// In a line with a number.
    Number(Number),
    /// In a body: bytes to come, without CR LF.
    Body(u64),
    /// Before CR (2) or LF (1) of a body.
    End(u8),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Number {
    kind: u8,
    negative: bool,
    streamed: bool,
    digits: u8,
    value: u64,
    ended: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum First {
    #[default]
    Unwanted,
    Wanted,
    Taking,
}

/// Finds the ends of replies, see the module's text.
#[derive(Clone, Debug, Default)]
pub struct ReplyFramer {
    state: State,
    /// Values to come at this level of streaming; 0: between two of them.
    left: u64,
    /// `left` of the outer levels.
    outer: Vec<u64>,
    /// Inside a streamed string.
    chunks: bool,
    first: First,
    head: Head,
}

impl ReplyFramer {
    /// Whether the next byte begins a reply.
    #[must_use]
    pub fn at_start(&self) -> bool {
        self.left == 0 && self.outer.is_empty() && self.state == State::Type
    }

    /// What is known of the reply that is being read or was read last.
    #[must_use]
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// Bytes of a body that are still to come: how much can be passed on unseen.
    #[must_use]
    pub fn body_left(&self) -> u64 {
        match self.state {
            State::Body(left) => left,
            _ => 0,
        }
    }

    /// Reads on until the reply or the input ends.
    ///
    /// # Errors
    /// The input is not RESP.
    #[inline]
    pub fn advance(&mut self, input: &[u8]) -> Result<Advance, ReplyError> {
        let mut at = 0;
        while at < input.len() {
            at += self.step(&input[at..])?;
            if self.at_start() {
                return Ok(Advance {
                    consumed: at,
                    complete: true,
                });
            }
        }
        Ok(Advance {
            consumed: at,
            complete: false,
        })
    }

    /// One step; `rest` is not empty. Returns the bytes that it took.
    #[inline]
    fn step(&mut self, rest: &[u8]) -> Result<usize, ReplyError> {
        match self.state {
            State::Type => self.begin(rest[0]).map(|()| 1),
            State::Text => match memchr(b'\n', rest) {
                None => Ok(rest.len()),
                Some(end) => {
                    self.value_done();
                    Ok(end + 1)
                }
            },
            State::Number(number) => self.number(number, rest),
            State::Body(left) => {
                let now = left.min(rest.len() as u64);
                self.take_first(&rest[..now as usize]);
                self.state = if now == left {
                    State::End(2)
                } else {
                    State::Body(left - now)
                };
                Ok(now as usize)
            }
            State::End(missing) => {
                if rest[0] != if missing == 2 { b'\r' } else { b'\n' } {
                    return Err(ReplyError::BadEnd);
                }
                if missing == 2 {
                    self.state = State::End(1);
                } else if self.chunks {
                    self.state = State::Type;
                } else {
                    self.value_done();
                }
                Ok(1)
            }
        }
    }

    fn begin(&mut self, kind: u8) -> Result<(), ReplyError> {
        if self.chunks && kind != b';' {
            return Err(ReplyError::UnknownType(kind));
        }
        if self.left == 0 && kind != b'.' {
            if self.outer.is_empty() {
                self.head = Head::default();
                self.first = First::Unwanted;
            }
            self.left = 1;
        }
        match self.first {
            First::Wanted if kind == b'$' => self.first = First::Taking,
            First::Wanted => self.first = First::Unwanted,
            _ => {}
        }
        if self.head.kind == 0 && self.left == 1 && self.outer.is_empty() && kind != b'|' {
            self.head.kind = kind;
            if matches!(kind, b'*' | b'>') {
                self.first = First::Wanted;
            }
        }
        self.state = match kind {
            b'+' | b'-' | b',' | b'(' | b'#' => State::Text,
            b'_' => {
                self.head.null |= self.head.kind == b'_';
                State::Text
            }
            b'.' if self.left == 0 && !self.outer.is_empty() => State::Text,
            b':' | b'$' | b'!' | b'=' | b'*' | b'~' | b'>' | b'%' | b'|' => numbered(kind),
            b';' if self.chunks => numbered(kind),
            other => return Err(ReplyError::UnknownType(other)),
        };
        if kind == b'.' {
            // The aggregate that ends here is itself one value of the outer level.
            self.left = self.outer.pop().ok_or(ReplyError::UnknownType(kind))?;
        }
        Ok(())
    }

    fn number(&mut self, mut number: Number, rest: &[u8]) -> Result<usize, ReplyError> {
        for (index, byte) in rest.iter().enumerate() {
            match byte {
                b'0'..=b'9' if !number.ended && !number.streamed => {
                    number.digits += 1;
                    if number.digits > DIGITS_MAX {
                        return Err(ReplyError::BadLength);
                    }
                    number.value = number
                        .value
                        .checked_mul(10)
                        .and_then(|value| value.checked_add(u64::from(byte - b'0')))
                        .ok_or(ReplyError::BadLength)?;
                }
                b'-' if number.digits == 0 && !number.negative && !number.ended => {
                    number.negative = true;
                }
                b'+' if number.kind == b':' && number.digits == 0 && !number.ended => {}
                b'?' if number.digits == 0 && !number.negative && !number.ended => {
                    number.streamed = true;
                }
                b'\r' if !number.ended && (number.digits > 0 || number.streamed) => {
                    number.ended = true;
                }
                b'\n' if number.ended => {
                    self.numbered(number)?;
                    return Ok(index + 1);
                }
                _ => return Err(ReplyError::BadLength),
            }
        }
        self.state = State::Number(number);
        Ok(rest.len())
    }

    /// A line with a number has ended.
    fn numbered(&mut self, number: Number) -> Result<(), ReplyError> {
        let Number {
            kind,
            negative,
            streamed,
            value,
            ..
        } = number;
        if kind == b':' {
            if streamed {
                return Err(ReplyError::BadLength);
            }
            let signed = if negative {
                -i128::from(value)
            } else {
                i128::from(value)
            };
            self.head.last_integer = i64::try_from(signed).map_err(|_| ReplyError::BadLength)?;
            self.value_done();
            return Ok(());
        }
        if negative {
            if value != 1 || !matches!(kind, b'$' | b'*') {
                return Err(ReplyError::BadLength);
            }
            // The last element of an array may be a null array, too: then the first one has been seen.
            let whole = kind == b'$' || self.first == First::Wanted;
            self.first = First::Unwanted;
            self.head.null |=
                whole && self.left == 1 && self.outer.is_empty() && self.head.kind == kind;
            self.value_done();
            return Ok(());
        }
        match kind {
            b'$' | b'!' | b'=' if !streamed => self.state = State::Body(value),
            b'$' => {
                self.chunks = true;
                self.state = State::Type;
            }
            b';' if streamed => return Err(ReplyError::BadLength),
            b';' if value == 0 => {
                self.chunks = false;
                self.value_done();
            }
            b';' => self.state = State::Body(value),
            _ => self.aggregate(kind, streamed, value)?,
        }
        Ok(())
    }

    fn aggregate(&mut self, kind: u8, streamed: bool, count: u64) -> Result<(), ReplyError> {
        self.state = State::Type;
        if streamed {
            if self.outer.len() == STREAMS_MAX || matches!(kind, b'|' | b'!' | b'=') {
                return Err(ReplyError::TooDeep);
            }
            self.outer.push(self.left);
            self.left = 0;
            return Ok(());
        }
        let values = match kind {
            b'%' | b'|' => count.checked_mul(2).ok_or(ReplyError::BadLength)?,
            _ => count,
        };
        self.left = self.left.checked_add(values).ok_or(ReplyError::BadLength)?;
        if kind != b'|' {
            self.value_done();
        }
        Ok(())
    }

    fn value_done(&mut self) {
        self.state = State::Type;
        if self.first == First::Taking {
            self.first = First::Unwanted;
        }
        self.left -= 1;
    }

    #[inline]
    fn take_first(&mut self, bytes: &[u8]) {
        if self.first != First::Taking {
            return;
        }
        for byte in bytes {
            let Some(place) = self.head.first.get_mut(usize::from(self.head.first_len)) else {
                return;
            };
            *place = *byte;
            self.head.first_len += 1;
        }
    }
}

fn numbered(kind: u8) -> State {
    State::Number(Number {
        kind,
        negative: false,
        streamed: false,
        digits: 0,
        value: 0,
        ended: false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::Value;
    use proptest::prelude::*;

    fn whole(bytes: &[u8]) -> Head {
        let mut framer = ReplyFramer::default();
        let got = framer.advance(bytes).unwrap();
        assert_eq!(
            got,
            Advance {
                consumed: bytes.len(),
                complete: true
            },
            "{bytes:?}"
        );
        *framer.head()
    }

    proptest! {
        /// A run of simple replies ends where the framer says that so many replies end.
        #[test]
        fn simple_runs_are_the_framers(
            order in proptest::collection::vec(0..REPLIES.len(), 0..8),
            cut in 0_usize..120,
            change in 0_usize..120,
            byte in any::<u8>(),
            most in 0_u32..6,
        ) {
            let mut bytes: Vec<u8> = order.iter().flat_map(|index| REPLIES[*index]).copied().collect();
            if let Some(at) = bytes.get_mut(change) {
                *at = byte;
            }
            for input in [&bytes[..], &bytes[..cut.min(bytes.len())]] {
                let (length, count, errors) = simple_run(input, most);
                prop_assert!(count <= most);
                let (mut at, mut wrong) = (0, 0);
                for _ in 0..count {
                    let mut framer = ReplyFramer::default();
                    let got = framer.advance(&input[at..]).unwrap();
                    prop_assert!(got.complete);
                    at += got.consumed;
                    wrong += u32::from(framer.head().is_error());
                }
                prop_assert_eq!((at, wrong), (length, errors));
            }
        }
    }

    #[test]
    fn simple_runs_stop_at_others() {
        let input = b"+OK\r\n:-12\r\n$3\r\nabc\r\n$-1\r\n-ERR x\r\n*0\r\n+OK\r\n";
        assert_eq!(simple_run(input, 10), (33, 5, 1));
        assert_eq!(simple_run(input, 2), (11, 2, 0));
        assert_eq!(simple_run(b"$3\r\nab", 2), (0, 0, 0));
        assert_eq!(simple_run(b">2\r\n", 2), (0, 0, 0));
    }

    /// Every way to write a reply, RESP2 and RESP3, streamed ones too.
    const REPLIES: &[&[u8]] = &[
        b"+OK\r\n",
        b"-ERR no\r\n",
        b":-12\r\n",
        b":+7\r\n",
        b"$0\r\n\r\n",
        b"$5\r\na\r\nbc\r\n",
        b"$-1\r\n",
        b"*-1\r\n",
        b"*0\r\n",
        b"*2\r\n*2\r\n:1\r\n$1\r\nx\r\n*0\r\n",
        b"_\r\n",
        b"#t\r\n",
        b",-1.5e3\r\n",
        b",inf\r\n",
        b"(3492890328409238509324850943850943825024385\r\n",
        b"!7\r\nERR bad\r\n",
        b"=7\r\ntxt:abc\r\n",
        b"%2\r\n+a\r\n:1\r\n+b\r\n*1\r\n:2\r\n",
        b"%0\r\n",
        b"~2\r\n:1\r\n:2\r\n",
        b">3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$1\r\nm\r\n",
        b"|1\r\n+ttl\r\n:3600\r\n$3\r\nabc\r\n",
        b"|0\r\n+x\r\n",
        b"*2\r\n|1\r\n+a\r\n*1\r\n:1\r\n:5\r\n:6\r\n",
        b"$?\r\n;4\r\nHell\r\n;1\r\no\r\n;0\r\n",
        b"*?\r\n:1\r\n*2\r\n:2\r\n:3\r\n$?\r\n;1\r\nx\r\n;0\r\n.\r\n",
        b"%?\r\n+a\r\n*?\r\n:1\r\n.\r\n.\r\n",
        b"*2\r\n*?\r\n.\r\n:1\r\n",
    ];

    #[test]
    fn every_type_at_every_split() {
        for reply in REPLIES {
            whole(reply);
            for split in 0..reply.len() {
                let mut framer = ReplyFramer::default();
                let got = framer.advance(&reply[..split]).unwrap();
                assert_eq!(
                    got,
                    Advance {
                        consumed: split,
                        complete: false
                    }
                );
                let rest = [&reply[split..], b"+next"].concat();
                let got = framer.advance(&rest).unwrap();
                let wanted = Advance {
                    consumed: reply.len() - split,
                    complete: true,
                };
                assert_eq!(
                    got,
                    wanted,
                    "{:?} at {split}",
                    String::from_utf8_lossy(reply)
                );
            }
        }
    }

    #[test]
    fn what_is_known() {
        let head = whole(b">3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:3\r\n");
        assert_eq!(
            (head.kind, head.first(), head.last_integer),
            (b'>', &b"subscribe"[..], 3)
        );
        let head =
            whole(b"|1\r\n+a\r\n*1\r\n$1\r\nz\r\n*2\r\n$20\r\n01234567890123456789\r\n:1\r\n");
        assert_eq!((head.kind, head.first()), (b'*', &b"0123456789012345"[..]));
        assert!(whole(b"*-1\r\n").null && whole(b"_\r\n").null && whole(b"$-1\r\n").null);
        assert!(!whole(b"*2\r\n_\r\n$-1\r\n").null);
        assert!(!whole(b"*1\r\n*-1\r\n").null && !whole(b"*2\r\n+OK\r\n*-1\r\n").null);
        assert_eq!(whole(b"*2\r\n:1\r\n$1\r\nx\r\n").first(), b"");
        assert!(whole(b"-ERR\r\n").is_error() && whole(b"!3\r\nERR\r\n").is_error());
    }

    #[test]
    fn what_is_no_reply() {
        for wrong in [
            &b"x"[..],
            b"$x",
            b"$-2\r\n",
            b"$1\r\nab",
            b".\r\n",
            b";1\r\n",
            b"*1\n",
            b":\r\n",
            b"$99999999999999999999999",
            b"*18446744073709551615\r\n",
            b"%-1\r\n",
            b":99999999999999999999\r\n",
        ] {
            let mut framer = ReplyFramer::default();
            assert!(
                framer.advance(wrong).is_err(),
                "{:?}",
                String::from_utf8_lossy(wrong)
            );
        }
        let mut framer = ReplyFramer::default();
        assert_eq!(
            framer.advance(&b"*?\r\n".repeat(100)),
            Err(ReplyError::TooDeep)
        );
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            "[a-z ]{0,12}".prop_map(|text| Value::Simple(text.into_bytes())),
            "[A-Z]{3} [a-z ]{0,12}".prop_map(|text| Value::Error(text.into_bytes())),
            any::<i64>().prop_map(Value::Integer),
            prop::collection::vec(any::<u8>(), 0..60).prop_map(Value::Bulk),
            Just(Value::Null),
            any::<bool>().prop_map(Value::Boolean),
            any::<f64>().prop_map(|double| Value::Double(double.to_string().into_bytes())),
            "[0-9]{25,40}".prop_map(|digits| Value::BigNumber(digits.into_bytes())),
            "[a-z]{0,20}".prop_map(|text| Value::Verbatim(format!("txt:{text}").into_bytes())),
            "[a-z]{0,20}".prop_map(|text| Value::BulkError(text.into_bytes())),
        ];
        leaf.prop_recursive(4, 48, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::Array),
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::Set),
                prop::collection::vec(inner.clone(), 1..6).prop_map(Value::Push),
                prop::collection::vec((inner.clone(), inner), 0..4).prop_map(Value::Map),
            ]
        })
    }

    proptest! {
        #[test]
        fn ends_and_values_at_every_split(values in prop::collection::vec(value(), 1..4)) {
            let mut stream = Vec::new();
            let mut wanted = Vec::new();
            for value in &values {
                value.encode(&mut stream);
                wanted.push(stream.len());
            }
            for split in 0..=stream.len() {
                let mut framer = ReplyFramer::default();
                let (mut ends, mut at) = (Vec::new(), 0);
                for piece in [&stream[..split], &stream[split..]] {
                    let mut rest = piece;
                    while !rest.is_empty() {
                        let got = framer.advance(rest).unwrap();
                        at += got.consumed;
                        rest = &rest[got.consumed..];
                        if got.complete {
                            ends.push(at);
                        }
                    }
                }
                prop_assert_eq!(&ends, &wanted);
            }
            let mut rest = &stream[..];
            for value in &values {
                let (read, used) = Value::decode(rest).unwrap();
                prop_assert_eq!(&read, value);
                rest = &rest[used..];
            }
        }

        #[test]
        fn never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut framer = ReplyFramer::default();
            let mut rest = &bytes[..];
            while let Ok(got) = framer.advance(rest) {
                rest = &rest[got.consumed..];
                if rest.is_empty() { break; }
            }
            let _ = Value::decode(&bytes);
        }
    }
}
