//! What the agent wrote down before it acted: one `ledger.json` in each shard's folder, synced to
//! disk before every step that changes a process or its files. After a crash the ledger says what
//! was wanted, what was under way, which process was started and which role its data had.
//!
//! `DataChange`: older releases must read it (rollback), so fields are only ever added, each with
//! a default.

use jiff::Timestamp;
use model::command::EngineSpec;
use model::documents::Role;
use model::release::EngineId;
use model::{Epoch, Generation, OperationUid};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Schema of the ledger.
pub const SCHEMA: u32 = 1;
/// Largest ledger that is read, bytes.
const SIZE_MAX: u64 = 256 * 1024;

/// Contents of a `ledger.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ledger {
    /// Schema of this file: 1.
    pub schema: u32,
    /// The engine process that was wanted last, with the passwords that open it.
    pub spec: EngineSpec,
    /// What was about to be done; `Nothing` once it is done.
    #[serde(default)]
    pub intent: Intent,
    /// The process that was started last; it may be dead.
    #[serde(default)]
    pub process: Option<ProcessRecord>,
    /// The role that was given last. It belongs to the process with its run id; for the data beside
    /// it, it says of which epoch they are.
    #[serde(default)]
    pub role: Option<RoleRecord>,
    /// Highest epoch that was ever ordered here; older orders are refused.
    #[serde(default)]
    pub epoch: Epoch,
    /// Highest epoch whose users were made before its primary was known. From then on the role may go
    /// to another engine, and the data may hold writes of that epoch: written down before that, so that
    /// nothing has to be written while clients wait for a move.
    #[serde(default)]
    pub prepared: Epoch,
    /// Moves up to this epoch were settled; an order that belongs to one is refused.
    #[serde(default)]
    pub settled: Epoch,
    /// From which files the data must be loaded at the next start.
    #[serde(default)]
    pub loads_from: DataSource,
    /// Whether the append-only file could not be written once, and was not written anew since: it may have
    /// a hole.
    #[serde(default)]
    pub holed: bool,
    /// How old the data were that the process loaded which was started last.
    #[serde(default)]
    pub loaded: Option<LoadedData>,
    /// Which decision to set the files aside was carried out last.
    #[serde(default)]
    pub set_aside: Option<Timestamp>,
    /// Whether `spec` was changed and the running process has not taken all of it over yet.
    #[serde(default)]
    pub unapplied: bool,
    /// Fields of a newer release.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// A step that is written down before it is taken.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "snake_case")]
pub enum Intent {
    /// Nothing is under way.
    #[default]
    Nothing,
    /// A process is being started from this program.
    Start {
        /// Its path, links resolved.
        executable: PathBuf,
    },
    /// The process is being stopped.
    Stop,
    /// The process is being made the primary of an epoch.
    Promote {
        /// Which epoch.
        epoch: Epoch,
        /// Which process.
        run_id: String,
    },
    /// The process is being stopped and its folder deleted. The one step that is resumed by itself
    /// when the agent starts.
    Remove {
        /// On whose behalf.
        operation: OperationUid,
    },
}

/// Where an engine's data are.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DataSource {
    /// Nowhere: files that are there are leftovers, deleted before a start.
    #[default]
    Nothing,
    /// In the snapshot.
    Snapshot,
    /// In the append-only file.
    AppendOnlyFile,
}

/// Data that a process was started with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LoadedData {
    /// When the files were written last.
    pub written: Timestamp,
    /// The process that was given the last role before: another start without one in between changes files, but
    /// makes no data newer.
    pub by: String,
}

/// A process that the agent started; enough to know it again among reused pids.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProcessRecord {
    /// Its id.
    pub pid: u32,
    /// Its process group: its own id, shared by its fork children.
    pub process_group: u32,
    /// When it started, clock ticks since the host did (`/proc/<pid>/stat`, field 22).
    pub start_time: u64,
    /// The host's start in which it did.
    pub boot_id: String,
    /// Its program, links resolved. Stays the same when a newer release comes into force.
    pub executable: PathBuf,
    /// The engine.
    pub engine: EngineId,
    /// Generation that it was started from, or configured to since.
    pub generation: Generation,
    /// Its port.
    pub port: u16,
    /// The engine's own id of this process, once it answered.
    #[serde(default)]
    pub run_id: Option<String>,
    /// When it was started.
    pub started: Timestamp,
}

/// A role that was given.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RoleRecord {
    /// Which.
    pub role: Role,
    /// Its epoch.
    pub epoch: Epoch,
    /// The process that has it.
    pub run_id: String,
    /// When it was given.
    pub given: Timestamp,
    /// Of a replica: where its primary listens.
    #[serde(default)]
    pub primary: Option<SocketAddr>,
}

