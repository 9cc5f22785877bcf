//! An engine whose disk is full refuses writes: that is told, and an append-only file that it could not write is whole
//! again before anybody needs it.

use crate::bench::*;
use agent::ledger::DataSource;
use model::Generation;
use model::documents::Persistence;
use model::observation::EngineState;
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

#[tokio::test(flavor = "multi_thread")]
async fn an_append_only_file_is_whole_again() {
    for engine in engines() {
        let about = engine.to_string();
        let node = Node::new();
        let disk = Disk::mount(node.shard_folder().path());
        let agent = node.agent().await;
        let mut wanted = spec(engine);
        wanted.settings.persistence = Persistence::Disabled;
        let shard = serve(&agent, &wanted, 1).await;
        let mut proxy = node.as_proxy(1).unwrap();
        set(&mut proxy, "before", "kept");
        // Begun while it runs, not at its start.
        wanted.settings.persistence = Persistence::AofEverySecond;
        wanted.generation = Generation(2);
        run(&agent, &wanted).await;
        eventually("the file is there", || {
            ledger(&node).loads_from == DataSource::AppendOnlyFile
        })
        .await;
        set(&mut proxy, "begun", "kept");
        let forks = info(&mut node.as_cnm(), "total_forks");

        let file = disk.fill();
        let mut written = 0;
        let refused = loop {
            let key = format!("filling:{written}");
            let answer = redis::cmd("SET")
                .arg(&key)
                .arg("v".repeat(100))
                .query::<()>(&mut proxy);
            match answer {
                Ok(()) => written += 1,
                Err(error) => break error.to_string(),
            }
        };
        assert!(refused.contains("MISCONF"), "{about}: {refused}");
        let told = seen(&agent, |shard| shard.refuses_writes.is_some()).await;
        assert_eq!(told.state, EngineState::Running, "{about}");
        let why = told.refuses_writes.unwrap();
        assert!(why.contains("append-only file"), "{about}: {why}");

        fs::remove_file(file).unwrap();
        eventually("it takes writes", || {
            redis::cmd("SET")
                .arg(&["after", "kept"])
                .query::<()>(&mut proxy)
                .is_ok()
        })
        .await;
        seen(&agent, |shard| shard.refuses_writes.is_none()).await;
        eventually("the file is written anew", || {
            let mut cnm = node.as_cnm();
            info(&mut cnm, "total_forks") != forks
                && info(&mut cnm, "aof_rewrite_in_progress") == "0"
        })
        .await;
        kill_hard(shard.pid.unwrap());
        seen(&agent, |shard| shard.state == EngineState::Stopped).await;
        serve(&agent, &wanted, 2).await;
        let mut proxy = node.as_proxy(2).unwrap();
        for key in ["before", "begun", "after"] {
            assert_eq!(
                get(&mut proxy, key).as_deref(),
                Some("kept"),
                "{about} {key}"
            );
        }
        for number in 0..written {
            let kept = get(&mut proxy, &format!("filling:{number}"));
            assert!(kept.is_some(), "{about}: {number} of {written}");
        }
        drop(agent);
    }
}
