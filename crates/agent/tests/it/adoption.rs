//! Engines outlive the agent, and the next agent knows them again, and nothing else.

use crate::bench::*;
use agent::ledger::{Intent, Ledger};
use agent::{Agent, AgentConfig};
use model::command::AgentCommand;
use model::documents::{Persistence, Role};
use model::node_config::NodeConfig;
use model::observation::EngineState;
use rustix::process::Signal;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Environment variable that makes this program a process with an agent.
const HOST: &str = "MAINSTAY_TEST_AGENT_HOST";

/// Not a test: with [`HOST`] set, a process that runs an agent with one primary until it is killed.
#[test]
#[ignore = "started by other tests"]
fn agent_host() {
    let Some(folder) = std::env::var_os(HOST).map(PathBuf::from) else {
        return;
    };
    let node = NodeConfig::parse(&fs::read_to_string(folder.join("node.toml")).unwrap()).unwrap();
    let config = AgentConfig::new(node, folder.join("releases/1.0.0"));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let agent = Agent::start(config).await.unwrap();
        let mut wanted = spec(newest());
        wanted.settings.persistence = Persistence::AofEveryWrite;
        serve(&agent, &wanted, 1).await;
        fs::write(folder.join("ready"), "").unwrap();
        std::future::pending::<()>().await;
    });
}

/// A process with an agent and one primary. Killed when dropped.
struct Host(Child);

