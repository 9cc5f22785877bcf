use crate::cluster::{Cluster, get, put};
use model::Revision;
use std::collections::BTreeMap;
use store::{Changes, Txn};

/// A watcher on a follower, nudged by `watch`, sees every change once and in order.
#[tokio::test(flavor = "multi_thread")]
async fn a_follower_sees_every_change_in_order() {
    let cluster = Cluster::new(3, |_| {}).await;
    let follower = cluster.store(3);
    let last = Revision(60);
    let watcher = tokio::spawn(async move {
        let mut nudge = follower.watch();
        let (mut seen, mut copy) = (Revision(0), BTreeMap::new());
        while seen < last {
            nudge.wait_for(|revision| *revision > seen).await.unwrap();
            let Changes::Events(events) = follower.changes_since(seen) else {
                panic!("nothing was dropped from the history")
            };
            for event in events {
                assert!(event.revision == seen || event.revision == seen.next());
                seen = event.revision;
                match event.value {
                    Some(entry) => copy.insert(event.key, (entry.value.clone(), entry.revision)),
                    None => copy.remove(&event.key),
                };
            }
        }
        copy
    });
    for n in 0..last.0 {
        let txn = match n % 3 {
            2 => Txn::new().delete(format!("k{}", n - 1)),
            _ => put(format!("k{n}"), n)
                .put(format!("l{}", n % 5), &n)
                .unwrap(),
        };
        cluster.write(txn).await;
    }
    let copy = watcher.await.unwrap();
    let state = cluster.converge().await;
    assert_eq!(state.revision, last);
    let state: BTreeMap<_, _> = state
        .entries
        .iter()
        .map(|(key, entry)| (key.clone(), (entry.value.clone(), entry.revision)))
        .collect();
    assert_eq!(copy, state);
}

#[tokio::test(flavor = "multi_thread")]
async fn too_far_back_is_said() {
    let cluster = Cluster::new(1, |config| config.history = 10).await;
    let store = cluster.store(1);
    for n in 1..=30u64 {
        store.txn(put("k", n)).await.unwrap();
    }
    assert_eq!(store.changes_since(Revision(19)), Changes::Compacted);
    let Changes::Events(events) = store.changes_since(Revision(20)) else {
        panic!()
    };
    let revisions: Vec<u64> = events.iter().map(|event| event.revision.0).collect();
    assert_eq!(revisions, (21..=30).collect::<Vec<_>>());
    assert_eq!(
        store.changes_since(Revision(31)),
        Changes::Compacted,
        "of another life"
    );
    assert_eq!(get(&store.state(), "k"), Some(30));
    assert_eq!(store.state().list::<u64>("").unwrap(), [(30, 30)]);
}
