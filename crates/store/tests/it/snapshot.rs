use crate::cluster::{Cluster, eventually, get, put};
use model::Revision;
use store::{Changes, RpcKind, StoreConfig};

fn small(config: &mut StoreConfig) {
    config.snapshot_every = 20;
    config.keep_entries = 5;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_far_behind_gets_a_snapshot_and_goes_on() {
    let mut cluster = Cluster::new(1, small).await;
    for n in 0..100u64 {
        cluster.write(put(format!("k{}", n % 30), n)).await;
    }
    cluster.join(2).await;
    cluster.converge().await;
    assert!(
        cluster.net.sent(2, RpcKind::Snapshot) > 0,
        "the log does not reach back that far"
    );
    let learner = cluster.store(2);
    assert_eq!(learner.changes_since(Revision(1)), Changes::Compacted);

    // Again, when it has a snapshot already; and twice in quick succession.
    for round in 0..2u64 {
        cluster.cut_off(&[2]);
        let sent = cluster.net.sent(2, RpcKind::Snapshot);
        for n in 0..60u64 {
            cluster.write(put(format!("r{round}-{}", n % 7), n)).await;
        }
        cluster.heal();
        cluster.converge().await;
        assert!(cluster.net.sent(2, RpcKind::Snapshot) > sent);
    }

    // What it got is on its disk.
    let hash = learner.state().hash();
    drop(learner);
    cluster.stop(2).await;
    cluster.stop(1).await;
    cluster.start(2).await;
    let learner = cluster.store(2);
    assert_eq!(learner.state().hash(), hash);
    cluster.start(1).await;
    cluster.write(put("last", 1)).await;
    assert_eq!(get(&*cluster.converge().await, "last"), Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_is_purged_and_the_state_survives_restarts() {
    let mut cluster = Cluster::new(3, small).await;
    let mut hash = String::new();
    for round in 0..3u64 {
        for n in 0..35u64 {
            cluster
                .write(put(format!("k{}", n % 10), round * 100 + n))
                .await;
        }
        let after = cluster.converge().await.hash();
        assert_ne!(after, hash);
        hash = after;
        eventually("snapshots are made", || {
            cluster
                .running()
                .iter()
                .all(|uid| cluster.store(*uid).status().snapshot.is_some())
        })
        .await;
        cluster.stop_all().await;
        // Alone, without a majority, each knows what was agreed on.
        for uid in 1..=3 {
            cluster.start(uid).await;
            assert_eq!(
                cluster.store(uid).state().hash(),
                hash,
                "node {uid} from its disk"
            );
            cluster.stop(uid).await;
        }
        for uid in 1..=3 {
            cluster.start(uid).await;
        }
        assert_eq!(cluster.converge().await.hash(), hash);
    }
}
