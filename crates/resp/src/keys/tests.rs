use super::*;
use crate::command::all;
use crate::request::encode;
use proptest::prelude::*;

fn frame(words: &[&[u8]]) -> Vec<u8> {
    let mut frame = Vec::new();
    encode(words.iter().copied(), &mut frame);
    frame
}

fn of(line: &str) -> Vec<u8> {
    let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
    frame(&words)
}

/// The keys of a command written as a line; `-`: unclear.
fn found(line: &str) -> String {
    let frame = of(line);
    let mut found = Vec::new();
    if !keys(&frame, &mut found) {
        assert!(found.is_empty());
        return "-".to_owned();
    }
    let found: Vec<_> = found
        .iter()
        .map(|key| String::from_utf8_lossy(key))
        .collect();
    found.join(" ")
}

#[test]
fn keys_of_every_kind() {
    for (line, wanted) in [
        ("GET k", "k"),
        ("get", "-"),
        ("GET k l", "-"),
        ("PING", ""),
        ("NOSUCH k", "-"),
        ("MGET a b c", "a b c"),
        ("MSET a 1 b 2", "a b"),
        ("MSET a 1 b", "-"),
        ("BLPOP a b 0", "a b"),
        ("BITOP AND d a b", "d a b"),
        ("COPY a b REPLACE", "a b"),
        ("LCS a b LEN", "a b"),
        ("PFMERGE d", "d"),
        ("EVAL s 2 a b c", "a b"),
        ("EVAL s 0 a", ""),
        ("EVAL s 2 a", "-"),
        ("EVAL s -1 a", "-"),
        ("EVALSHA_RO s 1 a", "a"),
        ("FCALL f 9223372036854775807 a", "-"),
        ("ZUNIONSTORE d 2 a b WEIGHTS 1 2", "d a b"),
        ("ZUNIONSTORE d 0 a", "-"),
        ("ZDIFF 2 a b WITHSCORES", "a b"),
        ("LMPOP 2 a b LEFT", "a b"),
        ("BZMPOP 0 2 a b MIN", "a b"),
        ("SINTERCARD 2 a b LIMIT 1", "a b"),
        ("MSETEX 2 a 1 b 2 EX 10", "a b"),
        ("MSETEX 2 a 1 b", "-"),
        ("XREAD COUNT 2 STREAMS a b 0 0", "a b"),
        ("XREAD BLOCK streams STREAMS a $", "a"),
        ("XREAD STREAMS a b 0", "-"),
        ("XREAD COUNT 2", "-"),
        ("XREAD OTHER STREAMS a 0", "-"),
        ("XREADGROUP GROUP streams streams NOACK STREAMS a >", "a"),
        ("GEORADIUS k 1 1 1 km STORE d", "k d"),
        ("GEORADIUSBYMEMBER k m 1 km STOREDIST d STORE e", "k e"),
        ("GEORADIUS_RO k 1 1 1 km STORE d", "k"),
        ("SORT k BY w_* GET # STORE d", "k d"),
        ("SORT k STORE store ALPHA", "k store"),
        ("SORT_RO k BY w_*", "k"),
        ("MIGRATE h 1 k 0 1", "k"),
        ("MIGRATE h 1  0 1 AUTH2 KEYS KEYS KEYS a b", "a b"),
        ("OBJECT ENCODING k", "k"),
        ("OBJECT HELP", ""),
        ("OBJECT NOSUCH k", "-"),
        ("MEMORY USAGE k SAMPLES 5", "k"),
        ("XINFO STREAM k FULL", "k"),
        ("XGROUP CREATE k g 0", "k"),
        ("COMMAND", ""),
        ("CLIENT", "-"),
        ("SSUBSCRIBE c", ""),
        ("STRALGO LCS IDX KEYS a b", "a b"),
        ("STRALGO LCS STRINGS a b", ""),
    ] {
        assert_eq!(found(line), wanted, "{line}");
    }
}

