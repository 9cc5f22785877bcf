//! Removing shards.

use crate::bench::*;
use agent::ledger::{Intent, Ledger};
use model::command::AgentCommand;
use model::documents::Persistence;
use model::{Generation, OperationUid};
use std::fs;

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_shard_leaves_nothing_and_does_not_come_back() {
    let node = Node::new();
    let agent = node.agent().await;
    let mut wanted = spec(newest());
    wanted.generation = Generation(2);
    wanted.settings.persistence = Persistence::AofEverySecond;
    let shard = serve(&agent, &wanted, 1).await;
    let removal = |generation| AgentCommand::RemoveEngine {
        shard: SHARD,
        generation: Generation(generation),
        operation: OperationUid::fresh(),
    };
    assert!(stale(agent.execute(removal(1)).await).contains("generation 2 is known"));
    assert_eq!(agent.shards().len(), 1);

    assert_eq!(agent.execute(removal(2)).await, Ok(None));
    assert!(agent.shards().is_empty());
    assert!(!node.shard_folder().path().exists());
    assert!(!node.config.node.shard_socket(SHARD).exists());
    assert_eq!(process_state(shard.pid.unwrap()), None);
    let left: Vec<_> = fs::read_dir(node.config.node.shards_dir())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(left, ["removed.json"]);

    // Repeated, it is answered; an order that was under way meanwhile is not carried out, not even
    // by the next agent.
    assert_eq!(agent.execute(removal(2)).await, Ok(None));
    drop(agent);
    let agent = node.agent().await;
    let late = agent
        .execute(AgentCommand::EnsureEngine(wanted.clone()))
        .await;
    assert!(stale(late).contains("was removed"));
    assert!(agent.shards().is_empty() && !node.shard_folder().path().exists());
    wanted.generation = Generation(3);
    run(&agent, &wanted).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removal_goes_on_after_a_crash() {
    let node = Node::new();
    let agent = node.agent().await;
    let shard = serve(&agent, &spec(newest()), 1).await;
    drop(agent);
    // As the agent leaves it when it dies right after it wrote its intent down.
    let path = node.shard_folder().ledger_path();
    let mut ledger = Ledger::read(&path).unwrap().unwrap();
    ledger.intent = Intent::Remove {
        operation: OperationUid::fresh(),
    };
    ledger.write(&path).unwrap();
    // And as it leaves it when it dies while it deletes.
    let trash = node.config.node.shards_dir().join(".trash-9");
    fs::create_dir(&trash).unwrap();
    fs::write(trash.join("dump.rdb"), "x").unwrap();

    let agent = node.agent().await;
    assert!(agent.shards().is_empty());
    assert!(!node.shard_folder().path().exists() && !trash.exists());
    assert_eq!(process_state(shard.pid.unwrap()), None);
}
