//! How replies become one: bytes as engines write them.

use super::combined;
use crate::merge::Merge;
use proptest::prelude::*;
use resp::reply::ReplyFramer;

fn check(merge: &Merge, resp: u8, parts: &[&str], wanted: &str) {
    let got = String::from_utf8(combined(merge, parts, resp)).unwrap();
    assert_eq!(got, wanted, "{merge:?} {parts:?}");
}

#[test]
fn numbers() {
    for (merge, parts, wanted) in [
        (Merge::Sum, &[":3\r\n", ":4\r\n"][..], ":7\r\n"),
        (
            Merge::Sum,
            &[":9223372036854775807\r\n", ":1\r\n"],
            ":9223372036854775807\r\n",
        ),
        (Merge::Minimum, &[":3\r\n", ":1\r\n", ":2\r\n"], ":1\r\n"),
        (
            Merge::Minima,
            &["*2\r\n:1\r\n:0\r\n", "*2\r\n:1\r\n:1\r\n"],
            "*2\r\n:1\r\n:0\r\n",
        ),
    ] {
        check(&merge, 2, parts, wanted);
        check(&merge, 3, parts, wanted);
    }
}

#[test]
fn an_error_is_told_as_it_is() {
    let error = "-LOADING Valkey is loading the dataset in memory\r\n";
    for merge in [
        Merge::Same,
        Merge::Sum,
        Merge::Minima,
        Merge::Concatenation,
        Merge::Union,
        Merge::Counts,
        Merge::AnyKey,
        Merge::Newest(None),
        Merge::Info,
        Merge::MemoryStats,
        Merge::Config,
        Merge::Texts,
        Merge::Values(vec![vec![0], vec![1], vec![2]]),
    ] {
        check(&merge, 2, &["+OK\r\n", error, "-OOM x\r\n"], error);
        check(
            &merge,
            3,
            &["+OK\r\n", "!5\r\nERR x\r\n", error],
            "!5\r\nERR x\r\n",
        );
    }
}

#[test]
fn same_and_success() {
    check(&Merge::Same, 2, &["+OK\r\n", "+OK\r\n"], "+OK\r\n");
    let different =
        String::from_utf8(combined(&Merge::Same, &["+OK\r\n", "+QUEUED\r\n"], 2)).unwrap();
    assert!(different.starts_with("-ERR the shards of this database answered in different ways"));
    let idle = "-NOTBUSY No scripts in execution right now.\r\n";
    let busy =
        "-UNKILLABLE Sorry the script already executed write commands against the dataset.\r\n";
    check(&Merge::AnySuccess, 2, &[idle, "+OK\r\n", idle], "+OK\r\n");
    check(&Merge::AnySuccess, 2, &[idle, idle], idle);
    check(&Merge::AnySuccess, 2, &[idle, busy], busy);
}

#[test]
fn values_come_in_the_order_of_the_keys() {
    let merge = Merge::Values(vec![vec![2], vec![0, 3], vec![1]]);
    check(
        &merge,
        2,
        &[
            "*1\r\n$-1\r\n",
            "*2\r\n$3\r\na\r\n\r\n$0\r\n\r\n",
            "*1\r\n$1\r\nb\r\n",
        ],
        "*4\r\n$3\r\na\r\n\r\n$1\r\nb\r\n$-1\r\n$0\r\n\r\n",
    );
    check(
        &merge,
        3,
        &[
            "*1\r\n_\r\n",
            "*2\r\n$3\r\na\r\n\r\n_\r\n",
            "*1\r\n$1\r\nb\r\n",
        ],
        "*4\r\n$3\r\na\r\n\r\n$1\r\nb\r\n_\r\n_\r\n",
    );
    let wrong = combined(&merge, &["*1\r\n_\r\n", "*1\r\n_\r\n", "*1\r\n_\r\n"], 3);
    assert!(wrong.starts_with(b"-ERR "));
}

