//! What if most of the control plane is down?

use crate::story::{get, refused, seen, served, set};
use std::time::{Duration, Instant};
use testkit::cluster::Cluster;
use testkit::wait;

/// The node that is left was not the primary node: it has only heard of it.
#[test]
fn a_follower_that_is_left_alone_comes_back_to_the_others() {
    let mut cluster = Cluster::start(3).unwrap();
    cluster.nodes[0]
        .rladmin_until(&["cluster", "master", "set", "2"])
        .unwrap();
    cluster.nodes[1].kill("cnm_exec").unwrap();
    cluster.nodes[2].kill("cnm_exec").unwrap();
    wait::until("no quorum is seen", Duration::from_secs(20), || {
        let output = cluster.nodes[0]
            .rladmin(&["status"])
            .map_err(|e| e.to_string())?;
        let text = seen(&output);
        if text.to_lowercase().contains("no quorum") {
            Ok(())
        } else {
            Err(text)
        }
    })
    .unwrap();
    refused(
        &cluster,
        0,
        &["create", "db", "demo", "memory_size", "64MB"],
        "no_quorum",
    );
    cluster.nodes[1].start_daemon("cnm_exec").unwrap();
    cluster.nodes[2].start_daemon("cnm_exec").unwrap();
    cluster.settled().unwrap();
    cluster.create_db(&["demo", "memory_size", "64MB"]).unwrap();
}

#[test]
fn databases_serve_and_changes_are_refused_with_the_reason() {
    let mut cluster = Cluster::start(3).unwrap();
    cluster
        .create_db(&[
            "demo",
            "memory_size",
            "64MB",
            "port",
            "12000",
            "proxy_policy",
            "all-nodes",
        ])
        .unwrap();
    set(&mut served(&cluster, 0, 12000), "before", "1");
    cluster.nodes[1].kill("cnm_exec").unwrap();
    cluster.nodes[2].kill("cnm_exec").unwrap();

    let output = wait::until("no quorum is seen", Duration::from_secs(20), || {
        let output = cluster.nodes[0]
            .rladmin(&["status"])
            .map_err(|e| e.to_string())?;
        let text = seen(&output);
        if text.to_lowercase().contains("no quorum") {
            Ok(output)
        } else {
            Err(text)
        }
    })
    .unwrap();
    assert!(output.status.success());
    let text = seen(&output);
    for known in [
        "node:1",
        "node:2",
        "node:3",
        "demo",
        "redis-12000.test.local:12000",
    ] {
        assert!(
            text.contains(known),
            "the last known state has {known}:\n{text}"
        );
    }
    let create = ["create", "db", "second", "memory_size", "64MB"];
    refused(&cluster, 0, &create, "no_quorum");
    refused(&cluster, 0, &["delete", "db", "demo", "-y"], "no_quorum");
    for node in 0..3 {
        let mut connection = cluster.connect(node, 12000).unwrap();
        assert_eq!(
            get(&mut connection, "before").as_deref(),
            Some("1"),
            "through node {node}"
        );
        set(&mut connection, "during", "2");
    }

    cluster.nodes[1].start_daemon("cnm_exec").unwrap();
    cluster.nodes[2].start_daemon("cnm_exec").unwrap();
    cluster.settled().unwrap();
    cluster
        .create_db(&["second", "memory_size", "64MB"])
        .unwrap();
    assert_eq!(
        get(&mut served(&cluster, 2, 12000), "during").as_deref(),
        Some("2")
    );
}

/// Everything on two nodes dies, the other copy of the database among it: clients of the third are told why nothing is
/// written, those that were waiting and those that come then, whether it was the primary node or not.
#[test]
fn who_writes_is_told_that_there_is_no_quorum() {
    for led in [true, false] {
        let mut cluster = Cluster::start(3).unwrap();
        cluster.create_replicated(&[]).unwrap();
        let left = cluster
            .index(cluster.primary_shard().unwrap().node_uid)
            .unwrap();
        let leader = if led { left } else { (left + 1) % 3 };
        let uid = (leader + 1).to_string();
        cluster.nodes[leader]
            .rladmin_until(&["cluster", "master", "set", &uid])
            .unwrap();
        let mut client = served(&cluster, left, 12_000);
        set(&mut client, "before", "1");
        let since = Instant::now();
        for other in (0..3).filter(|node| *node != left) {
            cluster.nodes[other].kill_everything().unwrap();
        }
        let mut written = 0;
        // Of one that is in flight when the lease ends, the outcome is not known.
        let told = wait::until("a write is refused", Duration::from_secs(20), || {
            written += 1;
            let mut write = redis::cmd("SET");
            let answer = write.arg("n").arg(written).query::<()>(&mut client);
            match answer {
                Err(error) if error.to_string().contains("there is no quorum") => {
                    assert_eq!(error.code(), Some("TRYAGAIN"));
                    Ok(error.to_string())
                }
                other => Err(format!("{written} are written: {other:?}")),
            }
        })
        .unwrap();
        println!(
            "told {:?} after the first end, led here: {led}: {told}",
            since.elapsed()
        );
    }
}
