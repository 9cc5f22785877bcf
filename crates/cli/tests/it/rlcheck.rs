//! `rlcheck` on a node whose folders, services and engines a test made.

use crate::fixtures::Cluster;
use crate::installed_node::{Installed, NODE_ALONE, file, supervisord};
use crate::internode_port::{Port, certificates, internode};
use insta::assert_snapshot;
use model::rest::Bootstrap;
use serde_json::Value;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;

#[test]
fn a_good_node_before_it_is_in_a_cluster() {
    let node = Installed::new();
    let (code, out, errors) = node.run(&[NODE_ALONE]);
    assert_eq!((code, errors.as_str()), (0, ""), "{out}");
    assert_snapshot!(out);
    let log = fs::read_to_string(node.node.config.log_dir().join("rlcheck.log")).unwrap();
    assert!(
        log.contains("verify_services: PASS") && log.contains("ends: passed"),
        "{log}"
    );
    let mode = fs::metadata(node.node.config.log_dir().join("rlcheck.log")).unwrap();
    assert_eq!(mode.permissions().mode() & 0o007, 0);
}

#[test]
fn stops_at_the_first_failure_unless_told_otherwise() {
    let node = Installed::new();
    node.node.answer("GET /v1/bootstrap", &{
        let mut idle = Bootstrap::default();
        "idle".clone_into(&mut idle.bootstrap_status.state);
        idle
    });
    supervisord(
        &node.node.config.supervisor_socket(),
        &[("cnm_exec", "RUNNING"), ("cnm_http", "BACKOFF")],
    );
    let (code, out, _) = node.run(&[NODE_ALONE]);
    assert_eq!(code, 1);
    assert_snapshot!("first_failure", out);
    let (code, out, _) = node.run(&[NODE_ALONE, "--continue-on-error"]);
    assert_eq!(code, 1);
    assert_snapshot!("all_failures", out);
    let both = "--suppress-tests=verify_host_settings,verify_port_range,verify_bootstrap_status,\
                verify_processes";
    assert_eq!(node.run(&[both]).0, 0, "what fails is left out");
}

/// It is told once that it is in no cluster, and nothing is asked of that one.
#[test]
fn a_node_that_was_removed() {
    let node = Installed::new();
    node.in_a_cluster();
    let mut cluster = Cluster::well();
    cluster.info.removed = true;
    cluster.show(&node.node);
    let (code, out, _) = node.run(&[NODE_ALONE, "--continue-on-error"]);
    assert_eq!(code, 1, "{out}");
    assert!(out.contains("\n1 TEST FAILED."), "{out}");
    assert!(
        out.contains("this node was removed from cluster 'cluster.local'"),
        "{out}"
    );
}

/// Who is not heard is not tried: that there are too few is a finding of its own.
#[test]
fn a_node_without_a_quorum() {
    let node = Installed::new();
    node.in_a_cluster();
    let mut cluster = Cluster::well();
    cluster.info.has_quorum = false;
    cluster.show(&node.node);
    let (code, out, _) = node.run(&[NODE_ALONE, "--continue-on-error"]);
    assert_eq!(code, 1, "{out}");
    assert!(out.contains("there is no quorum"), "{out}");
}

#[test]
fn retries() {
    let node = Installed::new();
    let socket = node.node.config.supervisor_socket();
    fs::remove_file(&socket).unwrap();
    let (code, out, _) = node.run(&[NODE_ALONE, "--retry", "2", "--retry-delay", "0"]);
    assert_eq!(code, 1);
    assert_eq!(out.matches("\ttrying again in 0 s\n").count(), 2, "{out}");
    assert!(
        out.contains("FAIL could not communicate with supervisord"),
        "{out}"
    );
}

#[test]
fn options_that_cannot_be() {
    let node = Installed::new();
    for arguments in [
        ["--suppress-tests=verify_nothing"],
        ["--retry=-1"],
        ["--frobnicate"],
    ] {
        let (code, out, errors) = node.run(&arguments);
        assert_eq!(code, 2, "{arguments:?}: {out}");
        assert!(!errors.is_empty());
    }
    let outside = assert_cmd::Command::cargo_bin("rlcheck")
        .unwrap()
        .env("MAINSTAY_CONFIG", "/nowhere/node.toml")
        .output()
        .unwrap();
    assert_eq!(outside.status.code(), Some(2));
    let (code, out, _) = node.run(&["--help"]);
    assert_eq!(code, 0);
    assert_snapshot!(out);
}

