//! What must hold after every step, one a file: each says what it forbids, and what it cannot see.

mod clients_see_one_lineage;
mod copies_apart;
mod epochs_agree;
mod epochs_only_rise;
mod one_primary;
mod one_taker_of_writes;
mod safe_data_stay;
mod upgrades_go_in_turns;

use super::proxies::Way;
use super::upgrade::Upgrades;
use crate::world::World;
use epochs_only_rise::Roles;
use model::DatabaseUid;
use model::documents::Shard;
use safe_data_stay::Ledger;

/// Whose slots: a database and the first of them.
pub(super) type Set = (DatabaseUid, u16);

pub(super) fn set(shard: &Shard) -> Set {
    (shard.database, shard.slots.first)
}

/// What was seen so far, that the future must answer for.
#[derive(Debug, Default)]
pub(super) struct Past {
    ledger: Ledger,
    roles: Roles,
}

/// All of them.
pub(super) fn all(
    world: &World,
    past: &mut Past,
    (ways, upgrades): (&[Way], &Upgrades),
) -> Result<(), String> {
    past.ledger.look(world);
    past.ledger.nothing_is_lost()?;
    past.roles.epochs_only_rise(world)?;
    one_primary::one_primary(world)?;
    one_taker_of_writes::one_taker_of_writes(world)?;
    clients_see_one_lineage::clients_see_one_lineage(world, ways)?;
    epochs_agree::epochs_agree(world)?;
    copies_apart::copies_apart(world)?;
    upgrades_go_in_turns::upgrades_go_in_turns(world, upgrades)
}
