//! A disk without room: the member stays, acknowledges nothing, and goes on by itself when there is room.

use crate::cluster::{Cluster, eventually, get, put};
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use store::{RpcKind, StoreError};

/// A small file system with what was in a folder; unmounted when dropped. Needs root.
struct Disk(PathBuf);

impl Disk {
    fn mount(at: &Path) -> Self {
        let kept: Vec<_> = fs::read_dir(at)
            .unwrap()
            .map(|entry| entry.unwrap())
            .map(|entry| (entry.file_name(), fs::read(entry.path()).unwrap()))
            .collect();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=8m", "tmpfs"]);
        assert!(mount.arg(at).status().unwrap().success());
        for (name, bytes) in kept {
            fs::write(at.join(name), bytes).unwrap();
        }
        Self(at.to_owned())
    }

    /// Takes what is left.
    fn fill(&self) -> PathBuf {
        let path = self.0.join("full");
        let mut file = File::create(&path).unwrap();
        while file.write(&[0; 4096]).is_ok_and(|count| count > 0) {}
        path
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let done = Command::new("umount").arg("--lazy").arg(&self.0).status();
        if !done.is_ok_and(|status| status.success()) {
            eprintln!("{} is still mounted", self.0.display());
        }
    }
}

/// Three nodes, this one on a disk of its own.
async fn cluster(uid: u64) -> (Cluster, Disk) {
    let mut cluster = Cluster::new(3, |_| {}).await;
    cluster.write(put("k", 1)).await;
    cluster.converge().await;
    cluster.stop(uid).await;
    let disk = Disk::mount(&cluster.config(uid).dir);
    cluster.start(uid).await;
    cluster.converge().await;
    (cluster, disk)
}

/// Big enough to find the end of the disk.
fn much(number: u64) -> store::Txn {
    put("much", (number, "x".repeat(100_000)))
}

/// Writes until a node cannot.
async fn until_full(cluster: &Cluster, uid: u64) {
    for number in 0.. {
        if cluster.store(uid).status().disk_full {
            return;
        }
        cluster.write(much(number)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_without_room_acknowledges_nothing_and_goes_on_by_itself() {
    let (cluster, disk) = cluster(3).await;
    let file = disk.fill();
    until_full(&cluster, 3).await;
    cluster.write(put("k", 2)).await;
    let state = cluster.store(3).state();
    assert_eq!(get(&state, "k"), Some(1), "what it has is there");
    assert!(!cluster.store(1).status().disk_full);

    // A majority with it is none.
    let leader = cluster.leader().await;
    let other = if leader.status().node.0 == 1 { 2 } else { 1 };
    cluster.stop(other).await;
    let error = leader.txn(put("k", 3)).await.unwrap_err();
    assert!(
        matches!(error, StoreError::Timeout | StoreError::NoQuorum(_)),
        "{error}"
    );
    assert_eq!(get(&cluster.store(3).state(), "k"), Some(1));

    fs::remove_file(file).unwrap();
    cluster.write(put("k", 4)).await;
    let state = cluster.converge().await;
    assert_eq!(get(&state, "k"), Some(4));
    assert!(!cluster.store(3).status().disk_full);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_without_room_makes_way() {
    let (cluster, disk) = cluster(2).await;
    let leader = cluster.leader().await;
    if leader.status().node.0 != 2 {
        leader.hand_over(model::NodeUid(2)).await.unwrap();
    }
    cluster.leader_among(&[2]).await;
    let file = disk.fill();
    let mut number = 0;
    let error = loop {
        number += 1;
        if let Err(error) = cluster.store(2).txn(much(number)).await {
            break error;
        }
    };
    assert!(
        matches!(
            error,
            StoreError::Timeout | StoreError::NoQuorum(_) | StoreError::NotLeader { .. }
        ),
        "{error}"
    );
    let next = cluster.leader_among(&[1, 3]).await;
    assert!(cluster.store(2).status().disk_full);
    assert!(!cluster.store(2).status().is_leader);
    next.txn(put("k", 2)).await.unwrap();

    // It votes for nobody.
    let uid = next.status().node.0;
    let asked = cluster.net.sent(2, RpcKind::PreVote);
    cluster.stop(uid).await;
    eventually("it is asked", || {
        assert!(
            cluster
                .running()
                .iter()
                .all(|uid| !cluster.store(*uid).status().is_leader)
        );
        cluster.net.sent(2, RpcKind::PreVote) > asked + 4
    })
    .await;
    fs::remove_file(file).unwrap();
    cluster.leader().await;
    cluster.write(put("k", 3)).await;
    let state = cluster.converge().await;
    assert_eq!(get(&state, "k"), Some(3));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_without_room_ends_when_it_is_told_to() {
    let (mut cluster, disk) = cluster(3).await;
    let file = disk.fill();
    until_full(&cluster, 3).await;
    cluster.stop(3).await;
    // It starts with what it has, and finds no room again.
    cluster.start(3).await;
    assert_eq!(get(&cluster.store(3).state(), "k"), Some(1));
    cluster.write(put("k", 2)).await;
    eventually("it finds no room", || cluster.store(3).status().disk_full).await;
    fs::remove_file(file).unwrap();
    let state = cluster.converge().await;
    assert_eq!(get(&state, "k"), Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_alone_leads_again_when_there_is_room() {
    let mut cluster = Cluster::new(1, |_| {}).await;
    cluster.write(put("k", 1)).await;
    cluster.stop(1).await;
    let disk = Disk::mount(&cluster.config(1).dir);
    cluster.start(1).await;
    cluster.leader().await;
    let file = disk.fill();
    let mut number = 0;
    while cluster.store(1).txn(much(number)).await.is_ok() {
        number += 1;
    }
    assert!(cluster.store(1).status().disk_full);
    assert!(!cluster.store(1).status().is_leader);
    fs::remove_file(file).unwrap();
    cluster.write(put("k", 2)).await;
    assert_eq!(get(&*cluster.converge().await, "k"), Some(2));
}
