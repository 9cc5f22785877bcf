use crate::cluster::{Cluster, eventually, get, put};
use model::NodeUid;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use store::StoreError;

/// Leadership moves round while transactions are written: each that was acknowledged is there, none
/// twice.
#[tokio::test(flavor = "multi_thread")]
async fn leadership_moves_under_load_and_no_transaction_is_lost() {
    let cluster = Arc::new(Cluster::new(3, |_| {}).await);
    let stop = Arc::new(AtomicBool::new(false));
    let written = Arc::new(AtomicU64::new(0));
    let writer = tokio::spawn({
        let (cluster, stop, written) = (cluster.clone(), stop.clone(), written.clone());
        async move {
            let mut next = 0u64;
            while !stop.load(Ordering::Acquire) {
                cluster.write(put(format!("k{next}"), next)).await;
                next += 1;
                written.store(next, Ordering::Release);
            }
            next
        }
    });
    let terms = cluster.leader().await.status().term;
    for target in [2, 3, 1, 3] {
        let before = written.load(Ordering::Acquire);
        eventually("the writer goes on", || {
            written.load(Ordering::Acquire) > before + 5
        })
        .await;
        let leader = cluster.leader().await;
        leader.hand_over(NodeUid(target)).await.unwrap();
        let status = cluster.leader().await.status();
        assert_eq!(
            status.node,
            NodeUid(target),
            "the target leads when the call returns"
        );
    }
    stop.store(true, Ordering::Release);
    let count = writer.await.unwrap();
    let state = cluster.converge().await;
    assert!((0..count).all(|n| get(&state, &format!("k{n}")) == Some(n)));
    assert_eq!(
        cluster.leader().await.status().term,
        terms + 4,
        "no election failed"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hand_over_that_fails_leaves_the_leader_leading() {
    let mut cluster = Cluster::new(3, |_| {}).await;
    cluster.join(4).await;
    let leader = cluster.leader().await;
    let error = leader.hand_over(NodeUid(4)).await.unwrap_err();
    assert!(error.to_string().contains("node 4 is no voter"), "{error}");
    leader.hand_over(NodeUid(1)).await.unwrap();

    cluster.cut_off(&[3]);
    cluster.write(put("k", 1)).await;
    let error = leader.hand_over(NodeUid(3)).await.unwrap_err();
    assert!(matches!(error, StoreError::HandOver(_)), "{error}");
    assert!(
        error
            .to_string()
            .contains("node 3 did not catch up in time"),
        "{error}"
    );
    leader.txn(put("k", 2)).await.unwrap();
    cluster.heal();
    leader.hand_over(NodeUid(3)).await.unwrap();
    assert_eq!(get(&*cluster.converge().await, "k"), Some(2));
}
