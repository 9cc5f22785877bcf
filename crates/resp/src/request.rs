//! Where a client's command ends.
//!
//! [`RequestFramer`] is fed the bytes of a connection in pieces of any size and says how many of
//! them belong to the command that is being read. It keeps no bytes: a caller that wants the whole
//! command keeps them, one that passes a large command on as it comes need not.

use crate::number::strict_i64;
use memchr::memchr;

/// Longest line: an inline command, or a header like `*3` or `$5`; bytes.
pub const LINE_MAX: usize = 64 * 1024;
/// Longest argument, bytes.
pub const BULK_MAX: u64 = 512 * 1024 * 1024;
/// Most arguments of a command. Engines before 7.0 take 1,048,576: they refuse more themselves.
pub const ARGS_MAX: u64 = i32::MAX as u64;

/// What a connection may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestLimits {
    /// Whether the client has shown its password. Before that, commands are kept small.
    pub authenticated: bool,
}

impl RequestLimits {
    const UNAUTHENTICATED_ARGS: u64 = 10;
    const UNAUTHENTICATED_BULK: u64 = 16 * 1024;
}

/// Why the bytes of a client cannot be understood. The text is the engines' own; after it the
/// connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// An inline command without an end.
    #[error("Protocol error: too big inline request")]
    InlineTooBig,
    /// `*` without an end.
    #[error("Protocol error: too big mbulk count string")]
    CountTooBig,
    /// `$` without an end.
    #[error("Protocol error: too big bulk count string")]
    BulkCountTooBig,
    /// The number after `*`.
    #[error("Protocol error: invalid multibulk length")]
    BadCount,
    /// The number after `$`.
    #[error("Protocol error: invalid bulk length")]
    BadBulkLength,
    /// Something else where `$` must be.
    #[error("Protocol error: expected '$', got '{}'", char::from(*.0))]
    NoBulk(u8),
    /// An argument is not followed by CR LF.
    #[error("Protocol error: invalid CRLF in request")]
    BadEnd,
    /// Quotes of an inline command.
    #[error("Protocol error: unbalanced quotes in request")]
    UnbalancedQuotes,
    /// Too many arguments before the password was shown.
    #[error("Protocol error: unauthenticated multibulk length")]
    UnauthenticatedCount,
    /// Too long an argument before the password was shown.
    #[error("Protocol error: unauthenticated bulk length")]
    UnauthenticatedBulk,
}

/// How a command is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// An array of bulk strings.
    Array,
    /// A line of words.
    Inline,
    /// No command at all (an empty array or line); it has no reply.
    Empty,
}

/// What [`RequestFramer::advance`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The command ends after `consumed` bytes.
    Complete {
        /// Bytes of this call's input that belong to it.
        consumed: usize,
        /// How it is written.
        shape: Shape,
    },
    /// More bytes are needed. The first `consumed` ones were understood and need not be shown
    /// again; the others must be, together with what follows.
    Incomplete {
        /// Bytes of this call's input that were understood.
        consumed: usize,
    },
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Start,
    /// Before the header of an argument; that many arguments are missing.
    Header(u64),
    /// Inside an argument: arguments missing after it, bytes missing of it.
    Body(u64, u64),
    /// Before the CR LF of an argument; arguments missing after it.
    End(u64),
}

/// Finds the ends of commands, see the module's text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestFramer {
    state: State,
}

impl RequestFramer {
    /// Whether nothing of a command has been understood yet.
    #[must_use]
    pub fn at_start(&self) -> bool {
        self.state == State::Start
    }

    /// Where it is, for [`RequestFramer::load`].
    #[must_use]
    pub fn save(&self) -> [u64; 3] {
        match self.state {
            State::Start => [0, 0, 0],
            State::Header(missing) => [1, missing, 0],
            State::Body(missing, bytes) => [2, missing, bytes],
            State::End(missing) => [3, missing, 0],
        }
    }

    /// A framer that goes on where another one was; `None`: none can be there.
    #[must_use]
    pub fn load([kind, missing, bytes]: [u64; 3]) -> Option<Self> {
        let state = match kind {
            0 => State::Start,
            1 if missing > 0 => State::Header(missing),
            2 => State::Body(missing, bytes),
            3 => State::End(missing),
            _ => return None,
        };
        (missing <= ARGS_MAX && bytes <= BULK_MAX).then_some(Self { state })
    }

