//! What must hold after every step, one a file: each says what it forbids, and what it cannot see.

mod copies_apart;
mod epochs_agree;
mod one_primary;
mod one_taker_of_writes;
mod safe_data_stay;
mod the_past_is_fenced;

use crate::world::World;
use model::DatabaseUid;
use model::documents::Shard;
pub(crate) use safe_data_stay::Ledger;

/// Whose slots: a database and the first of them.
type Set = (DatabaseUid, u16);

fn set(shard: &Shard) -> Set {
    (shard.database, shard.slots.first)
}

/// All of them.
pub(crate) fn all(world: &World, ledger: &Ledger) -> Result<(), String> {
    ledger.nothing_is_lost()?;
    one_primary::one_primary(world)?;
    one_taker_of_writes::one_taker_of_writes(world)?;
    the_past_is_fenced::the_past_is_fenced(world)?;
    epochs_agree::epochs_agree(world)?;
    copies_apart::copies_apart(world)
}
