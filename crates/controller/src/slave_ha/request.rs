//! An operator says whether and when lost replicas are made anew. Pure.

use model::documents::{ClusterSettings, SlaveHa};
use model::intent::{ClusterChange, SlaveHaChange};
use model::limits::{SLAVE_HA_PRIORITY_MAX, SLAVE_HA_SECONDS};
use model::{ApiError, ErrorCode};

/// What a database says, with a change applied.
///
/// # Errors
/// `invalid_param`: the priority is out of its range.
pub(crate) fn of_database(now: &SlaveHa, wanted: SlaveHaChange) -> Result<SlaveHa, ApiError> {
    let mut changed = now.clone();
    changed.enabled = wanted.enabled.or(changed.enabled);
    changed.enabled = changed.enabled.filter(|_| !wanted.as_cluster);
    changed.priority = wanted.priority.unwrap_or(changed.priority);
    if changed.priority > SLAVE_HA_PRIORITY_MAX {
        return Err(ApiError::new(
            ErrorCode::InvalidParam,
            format!("slave_ha_priority is from 0 to {SLAVE_HA_PRIORITY_MAX}"),
        ));
    }
    Ok(changed)
}

/// What the cluster says, with a change applied.
///
/// # Errors
/// `invalid_param`: a time is out of its range.
pub(crate) fn switch(
    settings: &mut ClusterSettings,
    wanted: &ClusterChange,
) -> Result<(), ApiError> {
    settings.slave_ha = wanted.slave_ha.unwrap_or(settings.slave_ha);
    let times = [
        (
            "slave_ha_grace_period",
            &mut settings.slave_ha_grace_period,
            wanted.slave_ha_grace_period,
        ),
        (
            "slave_ha_cooldown_period",
            &mut settings.slave_ha_cooldown_period,
            wanted.slave_ha_cooldown_period,
        ),
        (
            "slave_ha_bdb_cooldown_period",
            &mut settings.slave_ha_bdb_cooldown_period,
            wanted.slave_ha_bdb_cooldown_period,
        ),
    ];
    for (name, now, wanted) in times {
        let Some(seconds) = wanted else { continue };
        if !SLAVE_HA_SECONDS.contains(&seconds) {
            return Err(ApiError::new(
                ErrorCode::InvalidParam,
                format!("{name} is from 0 to {} s", SLAVE_HA_SECONDS.end()),
            ));
        }
        *now = seconds;
    }
    Ok(())
}