    /// Reads on. `input` starts at the first byte that was not understood yet.
    ///
    /// # Errors
    /// The bytes are not a command; the connection cannot be understood any more.
    pub fn advance(
        &mut self,
        input: &[u8],
        limits: RequestLimits,
    ) -> Result<Progress, RequestError> {
        let mut at = 0;
        loop {
            let rest = &input[at..];
            match self.state {
                State::Start => match self.start(rest, limits)? {
                    Some(Progress::Incomplete { consumed }) => at += consumed,
                    Some(complete) => return Ok(complete),
                    None => break,
                },
                State::Header(missing) => match header(rest, limits)? {
                    Some((used, length)) => {
                        at += used;
                        self.state = State::Body(missing - 1, length);
                    }
                    None => break,
                },
                State::Body(missing, bytes) => {
                    let now = bytes.min(rest.len() as u64);
                    at += now as usize;
                    if now < bytes {
                        self.state = State::Body(missing, bytes - now);
                        break;
                    }
                    self.state = State::End(missing);
                }
                State::End(missing) => {
                    match rest {
                        [b'\r', b'\n', ..] => at += 2,
                        [] | [b'\r'] => break,
                        _ => return Err(RequestError::BadEnd),
                    }
                    if missing == 0 {
                        self.state = State::Start;
                        return Ok(Progress::Complete {
                            consumed: at,
                            shape: Shape::Array,
                        });
                    }
                    self.state = State::Header(missing);
                }
            }
        }
        Ok(Progress::Incomplete { consumed: at })
    }

    /// `Incomplete` is an array's head that was understood; `None`: the line has no end yet.
    fn start(
        &mut self,
        rest: &[u8],
        limits: RequestLimits,
    ) -> Result<Option<Progress>, RequestError> {
        let Some(first) = rest.first() else {
            return Ok(None);
        };
        if *first != b'*' {
            return match memchr(b'\n', rest) {
                None if rest.len() > LINE_MAX => Err(RequestError::InlineTooBig),
                None => Ok(None),
                Some(end) if end > LINE_MAX => Err(RequestError::InlineTooBig),
                Some(end) => {
                    let blank = rest[..end].iter().all(u8::is_ascii_whitespace);
                    let shape = if blank { Shape::Empty } else { Shape::Inline };
                    Ok(Some(Progress::Complete {
                        consumed: end + 1,
                        shape,
                    }))
                }
            };
        }
        let Some((used, text)) = line(rest, RequestError::CountTooBig)? else {
            return Ok(None);
        };
        let count = strict_i64(text).ok_or(RequestError::BadCount)?;
        let Ok(count) = u64::try_from(count) else {
            return Ok(Some(Progress::Complete {
                consumed: used,
                shape: Shape::Empty,
            }));
        };
        if count > ARGS_MAX {
            return Err(RequestError::BadCount);
        }
        if !limits.authenticated && count > RequestLimits::UNAUTHENTICATED_ARGS {
            return Err(RequestError::UnauthenticatedCount);
        }
        if count == 0 {
            return Ok(Some(Progress::Complete {
                consumed: used,
                shape: Shape::Empty,
            }));
        }
        self.state = State::Header(count);
        Ok(Some(Progress::Incomplete { consumed: used }))
    }
}

/// The header of an argument: bytes of the header, length of the argument.
fn header(rest: &[u8], limits: RequestLimits) -> Result<Option<(usize, u64)>, RequestError> {
    let Some(first) = rest.first() else {
        return Ok(None);
    };
    if *first != b'$' {
        // The error is a line.
        let shown = match first {
            b'\r' | b'\n' => b' ',
            other => *other,
        };
        return Err(RequestError::NoBulk(shown));
    }
    let Some((used, text)) = line(rest, RequestError::BulkCountTooBig)? else {
        return Ok(None);
    };
    let length = strict_i64(text)
        .and_then(|length| u64::try_from(length).ok())
        .filter(|length| *length <= BULK_MAX)
        .ok_or(RequestError::BadBulkLength)?;
    if !limits.authenticated && length > RequestLimits::UNAUTHENTICATED_BULK {
        return Err(RequestError::UnauthenticatedBulk);
    }
    Ok(Some((used, length)))
}

