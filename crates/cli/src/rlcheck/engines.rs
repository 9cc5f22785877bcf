//! The shards' folders and the engines that run from them.

use super::Subject;
use super::report::Findings;
use agent::shard_folder::{Inspection, ShardFolder};
use model::node_config::NodeConfig;
use model::rest::ShardInfo;
use std::fs;
use std::path::{Path, PathBuf};

fn folders(config: &NodeConfig) -> Result<Vec<ShardFolder>, String> {
    ShardFolder::list(config).map_err(|error| {
        format!(
            "cannot look into {}: {error}",
            config.shards_dir().display()
        )
    })
}

/// `verify_pidfiles`: every engine that runs has a pid file, and it names a living process.
#[must_use]
pub fn pidfiles(config: &NodeConfig) -> Findings {
    let folders = match folders(config) {
        Ok(folders) => folders,
        Err(why) => return Findings::failure(why),
    };
    let mut findings = Findings::default();
    for folder in folders {
        let path = folder.pid_path();
        match (folder.is_locked(), folder.read_pid_file()) {
            (Ok(false), _) => {}
            (Ok(true), None) => {
                findings.fail(format!(
                    "redis:{} runs without {}",
                    folder.shard(),
                    path.display()
                ));
            }
            (Ok(true), Some(pid)) if !is_alive(pid) => findings.fail(format!(
                "{} names {pid}, which is no living process, though redis:{} runs",
                path.display(),
                folder.shard()
            )),
            (Ok(true), Some(_)) => {}
            (Err(error), _) => findings.fail(format!(
                "cannot look at {}: {error}; run as a member of the node's group",
                folder.lock_path().display()
            )),
        }
    }
    findings
}

/// `verify_engines`: pid file, ledger, lock and process of every shard agree, and what runs is what
/// the cluster wants on this node.
pub async fn engines(subject: &Subject) -> Findings {
    let folders = match folders(&subject.config) {
        Ok(folders) => folders,
        Err(why) => return Findings::failure(why),
    };
    let mut findings = Findings::default();
    let mut running = Vec::new();
    for folder in &folders {
        match folder.inspect() {
            Ok(inspection) => {
                findings
                    .failures
                    .extend(contradiction(&inspection, folder.path()));
                if inspection.locked {
                    running.push(inspection.shard);
                }
            }
            Err(error) => findings.fail(format!(
                "cannot look into {}: {error}; run as a member of the node's group",
                folder.path().display()
            )),
        }
    }
    if !subject.is_member {
        return findings;
    }
    let shards: Vec<ShardInfo> = match subject.rest.get("/v1/shards").await {
        Ok(shards) => shards,
        Err(error) => {
            findings.fail(format!("cannot ask which shards belong here: {error}"));
            return findings;
        }
    };
    let me = fs::read_to_string(subject.config.identity_path())
        .ok()
        .and_then(|text| identity(&text));
    for shard in shards.iter().filter(|shard| Some(shard.node_uid) == me) {
        if !running.contains(&shard.uid) {
            findings.fail(format!(
                "redis:{} of db:{} does not run on this node: see `rladmin status shards`",
                shard.uid, shard.bdb_uid
            ));
        }
    }
    for uid in running {
        let wanted = shards
            .iter()
            .any(|s| s.uid == uid && Some(s.node_uid) == me);
        if !wanted {
            findings.fail(format!(
                "redis:{uid} runs on this node, but the cluster has no such shard here"
            ));
        }
    }
    findings
}

/// The node's id from the text of `node.id`.
fn identity(text: &str) -> Option<model::NodeUid> {
    let identity: model::node_config::NodeIdentity = serde_json::from_str(text).ok()?;
    Some(identity.node)
}

fn contradiction(inspection: &Inspection, folder: &Path) -> Option<String> {
    if let Some(problem) = &inspection.problem {
        return Some(format!("redis:{}: {problem}", inspection.shard));
    }
    let pid = inspection.pid_file.filter(|_| inspection.locked)?;
    if !is_alive(pid) {
        return Some(format!(
            "redis:{}: its lock is held, but its process {pid} is gone: a process that it began \
             still runs",
            inspection.shard
        ));
    }
    let cwd = fs::read_link(format!("/proc/{pid}/cwd"));
    let folder = fs::canonicalize(folder).unwrap_or_else(|_| PathBuf::from(folder));
    // Another user's process does not tell where it is; that is no contradiction.
    match cwd {
        Ok(cwd) if cwd != folder => Some(format!(
            "redis:{}: its pid file names {pid}, which works in {}",
            inspection.shard,
            cwd.display()
        )),
        _ => None,
    }
}

/// Whether a process lives; a zombie does not.
fn is_alive(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .ok()
        .and_then(|line| line.rsplit_once(')')?.1.trim_start().chars().next())
        .is_some_and(|state| !matches!(state, 'Z' | 'X'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::ShardUid;

    #[test]
    fn folder_of_a_process() {
        let me = std::process::id();
        let inspection = |locked, pid| Inspection {
            shard: ShardUid(7),
            locked,
            pid_file: pid,
            recorded: pid,
            problem: None,
        };
        let here = std::env::current_dir().unwrap();
        assert_eq!(contradiction(&inspection(true, Some(me)), &here), None);
        assert_eq!(
            contradiction(&inspection(false, Some(me)), Path::new("/")),
            None
        );
        assert!(contradiction(&inspection(true, Some(me)), Path::new("/")).is_some());
        assert!(contradiction(&inspection(true, Some(u32::MAX)), &here).is_some());
    }
}