#[test]
fn arrays() {
    let parts = [
        "*2\r\n$1\r\na\r\n$1\r\nb\r\n",
        "*0\r\n",
        "*2\r\n$1\r\nc\r\n$1\r\na\r\n",
    ];
    check(
        &Merge::Concatenation,
        2,
        &parts,
        "*4\r\n$1\r\na\r\n$1\r\nb\r\n$1\r\nc\r\n$1\r\na\r\n",
    );
    check(
        &Merge::Union,
        2,
        &parts,
        "*3\r\n$1\r\na\r\n$1\r\nb\r\n$1\r\nc\r\n",
    );
    check(
        &Merge::AnyKey,
        2,
        &["$-1\r\n", "$1\r\nx\r\n", "$-1\r\n"],
        "$1\r\nx\r\n",
    );
    check(&Merge::AnyKey, 2, &["$-1\r\n", "$-1\r\n"], "$-1\r\n");
    check(&Merge::AnyKey, 3, &["_\r\n", "_\r\n"], "_\r\n");
}

#[test]
fn subscribers_are_added_by_channel() {
    let one = "*6\r\n$1\r\na\r\n:1\r\n$1\r\nb\r\n:0\r\n$1\r\na\r\n:1\r\n";
    let two = "*6\r\n$1\r\na\r\n:2\r\n$1\r\nb\r\n:5\r\n$1\r\na\r\n:2\r\n";
    let sum = "*6\r\n$1\r\na\r\n:3\r\n$1\r\nb\r\n:5\r\n$1\r\na\r\n:3\r\n";
    check(&Merge::Counts, 2, &[one, two], sum);
    check(&Merge::Counts, 3, &[one, two], sum);
    check(&Merge::Counts, 2, &["*0\r\n", "*0\r\n"], "*0\r\n");
}

#[test]
fn the_log_has_the_newest_first() {
    let entry = |id: u32, time: u32| {
        format!(
            "*6\r\n:{id}\r\n:{time}\r\n:4\r\n*1\r\n$6\r\nDBSIZE\r\n$15\r\n127.0.0.1:57742\r\n$0\r\n\r\n"
        )
    };
    let one = format!(
        "*2\r\n{}{}",
        entry(9, 1_795_653_605),
        entry(8, 1_795_653_601)
    );
    let two = format!("*1\r\n{}", entry(2, 1_795_653_603));
    let newest = format!(
        "*2\r\n{}{}",
        entry(9, 1_795_653_605),
        entry(2, 1_795_653_603)
    );
    check(&Merge::Newest(Some(2)), 2, &[&one, &two], &newest);
    let all = format!("*3{}{}", &newest[2..], entry(8, 1_795_653_601));
    check(&Merge::Newest(None), 2, &[&one, &two], &all);
}

#[test]
fn a_scan_goes_from_shard_to_shard() {
    let scan = |shard| Merge::Scan { shard, shards: 4 };
    let keys = "*1\r\n$1\r\nk\r\n";
    for (shard, engine, wanted) in [(1, "10", "41"), (0, "1", "4"), (1, "0", "2"), (3, "0", "0")] {
        let reply = |cursor: &str| format!("*2\r\n${}\r\n{cursor}\r\n{keys}", cursor.len());
        check(&scan(shard), 2, &[&reply(engine)], &reply(wanted));
    }
    let large = combined(
        &scan(1),
        &["*2\r\n$20\r\n18446744073709551615\r\n*0\r\n"],
        2,
    );
    assert!(large.starts_with(b"-ERR the shard's cursor is too large"));
    check(
        &scan(1),
        2,
        &["-ERR syntax error\r\n"],
        "-ERR syntax error\r\n",
    );
}

#[test]
fn texts_are_headed() {
    check(
        &Merge::Texts,
        2,
        &["$3\r\nab\n\r\n", "$1\r\nc\r\n"],
        "$26\r\n# Shard 1\nab\n\n# Shard 2\nc\n\r\n",
    );
    check(
        &Merge::Texts,
        3,
        &["=6\r\ntxt:ab\r\n", "=5\r\ntxt:c\r\n"],
        "=30\r\ntxt:# Shard 1\nab\n\n# Shard 2\nc\n\r\n",
    );
}