impl Host {
    async fn start(node: &Node) -> Self {
        fs::write(
            node.root().join("node.toml"),
            node.config.node.to_toml().unwrap(),
        )
        .unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "adoption::agent_host",
                "--ignored",
                "--nocapture",
            ])
            .env(HOST, node.root())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let ready = node.root().join("ready");
        eventually("the agent's process is ready", || {
            assert_eq!(child.try_wait().unwrap(), None, "it ended");
            ready.exists()
        })
        .await;
        Self(child)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn engine_pid(node: &Node) -> u32 {
    ledger(node).process.unwrap().pid
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_outlives_a_killed_agent() {
    let node = Node::new();
    let host = Host::start(&node).await;
    let pid = engine_pid(&node);
    let mut proxy = node.as_proxy(1).unwrap();
    set(&mut proxy, "a", "1");
    drop(host);
    assert_eq!(
        get(&mut proxy, "a").as_deref(),
        Some("1"),
        "the connection lives on"
    );

    let agent = node.agent().await;
    let shard = agent.shards().pop().unwrap();
    assert_eq!((shard.pid, shard.state), (Some(pid), EngineState::Running));
    assert_eq!(
        (shard.role, shard.epoch.map(|e| e.0)),
        (Some(Role::Primary), Some(1))
    );
    let mut wanted = spec(newest());
    wanted.settings.persistence = Persistence::AofEveryWrite;
    assert_eq!(
        run(&agent, &wanted).await.pid,
        Some(pid),
        "nothing is restarted"
    );
    assert_eq!(get(&mut proxy, "a").as_deref(), Some("1"));

    // Its death is seen, though it is not our child.
    kill_hard(pid);
    seen(&agent, |shard| {
        shard.state == EngineState::Stopped && shard.role.is_none()
    })
    .await;
    let again = serve(&agent, &wanted, 2).await;
    assert_ne!(again.pid, Some(pid));
    assert_eq!(
        get(&mut node.as_proxy(2).unwrap(), "a").as_deref(),
        Some("1")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_zombie_counts_as_dead() {
    let node = Node::new();
    let host = Host::start(&node).await;
    let pid = engine_pid(&node);
    // Its parent does not notice.
    kill(host.0.id(), Signal::STOP);
    let tasks = format!("/proc/{}/task", host.0.id());
    eventually("all its threads are stopped", || {
        let mut threads = fs::read_dir(&tasks)
            .unwrap()
            .map(|task| task.unwrap().file_name());
        threads.all(|task| process_state(task.to_str().unwrap().parse().unwrap()) == Some('T'))
    })
    .await;
    kill_hard(pid);
    eventually("a zombie", || process_state(pid) == Some('Z')).await;

    let agent = node.agent().await;
    let shard = agent.shards().pop().unwrap();
    assert_eq!(
        (shard.state, shard.pid, shard.role),
        (EngineState::Stopped, None, None)
    );
    let mut wanted = spec(newest());
    wanted.settings.persistence = Persistence::AofEveryWrite;
    let again = run(&agent, &wanted).await;
    assert_ne!(again.pid, Some(pid));
    assert_eq!(process_state(pid), Some('Z'));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fork_child_keeps_the_folder() {
    for engine in engines() {
        let node = Node::new();
        let agent = node.agent().await;
        let mut wanted = spec(engine.clone());
        wanted.settings.persistence = Persistence::AofEveryWrite;
        let shard = serve(&agent, &wanted, 1).await;
        let pid = shard.pid.unwrap();
        let mut proxy = node.as_proxy(1).unwrap();
        for number in 0..1_000 {
            set(&mut proxy, &format!("k{number}"), "v");
        }
        let mut cnm = node.as_cnm();
        // One key in 0.1 s: the child would write for more than a minute.
        say::<()>(&mut cnm, "CONFIG SET rdb-key-save-delay 100000").unwrap();
        say::<redis::Value>(&mut cnm, "BGSAVE").unwrap();
        let child = saving_child_of(pid, &mut cnm).await;
        kill_hard(pid);
        seen(&agent, |shard| shard.state == EngineState::Stopped).await;
        assert!(node.shard_folder().is_locked().unwrap(), "{engine}");
        assert!(!has_ended(child), "{engine}");

        let again = serve(&agent, &wanted, 2).await;
        assert_ne!(again.pid, Some(pid));
        eventually("the child is dead", || has_ended(child)).await;
        let keys: u64 = say(&mut node.as_proxy(2).unwrap(), "DBSIZE").unwrap();
        assert_eq!(keys, 1_000, "{engine}");
    }
}

/// The same for a removal, and by an agent that did not see the death.
#[tokio::test(flavor = "multi_thread")]
async fn a_fork_child_does_not_keep_a_removed_folder() {
    let node = Node::new();
    let agent = node.agent().await;
    let shard = serve(&agent, &spec(newest()), 1).await;
    let pid = shard.pid.unwrap();
    let mut proxy = node.as_proxy(1).unwrap();
    for number in 0..1_000 {
        set(&mut proxy, &format!("k{number}"), "v");
    }
    let mut cnm = node.as_cnm();
    say::<()>(&mut cnm, "CONFIG SET rdb-key-save-delay 100000").unwrap();
    say::<redis::Value>(&mut cnm, "BGSAVE").unwrap();
    let child = saving_child_of(pid, &mut cnm).await;
    drop(agent);
    kill_hard(pid);
    eventually("the engine is dead", || has_ended(pid)).await;
    let agent = node.agent().await;
    let dead = agent.shards().pop().unwrap();
    assert_eq!((dead.state, dead.pid), (EngineState::Stopped, None));
    assert!(dead.error.unwrap().contains("locked by a process"));
    agent.execute(remove()).await.unwrap();
    assert!(!node.shard_folder().path().exists());
    eventually("the child is dead", || has_ended(child)).await;
}

/// The child that writes a snapshot and will do so for long. It has reported to its parent once:
/// the next report is due after 1,024 keys, and a child that cannot report ends by itself.
async fn saving_child_of(pid: u32, cnm: &mut redis::Connection) -> u32 {
    eventually("the child has reported", || {
        info(cnm, "current_save_keys_processed") != "0"
    })
    .await;
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    let child = text.split_ascii_whitespace().next_back();
    child.unwrap().parse().unwrap()
}

/// Whether a process is gone, or waits for its parent to notice.
fn has_ended(pid: u32) -> bool {
    process_state(pid).is_none_or(|state| state == 'Z')
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reused_pid_is_left_alone() {
    let node = Node::new();
    let agent = node.agent().await;
    let wanted = spec(newest());
    let shard = serve(&agent, &wanted, 1).await;
    drop(agent);
    // The ledger's pid now belongs to somebody else, who also leads a group of that number.
    let mut sleeper = Command::new("sleep");
    std::os::unix::process::CommandExt::process_group(&mut sleeper, 0);
    let mut sleeper = sleeper.arg("600").stdin(Stdio::null()).spawn().unwrap();
    change_ledger(&node, |ledger| {
        let process = ledger.process.as_mut().unwrap();
        process.pid = sleeper.id();
        process.process_group = sleeper.id();
    });

    let agent = node.agent().await;
    let seen = agent.shards().pop().unwrap();
    assert_eq!((seen.pid, seen.role), (None, None));
    // Who has its folder is the engine, though the ledger says otherwise.
    assert!(seen.is_in_doubt(), "{seen:?}");
    assert!(seen.error.unwrap().contains("started later"));
    let again = run(&agent, &wanted).await;
    assert_ne!(again.pid, shard.pid);
    assert_eq!(process_state(sleeper.id()), Some('S'), "it was not hit");
    eventually("the unknown engine is dead", || {
        has_ended(shard.pid.unwrap())
    })
    .await;
    sleeper.kill().unwrap();
    sleeper.wait().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn every_mark_of_a_process_must_agree() {
    let node = Node::new();
    let agent = node.agent().await;
    let shard = serve(&agent, &spec(newest()), 1).await;
    drop(agent);
    let good = ledger(&node);
    type Change = fn(&mut Ledger);
    let changes: [(Change, &str); 3] = [
        (
            |l| l.process.as_mut().unwrap().start_time += 1,
            "started later",
        ),
        (
            |l| l.process.as_mut().unwrap().boot_id = "another".to_owned(),
            "before the host",
        ),
        (
            |l| l.process.as_mut().unwrap().executable = "/bin/another".into(),
            "instead of",
        ),
    ];
    for (change, says) in changes {
        change_ledger(&node, change);
        let agent = node.agent().await;
        let seen = agent.shards().pop().unwrap();
        assert_eq!((seen.pid, seen.role), (None, None));
        // The engine lives, whatever the ledger says.
        assert!(seen.is_in_doubt(), "{seen:?}");
        assert!(seen.error.as_ref().unwrap().contains(says), "{seen:?}");
        good.write(&node.shard_folder().ledger_path()).unwrap();
    }
    change_ledger(&node, |l| {
        l.process.as_mut().unwrap().run_id = Some("another".to_owned())
    });
    let agent = node.agent().await;
    let seen = agent.shards().pop().unwrap();
    assert_eq!((seen.state, seen.role), (EngineState::Failed, None));
    assert!(seen.is_in_doubt(), "{seen:?}");
    assert!(seen.error.unwrap().contains("answers on its socket"));
    drop(agent);

    good.write(&node.shard_folder().ledger_path()).unwrap();
    let agent = node.agent().await;
    let seen = agent.shards().pop().unwrap();
    assert_eq!((seen.pid, seen.role), (shard.pid, Some(Role::Primary)));
}

/// The agent died between the start of the engine and writing its pid down.
#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_was_not_written_down_is_found_by_its_lock() {
    let node = Node::new();
    let agent = node.agent().await;
    let wanted = spec(newest());
    let shard = run(&agent, &wanted).await;
    drop(agent);
    change_ledger(&node, |ledger| {
        let executable = ledger.process.take().unwrap().executable;
        ledger.intent = Intent::Start { executable };
    });
    let agent = node.agent().await;
    let seen = agent.shards().pop().unwrap();
    assert_eq!((seen.pid, seen.run_id), (shard.pid, shard.run_id));
    assert_eq!(run(&agent, &wanted).await.pid, shard.pid);
    assert_eq!(engine_pid(&node), shard.pid.unwrap());
}

/// A role in the ledger whose users were never made, as after a crash in between, is not shown as
/// one; the same order completes it.
#[tokio::test(flavor = "multi_thread")]
async fn half_a_promotion_is_no_role() {
    let node = Node::new();
    let agent = node.agent().await;
    let shard = serve(&agent, &spec(newest()), 1).await;
    say::<()>(&mut node.as_cnm(), "ACL DELUSER proxy@e1").unwrap();
    drop(agent);
    let agent = node.agent().await;
    let seen = agent.shards().pop().unwrap();
    assert_eq!((seen.pid, seen.role), (shard.pid, None));
    let whole = agent
        .execute(make_primary(shard.run_id.as_deref().unwrap(), 1))
        .await;
    assert_eq!(whole.unwrap().unwrap().role, Some(Role::Primary));
    assert!(node.as_proxy(1).is_ok());
}

/// An upgrade: the new release has other engines, and the old one is deleted while its engine runs.
#[tokio::test(flavor = "multi_thread")]
async fn an_engine_outlives_its_release() {
    let mut node = Node::new();
    let engine = newest();
    let old = node.root().join("releases/0.9.0");
    copy(
        &engines_dir().join(engine.to_string()),
        &old.join("engines").join(engine.to_string()),
    );
    let new = std::mem::replace(&mut node.config.release_dir, old.clone());
    let agent = node.agent().await;
    let shard = serve(&agent, &spec(engine.clone()), 1).await;
    drop(agent);
    fs::remove_dir_all(&old).unwrap();
    node.config.release_dir = new;
    let agent = node.agent().await;
    let seen = agent.shards().pop().unwrap();
    assert_eq!((seen.pid, seen.role), (shard.pid, Some(Role::Primary)));
    let same = agent
        .execute(AgentCommand::EnsureEngine(spec(engine)))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(same.pid, shard.pid);
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}