/// The text between a line's first byte and its CR LF, and the length of all of it.
fn line(rest: &[u8], too_big: RequestError) -> Result<Option<(usize, &[u8])>, RequestError> {
    let window = &rest[..rest.len().min(LINE_MAX + 1)];
    match memchr(b'\r', window) {
        None if rest.len() > LINE_MAX => Err(too_big),
        None => Ok(None),
        // The engines do not look at the byte after CR; a stray one would shift everything after
        // it, so it is an error here.
        Some(end) => match rest.get(end + 1) {
            None => Ok(None),
            Some(b'\n') => Ok(Some((end + 2, &rest[1..end]))),
            Some(_) => Err(RequestError::BadEnd),
        },
    }
}

/// The arguments of a command that is an array, complete or not: those that are whole.
#[derive(Clone, Debug)]
pub struct Args<'a> {
    rest: &'a [u8],
    left: u64,
}

impl<'a> Args<'a> {
    /// The arguments of the command at the start of `frame`.
    #[must_use]
    #[inline]
    pub fn of(frame: &'a [u8]) -> Self {
        if let Some((used, count)) = plain_number(frame, 0, b'*') {
            return Self {
                rest: &frame[used..],
                left: count as u64,
            };
        }
        let head = match frame.first() {
            Some(b'*') => line(frame, RequestError::CountTooBig).ok().flatten(),
            _ => None,
        };
        let found = head.and_then(|(used, text)| {
            let count = u64::try_from(strict_i64(text)?).ok()?;
            Some(Self {
                rest: &frame[used..],
                left: count,
            })
        });
        found.unwrap_or(Self { rest: &[], left: 0 })
    }

    /// How many arguments the command has left, whole or not.
    #[must_use]
    pub fn left(&self) -> u64 {
        self.left
    }
}

impl<'a> Iterator for Args<'a> {
    type Item = &'a [u8];

    #[inline]
    fn next(&mut self) -> Option<&'a [u8]> {
        if self.left == 0 {
            return None;
        }
        let (used, length) = match plain_number(self.rest, 0, b'$') {
            Some(plain) => plain,
            None => written_otherwise(self.rest)?,
        };
        let end = used.checked_add(length)?;
        let argument = self.rest.get(used..end)?;
        self.rest = self.rest.get(end + 2..)?;
        self.left -= 1;
        Some(argument)
    }
}

/// The length and the name of the command at the start of `input`, if it is an array of bulk strings,
/// whole, and written plainly. `None` says nothing but that: [`RequestFramer`] has the last word.
///
/// The same as a framer and [`Args`] give, in one pass: most commands of most clients are found so.
#[inline]
#[must_use]
pub fn whole(input: &[u8]) -> Option<(usize, &[u8])> {
    whole_with_first(input).map(|found| (found.length, found.name))
}

/// What [`whole_with_first`] finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Whole<'a> {
    /// Bytes of the command.
    pub length: usize,
    /// Its name.
    pub name: &'a [u8],
    /// Its first argument, if it has one.
    pub first: Option<&'a [u8]>,
}

/// The same, and its first argument.
#[inline]
#[must_use]
pub fn whole_with_first(input: &[u8]) -> Option<Whole<'_>> {
    let (mut at, count) = plain_number(input, 0, b'*')?;
    if count == 0 || count > ARGS_MAX as usize {
        return None;
    }
    let (used, length) = plain_number(input, at, b'$')?;
    let name = input.get(used..used + length)?;
    at = used + length + 2;
    if input.get(at - 2..at)? != b"\r\n" {
        return None;
    }
    let mut first = None;
    for number in 1..count {
        let (used, length) = plain_number(input, at, b'$')?;
        at = used + length + 2;
        if input.get(at - 2..at)? != b"\r\n" {
            return None;
        }
        if number == 1 {
            first = input.get(used..at - 2);
        }
    }
    Some(Whole {
        length: at,
        name,
        first,
    })
}

