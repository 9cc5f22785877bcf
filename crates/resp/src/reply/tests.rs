//! Framing of replies.

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

/// Redis 6.2 and 7.0 put messages into what `EXEC` replies; they are none of its elements.
#[test]
fn a_message_within_a_reply_is_none_of_its_elements() {
    let message = ">4\r\n$8\r\npmessage\r\n$1\r\n*\r\n$1\r\na\r\n$1\r\nm\r\n";
    for reply in [
        format!("*1\r\n{message}+OK\r\n"),
        format!("*2\r\n+OK\r\n{message}{message}:1\r\n"),
        format!("*2\r\n*1\r\n:0\r\n{message}*1\r\n:1\r\n"),
        message.to_owned(),
        ">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n".to_owned(),
    ] {
        whole(reply.as_bytes());
    }
}

/// Errors are told from all else, wherever the input is cut.
#[test]
fn errors_are_by_themselves() {
    let bytes = b"*4\r\n-ERR a\r\n$6\r\n-ERR b\r\n*1\r\n-ERR c\r\n:-1\r\n-ERR d\r\n+x\r\n";
    for cut in 0..=bytes.len() {
        let mut framer = ReplyFramer::default();
        let (mut errors, mut others, mut ends, mut replies) = (Vec::new(), Vec::new(), 0, 0);
        for mut rest in [&bytes[..cut], &bytes[cut..]] {
            while !rest.is_empty() {
                let got = framer.advance_to_error(rest).unwrap();
                assert!(got.consumed > 0);
                let (now, later) = rest.split_at(got.consumed);
                match framer.in_error() {
                    Some(whole) => {
                        errors.extend_from_slice(now);
                        ends += usize::from(whole);
                    }
                    None => others.extend_from_slice(now),
                }
                replies += usize::from(got.complete);
                rest = later;
            }
        }
        assert_eq!(errors, b"-ERR a\r\n-ERR c\r\n-ERR d\r\n", "cut at {cut}");
        assert_eq!(others, b"*4\r\n$6\r\n-ERR b\r\n*1\r\n:-1\r\n+x\r\n");
        assert_eq!((ends, replies), (3, 3), "cut at {cut}");
    }
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
    let head = whole(b"|1\r\n+a\r\n*1\r\n$1\r\nz\r\n*2\r\n$20\r\n01234567890123456789\r\n:1\r\n");
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
    let inside = leaf.prop_recursive(4, 48, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::Array),
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::Set),
            prop::collection::vec((inner.clone(), inner), 0..4).prop_map(Value::Map),
        ]
    });
    prop_oneof![
        inside.clone(),
        prop::collection::vec(inside, 1..6).prop_map(Value::Push),
    ]
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
