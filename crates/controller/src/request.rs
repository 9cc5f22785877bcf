//! An operator's intent becomes one transaction. Pure: what is refused changes nothing.

use crate::busy;
use crate::maintenance::{request as maintenance, snapshot};
use crate::migration::request as migration;
use crate::observed::Observations;
use crate::operation::plan::without_database;
use crate::operation::request::{self as operations, operation};
use crate::placement::plan::{self as placement, Places};
use crate::placement::racks;
use crate::replica_set;
use crate::replication::request as replication;
use crate::slave_ha::request::of_database as slave_ha;
use crate::state::{Change, ClusterState, Stored};
use crate::switchover::request as switchover;
use crate::tuning;
use crate::upgrade::request as upgrade;
use crate::upgrade::run::request as run;
use jiff::Timestamp;
use model::documents::{
    Database, DatabaseStatus, EngineUsers, EvictionPolicy, OperationKind, Persistence, Role,
    Severity, Shard, SlaveHa, SlotRange, keys,
};
use model::intent::{ClusterChange, DatabaseChange, DatabaseSpec, Intent, IntentOutcome};
use model::limits::{DATABASES_MAX, SHARDS_COUNT_MAX};
use model::sharding::{memory_shares, slot_ranges};
use model::{
    ApiError, DatabaseUid, Epoch, ErrorCode, Generation, NodeUid, OperationUid, Secret, ShardUid,
    validate,
};
use std::collections::BTreeSet;
use std::time::Instant;
use store::Txn;

/// What a planner may not make up itself.
#[derive(Debug)]
pub struct Fresh<'a> {
    /// Wall-clock time.
    pub now: Timestamp,
    /// Monotonic time.
    pub instant: Instant,
    /// A new operation's name.
    pub operation: OperationUid,
    /// Nodes that vote on the configuration.
    pub voters: BTreeSet<NodeUid>,
    /// Passwords for engine users, newly drawn each time.
    pub users: &'a dyn Users,
}

/// Draws passwords.
pub trait Users: std::fmt::Debug + Sync {
    /// New passwords for one engine.
    fn draw(&self) -> EngineUsers;
}

/// Passwords from the system's random numbers.
#[derive(Clone, Copy, Debug)]
pub struct RandomUsers;

impl Users for RandomUsers {
    fn draw(&self) -> EngineUsers {
        use rand::Rng;
        use rand::distr::Alphanumeric;
        let one = || {
            let mut rng = rand::rng();
            Secret::new(
                (0..40)
                    .map(|_| char::from(rng.sample(Alphanumeric)))
                    .collect::<String>(),
            )
        };
        EngineUsers {
            cnm: one(),
            repl: one(),
            proxy: one(),
        }
    }
}

