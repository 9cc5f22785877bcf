//! Where an engine's reply ends.
//!
//! [`ReplyFramer`] is fed whatever arrived and says how far the reply goes that is being read. It
//! consumes every byte that it sees and holds none: a large reply flows through. What is still to
//! come is a count of values and of bytes, so nesting needs no memory, except for streamed
//! aggregates (`*?`), whose depth is bounded.

mod saved;

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
    /// What [`ReplyFramer::advance_to_error`] consumed last is of an error.
    error: bool,
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

    /// As [`ReplyFramer::advance`], but it stops before a simple error inside the reply and after it, too:
    /// what it consumes is all of one error, or has none in it. [`ReplyFramer::in_error`] says which.
    ///
    /// # Errors
    /// The input is not RESP.
    #[inline]
    pub fn advance_to_error(&mut self, input: &[u8]) -> Result<Advance, ReplyError> {
        let mut at = 0;
        self.error &= self.state == State::Text;
        while at < input.len() {
            if self.state == State::Type && input[at] == b'-' {
                if at > 0 {
                    break;
                }
                self.error = true;
            }
            at += self.step(&input[at..])?;
            if self.at_start() {
                return Ok(Advance {
                    consumed: at,
                    complete: true,
                });
            }
            if self.error && self.state == State::Type {
                break;
            }
        }
        Ok(Advance {
            consumed: at,
            complete: false,
        })
    }

    /// Whether what [`ReplyFramer::advance_to_error`] consumed last is of a simple error; then also whether
    /// that is whole.
    #[must_use]
    pub fn in_error(&self) -> Option<bool> {
        self.error.then_some(self.state == State::Type)
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
        // Redis 6.2 and 7.0 put a message that a transaction causes between the elements of what `EXEC` replies: it is
        // none of them.
        let between = kind == b'>' && self.head.kind != b'>';
        if kind != b'|' && !between {
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
mod tests;