/// A header at `at`: the place after it, and its number. At most 8 digits, so that nothing overflows.
#[inline(always)]
fn plain_number(input: &[u8], at: usize, kind: u8) -> Option<(usize, usize)> {
    let digit = |byte: &u8| byte.is_ascii_digit();
    let value = |byte: &u8| usize::from(byte - b'0');
    // Nearly all have one or two digits.
    match input.get(at..)? {
        [first, a, b'\r', b'\n', ..] if *first == kind && digit(a) => Some((at + 4, value(a))),
        [first, a, b, b'\r', b'\n', ..] if *first == kind && *a != b'0' && digit(a) && digit(b) => {
            Some((at + 5, value(a) * 10 + value(b)))
        }
        rest => longer_number(rest, kind).map(|(used, number)| (at + used, number)),
    }
}

fn longer_number(rest: &[u8], kind: u8) -> Option<(usize, usize)> {
    let (first, rest) = rest.split_first()?;
    if *first != kind {
        return None;
    }
    let mut number = 0;
    for (index, byte) in rest.iter().take(9).enumerate() {
        let digit = byte.wrapping_sub(b'0');
        if digit <= 9 {
            number = number * 10 + usize::from(digit);
        } else if *byte == b'\r' && rest.get(index + 1) == Some(&b'\n') {
            let plain = index == 1 || (index > 1 && rest[0] != b'0');
            return plain.then_some((index + 3, number));
        } else {
            return None;
        }
    }
    None
}

/// The header of an argument that [`plain_number`] does not know: bytes of it, length of the argument.
#[cold]
fn written_otherwise(rest: &[u8]) -> Option<(usize, usize)> {
    let limits = RequestLimits {
        authenticated: true,
    };
    let (used, length) = header(rest, limits).ok()??;
    Some((used, usize::try_from(length).ok()?))
}

