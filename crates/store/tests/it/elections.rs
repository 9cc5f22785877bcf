use crate::cluster::{Cluster, eventually, get, member, put};
use model::NodeUid;
use std::time::Duration;
use store::{RpcKind, StoreError, Txn, TxnResult};

#[tokio::test(flavor = "multi_thread")]
async fn another_leads_when_the_leader_is_gone_and_nothing_is_lost() {
    let mut cluster = Cluster::new(3, |_| {}).await;
    for n in 0..50u64 {
        cluster.write(put(format!("k{n}"), n)).await;
    }
    cluster.stop(1).await;
    let leader = cluster.leader_among(&[2, 3]).await;
    let state = leader.barrier().await.unwrap();
    assert!((0..50).all(|n| get(&state, &format!("k{n}")) == Some(n)));
    cluster.write(put("after", 1)).await;
    // Who comes back follows.
    cluster.start(1).await;
    let state = cluster.converge().await;
    assert_eq!(get(&state, "after"), Some(1));
    let known = cluster.store(1).leadership();
    eventually("node 1 knows the leader", || {
        known.borrow().is_some_and(|uid| uid != NodeUid(1))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_was_cut_off_deposes_nobody_when_it_is_back() {
    let cluster = Cluster::new(3, |_| {}).await;
    let leader = cluster.leader().await.status();
    cluster.cut_off(&[3]);
    let known = cluster.store(3).leadership();
    eventually("node 3 hears no leader", || known.borrow().is_none()).await;
    let asked = cluster.net.sent(1, RpcKind::PreVote);
    eventually("node 3 asks for votes", || {
        cluster.net.sent(1, RpcKind::PreVote) > asked + 2
    })
    .await;
    cluster.write(put("k", 1)).await;
    cluster.heal();
    let state = cluster.converge().await;
    assert_eq!(get(&state, "k"), Some(1));
    let now = cluster.leader().await.status();
    assert_eq!(
        (now.leader, now.term),
        (leader.leader, leader.term),
        "the same leader and term"
    );
    assert_eq!(cluster.store(3).status().term, leader.term);
}

/// That nobody leads, or that one node hears no leader, is no lack of a quorum: that most do not answer is.
#[tokio::test(flavor = "multi_thread")]
async fn who_is_alone_knows_it_and_an_election_is_no_such_thing() {
    let cluster = Cluster::new(3, |_| {}).await;
    let lacks = |uid: u64| cluster.store(uid).status().no_quorum;
    // Node 3 asks node 2 in vain, which answers.
    cluster.cut(1, 3);
    let asked = cluster.net.sent(2, RpcKind::PreVote);
    eventually("node 3 asks node 2", || {
        assert!(![1, 2, 3].into_iter().any(lacks));
        cluster.net.sent(2, RpcKind::PreVote) > asked + 4
    })
    .await;
    // The leader, and then one that follows. The others find another one meanwhile.
    for alone in [1, 3] {
        cluster.heal();
        eventually("all hear a leader", || {
            let led = |uid: u64| cluster.store(uid).status().leader.is_some();
            [1, 2, 3].into_iter().all(|uid| led(uid) && !lacks(uid))
        })
        .await;
        cluster.cut_off(&[alone]);
        let others = [1, 2, 3].into_iter().filter(|uid| *uid != alone);
        eventually("it knows that it is alone", || {
            assert!(!others.clone().any(lacks));
            lacks(alone)
        })
        .await;
    }
    cluster.heal();
    eventually("it is not alone any more", || !lacks(3)).await;
}

/// Node 3 hears no leader, but node 2 does and votes for nobody.
#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_the_majority_hears_stays() {
    let cluster = Cluster::new(3, |_| {}).await;
    let leader = cluster.leader().await.status();
    cluster.cut(1, 3);
    let asked = cluster.net.sent(2, RpcKind::PreVote);
    eventually("node 3 asks node 2", || {
        cluster.net.sent(2, RpcKind::PreVote) > asked + 5
    })
    .await;
    // And knows who it is that does not answer.
    let answering = |uid: u64| cluster.store(uid).status().answering;
    assert_eq!(answering(3), [NodeUid(2)]);
    assert_eq!(answering(2), []);
    for n in 0..20u64 {
        cluster.write(put("k", n)).await;
    }
    let now = cluster.leader().await.status();
    assert_eq!(
        (now.leader, now.term),
        (leader.leader, leader.term),
        "the same leader and term"
    );
    cluster.heal();
    assert_eq!(get(&*cluster.converge().await, "k"), Some(19));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_majority_nothing_is_written_or_read() {
    let mut cluster = Cluster::new(3, |_| {}).await;
    cluster.write(put("k", 1)).await;
    let leader = cluster.store(1);
    cluster.stop(2).await;
    cluster.stop(3).await;
    let known = leader.leadership();
    eventually("the leader knows that it is alone", || {
        known.borrow().is_none()
    })
    .await;
    let error = leader.txn(put("k", 2)).await.unwrap_err();
    assert!(matches!(error, StoreError::NoQuorum(_)), "{error}");
    let error = leader.barrier().await.unwrap_err();
    assert!(matches!(error, StoreError::NoQuorum(_)), "{error}");
    assert!(!leader.status().is_leader);
    assert_eq!(
        get(&leader.state(), "k"),
        Some(1),
        "the local state can be read"
    );
    // One of the others is enough.
    cluster.start(3).await;
    cluster.write(put("k", 3)).await;
    cluster.converge().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_lead_says_who_does() {
    let cluster = Cluster::new(3, |_| {}).await;
    let follower = cluster.store(2);
    let known = follower.leadership();
    eventually("node 2 knows the leader", || known.borrow().is_some()).await;
    for error in [
        follower.txn(put("k", 1)).await.unwrap_err(),
        follower.barrier().await.unwrap_err(),
        follower.add_learner(member(4)).await.unwrap_err(),
        follower.hand_over(NodeUid(2)).await.unwrap_err(),
    ] {
        assert!(
            matches!(
                error,
                StoreError::NotLeader {
                    leader: Some(NodeUid(1))
                }
            ),
            "the error was {error}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conflict_says_what_was_found_and_changes_nothing() {
    let cluster = Cluster::new(1, |_| {}).await;
    let store = cluster.store(1);
    let TxnResult::Applied { revision } = store.txn(put("k", 1)).await.unwrap() else {
        panic!()
    };
    let before = store.state();
    let txn = put("other", 1).expect("k", 0);
    let conflict = TxnResult::Conflict {
        key: "k".to_owned(),
        found: revision.0,
    };
    assert_eq!(store.txn(txn).await.unwrap(), conflict);
    assert_eq!(store.state().hash(), before.hash());
    let txn = Txn::new()
        .expect("k", revision.0)
        .expect("other", 0)
        .delete("k");
    let applied = TxnResult::Applied {
        revision: revision.next(),
    };
    assert_eq!(store.txn(txn).await.unwrap(), applied);
    assert!(store.state().entries.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_disk_slows_down_and_no_more() {
    let cluster = Cluster::new(3, |config| {
        config.sync_delay = Some(Duration::from_millis(60))
    })
    .await;
    for n in 0..5u64 {
        cluster.write(put("k", n)).await;
    }
    cluster.stop(1).await;
    cluster.leader_among(&[2, 3]).await;
    cluster.write(put("k", 9)).await;
    assert_eq!(get(&*cluster.converge().await, "k"), Some(9));
}

/// Of three nodes the leader is lost, while each write takes so many ms at the survivors: who stands first, and the other.
async fn a_leader_is_found_while_writes_take(first_ms: u64, other_ms: u64) {
    let mut cluster = Cluster::new(3, |_| {}).await;
    // Node 1, which stands before the others, is to be one of the survivors.
    cluster.stop(1).await;
    cluster.leader_among(&[2, 3]).await;
    cluster.start(1).await;
    cluster.write(put("k", 1)).await;
    cluster.converge().await;
    let leads = cluster.store(2).status().is_leader;
    let (leader, other) = if leads { (2, 3) } else { (3, 2) };
    cluster.slow_down(1, first_ms);
    cluster.slow_down(other, other_ms);
    cluster.stop(leader).await;
    cluster.write(put("k", 2)).await;
    assert_eq!(get(&*cluster.converge().await, "k"), Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_is_found_with_a_slow_disk_at_who_stands_first() {
    a_leader_is_found_while_writes_take(450, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_is_found_with_a_slow_disk_at_who_only_votes() {
    a_leader_is_found_while_writes_take(0, 450).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_is_found_with_slow_disks_everywhere() {
    a_leader_is_found_while_writes_take(250, 250).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_is_found_with_slower_disks_everywhere() {
    a_leader_is_found_while_writes_take(350, 350).await;
}

/// The disk of one of five nodes takes nothing any more, and does not say that it is full: while it hangs, that node calls
/// nobody a leader who is none, and knows who comes after that.
async fn others_go_on_while_the_disk_hangs_of(the_leader: bool) {
    let cluster = Cluster::new(5, |_| {}).await;
    cluster.write(put("k", 1)).await;
    cluster.converge().await;
    let leader = cluster.leader().await.status().node.0;
    let hung = if the_leader { leader } else { leader % 5 + 1 };
    cluster.slow_down(hung, 3_600_000);
    let store = cluster.store(hung);
    if the_leader {
        let error = store.txn(put("k", 2)).await.unwrap_err();
        assert!(
            matches!(
                error,
                StoreError::Timeout | StoreError::NotLeader { .. } | StoreError::NoQuorum(_)
            ),
            "{error}"
        );
    } else {
        cluster.write(put("k", 2)).await;
    }
    for round in 0..2 {
        let mut others = cluster.running();
        others.retain(|uid| *uid != hung);
        let leads = cluster.leader_among(&others).await.status().node;
        eventually("the node with the hung disk knows who leads", || {
            let led = cluster.store(leads.0).status().leader;
            led.is_some() && store.status().leader == led
        })
        .await;
        assert!(!store.status().is_leader && !store.status().no_quorum);
        if round == 0 {
            cluster.stop(leads.0).await;
        }
    }
    cluster.write(put("k", 3)).await;
    assert_ne!(get(&store.state(), "k"), Some(3));
    cluster.slow_down(hung, 0);
    assert_eq!(get(&*cluster.converge().await, "k"), Some(3));
}

#[tokio::test(flavor = "multi_thread")]
async fn others_lead_while_the_leaders_disk_hangs() {
    others_go_on_while_the_disk_hangs_of(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_whose_disk_hangs_knows_who_leads() {
    others_go_on_while_the_disk_hangs_of(false).await;
}