#[test]
fn the_shard_where_a_function_runs() {
    let idle = "*4\r\n$14\r\nrunning_script\r\n$-1\r\n$7\r\nengines\r\n*0\r\n";
    let busy =
        "*4\r\n$14\r\nrunning_script\r\n*2\r\n$4\r\nname\r\n$4\r\nspin\r\n$7\r\nengines\r\n*0\r\n";
    check(&Merge::Running, 2, &[idle, busy, idle], busy);
    check(&Merge::Running, 2, &[idle, idle], idle);
    let idle = "%2\r\n$14\r\nrunning_script\r\n_\r\n$7\r\nengines\r\n%0\r\n";
    let busy =
        "%2\r\n$14\r\nrunning_script\r\n%1\r\n$4\r\nname\r\n$4\r\nspin\r\n$7\r\nengines\r\n%0\r\n";
    check(&Merge::Running, 3, &[idle, busy], busy);
}

#[test]
fn latencies() {
    check(
        &Merge::LatencyLatest,
        2,
        &[
            "*1\r\n*4\r\n$7\r\ncommand\r\n:1795654399\r\n:28\r\n:40\r\n",
            "*2\r\n*4\r\n$4\r\nfork\r\n:1\r\n:2\r\n:2\r\n*4\r\n$7\r\ncommand\r\n:1795654400\r\n:34\r\n:34\r\n",
        ],
        "*2\r\n*4\r\n$7\r\ncommand\r\n:1795654400\r\n:34\r\n:40\r\n*4\r\n$4\r\nfork\r\n:1\r\n:2\r\n:2\r\n",
    );
    check(
        &Merge::LatencyLatest,
        2,
        &[
            "*1\r\n*6\r\n$7\r\ncommand\r\n:1795654386\r\n:18\r\n:18\r\n:23\r\n:2\r\n",
            "*1\r\n*6\r\n$7\r\ncommand\r\n:1795654380\r\n:50\r\n:60\r\n:110\r\n:2\r\n",
        ],
        "*1\r\n*6\r\n$7\r\ncommand\r\n:1795654386\r\n:18\r\n:60\r\n:133\r\n:4\r\n",
    );
    check(
        &Merge::LatencyHistory,
        2,
        &[
            "*2\r\n*2\r\n:5\r\n:18\r\n*2\r\n:7\r\n:2\r\n",
            "*2\r\n*2\r\n:6\r\n:1\r\n*2\r\n:7\r\n:9\r\n",
        ],
        "*3\r\n*2\r\n:5\r\n:18\r\n*2\r\n:6\r\n:1\r\n*2\r\n:7\r\n:9\r\n",
    );
}

#[test]
fn settings() {
    let reply = |limit: &str| {
        format!(
            "*4\r\n$16\r\nmaxmemory-policy\r\n$10\r\nnoeviction\r\n$9\r\nmaxmemory\r\n${}\r\n{limit}\r\n",
            limit.len()
        )
    };
    check(
        &Merge::Config,
        2,
        &[&reply("600"), &reply("500")],
        &reply("1100"),
    );
    check(
        &Merge::Config,
        2,
        &[&reply("600"), &reply("0")],
        &reply("0"),
    );
    check(
        &Merge::Config,
        3,
        &["%1\r\n$9\r\nmaxmemory\r\n$1\r\n7\r\n"; 2],
        "%1\r\n$9\r\nmaxmemory\r\n$2\r\n14\r\n",
    );
    check(&Merge::Config, 2, &["*0\r\n", "*0\r\n"], "*0\r\n");
}