/// Turns an intent into a transaction. An empty transaction means that nothing has to change.
///
/// # Errors
/// Why it is refused.
pub fn plan(
    state: &ClusterState,
    observed: &Observations,
    intent: &Intent,
    fresh: &Fresh<'_>,
) -> Result<(Txn, IntentOutcome), ApiError> {
    match intent {
        Intent::CreateDatabase(spec) => create_database(state, observed, spec, fresh),
        Intent::UpdateDatabase { database, change } => {
            update_database(state, observed, find(state, *database)?, change, fresh)
        }
        Intent::DeleteDatabase { database } => {
            delete_database(state, find(state, *database)?, fresh)
        }
        Intent::MaintenanceOn { node, wish, pace } => {
            maintenance::switch_on((state, observed), (*node, wish, *pace), fresh)
        }
        Intent::MaintenanceOff {
            node,
            restore,
            pace,
        } => maintenance::switch_off(state, (*node, restore, *pace), fresh),
        Intent::RemoveNode { node, pace } => {
            maintenance::remove((state, observed), (*node, *pace), fresh)
        }
        Intent::EnslaveNode {
            node,
            pass_over_busy,
            pace,
            ..
        } => maintenance::enslave((state, observed), (*node, *pass_over_busy, *pace), fresh),
        Intent::NodeSnapshot {
            node,
            name,
            what,
            pace,
        } => snapshot::handle(state, (*node, name, *what, *pace), fresh),
        Intent::RetryOperation { operation } => operations::retry(state, operation, fresh),
        Intent::AbortOperation { operation } => {
            operations::abort((state, observed), operation, fresh)
        }
        Intent::MigrateShards {
            what,
            node,
            override_policy,
        } => migration::migrate((state, observed), (what, *node, *override_policy), fresh),
        Intent::FailoverShards {
            database,
            shards,
            immediate,
        } => switchover::failover_shards(state, observed, (*database, shards, *immediate), fresh),
        Intent::UpdateCluster(change) => update_cluster(state, observed, change, fresh),
        Intent::UpdateProxy { node, change } => {
            tuning::update_proxies(state, *node, change, fresh.now)
        }
        Intent::UpdateNode { node, rack_id } => racks::set(state, (*node, rack_id), fresh),
        Intent::NodeRelease {
            node,
            phase,
            release,
        } => upgrade::node_release((state, observed), *node, (*phase, release), fresh),
        Intent::UpdateUpgrade {
            hold_finalize,
            soak_seconds,
        } => upgrade::update(state, (*hold_finalize, *soak_seconds), fresh),
        Intent::FinalizeUpgrade => upgrade::finalize((state, observed), fresh),
        Intent::StartUpgradeRun(start) => run::start(state, start, fresh),
        Intent::PauseUpgradeRun => run::pause(state, fresh),
        Intent::ResumeUpgradeRun => run::resume(state, fresh),
        Intent::RollBackUpgradeRun => run::roll_back(state, fresh),
        Intent::ChangePrimaryNode { .. } => Err(ApiError::new(
            ErrorCode::InternalError,
            "changing the primary node is not a transaction".to_owned(),
        )),
    }
}

/// Whether an intent that was carried out has to be asked for again, since one transaction does not hold all
/// of it.
#[must_use]
pub fn has_more(intent: &Intent, outcome: &IntentOutcome) -> bool {
    matches!(intent, Intent::AbortOperation { .. })
        && outcome.operations.len() >= operations::ABORTED_AT_ONCE
}

/// A database.
///
/// # Errors
/// `db_not_found`.
pub(crate) fn find(state: &ClusterState, uid: DatabaseUid) -> Result<&Stored<Database>, ApiError> {
    state.database(uid).ok_or_else(|| {
        ApiError::new(
            ErrorCode::DbNotFound,
            format!(
                "there is no database db:{uid}: {}",
                ErrorCode::DbNotFound.remedy()
            ),
        )
    })
}

fn free_name(state: &ClusterState, name: &str, me: Option<DatabaseUid>) -> Result<(), ApiError> {
    validate::database_name(name)?;
    match state
        .databases
        .iter()
        .find(|d| d.name == name && Some(d.uid) != me)
    {
        None => Ok(()),
        Some(other) => Err(ApiError::new(
            ErrorCode::NameAlreadyExists,
            format!(
                "a database named '{name}' exists already (db:{}): choose another",
                other.uid
            ),
        )),
    }
}

fn one_more_database(state: &ClusterState) -> Result<(), ApiError> {
    if state.databases.len() < DATABASES_MAX {
        return Ok(());
    }
    Err(ApiError::new(
        ErrorCode::InsufficientResources,
        format!(
            "the cluster has {DATABASES_MAX} databases, the most that it can have: delete one first"
        ),
    ))
}

fn shards_count(spec: &DatabaseSpec) -> Result<u32, ApiError> {
    match spec.shards_count.unwrap_or(1) {
        count @ 1..=SHARDS_COUNT_MAX => Ok(count),
        other => Err(ApiError::new(
            ErrorCode::InvalidSharding,
            format!("shards_count {other} cannot be: from 1 to {SHARDS_COUNT_MAX}"),
        )),
    }
}

