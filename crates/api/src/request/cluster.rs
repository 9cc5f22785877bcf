//! `PUT /v1/cluster` and `PUT /v1/cluster/policy`.

use super::{engine_version, invalid};
use crate::failure::Failure;
use model::intent::ClusterChange;
use model::limits::SLAVE_HA_SECONDS;
use model::rest::ClusterUpdate;

/// Longest idle time of the console, minutes: a day.
const SESSION_MINUTES_MAX: u32 = 24 * 60;

/// A change of the cluster's settings; `None`: nothing is asked for.
///
/// # Errors
/// `invalid_param`, `invalid_version`.
pub fn change(request: &ClusterUpdate) -> Result<Option<ClusterChange>, Failure> {
    if request
        .cm_session_timeout_minutes
        .is_some_and(|minutes| minutes > SESSION_MINUTES_MAX)
    {
        return Err(invalid(format!(
            "cm_session_timeout_minutes is from 0 (never) to {SESSION_MINUTES_MAX}"
        )));
    }
    if let Some(version) = request.default_provisioned_redis_version.as_deref()
        && !version.is_empty()
    {
        engine_version(version)?;
    }
    if *request == ClusterUpdate::default() {
        return Ok(None);
    }
    let times = [
        ("slave_ha_grace_period", request.slave_ha_grace_period),
        ("slave_ha_cooldown_period", request.slave_ha_cooldown_period),
        (
            "slave_ha_bdb_cooldown_period",
            request.slave_ha_bdb_cooldown_period,
        ),
    ];
    for (name, seconds) in times {
        if seconds.is_some_and(|seconds| !SLAVE_HA_SECONDS.contains(&seconds)) {
            return Err(invalid(format!(
                "{name} is from 0 to {} s",
                SLAVE_HA_SECONDS.end()
            )));
        }
    }
    Ok(Some(ClusterChange {
        default_non_sharded_proxy_policy: request.default_non_sharded_proxy_policy,
        default_sharded_proxy_policy: request.default_sharded_proxy_policy,
        default_shards_placement: request.default_shards_placement,
        default_redis_version: request.default_provisioned_redis_version.clone(),
        cm_session_timeout_minutes: request.cm_session_timeout_minutes,
        rack_aware: request.rack_aware,
        failure_detection_sensitivity: request.failure_detection_sensitivity,
        slave_ha: request.slave_ha,
        slave_ha_grace_period: request.slave_ha_grace_period,
        slave_ha_cooldown_period: request.slave_ha_cooldown_period,
        slave_ha_bdb_cooldown_period: request.slave_ha_bdb_cooldown_period,
    }))
}
