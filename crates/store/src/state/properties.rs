//! Whatever transactions come: the state is what a simple model says, a conflict changes nothing,
//! replaying the log and reading a snapshot give the same state to the byte.

use super::*;
use crate::history::{Changes, History};
use crate::machine;
use crate::raft::SnapshotMeta;
use proptest::collection::vec;
use proptest::prelude::*;

fn key() -> impl Strategy<Value = String> {
    (0..6u8).prop_map(|n| format!("/k{n}"))
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "\\PC{0,8}".prop_map(Value::from),
        vec(any::<bool>(), 0..3).prop_map(Value::from),
        Just(serde_json::json!({"b": 1, "a": [null, 1.5e-7], "ü\n": {}})),
    ]
}

/// Keys written twice are dropped, as the store refuses them.
fn txn() -> impl Strategy<Value = Txn> {
    let compare = vec((key(), 0..4u64), 0..2);
    (compare, vec((key(), value()), 0..3), vec(key(), 0..2)).prop_map(|(compare, put, delete)| {
        let mut seen = std::collections::BTreeSet::new();
        let put = put
            .into_iter()
            .filter(|(key, _)| seen.insert(key.clone()))
            .collect();
        let delete = delete
            .into_iter()
            .filter(|key| seen.insert(key.clone()))
            .collect();
        Txn {
            compare,
            put,
            delete,
        }
    })
}

/// The same rules, written as simply as possible.
#[derive(Default)]
struct Model {
    revision: u64,
    entries: BTreeMap<String, (Value, u64)>,
}

impl Model {
    fn apply(&mut self, txn: &Txn) -> bool {
        let holds = txn
            .compare
            .iter()
            .all(|(key, wanted)| self.entries.get(key).map_or(0, |entry| entry.1) == *wanted);
        let deletes = txn.delete.iter().any(|key| self.entries.contains_key(key));
        if holds && (deletes || !txn.put.is_empty()) {
            self.revision += 1;
            for (key, value) in &txn.put {
                let value = serde_json::from_str(&value.to_string()).unwrap();
                self.entries.insert(key.clone(), (value, self.revision));
            }
            txn.delete
                .iter()
                .for_each(|key| drop(self.entries.remove(key)));
        }
        holds
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn state_follows_the_model(txns in vec(txn(), 0..40)) {
        let (mut state, mut model) = (State::default(), Model::default());
        for txn in &txns {
            let before = state.clone();
            let applied = matches!(state.apply(txn).unwrap(), TxnResult::Applied { .. });
            prop_assert_eq!(applied, model.apply(txn));
            if !applied {
                prop_assert_eq!(&before, &state);
                prop_assert_eq!(before.hash(), state.hash());
            } else if before.revision != state.revision {
                prop_assert_ne!(before.hash(), state.hash());
            }
            prop_assert_eq!(state.revision.0, model.revision);
        }
        let found: BTreeMap<String, (Value, u64)> = state
            .entries
            .iter()
            .map(|(key, entry)| (key.clone(), (entry.value.clone(), entry.revision)))
            .collect();
        prop_assert_eq!(found, model.entries);
        let size: usize =
            state.entries.iter().map(|(key, entry)| key.len() + entry.text.len()).sum();
        prop_assert_eq!(state.size(), size);
    }

    #[test]
    fn replay_and_snapshot_give_the_same_state(txns in vec(txn(), 0..40), cut in 0..40usize) {
        let mut whole = State::default();
        txns.iter().for_each(|txn| drop(whole.apply(txn).unwrap()));
        // As another node does it: a snapshot in the middle, the rest from records.
        let cut = cut.min(txns.len());
        let mut other = State::default();
        txns[..cut].iter().for_each(|txn| drop(other.apply(txn).unwrap()));
        let (header, body) = machine::encode(&other, SnapshotMeta::default());
        let mut other = machine::decode(&header, &body).unwrap();
        for txn in &txns[cut..] {
            let command = Command::try_from(txn).unwrap();
            let record = crate::record::write(b'E', |to| to.command(&command));
            let command =
                crate::record::Reader::whole(b'E', &record, |from| from.command()).unwrap();
            other.apply_command(&command, &mut Vec::new()).unwrap();
        }
        prop_assert_eq!(whole.hash(), other.hash());
        prop_assert_eq!(whole, other);
    }

    /// A watcher that begins anywhere and follows the changes has the state in the end.
    #[test]
    fn changes_lead_from_any_revision_to_the_last(
        txns in vec(txn(), 1..40), since in 0..40usize, limit in 1..30usize,
    ) {
        let mut history = History::new(Revision(0), limit);
        let (mut state, mut old) = (State::default(), State::default());
        for (n, txn) in txns.iter().enumerate() {
            if n == since.min(txns.len() - 1) {
                old = state.clone();
            }
            let mut changes = Vec::new();
            state.apply_command(&Command::try_from(txn).unwrap(), &mut changes).unwrap();
            history.push(changes);
        }
        let Changes::Events(events) = history.since(old.revision, state.revision) else {
            return Ok(());
        };
        let mut last = old.revision;
        for event in events {
            prop_assert!(event.revision == last || event.revision == last.next());
            last = event.revision;
            match event.value {
                Some(entry) => old.insert(event.key, entry),
                None => prop_assert!(old.remove(&event.key)),
            }
        }
        prop_assert_eq!(last, state.revision);
        prop_assert_eq!(old.entries, state.entries);
    }

    /// The hash does not depend on the way to a state, only on the state.
    #[test]
    fn hash_is_of_the_entries(txns in vec(txn(), 0..30)) {
        let mut state = State::default();
        txns.iter().for_each(|txn| drop(state.apply(txn).unwrap()));
        let mut fresh = State::empty(state.revision);
        for (key, entry) in state.entries.iter().rev() {
            fresh.insert(key.clone(), entry.clone());
        }
        prop_assert_eq!(state.hash(), fresh.hash());
    }
}
