use crate::cluster::{Cluster, End, Net, get, member, put, uids};
use model::NodeUid;
use std::sync::Arc;
use store::{State, Store, StoreConfig, StoreError};

/// The majority is lost for good: the state of a survivor becomes a new store under a new uid.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_store_is_made_of_what_is_left() {
    let mut cluster = Cluster::new(3, |_| {}).await;
    for n in 0..20u64 {
        cluster.write(put(format!("k{n}"), n)).await;
    }
    let before = cluster.converge().await;
    cluster.stop(1).await;
    cluster.stop(2).await;
    let backup = cluster.store(3).state().export().unwrap();
    cluster.stop(3).await;

    let state = State::import(&backup).unwrap();
    assert_eq!(state, *before);
    let config = cluster.config(4);
    Store::restore(&config, &state, member(4)).await.unwrap();
    cluster.start(4).await;
    let restored = cluster.leader().await.barrier().await.unwrap();
    assert_eq!(restored.entries, before.entries, "with their revisions");
    assert!(restored.revision > before.revision);
    // It is a store like any other: it writes, and others join.
    cluster.write(put("k0", 77)).await;
    cluster.join(5).await;
    cluster.join(6).await;
    cluster.store(4).set_voters(uids(4..=6)).await.unwrap();
    cluster.store(4).hand_over(NodeUid(6)).await.unwrap();
    let state = cluster.converge().await;
    assert_eq!(
        (get(&state, "k0"), get(&state, "k19")),
        (Some(77), Some(19))
    );

    cluster.stop(4).await;
    let config = cluster.config(4);
    let error = Store::restore(&config, &state, member(4))
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("a store in this folder already"),
        "{error}"
    );
}

#[tokio::test]
async fn what_is_no_backup_is_refused() {
    let mut state = State::default();
    state.apply(&put("k", 1)).unwrap();
    let good = state.export().unwrap();
    assert_eq!(
        good.to_string(),
        r#"{"kind":"mainstay configuration","version":1,"revision":1,"entries":[{"key":"k","revision":1,"value":1}]}"#,
        "the format is kept for ever"
    );
    let refused = |change: fn(&mut serde_json::Value)| {
        let mut bad = good.clone();
        change(&mut bad);
        State::import(&bad).unwrap_err().to_string()
    };
    assert!(refused(|bad| bad["kind"] = "x".into()).contains("not a backup"));
    assert!(refused(|bad| bad["version"] = 2.into()).contains("it has version 2"));
    assert!(refused(|bad| bad["revision"] = 0.into()).contains("k is there twice or has revision"));
    assert!(refused(|bad| bad["entries"] = 1.into()).contains("backup:"));

    let folder = tempfile::tempdir().unwrap();
    let config = StoreConfig::new(NodeUid(1), folder.path());
    let error = Store::restore(&config, &state, member(2))
        .await
        .unwrap_err();
    assert!(matches!(error, StoreError::Invalid(_)), "{error}");
    Store::restore(&config, &state, member(1)).await.unwrap();
    let store = Store::open(config, End::new(&Arc::<Net>::default(), 1))
        .await
        .unwrap();
    assert_eq!(
        get(&store.state(), "k"),
        Some(1),
        "at once, before anybody leads"
    );
    store.shutdown().await;
}
