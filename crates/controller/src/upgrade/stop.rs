//! Where tests kill nodes in the middle of an upgrade.
//!
//! All that a cluster stores of an upgrade is one document. Debug builds tell, before and after each change of it,
//! the name of the change: if the data folder has a folder `upgrade-stops`, a file of that name is made in it, with
//! the number of this process, and the primary node stands still there until it is killed or the file is gone. A
//! name that has its file already is passed. So whatever is stored is found, and not by luck. Release builds have
//! nothing of this.

use model::documents::keys;
use model::upgrade::run::{Direction, RunState, UpgradeRun};
use model::upgrade::{NodeRelease, OpenUpgrade, Upgrade};
use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant};
use store::{Store, StoreError, Txn, TxnResult};

/// In the data folder.
const FOLDER: &str = "upgrade-stops";
/// A test that has not killed within this has ended.
const KILLED_WITHIN: Duration = Duration::from_secs(180);
const LOOK_AGAIN: Duration = Duration::from_millis(5);

static WHERE: OnceLock<PathBuf> = OnceLock::new();

/// Says where the data folder is.
pub fn look_in(data: &Path) {
    if cfg!(debug_assertions) {
        let _ = WHERE.set(data.join(FOLDER));
    }
}

/// This process has come to a place: `when` is `before` or `after`.
pub async fn reached(when: &str, what: &str) {
    if !cfg!(debug_assertions) {
        return;
    }
    let Some(path) = WHERE
        .get()
        .map(|folder| folder.join(format!("{when}:{what}")))
    else {
        return;
    };
    let made = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o644)
        .open(&path)
        .and_then(|mut file| file.write_all(std::process::id().to_string().as_bytes()));
    if made.is_err() {
        return;
    }
    tracing::warn!("stands still {when} {what}: a test kills here");
    let deadline = Instant::now() + KILLED_WITHIN;
    while path.exists() && Instant::now() < deadline {
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// Stores what changes the document of upgrades; whatever else a transaction does passes.
///
/// # Errors
/// As [`Store::txn`].
pub async fn stored(store: &Store, before: &Upgrade, txn: Txn) -> Result<TxnResult, StoreError> {
    if !cfg!(debug_assertions) {
        return store.txn(txn).await;
    }
    let Some(what) = change(before, &txn) else {
        return store.txn(txn).await;
    };
    reached("before", &what).await;
    let done = store.txn(txn).await?;
    if matches!(done, TxnResult::Applied { .. }) {
        reached("after", &what).await;
    }
    Ok(done)
}

/// The name of the change that a transaction makes to the document of upgrades, if it does.
fn change(before: &Upgrade, txn: &Txn) -> Option<String> {
    let (_, value) = txn.put.iter().find(|(key, _)| key == keys::UPGRADE)?;
    let after: Upgrade = serde_json::from_value(value.clone()).ok()?;
    let what = announced(&before.nodes, &after.nodes)
        .or_else(|| of_run(before.run.as_ref(), after.run.as_ref()?))
        .or_else(|| of_level(before, &after))
        .unwrap_or_else(|| {
            let raises = txn.put.iter().any(|(key, _)| key == keys::CLUSTER);
            if raises { "level" } else { "settings" }.to_owned()
        });
    let goes_back = after
        .run
        .as_ref()
        .is_some_and(|run| run.direction == Direction::Back);
    Some(if goes_back {
        format!("back-{what}")
    } else {
        what
    })
}

/// What an installer said of a node.
fn announced(before: &[NodeRelease], after: &[NodeRelease]) -> Option<String> {
    after.iter().find_map(|now| {
        let then = before.iter().find(|then| then.node == now.node);
        let worked = then.is_some_and(|then| then.under_way.is_some());
        let released = then.and_then(|then| then.release.as_ref());
        let word = match (worked, now.under_way.is_some()) {
            (false, true) => "announced",
            _ if now.release.as_ref() != released => "released",
            (true, false) => "given_up",
            _ => return None,
        };
        Some(format!("{word}-{}", now.node))
    })
}

/// What became of the upgrade of all nodes.
fn of_run(before: Option<&UpgradeRun>, after: &UpgradeRun) -> Option<String> {
    let Some(before) = before.filter(|before| before.id == after.id) else {
        return Some("begun".to_owned());
    };
    if before == after {
        return None;
    }
    if before.direction != after.direction {
        return Some("turned".to_owned());
    }
    for turn in &after.nodes {
        let Some(then) = before.turn(turn.node) else {
            return Some("nodes".to_owned());
        };
        if then.state != turn.state {
            let word = turn.state.as_str().replace(' ', "_");
            return Some(format!("{word}-{}", turn.node));
        }
        if then.attempt != turn.attempt {
            return Some(format!("again-{}", turn.node));
        }
    }
    let word = match &after.state {
        now if *now == before.state => match (before.blocked, after.blocked) {
            (None, Some(_)) => "waits",
            (Some(_), None) => "goes_on",
            _ => "nodes",
        },
        RunState::Running => "resumed",
        RunState::Paused { .. } => "paused",
        RunState::Done => "done",
    };
    Some(word.to_owned())
}

/// What became of the upgrade as a whole.
fn of_level(before: &Upgrade, after: &Upgrade) -> Option<String> {
    let word = match (&before.current, &after.current) {
        (None, Some(_)) => "opened",
        (Some(_), None) if before.last != after.last => "closed",
        (Some(_), None) => "taken_back",
        (Some(then), Some(now)) => of_open(then, now)?,
        (None, None) => return None,
    };
    Some(word.to_owned())
}

fn of_open(then: &OpenUpgrade, now: &OpenUpgrade) -> Option<&'static str> {
    if then == now {
        return None;
    }
    let word = match (&then.raising, &now.raising) {
        (None, Some(_)) => "raising",
        (Some(_), Some(_)) => "migrated",
        _ if now.asked && !then.asked => "asked",
        _ if now.all_new_since.is_some() && then.all_new_since.is_none() => "all_new",
        _ if now.all_new_since.is_none() && then.all_new_since.is_some() => "not_all_new",
        _ => "other_target",
    };
    Some(word)
}