#[test]
fn the_log_may_be_elsewhere() {
    let node = Installed::new();
    let folder = node.node.folder.path().join("logs");
    fs::create_dir(&folder).unwrap();
    let option = format!("--file-path={}", folder.display());
    assert_eq!(node.run(&[NODE_ALONE, &option]).0, 0);
    assert!(folder.join("rlcheck.log").exists());
    let (code, _, errors) = node.run(&[NODE_ALONE, "--file-path=/nowhere/x.log"]);
    assert!(code == 0 && errors.starts_with("note: no log is written to /nowhere/x.log"));
}

#[test]
fn owners_and_modes() {
    let node = Installed::new();
    let config = &node.node.config;
    assert_eq!(
        node.failures_of("verify_owner_and_group"),
        Vec::<String>::new()
    );
    let key = config.certificates_dir().join("node_key.pem");
    file(&key, "key", 0o644);
    // Below a folder that is closed to others it is safe.
    let allow = |mode| {
        let permissions = fs::Permissions::from_mode(mode);
        fs::set_permissions(node.node.folder.path(), permissions).unwrap();
    };
    allow(0o750);
    assert_eq!(
        node.failures_of("verify_owner_and_group"),
        Vec::<String>::new()
    );
    allow(0o755);
    file(&config.store_dir().join("ccs.db"), "", 0o666);
    let failures = node.failures_of("verify_owner_and_group");
    assert_eq!(failures.len(), 2, "{failures:?}");
    assert!(
        failures
            .iter()
            .any(|f| f.contains("ccs.db may be written by everybody"))
    );
    assert!(
        failures
            .iter()
            .any(|f| f.contains("node_key.pem may be read by everybody"))
    );
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::lchown(&key, Some(1), Some(1)).unwrap();
        let failures = node.failures_of("verify_owner_and_group");
        assert!(
            failures
                .iter()
                .any(|f| f.contains("belongs to 1:1, not to root:root"))
        );
    }
}

#[test]
fn a_release_that_was_altered() {
    let node = Installed::new();
    let release = node.node.config.install_dir.join("releases/1.0.0");
    assert_eq!(
        node.failures_of("verify_capabilities"),
        Vec::<String>::new()
    );
    file(&release.join("bin/rladmin"), "program bin/rladmiN", 0o755);
    fs::set_permissions(
        release.join("bin/cnm_exec"),
        fs::Permissions::from_mode(0o644),
    )
    .unwrap();
    fs::remove_file(release.join("engines/valkey-9.1.2/bin/valkey-server")).unwrap();
    let failures = node.failures_of("verify_capabilities");
    for (failure, part) in failures.iter().zip([
        "bin/cnm_exec has mode 0644, not 0755",
        "bin/rladmin is not the file of the release",
        "valkey-server is missing",
    ]) {
        assert!(
            failure.contains(part) && failure.contains("install.sh of 1.0.0"),
            "{failure}"
        );
    }
    assert_eq!(failures.len(), 3);
    fs::remove_file(release.join("manifest.json")).unwrap();
    assert_eq!(node.failures_of("verify_capabilities").len(), 1);
}

#[test]
fn sockets_without_a_listener() {
    let mut node = Installed::new();
    node.in_a_cluster();
    assert_eq!(
        node.failures_of("verify_existing_sockets"),
        Vec::<String>::new()
    );
    let config = &node.node.config;
    for left_behind in [config.exec_socket(), config.handover_socket()] {
        fs::remove_file(&left_behind).unwrap();
        node.sockets.retain(|socket| {
            socket.local_addr().unwrap().as_pathname() != Some(left_behind.as_path())
        });
        drop(UnixListener::bind(&left_behind).unwrap());
    }
    fs::remove_file(config.proxy_socket()).unwrap();
    let failures = node.failures_of("verify_existing_sockets");
    assert_eq!(failures.len(), 3, "{failures:?}");
    assert!(failures[0].contains("cnm_exec.sock of cnm_exec is left behind"));
    assert!(failures[1].contains("proxy-config.sock of cnm_exec does not exist"));
    assert!(failures[2].contains("dmcproxy.sock of dmcproxy is left behind"));
}