fn persistence(value: Persistence) -> Result<Persistence, ApiError> {
    match value {
        Persistence::Snapshot { seconds, writes } if seconds == 0 || writes == 0 => {
            Err(ApiError::new(
                ErrorCode::InvalidDataPersistence,
                "a snapshot policy needs secs and writes of at least 1".to_owned(),
            ))
        }
        other => Ok(other),
    }
}

fn new_uid(
    state: &ClusterState,
    change: &mut Change,
    wish: Option<DatabaseUid>,
) -> Result<DatabaseUid, ApiError> {
    let next = state.cluster.next_database;
    let uid = match wish {
        None => next,
        Some(uid) if uid >= next && uid.0 <= 1_000_000 => uid,
        Some(uid) if uid < next => {
            return Err(ApiError::new(
                ErrorCode::UidExists,
                format!("uid {uid} is or was in use: leave it out, or take {next} or more"),
            ));
        }
        Some(uid) => {
            return Err(ApiError::new(
                ErrorCode::InvalidParam,
                format!("uid {uid} is too large: at most 1000000"),
            ));
        }
    };
    change.cluster().next_database = uid.next();
    Ok(uid)
}

fn create_database(
    state: &ClusterState,
    observed: &Observations,
    spec: &DatabaseSpec,
    fresh: &Fresh<'_>,
) -> Result<(Txn, IntentOutcome), ApiError> {
    free_name(state, &spec.name, None)?;
    let count = shards_count(spec)?;
    let settings = &state.cluster.settings;
    let replication = spec.replication.unwrap_or(false);
    let rack_aware = racks::wanted(state, spec.rack_aware)?;
    let shares = placement::shares(spec.memory_size, count, replication)?;
    let usual = settings.default_redis_version.as_deref();
    let wish = spec.redis_version.as_deref().or(usual);
    let engine = placement::engine(state, observed, wish, fresh.instant)?;
    let (tuning, notify_keyspace_events) = tuning::of_new(spec, &engine)?;
    let slave_ha = slave_ha(&SlaveHa::default(), spec.slave_ha)?;
    let persistence = persistence(spec.persistence.unwrap_or(Persistence::Disabled))?;
    let password = usable(spec.password.as_ref())?;
    let port = placement::endpoint_port(state, spec.port)?;
    let mut change = Change::of(state, fresh.now);
    let uid = new_uid(state, &mut change, spec.uid)?;
    one_more_database(state)?;
    let usual = settings.default_shards_placement;
    let shards_placement = spec.shards_placement.unwrap_or(usual);
    let places = placement::nodes_for_shards(
        state,
        observed,
        &engine,
        &shares,
        (shards_placement, replication, rack_aware),
        fresh.instant,
    )?;
    let database = Database {
        schema: 1,
        uid,
        name: spec.name.clone(),
        port,
        memory_size: spec.memory_size,
        status: DatabaseStatus::Pending,
        engine,
        shards_count: count,
        replication,
        rack_aware,
        slave_ha,
        persistence,
        eviction_policy: spec.eviction_policy.unwrap_or(EvictionPolicy::VolatileLru),
        proxy_policy: spec.proxy_policy.unwrap_or(match count {
            1 => settings.default_non_sharded_proxy_policy,
            _ => settings.default_sharded_proxy_policy,
        }),
        shards_placement,
        password,
        max_connections: spec.max_connections.unwrap_or(0),
        tuning,
        notify_keyspace_events,
        tags: spec.tags.clone(),
        // No proxy has ever served it without.
        leased: replication,
        operation: Some(fresh.operation.clone()),
        created: fresh.now,
        changed: fresh.now,
        extra: serde_json::Map::new(),
    };
    change.create(keys::database(uid), &database);
    for shard in first_shards(state, &database, &places, fresh)? {
        change.cluster().next_shard = shard.uid.next();
        change.create(keys::shard(shard.uid), &shard);
    }
    let operation = operation(OperationKind::CreateDatabase, uid, fresh);
    change.create(keys::operation(&fresh.operation), &operation);
    let outcome = IntentOutcome {
        database: Some(uid),
        operation: Some(fresh.operation.clone()),
        ..IntentOutcome::default()
    };
    Ok((change.into_txn(), outcome))
}

