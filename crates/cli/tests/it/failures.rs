//! How commands fail: the cause, a code, and what to do.

use crate::fake_node::FakeNode;
use model::documents::OperationStatus;
use model::rest::{ActionStarted, StateMachine};
use model::{ErrorCode, OperationUid};

const ACTION: &str = "0198c0de-0000-7000-8000-000000000001";

/// A failover that was given up has its code and what to do; nothing is said of a log where there is no code.
#[test]
fn a_failover_that_fails_has_a_code_and_a_remedy() {
    let why =
        "redis:2: the engine does not answer. Nothing was changed: redis:1 is still the master";
    let failed = |error_code| StateMachine {
        action_uid: ACTION.to_owned(),
        name: "SMFailoverShards".to_owned(),
        status: Some(OperationStatus::Failed),
        error: Some(why.to_owned()),
        error_code,
        ..StateMachine::default()
    };
    let remedy = ErrorCode::MoveFailed.remedy();
    for (code, wanted) in [
        (
            Some(ErrorCode::MoveFailed),
            format!("ERROR: SMFailoverShards failed: {why} (move_failed)\n{remedy}\n"),
        ),
        (None, format!("ERROR: SMFailoverShards failed: {why}\n")),
    ] {
        let node = FakeNode::new();
        let started = ActionStarted {
            action_uid: Some(OperationUid(ACTION.to_owned())),
        };
        node.answer("POST /v1/shards/actions/failover", &started)
            .answer(&format!("GET /v1/actions/{ACTION}"), &failed(code));
        assert_eq!(node.failure("failover shard 1"), (1, wanted));
    }
}

/// A message that says what to do is not followed by a line that says to follow it, nor by a path of REST.
#[test]
fn a_remedy_that_says_nothing_is_left_out() {
    let node = FakeNode::new();
    let post = "POST /v1/shards/actions/failover";
    let why = "name shards of one database";
    node.refuse(post, ErrorCode::InvalidParam, why);
    let wanted = format!("ERROR: {why} (invalid_param)\n");
    assert_eq!(node.failure("failover shard 1"), (1, wanted));
    for code in [ErrorCode::ActionNotFound, ErrorCode::InvalidVersion] {
        node.refuse(post, code, "no");
        let (_, errors) = node.failure("failover shard 1");
        assert!(errors.contains("rladmin"), "{errors}");
    }
}

#[test]
fn what_changes_no_engine_says_so() {
    let node = FakeNode::new();
    let (code, errors) = node.failure("tune db demo redis_version 7.0");
    assert_eq!(code, 2);
    assert!(errors.contains("no command changes it"), "{errors}");
}
