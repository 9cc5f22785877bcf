//! `INFO` of real engines.

use super::combined;
use crate::merge::Merge;

const VALKEY: [&str; 2] = [
    include_str!("info/valkey-9.1.2-1.txt"),
    include_str!("info/valkey-9.1.2-2.txt"),
];
const REDIS: [&str; 2] = [
    include_str!("info/redis-6.2.14-1.txt"),
    include_str!("info/redis-6.2.14-2.txt"),
];

/// The text of the merged reply, in both versions of the protocol the same.
fn merged(texts: &[&str]) -> String {
    let texts: Vec<String> = texts
        .iter()
        .map(|text| text.replace('\n', "\r\n"))
        .collect();
    let two: Vec<String> = texts
        .iter()
        .map(|text| format!("${}\r\n{text}\r\n", text.len()))
        .collect();
    let three: Vec<String> = texts
        .iter()
        .map(|text| format!("={}\r\ntxt:{text}\r\n", text.len() + 4))
        .collect();
    let two = String::from_utf8(combined(&Merge::Info, &two, 2)).unwrap();
    let three = String::from_utf8(combined(&Merge::Info, &three, 3)).unwrap();
    let text = two
        .split_once("\r\n")
        .unwrap()
        .1
        .strip_suffix("\r\n")
        .unwrap();
    assert_eq!(two, format!("${}\r\n{text}\r\n", text.len()));
    assert_eq!(three, format!("={}\r\ntxt:{text}\r\n", text.len() + 4));
    assert!(!text.replace("\r\n", "").contains(['\r', '\n']));
    text.replace("\r\n", "\n")
}

#[test]
fn two_valkeys() {
    insta::assert_snapshot!(merged(&VALKEY));
}

#[test]
fn two_redis() {
    insta::assert_snapshot!(merged(&REDIS));
}

/// Nothing of an engine's text is lost: the same sections and fields in the same order.
#[test]
fn sections_and_fields_keep_their_order() {
    let names = |text: &str| -> Vec<String> {
        text.lines()
            .map(|line| line.split(':').next().unwrap_or_default().to_owned())
            .collect()
    };
    for text in [VALKEY[0], REDIS[0]] {
        assert_eq!(names(&merged(&[text, text])), names(text));
        assert_eq!(merged(&[text]), text);
    }
}

#[test]
fn what_only_one_shard_has() {
    let one = "# Stats\nexpired_keys:1\n\n# Commandstats\ncmdstat_get:calls=2,usec=10,usec_per_call=5.00,rejected_calls=0,failed_calls=1\n\n# Keyspace\n";
    let two = "# Stats\nexpired_keys:2\nnew_number:7\n\n# Commandstats\ncmdstat_set:calls=1,usec=1,usec_per_call=1.00,rejected_calls=0,failed_calls=0\n\n# Keyspace\ndb0:keys=5,expires=3,avg_ttl=200,subexpiry=1\n";
    assert_eq!(
        merged(&[one, two]),
        "# Stats\nexpired_keys:3\nnew_number:7\n\n# Commandstats\n\
         cmdstat_get:calls=2,usec=10,usec_per_call=5.00,rejected_calls=0,failed_calls=1\n\
         cmdstat_set:calls=1,usec=1,usec_per_call=1.00,rejected_calls=0,failed_calls=0\n\n\
         # Keyspace\ndb0:keys=5,expires=3,avg_ttl=200,subexpiry=1\n"
    );
}

/// Section, the line of one shard, that of the other, and what they become.
const RULES: &[(&str, &str, &str, &str)] = &[
    (
        "Keyspace",
        "db0:keys=2,expires=1,avg_ttl=100",
        "db0:keys=5,expires=3,avg_ttl=200",
        "db0:keys=7,expires=4,avg_ttl=175",
    ),
    (
        "Keyspace",
        "db0:keys=2,expires=1,avg_ttl=0",
        "db0:keys=5,expires=3,avg_ttl=200",
        "db0:keys=7,expires=4,avg_ttl=200",
    ),
    (
        "Commandstats",
        "cmdstat_get:calls=1,usec=2,usec_per_call=2.00",
        "cmdstat_get:calls=3,usec=12,usec_per_call=4.00",
        "cmdstat_get:calls=4,usec=14,usec_per_call=3.50",
    ),
    (
        "Errorstats",
        "errorstat_ERR:count=1",
        "errorstat_ERR:count=3",
        "errorstat_ERR:count=4",
    ),
    (
        "Latencystats",
        "latency_percentiles_usec_get:p50=1.003,p99=9.023",
        "latency_percentiles_usec_get:p50=2.007,p99=5.023",
        "latency_percentiles_usec_get:p50=2.007,p99=9.023",
    ),
    ("Replication", "role:slave", "role:master", "role:master"),
    (
        "Replication",
        "connected_slaves:1",
        "connected_slaves:2",
        "connected_slaves:1",
    ),
    ("Memory", "maxmemory:100", "maxmemory:0", "maxmemory:0"),
    ("Memory", "maxmemory:100", "maxmemory:50", "maxmemory:150"),
    (
        "Persistence",
        "rdb_last_bgsave_status:ok",
        "rdb_last_bgsave_status:err",
        "rdb_last_bgsave_status:err",
    ),
    (
        "Persistence",
        "rdb_last_save_time:50",
        "rdb_last_save_time:40",
        "rdb_last_save_time:40",
    ),
    (
        "CPU",
        "used_cpu_sys:0.009191",
        "used_cpu_sys:1.000001",
        "used_cpu_sys:1.009192",
    ),
    (
        "Stats",
        "some_new_status:ok",
        "some_new_status:bad",
        "some_new_status:bad",
    ),
    (
        "Stats",
        "some_new_number:18446744073709551615",
        "some_new_number:1",
        "some_new_number:18446744073709551616",
    ),
    (
        "Stats",
        "some_new_text:a",
        "some_new_text:b",
        "some_new_text:a",
    ),
    ("Server", "tcp_port:1", "tcp_port:2", "tcp_port:1"),
    (
        "Server",
        "uptime_in_seconds:10",
        "uptime_in_seconds:2",
        "uptime_in_seconds:2",
    ),
];

#[test]
fn rules() {
    for (section, one, two, wanted) in RULES {
        let text = |line: &str| format!("# {section}\n{line}\n");
        assert_eq!(merged(&[&text(one), &text(two)]), text(wanted));
    }
}

#[test]
fn sizes_for_people() {
    for (bytes, wanted) in [
        ("512", "1.00K"),
        ("100", "200B"),
        ("786432", "1.50M"),
        ("1610612736", "3.00G"),
    ] {
        let text = format!("# Memory\nused_memory:{bytes}\nused_memory_human:x\n");
        let merged = merged(&[&text, &text]);
        assert!(
            merged.ends_with(&format!("used_memory_human:{wanted}\n")),
            "{merged}"
        );
    }
}
