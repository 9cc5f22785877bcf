//! Where the elements of a reply are. Nothing is copied and bodies are not looked at.

use resp::number::strict_i64;
use resp::reply::{ReplyFramer, simple_run};

/// Least bytes of a value.
const VALUE_MIN: usize = 3;

/// The length of the reply at the start of `bytes`, if it is whole.
pub(crate) fn length(bytes: &[u8]) -> Option<usize> {
    if let (length, 1, _) = simple_run(bytes, 1) {
        return Some(length);
    }
    let got = ReplyFramer::default().advance(bytes).ok()?;
    got.complete.then_some(got.consumed)
}

/// A reply without the attributes before it, which say something of it to clients that ask a shard alone.
/// Where they are not whole it is returned as it is.
pub(crate) fn bare(reply: &[u8]) -> &[u8] {
    let mut rest = reply;
    while rest.first() == Some(&b'|') {
        let Some(after) = after_attribute(rest) else {
            return reply;
        };
        rest = after;
    }
    rest
}

fn after_attribute(reply: &[u8]) -> Option<&[u8]> {
    let (_, pairs, used) = header(reply)?;
    let mut rest = &reply[used..];
    for _ in 0..pairs.checked_mul(2)? {
        rest = rest.get(length(rest)?..)?;
    }
    Some(rest)
}

/// Whether `bytes` are one whole reply and nothing else.
pub(crate) fn is_whole(bytes: &[u8]) -> bool {
    length(bytes) == Some(bytes.len())
}

/// Whether a reply is an error.
pub(crate) fn is_error(reply: &[u8]) -> bool {
    matches!(bare(reply).first(), Some(b'-' | b'!'))
}

/// Whether a reply is a null of any kind.
pub(crate) fn is_null(reply: &[u8]) -> bool {
    matches!(bare(reply), b"_\r\n" | b"$-1\r\n" | b"*-1\r\n")
}

/// The number of a reply that is one.
pub(crate) fn integer(reply: &[u8]) -> Option<i64> {
    strict_i64(bare(reply).strip_prefix(b":")?.strip_suffix(b"\r\n")?)
}

/// The bytes of a bulk string.
pub(crate) fn bulk(reply: &[u8]) -> Option<&[u8]> {
    let (kind, bytes) = body(reply)?;
    (kind == b'$').then_some(bytes)
}

/// The type and the bytes of a bulk string or of a verbatim string, of that without its prefix.
pub(crate) fn body(reply: &[u8]) -> Option<(u8, &[u8])> {
    let reply = bare(reply);
    let (kind, count, used) = header(reply)?;
    let bytes = reply.get(used..)?.strip_suffix(b"\r\n")?;
    if bytes.len() != count {
        return None;
    }
    match kind {
        b'$' => Some((kind, bytes)),
        b'=' => Some((kind, bytes.get(4..)?)),
        _ => None,
    }
}

/// How many elements an aggregate has (keys and values of a map count each), and its bytes after the
/// header.
pub(crate) fn aggregate(reply: &[u8]) -> Option<(usize, &[u8])> {
    let reply = bare(reply);
    let (kind, count, used) = header(reply)?;
    let count = match kind {
        b'*' | b'~' | b'>' => count,
        b'%' => count.checked_mul(2)?,
        _ => return None,
    };
    Some((count, &reply[used..]))
}

/// The elements of an aggregate; keys and values of a map in turn.
pub(crate) fn items(reply: &[u8]) -> Option<Vec<&[u8]>> {
    let (count, mut rest) = aggregate(reply)?;
    if count > rest.len() / VALUE_MIN {
        return None;
    }
    let mut items = Vec::with_capacity(count);
    for _ in 0..count {
        let (item, after) = rest.split_at_checked(length(rest)?)?;
        items.push(item);
        rest = after;
    }
    rest.is_empty().then_some(items)
}

/// The type, number and length of a header.
fn header(reply: &[u8]) -> Option<(u8, usize, usize)> {
    let (kind, rest) = reply.split_first()?;
    let end = memchr::memchr(b'\r', rest)?;
    if rest.get(end + 1) != Some(&b'\n') {
        return None;
    }
    let number = usize::try_from(strict_i64(&rest[..end])?).ok()?;
    Some((*kind, number, 1 + end + 2))
}

/// Appends a header.
pub(crate) fn open(kind: u8, number: usize, out: &mut Vec<u8>) {
    out.push(kind);
    out.extend_from_slice(number.to_string().as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// Appends a bulk string, or a verbatim string of plain text (`=`).
pub(crate) fn text(kind: u8, bytes: &[u8], out: &mut Vec<u8>) {
    if kind == b'=' {
        open(kind, bytes.len() + 4, out);
        out.extend_from_slice(b"txt:");
    } else {
        open(b'$', bytes.len(), out);
    }
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}

/// Appends a number.
pub(crate) fn number(value: i64, out: &mut Vec<u8>) {
    out.push(b':');
    out.extend_from_slice(value.to_string().as_bytes());
    out.extend_from_slice(b"\r\n");
}
