use crate::cluster::{Cluster, eventually, get, member, put, uids};
use model::NodeUid;
use store::{Member, StoreError};

#[tokio::test(flavor = "multi_thread")]
async fn voters_are_replaced_one_by_one() {
    let mut cluster = Cluster::new(3, |_| {}).await;
    cluster.write(put("k", 1)).await;
    cluster.join(4).await;
    let leader = cluster.store(1);
    leader.set_voters(uids([1, 2, 4])).await.unwrap();
    let status = leader.status();
    let of = |list: &[store::MemberStatus]| -> Vec<u64> {
        list.iter().map(|status| status.member.uid.0).collect()
    };
    assert_eq!(
        (of(&status.voters), of(&status.learners)),
        (vec![1, 2, 4], vec![3])
    );
    assert!(!status.changing);
    eventually("the leader knows how far all are", || {
        let status = leader.status();
        status
            .voters
            .iter()
            .chain(&status.learners)
            .all(|member| member.lag == Some(0))
    })
    .await;
    cluster.stop(3).await;
    leader.remove_member(NodeUid(3)).await.unwrap();
    leader.remove_member(NodeUid(3)).await.unwrap();
    assert_eq!(of(&leader.status().learners), [0; 0]);
    // The new voter counts.
    cluster.stop(2).await;
    cluster.write(put("k", 2)).await;
    assert_eq!(get(&*cluster.converge().await, "k"), Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_would_harm_is_refused() {
    let mut cluster = Cluster::new(3, |_| {}).await;
    let leader = cluster.store(1);
    let refused = async |voters: &[u64]| {
        leader
            .set_voters(uids(voters.iter().copied()))
            .await
            .unwrap_err()
            .to_string()
    };
    assert!(refused(&[1, 2]).await.contains("2 voters are not possible"));
    assert!(
        refused(&[2])
            .await
            .contains("hand the leadership over first")
    );
    assert!(refused(&[1, 2, 9]).await.contains("node 9 is no member"));
    let error = leader.remove_member(NodeUid(2)).await.unwrap_err();
    assert!(error.to_string().contains("node 2 is a voter"), "{error}");
    let moved = Member {
        uid: NodeUid(2),
        address: "127.0.0.77:3342".to_owned(),
    };
    let error = leader.add_learner(moved).await.unwrap_err();
    assert!(
        error.to_string().contains("is a member at 127.0.0.2:3342"),
        "{error}"
    );
    leader.add_learner(member(2)).await.unwrap();

    leader.initialize(member(1)).await.unwrap();
    let other = Member {
        uid: NodeUid(1),
        address: "127.0.0.77:3342".to_owned(),
    };
    let error = leader.initialize(other).await.unwrap_err();
    assert!(
        error.to_string().contains("part of a store already"),
        "{error}"
    );
    let error = leader.initialize(member(2)).await.unwrap_err();
    assert!(matches!(error, StoreError::Invalid(_)), "{error}");

    // Many at once are done one after the other.
    for uid in 4..=6 {
        cluster.start(uid).await;
    }
    let all: Vec<_> = (4..=6)
        .map(|uid| {
            let leader = leader.clone();
            tokio::spawn(async move { leader.add_learner(member(uid)).await })
        })
        .collect();
    for added in all {
        added.await.unwrap().unwrap();
    }
    assert_eq!(leader.status().learners.len(), 3);
}

/// Down to one voter and up again, as when a cluster is made or taken apart.
#[tokio::test(flavor = "multi_thread")]
async fn one_voter_is_enough() {
    let mut cluster = Cluster::new(3, |_| {}).await;
    let leader = cluster.store(1);
    leader.set_voters(uids([1])).await.unwrap();
    cluster.stop(2).await;
    cluster.stop(3).await;
    leader.txn(put("k", 1)).await.unwrap();
    cluster.start(2).await;
    cluster.start(3).await;
    leader.set_voters(uids([1, 2, 3])).await.unwrap();
    leader.hand_over(NodeUid(2)).await.unwrap();
    assert_eq!(get(&*cluster.converge().await, "k"), Some(1));
}

/// Two of the voters that come are not heard when the change begins, and whoever made it does not wait: it is agreed on
/// later, half done, and completed by whoever leads.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_was_left_half_done_is_completed() {
    let mut cluster = Cluster::new(3, |_| {}).await;
    cluster.write(put("k", 1)).await;
    cluster.join(4).await;
    let leader = cluster.store(1);
    assert_eq!(leader.voters_to_be(), None);
    cluster.converge().await;
    // Nodes 1 and 3 are a majority of the old voters, not of the new ones.
    cluster.cut_off(&[2]);
    cluster.cut_off(&[4]);
    let change = tokio::spawn({
        let leader = leader.clone();
        async move { leader.set_voters(uids([1, 2, 4])).await }
    });
    eventually("the change is begun", || leader.status().changing).await;
    change.abort();
    assert!(change.await.unwrap_err().is_cancelled());
    cluster.heal();
    cluster.write(put("k", 2)).await;
    cluster.converge().await;
    let leader = cluster.leader().await;
    assert!(leader.status().changing, "nobody completes it by himself");
    let wanted = leader.voters_to_be().unwrap();
    assert_eq!(wanted, uids([1, 2, 4]));
    leader.set_voters(wanted).await.unwrap();
    let status = leader.status();
    assert!(!status.changing && leader.voters_to_be().is_none());
    let voters = status.voters.iter().map(|status| status.member.uid.0);
    assert_eq!(voters.collect::<Vec<_>>(), [1, 2, 4]);
}
