//! What if many changes come at once?

use crate::story::databases;
use model::rest::Bdb;
use model::{ApiError, ErrorCode};
use serde_json::{Value, json};
use std::time::Duration;
use testkit::cluster::{Cluster, Node, processes_below};
use testkit::wait;

/// Changes at once.
const MANY: usize = 40;

/// Each call on a thread of its own, through the nodes in turn.
fn at_once<T: Send>(cluster: &Cluster, call: impl Fn(&Node, usize) -> T + Sync) -> Vec<T> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..MANY)
            .map(|number| {
                let node = &cluster.nodes[number % cluster.nodes.len()];
                let call = &call;
                scope.spawn(move || call(node, number))
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    })
}

fn create(node: &Node, name: &str, port: Option<u16>) -> Result<Bdb, ApiError> {
    let mut body = json!({ "name": name, "memory_size": 10 << 20 });
    if let Some(port) = port {
        body["port"] = json!(port);
    }
    node.send("POST", "/v1/bdbs", &body)
}

/// One of them is made, and every other one is refused for that reason.
fn one_wins(answers: &[Result<Bdb, ApiError>], refusal: ErrorCode) {
    let made = answers.iter().filter(|answer| answer.is_ok()).count();
    assert_eq!(made, 1);
    for answer in answers {
        if let Err(error) = answer {
            assert_eq!(error.error_code, refusal, "{error}");
        }
    }
}

#[test]
fn every_one_of_many_changes_at_once_is_made_or_refused_for_a_reason_of_its_own() {
    let cluster = Cluster::start(3).unwrap();
    let same_name = at_once(&cluster, |node, _| create(node, "same", None));
    one_wins(&same_name, ErrorCode::NameAlreadyExists);
    let same_port = at_once(&cluster, |node, number| {
        create(node, &format!("port{number}"), Some(13_000))
    });
    one_wins(&same_port, ErrorCode::PortUnavailable);
    for answer in at_once(&cluster, |node, number| {
        create(node, &format!("db{number}"), None)
    }) {
        answer.unwrap();
    }
    wait::until("all are served", Duration::from_secs(40), || {
        let all = databases(&cluster, 0);
        let pending: Vec<_> = all.iter().filter(|db| !db.action_uid.is_empty()).collect();
        if all.len() == MANY + 2 && pending.is_empty() {
            return Ok(());
        }
        Err(format!(
            "{} databases, {} pending",
            all.len(),
            pending.len()
        ))
    })
    .unwrap();

    let uids: Vec<_> = databases(&cluster, 0).iter().map(|db| db.uid).collect();
    for answers in at_once(&cluster, |node, number| {
        let mine = uids.iter().skip(number).step_by(MANY);
        mine.map(|uid| node.send::<Value>("DELETE", &format!("/v1/bdbs/{uid}"), &json!({})))
            .collect::<Vec<_>>()
    }) {
        for answer in answers {
            answer.unwrap();
        }
    }
    wait::until("all are gone", Duration::from_secs(40), || {
        let left = databases(&cluster, 0).len();
        let engines: usize = cluster
            .nodes
            .iter()
            .map(|node| processes_below(&node.config.shards_dir()).len())
            .sum();
        if left + engines == 0 {
            return Ok(());
        }
        Err(format!("{left} databases, {engines} engines"))
    })
    .unwrap();
}
