//! The bytes of every message between nodes, as version 1 sent them. Never change one: nodes of two
//! releases talk to each other during an upgrade.

use super::*;
use crate::raft::{Address, Membership, Payload, SnapshotMeta, StoredMembership};
use openraft::CommittedLeaderId;
use std::collections::{BTreeMap, BTreeSet};

/// From node 1 to node 2.
const ENDS: &str = "0100000000000000 0200000000000000";
/// Term 5, node 1, index 9.
const LOG: &str = "0500000000000000 0100000000000000 0900000000000000";

fn log_id() -> LogId {
    LogId::new(CommittedLeaderId::new(5, 1), 9)
}

fn golden_request<M: Message + PartialEq + std::fmt::Debug>(message: &M, kind: &str, fields: &str) {
    let bytes = format!("{kind} {ENDS} {fields}").replace(' ', "");
    assert_eq!(hex::encode(request(NodeUid(1), NodeUid(2), message)), bytes);
    let bytes = hex::decode(bytes).unwrap();
    assert_eq!(&read_request::<M>(NodeUid(2), &bytes).unwrap(), message);
}

fn golden_answer<M: Message + PartialEq + std::fmt::Debug>(message: &M, bytes: &str) {
    let bytes = bytes.replace(' ', "");
    assert_eq!(hex::encode(answer(message)), bytes);
    assert_eq!(
        &read_answer::<M>(&hex::decode(bytes).unwrap()).unwrap(),
        message
    );
}

#[test]
fn pre_vote() {
    golden_request(
        &PreVote {
            last_log: Some(log_id()),
        },
        "7001",
        &format!("01 {LOG}"),
    );
    golden_request(&PreVote { last_log: None }, "7001", "00");
    golden_answer(&PreVoteAnswer { granted: true }, "7101 01");
}

#[test]
fn vote() {
    let vote = Vote::new(6, 1);
    let fields = "0600000000000000 0100000000000000 00";
    let asked = VoteRequest {
        vote,
        last_log: Some(log_id()),
    };
    golden_request(&asked, "7601", &format!("{fields} 01 {LOG}"));
    let answer = VoteAnswer {
        vote,
        granted: true,
        last_log: None,
    };
    golden_answer(&answer, &format!("7701 {fields} 01 00"));
}

#[test]
fn append() {
    let message = Append {
        vote: Vote::new_committed(5, 1),
        previous: Some(log_id()),
        committed: None,
        entries: vec![LogEntry {
            log_id: log_id(),
            payload: Payload::Blank,
        }],
    };
    let fields = format!("0500000000000000 0100000000000000 01 01 {LOG} 00 01000000 {LOG} 00");
    golden_request(&message, "6101", &fields);
    golden_answer(&AppendAnswer::Success, "6201 00");
    golden_answer(
        &AppendAnswer::Partial(Some(log_id())),
        &format!("6201 01 01 {LOG}"),
    );
    golden_answer(&AppendAnswer::Conflict, "6201 02");
    let higher = AppendAnswer::HigherVote(Vote::new(6, 3));
    golden_answer(&higher, "6201 03 0600000000000000 0300000000000000 00");
}

#[test]
fn snapshot() {
    let membership = Membership::new(
        vec![BTreeSet::from([1])],
        BTreeMap::from([(1, Address("a:1".to_owned()))]),
    );
    let message = InstallSnapshot {
        vote: Vote::new_committed(5, 1),
        header: SnapshotHeader {
            meta: SnapshotMeta {
                last_log_id: Some(log_id()),
                last_membership: StoredMembership::new(None, membership),
                snapshot_id: "x".to_owned(),
            },
            body_len: 3,
            checksum: [1; 32],
        },
        body: vec![7, 8, 9],
    };
    let fields = format!(
        "0500000000000000 0100000000000000 01 01000000 78 01 {LOG} 00 \
         01000000 01000000 0100000000000000 01000000 0100000000000000 03000000 613a31 \
         0300000000000000 {} 070809",
        "01".repeat(32)
    );
    golden_request(&message, "7301", &fields);
    let answer = SnapshotAnswer {
        vote: Vote::new_committed(5, 1),
    };
    golden_answer(&answer, "7401 0500000000000000 0100000000000000 01");
}

#[test]
fn take_over() {
    golden_request(
        &TakeOver {
            last_log: Some(log_id()),
        },
        "7801",
        &format!("01 {LOG}"),
    );
    golden_answer(&TakeOverAnswer { accepted: false }, "7901 00");
}

#[test]
fn a_request_for_another_node_is_refused() {
    let body = request(NodeUid(1), NodeUid(2), &PreVote { last_log: None });
    let error = read_request::<PreVote>(NodeUid(3), &body).unwrap_err();
    assert!(error.to_string().contains("wrong address"), "{error}");
}
