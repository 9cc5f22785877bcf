//! Nodes are cut off, stopped, started, and the leadership is moved, at random, while transactions
//! are written. Afterwards: what was acknowledged is there once, what was refused is not, all nodes
//! are equal. `STORE_CHAOS_SEED` makes other choices.

use crate::cluster::{Cluster, eventually, put};
use model::NodeUid;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use store::{State, Store, StoreConfig, StoreError, TxnResult};
use tokio::sync::RwLock;

const FAULTS: usize = 14;
const WRITERS: u64 = 4;

fn tune(config: &mut StoreConfig) {
    config.snapshot_every = 60;
    config.keep_entries = 20;
    config.request_timeout = Duration::from_millis(700);
}

#[derive(Default)]
struct Written {
    acknowledged: Vec<(String, u64)>,
    refused: Vec<String>,
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_lose_nothing_and_heal() {
    let seed = std::env::var("STORE_CHAOS_SEED").map_or(1, |seed| seed.parse::<u64>().unwrap());
    println!("STORE_CHAOS_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let cluster = Arc::new(RwLock::new(Cluster::new(3, tune).await));
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| tokio::spawn(write(cluster.clone(), stop.clone(), writer)))
        .collect();
    for _ in 0..FAULTS {
        fault(&cluster, &mut random).await;
    }
    let mut cluster_now = cluster.write().await;
    cluster_now.heal();
    for uid in 1..=3 {
        if !cluster_now.running().contains(&uid) {
            cluster_now.start(uid).await;
        }
    }
    drop(cluster_now);
    stop.store(true, Ordering::Release);
    let cluster_now = cluster.read().await;
    cluster_now.write(put("end", 1)).await;
    let mut all = Vec::new();
    for writer in writers {
        all.push(writer.await.unwrap());
    }
    let state = cluster_now.converge().await;
    all.iter().for_each(|written| check(&state, written));
    eventually("all nodes know the leader", || {
        (1..=3).all(|uid| cluster_now.store(uid).status().leader.is_some())
    })
    .await;
    let acknowledged: usize = all.iter().map(|written| written.acknowledged.len()).sum();
    println!("{acknowledged} acknowledged, revision {}", state.revision);
    assert!(acknowledged > 50, "the writers got on");
}

/// One fault, for a random while; at most one node is cut off and one stopped at a time.
async fn fault(cluster: &RwLock<Cluster>, random: &mut StdRng) {
    let node = random.random_range(1..=3);
    let pause = Duration::from_millis(random.random_range(50..900));
    match random.random_range(0..5) {
        0 | 1 => cluster.read().await.cut_off(&[node]),
        2 => {
            let mut cluster = cluster.write().await;
            match cluster.running().contains(&node) {
                true => cluster.stop(node).await,
                false => cluster.start(node).await,
            }
        }
        3 => {
            let leader = leader(&*cluster.read().await);
            if let Some(leader) = leader {
                // It may fail, as anything may here.
                let _ = leader.hand_over(NodeUid(node)).await;
            }
        }
        _ => cluster.read().await.heal(),
    }
    tokio::time::sleep(pause).await;
    if random.random_bool(0.5) {
        cluster.read().await.heal();
    }
    // With two nodes down nothing more happens: start one.
    let mut cluster = cluster.write().await;
    let stopped: Vec<u64> = (1..=3)
        .filter(|uid| !cluster.running().contains(uid))
        .collect();
    if stopped.len() > 1 {
        let uid = *stopped.choose(random).unwrap();
        cluster.start(uid).await;
    }
}

fn leader(cluster: &Cluster) -> Option<Store> {
    let stores = cluster.running().into_iter().map(|uid| cluster.store(uid));
    stores.into_iter().find(|store| store.status().is_leader)
}

/// Writes one key after the other, each once, at whoever seems to lead.
async fn write(cluster: Arc<RwLock<Cluster>>, stop: Arc<AtomicBool>, writer: u64) -> Written {
    let mut written = Written::default();
    let mut next = 0u64;
    while !stop.load(Ordering::Acquire) {
        let store = leader(&*cluster.read().await);
        let Some(store) = store else {
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        let key = format!("w{writer}-{next}");
        next += 1;
        match store
            .txn(put(key.clone(), next).expect(key.clone(), 0))
            .await
        {
            Ok(TxnResult::Applied { revision }) => written.acknowledged.push((key, revision.0)),
            Ok(TxnResult::Conflict { .. }) => panic!("{key} was written twice"),
            Err(StoreError::NotLeader { .. } | StoreError::NoQuorum(_) | StoreError::Busy) => {
                written.refused.push(key);
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            Err(StoreError::Timeout | StoreError::ShuttingDown) => {}
            Err(error) => panic!("{error}"),
        }
    }
    written
}

fn check(state: &State, written: &Written) {
    for (key, revision) in &written.acknowledged {
        let found = state.entries.get(key).map(|entry| entry.revision);
        assert_eq!(found, Some(*revision), "{key} was acknowledged");
    }
    for key in &written.refused {
        assert!(
            !state.entries.contains_key(key),
            "{key} was refused and is there"
        );
    }
}
