//! `POST /v1/bdbs` and `PUT /v1/bdbs/{uid}`.

use super::{engine_version, invalid, persistence};
use crate::failure::Failure;
use model::documents::{Database, Tag};
use model::intent::{DatabaseChange, DatabaseSpec};
use model::rest::BdbRequest;
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
        shards_count: shards_count(request)?,
        replication: request.replication,
        persistence: persistence::wanted(request, None)?,
        eviction_policy: request.eviction_policy,
        proxy_policy: request.proxy_policy,
        shards_placement: request.shards_placement,
        password: password(request)?.filter(|password| !password.expose().is_empty()),
        max_connections: request.max_connections,
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
    fixed("replication", request.replication, current.replication)?;
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
        persistence: persistence::wanted(request, Some(current.persistence))?,
        eviction_policy: request.eviction_policy,
        proxy_policy: request.proxy_policy,
        password: password(request)?,
        max_connections: request.max_connections,
        tags: request.tags.clone(),
    })
}

/// Rules that hold at creation and at a change.
fn rules(request: &BdbRequest) -> Result<(), Failure> {
    if request
        .memory_size
        .is_some_and(|bytes| bytes < limits::DATABASE_MEMORY_MIN)
    {
        return Err(invalid(format!(
            "memory_size is in bytes and at least {} ({})",
            limits::DATABASE_MEMORY_MIN,
            format_size(limits::DATABASE_MEMORY_MIN)
        )));
    }
    if request
        .max_connections
        .is_some_and(|most| most > CONNECTIONS_MAX)
    {
        return Err(invalid(format!(
            "max_connections is from 0 (no limit) to {CONNECTIONS_MAX}"
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

/// `sharding` and `shards_count` say the same thing twice and must agree.
fn shards_count(request: &BdbRequest) -> Result<Option<u32>, Failure> {
    let count = request.shards_count;
    let fits = match request.sharding {
        None => count != Some(0),
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
        "{field} is fixed when the database is created: leave it out"
    ))
}
