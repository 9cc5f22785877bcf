//! What is kept of a client's own connection goes with the client to another process.

use super::{Blocked, Keep};
use crate::handover::record::{Bytes, KeepRecord};

impl Keep {
    /// Whether nothing of it moves to another primary now.
    pub(in crate::worker) fn is_still(&self) -> bool {
        let asked = |blocked: &Blocked| blocked.asked || blocked.pending || blocked.by_client;
        self.parked.is_none() && self.next.is_none() && !self.blocked.as_ref().is_some_and(asked)
    }

    pub(in crate::worker) fn write(self, clock: u64) -> KeepRecord {
        let Self {
            queue,
            queued,
            overflow,
            tracking,
            // What is tracked tells it, nearly always.
            was_tracked: _,
            tracking_asked,
            caching,
            names,
            blocked,
            // There is none, see above.
            parked: _,
            next: _,
        } = self;
        let blocked = blocked.map(|blocked| {
            let Blocked {
                frame,
                since,
                asked: _,
                pending: _,
                by_client: _,
                last_ids: _,
            } = blocked;
            (Bytes(frame), clock.saturating_sub(since))
        });
        KeepRecord {
            queue: Bytes(queue),
            queued,
            overflow,
            tracking: tracking.into_iter().map(Bytes).collect(),
            tracking_asked: tracking_asked.into_iter().map(Bytes).collect(),
            caching: caching.map(Bytes),
            names: names.map(|names| names.into_iter().map(Bytes).collect()),
            blocked,
        }
    }

    pub(in crate::worker) fn read(record: KeepRecord, clock: u64) -> Self {
        let KeepRecord {
            queue,
            queued,
            overflow,
            tracking,
            tracking_asked,
            caching,
            names,
            blocked,
        } = record;
        let blocked = blocked.map(|(frame, age)| Blocked {
            frame: frame.0,
            since: clock.saturating_sub(age),
            asked: false,
            pending: false,
            by_client: false,
            last_ids: Vec::new(),
        });
        Self {
            queue: queue.0,
            queued,
            overflow,
            was_tracked: !tracking.is_empty(),
            tracking: tracking.into_iter().map(|frame| frame.0).collect(),
            tracking_asked: tracking_asked.into_iter().map(|frame| frame.0).collect(),
            caching: caching.map(|frame| frame.0),
            names: names.map(|names| names.into_iter().map(|name| name.0).collect()),
            blocked,
            parked: None,
            next: None,
        }
    }
}