/// The shards of a new database, primaries first, by slots: each primary begins a replica set of its own,
/// on its first process and in its first epoch.
fn first_shards(
    state: &ClusterState,
    database: &Database,
    places: &Places,
    fresh: &Fresh<'_>,
) -> Result<Vec<Shard>, ApiError> {
    let copies = places.primaries.len() + places.replicas.len();
    let count = database.shards_count;
    let slots = slot_ranges(count);
    let shares = shares(database);
    let users: Vec<EngineUsers> = slots.iter().map(|_| fresh.users.draw()).collect();
    let of_slots = slots.into_iter().zip(shares).zip(users);
    let roles = [Role::Primary, Role::Replica];
    let nodes = [&places.primaries, &places.replicas];
    let wanted = roles.into_iter().zip(nodes).flat_map(|(role, nodes)| {
        let of_slots = of_slots.clone();
        nodes
            .iter()
            .zip(of_slots)
            .map(move |(node, of)| (role, *node, of))
    });
    let ports = placement::shard_ports(state, copies)?;
    let uids = (state.cluster.next_shard.0..).map(ShardUid);
    Ok(uids
        .zip(ports)
        .zip(wanted)
        .map(
            |((uid, port), (role, node, ((slots, memory_bytes), users)))| {
                let users = match role {
                    Role::Primary => users,
                    Role::Replica => own_agent(users, fresh),
                };
                Shard {
                    node,
                    port,
                    role,
                    slots,
                    memory_bytes,
                    ..new_shard(uid, database, users)
                }
            },
        )
        .collect())
}

/// A shard in its first epoch, on its first process; the rest is the caller's.
pub(crate) fn new_shard(uid: ShardUid, database: &Database, users: EngineUsers) -> Shard {
    Shard {
        schema: 1,
        uid,
        database: database.uid,
        node: NodeUid(0),
        port: 0,
        role: Role::Primary,
        slots: SlotRange { first: 0, last: 0 },
        epoch: Epoch(1),
        generation: Generation(1),
        engine: database.engine.clone(),
        memory_bytes: 0,
        run_id: None,
        serving: None,
        synced: None,
        role_since: None,
        lost_since: None,
        lost_before: false,
        failovers: Vec::new(),
        trouble: None,
        stalled: None,
        ended: Vec::new(),
        set_aside: None,
        moving: None,
        fence: None,
        removed_by: None,
        lost: None,
        users,
        extra: serde_json::Map::new(),
    }
}

/// The users of a replica set in another of its engines: only the agent's is of that engine alone.
pub(crate) fn own_agent(users: EngineUsers, fresh: &Fresh<'_>) -> EngineUsers {
    EngineUsers {
        cnm: fresh.users.draw().cnm,
        ..users
    }
}

/// The memory limit of each of a database's shards, by slots, bytes.
pub(crate) fn shares(database: &Database) -> Vec<u64> {
    let copies = if database.replication { 2 } else { 1 };
    memory_shares(database.memory_size / copies, database.shards_count)
}

/// The shards of a database as they are with another memory limit of the database.
fn resized(state: &ClusterState, database: &Database) -> Vec<(Stored<Shard>, u64)> {
    replica_set::of_database(state, database)
        .into_iter()
        .zip(shares(database))
        .flat_map(|(set, share)| {
            let members: Vec<_> = set.members().map(|shard| (shard.clone(), share)).collect();
            members
        })
        .collect()
}

