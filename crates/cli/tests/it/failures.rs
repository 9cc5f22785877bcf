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
