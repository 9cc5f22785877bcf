//! How does a cluster begin, and what if it is asked wrongly?

use crate::story::{refused, seen};
use model::rest::{Bootstrap, NodeInfo};
use std::time::Duration;
use testkit::cluster::{ADMIN, Cluster, PASSWORD};
use testkit::wait;

#[test]
fn create_and_join_refuse_what_cannot_be() {
    let mut cluster = Cluster::nodes(2).unwrap();
    let create = |name: &'static str, user: &'static str| {
        vec![
            "cluster", "create", "name", name, "username", user, "password", PASSWORD,
        ]
    };
    refused(&cluster, 0, &["status"], "not_member");
    refused(
        &cluster,
        0,
        &create("bad_name", ADMIN),
        "is not a cluster name",
    );
    refused(
        &cluster,
        0,
        &create("test.local", "nobody"),
        "is not a user name",
    );
    let output = cluster.nodes[0]
        .rladmin(&create("test.local", ADMIN))
        .unwrap();
    assert!(output.status.success(), "{}", seen(&output));
    refused(&cluster, 0, &create("test.local", ADMIN), "already_member");

    let good = cluster.join_words().unwrap();
    let with = |at: usize, word: &'static str| {
        let mut words = good;
        words[at] = word;
        words
    };
    let own: &'static str = Box::leak(cluster.nodes[1].config.address.to_string().into_boxed_str());
    refused(&cluster, 1, &with(3, own), "join_self");
    refused(&cluster, 1, &with(3, "127.0.0.1"), "connect_error");
    refused(&cluster, 1, &with(3, "not-an-address"), "not-an-address");
    refused(&cluster, 1, &with(5, "other@example.com"), "access_denied");
    refused(&cluster, 1, &with(7, "wrong"), "access_denied");
    let zeros: &'static str = Box::leak("00".repeat(32).into_boxed_str());
    refused(&cluster, 1, &with(9, zeros), "fingerprint_mismatch");
    refused(&cluster, 1, &good[..8], "fingerprint_mismatch");
    let nodes: Vec<NodeInfo> = cluster.nodes[0].get("/v1/nodes").unwrap();
    assert_eq!(nodes.len(), 1, "a refused join leaves nothing behind");

    cluster.nodes[1].rladmin_until(&good).unwrap();
    cluster.settled().unwrap();
    refused(&cluster, 1, &good, "already_member");
    cluster.add().unwrap();
    cluster.nodes[2].ready().unwrap();
    other_version(&mut cluster);
    cluster.nodes[2].rladmin_until(&good).unwrap();
    cluster.settled().unwrap();
}

/// A node of another version may not join; the same node with the right one may.
fn other_version(cluster: &mut Cluster) {
    let words = cluster.join_words().unwrap();
    let manifest = cluster.nodes[2].config.current().join("manifest.json");
    let text = serde_json::json!({
        "schema": 1, "product": "mainstay", "version": "9.9.9", "build_id": "other",
        "os": "linux", "arch": "amd64", "feature_min": 1, "feature_max": 1, "engines": [],
        "supervisor_version": "4.3.0", "supported_paths": {"path": []}, "glibc_min": "2.36",
        "profile": "fast", "files": {},
    });
    std::fs::write(&manifest, text.to_string()).unwrap();
    let restart = |cluster: &mut Cluster| {
        cluster.nodes[2].kill("cnm_exec").unwrap();
        cluster.nodes[2].start_daemon("cnm_exec").unwrap();
        cluster.nodes[2].ready().unwrap();
    };
    restart(cluster);
    refused(cluster, 2, &words, "version_mismatch");
    std::fs::remove_file(&manifest).unwrap();
    restart(cluster);
}

/// A join that is killed at any moment is completed by asking again, or has been completed.
#[test]
fn a_join_killed_at_any_moment_can_be_asked_again() {
    let mut cluster = Cluster::start(1).unwrap();
    for round in 0..6_u64 {
        cluster.add().unwrap();
        let last = cluster.nodes.len() - 1;
        cluster.nodes[last].ready().unwrap();
        let words = cluster.join_words().unwrap();
        let rladmin = cluster.nodes[last].config.current().join("bin/rladmin");
        let mut asking = std::process::Command::new(rladmin)
            .args(words)
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        // Rounds differ in how far the join gets; each of them must end well.
        std::thread::sleep(Duration::from_millis(15 * round));
        cluster.nodes[last].kill("cnm_exec").unwrap();
        asking.wait().unwrap();
        cluster.nodes[last].start_daemon("cnm_exec").unwrap();
        let node = &cluster.nodes[last];
        wait::until(
            "the node belongs to the cluster",
            Duration::from_secs(30),
            || {
                let state: Bootstrap = node.get("/v1/bootstrap").map_err(|e| e.to_string())?;
                if state.bootstrap_status.state == "completed" {
                    return Ok(());
                }
                let output = node.rladmin(&words).map_err(|e| e.to_string())?;
                if output.status.success() {
                    Ok(())
                } else {
                    Err(seen(&output))
                }
            },
        )
        .unwrap();
        cluster.settled().unwrap();
    }
}

#[test]
fn a_create_killed_at_any_moment_can_be_asked_again() {
    for round in 0..5_u64 {
        let mut cluster = Cluster::nodes(1).unwrap();
        let words = [
            "cluster",
            "create",
            "name",
            "test.local",
            "username",
            ADMIN,
            "password",
            PASSWORD,
        ];
        let rladmin = cluster.nodes[0].config.current().join("bin/rladmin");
        let mut asking = std::process::Command::new(rladmin)
            .args(words)
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(40 * round));
        cluster.nodes[0].kill("cnm_exec").unwrap();
        asking.wait().unwrap();
        cluster.nodes[0].start_daemon("cnm_exec").unwrap();
        let node = &cluster.nodes[0];
        wait::until("the cluster exists", Duration::from_secs(30), || {
            let state: Bootstrap = node.get("/v1/bootstrap").map_err(|e| e.to_string())?;
            if state.bootstrap_status.state == "completed" {
                return Ok(());
            }
            let output = node.rladmin(&words).map_err(|e| e.to_string())?;
            if output.status.success() {
                Ok(())
            } else {
                Err(seen(&output))
            }
        })
        .unwrap();
        cluster.settled().unwrap();
    }
}