#[test]
fn places() {
    let slot = |key: &str| Place::Slot(key_slot(key.as_bytes()));
    for (line, wanted) in [
        ("GET k", slot("k")),
        ("GET", Place::Unclear),
        // Wherever it goes it is refused; should it not be, it acts where the key lives.
        ("GET k l", slot("k")),
        ("MGET {t}1 {t}2", slot("t")),
        ("MGET a b", Place::Several),
        ("RENAME a b c", Place::Unclear),
        ("PING", Place::Anywhere),
        ("NOSUCH", Place::Unclear),
        ("EVAL s 0", Place::Anywhere),
        ("EVAL s x a", Place::Unclear),
        ("SSUBSCRIBE c", slot("c")),
        ("SPUBLISH c message", slot("c")),
        ("SORT k", slot("k")),
        ("SORT k BY nosort GET #", slot("k")),
        ("SORT k BY w_*", Place::Several),
        ("SORT {t}k BY {t}w_* GET {t}o_*->f", slot("t")),
        ("SORT {t}k BY {u}w_*", Place::Several),
        ("SORT {t}k BY w_*{t}", Place::Several),
        ("SORT {t}k BY {t*}", Place::Several),
        ("SORT {t}k BY {}{t}*", Place::Several),
    ] {
        assert_eq!(place(&of(line)), wanted, "{line}");
    }
    assert_eq!(place(b""), Place::Unclear);
    assert_eq!(place(b"*0\r\n"), Place::Unclear);
}

#[test]
fn places_of_parts() {
    let slot = |key: &str| key_slot(key.as_bytes());
    let whole = of("MSET a 1 b 2");
    let upto = |text: &str| {
        let end = String::from_utf8_lossy(&whole).find(text).unwrap() + text.len();
        place_of_part(&whole[..end])
    };
    assert_eq!(upto("MSET"), PartPlace::More);
    assert_eq!(upto("$1\r\na"), PartPlace::More);
    assert_eq!(upto("$1\r\na\r\n"), PartPlace::First(slot("a")));
    assert_eq!(upto("$1\r\nb\r\n"), PartPlace::Known(Place::Several));
    // A command with one key says all with it.
    let set = b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$100000\r\nxxxx";
    assert_eq!(place_of_part(set), PartPlace::Known(Place::Slot(slot("a"))));
    // Its script is long: the count of keys has not come.
    let eval = b"*4\r\n$4\r\nEVAL\r\n$100000\r\nreturn";
    assert_eq!(place_of_part(eval), PartPlace::More);
    // A name that is longer than any.
    let long = [&b"*1\r\n$100000\r\n"[..], &[b'x'; 300]].concat();
    assert_eq!(place_of_part(&long), PartPlace::Known(Place::Unclear));
}

#[test]
fn splits_and_policies() {
    let split_of = |kind: Split| -> Vec<&str> {
        let fits = |command: &&Command| split(command) == Some(kind);
        all()
            .iter()
            .filter(fits)
            .map(|command| command.name)
            .collect()
    };
    assert_eq!(
        split_of(Split::Keys),
        ["DEL", "EXISTS", "MGET", "TOUCH", "UNLINK"]
    );
    assert_eq!(split_of(Split::Pairs), ["MSET"]);
    let (all_shards, sum) = (RequestPolicy::AllShards, ResponsePolicy::AggSum);
    assert_eq!(policies(b"dbsize", None), (all_shards, sum));
    let scripts = (all_shards, ResponsePolicy::AggLogicalAnd);
    assert_eq!(policies(b"SCRIPT", Some(b"exists")), scripts);
    let none = (RequestPolicy::Default, ResponsePolicy::Default);
    assert_eq!(policies(b"GET", Some(b"k")), none);
    assert_eq!(policies(b"NOSUCH", None), none);
}

fn words() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let name = (0..all().len()).prop_map(|at| all()[at].name.as_bytes().to_vec());
    let some = prop::sample::select(vec![
        "STREAMS",
        "STORE",
        "KEYS",
        "BY",
        "GET",
        "LIMIT",
        "COUNT",
        "GROUP",
        "0",
        "1",
        "2",
        "-1",
        "18446744073709551615",
        "9223372036854775807",
        "USAGE",
        "CREATE",
        "*",
        "{a}*",
        "",
    ]);
    let word = prop_oneof![
        some.prop_map(|word| word.as_bytes().to_vec()),
        prop::collection::vec(any::<u8>(), 0..12),
    ];
    (name, prop::collection::vec(word, 0..12)).prop_map(|(name, mut words)| {
        words.insert(0, name);
        words
    })
}

proptest! {
    #[test]
    fn any_command_has_a_place(words in words()) {
        let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
        let frame = frame(&words);
        let mut found = Vec::new();
        let _ = keys(&frame, &mut found);
        for key in found {
            prop_assert!(words.contains(&key));
        }
        prop_assert_eq!(place_of_part(&frame), PartPlace::Known(place(&frame)));
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..80), words in words()) {
        let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
        let mut mixed = frame(&words);
        let at = bytes.len() * 7 % mixed.len();
        mixed.splice(at..at, bytes.iter().copied());
        for frame in [&bytes, &mixed] {
            let _ = place(frame);
            let _ = place_of_part(frame);
            let _ = keys(frame, &mut Vec::new());
        }
    }
}
