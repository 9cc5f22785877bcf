//! The files that an engine starts from, and the settings that change while it runs.

use crate::engine_users;
use crate::ledger::{DataSource, replace_file};
use crate::shard_folder::ShardFolder;
use jiff::Timestamp;
use model::command::{EngineSettings, EngineSpec};
use model::documents::Persistence;
use model::node_config::NodeConfig;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::time::SystemTime;

const MIB: u64 = 1024 * 1024;

/// Names of an engine's data files. 6.2 keeps one append-only file, later ones a folder of them.
const SNAPSHOT: &str = "dump.rdb";
const APPEND_ONLY: [&str; 2] = ["appendonly.aof", "appendonlydir"];
/// All of them.
pub(crate) const DATA_FILES: [&str; 3] = [SNAPSHOT, APPEND_ONLY[0], APPEND_ONLY[1]];

/// How an engine must be started so that it loads what it should and nothing else.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct DataPlan {
    /// Whether it starts with `appendonly yes`.
    pub(crate) append_only: bool,
    /// Leftovers that are deleted before.
    pub(crate) delete_snapshot: bool,
    /// Leftovers that are deleted before.
    pub(crate) delete_append_only: bool,
    /// What the ledger says afterwards.
    pub(crate) loads_from: DataSource,
}

impl DataPlan {
    /// Decides it.
    ///
    /// An engine that starts with `appendonly yes` loads that file alone, and loads nothing when it
    /// is not there, whatever snapshot lies beside it. So a change of persistence starts from the
    /// files that hold the data and is completed while the engine runs.
    pub(crate) fn new(wanted: Persistence, holds: DataSource) -> Self {
        let wanted = source_of(wanted);
        let loads_from = match holds {
            DataSource::Nothing => wanted,
            _ if wanted == DataSource::Nothing => DataSource::Nothing,
            there => there,
        };
        let fresh = holds == DataSource::Nothing || wanted == DataSource::Nothing;
        Self {
            append_only: loads_from == DataSource::AppendOnlyFile,
            // A snapshot beside a good append-only file is old, but it hurts nobody.
            delete_snapshot: fresh,
            delete_append_only: fresh || holds == DataSource::Snapshot,
            loads_from,
        }
    }

    /// Deletes the leftovers. Blocks.
    pub(crate) fn clean(self, folder: &Path) -> io::Result<()> {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            // What a fork child was writing when it died is never of use.
            let half_written = name.starts_with("temp-");
            let snapshot = name == SNAPSHOT && self.delete_snapshot;
            let append_only = APPEND_ONLY.contains(&name) && self.delete_append_only;
            if !(half_written || snapshot || append_only) {
                continue;
            }
            if entry.file_type()?.is_dir() {
                fs::remove_dir_all(entry.path())?;
            } else {
                fs::remove_file(entry.path())?;
            }
        }
        crate::ledger::sync_folder(folder)
    }

    /// When the files that will be loaded were written last; `None`: there are none. Blocks.
    pub(crate) fn written(self, folder: &Path) -> io::Result<Option<Timestamp>> {
        let names: &[&str] = match self.loads_from {
            DataSource::Nothing => &[],
            DataSource::Snapshot => &[SNAPSHOT],
            DataSource::AppendOnlyFile => &APPEND_ONLY,
        };
        let mut newest = None;
        for name in names {
            newest = newest.max(last_written(&folder.join(name))?);
        }
        newest
            .map(Timestamp::try_from)
            .transpose()
            .map_err(io::Error::other)
    }
}

/// When a file, or the newest one in a folder, was written last; `None`: it is not there.
fn last_written(path: &Path) -> io::Result<Option<SystemTime>> {
    let metadata = match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    if !metadata.is_dir() {
        return metadata.modified().map(Some);
    }
    let mut newest = None;
    for entry in fs::read_dir(path)? {
        newest = newest.max(Some(entry?.metadata()?.modified()?));
    }
    Ok(newest)
}

/// Where the data are once a kind of persistence is established.
pub(crate) fn source_of(persistence: Persistence) -> DataSource {
    match persistence {
        Persistence::Disabled => DataSource::Nothing,
        Persistence::AofEverySecond | Persistence::AofEveryWrite => DataSource::AppendOnlyFile,
        Persistence::Snapshot { .. } => DataSource::Snapshot,
    }
}

