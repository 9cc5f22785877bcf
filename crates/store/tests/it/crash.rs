//! A process that writes is killed: everything that it acknowledged is there afterwards.

use crate::cluster::{Cluster, End, Net, eventually, member, put};
use model::NodeUid;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};
use std::sync::Arc;
use store::{Store, StoreConfig};

/// Where the child finds its folder.
const FOLDER: &str = "MAINSTAY_STORE_CRASH_FOLDER";
const ROUNDS: usize = 4;
const WRITES: u64 = 120;

fn config(folder: &std::path::Path) -> StoreConfig {
    let mut config = StoreConfig::new(NodeUid(1), folder);
    config.snapshot_every = 50;
    config.keep_entries = 10;
    config
}

async fn open(folder: &std::path::Path) -> Store {
    let net = Arc::<Net>::default();
    let store = Store::open(config(folder), End::new(&net, 1))
        .await
        .unwrap();
    store.initialize(member(1)).await.unwrap();
    let known = store.leadership();
    eventually("the node leads", || known.borrow().is_some()).await;
    store
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_transactions_survive_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let mut acknowledged = 0;
    for round in 0..ROUNDS {
        acknowledged = kill_while_writing(folder.path(), acknowledged);
        let store = open(folder.path()).await;
        let state = store.barrier().await.unwrap();
        for n in 0..=acknowledged {
            let found = state.get::<u64>(&format!("k{n}")).unwrap();
            assert_eq!(found.map(|(value, _)| value), Some(n), "round {round}");
        }
        // What was under way may be there too, but nothing after it.
        let count = state.entries.len() as u64;
        assert!(
            (acknowledged + 1..=acknowledged + 2).contains(&count),
            "{count}"
        );
        acknowledged = count - 1;
        store.shutdown().await;
    }
}

/// Starts the child, lets it write, kills it. Returns the last number that it acknowledged.
fn kill_while_writing(folder: &std::path::Path, from: u64) -> u64 {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "crash::child", "--ignored", "--nocapture"])
        .env(FOLDER, folder)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut acknowledged = None;
    let mut killed = false;
    for line in lines {
        // The test harness may have written its own words before it on the same line.
        let line = line.unwrap();
        let Some((_, number)) = line.split_once("acknowledged ") else {
            continue;
        };
        acknowledged = Some(number.parse::<u64>().unwrap());
        // What it acknowledged before the signal came is read to its end.
        if !killed && acknowledged >= Some(from + WRITES) {
            child.kill().unwrap();
            killed = true;
        }
    }
    assert!(killed, "the child ended by itself");
    child.wait().unwrap();
    acknowledged.expect("the child wrote something")
}

/// Not a test of its own: what the killed process does.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by acknowledged_transactions_survive_a_kill"]
async fn child() {
    let folder = std::env::var(FOLDER).unwrap();
    let store = open(folder.as_ref()).await;
    let mut next = store.barrier().await.unwrap().entries.len() as u64;
    loop {
        store.txn(put(format!("k{next}"), next)).await.unwrap();
        let mut out = std::io::stdout().lock();
        writeln!(out, "acknowledged {next}").unwrap();
        out.flush().unwrap();
        drop(out);
        next += 1;
    }
}

/// The cluster's folders go with it; a store that is dropped without a shutdown closes its own.
#[tokio::test(flavor = "multi_thread")]
async fn dropping_the_last_handle_closes_the_folder() {
    let mut cluster = Cluster::new(1, |_| {}).await;
    let folder = cluster.config(9).dir;
    let net = Arc::<Net>::default();
    let mut settings = config(&folder);
    settings.node = NodeUid(1);
    drop(Store::open(settings, End::new(&net, 1)).await.unwrap());
    // Opening waits up to some seconds for a predecessor that still ends.
    open(&folder).await.shutdown().await;
}
