//! The node's daemons and their sockets.

use super::Subject;
use super::report::Findings;
use crate::installation::start_of_stopped;
use agent::shard_folder::ShardFolder;
use agent::supervisord::{Supervisord, SupervisordError};
use client::local::ExecClient;
use model::ErrorCode;
use model::observation::ServiceObservation;
use model::rest::Bootstrap;
use rustix::io::Errno;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Services of every node.
const SERVICES: [&str; 3] = ["cnm_exec", "cnm_http", "dmcproxy"];
/// How long supervisord may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Flag of a socket that accepts connections, in `/proc/net/unix`.
const ACCEPTS: u32 = 0x0001_0000;

/// `verify_bootstrap_status`: this node is part of a cluster.
pub async fn bootstrap_status(subject: &Subject) -> Findings {
    if let Some(cluster) = &subject.removed_from {
        return Findings::failure(format!(
            "this node was removed from cluster '{cluster}' and is no part of it any more. {}",
            ErrorCode::NodeRemoved.remedy()
        ));
    }
    let (state, details) = match subject.rest.get::<Bootstrap>("/v1/bootstrap").await {
        Ok(answer) => (
            answer.bootstrap_status.state,
            answer.bootstrap_status.error_details,
        ),
        // cnm_http only passes on what cnm_exec knows: name the one that is missing.
        Err(error) => {
            let exec = ExecClient::new(subject.config.exec_socket())
                .bootstrap()
                .await;
            return Findings::failure(match exec {
                Ok(_) => format!("the bootstrap request to cnm_http failed: {error}"),
                Err(deeper) => format!("the bootstrap request to cnm_exec failed: {deeper}"),
            });
        }
    };
    match state.as_str() {
        "completed" => Findings::default(),
        "idle" => Findings::failure(
            "this node is in no cluster yet: run `rladmin cluster create` or `rladmin cluster \
             join`",
        ),
        "error" => Findings::failure(format!(
            "the bootstrap ended in an error: {}. Run it again",
            details.unwrap_or_else(|| "no details given".to_owned())
        )),
        other => Findings::failure(format!("the bootstrap is not done yet: {other}")),
    }
}

/// What supervisord runs.
///
/// # Errors
/// When it does not answer.
pub async fn running_services(
    subject: &Subject,
) -> Result<Vec<ServiceObservation>, SupervisordError> {
    Supervisord::of(&subject.config, PATIENCE).processes().await
}

/// `verify_services`: supervisord runs every service.
pub async fn services(subject: &Subject) -> Findings {
    let seen = match running_services(subject).await {
        Ok(seen) => seen,
        Err(error) => {
            let remedy = match start_of_stopped(&subject.config) {
                Some(start) => format!(". The node is stopped. As root: `{start}`"),
                None => String::new(),
            };
            return Findings::failure(format!(
                "could not communicate with supervisord: {error}{remedy}"
            ));
        }
    };
    let mut findings = Findings::default();
    for name in SERVICES {
        match seen.iter().find(|service| service.name == name) {
            Some(service) if service.status == "RUNNING" => {}
            Some(service) => findings.fail(format!(
                "process {name} is not running ({}): see {}.log and `supervisorctl status`",
                service.status,
                subject.config.log_dir().join(name).display()
            )),
            None => findings.fail(format!(
                "supervisord does not know {name}: run install.sh again"
            )),
        }
    }
    findings
}

/// How it is found out whether somebody listens.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Probe {
    /// By a connection that is closed again.
    Connect,
    /// By the kernel's list: the listener would take a connection for a proxy.
    Listed,
}

/// `verify_existing_sockets`: every socket that a process should listen on is there and listened on.
#[must_use]
pub fn existing_sockets(subject: &Subject) -> Findings {
    let listening = match fs::read_to_string("/proc/net/unix") {
        Ok(text) => listening(&text),
        Err(error) => return Findings::failure(format!("cannot read /proc/net/unix: {error}")),
    };
    let config = &subject.config;
    let mut wanted = vec![
        ("supervisord", config.supervisor_socket(), Probe::Connect),
        ("cnm_exec", config.exec_socket(), Probe::Connect),
        ("cnm_http", config.http_socket(), Probe::Connect),
    ];
    if subject.is_member {
        wanted.push(("cnm_exec", config.proxy_socket(), Probe::Listed));
        wanted.push(("dmcproxy", config.handover_socket(), Probe::Listed));
    }
    let mut findings = Findings::default();
    match ShardFolder::list(config) {
        Ok(folders) => {
            let running = folders
                .iter()
                .filter(|folder| folder.is_locked().unwrap_or(false));
            let sockets = running.map(|folder| config.shard_socket(folder.shard()));
            wanted.extend(sockets.map(|path| ("an engine", path, Probe::Connect)));
        }
        Err(error) => findings.fail(format!(
            "cannot look into {}: {error}",
            config.shards_dir().display()
        )),
    }
    for (whose, path, probe) in wanted {
        if let Some(what) = fault(&path, probe, &listening) {
            findings.fail(format!(
                "{} of {whose} {what}: see `supervisorctl status`",
                path.display()
            ));
        }
    }
    findings
}

fn fault(path: &Path, probe: Probe, listening: &BTreeSet<PathBuf>) -> Option<String> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Some("does not exist".to_owned());
        }
        Err(error) => return Some(format!("cannot be looked at: {error}")),
        Ok(meta) if !meta.file_type().is_socket() => return Some("is not a socket".to_owned()),
        Ok(_) => {}
    }
    let is_listening = match probe {
        Probe::Listed => is_listed(path, listening),
        Probe::Connect => match UnixStream::connect(path) {
            Ok(_) => true,
            // Not ours to connect to; the list tells.
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
                is_listed(path, listening)
            }
            // A living socket of another type (the handover's) says so and hears nothing of us.
            Err(error) => error.raw_os_error() == Some(Errno::PROTOTYPE.raw_os_error()),
        },
    };
    (!is_listening).then(|| "is left behind: nobody listens on it".to_owned())
}

/// Whether the kernel lists a listener for a path: under its own name, or under one of the same
/// folder that differs in its ending, since some bind a draft and rename it.
fn is_listed(path: &Path, listening: &BTreeSet<PathBuf>) -> bool {
    listening
        .iter()
        .any(|listed| listed.parent() == path.parent() && listed.file_stem() == path.file_stem())
}

/// Paths that are listened on.
fn listening(proc_net_unix: &str) -> BTreeSet<PathBuf> {
    proc_net_unix
        .lines()
        .skip(1)
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_ascii_whitespace().collect();
            let flags = u32::from_str_radix(fields.get(3)?, 16).ok()?;
            (flags & ACCEPTS != 0).then(|| fields.get(7).map(PathBuf::from))?
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_that_are_listened_on() {
        let text = "Num       RefCount Protocol Flags    Type St Inode Path\n\
            0000000000000000: 00000002 00000000 00010000 0001 01 1234 /run/a.sock\n\
            0000000000000000: 00000003 00000000 00000000 0001 03 1235 /run/b.sock\n\
            0000000000000000: 00000002 00000000 00010000 0005 01 1236 /run/c.sock\n\
            0000000000000000: 00000002 00000000 00010000 0001 01 1237\n";
        let found: Vec<PathBuf> = listening(text).into_iter().collect();
        assert_eq!(found, [Path::new("/run/a.sock"), Path::new("/run/c.sock")]);
        let listed = |path: &str| is_listed(Path::new(path), &listening(text));
        assert!(listed("/run/a.sock") && listed("/run/c.draft"));
        assert!(!listed("/run/b.sock") && !listed("/other/a.sock"));
    }
}