/// Appends a command to `out` as an array of bulk strings.
pub fn encode<'a>(
    args: impl IntoIterator<Item = &'a [u8], IntoIter: ExactSizeIterator>,
    out: &mut Vec<u8>,
) {
    let args = args.into_iter();
    out.extend_from_slice(format!("*{}\r\n", args.len()).as_bytes());
    for arg in args {
        out.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
        out.extend_from_slice(arg);
        out.extend_from_slice(b"\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const OPEN: RequestLimits = RequestLimits {
        authenticated: true,
    };

    proptest! {
        /// Whatever `whole` finds, the framer finds too.
        #[test]
        fn whole_commands_are_the_framers(
            words in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..12), 1..5),
            cut in 0_usize..80,
            change in 0_usize..80,
            byte in any::<u8>(),
        ) {
            let mut bytes = Vec::new();
            encode(words.iter().map(Vec::as_slice), &mut bytes);
            let (length, name) = whole(&bytes).unwrap();
            prop_assert_eq!((length, name), (bytes.len(), words[0].as_slice()));
            if let Some(at) = bytes.get_mut(change) {
                *at = byte;
            }
            for input in [&bytes[..], &bytes[..cut.min(bytes.len())]] {
                if let Some((length, name)) = whole(input) {
                    let found = RequestFramer::default().advance(input, OPEN);
                    let wanted = Progress::Complete { consumed: length, shape: Shape::Array };
                    prop_assert_eq!(found, Ok(wanted));
                    prop_assert_eq!(Args::of(input).next(), Some(name));
                }
            }
        }
    }

    fn one(bytes: &[u8]) -> Result<Progress, RequestError> {
        RequestFramer::default().advance(bytes, OPEN)
    }

    #[test]
    fn errors_as_the_engine_words_them() {
        for (bytes, text) in [
            (
                &b"*2147483648\r\n"[..],
                "Protocol error: invalid multibulk length",
            ),
            (b"*x\r\n", "Protocol error: invalid multibulk length"),
            (b"*01\r\n", "Protocol error: invalid multibulk length"),
            (b"*\r\n", "Protocol error: invalid multibulk length"),
            (b"*1\r\n+PING\r\n", "Protocol error: expected '$', got '+'"),
            (b"*1\r\n\n", "Protocol error: expected '$', got ' '"),
            (b"*1\r\n$-1\r\n", "Protocol error: invalid bulk length"),
            (
                b"*1\r\n$536870913\r\n",
                "Protocol error: invalid bulk length",
            ),
            (
                b"*1\r\n$4\r\nPINGxx",
                "Protocol error: invalid CRLF in request",
            ),
        ] {
            assert_eq!(one(bytes).unwrap_err().to_string(), text);
        }
        let long = vec![b'1'; LINE_MAX + 2];
        assert_eq!(one(&long), Err(RequestError::InlineTooBig));
        assert_eq!(
            one(&[b"*", &long[..]].concat()),
            Err(RequestError::CountTooBig)
        );
        assert_eq!(
            one(&[b"*1\r\n$", &long[..]].concat()),
            Err(RequestError::BulkCountTooBig)
        );
        let closed = RequestLimits {
            authenticated: false,
        };
        assert_eq!(
            RequestFramer::default().advance(b"*11\r\n", closed),
            Err(RequestError::UnauthenticatedCount)
        );
        assert_eq!(
            RequestFramer::default().advance(b"*1\r\n$16385\r\n", closed),
            Err(RequestError::UnauthenticatedBulk)
        );
    }

    #[test]
    fn nothing_to_answer() {
        for (bytes, length) in [
            (&b"*0\r\nx"[..], 4),
            (b"*-5\r\n", 5),
            (b"\r\nx", 2),
            (b" \n", 2),
        ] {
            assert_eq!(
                one(bytes),
                Ok(Progress::Complete {
                    consumed: length,
                    shape: Shape::Empty
                })
            );
        }
    }

    #[test]
    fn arguments_of_a_part() {
        let whole = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$100\r\nabc";
        assert_eq!(Args::of(whole).collect::<Vec<_>>(), [&b"SET"[..], b"k"]);
        assert_eq!(Args::of(whole).left(), 3);
        assert_eq!(Args::of(b"PING\r\n").count(), 0);
    }

    fn command() -> impl Strategy<Value = (Vec<u8>, Shape)> {
        let array = prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 1..6)
            .prop_map(|args| {
                let mut out = Vec::new();
                encode(args.iter().map(Vec::as_slice), &mut out);
                (out, Shape::Array)
            });
        prop_oneof![
            8 => array,
            1 => "[a-z]{1,9}( [a-z0-9]{1,9}){0,3}\r?\n"
                .prop_map(|line| (line.into_bytes(), Shape::Inline)),
            1 => Just((b"\r\n".to_vec(), Shape::Empty)),
            1 => Just((b"*0\r\n".to_vec(), Shape::Empty)),
        ]
    }

    /// Feeds `stream` in two pieces and returns the ends that were found.
    fn ends(pieces: [&[u8]; 2]) -> Vec<(usize, Shape)> {
        let mut framer = RequestFramer::default();
        let (mut found, mut kept, mut seen) = (Vec::new(), Vec::new(), 0);
        for piece in pieces {
            kept.extend_from_slice(piece);
            loop {
                match framer.advance(&kept, OPEN).unwrap() {
                    Progress::Complete { consumed, shape } => {
                        kept.drain(..consumed);
                        seen += consumed;
                        found.push((seen, shape));
                    }
                    Progress::Incomplete { consumed } => {
                        kept.drain(..consumed);
                        seen += consumed;
                        break;
                    }
                }
            }
        }
        assert!(kept.is_empty() && framer.at_start());
        found
    }

    proptest! {
        #[test]
        fn the_same_ends_at_every_split(commands in prop::collection::vec(command(), 1..5)) {
            let stream: Vec<u8> = commands.iter().flat_map(|(bytes, _)| bytes.clone()).collect();
            let mut wanted = Vec::new();
            let mut end = 0;
            for (bytes, shape) in &commands {
                end += bytes.len();
                wanted.push((end, *shape));
            }
            for split in 0..=stream.len() {
                let (head, tail) = stream.split_at(split);
                prop_assert_eq!(&ends([head, tail]), &wanted);
            }
        }

        #[test]
        fn arguments_come_back(args in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..50), 1..9)) {
            let mut frame = Vec::new();
            encode(args.iter().map(Vec::as_slice), &mut frame);
            prop_assert_eq!(Args::of(&frame).collect::<Vec<_>>(), args);
        }

        #[test]
        fn never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = one(&bytes);
            let _ = one(&[b"*2\r\n$", &bytes[..]].concat());
            let _ = Args::of(&bytes).count();
        }
    }
}
