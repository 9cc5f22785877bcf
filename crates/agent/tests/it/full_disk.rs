//! An engine whose disk is full refuses writes: that is told, and an append-only file that it could not write is whole
//! again before anybody needs it.

use crate::bench::*;
use agent::Agent;
use agent::ledger::DataSource;
use model::Generation;
use model::command::EngineSpec;
use model::documents::Persistence;
use model::observation::{EngineState, ShardObservation};
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A small file system; unmounted when dropped. Needs root.
struct Disk(PathBuf);

impl Disk {
    fn mount(at: &Path) -> Self {
        fs::create_dir_all(at).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=32m", "tmpfs"]);
        assert!(mount.arg(at).status().unwrap().success());
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

/// A node whose shard has a disk of its own. The node is dropped first: it ends its engine by what is on that.
fn on_a_disk() -> (Disk, Node) {
    let node = Node::new();
    let disk = Disk::mount(node.shard_folder().path());
    (disk, node)
}

/// Gives some of what was taken back.
fn give_back(taken: &Path, bytes: u64) {
    let file = File::options().write(true).open(taken).unwrap();
    file.set_len(file.metadata().unwrap().len() - bytes)
        .unwrap();
}

/// A primary whose append-only file was begun while it runs, not at its start.
async fn begun_late(agent: &Agent, node: &Node, wanted: &mut EngineSpec) -> ShardObservation {
    wanted.settings.persistence = Persistence::Disabled;
    let shard = serve(agent, wanted, 1).await;
    set(&mut node.as_proxy(1).unwrap(), "before", "kept");
    wanted.settings.persistence = Persistence::AofEverySecond;
    wanted.generation = Generation(2);
    run(agent, wanted).await;
    eventually("the file is there", || {
        ledger(node).loads_from == DataSource::AppendOnlyFile
    })
    .await;
    set(&mut node.as_proxy(1).unwrap(), "begun", "kept");
    shard
}

/// Writes until it is refused; how many keys were written, and why no more.
fn write_until_refused(proxy: &mut redis::Connection) -> (u32, String) {
    let mut written = 0;
    loop {
        let answer = redis::cmd("SET")
            .arg(format!("filling:{written}"))
            .arg("v".repeat(100))
            .query::<()>(proxy);
        match answer {
            Ok(()) => written += 1,
            Err(error) => return (written, error.to_string()),
        }
    }
}

async fn takes_writes(proxy: &mut redis::Connection) {
    eventually("it takes writes", || {
        redis::cmd("SET")
            .arg(&["after", "kept"])
            .query::<()>(proxy)
            .is_ok()
    })
    .await;
}

/// What was written is there after a kill.
async fn outlives_a_kill(agent: &Agent, node: &Node, wanted: &EngineSpec, pid: u32, written: u32) {
    let about = &wanted.engine;
    kill_hard(pid);
    seen(agent, |shard| shard.state == EngineState::Stopped).await;
    serve(agent, wanted, 2).await;
    let mut proxy = node.as_proxy(2).unwrap();
    for key in ["before", "begun", "after"] {
        let kept = get(&mut proxy, key);
        assert_eq!(kept.as_deref(), Some("kept"), "{about} {key}");
    }
    for number in 0..written {
        let kept = get(&mut proxy, &format!("filling:{number}"));
        assert!(kept.is_some(), "{about}: {number} of {written}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_append_only_file_is_whole_again() {
    for engine in engines() {
        let about = engine.to_string();
        let (disk, node) = on_a_disk();
        let agent = node.agent().await;
        let mut wanted = spec(engine);
        let shard = begun_late(&agent, &node, &mut wanted).await;
        let mut proxy = node.as_proxy(1).unwrap();
        let forks = info(&mut node.as_cnm(), "total_forks");

        let file = disk.fill();
        let (written, refused) = write_until_refused(&mut proxy);
        assert!(refused.contains("MISCONF"), "{about}: {refused}");
        let told = seen(&agent, |shard| shard.refuses_writes.is_some()).await;
        assert_eq!(told.state, EngineState::Running, "{about}");
        let why = told.refuses_writes.unwrap();
        assert!(why.contains("append-only file"), "{about}: {why}");

        fs::remove_file(file).unwrap();
        takes_writes(&mut proxy).await;
        seen(&agent, |shard| shard.refuses_writes.is_none()).await;
        eventually("the file is written anew", || {
            let mut cnm = node.as_cnm();
            info(&mut cnm, "total_forks") != forks
                && info(&mut cnm, "aof_rewrite_in_progress") == "0"
        })
        .await;
        outlives_a_kill(&agent, &node, &wanted, shard.pid.unwrap(), written).await;
    }
}

/// There is room to append, but not to write the file anew, and the agent is started again before there is.
#[tokio::test(flavor = "multi_thread")]
async fn a_hole_outlives_the_agent() {
    for engine in engines() {
        let about = engine.to_string();
        let (disk, node) = on_a_disk();
        let agent = node.agent().await;
        let mut wanted = spec(engine);
        let shard = begun_late(&agent, &node, &mut wanted).await;
        let mut cnm = node.as_cnm();
        say::<()>(&mut cnm, "CONFIG SET rdbcompression no").unwrap();
        let mut proxy = node.as_proxy(1).unwrap();
        set(&mut proxy, "large", &"v".repeat(8 << 20));
        eventually("all is in the file", || {
            info(&mut cnm, "aof_buffer_length") == "0"
        })
        .await;
        let appended = |cnm: &mut _| info(cnm, "aof_last_write_status") == "ok";
        let idle = |cnm: &mut _| info(cnm, "aof_rewrite_in_progress") == "0";

        let file = disk.fill();
        let (written, refused) = write_until_refused(&mut proxy);
        assert!(refused.contains("MISCONF"), "{about}: {refused}");
        seen(&agent, |shard| shard.refuses_writes.is_some()).await;
        give_back(&file, 1 << 20);
        eventually("it was tried in vain", || {
            info(&mut cnm, "aof_last_bgrewrite_status") == "err"
        })
        .await;
        drop(agent);
        takes_writes(&mut proxy).await;
        eventually("all is well, as it looks", || {
            appended(&mut cnm) && idle(&mut cnm)
        })
        .await;
        assert!(ledger(&node).holed, "{about}");
        let forks = info(&mut cnm, "total_forks");

        fs::remove_file(file).unwrap();
        let agent = node.agent().await;
        eventually("the file is written anew", || {
            info(&mut cnm, "total_forks") != forks && idle(&mut cnm) && !ledger(&node).holed
        })
        .await;
        outlives_a_kill(&agent, &node, &wanted, shard.pid.unwrap(), written).await;
    }
}
