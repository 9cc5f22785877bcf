//! An engine that cannot write to its disk refuses its clients' writes (`MISCONF`), and answers all else.
//!
//! An append-only file that could not be written is cut back to its last whole command. Where the engine had begun it
//! while it ran, it does not append to it then, but goes on where it was (seen with Valkey 9.1: `appendonly yes` by
//! `CONFIG SET`, a full disk, room again): a hole of zeros is left, and no start reads beyond it. So a file that was
//! not written once is written anew as soon as it can be. That may be long after it takes writes again: it needs more
//! room. So the ledger says that it is to be done, until it is.

use super::{COMMAND_PATIENCE, ShardTask};
use crate::engine_config::source_of;
use crate::engine_info::EngineInfo;
use crate::ledger::DataSource;
use model::command::AgentRefusal;
use std::time::Duration;
use tokio::time::Instant;

/// Between two tries to write an append-only file anew.
const AGAIN: Duration = Duration::from_secs(30);

/// An append-only file that may have a hole.
#[derive(Clone, Copy, Debug)]
pub(super) struct Holed {
    /// When it is written anew.
    due: Instant,
    /// Whether that was asked for.
    asked: bool,
}

impl ShardTask {
    /// Why the engine refuses writes though it runs; `None`: it does not.
    pub(super) fn refuses_writes(&self) -> Option<String> {
        let (info, ledger) = (self.info.as_ref()?, self.ledger.as_ref()?);
        let what = what_fails(info, source_of(ledger.spec.settings.persistence))?;
        Some(format!(
            "it refuses writes: it cannot write its {what}; see its log"
        ))
    }

    /// Called after each good probe.
    pub(super) async fn fill_holes(&mut self) {
        if let Err(refusal) = self.fill_hole().await {
            // The disk that is full is the ledger's, too: again at the next probe.
            self.error = Some(format!("its append-only file may have a hole: {refusal}"));
        }
    }

    async fn fill_hole(&mut self) -> Result<(), AgentRefusal> {
        let (Some(info), Some(ledger)) = (&self.info, &self.ledger) else {
            return Ok(());
        };
        let now = Instant::now();
        let at_once = Holed {
            due: now,
            asked: false,
        };
        if !info.append_only {
            // As long as the data are in it, a start may need it: a replica that gets all data ends its file first,
            // and begins it anew when it has them.
            let needed = ledger.loads_from == DataSource::AppendOnlyFile;
            self.holed = self.holed.filter(|_| needed).map(|_| at_once);
            return self.note_hole(ledger.holed && needed).await;
        }
        if info.append_failed {
            self.holed = Some(at_once);
            return self.note_hole(true).await;
        }
        // What only the ledger knows was seen by an agent before this one; what only this one knows could not be
        // written down yet.
        let known = self.holed.or(ledger.holed.then_some(at_once));
        let Some(holed) = known.filter(|_| !info.rewriting) else {
            return Ok(());
        };
        if holed.asked && info.rewrite_ok {
            self.note_hole(false).await?;
            tracing::info!("shard {}: its append-only file is written anew", self.shard);
            self.holed = None;
        } else if now >= holed.due {
            self.note_hole(true).await?;
            self.holed = Some(Holed {
                due: now + AGAIN,
                asked: self.rewrite().await,
            });
        }
        Ok(())
    }

    async fn note_hole(&mut self, holed: bool) -> Result<(), AgentRefusal> {
        if self.ledger.as_ref().is_some_and(|l| l.holed == holed) {
            return Ok(());
        }
        self.record(|ledger| ledger.holed = holed).await
    }

    async fn rewrite(&mut self) -> bool {
        match self
            .command_within(&["BGREWRITEAOF"], COMMAND_PATIENCE)
            .await
        {
            Ok(()) => true,
            Err(refusal) => {
                tracing::warn!(
                    "shard {}: its append-only file may have a hole, and cannot be written anew: {refusal}",
                    self.shard
                );
                false
            }
        }
    }
}

/// What an engine that keeps its data there cannot write.
fn what_fails(info: &EngineInfo, kept: DataSource) -> Option<&'static str> {
    if info.append_only && info.append_failed {
        return Some("append-only file");
    }
    let refuses = kept == DataSource::Snapshot && info.is_primary() && !info.save_ok;
    // It refuses nothing while it tries again.
    (refuses && !info.saving).then_some("snapshot")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_engine_tells_of_its_disk() {
        let told = |text: &str, kept| what_fails(&EngineInfo::parse(text), kept);
        let file = "aof_enabled:1\r\naof_last_write_status:err\r\nrdb_last_bgsave_status:ok\r\n";
        assert_eq!(
            told(file, DataSource::AppendOnlyFile),
            Some("append-only file")
        );
        let well = "aof_enabled:1\r\naof_last_write_status:ok\r\nrdb_last_bgsave_status:err\r\n";
        assert_eq!(told(well, DataSource::AppendOnlyFile), None);
        let snapshot = "role:master\r\naof_enabled:0\r\naof_last_write_status:ok\r\nrdb_last_bgsave_status:err\r\n";
        assert_eq!(told(snapshot, DataSource::Snapshot), Some("snapshot"));
        assert_eq!(told(snapshot, DataSource::Nothing), None);
        let replica = snapshot.replace("master", "slave");
        assert_eq!(told(&replica, DataSource::Snapshot), None);
    }
}
