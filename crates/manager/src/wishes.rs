//! What clients wish of their database, as this node's proxy passes it on: an ordinary change of the
//! database, made at the primary node. The answer comes when it is in force on every shard.

use crate::member::Member;
use crate::primary;
use model::documents::OperationStatus;
use model::intent::{DatabaseChange, Intent};
use model::proxy::{Granted, WISHES_MAX, Wish};
use model::view::{ClusterView, Consistency};
use model::{ApiError, DatabaseUid, ErrorCode, OperationUid};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

/// How long a wish may take; less than its proxy waits, so that the client hears why it is not in force.
const GRANT_WAIT: Duration = Duration::from_secs(12);
/// Pause between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// The wishes of one proxy that are under way.
#[derive(Debug, Default)]
pub struct Wishes {
    running: JoinSet<Granted>,
}

impl Wishes {
    /// Sees to a wish. `Some`: there are too many.
    pub fn take(&mut self, member: &Arc<Member>, wish: Wish) -> Option<Granted> {
        if self.running.len() >= WISHES_MAX {
            return Some(Granted {
                number: wish.number,
                refusal: Some("TRYAGAIN too many CONFIG SET are under way; try again".to_owned()),
            });
        }
        let member = Arc::clone(member);
        self.running.spawn(async move {
            let number = wish.number;
            let refusal = carry_out(&member, wish).await.err();
            if let Some(reason) = &refusal {
                tracing::warn!(reason, "a client's CONFIG SET is refused");
            }
            Granted { number, refusal }
        });
        None
    }

    /// What became of the next one that has come to its end.
    pub async fn next(&mut self) -> Granted {
        loop {
            match self.running.join_next().await {
                Some(Ok(granted)) => return granted,
                // It ended early: its proxy says so in time.
                Some(Err(error)) => tracing::error!(%error, "a client's CONFIG SET ended early"),
                None => std::future::pending().await,
            }
        }
    }
}

async fn carry_out(member: &Member, wish: Wish) -> Result<(), String> {
    let deadline = Instant::now() + GRANT_WAIT;
    let database = wish.database;
    let intent = Intent::UpdateDatabase {
        database,
        change: Box::new(DatabaseChange {
            notify_keyspace_events: Some(wish.notify_keyspace_events),
            client: Some((wish.client, member.identity.node)),
            ..DatabaseChange::default()
        }),
    };
    loop {
        match primary::intent(member, &intent).await {
            Ok(outcome) => return in_force(member, database, outcome.operation, deadline).await,
            // Another change is under way: this one comes behind it.
            Err(error) if error.error_code == ErrorCode::Busy && Instant::now() < deadline => {
                sleep(LOOK_AGAIN).await;
            }
            Err(error) => return Err(refusal(&error)),
        }
    }
}

/// Waits until a change is in force. `operation`: the one that makes it; `None`: it was made before, and may
/// still be under way.
async fn in_force(
    member: &Member,
    database: DatabaseUid,
    operation: Option<OperationUid>,
    deadline: Instant,
) -> Result<(), String> {
    let mut operation = operation;
    let mut waits_for = "the primary node".to_owned();
    while Instant::now() < deadline {
        match primary::view(member, Consistency::Linearizable).await {
            Ok(view) if view.has_quorum => {
                let running = running(&view, database)?;
                operation = operation.or_else(|| running.clone());
                if running.is_none() || running != operation {
                    return ended_well(&view, operation.as_ref());
                }
                if let Some(waiting) = waiting_on(&view, operation.as_ref()) {
                    waits_for = waiting;
                }
            }
            Ok(_) => "a quorum".clone_into(&mut waits_for),
            Err(error) => waits_for = error.description,
        }
        sleep(LOOK_AGAIN).await;
    }
    Err(format!(
        "ERR the setting is stored but not in force everywhere yet, waiting for: {waits_for}"
    ))
}

/// The operation that changes a database now.
fn running(view: &ClusterView, database: DatabaseUid) -> Result<Option<OperationUid>, String> {
    let found = view.databases.iter().find(|known| known.uid == database);
    let found = found.ok_or("ERR the database was deleted")?;
    Ok(found.operation.clone())
}

fn ended_well(view: &ClusterView, operation: Option<&OperationUid>) -> Result<(), String> {
    let known = operation.and_then(|uid| view.operations.iter().find(|known| known.uid == *uid));
    match known {
        Some(known) if known.status == OperationStatus::Failed => {
            let why = known.error.as_deref().unwrap_or("no reason known");
            Err(format!("ERR the setting was not changed: {why}"))
        }
        _ => Ok(()),
    }
}

fn waiting_on(view: &ClusterView, operation: Option<&OperationUid>) -> Option<String> {
    let uid = operation?;
    let known = view.operations.iter().find(|known| known.uid == *uid)?;
    known.waiting_on.clone()
}

/// An error as a client of an engine reads it.
fn refusal(error: &ApiError) -> String {
    let code = match error.error_code {
        ErrorCode::Busy | ErrorCode::NoPrimary | ErrorCode::NoQuorum | ErrorCode::NotReady => {
            "TRYAGAIN"
        }
        _ => "ERR",
    };
    format!("{code} {}", error.description)
}
