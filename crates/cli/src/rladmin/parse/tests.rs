//! Lines as operators type them.

use super::*;
use crate::rladmin::words::split;

fn command(line: &str) -> Result<(Options, Typed), Failure> {
    parse(&split(line).unwrap())
}

fn invocation(line: &str) -> Invocation {
    match command(line) {
        Ok((_, Typed::Command(invocation))) => *invocation,
        other => panic!("{line}: {other:?}"),
    }
}

fn message(line: &str) -> String {
    match command(line) {
        Err(failure @ Failure::Usage { .. }) => failure.to_string(),
        other => panic!("{line}: {other:?}"),
    }
}

#[test]
fn values_in_any_order() {
    for line in [
        "cluster create name c.local username a@b.c password 'p w' rack_id r1",
        "cluster create rack_id r1 password 'p w' username a@b.c name c.local",
    ] {
        let typed = invocation(line);
        assert_eq!(typed.verb(), Verb::ClusterCreate);
        assert_eq!(typed.text("name"), Some("c.local"));
        assert_eq!(typed.text("password"), Some("p w"));
        assert!(typed.shows_password());
    }
}

#[test]
fn lists_end_at_the_next_keyword() {
    let typed = invocation(
        "cluster join nodes 10.0.0.1 10.0.0.2:9443 username a@b.c external_addr 1.2.3.4 ::1",
    );
    assert_eq!(typed.list("nodes"), ["10.0.0.1", "10.0.0.2:9443"]);
    assert_eq!(typed.list("external_addr"), ["1.2.3.4", "::1"]);
    let typed = invocation("status extra rack_id watchdog shards sort DB:ID NODE issues_only");
    assert_eq!(typed.operand.as_deref(), Some("shards"));
    assert_eq!(typed.list("extra"), ["rack_id", "watchdog"]);
    assert_eq!(typed.list("sort"), ["DB:ID", "NODE"]);
    assert!(typed.has("issues_only"));
}

#[test]
fn a_value_may_look_like_a_keyword_or_an_option() {
    let typed = invocation("cluster create name c.local username a@b.c password name");
    assert_eq!(typed.text("password"), Some("name"));
    let typed = invocation("cluster create name c.local username a@b.c password -y");
    assert_eq!(typed.text("password"), Some("-y"));
}

#[test]
fn options_before_between_and_after() {
    for line in [
        "-y --json status nodes",
        "status --json nodes -y",
        "status nodes --json -y",
    ] {
        let (options, typed) = command(line).unwrap();
        assert!(options.yes && options.json, "{line}");
        assert!(matches!(typed, Typed::Command(_)));
    }
    assert!(
        matches!(command("status --help").unwrap().1, Typed::Help(topic) if topic == ["status"])
    );
    assert!(
        matches!(command("help cluster join").unwrap().1, Typed::Help(topic) if topic.len() == 2)
    );
    assert!(command("--version").unwrap().0.version);
    assert!(matches!(command("").unwrap().1, Typed::Nothing));
}

#[test]
fn values_are_typed() {
    let typed = invocation("create db demo memory_size 1.5GB port 12000 proxy_policy all-nodes");
    assert_eq!(typed.operand.as_deref(), Some("demo"));
    assert_eq!(typed.size("memory_size"), Some(3 << 29));
    assert_eq!(typed.number::<u16>("port"), Some(12_000));
    assert_eq!(
        typed.choice("proxy_policy"),
        Some(model::documents::ProxyPolicy::AllNodes)
    );
    assert_eq!(
        invocation("info node node:2").operand_node(),
        Some(NodeUid(2))
    );
    assert_eq!(invocation("info proxy all").operand_node(), None);
}

#[test]
fn errors_name_the_word() {
    for (line, part) in [
        (
            "statsu",
            "unknown command 'statsu' (did you mean 'status'?)",
        ),
        ("cluster", "'cluster' needs one more word"),
        (
            "cluster craete",
            "unknown word 'craete' after 'cluster' (did you mean 'create'?)",
        ),
        ("status foo", "unknown word 'foo'"),
        ("status nodes shards", "unknown word 'shards'"),
        ("status extra", "'extra' needs a value"),
        ("status extra foo", "extra: 'foo' is not one of"),
        ("status node x", "node: 'x' is not a node"),
        ("create db", "<name> is missing after 'create db'"),
        ("create db demo", "'memory_size' is missing"),
        ("create db demo memory_size", "'memory_size' needs a value"),
        (
            "create db demo memory_size big",
            "memory_size: 'big' is not a size",
        ),
        (
            "create db demo memory_size 1GB port 80",
            "port: '80' is not a whole number from 10000",
        ),
        (
            "create db demo memory_size 1GB memory_size 2GB",
            "'memory_size' stands twice",
        ),
        (
            "create db -bad- memory_size 1GB",
            "'-bad-' is not a database name",
        ),
        (
            "create db demo memroy_size 1GB",
            "unknown word 'memroy_size' (did you mean 'memory_size'?)",
        ),
        (
            "create db memory_size 1GB",
            "<name> is missing after 'create db'",
        ),
        ("tune db demo", "'tune db' needs something to change"),
        ("tune cluster", "'tune cluster' needs something to change"),
        ("delete db", "<db:id|name> is missing"),
        ("info proxy", "<node|all> is missing"),
        ("cluster join username a@b.c", "'nodes' is missing"),
        (
            "cluster join nodes host username a@b.c",
            "nodes: 'host' is not an IP address",
        ),
        (
            "cluster create name a_b username a@b.c",
            "name: 'a_b' is not a cluster name",
        ),
        (
            "cluster create name c username admin",
            "username: 'admin' is not a user name",
        ),
        ("exit now", "unknown word 'now'"),
    ] {
        let found = message(line);
        assert!(found.contains(part), "{line}: {found}");
    }
}