#[test]
fn engines() {
    let node = Installed::new();
    node.in_a_cluster();
    let failures = node.failures_of("verify_engines");
    assert_eq!(failures.len(), 1, "{failures:?}");
    assert!(failures[0].contains("redis:1 of db:1 does not run on this node"));

    let engine = node.engine();
    for test in [
        "verify_engines",
        "verify_pidfiles",
        "verify_existing_sockets",
    ] {
        assert_eq!(node.failures_of(test), Vec::<String>::new(), "{test}");
    }
    fs::write(
        engine.folder.pid_path(),
        format!("{}\n", std::process::id()),
    )
    .unwrap();
    let failures = node.failures_of("verify_engines");
    assert!(failures[0].contains("the ledger"), "{failures:?}");
    fs::write(engine.folder.pid_path(), "4194999\n").unwrap();
    let failures = node.failures_of("verify_pidfiles");
    assert!(failures[0].contains("no living process"), "{failures:?}");
    fs::remove_file(engine.folder.pid_path()).unwrap();
    let failures = node.failures_of("verify_pidfiles");
    assert!(failures[0].contains("redis:1 runs without"), "{failures:?}");

    let mut elsewhere = Cluster::well();
    elsewhere.shards.clear();
    elsewhere.show(&node.node);
    let failures = node.failures_of("verify_engines");
    assert!(
        failures
            .iter()
            .any(|f| f.contains("has no such shard here")),
        "{failures:?}"
    );
}

#[test]
fn gossip() {
    let mut node = Installed::new();
    node.in_a_cluster();
    let (ca, certificate, key) = certificates(&node.node.config.certificates_dir());
    for (port, wanted) in [
        (Port::Mutual, None),
        (Port::Open, Some("serves clients that show no certificate")),
        (Port::Plain, Some("answers without encryption")),
    ] {
        let address = internode(port, &ca, &certificate, &key);
        node.node.config.ports.internode = address.port();
        node.node.write_config();
        let failures = node.failures_of("verify_encrypted_gossip");
        match wanted {
            None => assert_eq!(failures, Vec::<String>::new()),
            Some(part) => assert!(failures[0].contains(part), "{failures:?}"),
        }
    }
    // Another cluster's certificates.
    let address = internode(Port::Mutual, &ca, &certificate, &key);
    node.node.config.ports.internode = address.port();
    node.node.write_config();
    certificates(&node.node.config.certificates_dir());
    assert!(!node.failures_of("verify_encrypted_gossip").is_empty());
    fs::remove_dir_all(node.node.config.certificates_dir()).unwrap();
    let failures = node.failures_of("verify_encrypted_gossip");
    assert!(failures[0].contains("cannot be used"), "{failures:?}");
}

#[test]
fn connectivity() {
    let mut node = Installed::new();
    node.in_a_cluster();
    let ports: Vec<TcpListener> = (0..2)
        .map(|_| TcpListener::bind("127.0.0.1:0").unwrap())
        .collect();
    node.node.config.ports.https = ports[0].local_addr().unwrap().port();
    node.node.config.ports.internode = ports[1].local_addr().unwrap().port();
    node.node.write_config();
    assert_eq!(
        node.failures_of("verify_tcp_connectivity"),
        Vec::<String>::new()
    );
    drop(ports);
    let failures = node.failures_of("verify_tcp_connectivity");
    assert_eq!(failures.len(), 2, "{failures:?}");
    assert!(failures[0].contains("node:1 cannot be reached at 127.0.0.1:"));
}

#[test]
fn strict_makes_advice_a_failure() {
    let node = Installed::new();
    let only = "--suppress-tests=verify_owner_and_group,verify_bootstrap_status,verify_services,\
                verify_port_range,verify_pidfiles,verify_capabilities,verify_existing_sockets,\
                verify_tcp_connectivity,verify_encrypted_gossip,verify_engines";
    let settings = |strict: bool| {
        let mut arguments = vec!["--json", only];
        if strict {
            arguments.push("--strict");
        }
        let (code, out, _) = node.run(&arguments);
        let report: Value = serde_json::from_str(&out).unwrap();
        let tests = report["tests"].as_array().unwrap();
        let found = tests
            .iter()
            .find(|t| t["test"] == "verify_host_settings")
            .unwrap()
            .clone();
        (code, found)
    };
    let (code, plain) = settings(false);
    let (strict_code, strict) = settings(true);
    let count = |test: &Value, kind: &str| test[kind].as_array().unwrap().len();
    assert_eq!(count(&strict, "warnings"), 0);
    assert_eq!(
        count(&strict, "failures"),
        count(&plain, "failures") + count(&plain, "warnings")
    );
    assert_eq!(code, i32::from(count(&plain, "failures") > 0));
    assert_eq!(strict_code, i32::from(count(&strict, "failures") > 0));
}
