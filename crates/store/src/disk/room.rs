//! A disk without room. Nothing is lost by waiting for it: what is not on disk is not acknowledged, so to everybody else the
//! node is one whose disk is slow. It answers from what it has in memory meanwhile, and goes on by itself.
//!
//! It leads nobody and votes for nobody until then ([`crate::pacemaker`]): a vote is given when it is on disk, and a leader
//! that writes nothing would keep the others from choosing one that does.

use super::DiskError;
use rusqlite::ErrorCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Between two tries: at first, then twice as long each time, up to the other.
const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// Whether there is room for what is to be written.
#[derive(Debug, Default)]
pub(crate) struct Room {
    full: AtomicBool,
    given_up: AtomicBool,
}

impl Room {
    /// Whether something waits for room.
    pub(crate) fn is_full(&self) -> bool {
        self.full.load(Ordering::Acquire)
    }

    /// What waits for room fails from now on: the store is being closed.
    pub(crate) fn give_up(&self) {
        self.given_up.store(true, Ordering::Release);
    }

    /// Writes, as soon as there is room. One try is one transaction: it leaves all or nothing. Blocks.
    pub(super) fn wait_for(
        &self,
        mut write: impl FnMut() -> rusqlite::Result<()>,
    ) -> Result<(), DiskError> {
        let (mut pause, longest) = PAUSE;
        loop {
            let result = write();
            match &result {
                // What is given up was never acknowledged.
                Err(error) if lacks_room(error) && self.given_up.load(Ordering::Acquire) => {
                    return Err(DiskError::Closed);
                }
                Err(error) if lacks_room(error) => {
                    if !self.full.swap(true, Ordering::AcqRel) {
                        tracing::error!(
                            "the disk of the configuration store is full: nothing is written, and this node does not \
                             vote, until there is room"
                        );
                    }
                }
                _ => {
                    if self.full.swap(false, Ordering::AcqRel) && result.is_ok() {
                        tracing::info!("the disk of the configuration store has room again");
                    }
                    return Ok(result?);
                }
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(longest);
        }
    }
}

fn lacks_room(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::DiskFull)
}