/// A password that may be set; an empty one is none.
fn usable(password: Option<&Secret>) -> Result<Option<Secret>, ApiError> {
    let given = password.filter(|password| !password.expose().is_empty());
    if let Some(password) = given {
        validate::password(password.expose())?;
    }
    Ok(given.cloned())
}

/// A database with a change applied.
fn changed(
    state: &ClusterState,
    stored: &Stored<Database>,
    wanted: &DatabaseChange,
) -> Result<Database, ApiError> {
    let mut database = stored.doc.clone();
    if let Some(name) = &wanted.name {
        free_name(state, name, Some(database.uid))?;
        database.name.clone_from(name);
    }
    database.replication = wanted.replication.unwrap_or(database.replication);
    database.rack_aware = wanted.rack_aware.unwrap_or(database.rack_aware);
    database.slave_ha = slave_ha(&stored.slave_ha, wanted.slave_ha)?;
    if database.rack_aware && !stored.rack_aware {
        racks::may_be_aware(state, true)?;
    }
    database.memory_size = wanted.memory_size.unwrap_or(database.memory_size);
    if (database.memory_size, database.replication) != (stored.memory_size, stored.replication) {
        placement::shares(
            database.memory_size,
            database.shards_count,
            database.replication,
        )?;
    }
    if let Some(value) = wanted.persistence {
        database.persistence = persistence(value)?;
    }
    if let Some(password) = &wanted.password {
        database.password = usable(Some(password))?;
    }
    database.eviction_policy = wanted.eviction_policy.unwrap_or(database.eviction_policy);
    database.proxy_policy = wanted.proxy_policy.unwrap_or(database.proxy_policy);
    database.max_connections = wanted.max_connections.unwrap_or(database.max_connections);
    if let Some(tags) = &wanted.tags {
        database.tags.clone_from(tags);
    }
    tuning::apply(
        &mut database,
        &wanted.tuning,
        wanted.notify_keyspace_events.as_deref(),
    )?;
    Ok(database)
}

fn update_database(
    state: &ClusterState,
    observed: &Observations,
    stored: &Stored<Database>,
    wanted: &DatabaseChange,
    fresh: &Fresh<'_>,
) -> Result<(Txn, IntentOutcome), ApiError> {
    let mut database = changed(state, stored, wanted)?;
    let outcome = |operation| IntentOutcome {
        database: Some(stored.uid),
        operation,
        ..IntentOutcome::default()
    };
    if database == stored.doc {
        return Ok((Txn::default(), outcome(None)));
    }
    busy::free(state, stored)?;
    if database.rack_aware && !stored.rack_aware {
        racks::apart(state, &database)?;
    }
    let switched = database.replication != stored.replication;
    if !switched {
        replication::may_shrink((state, observed), &database, fresh)?;
    }
    let mut shards = resized(state, &database);
    if switched && !database.replication {
        shards.retain(|(shard, _)| shard.role == Role::Primary);
    }
    let grown: Vec<_> = shards
        .iter()
        .filter(|(shard, bytes)| *bytes > shard.memory_bytes)
        .map(|(shard, bytes)| (shard.node, shard.memory_bytes, *bytes))
        .collect();
    placement::room_to_grow(state, &grown)?;
    let engine_changes = switched
        || database.memory_size != stored.memory_size
        || database.persistence != stored.persistence
        || database.eviction_policy != stored.eviction_policy
        || database.notify_keyspace_events != stored.notify_keyspace_events;
    database.status = DatabaseStatus::ActiveChangePending;
    database.operation = Some(fresh.operation.clone());
    database.changed = fresh.now;
    let mut change = Change::of(state, fresh.now);
    change.replace(keys::database(stored.uid), stored.revision, &database);
    tuning::audit(&mut change, stored, &database, wanted.client.as_ref());
    if engine_changes {
        for (shard, bytes) in &shards {
            let mut doc = shard.doc.clone();
            doc.generation = doc.generation.next();
            doc.memory_bytes = *bytes;
            change.replace(keys::shard(shard.uid), shard.revision, &doc);
        }
    }
    if switched {
        let sets = replica_set::of_database(state, stored);
        if database.replication {
            replication::switch_on((state, observed), &database, &sets, fresh, &mut change)?;
        } else {
            replication::switch_off((state, observed), &sets, fresh, &mut change)?;
        }
    }
    let operation = operation(OperationKind::UpdateDatabase, stored.uid, fresh);
    change.create(keys::operation(&fresh.operation), &operation);
    Ok((change.into_txn(), outcome(Some(fresh.operation.clone()))))
}

