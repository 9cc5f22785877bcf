use crate::cluster::{Cluster, eventually, get, put};
use store::{StoreError, Txn};

/// A leader on the wrong side of a partition must never give out old state as the present one.
#[tokio::test(flavor = "multi_thread")]
async fn an_old_leader_reads_nothing_old() {
    let cluster = Cluster::new(3, |_| {}).await;
    cluster.write(put("k", 1)).await;
    let old = cluster.store(1);
    cluster.cut_off(&[1]);
    // It still believes that it leads; from here on it must not say so for certain.
    assert!(old.status().is_leader);
    let reader = tokio::spawn({
        let old = old.clone();
        async move { successful_reads(&old).await }
    });
    let unknown = old.txn(put("lost", 1)).await.unwrap_err();
    assert!(
        matches!(unknown, StoreError::Timeout | StoreError::NoQuorum(_)),
        "{unknown}"
    );
    let new = cluster.leader_among(&[2, 3]).await;
    new.txn(put("k", 2)).await.unwrap();
    assert_eq!(
        reader.await.unwrap(),
        0,
        "no read succeeded while it was cut off"
    );
    let error = old.txn(put("k", 3)).await.unwrap_err();
    assert!(matches!(error, StoreError::NoQuorum(_)), "{error}");

    cluster.heal();
    eventually("the old leader follows", || {
        get(&old.state(), "k") == Some(2)
    })
    .await;
    assert!(matches!(
        old.barrier().await,
        Err(StoreError::NotLeader { .. })
    ));
    let state = cluster.converge().await;
    assert_eq!(get(&state, "k"), Some(2));
    assert_eq!(get(&state, "lost"), None, "it was cut from the log");
}

async fn successful_reads(store: &store::Store) -> usize {
    let mut succeeded = 0;
    for _ in 0..3 {
        match store.barrier().await {
            Ok(_) => succeeded += 1,
            Err(StoreError::NoQuorum(_)) => {}
            Err(error) => panic!("{error}"),
        }
    }
    succeeded
}

#[tokio::test(flavor = "multi_thread")]
async fn five_nodes_go_on_with_three() {
    let cluster = Cluster::new(5, |_| {}).await;
    cluster.cut_off(&[1, 2]);
    let leader = cluster.leader_among(&[3, 4, 5]).await;
    leader.txn(put("k", 1)).await.unwrap();
    for uid in [1, 2] {
        assert!(get(&cluster.store(uid).state(), "k").is_none());
    }
    cluster.heal();
    assert_eq!(get(&*cluster.converge().await, "k"), Some(1));
}

/// Two writers that both compare with the same revision: one of them wins, whoever leads.
#[tokio::test(flavor = "multi_thread")]
async fn compare_decides_between_writers() {
    let cluster = Cluster::new(3, |_| {}).await;
    let leader = cluster.leader().await;
    let txns: Vec<_> = (0..20u64)
        .map(|n| {
            let leader = leader.clone();
            tokio::spawn(async move {
                leader
                    .txn(Txn::new().expect("one", 0).put("one", &n).unwrap())
                    .await
                    .unwrap()
            })
        })
        .collect();
    let mut applied = 0;
    for txn in txns {
        applied += usize::from(matches!(
            txn.await.unwrap(),
            store::TxnResult::Applied { .. }
        ));
    }
    assert_eq!(applied, 1);
    assert_eq!(cluster.converge().await.revision.0, 1);
}
