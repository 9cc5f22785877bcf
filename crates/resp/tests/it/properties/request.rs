//! What a client sends.

use super::{pieces, reference};
use resp::command::{Class, classify, find};
use resp::inline;
use resp::keys::{PartPlace, Place, keys, place, place_of_part};
use resp::request::{
    Args, Progress, RequestError, RequestFramer, RequestLimits, Shape, encode, whole,
};
use resp::slot::key_slot;

/// Longest command whose every beginning is looked at, bytes.
const BEGINNINGS_MAX: usize = 512;

/// Where commands end, and what is wrong after the last one.
type Ends = (Vec<(usize, Shape)>, Option<RequestError>);

/// Checks a stream of commands. The first byte says whether the client has signed in, the second how its
/// bytes arrive.
///
/// # Panics
/// Something does not hold.
pub(crate) fn check(data: &[u8]) {
    let [signed_in, how, stream @ ..] = data else {
        return;
    };
    let limits = RequestLimits {
        authenticated: signed_in & 1 == 0,
    };
    let (ends, error) = at_once(stream, limits);
    let split = in_pieces(stream, *how, limits);
    assert_eq!(split, (ends.clone(), error), "in pieces and at once");
    let mut start = 0;
    for (end, shape) in ends {
        let frame = &stream[start..end];
        match shape {
            Shape::Array => array(frame),
            Shape::Inline => typed(frame),
            Shape::Empty => {}
        }
        if limits.authenticated
            && let Some((length, name)) = whole(&stream[start..])
        {
            assert_eq!((length, shape), (frame.len(), Shape::Array));
            assert_eq!(Args::of(frame).next(), Some(name));
        }
        start = end;
    }
}

fn at_once(stream: &[u8], limits: RequestLimits) -> Ends {
    let mut framer = RequestFramer::default();
    let (mut ends, mut at) = (Vec::new(), 0);
    loop {
        match framer.advance(&stream[at..], limits) {
            Ok(Progress::Complete { consumed, shape }) => {
                assert!(consumed > 0 && framer.at_start());
                at += consumed;
                ends.push((at, shape));
            }
            Ok(Progress::Incomplete { consumed }) => {
                assert!(at + consumed <= stream.len());
                return (ends, None);
            }
            Err(error) => return (ends, Some(error)),
        }
    }
}

/// As the proxy does it: what was not consumed is kept.
fn in_pieces(stream: &[u8], how: u8, limits: RequestLimits) -> Ends {
    let mut framer = RequestFramer::default();
    let (mut ends, mut kept, mut seen) = (Vec::new(), Vec::new(), 0);
    for piece in pieces(stream, how) {
        kept.extend_from_slice(piece);
        loop {
            let (consumed, shape) = match framer.advance(&kept, limits) {
                Ok(Progress::Complete { consumed, shape }) => (consumed, Some(shape)),
                Ok(Progress::Incomplete { consumed }) => (consumed, None),
                Err(error) => return (ends, Some(error)),
            };
            kept.drain(..consumed);
            seen += consumed;
            match shape {
                Some(shape) => ends.push((seen, shape)),
                None => break,
            }
        }
    }
    (ends, None)
}

/// A whole command: its words come back, however their numbers were written, and it goes where they go.
fn array(frame: &[u8]) {
    let args: Vec<&[u8]> = Args::of(frame).collect();
    assert_eq!(
        args.len() as u64,
        Args::of(frame).left(),
        "{}",
        frame.escape_ascii()
    );
    let mut again = Vec::new();
    encode(args.iter().copied(), &mut again);
    assert_eq!(whole(&again), Some((again.len(), args[0])));
    assert_eq!(Args::of(&again).collect::<Vec<_>>(), args);
    let place = place(frame);
    assert_eq!(place, self::place(&again), "{}", frame.escape_ascii());
    let found = find(args[0]).map_or(Class::Plain, |command| command.class);
    assert_eq!(classify(args[0]), found, "{:?}", args[0]);
    routed(frame, place);
    for arg in args {
        assert_eq!(key_slot(arg), reference::slot(arg), "{arg:?}");
    }
}

fn routed(frame: &[u8], place: Place) {
    let mut found = Vec::new();
    if keys(frame, &mut found) {
        match place {
            Place::Slot(slot) => {
                assert!(
                    found.iter().all(|key| key_slot(key) == slot),
                    "{}",
                    frame.escape_ascii()
                );
            }
            Place::Anywhere => assert!(found.is_empty(), "{}", frame.escape_ascii()),
            Place::Several => {}
            Place::Unclear => panic!(
                "its keys are known, its place is not: {}",
                frame.escape_ascii()
            ),
        }
    } else {
        assert!(found.is_empty());
        assert_ne!(place, Place::Anywhere, "{}", frame.escape_ascii());
    }
    // What is said of a beginning stays true.
    for end in 0..frame.len().min(BEGINNINGS_MAX) {
        match place_of_part(&frame[..end]) {
            PartPlace::More => {}
            PartPlace::Known(known) => {
                assert_eq!(known, place, "{end} bytes of {}", frame.escape_ascii())
            }
            PartPlace::First(slot) => assert!(
                !matches!(place, Place::Slot(other) if other != slot),
                "{end} bytes of {}",
                frame.escape_ascii()
            ),
        }
    }
}

/// A line of words: as a command of its own it has the same words.
fn typed(line: &[u8]) {
    let Ok(words) = inline::split(line.trim_ascii_end()) else {
        return;
    };
    if words.is_empty() {
        return;
    }
    let mut frame = Vec::new();
    encode(words.iter().map(Vec::as_slice), &mut frame);
    assert_eq!(Args::of(&frame).collect::<Vec<_>>(), words);
    array(&frame);
}
