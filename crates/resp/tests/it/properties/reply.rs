//! What an engine sends.

use super::{pieces, reference};
use resp::reply::{Head, ReplyError, ReplyFramer, simple_run};
use resp::value::Value;

/// A reply: where it ends, and what was seen of it.
type Seen = (usize, Head);

/// Checks a stream of replies. The first byte says how its bytes arrive.
///
/// # Panics
/// Something does not hold.
pub(crate) fn check(data: &[u8]) {
    let [how, stream @ ..] = data else {
        return;
    };
    let (replies, error) = read(stream, 0, ReplyFramer::advance);
    let split = read(stream, *how, ReplyFramer::advance);
    assert_eq!(split, (replies.clone(), error), "in pieces and at once");
    let with_errors = read(stream, *how, ReplyFramer::advance_to_error);
    assert_eq!(with_errors, (replies.clone(), error), "with errors apart");
    let mut start = 0;
    for (end, head) in &replies {
        one(&stream[start..], end - start, *head);
        start = *end;
    }
    run(stream, &replies, error);
}

/// The replies of a stream, read by `advance` as it arrives.
fn read(
    stream: &[u8],
    how: u8,
    advance: fn(&mut ReplyFramer, &[u8]) -> Result<resp::reply::Advance, ReplyError>,
) -> (Vec<Seen>, Option<ReplyError>) {
    let mut framer = ReplyFramer::default();
    let (mut replies, mut at) = (Vec::new(), 0);
    for mut piece in pieces(stream, how) {
        while !piece.is_empty() {
            let got = match advance(&mut framer, piece) {
                Ok(got) => got,
                Err(error) => return (replies, Some(error)),
            };
            assert!(got.consumed > 0 && got.consumed <= piece.len());
            assert_eq!(got.complete, framer.at_start());
            at += got.consumed;
            piece = &piece[got.consumed..];
            if got.complete {
                replies.push((at, *framer.head()));
            }
        }
    }
    (replies, None)
}

/// A reply at the start of `rest`, of `length` bytes.
fn one(rest: &[u8], length: usize, head: Head) {
    // Bytes that follow change nothing.
    let mut framer = ReplyFramer::default();
    let got = framer.advance(&rest[..length]);
    assert!(got.is_ok_and(|got| got.complete && got.consumed == length));
    assert_eq!(*framer.head(), head);
    if let Some(wanted) = reference::reply(rest) {
        assert_eq!(length, wanted, "{}", rest.escape_ascii());
        let first = reference::first_of_array(rest).unwrap_or_default();
        if rest[0] != b'|' {
            // So much of it is seen.
            let seen = &first[..first.len().min(16)];
            assert_eq!(head.first(), seen, "{}", rest.escape_ascii());
        }
    }
    let Ok((value, read)) = Value::decode(rest) else {
        return;
    };
    assert_eq!(read, length, "{}", rest.escape_ascii());
    let mut again = Vec::new();
    value.encode(&mut again);
    assert_eq!(
        Value::decode(&again),
        Ok((value.clone(), again.len())),
        "{rest:?}"
    );
    let mut older = Vec::new();
    value.write(2, &mut older);
    let got = ReplyFramer::default().advance(&older);
    assert!(
        got.is_ok_and(|got| got.complete && got.consumed == older.len()),
        "{value:?}"
    );
    let mut framer = ReplyFramer::default();
    let got = framer.advance(&again);
    assert!(
        got.is_ok_and(|got| got.complete && got.consumed == again.len()),
        "{value:?}"
    );
    assert_eq!(
        framer.head().is_error(),
        matches!(value, Value::Error(_) | Value::BulkError(_))
    );
}

/// A run of simple replies is what the framer makes of it.
fn run(stream: &[u8], replies: &[Seen], error: Option<ReplyError>) {
    let (length, count, errors) = simple_run(stream, u32::MAX);
    let count = count as usize;
    if count > replies.len() {
        panic!(
            "{count} replies, but the framer sees {} and {error:?}: {}",
            replies.len(),
            stream.escape_ascii()
        );
    }
    let Some((last, _)) = replies[..count].last() else {
        assert_eq!((length, errors), (0, 0));
        return;
    };
    assert_eq!(length, *last, "{}", stream.escape_ascii());
    let wanted = replies[..count]
        .iter()
        .filter(|(_, head)| head.is_error())
        .count();
    assert_eq!(errors as usize, wanted, "{}", stream.escape_ascii());
}
