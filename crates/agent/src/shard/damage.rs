//! Files that an engine cannot load. It ends at each start then, and nobody but an operator mends them. Those of a replica are
//! worth nothing once its primary serves: the controller, which knows that, has them set aside, and the replica gets
//! all data anew. They are kept, the last ones, for who wants to know what had happened to them.

use super::start::read_end;
use super::{ShardTask, blocking, not_yet, stale};
use crate::engine_config::DATA_FILES;
use crate::ledger::{DataSource, sync_folder};
use jiff::Timestamp;
use model::command::AgentRefusal;
use model::documents::Role;
use model::limits::LOAD_FAILURES;
use model::observation::EngineState;
use model::{Epoch, Generation};
use std::fs::{self, DirBuilder};
use std::io::{self, ErrorKind};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// Name prefix of a folder with files that were set aside; what follows is when that was decided, ms.
const ASIDE: &str = "set-aside-";

/// What engines say of files that are damaged, or of which a part is missing. Not of those that cannot be opened, nor of
/// a disk or memory that is full: that may pass.
const DAMAGED: [&str; 9] = [
    // `Bad file format …`, `Unknown command '…' …`, `Error …`, `Unexpected end of file …`
    "eading the append only file",
    "FATAL AOF MANIFEST FILE ERROR",
    "Unable to obtain the AOF file",
    "Wrong signature trying to load DB",
    "Can't handle RDB format version",
    "Short read or OOM loading DB",
    "Internal error in RDB reading",
    "Wrong RDB checksum",
    "Terminating server after rdb file reading failure",
];

impl ShardTask {
    /// Takes note of why an engine has ended before it ran.
    pub(super) fn note_damage(&mut self) {
        let said = read_end(&self.log_path(), self.log_mark);
        self.load_failures = match said {
            Some(said) if is_damage(&said) => self.load_failures.saturating_add(1),
            _ => 0,
        };
    }

    /// `SetAside`. The files go first: they belong to nobody if the agent ends before the ledger says so, and an engine
    /// that does not find them begins empty. The other way round they would be leftovers, which a start deletes.
    pub(super) async fn set_aside(
        &mut self,
        generation: Generation,
        epoch: Epoch,
        decided: Timestamp,
    ) -> Result<(), AgentRefusal> {
        self.check_description(generation)?;
        self.check_epoch(epoch)?;
        let Some(ledger) = &self.ledger else {
            return not_yet("it was never started here");
        };
        if ledger.set_aside.is_some_and(|done| done >= decided) {
            return Ok(());
        }
        let role = ledger.role.as_ref();
        let role = role.filter(|role| role.role == Role::Primary);
        if let Some(role) = role.filter(|role| role.epoch >= epoch) {
            return stale(format!("it is the primary of epoch {}", role.epoch));
        }
        if self.engine.is_some() || self.doubt.is_some() {
            return not_yet("an engine may run on these files");
        }
        if self.load_failures < LOAD_FAILURES {
            return not_yet(format!(
                "its files could not be loaded {} times in a row: they are set aside after {LOAD_FAILURES}",
                self.load_failures
            ));
        }
        let lock = self.clear_folder().await?;
        let folder = self.folder.path().to_path_buf();
        let aside = blocking(move || {
            let aside = move_aside(&folder, decided);
            drop(lock);
            aside
        });
        let aside = aside.await.map_err(|error| {
            let path = self.folder.path().display();
            AgentRefusal::failed(format!("setting the files of {path} aside: {error}"))
        })?;
        self.record(|ledger| {
            ledger.loads_from = DataSource::Nothing;
            ledger.holed = false;
            ledger.loaded = None;
            ledger.set_aside = Some(decided);
        })
        .await?;
        self.load_failures = 0;
        self.failures = None;
        self.state = EngineState::Stopped;
        let what = format!(
            "its files could not be loaded and are in {} now",
            aside.display()
        );
        tracing::warn!("shard {}: {what}", self.shard);
        self.error = Some(what);
        Ok(())
    }
}

fn is_damage(said: &str) -> bool {
    DAMAGED.iter().any(|words| said.contains(words))
}

/// Moves the data to a folder of this decision, and deletes what was moved before. Blocks.
fn move_aside(folder: &Path, decided: Timestamp) -> io::Result<PathBuf> {
    let name = format!("{ASIDE}{}", decided.as_millisecond());
    let aside = folder.join(&name);
    let there = |name: &&&str| fs::symlink_metadata(folder.join(name)).is_ok();
    let files: Vec<_> = DATA_FILES.iter().filter(there).collect();
    if files.is_empty() {
        return Ok(aside);
    }
    match DirBuilder::new().mode(0o750).create(&aside) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    for file in files {
        let to = aside.join(file);
        // Of the same decision, which was not written down then.
        remove(&to)?;
        fs::rename(folder.join(file), to)?;
    }
    sync_folder(&aside)?;
    sync_folder(folder)?;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let old = entry.file_name();
        let old = old.to_str().filter(|old| old.starts_with(ASIDE));
        if old.is_some_and(|old| old != name) {
            remove(&entry.path())?;
        }
    }
    Ok(aside)
}

/// Deletes a file or folder, if it is there.
fn remove(path: &Path) -> io::Result<()> {
    let result = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match result {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damage_is_told_from_what_may_pass() {
        for said in [
            "1:M 1 Jan 2026 00:00:00.000 # Bad file format reading the append only file: make a backup of your AOF file",
            "1:M 1 Jan 2026 00:00:00.000 # Error reading the append only file appendonly.aof.2.incr.aof, error: unknown command",
            "1:M 1 Jan 2026 00:00:00.000 # \n*** FATAL AOF MANIFEST FILE ERROR ***\n",
            "1:M 1 Jan 2026 00:00:00.000 # Unable to obtain the AOF file a.2.base.rdb length. stat: No such file or directory",
            "1:M 1 Jan 2026 00:00:00.000 # Wrong signature trying to load DB from file: \nFatal error loading the DB",
        ] {
            assert!(is_damage(said), "{said}");
        }
        for said in [
            "",
            "1:M 1 Jan 2026 00:00:00.000 # Failed listening on port 20001 (tcp), aborting.",
            "1:M 1 Jan 2026 00:00:00.000 # Fatal error: can't open the RDB file dump.rdb for reading: Permission denied",
            "1:M 1 Jan 2026 00:00:00.000 # Can't open the append-only file a.1.incr.aof: No space left on device",
            "1:M 1 Jan 2026 00:00:00.000 * Done loading RDB, keys loaded: 200, keys expired: 0.",
        ] {
            assert!(!is_damage(said), "{said}");
        }
    }

    #[test]
    fn what_was_set_aside_last_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let at = |ms| Timestamp::from_millisecond(ms).unwrap();
        let fill = |text: &str| {
            fs::write(path("dump.rdb"), text).unwrap();
            fs::create_dir_all(path("appendonlydir")).unwrap();
            fs::write(path("appendonlydir/part"), text).unwrap();
            fs::write(path("ledger.json"), "{}").unwrap();
        };
        for (ms, text) in [(1, "first"), (1, "again"), (2, "second")] {
            fill(text);
            let aside = move_aside(folder.path(), at(ms)).unwrap();
            for file in ["dump.rdb", "appendonlydir/part"] {
                assert!(!path(file).exists());
                assert_eq!(fs::read_to_string(aside.join(file)).unwrap(), text);
            }
        }
        // Nothing takes the place of what is there.
        move_aside(folder.path(), at(3)).unwrap();
        let mut names: Vec<_> = fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["ledger.json", "set-aside-2"]);
    }
}
