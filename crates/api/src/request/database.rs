//! `POST /v1/bdbs` and `PUT /v1/bdbs/{uid}`.

use super::{engine_version, invalid, persistence};
use crate::failure::Failure;
use model::documents::{Database, Tag};
use model::intent::{DatabaseChange, DatabaseSpec, SlaveHaChange};
use model::rest::{BdbRequest, SHARD_KEY_RULES};
use model::tuning::{DatabaseTuning, TuningChange};
use model::units::format_size;
use model::validate::shown;
use model::{ErrorCode, Secret, limits, validate};
use std::collections::BTreeSet;

/// Most tags of a database.
const TAGS_MAX: usize = 50;
/// Longest key of a tag, bytes.
const TAG_KEY_MAX: usize = 64;
/// Longest value of a tag, bytes.
const TAG_VALUE_MAX: usize = 256;
/// Largest `max_connections`.
const CONNECTIONS_MAX: u32 = 1_000_000;

/// A database to be created.
///
/// # Errors
/// The code of the first rule that is broken.
pub fn creation(request: &BdbRequest, dry_run: bool) -> Result<DatabaseSpec, Failure> {
    kind(request)?;
    let name = request.name.as_deref().unwrap_or_default();
    validate::database_name(name)?;
    let memory_size = request.memory_size.ok_or(ErrorCode::MissingMemorySize)?;
    rules(request)?;
    let shards_count = shards_count(request)?;
    let replication = request.replication.unwrap_or(false);
    enough_memory(memory_size, shards_count.unwrap_or(1), replication)?;
    if request.uid.is_some_and(|uid| uid.0 == 0) {
        return Err(invalid(
            "uid starts at 1: leave it out and the cluster chooses one",
        ));
    }
    let redis_version = request
        .redis_version
        .clone()
        .filter(|text| !text.is_empty());
    redis_version.as_deref().map_or(Ok(()), engine_version)?;
    Ok(DatabaseSpec {
        uid: request.uid,
        name: name.to_owned(),
        port: port(request.port)?,
        memory_size,
        redis_version,
        shards_count,
        replication: request.replication,
        rack_aware: request.rack_aware,
        slave_ha: slave_ha(request),
        persistence: persistence::wanted(request, None)?,
        eviction_policy: request.eviction_policy,
        proxy_policy: request.proxy_policy,
        shards_placement: request.shards_placement,
        password: password(request)?.filter(|password| !password.expose().is_empty()),
        max_connections: request.max_connections,
        tuning: Box::new(tuning(request, &DatabaseTuning::default())?),
        notify_keyspace_events: keyspace_events(request)?,
        tags: request.tags.clone().unwrap_or_default(),
        dry_run,
    })
}

/// A change of a database. Fields that only creation sets may be repeated with the value that they
/// have, so that an object that was read can be sent back.
///
/// # Errors
/// The code of the first rule that is broken.
pub fn change(request: &BdbRequest, current: &Database) -> Result<DatabaseChange, Failure> {
    kind(request)?;
    rules(request)?;
    fixed("uid", request.uid, current.uid)?;
    fixed("port", request.port, current.port)?;
    fixed("shards_count", request.shards_count, current.shards_count)?;
    fixed("sharding", request.sharding, current.shards_count > 1)?;
    if let Some(bytes) = request.memory_size {
        let replication = request.replication.unwrap_or(current.replication);
        enough_memory(bytes, current.shards_count, replication)?;
    }
    fixed(
        "shards_placement",
        request.shards_placement,
        current.shards_placement,
    )?;
    if request
        .redis_version
        .as_deref()
        .is_some_and(|text| !current.engine.matches(text))
    {
        return Err(fixed_at_creation("redis_version"));
    }
    if let Some(name) = &request.name {
        validate::database_name(name)?;
    }
    Ok(DatabaseChange {
        name: request.name.clone(),
        memory_size: request.memory_size,
        replication: request.replication,
        rack_aware: request.rack_aware,
        slave_ha: slave_ha(request),
        persistence: persistence::wanted(request, Some(current.persistence))?,
        eviction_policy: request.eviction_policy,
        proxy_policy: request.proxy_policy,
        password: password(request)?,
        max_connections: request.max_connections,
        tuning: tuning(request, &current.tuning)?,
        notify_keyspace_events: keyspace_events(request)?,
        client: None,
        tags: request.tags.clone(),
    })
}

fn slave_ha(request: &BdbRequest) -> SlaveHaChange {
    SlaveHaChange {
        enabled: request.slave_ha.flatten(),
        as_cluster: request.slave_ha == Some(None),
        priority: request.slave_ha_priority,
    }
}

/// Limits in the proxies. A field may be repeated with the value that it has.
fn tuning(request: &BdbRequest, current: &DatabaseTuning) -> Result<TuningChange, Failure> {
    let client_buffer = request
        .client_buffer
        .as_deref()
        .map(str::parse)
        .transpose()?;
    let change = TuningChange {
        max_client_pipeline: request.max_client_pipeline,
        max_commands_per_second: request.max_commands_per_second,
        max_bytes_per_second: request.max_bytes_per_second,
        client_buffer,
        slowlog_log_slower_than: request.slowlog_log_slower_than,
        slowlog_max_len: request.slowlog_max_len,
    };
    current.changed(&change)?;
    Ok(change)
}

fn keyspace_events(request: &BdbRequest) -> Result<Option<String>, Failure> {
    let flags = request.notify_keyspace_events.as_deref();
    flags
        .map(model::tuning::keyspace_events)
        .transpose()
        .map_err(invalid)
}

