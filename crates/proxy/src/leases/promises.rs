//! Asking all copies of replica sets for their promises, round by round.

use super::keeper::{self, Keeper};
use super::sets::Key;
use super::{Leases, now};
use crate::bounds;
use model::lease::Moment;
use model::proxy::{Copies, ShardAddress};
use model::{Epoch, Secret};
use std::collections::HashMap;
use std::sync::Arc;
use tokio::task::JoinSet;

/// A connection by which an engine is asked, while nobody uses it.
type Kept = HashMap<(ShardAddress, String), (Secret, Keeper)>;

/// A set that is being asked for.
struct Asked {
    epoch: Epoch,
    /// Copies that have not answered.
    left: usize,
}

/// What became of one copy.
struct Told {
    key: Key,
    copies: Arc<Copies>,
    address: ShardAddress,
    outcome: Result<Keeper, String>,
}

/// Asks whenever promises are needed. Connections are kept until that is long ago.
pub(super) async fn keep(leases: Leases) {
    let mut kept = Kept::new();
    loop {
        let asked = leases.0.ask.notified();
        if kept.is_empty() {
            asked.await;
        } else if tokio::time::timeout(bounds::KEEPER_IDLE, asked)
            .await
            .is_err()
        {
            kept = Kept::new();
            continue;
        }
        kept = ask(&leases, kept).await;
    }
}

/// One round: everybody at once. Returns the connections that may be used again.
async fn ask(leases: &Leases, mut kept: Kept) -> Kept {
    let wanted = leases.state().sets.to_ask();
    // Before the first byte is sent to anybody.
    let sent = now();
    let (mut sets, mut tasks) = (HashMap::new(), JoinSet::new());
    for (key, copies) in wanted {
        let (epoch, left) = (copies.epoch, copies.addresses.len());
        if tasks.len() + left > bounds::KEEPERS {
            let refusal = "this proxy asks too many copies for promises already".to_owned();
            leases.promised(key, epoch, sent, Err(refusal));
            continue;
        }
        sets.insert(key, Asked { epoch, left });
        let copies = Arc::new(copies);
        for address in &copies.addresses {
            let known = kept.remove(&(address.clone(), copies.user.clone()));
            let known = known.filter(|(password, _)| *password == copies.password);
            let known = known.map(|(_, keeper)| keeper);
            let (copies, address) = (Arc::clone(&copies), address.clone());
            let source = leases.0.source;
            tasks.spawn(async move {
                let asking = keeper::ask(known, &address, source, &copies);
                let outcome = match tokio::time::timeout(bounds::PROMISES, asking).await {
                    Ok(outcome) => outcome,
                    Err(_) => Err("it does not answer".to_owned()),
                };
                Told {
                    key,
                    copies,
                    address,
                    outcome,
                }
            });
        }
    }
    let mut again = Kept::new();
    while let Some(told) = tasks.join_next().await {
        // A task that panicked has not told of its set, which then gets no promise.
        if let Ok(told) = told {
            take(leases, &mut sets, sent, told, &mut again);
        }
    }
    again
}

/// Takes what became of one copy. The set's promise is there when all of its copies have told.
fn take(
    leases: &Leases,
    sets: &mut HashMap<Key, Asked>,
    sent: Moment,
    told: Told,
    again: &mut Kept,
) {
    let Told {
        key,
        copies,
        address,
        outcome,
    } = told;
    match outcome {
        Ok(keeper) => {
            let place = (address, copies.user.clone());
            again.insert(place, (copies.password.clone(), keeper));
            let Some(set) = sets.get_mut(&key) else {
                return;
            };
            set.left -= 1;
            if set.left == 0 {
                leases.promised(key, set.epoch, sent, Ok(()));
            }
        }
        Err(error) => {
            // The first one is enough.
            if let Some(set) = sets.remove(&key) {
                let place = keeper::place(&address);
                let refusal = format!("the copy at {place} does not promise: {error}");
                leases.promised(key, set.epoch, sent, Err(refusal));
            }
        }
    }
}