/// Why a ledger cannot be used. The folder is left as it is.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The file cannot be read.
    #[error("{path}: {error}; nothing in this folder is touched until it can be read", path = path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The file is damaged.
    #[error(
        "{path} is damaged ({error}); nothing in this folder is touched: restore the file, or move the folder away to give this copy up",
        path = path.display()
    )]
    Damaged {
        /// Which.
        path: PathBuf,
        /// Where.
        error: String,
    },
    /// A release after this one wrote it in another way.
    #[error("{path} has schema {schema}, this release reads up to {SCHEMA}: run the release that wrote it", path = path.display())]
    Newer {
        /// Which.
        path: PathBuf,
        /// Its schema.
        schema: u32,
    },
    /// There are files, but no ledger.
    #[error(
        "{path} holds files but no ledger; nothing in it is touched: restore its ledger.json, or move the folder away to give this copy up",
        path = path.display()
    )]
    Missing {
        /// The folder.
        path: PathBuf,
    },
}

impl Ledger {
    /// The ledger of a shard that never ran here.
    #[must_use]
    pub fn new(spec: EngineSpec) -> Self {
        Self {
            schema: SCHEMA,
            spec,
            intent: Intent::Nothing,
            process: None,
            role: None,
            epoch: Epoch(0),
            prepared: Epoch(0),
            settled: Epoch(0),
            loads_from: DataSource::Nothing,
            holed: false,
            loaded: None,
            set_aside: None,
            unapplied: false,
            extra: Map::new(),
        }
    }

    /// Takes note of how old the data are that a process was just started with.
    pub fn note_loaded(&mut self, written: Option<Timestamp>) {
        let by = self.role.as_ref().map(|role| role.run_id.clone());
        self.loaded = match (by, written, self.loaded.take()) {
            (Some(by), Some(_), Some(before)) if before.by == by => Some(before),
            (Some(by), Some(written), _) => Some(LoadedData { written, by }),
            _ => None,
        };
    }

    /// Reads a ledger; `None` when there is no such file.
    ///
    /// # Errors
    /// When it is there but cannot be used.
    pub fn read(path: &Path) -> Result<Option<Self>, LedgerError> {
        let unreadable = |error| LedgerError::Unreadable {
            path: path.to_path_buf(),
            error,
        };
        let damaged = |error: String| LedgerError::Damaged {
            path: path.to_path_buf(),
            error,
        };
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(unreadable(error)),
        };
        let mut bytes = Vec::new();
        file.take(SIZE_MAX + 1)
            .read_to_end(&mut bytes)
            .map_err(unreadable)?;
        if bytes.len() as u64 > SIZE_MAX {
            return Err(damaged(format!("longer than {SIZE_MAX} bytes")));
        }
        let value: Value = serde_json::from_slice(&bytes).map_err(|e| damaged(e.to_string()))?;
        let schema = value.get("schema").and_then(Value::as_u64).unwrap_or(0);
        if schema > u64::from(SCHEMA) {
            let schema = u32::try_from(schema).unwrap_or(u32::MAX);
            return Err(LedgerError::Newer {
                path: path.to_path_buf(),
                schema,
            });
        }
        serde_json::from_value(value)
            .map(Some)
            .map_err(|e| damaged(e.to_string()))
    }

    /// Writes it, so that after a crash either the old or the new contents are there.
    ///
    /// # Errors
    /// When the file system refuses. The caller must then not act.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let bytes = serde_json::to_vec_pretty(self)?;
        replace_file(path, &bytes, 0o640)
    }
}

/// Replaces a file as a whole and syncs it and its folder.
pub(crate) fn replace_file(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let fresh = path.with_extension("new");
    match fs::remove_file(&fresh) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&fresh)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&fresh, path)?;
    match path.parent() {
        Some(folder) => sync_folder(folder),
        None => Ok(()),
    }
}

/// Makes the names in a folder durable.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// A ledger as 1.1.0 writes it, which knows nothing of holes. It keeps what it does not know, so that they are
    /// known again when it is left.
    #[test]
    fn a_ledger_of_the_last_release_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger.json");
        let mut stored = json!({
            "schema": 1,
            "spec": {
                "shard": 1, "database": 7, "generation": 2, "engine": "valkey-9.1.2", "port": 20000,
                "settings": {
                    "memory_bytes": 1, "eviction_policy": "noeviction",
                    "persistence": { "kind": "aof-every-second" }, "notify_keyspace_events": ""
                },
                "users": { "cnm": "c", "repl": "r", "proxy": "" }
            },
            "intent": { "step": "nothing" }, "process": null, "role": null, "epoch": 3, "prepared": 0,
            "settled": 0, "loads_from": "append_only_file", "unapplied": false, "of_a_newer_one": true
        });
        fs::write(&path, stored.to_string()).unwrap();
        let mut ledger = Ledger::read(&path).unwrap().unwrap();
        assert_eq!(
            (ledger.loads_from, ledger.holed),
            (DataSource::AppendOnlyFile, false)
        );
        assert_eq!(ledger.extra["of_a_newer_one"], true);
        ledger.holed = true;
        ledger.write(&path).unwrap();
        assert_eq!(Ledger::read(&path).unwrap(), Some(ledger));
        stored["holed"] = json!(true);
        fs::write(&path, stored.to_string()).unwrap();
        assert!(Ledger::read(&path).unwrap().unwrap().holed);
    }
}
