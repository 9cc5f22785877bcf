//! Troubles with shards in the log: each is told once, whichever worker and however many connections
//! have it.

use super::Worker;
use super::link::LinkId;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// After which time the same trouble is told again, if it is still there.
const AGAIN: Duration = Duration::from_secs(60);
/// Least time between two different ones of a shard.
const PAUSE: Duration = Duration::from_secs(1);

/// What was told last of each shard of a database, for all workers.
#[derive(Debug, Default)]
pub(crate) struct Troubles(Mutex<HashMap<usize, (String, Instant)>>);

impl Troubles {
    /// Whether a trouble is to be told now.
    fn is_news(&self, shard: usize, reason: &str, now: Instant) -> bool {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let news = told.get(&shard).is_none_or(|(last, when)| {
            let passed = now.saturating_duration_since(*when);
            passed >= AGAIN || (passed >= PAUSE && last != reason)
        });
        if news {
            told.insert(shard, (reason.to_owned(), now));
        }
        news
    }

    /// Whether the shard had been told to be in trouble. It is no more.
    fn is_over(&self, shard: usize) -> bool {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        told.remove(&shard).is_some()
    }
}

impl Worker {
    /// A connection to a shard was lost, or not opened. Not every one is told of: thousands may be lost
    /// at once, and a shard that refuses is tried again and again.
    pub(super) fn tell_trouble(&self, id: LinkId, opened: bool, reason: &str) {
        let database = &self.served[id.served].database;
        let shard = self.served[id.served].shards.get(id.shard);
        let shard = shard.and_then(|shard| shard.target.as_ref());
        let shard = shard.map(|target| target.uid.to_string());
        let shard = shard.as_deref().unwrap_or("unknown");
        let (uid, name) = (database.uid, &database.name);
        let news = database.troubles.is_news(id.shard, reason, self.now);
        match (news, opened) {
            (true, true) => {
                tracing::warn!(database = %uid, name, shard, reason, "a connection to a shard is closed");
            }
            (true, false) => {
                tracing::warn!(database = %uid, name, shard, reason, "a connection to a shard cannot be opened");
            }
            (false, _) => {
                tracing::debug!(database = %uid, name, shard, reason, "a connection to a shard is closed");
            }
        }
    }

    /// A shard is reached.
    pub(super) fn tell_reached(&self, id: LinkId) {
        let database = &self.served[id.served].database;
        if database.troubles.is_over(id.shard) {
            let (uid, name, shard) = (database.uid, &database.name, id.shard + 1);
            tracing::info!(database = %uid, name, shard, "a shard is reached again");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_told_once() {
        let troubles = Troubles::default();
        let now = Instant::now();
        let at = |seconds| now + Duration::from_secs(seconds);
        assert!(!troubles.is_over(0));
        assert!(troubles.is_news(0, "a", now));
        assert!(!troubles.is_news(0, "a", at(59)));
        assert!(troubles.is_news(1, "a", at(59)));
        assert!(!troubles.is_news(0, "b", now));
        assert!(troubles.is_news(0, "b", at(1)));
        assert!(!troubles.is_news(0, "b", at(60)));
        assert!(troubles.is_news(0, "b", at(61)));
        assert!(troubles.is_over(0) && !troubles.is_over(0));
        assert!(troubles.is_news(0, "b", at(61)));
    }
}