/// Settings that a running engine takes over by `CONFIG SET`, in this order. `appendonly` is not
/// among them: switching it is a change of where the data are.
pub(crate) fn live_settings(settings: &EngineSettings) -> Vec<(&'static str, String)> {
    let backlog = backlog_bytes(settings.memory_bytes);
    // A replica that is slower than its backlog must not be cut off, or it never catches up.
    let (hard, soft) = (
        backlog.saturating_mul(2).max(256 * MIB),
        backlog.max(64 * MIB),
    );
    let save = match settings.persistence {
        Persistence::Snapshot { seconds, writes } => format!("{seconds} {writes}"),
        _ => String::new(),
    };
    let sync = match settings.persistence {
        Persistence::AofEveryWrite => "always",
        _ => "everysec",
    };
    // A full sync leaves a snapshot behind, which must not come back after a restart.
    let delete_sync_files = yes(settings.persistence == Persistence::Disabled);
    vec![
        ("maxmemory", settings.memory_bytes.to_string()),
        (
            "maxmemory-policy",
            settings.eviction_policy.as_str().to_owned(),
        ),
        ("repl-backlog-size", backlog.to_string()),
        (
            "client-output-buffer-limit",
            format!("replica {hard} {soft} 60"),
        ),
        ("save", save),
        ("appendfsync", sync.to_owned()),
        ("rdb-del-sync-files", delete_sync_files.to_owned()),
        (
            "notify-keyspace-events",
            settings.notify_keyspace_events.clone(),
        ),
    ]
}

/// 1 % of the memory limit, between 1 and 250 MiB.
fn backlog_bytes(memory: u64) -> u64 {
    (memory / 100).clamp(MIB, 250 * MIB)
}

fn yes(condition: bool) -> &'static str {
    if condition { "yes" } else { "no" }
}

/// Writes the configuration and the ACL file. Blocks.
pub(crate) fn write_files(
    folder: &ShardFolder,
    node: &NodeConfig,
    spec: &EngineSpec,
    plan: DataPlan,
) -> io::Result<()> {
    let config = render(folder, node, spec, plan)?;
    replace_file(
        &folder.users_path(),
        engine_users::acl_file(&spec.users).as_bytes(),
        0o640,
    )?;
    replace_file(&folder.config_path(), config.as_bytes(), 0o640)
}

fn render(
    folder: &ShardFolder,
    node: &NodeConfig,
    spec: &EngineSpec,
    plan: DataPlan,
) -> io::Result<String> {
    let mut text = format!(
        "# Generated by Mainstay before each start of shard {} of database {}: changes are lost.\n",
        spec.shard, spec.database
    );
    let mut put = |name: &str, words: &[&str]| {
        let words: Vec<String> = words.iter().map(|word| quoted(word)).collect();
        // Writing into a string cannot fail.
        let _ = writeln!(text, "{name} {}", words.join(" "));
    };
    network(node, spec, &mut put)?;
    put("daemonize", &["no"]);
    put("supervised", &["no"]);
    put("dir", &[utf8(folder.path())?]);
    put("pidfile", &[utf8(&folder.pid_path())?]);
    // By name and not only as stdout, so that the log can be rotated under a running engine.
    put(
        "logfile",
        &[utf8(
            &node.log_dir().join(format!("redis-{}.log", spec.shard)),
        )?],
    );
    put("always-show-logo", &["no"]);
    put("databases", &["16"]);
    put("aclfile", &[utf8(&folder.users_path())?]);
    // Searching the memory after a crash takes long; the death must be seen at once.
    put("crash-memcheck-enabled", &["no"]);
    put("dbfilename", &[SNAPSHOT]);
    put("appendfilename", &[APPEND_ONLY[0]]);
    put("appendonly", &[yes(plan.append_only)]);
    if spec.engine.version.major >= 7 {
        put("appenddirname", &[APPEND_ONLY[1]]);
        put("enable-debug-command", &["no"]);
        put("enable-module-command", &["no"]);
        put("enable-protected-configs", &["no"]);
    }
    for (name, value) in live_settings(&spec.settings) {
        match name {
            "client-output-buffer-limit" => {
                put(name, &value.split(' ').collect::<Vec<_>>());
            }
            "save" if !value.is_empty() => put(name, &value.split(' ').collect::<Vec<_>>()),
            _ => put(name, &[&value]),
        }
    }
    Ok(text)
}

