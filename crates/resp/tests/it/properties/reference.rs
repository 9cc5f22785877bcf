//! The same once more, slowly and plainly: what the protocol and the engines' documents say.

use resp::number::strict_i64;

/// Deepest nesting that is followed.
const DEPTH_MAX: usize = 16;

/// The length of the whole reply at the start of `input`; `None`: it is none, or nested deeper than
/// anybody nests.
pub(crate) fn reply(input: &[u8]) -> Option<usize> {
    value(input, 0, DEPTH_MAX, Place::Whole)
}

/// Where a value is.
#[derive(Clone, Copy)]
enum Place {
    /// It is the reply.
    Whole,
    /// It is a part of a reply, or of an attribute before it, in which a message may be that is none of its parts.
    Inside,
    /// It is a part of a message.
    InMessage,
}

/// The end of the value at `at`.
fn value(input: &[u8], at: usize, depth: usize, place: Place) -> Option<usize> {
    let depth = depth.checked_sub(1)?;
    let (kind, text, end) = line(input, at)?;
    let parts = match (place, kind) {
        (Place::InMessage, _) | (Place::Whole, b'>') => Place::InMessage,
        _ => Place::Inside,
    };
    match kind {
        b'+' | b'-' | b',' | b'(' | b'#' | b'_' => Some(end),
        b':' => strict_i64(text).map(|_| end),
        b'$' | b'*' if text == b"-1" => Some(end),
        b'$' if text == b"?" => chunks(input, end),
        b'$' | b'!' | b'=' => body(input, end, number(text)?),
        b'*' | b'~' | b'>' | b'%' if text == b"?" => streamed(input, end, depth, parts),
        b'>' if matches!(place, Place::Inside) => {
            let after = values(input, end, number(text)?, depth, parts)?;
            value(input, after, depth, place)
        }
        b'*' | b'~' | b'>' => values(input, end, number(text)?, depth, parts),
        b'%' => values(input, end, number(text)?.checked_mul(2)?, depth, parts),
        b'|' => {
            let after = values(input, end, number(text)?.checked_mul(2)?, depth, parts)?;
            value(input, after, depth, place)
        }
        _ => None,
    }
}

fn line(input: &[u8], at: usize) -> Option<(u8, &[u8], usize)> {
    let rest = input.get(at..)?;
    let end = rest.iter().position(|byte| *byte == b'\n')?;
    let (kind, text) = rest[..end].strip_suffix(b"\r")?.split_first()?;
    Some((*kind, text, at + end + 1))
}

fn number(text: &[u8]) -> Option<usize> {
    usize::try_from(strict_i64(text)?).ok()
}

fn body(input: &[u8], at: usize, length: usize) -> Option<usize> {
    let end = at.checked_add(length)?.checked_add(2)?;
    input.get(at..end)?.ends_with(b"\r\n").then_some(end)
}

fn values(input: &[u8], mut at: usize, count: usize, depth: usize, place: Place) -> Option<usize> {
    for _ in 0..count {
        at = value(input, at, depth, place)?;
    }
    Some(at)
}

fn streamed(input: &[u8], mut at: usize, depth: usize, place: Place) -> Option<usize> {
    while !input.get(at..)?.starts_with(b".\r\n") {
        at = value(input, at, depth, place)?;
    }
    Some(at + 3)
}

fn chunks(input: &[u8], mut at: usize) -> Option<usize> {
    loop {
        let (b';', text, end) = line(input, at)? else {
            return None;
        };
        match number(text)? {
            0 => return Some(end),
            length => at = body(input, end, length)?,
        }
    }
}

/// The bytes of an array's or push's first element, if that is a bulk string, streamed or not.
pub(crate) fn first_of_array(input: &[u8]) -> Option<Vec<u8>> {
    let (b'*' | b'>', text, at) = line(input, 0)? else {
        return None;
    };
    if text != b"?" && number(text)? == 0 {
        return None;
    }
    let (b'$', text, mut start) = line(input, at)? else {
        return None;
    };
    if text != b"?" {
        return Some(input.get(start..start + number(text)?)?.to_vec());
    }
    let mut whole = Vec::new();
    loop {
        let (_, text, end) = line(input, start)?;
        match number(text)? {
            0 => return Some(whole),
            length => whole.extend_from_slice(input.get(end..end + length)?),
        }
        start = end + number(text)? + 2;
    }
}

/// CRC-16/XMODEM of a key's hash tag, or of all of it if it has none.
pub(crate) fn slot(key: &[u8]) -> u16 {
    let tag = || {
        let open = key.iter().position(|byte| *byte == b'{')?;
        let close = key[open..].iter().position(|byte| *byte == b'}')? + open;
        (close > open + 1).then(|| &key[open + 1..close])
    };
    let mut crc = 0_u16;
    for byte in tag().unwrap_or(key) {
        crc ^= u16::from(*byte) << 8;
        for _ in 0..8 {
            crc = if crc & 0x8000 == 0 {
                crc << 1
            } else {
                (crc << 1) ^ 0x1021
            };
        }
    }
    crc % 16_384
}