fn delete_database(
    state: &ClusterState,
    stored: &Stored<Database>,
    fresh: &Fresh<'_>,
) -> Result<(Txn, IntentOutcome), ApiError> {
    if stored.status == DatabaseStatus::DeletePending {
        // Asked twice: the first one goes on.
        let outcome = IntentOutcome {
            database: Some(stored.uid),
            operation: stored.operation.clone(),
            ..IntentOutcome::default()
        };
        return Ok((Txn::default(), outcome));
    }
    let mut change = Change::of(state, fresh.now);
    let mut database = stored.doc.clone();
    // A creation or change that waits is overtaken: its operation ends here.
    let overtaken = stored.operation.as_ref();
    if let Some(old) = state.operations.iter().find(|o| Some(&o.uid) == overtaken) {
        without_database(&mut change, old, fresh.now);
    }
    database.status = DatabaseStatus::DeletePending;
    database.operation = Some(fresh.operation.clone());
    database.changed = fresh.now;
    change.replace(keys::database(stored.uid), stored.revision, &database);
    let operation = operation(OperationKind::DeleteDatabase, stored.uid, fresh);
    change.create(keys::operation(&fresh.operation), &operation);
    let outcome = IntentOutcome {
        database: Some(stored.uid),
        operation: Some(fresh.operation.clone()),
        ..IntentOutcome::default()
    };
    Ok((change.into_txn(), outcome))
}

fn update_cluster(
    state: &ClusterState,
    observed: &Observations,
    wanted: &ClusterChange,
    fresh: &Fresh<'_>,
) -> Result<(Txn, IntentOutcome), ApiError> {
    let mut settings = state.cluster.settings.clone();
    if let Some(policy) = wanted.default_non_sharded_proxy_policy {
        settings.default_non_sharded_proxy_policy = policy;
    }
    if let Some(policy) = wanted.default_sharded_proxy_policy {
        settings.default_sharded_proxy_policy = policy;
    }
    if let Some(placement) = wanted.default_shards_placement {
        settings.default_shards_placement = placement;
    }
    if let Some(version) = &wanted.default_redis_version {
        settings.default_redis_version = Some(version.clone()).filter(|v| !v.is_empty());
        placement::engine(
            state,
            observed,
            settings.default_redis_version.as_deref(),
            fresh.instant,
        )?;
    }
    if let Some(minutes) = wanted.cm_session_timeout_minutes {
        if minutes > 7 * 24 * 60 {
            return Err(ApiError::new(
                ErrorCode::InvalidParam,
                "cm_session_timeout_minutes is at most 10080 (a week)".to_owned(),
            ));
        }
        settings.cm_session_timeout_minutes = minutes;
    }
    if let Some(rack_aware) = wanted.rack_aware {
        racks::switch(state, rack_aware)?;
        settings.rack_aware = rack_aware;
    }
    if let Some(sensitivity) = wanted.failure_detection_sensitivity {
        settings.failure_detection_sensitivity = sensitivity;
    }
    crate::slave_ha::request::switch(&mut settings, wanted)?;
    let mut change = Change::of(state, fresh.now);
    if settings != state.cluster.settings {
        change.cluster().settings = settings;
        change.event(
            Severity::Info,
            "cluster_updated",
            &[("fields", serde_json::to_value(wanted).unwrap_or_default())],
        );
    }
    Ok((change.into_txn(), IntentOutcome::default()))
}