/// Rules that hold at creation and at a change.
fn rules(request: &BdbRequest) -> Result<(), Failure> {
    shard_key_rules(request)?;
    if request.oss_cluster == Some(true) {
        return Err(invalid(
            "oss_cluster (the cluster protocol for clients) is not in this release: leave it out",
        ));
    }
    if request
        .max_connections
        .is_some_and(|most| most > CONNECTIONS_MAX)
    {
        return Err(invalid(format!(
            "max_connections is from 0 (no limit) to {CONNECTIONS_MAX}"
        )));
    }
    if request
        .slave_ha_priority
        .is_some_and(|most| most > limits::SLAVE_HA_PRIORITY_MAX)
    {
        return Err(invalid(format!(
            "slave_ha_priority is from 0 to {}",
            limits::SLAVE_HA_PRIORITY_MAX
        )));
    }
    request.tags.as_deref().map_or(Ok(()), tags)
}

fn kind(request: &BdbRequest) -> Result<(), Failure> {
    match request.kind.as_deref() {
        None | Some("redis") => Ok(()),
        Some(other) => Err(invalid(format!(
            "type '{}' is not available: leave it out or use redis",
            shown(other)
        ))),
    }
}

fn port(wanted: Option<u16>) -> Result<Option<u16>, Failure> {
    match wanted {
        None | Some(0) => Ok(None),
        Some(port) if limits::ENDPOINT_PORTS.contains(&port) => Ok(Some(port)),
        Some(port) => Err(Failure::new(
            ErrorCode::PortUnavailable,
            format!(
                "port {port} is outside {}-{}: choose one inside, or leave it out",
                limits::ENDPOINT_PORTS.start(),
                limits::ENDPOINT_PORTS.end()
            ),
        )),
    }
}

/// Memory that is enough for every shard.
fn enough_memory(bytes: u64, shards_count: u32, replication: bool) -> Result<(), Failure> {
    let copies = if replication { 2 } else { 1 };
    let least = limits::SHARD_MEMORY_MIN.saturating_mul(u64::from(shards_count) * copies);
    if bytes >= least {
        return Ok(());
    }
    Err(invalid(format!(
        "memory_size is in bytes, for all shards together, and at least {least} ({}{})",
        format_size(least),
        match u64::from(shards_count) * copies {
            1 => String::new(),
            count => format!(
                ": {count} shards{} of {}",
                if replication { ", replicas too," } else { "" },
                format_size(limits::SHARD_MEMORY_MIN)
            ),
        }
    )))
}

/// `shard_key_regex` as it is always: other rules are refused, since engines and clients would not
/// know of them.
fn shard_key_rules(request: &BdbRequest) -> Result<(), Failure> {
    let Some(rules) = &request.shard_key_regex else {
        return Ok(());
    };
    if rules.is_empty() || rules.iter().map(|r| r.regex.as_str()).eq(SHARD_KEY_RULES) {
        return Ok(());
    }
    Err(Failure::new(
        ErrorCode::InvalidSharding,
        format!(
            "shard_key_regex: only the default rules are available ({}): leave it out",
            SHARD_KEY_RULES.join(" and ")
        ),
    ))
}

/// `sharding` and `shards_count` say the same thing twice and must agree.
fn shards_count(request: &BdbRequest) -> Result<Option<u32>, Failure> {
    let count = request.shards_count;
    if count.is_some_and(|n| !(1..=limits::SHARDS_COUNT_MAX).contains(&n)) {
        return Err(Failure::new(
            ErrorCode::InvalidSharding,
            format!("shards_count is from 1 to {}", limits::SHARDS_COUNT_MAX),
        ));
    }
    let fits = match request.sharding {
        None => true,
        Some(true) => count.is_some_and(|n| n > 1),
        Some(false) => count.is_none_or(|n| n == 1),
    };
    if fits {
        return Ok(count);
    }
    Err(Failure::new(
        ErrorCode::InvalidSharding,
        "sharding and shards_count do not fit: sharding is true exactly when shards_count is 2 or \
         more",
    ))
}

/// The password that a request sets; empty: none is asked.
fn password(request: &BdbRequest) -> Result<Option<Secret>, Failure> {
    let Some(text) = &request.authentication_redis_pass else {
        return Ok(None);
    };
    if !text.is_empty() {
        validate::password(text)?;
    }
    Ok(Some(Secret::new(text.as_str())))
}

fn tags(tags: &[Tag]) -> Result<(), Failure> {
    let word = |text: &str, max: usize| text.len() <= max && !text.chars().any(char::is_control);
    let mut seen = BTreeSet::new();
    for tag in tags {
        if tag.key.is_empty() || !word(&tag.key, TAG_KEY_MAX) || !word(&tag.value, TAG_VALUE_MAX) {
            return Err(invalid(format!(
                "tag '{}': a key has 1 to {TAG_KEY_MAX} bytes, a value at most {TAG_VALUE_MAX}, \
                 neither has control characters",
                shown(&tag.key)
            )));
        }
        if !seen.insert(&tag.key) {
            return Err(invalid(format!("tag '{}' stands twice", shown(&tag.key))));
        }
    }
    if tags.len() > TAGS_MAX {
        return Err(invalid(format!("a database has at most {TAGS_MAX} tags")));
    }
    Ok(())
}

fn fixed<T: PartialEq>(field: &str, wanted: Option<T>, current: T) -> Result<(), Failure> {
    match wanted {
        Some(value) if value != current => Err(fixed_at_creation(field)),
        _ => Ok(()),
    }
}

fn fixed_at_creation(field: &str) -> Failure {
    invalid(format!(
        "{field} is fixed when the database is created, and cannot be changed in this release: leave \
         it out"
    ))
}