/// Where it listens, and that it starts as a replica of nobody: it takes no write and gives no
/// stale answer until it is given a role.
fn network(
    node: &NodeConfig,
    spec: &EngineSpec,
    put: &mut impl FnMut(&str, &[&str]),
) -> io::Result<()> {
    let address = node.address.to_string();
    let port = spec.port.to_string();
    put("bind", &[&address]);
    put("port", &[&port]);
    put("unixsocket", &[utf8(&node.shard_socket(spec.shard))?]);
    put("unixsocketperm", &["770"]);
    put("protected-mode", &["no"]);
    put("tcp-backlog", &["511"]);
    put("tcp-keepalive", &["60"]);
    put("timeout", &["0"]);
    put("maxclients", &[&max_clients().to_string()]);
    // Connections are the proxies', shared by many clients, and bounded by them: cutting one off
    // for its size would hit clients that did nothing.
    if spec.engine.version.major >= 7 {
        put("maxmemory-clients", &["0"]);
        // Otherwise the source would be 127.0.0.1 where several nodes share a host.
        put("bind-source-addr", &[&address]);
    }
    put("replica-announce-ip", &[&address]);
    put("replica-announce-port", &[&port]);
    let nobody = if matches!(node.address, IpAddr::V6(_)) {
        "::1"
    } else {
        "127.0.0.1"
    };
    put("replicaof", &[nobody, "1"]);
    put("replica-serve-stale-data", &["no"]);
    put("replica-read-only", &["yes"]);
    put("repl-diskless-sync", &["yes"]);
    put("repl-diskless-sync-delay", &["0"]);
    // Its old data are dropped only when all of the new ones are there.
    put("repl-diskless-load", &["disabled"]);
    // Long enough for a replica that loads; a link whose other end is silent is given up then.
    put("repl-timeout", &["30"]);
    // A primary that is not heard for a few of these is one that its replicas have lost.
    put("repl-ping-replica-period", &["1"]);
    // However long it was without replicas: one that comes back need not get everything.
    put("repl-backlog-ttl", &["0"]);
    // A database serves on when its replicas are gone.
    put("min-replicas-to-write", &["0"]);
    put("masteruser", &[engine_users::REPLICATION]);
    put("masterauth", &[spec.users.repl.expose()]);
    Ok(())
}

/// Most connections: 10,000, or what the descriptor limit leaves after the engine's own files.
fn max_clients() -> u64 {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    limit
        .maximum
        .unwrap_or(u64::MAX)
        .saturating_sub(64)
        .clamp(16, 10_000)
}

fn utf8(path: &Path) -> io::Result<&str> {
    path.to_str().ok_or_else(|| {
        let text = format!("{} is not UTF-8", path.display());
        io::Error::new(io::ErrorKind::InvalidInput, text)
    })
}

/// A word as the engine's configuration file reads it.
fn quoted(word: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_./:*@+,".contains(&b);
    if !word.is_empty() && word.bytes().all(plain) {
        return word.to_owned();
    }
    let mut out = String::from("\"");
    for byte in word.bytes() {
        match byte {
            b'"' | b'\\' => {
                out.push('\\');
                out.push(char::from(byte));
            }
            b' '..=b'~' => out.push(char::from(byte)),
            other => {
                let _ = write!(out, "\\x{other:02x}");
            }
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted() {
        assert_eq!(quoted("127.0.0.1"), "127.0.0.1");
        assert_eq!(quoted(""), "\"\"");
        assert_eq!(quoted("a b\"c\\\n#é"), "\"a b\\\"c\\\\\\x0a#\\xc3\\xa9\"");
    }

    #[test]
    fn backlog_from_memory() {
        assert_eq!(backlog_bytes(0), MIB);
        assert_eq!(backlog_bytes(1024 * MIB), 1024 * MIB / 100);
        assert_eq!(backlog_bytes(u64::MAX), 250 * MIB);
    }

    #[test]
    fn what_holds_data_is_never_deleted() {
        use DataSource::{AppendOnlyFile, Nothing, Snapshot};
        let snapshot = Persistence::Snapshot {
            seconds: 3600,
            writes: 1,
        };
        for (wanted, holds, append_only, deletes, then) in [
            (Persistence::Disabled, Nothing, false, (true, true), Nothing),
            (
                Persistence::Disabled,
                Snapshot,
                false,
                (true, true),
                Nothing,
            ),
            (
                Persistence::Disabled,
                AppendOnlyFile,
                false,
                (true, true),
                Nothing,
            ),
            (
                Persistence::AofEveryWrite,
                Nothing,
                true,
                (true, true),
                AppendOnlyFile,
            ),
            (
                Persistence::AofEveryWrite,
                Snapshot,
                false,
                (false, true),
                Snapshot,
            ),
            (
                Persistence::AofEverySecond,
                AppendOnlyFile,
                true,
                (false, false),
                AppendOnlyFile,
            ),
            (snapshot, Nothing, false, (true, true), Snapshot),
            (snapshot, Snapshot, false, (false, true), Snapshot),
            (
                snapshot,
                AppendOnlyFile,
                true,
                (false, false),
                AppendOnlyFile,
            ),
        ] {
            let plan = DataPlan::new(wanted, holds);
            assert_eq!(plan.append_only, append_only, "{wanted:?} {holds:?}");
            assert_eq!(
                (plan.delete_snapshot, plan.delete_append_only),
                deletes,
                "{wanted:?} {holds:?}"
            );
            assert_eq!(plan.loads_from, then, "{wanted:?} {holds:?}");
        }
    }
}
