//! Small replies as values. Not for the request path: everything is copied.

use crate::number::strict_i64;
use memchr::memchr;

/// Deepest nesting that [`Value::decode`] follows.
const DEPTH_MAX: usize = 32;

/// A reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// `+`.
    Simple(Vec<u8>),
    /// `-`, without the sign.
    Error(Vec<u8>),
    /// `:`.
    Integer(i64),
    /// `$`.
    Bulk(Vec<u8>),
    /// A null of any kind; written as RESP3's.
    Null,
    /// `*`.
    Array(Vec<Value>),
    /// `#`.
    Boolean(bool),
    /// `,`, as it is written.
    Double(Vec<u8>),
    /// `(`, as it is written.
    BigNumber(Vec<u8>),
    /// `!`.
    BulkError(Vec<u8>),
    /// `=`, with its three letters and the colon.
    Verbatim(Vec<u8>),
    /// `%`.
    Map(Vec<(Value, Value)>),
    /// `~`.
    Set(Vec<Value>),
    /// `>`.
    Push(Vec<Value>),
}

/// The bytes are not one whole reply that this reader knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a whole reply")]
pub struct NotAReply;

impl Value {
    /// A bulk string.
    #[must_use]
    pub fn bulk(text: &str) -> Self {
        Self::Bulk(text.as_bytes().to_vec())
    }

    /// Reads the reply at the start of `input`; also returns its length. Attributes are dropped;
    /// streamed values are not read.
    ///
    /// # Errors
    /// It is not whole, not a reply, or nested more than 32 deep.
    pub fn decode(input: &[u8]) -> Result<(Self, usize), NotAReply> {
        let mut reader = Reader {
            input,
            at: 0,
            whole: 0,
        };
        let value = reader.value(0, false)?;
        Ok((value, reader.at))
    }

    /// Text of a simple, bulk or verbatim string.
    #[must_use]
    pub fn text(&self) -> Option<&[u8]> {
        match self {
            Self::Simple(text) | Self::Bulk(text) => Some(text),
            Self::Verbatim(text) => text.get(4..),
            _ => None,
        }
    }

    /// The pairs of a map, or of a flat array of keys and values as RESP2 writes one.
    #[must_use]
    pub fn pairs(&self) -> Vec<(&Value, &Value)> {
        match self {
            Self::Map(pairs) => pairs.iter().map(|(key, value)| (key, value)).collect(),
            Self::Array(items) => items
                .as_chunks::<2>()
                .0
                .iter()
                .map(|[key, value]| (key, value))
                .collect(),
            _ => Vec::new(),
        }
    }

    /// Appends it as RESP3.
    pub fn encode(&self, out: &mut Vec<u8>) {
        self.write(3, out);
    }

    /// Appends it in a version of the protocol: in 2, maps are flat arrays, sets and pushes are
    /// arrays, the other types of 3 are strings.
    pub fn write(&self, version: u8, out: &mut Vec<u8>) {
        let resp3 = version >= 3;
        match self {
            Self::Simple(text) => line(b'+', text, out),
            Self::Error(text) => line(b'-', text, out),
            Self::Integer(value) => line(b':', value.to_string().as_bytes(), out),
            Self::Bulk(bytes) => body(b'$', bytes, out),
            Self::Null if resp3 => out.extend_from_slice(b"_\r\n"),
            Self::Null => out.extend_from_slice(b"$-1\r\n"),
            Self::Boolean(value) if resp3 => line(b'#', if *value { b"t" } else { b"f" }, out),
            Self::Boolean(value) => line(b':', if *value { b"1" } else { b"0" }, out),
            Self::Double(text) if resp3 => line(b',', text, out),
            Self::BigNumber(text) if resp3 => line(b'(', text, out),
            Self::BulkError(text) if resp3 => body(b'!', text, out),
            Self::BulkError(text) => {
                // Version 2 has errors of one line only.
                let one_line = |byte: &u8| {
                    if matches!(byte, b'\r' | b'\n') {
                        b' '
                    } else {
                        *byte
                    }
                };
                line(b'-', &text.iter().map(one_line).collect::<Vec<u8>>(), out);
            }
            Self::Verbatim(text) if resp3 => body(b'=', text, out),
            Self::Double(text) | Self::BigNumber(text) => body(b'$', text, out),
            Self::Verbatim(text) => body(b'$', text.get(4..).unwrap_or_default(), out),
            Self::Array(items) => all(b'*', items, version, out),
            Self::Set(items) => all(if resp3 { b'~' } else { b'*' }, items, version, out),
            Self::Push(items) => all(if resp3 { b'>' } else { b'*' }, items, version, out),
            Self::Map(pairs) => {
                let count = if resp3 { pairs.len() } else { pairs.len() * 2 };
                line(
                    if resp3 { b'%' } else { b'*' },
                    count.to_string().as_bytes(),
                    out,
                );
                for (key, value) in pairs {
                    key.write(version, out);
                    value.write(version, out);
                }
            }
        }
    }
}

fn line(kind: u8, text: &[u8], out: &mut Vec<u8>) {
    out.push(kind);
    out.extend_from_slice(text);
    out.extend_from_slice(b"\r\n");
}