#[test]
fn memory_stats() {
    let one = "%7\r\n$14\r\npeak.allocated\r\n:2000\r\n$15\r\ntotal.allocated\r\n:1500\r\n$17\r\nstartup.allocated\r\n:1000\r\n\
        $4\r\ndb.0\r\n%1\r\n$23\r\noverhead.hashtable.main\r\n:320\r\n$10\r\nkeys.count\r\n:5\r\n$18\r\nkeys.bytes-per-key\r\n:100\r\n\
        $15\r\npeak.percentage\r\n,75\r\n";
    let two = "%7\r\n$14\r\npeak.allocated\r\n:2000\r\n$15\r\ntotal.allocated\r\n:1500\r\n$17\r\nstartup.allocated\r\n:1000\r\n\
        $4\r\ndb.0\r\n%1\r\n$23\r\noverhead.hashtable.main\r\n:80\r\n$10\r\nkeys.count\r\n:15\r\n$18\r\nkeys.bytes-per-key\r\n:33\r\n\
        $15\r\npeak.percentage\r\n,75\r\n";
    let sum = "%7\r\n$14\r\npeak.allocated\r\n:4000\r\n$15\r\ntotal.allocated\r\n:3000\r\n$17\r\nstartup.allocated\r\n:2000\r\n\
        $4\r\ndb.0\r\n%1\r\n$23\r\noverhead.hashtable.main\r\n:400\r\n$10\r\nkeys.count\r\n:20\r\n$18\r\nkeys.bytes-per-key\r\n:50\r\n\
        $15\r\npeak.percentage\r\n,75\r\n";
    check(&Merge::MemoryStats, 3, &[one, two], sum);
    let flat = |text: &str| {
        text.replace("%7", "*14")
            .replace("%1\r\n$23", "*2\r\n$23")
            .replace(",75\r\n", "$2\r\n75\r\n")
    };
    check(
        &Merge::MemoryStats,
        2,
        &[&flat(one), &flat(two)],
        &flat(sum),
    );
}

fn merges() -> Vec<Merge> {
    vec![
        Merge::Same,
        Merge::AnySuccess,
        Merge::Sum,
        Merge::Minimum,
        Merge::Minima,
        Merge::Values(vec![vec![0, 2], vec![1]]),
        Merge::Values(vec![vec![9]]),
        Merge::Concatenation,
        Merge::Union,
        Merge::Counts,
        Merge::AnyKey,
        Merge::Newest(None),
        Merge::Newest(Some(0)),
        Merge::Scan {
            shard: 1,
            shards: 3,
        },
        Merge::Scan {
            shard: u16::MAX,
            shards: 0,
        },
        Merge::Texts,
        Merge::Info,
        Merge::Config,
        Merge::MemoryStats,
        Merge::Running,
        Merge::LatencyLatest,
        Merge::LatencyHistory,
    ]
}

fn one_reply(bytes: &[u8]) -> bool {
    let got = ReplyFramer::default().advance(bytes);
    got.is_ok_and(|got| got.complete && got.consumed == bytes.len())
}

/// Bytes that are nearly replies.
fn nearly() -> impl Strategy<Value = Vec<u8>> {
    let word = prop::sample::select(vec![
        "*2\r\n",
        "*0\r\n",
        "*3\r\n",
        "%1\r\n",
        "~2\r\n",
        ":1\r\n",
        ":-9223372036854775808\r\n",
        "$1\r\na\r\n",
        "$-1\r\n",
        "_\r\n",
        "$9\r\nmaxmemory\r\n",
        "-ERR x\r\n",
        "*-1\r\n",
        "*9000000000000000000\r\n",
        "$4\r\n1e99\r\n",
        ",inf\r\n",
        "$14\r\n# A\nb:1\nc:\n:x\r\n",
        "=7\r\ntxt:a:1\r\n",
        "=2\r\nxx\r\n",
        "$9\r\n",
        "$31\r\n# Keyspace\ndb0:expires=1,avg_tt\r\n",
        "\r\n",
        "|1\r\n",
        "$?\r\n",
    ]);
    let words = prop::collection::vec(word, 0..8).prop_map(|words| words.concat().into_bytes());
    prop_oneof![8 => words, 1 => prop::collection::vec(any::<u8>(), 0..60)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn whatever_comes_there_is_one_reply(parts in prop::collection::vec(nearly(), 0..4), resp in 2_u8..4) {
        for merge in merges() {
            let out = combined(&merge, &parts, resp);
            prop_assert!(one_reply(&out), "{merge:?}: {:?}", String::from_utf8_lossy(&out));
        }
    }

    #[test]
    fn any_info_text_is_merged(texts in prop::collection::vec("(# [A-Z]?[a-z ]{0,9}\r\n|[a-z_]{0,6}:[0-9a-z.,=%-]{0,12}\r\n|\r\n){0,12}", 1..4)) {
        let parts: Vec<String> = texts.iter().map(|text| format!("${}\r\n{text}\r\n", text.len())).collect();
        let out = combined(&Merge::Info, &parts, 2);
        prop_assert!(one_reply(&out) && out[0] == b'$');
    }
}
