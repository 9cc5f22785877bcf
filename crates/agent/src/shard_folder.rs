//! Layout of a shard's folder, `<persist>/redis/<shard>/`:
//!
//! | file | what |
//! |---|---|
//! | `ledger.json` | what the agent wrote down before it acted, see [`crate::ledger`] |
//! | `lock` | locked (`flock`) by the engine, which has it as its stdin, and by its fork children |
//! | `redis.pid` | the engine's own pid file |
//! | `redis.conf`, `users.acl` | generated before each start |
//! | `dump.rdb`, `appendonly*` | the engine's data |
//! | `set-aside-*` | data of a replica that could not be loaded any more, see [`crate::shard`]; at most one |

use crate::ledger::{Ledger, LedgerError};
use model::ShardUid;
use model::node_config::NodeConfig;
use rustix::fs::{FlockOperation, flock};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Folder name prefix of shards whose deletion was decided.
const TRASH: &str = ".trash-";

/// One shard's folder. It need not exist.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ShardFolder {
    shard: ShardUid,
    path: PathBuf,
}

/// What can be seen of a shard's folder without the agent, for `rlcheck`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Inspection {
    /// Which shard.
    pub shard: ShardUid,
    /// Whether an engine or a fork child of one lives.
    pub locked: bool,
    /// The pid that the engine wrote into its pid file.
    pub pid_file: Option<u32>,
    /// The pid that the agent wrote into the ledger.
    pub recorded: Option<u32>,
    /// What is wrong: the engine lives, but its pid file is missing or names another process, or
    /// the ledger cannot be read.
    pub problem: Option<String>,
}

impl ShardFolder {
    /// The folder of a shard on a node.
    #[must_use]
    pub fn of(node: &NodeConfig, shard: ShardUid) -> Self {
        Self {
            shard,
            path: node.shards_dir().join(shard.to_string()),
        }
    }

    /// All shards that have a folder on this node, by number.
    ///
    /// # Errors
    /// When the folder of the shards cannot be read; that it does not exist is no error.
    pub fn list(node: &NodeConfig) -> io::Result<Vec<Self>> {
        let mut shards: Vec<Self> = names(&node.shards_dir())?
            .into_iter()
            .filter_map(|name| {
                name.parse::<ShardUid>()
                    .ok()
                    .filter(|uid| uid.to_string() == name)
            })
            .map(|shard| Self::of(node, shard))
            .collect();
        shards.sort_by_key(|folder| folder.shard);
        Ok(shards)
    }

    /// Folders whose deletion was decided and not finished.
    pub(crate) fn list_trash(node: &NodeConfig) -> io::Result<Vec<PathBuf>> {
        let folder = node.shards_dir();
        let names = names(&folder)?;
        Ok(names
            .iter()
            .filter(|n| n.starts_with(TRASH))
            .map(|n| folder.join(n))
            .collect())
    }

    /// Which shard.
    #[must_use]
    pub fn shard(&self) -> ShardUid {
        self.shard
    }

    /// The folder itself.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The ledger.
    #[must_use]
    pub fn ledger_path(&self) -> PathBuf {
        self.path.join("ledger.json")
    }

    /// The lock.
    #[must_use]
    pub fn lock_path(&self) -> PathBuf {
        self.path.join("lock")
    }

    /// The engine's pid file.
    #[must_use]
    pub fn pid_path(&self) -> PathBuf {
        self.path.join("redis.pid")
    }

    /// The engine's configuration.
    #[must_use]
    pub fn config_path(&self) -> PathBuf {
        self.path.join("redis.conf")
    }

    /// The engine's users at start.
    #[must_use]
    pub fn users_path(&self) -> PathBuf {
        self.path.join("users.acl")
    }

    /// Reads the ledger; `None`: there is no shard here (no folder, or one in which nothing was
    /// ever started).
    ///
    /// # Errors
    /// When the ledger is damaged, or missing although there are other files.
    pub fn read_ledger(&self) -> Result<Option<Ledger>, LedgerError> {
        if let Some(ledger) = Ledger::read(&self.ledger_path())? {
            return Ok(Some(ledger));
        }
        let unreadable = |error| LedgerError::Unreadable {
            path: self.path.clone(),
            error,
        };
        let names = names(&self.path).map_err(unreadable)?;
        if names
            .iter()
            .all(|name| name == "lock" || name == "ledger.new")
        {
            return Ok(None);
        }
        Err(LedgerError::Missing {
            path: self.path.clone(),
        })
    }

    /// The pid in the engine's pid file.
    #[must_use]
    pub fn read_pid_file(&self) -> Option<u32> {
        fs::read_to_string(self.pid_path())
            .ok()?
            .trim()
            .parse()
            .ok()
    }

    /// Whether an engine or a fork child of one holds the lock.
    ///
    /// # Errors
    /// When the lock cannot be opened; that it does not exist means that nobody holds it.
    pub fn is_locked(&self) -> io::Result<bool> {
        let file = match File::open(self.lock_path()) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        };
        // Shared, and dropped with the file at once: whoever wants it exclusively tries again.
        match flock(&file, FlockOperation::NonBlockingLockShared) {
            Ok(()) => Ok(false),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(true),
            Err(error) => Err(error.into()),
        }
    }

    /// Takes the lock; `None` when somebody holds it.
    pub(crate) fn try_lock(&self) -> io::Result<Option<File>> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o640)
            .open(self.lock_path())?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(file)),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Makes the folder, and those above it.
    pub(crate) fn create(&self) -> io::Result<()> {
        if self.path.is_dir() {
            return Ok(());
        }
        DirBuilder::new()
            .recursive(true)
            .mode(0o750)
            .create(&self.path)?;
        self.path
            .parent()
            .map_or(Ok(()), crate::ledger::sync_folder)
    }

    /// Deletes the folder: first it is renamed, durably, so that half of it is never taken for a
    /// shard.
    pub(crate) fn delete(&self) -> io::Result<()> {
        let Some(parent) = self.path.parent() else {
            return Ok(());
        };
        let trash = parent.join(format!("{TRASH}{}", self.shard));
        delete_trash(&trash)?;
        match fs::rename(&self.path, &trash) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        }
        crate::ledger::sync_folder(parent)?;
        delete_trash(&trash)
    }

    /// Looks at the folder without changing anything.
    ///
    /// # Errors
    /// When the lock cannot be opened.
    pub fn inspect(&self) -> io::Result<Inspection> {
        let locked = self.is_locked()?;
        let pid_file = self.read_pid_file();
        let (recorded, mut problem) = match self.read_ledger() {
            Ok(ledger) => (ledger.and_then(|l| l.process).map(|p| p.pid), None),
            Err(error) => (None, Some(error.to_string())),
        };
        if problem.is_none() && locked {
            problem = match (pid_file, recorded) {
                (None, _) => Some(format!("{} is missing", self.pid_path().display())),
                (Some(file), Some(ledger)) if file != ledger => Some(format!(
                    "{} says {file}, the ledger {ledger}",
                    self.pid_path().display()
                )),
                _ => None,
            };
        }
        Ok(Inspection {
            shard: self.shard,
            locked,
            pid_file,
            recorded,
            problem,
        })
    }
}

/// Deletes a folder whose deletion was decided.
pub(crate) fn delete_trash(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Names in a folder; none when it does not exist.
fn names(folder: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    entries
        .map(|entry| entry.map(|e| e.file_name().to_string_lossy().into_owned()))
        .collect()
}
