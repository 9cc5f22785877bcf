//! The latest changes, for those who watch: ordered, without a gap, resumable at any revision that
//! is not too far back.

use crate::state::Entry;
use model::Revision;
use std::collections::VecDeque;
use std::sync::Arc;

/// Most bytes of values that are kept for watchers.
const MAX_BYTES: usize = 16 * 1024 * 1024;

/// One key that changed.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// Revision of the transaction; all changes of one transaction share it.
    pub revision: Revision,
    /// The key.
    pub key: String,
    /// What it holds now; `None`: it was deleted.
    pub value: Option<Arc<Entry>>,
}

/// What happened since a revision.
#[derive(Clone, Debug, PartialEq)]
pub enum Changes {
    /// Everything, in order. Empty: nothing happened.
    Events(Vec<Change>),
    /// Too far back (or this node's state was replaced): take [`Store::state`] and go on from its
    /// revision.
    ///
    /// [`Store::state`]: crate::Store::state
    Compacted,
}

#[derive(Debug)]
pub(crate) struct History {
    changes: VecDeque<Change>,
    /// All changes after this revision are here.
    floor: Revision,
    limit: usize,
    bytes: usize,
}

impl History {
    pub(crate) fn new(floor: Revision, limit: usize) -> Self {
        Self {
            changes: VecDeque::new(),
            floor,
            limit,
            bytes: 0,
        }
    }

    /// Adds the changes of one transaction; drops the oldest transactions if there are too many.
    pub(crate) fn push(&mut self, changes: Vec<Change>) {
        self.bytes += changes.iter().map(size).sum::<usize>();
        self.changes.extend(changes);
        while self.changes.len() > self.limit || self.bytes > MAX_BYTES {
            let Some(revision) = self.changes.front().map(|change| change.revision) else {
                break;
            };
            self.floor = revision;
            while let Some(change) = self
                .changes
                .front()
                .filter(|next| next.revision == revision)
            {
                self.bytes -= size(change);
                self.changes.pop_front();
            }
        }
    }

    /// The changes after `since`, if all of them are here; `now` is the revision of the state.
    pub(crate) fn since(&self, since: Revision, now: Revision) -> Changes {
        if since < self.floor || since > now {
            return Changes::Compacted;
        }
        let from = self
            .changes
            .partition_point(|change| change.revision <= since);
        Changes::Events(self.changes.range(from..).cloned().collect())
    }
}

fn size(change: &Change) -> usize {
    change.key.len() + change.value.as_ref().map_or(0, |entry| entry.text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(revision: u64, key: &str) -> Change {
        Change {
            revision: Revision(revision),
            key: key.to_owned(),
            value: None,
        }
    }

    fn keys(changes: Changes) -> Option<Vec<String>> {
        match changes {
            Changes::Events(events) => Some(events.into_iter().map(|event| event.key).collect()),
            Changes::Compacted => None,
        }
    }

    #[test]
    fn drops_whole_transactions() {
        let mut history = History::new(Revision(0), 3);
        history.push(vec![change(1, "a"), change(1, "b")]);
        history.push(vec![change(2, "c")]);
        let now = Revision(2);
        assert_eq!(
            keys(history.since(Revision(0), now)).unwrap(),
            ["a", "b", "c"]
        );
        assert_eq!(keys(history.since(Revision(1), now)).unwrap(), ["c"]);
        assert_eq!(keys(history.since(now, now)).unwrap(), [""; 0]);
        history.push(vec![change(3, "d")]);
        let now = Revision(3);
        assert_eq!(
            keys(history.since(Revision(0), now)),
            None,
            "half a transaction is never given"
        );
        assert_eq!(keys(history.since(Revision(1), now)).unwrap(), ["c", "d"]);
        assert_eq!(
            keys(history.since(Revision(4), now)),
            None,
            "a revision that is not here yet"
        );
    }

    #[test]
    fn a_transaction_larger_than_the_limit_is_dropped_whole() {
        let mut history = History::new(Revision(4), 2);
        history.push(vec![change(5, "a"), change(5, "b"), change(5, "c")]);
        assert_eq!(keys(history.since(Revision(4), Revision(5))), None);
        assert_eq!(
            keys(history.since(Revision(5), Revision(5))).unwrap(),
            [""; 0]
        );
        history.push(vec![change(6, "d")]);
        assert_eq!(
            keys(history.since(Revision(5), Revision(6))).unwrap(),
            ["d"]
        );
    }
}