fn body(kind: u8, bytes: &[u8], out: &mut Vec<u8>) {
    line(kind, bytes.len().to_string().as_bytes(), out);
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}

fn all(kind: u8, items: &[Value], version: u8, out: &mut Vec<u8>) {
    line(kind, items.len().to_string().as_bytes(), out);
    for item in items {
        item.write(version, out);
    }
}

struct Reader<'a> {
    input: &'a [u8],
    at: usize,
    /// Type of the whole reply, as soon as it is known: attributes may come before it.
    whole: u8,
}

impl Reader<'_> {
    /// `inside`: it is a part of another one.
    fn value(&mut self, depth: usize, inside: bool) -> Result<Value, NotAReply> {
        if depth > DEPTH_MAX {
            return Err(NotAReply);
        }
        let kind = *self.input.get(self.at).ok_or(NotAReply)?;
        self.at += 1;
        let text = self.line()?;
        if !inside && kind != b'|' {
            self.whole = kind;
        }
        Ok(match kind {
            b'+' => Value::Simple(text),
            b'-' => Value::Error(text),
            b',' => Value::Double(text),
            b'(' => Value::BigNumber(text),
            b'_' => Value::Null,
            b'#' => Value::Boolean(text == b"t"),
            b':' => Value::Integer(strict_i64(&text).ok_or(NotAReply)?),
            b'$' | b'*' if text == b"-1" => Value::Null,
            b'$' => Value::Bulk(self.body(&text)?),
            b'!' => Value::BulkError(self.body(&text)?),
            b'=' => Value::Verbatim(self.body(&text)?),
            b'*' => Value::Array(self.items(&text, depth)?),
            b'~' => Value::Set(self.items(&text, depth)?),
            // A message between the elements of a reply is none of them.
            b'>' if inside && self.whole != b'>' => {
                self.items(&text, depth)?;
                self.value(depth + 1, inside)?
            }
            b'>' => Value::Push(self.items(&text, depth)?),
            b'%' => Value::Map(self.pairs(&text, depth)?),
            b'|' => {
                self.pairs(&text, depth)?;
                self.value(depth + 1, inside)?
            }
            _ => return Err(NotAReply),
        })
    }

    fn line(&mut self) -> Result<Vec<u8>, NotAReply> {
        let rest = &self.input[self.at..];
        let end = memchr(b'\n', rest).ok_or(NotAReply)?;
        let text = rest[..end].strip_suffix(b"\r").ok_or(NotAReply)?;
        self.at += end + 1;
        Ok(text.to_vec())
    }

    fn count(text: &[u8]) -> Result<usize, NotAReply> {
        strict_i64(text)
            .and_then(|count| usize::try_from(count).ok())
            .ok_or(NotAReply)
    }

    fn body(&mut self, text: &[u8]) -> Result<Vec<u8>, NotAReply> {
        let end = self.at.checked_add(Self::count(text)?).ok_or(NotAReply)?;
        let bytes = self.input.get(self.at..end).ok_or(NotAReply)?;
        if self.input.get(end..end + 2) != Some(b"\r\n") {
            return Err(NotAReply);
        }
        self.at = end + 2;
        Ok(bytes.to_vec())
    }

    // No capacity is reserved from a count that the other side named.
    fn items(&mut self, text: &[u8], depth: usize) -> Result<Vec<Value>, NotAReply> {
        (0..Self::count(text)?)
            .map(|_| self.value(depth + 1, true))
            .collect()
    }

    fn pairs(&mut self, text: &[u8], depth: usize) -> Result<Vec<(Value, Value)>, NotAReply> {
        (0..Self::count(text)?)
            .map(|_| Ok((self.value(depth + 1, true)?, self.value(depth + 1, true)?)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_in_both_versions() {
        let value = Value::Map(vec![(Value::bulk("a"), Value::Null)]);
        let mut two = Vec::new();
        value.write(2, &mut two);
        assert_eq!(two, b"*2\r\n$1\r\na\r\n$-1\r\n");
        let mut three = Vec::new();
        value.write(3, &mut three);
        assert_eq!(three, b"%1\r\n$1\r\na\r\n_\r\n");
        let (read, _) = Value::decode(&two).unwrap();
        assert_eq!(read.pairs(), [(&Value::bulk("a"), &Value::Null)]);
    }

    #[test]
    fn errors_of_several_lines_in_both_versions() {
        let value = Value::BulkError(b"ERR one\r\ntwo".to_vec());
        let mut two = Vec::new();
        value.write(2, &mut two);
        assert_eq!(two, b"-ERR one  two\r\n");
        let mut three = Vec::new();
        value.write(3, &mut three);
        assert_eq!(three, b"!12\r\nERR one\r\ntwo\r\n");
    }

    #[test]
    fn a_claimed_count_costs_nothing() {
        assert_eq!(
            Value::decode(b"*9000000000000000000\r\n:1\r\n"),
            Err(NotAReply)
        );
        assert_eq!(Value::decode(b"$9000000000000000000\r\nx"), Err(NotAReply));
        assert_eq!(Value::decode(&b"*1\r\n".repeat(1000)), Err(NotAReply));
    }
}
