//! What bodies become, rule by rule.

use crate::fixture::{self, GIB};
use api::body::decode;
use api::failure::Failure;
use api::request::bootstrap::{Wanted, wanted};
use api::request::{cluster, database};
use model::ErrorCode;
use model::documents::{Persistence, ProxyPolicy, ShardsPlacement};
use model::intent::{ClusterChange, DatabaseChange, DatabaseSpec};
use model::rest::{BdbRequest, BootstrapRequest, ClusterUpdate};
use std::path::Path;

fn code(failure: &Failure) -> ErrorCode {
    failure.0.error_code
}

fn creation(fields: &str) -> Result<DatabaseSpec, Failure> {
    let comma = if fields.is_empty() { "" } else { "," };
    let body = format!(r#"{{"name":"demo","memory_size":1073741824{comma}{fields}}}"#);
    database::creation(&decode::<BdbRequest>(body.as_bytes())?, false)
}

fn change(body: &str) -> Result<DatabaseChange, Failure> {
    let current = fixture::database(1, "demo");
    database::change(&decode::<BdbRequest>(body.as_bytes())?, &current)
}

#[test]
fn the_least_that_a_database_needs() {
    let expected = DatabaseSpec {
        name: "demo".to_owned(),
        memory_size: GIB,
        ..DatabaseSpec::default()
    };
    assert_eq!(creation(""), Ok(expected));
}

#[test]
fn everything_that_creation_takes() {
    let spec = creation(
        r#""uid":7,"type":"redis","port":12000,"shards_count":1,"sharding":false,
        "replication":false,"data_persistence":"aof","aof_policy":"appendfsync-always",
        "eviction_policy":"allkeys-lru","proxy_policy":"all-nodes","shards_placement":"sparse",
        "redis_version":"valkey-9.1","authentication_redis_pass":"p","max_connections":10,
        "tags":[{"key":"a","value":"b"}]"#,
    )
    .unwrap();
    assert_eq!(spec.uid.unwrap().0, 7);
    assert_eq!(spec.port, Some(12_000));
    assert_eq!(spec.persistence, Some(Persistence::AofEveryWrite));
    assert_eq!(spec.proxy_policy, Some(ProxyPolicy::AllNodes));
    assert_eq!(spec.password.unwrap().expose(), "p");
    assert_eq!(spec.redis_version.as_deref(), Some("valkey-9.1"));
    assert_eq!(spec.tags.len(), 1);
}

/// As tools of the field write it.
#[test]
fn several_shards() {
    let spec = creation(
        r#""shards_count":4,"sharding":true,"shards_placement":"sparse","oss_cluster":false,
        "shard_key_regex":[{"regex":".*\\{(?<tag>.*)\\}.*"},{"regex":"(?<tag>.*)"}]"#,
    )
    .unwrap();
    assert_eq!(spec.shards_count, Some(4));
    assert_eq!(spec.shards_placement, Some(ShardsPlacement::Sparse));
    assert_eq!(
        creation(r#""shards_count":60"#).unwrap().shards_count,
        Some(60)
    );
}

#[test]
fn empty_values_mean_the_default() {
    let spec = creation(r#""port":0,"redis_version":"","authentication_redis_pass":"""#).unwrap();
    assert_eq!(
        (spec.port, spec.redis_version, spec.password),
        (None, None, None)
    );
}

#[test]
fn what_creation_refuses() {
    let cases = [
        (r#""name":"x""#, ErrorCode::InvalidSchema),
        (r#""uid":0"#, ErrorCode::InvalidParam),
        (r#""type":"memcached""#, ErrorCode::InvalidParam),
        (r#""port":9999"#, ErrorCode::PortUnavailable),
        (r#""port":20000"#, ErrorCode::PortUnavailable),
        (r#""port":70000"#, ErrorCode::InvalidSchema),
        (r#""shards_count":0"#, ErrorCode::InvalidSharding),
        (r#""shards_count":61"#, ErrorCode::InvalidSharding),
        (r#""shards_count":-1"#, ErrorCode::InvalidSchema),
        (
            r#""shards_count":2,"shard_key_regex":[{"regex":"(?<tag>.)"}]"#,
            ErrorCode::InvalidSharding,
        ),
        (r#""oss_cluster":true"#, ErrorCode::InvalidParam),
        (r#""shards_placement":"wide""#, ErrorCode::InvalidSchema),
        (r#""sharding":true"#, ErrorCode::InvalidSharding),
        (
            r#""sharding":true,"shards_count":1"#,
            ErrorCode::InvalidSharding,
        ),
        (
            r#""sharding":false,"shards_count":2"#,
            ErrorCode::InvalidSharding,
        ),
        (r#""redis_version":"9.x""#, ErrorCode::InvalidVersion),
        (r#""redis_version":"1.2.3.4""#, ErrorCode::InvalidVersion),
        (r#""redis_version":"mongo-9.1""#, ErrorCode::InvalidVersion),
        (r#""proxy_policy":"some""#, ErrorCode::InvalidProxyPolicy),
        (r#""eviction_policy":"random""#, ErrorCode::InvalidSchema),
        (r#""max_connections":1000001"#, ErrorCode::InvalidParam),
        (r#""tags":[{"key":"","value":""}]"#, ErrorCode::InvalidParam),
        (r#""tags":[{"key":"a"}]"#, ErrorCode::InvalidSchema),
        (
            r#""tags":[{"key":"a","value":"1"},{"key":"a","value":"2"}]"#,
            ErrorCode::InvalidParam,
        ),
        (
            "\"authentication_redis_pass\":\"a\\u0007\"",
            ErrorCode::InvalidParam,
        ),
    ];
    for (fields, expected) in cases {
        let refused = creation(fields).expect_err(fields);
        assert_eq!(code(&refused), expected, "{fields}: {refused:?}");
    }
    for (body, expected) in [
        (r#"{"memory_size":1073741824}"#, ErrorCode::MissingDbName),
        (r#"{"name":"demo"}"#, ErrorCode::MissingMemorySize),
        (
            r#"{"name":"-x","memory_size":1073741824}"#,
            ErrorCode::NameViolation,
        ),
        (
            r#"{"name":"demo","memory_size":4194303}"#,
            ErrorCode::InvalidParam,
        ),
        (
            r#"{"name":"demo","memory_size":8388607,"shards_count":2}"#,
            ErrorCode::InvalidParam,
        ),
    ] {
        let request = decode::<BdbRequest>(body.as_bytes()).unwrap();
        let refused = database::creation(&request, false).expect_err(body);
        assert_eq!(code(&refused), expected, "{body}: {refused:?}");
    }
}

#[test]
fn persistence_at_creation() {
    let snapshot = |seconds, writes| Some(Persistence::Snapshot { seconds, writes });
    let rule = r#""snapshot_policy":[{"secs":60,"writes":5}]"#;
    let cases = [
        (
            r#""data_persistence":"disabled""#.to_owned(),
            Some(Persistence::Disabled),
        ),
        (
            r#""data_persistence":"aof""#.to_owned(),
            Some(Persistence::AofEverySecond),
        ),
        (
            r#""data_persistence":"snapshot""#.to_owned(),
            snapshot(3_600, 1),
        ),
        (
            r#""data_persistence":"snapshot","snapshot_policy":[]"#.to_owned(),
            snapshot(3_600, 1),
        ),
        (
            format!(r#""data_persistence":"snapshot",{rule}"#),
            snapshot(60, 5),
        ),
        // As answers show it: the default aof_policy stands beside every kind.
        (
            r#""data_persistence":"disabled","aof_policy":"appendfsync-every-sec",
            "snapshot_policy":[]"#
                .to_owned(),
            Some(Persistence::Disabled),
        ),
    ];
    for (fields, expected) in cases {
        assert_eq!(creation(&fields).unwrap().persistence, expected, "{fields}");
    }
    for fields in [
        r#""data_persistence":"rdb""#.to_owned(),
        r#""aof_policy":"appendfsync-always""#.to_owned(),
        r#""data_persistence":"snapshot","aof_policy":"appendfsync-always""#.to_owned(),
        r#""data_persistence":"aof","aof_policy":"sometimes""#.to_owned(),
        rule.to_owned(),
        format!(r#""data_persistence":"aof",{rule}"#),
        r#""data_persistence":"snapshot","snapshot_policy":[{"secs":0,"writes":1}]"#.to_owned(),
        r#""data_persistence":"snapshot","snapshot_policy":[{"secs":1,"writes":0}]"#.to_owned(),
        r#""data_persistence":"snapshot","snapshot_policy":[{"secs":1,"writes":1},
        {"secs":2,"writes":1}]"#
            .to_owned(),
    ] {
        let refused = creation(&fields).expect_err(&fields);
        assert_eq!(
            code(&refused),
            ErrorCode::InvalidDataPersistence,
            "{fields}"
        );
    }
}

#[test]
fn persistence_of_a_change_starts_from_what_there_is() {
    // The database takes snapshots every hour.
    assert_eq!(change(r#"{"name":"other"}"#).unwrap().persistence, None);
    let rule = change(r#"{"snapshot_policy":[{"secs":60,"writes":5}]}"#).unwrap();
    assert_eq!(
        rule.persistence,
        Some(Persistence::Snapshot {
            seconds: 60,
            writes: 5
        })
    );
    let aof = change(r#"{"data_persistence":"aof"}"#).unwrap();
    assert_eq!(aof.persistence, Some(Persistence::AofEverySecond));
    let refused = change(r#"{"aof_policy":"appendfsync-always"}"#).unwrap_err();
    assert_eq!(code(&refused), ErrorCode::InvalidDataPersistence);

    let mut current = fixture::database(1, "demo");
    current.persistence = Persistence::AofEveryWrite;
    let request = decode::<BdbRequest>(br#"{"data_persistence":"aof"}"#).unwrap();
    let stays = database::change(&request, &current).unwrap();
    assert_eq!(stays.persistence, Some(Persistence::AofEveryWrite));
}

#[test]
fn what_creation_fixed_can_be_repeated_but_not_changed() {
    let same = r#"{"uid":1,"type":"redis","port":12001,"shards_count":1,"sharding":false,
        "replication":false,"shards_placement":"dense","redis_version":"9.1.2","name":"demo"}"#;
    assert!(change(same).is_ok(), "{:?}", change(same));
    for body in [
        r#"{"uid":2}"#,
        r#"{"type":"memcached"}"#,
        r#"{"port":12002}"#,
        r#"{"shards_count":2}"#,
        r#"{"sharding":true}"#,
        r#"{"shards_placement":"sparse"}"#,
        r#"{"redis_version":"8.0"}"#,
    ] {
        let refused = change(body).expect_err(body);
        assert_eq!(code(&refused), ErrorCode::InvalidParam, "{body}");
    }
    assert_eq!(
        change(r#"{"shards_count":4}"#).unwrap_err().0.description,
        "shards_count is fixed when the database is created, and cannot be changed in this release: \
         leave it out"
    );
}

#[test]
fn a_change_can_take_the_password_away() {
    let change = change(r#"{"authentication_redis_pass":""}"#).unwrap();
    assert_eq!(change.password.unwrap().expose(), "");
}

#[test]
fn errors_name_the_field() {
    for (body, wanted) in [
        (r#"{"nmae":"x"}"#, "`nmae`"),
        (
            r#"{"memory_size":"1GB"}"#,
            "`memory_size`: invalid type: string",
        ),
        (r#"{"snapshot_policy":[{"secs":1,"wirtes":1}]}"#, "`wirtes`"),
        (
            r#"{"snapshot_policy":[{"secs":"1"}]}"#,
            "`snapshot_policy[0].secs`",
        ),
        (r#"{"proxy_policy":"some"}"#, "all-master-shards"),
    ] {
        let refused = decode::<BdbRequest>(body.as_bytes()).unwrap_err();
        assert!(
            refused.0.description.contains(wanted),
            "{body}: {}",
            refused.0.description
        );
        assert!(
            !refused.0.description.contains(" at line "),
            "{}",
            refused.0.description
        );
    }
}

#[test]
fn what_is_not_a_json_object() {
    for body in [
        "",
        " ",
        "x",
        "[]",
        "\"a\"",
        "null",
        "{",
        "{\"name\":",
        "{} {}",
        "{\"name\":\"\u{1}\"}",
    ] {
        let refused = decode::<BdbRequest>(body.as_bytes()).expect_err(body);
        assert_eq!(code(&refused), ErrorCode::BadRequest, "{body}: {refused:?}");
    }
}

#[test]
fn every_truncation_is_refused() {
    let body = br#"{"name":"demo","memory_size":1073741824,"tags":[{"key":"a","value":"b"}]}"#;
    assert!(decode::<BdbRequest>(body).is_ok());
    for end in 0..body.len() {
        assert!(decode::<BdbRequest>(&body[..end]).is_err(), "cut at {end}");
    }
}

#[test]
fn settings_of_the_cluster() {
    let change = |body: &str| cluster::change(&decode::<ClusterUpdate>(body.as_bytes()).unwrap());
    assert_eq!(change("{}"), Ok(None));
    let version = change(r#"{"default_provisioned_redis_version":""}"#)
        .unwrap()
        .unwrap();
    let expected = ClusterChange {
        default_redis_version: Some(String::new()),
        ..ClusterChange::default()
    };
    assert_eq!(version, expected, "empty: the newest again");
    for (body, expected) in [
        (
            r#"{"cm_session_timeout_minutes":1441}"#,
            ErrorCode::InvalidParam,
        ),
        (
            r#"{"default_provisioned_redis_version":"new"}"#,
            ErrorCode::InvalidVersion,
        ),
        (
            r#"{"slave_ha_cooldown_period":2592001}"#,
            ErrorCode::InvalidParam,
        ),
    ] {
        assert_eq!(code(&change(body).unwrap_err()), expected, "{body}");
    }
    let policy = decode::<ClusterUpdate>(br#"{"default_sharded_proxy_policy":"none"}"#);
    assert_eq!(code(&policy.unwrap_err()), ErrorCode::InvalidProxyPolicy);
}

fn bootstrap(action: &str, body: &str) -> Result<Wanted, Failure> {
    let node = fixture::config(Path::new("/srv"), "127.0.1.1");
    wanted(action, &decode::<BootstrapRequest>(body.as_bytes())?, &node)
}

const WHO: &str = r#""username":"admin@example.com","password":"secret""#;

#[test]
fn a_new_cluster() {
    let body = format!(
        r#"{{"action":"create_cluster","cluster":{{"name":"cluster.local"}},"credentials":{{{WHO}}},
        "node":{{"identity":{{"rack_id":"rack-1","external_addr":["192.0.2.1"]}}}}}}"#
    );
    let Wanted::Create(create) = bootstrap("create_cluster", &body).unwrap() else {
        panic!()
    };
    assert_eq!(create.name, "cluster.local");
    assert_eq!(create.rack_id.as_deref(), Some("rack-1"));
    assert_eq!(create.external_address, ["192.0.2.1"]);
    assert_eq!(
        code(&bootstrap("join_cluster", &body).unwrap_err()),
        ErrorCode::InvalidParam
    );

    let with = |cluster: &str, credentials: &str| {
        format!(r#"{{"cluster":{{{cluster}}},"credentials":{{{credentials}}}}}"#)
    };
    for (body, expected) in [
        (with("", WHO), ErrorCode::NameViolation),
        (with(r#""name":"a b""#, WHO), ErrorCode::NameViolation),
        (
            with(r#""name":"a","nodes":["127.0.1.2"]"#, WHO),
            ErrorCode::InvalidParam,
        ),
        (with(r#""name":"a""#, ""), ErrorCode::InvalidParam),
        (
            with(r#""name":"a""#, r#""username":"admin@example.com""#),
            ErrorCode::InvalidParam,
        ),
        (
            with(r#""name":"a""#, r#""username":"admin","password":"p""#),
            ErrorCode::InvalidParam,
        ),
        (with(r#""fqdn":"a""#, WHO), ErrorCode::InvalidSchema),
    ] {
        assert_eq!(
            code(&bootstrap("create_cluster", &body).unwrap_err()),
            expected,
            "{body}"
        );
    }
    assert_eq!(
        code(&bootstrap("recover_cluster", "{}").unwrap_err()),
        ErrorCode::InvalidParam
    );
}

#[test]
fn a_node_that_joins() {
    let fingerprint = "AB:".repeat(31) + "AB";
    let join = |nodes: &str, ca: &str| {
        let body = format!(r#"{{"cluster":{{"nodes":[{nodes}]}},"credentials":{{{WHO}{ca}}}}}"#);
        bootstrap("join_cluster", &body)
    };
    let ca = format!(r#","ca_fingerprint":"{fingerprint}""#);
    let Wanted::Join(joined) = join(r#""127.0.1.2","127.0.1.3:9444""#, &ca).unwrap() else {
        panic!()
    };
    assert_eq!(joined.nodes, ["127.0.1.2", "127.0.1.3:9444"]);
    assert_eq!(joined.ca_fingerprint.as_deref(), Some(fingerprint.as_str()));

    let pem = serde_json::to_string(fixture::ca_pem()).unwrap();
    assert!(join(r#""127.0.1.2""#, &format!(r#","trusted_ca":{pem}"#)).is_ok());
    for (nodes, ca, expected) in [
        ("", ca.as_str(), ErrorCode::InvalidParam),
        (r#""host.example.com""#, &ca, ErrorCode::InvalidParam),
        (r#""127.0.1.1""#, &ca, ErrorCode::JoinSelf),
        (r#""127.0.1.2","127.0.1.1:9443""#, &ca, ErrorCode::JoinSelf),
        (
            r#""127.0.1.2""#,
            r#","ca_fingerprint":"AB""#,
            ErrorCode::InvalidParam,
        ),
        (
            r#""127.0.1.2""#,
            r#","trusted_ca":"no PEM""#,
            ErrorCode::InvalidParam,
        ),
    ] {
        assert_eq!(
            code(&join(nodes, ca).unwrap_err()),
            expected,
            "{nodes} {ca}"
        );
    }
    // Another port on this node's address is another node's.
    assert!(join(r#""127.0.1.1:9444""#, &ca).is_ok());
}
