//! `create db`, `tune db`, `delete db`.

use super::failure::Failure;
use super::operation::{LOOK_EVERY, follow, is_passing, started};
use super::parse::Invocation;
use super::password::password;
use super::resources::{self, with_port};
use super::session::Context;
use model::documents::DatabaseStatus;
use model::rest::{Bdb, BdbRequest, SnapshotPolicy};
use model::{ApiError, DatabaseUid, ErrorCode, limits};
use serde_json::Value;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

/// How long an address may take to answer PING.
const PING_WAIT: Duration = Duration::from_secs(1);
/// The operator's words for persistence.
pub(super) const PERSISTENCE: &[&str] = &[
    "disabled",
    "aof",
    "aof-every-write",
    "snapshot",
    "snapshot-6h",
    "snapshot-12h",
];
/// The rule of a snapshot each so many hours, if anything changed.
const fn each(hours: u32) -> SnapshotPolicy {
    SnapshotPolicy {
        secs: hours * 3600,
        writes: 1,
    }
}

/// `create db`.
///
/// # Errors
/// As REST answers; why the creation failed; that the database does not serve in time.
pub async fn create(context: &Context, invocation: &Invocation) -> Result<(), Failure> {
    let mut request = settings(context, invocation)?;
    let shards: Option<u32> = invocation.number("shards_count");
    request.uid = invocation.number("uid");
    request.name = invocation.operand.clone();
    request.kind = Some("redis".to_owned());
    request.port = invocation.number("port");
    request.redis_version = invocation.owned("redis_version");
    request.shards_count = shards;
    request.sharding = shards.map(|count| count > 1);
    request.replication = invocation.text("replication").map(|word| word == "enabled");
    request.rack_aware = invocation.text("rack_aware").map(|word| word == "enabled");
    request.shards_placement = invocation.choice("shards_placement");
    let answer: Value = context.rest.post("/v1/bdbs", &request).await?;
    let uid = answer
        .get("uid")
        .and_then(Value::as_u64)
        .map(DatabaseUid)
        .ok_or_else(|| {
            Failure::Other(format!(
                "the cluster did not say which database it creates: {answer}"
            ))
        })?;
    if let Some(operation) = started(&answer) {
        follow(context, &operation).await?;
    }
    let (database, address) = wait_until_served(context, uid).await?;
    if context.screen.json {
        return context.screen.object(&database);
    }
    context
        .screen
        .line(format!("Database db:{uid} [{}]", database.name));
    if let Some(endpoint) = database.endpoints.first() {
        context.screen.line(format!(
            "Endpoint: {}",
            with_port(&endpoint.dns_name, endpoint.port)
        ));
    }
    context.screen.line(format!("Address:  {address}"));
    Ok(())
}

/// `tune db`.
///
/// # Errors
/// As REST answers; why the change failed.
pub async fn tune(context: &Context, invocation: &Invocation) -> Result<(), Failure> {
    if invocation.has("password") && invocation.has("no_password") {
        return Err(Failure::usage(
            "'password' and 'no_password' do not go together",
            invocation.command.usage(),
        ));
    }
    let database = named(context, invocation).await?;
    let mut request = settings(context, invocation)?;
    request.replication = invocation.text("replication").map(|word| word == "enabled");
    request.rack_aware = invocation.text("rack_aware").map(|word| word == "enabled");
    request.slave_ha = invocation.text("slave_ha").map(|word| match word {
        "default" => None,
        word => Some(word == "enabled"),
    });
    request.slave_ha_priority = invocation.number("slave_ha_priority");
    if invocation.has("no_password") {
        request.authentication_redis_pass = Some(String::new());
    }
    let answer: Value = context
        .rest
        .put(&format!("/v1/bdbs/{}", database.uid), &request)
        .await?;
    if let Some(operation) = started(&answer) {
        follow(context, &operation).await?;
    }
    if context.screen.json {
        let now: Bdb = context
            .rest
            .get(&format!("/v1/bdbs/{}", database.uid))
            .await?;
        return context.screen.object(&without_password(now));
    }
    context.screen.line("Finished successfully");
    Ok(())
}

/// `delete db`.
///
/// # Errors
/// That it was not confirmed; as REST answers; why the deletion failed.
pub async fn delete(context: &Context, invocation: &Invocation) -> Result<(), Failure> {
    let database = named(context, invocation).await?;
    let question = format!(
        "Database db:{} [{}] and all of its data ({}) will be deleted.",
        database.uid,
        database.name,
        model::units::format_size(database.used_memory)
    );
    if !context.screen.confirm(&question)? {
        return Err(Failure::Other(
            "not confirmed: nothing was deleted".to_owned(),
        ));
    }
    let path = format!("/v1/bdbs/{}", database.uid);
    let answer: Value = context.rest.delete(&path).await?;
    match started(&answer) {
        Some(operation) => follow(context, &operation).await?,
        None => context.screen.progress("Done"),
    }
    wait_until_gone(context, &path).await?;
    if context.screen.json {
        return context.screen.object(&answer);
    }
    Ok(())
}

/// The settings that `create db` and `tune db` share.
fn settings(context: &Context, invocation: &Invocation) -> Result<BdbRequest, Failure> {
    let mut request = BdbRequest {
        memory_size: invocation.size("memory_size"),
        eviction_policy: invocation.choice("eviction_policy"),
        proxy_policy: invocation.choice("proxy_policy"),
        max_connections: invocation.number("max_connections"),
        max_client_pipeline: invocation.number("max_client_pipeline"),
        max_commands_per_second: invocation.number("max_commands_per_second"),
        max_bytes_per_second: invocation.size("max_bytes_per_second"),
        client_buffer: invocation.owned("client_buffer"),
        slowlog_log_slower_than: invocation.number("slowlog_log_slower_than"),
        slowlog_max_len: invocation.number("slowlog_max_len"),
        notify_keyspace_events: invocation.text("notify_keyspace_events").map(flags),
        ..BdbRequest::default()
    };
    if invocation.has("password") {
        let secret = password(&context.screen, invocation.text("password"), "Password")?;
        request.authentication_redis_pass = Some(secret.expose().to_owned());
    }
    let (persistence, sync, hours) = match invocation.text("persistence") {
        Some("aof") => ("aof", Some("appendfsync-every-sec"), None),
        Some("aof-every-write") => ("aof", Some("appendfsync-always"), None),
        Some("snapshot") => ("snapshot", None, Some(1)),
        Some("snapshot-6h") => ("snapshot", None, Some(6)),
        Some("snapshot-12h") => ("snapshot", None, Some(12)),
        Some(other) => (other, None, None),
        None => return Ok(request),
    };
    request.data_persistence = Some(persistence.to_owned());
    request.aof_policy = sync.map(str::to_owned);
    request.snapshot_policy = hours.map(|hours| vec![each(hours)]);
    Ok(request)
}

/// Keyspace events as they are stored: an operator cannot well write nothing.
fn flags(word: &str) -> String {
    let empty = word == "none";
    if empty {
        String::new()
    } else {
        word.to_owned()
    }
}

async fn named(context: &Context, invocation: &Invocation) -> Result<Bdb, Failure> {
    let wanted = invocation
        .operand_database()
        .ok_or_else(|| Failure::usage("which database?", invocation.command.usage()))?;
    resources::database(context, &wanted).await
}

/// A database as it may stand in output that is passed on.
#[must_use]
pub fn without_password(mut database: Bdb) -> Bdb {
    if !database.authentication_redis_pass.is_empty() {
        "***".clone_into(&mut database.authentication_redis_pass);
    }
    database
}

/// Waits until the database is active and an address of it answers.
async fn wait_until_served(context: &Context, uid: DatabaseUid) -> Result<(Bdb, String), Failure> {
    let until = Instant::now() + limits::READY_WAIT;
    let path = format!("/v1/bdbs/{uid}");
    loop {
        let why = match context.rest.get::<Bdb>(&path).await {
            Ok(database) => match database.status {
                Some(DatabaseStatus::CreationFailed) => {
                    return Err(Failure::Other(format!(
                        "the creation of db:{uid} was given up; remove it with `rladmin delete db \
                         db:{uid}`"
                    )));
                }
                Some(DatabaseStatus::Active | DatabaseStatus::ActiveChangePending) => {
                    match answering(context, &database).await {
                        Some(address) => return Ok((without_password(database), address)),
                        None => unreached(&database),
                    }
                }
                _ => format!("it waits for {}", database.exec_state),
            },
            Err(error) if is_passing(&error) => error.description,
            Err(error) => return Err(error.into()),
        };
        if Instant::now() > until {
            return Err(Failure::Other(format!(
                "db:{uid} does not serve after {} s: {why}. See `rladmin status extra all`",
                limits::READY_WAIT.as_secs()
            )));
        }
        sleep(LOOK_EVERY).await;
    }
}

fn unreached(database: &Bdb) -> String {
    let errors: Vec<String> = database
        .endpoints
        .iter()
        .flat_map(|endpoint| &endpoint.proxies)
        .filter_map(|proxy| {
            Some(format!(
                "node:{}: {}",
                proxy.node_uid,
                proxy.error.as_ref()?
            ))
        })
        .collect();
    if errors.is_empty() {
        "no address of its endpoint answers PING".to_owned()
    } else {
        errors.join("; ")
    }
}

/// The first address of the database's endpoint that answers, this node's before others.
async fn answering(context: &Context, database: &Bdb) -> Option<String> {
    let local = context.installation.config.address.to_string();
    for endpoint in &database.endpoints {
        let mut addresses: Vec<&String> = endpoint.addr.iter().collect();
        addresses.sort_by_key(|address| **address != local);
        for address in addresses {
            let target = with_port(address, endpoint.port);
            if let Ok(Ok(true)) = timeout(PING_WAIT, ping(&target)).await {
                return Some(target);
            }
        }
    }
    None
}

/// Whether PING is answered, be it by a request for a password.
async fn ping(target: &str) -> std::io::Result<bool> {
    let mut stream = TcpStream::connect(target).await?;
    stream.write_all(b"*1\r\n$4\r\nPING\r\n").await?;
    let mut reply = [0; 7];
    stream.read_exact(&mut reply).await?;
    Ok(reply == *b"+PONG\r\n" || reply == *b"-NOAUTH")
}

/// Waits until the database is not listed any more.
async fn wait_until_gone(context: &Context, path: &str) -> Result<(), Failure> {
    let until = Instant::now() + limits::READY_WAIT;
    loop {
        match context.rest.get::<Bdb>(path).await {
            Err(error) if error.error_code == ErrorCode::DbNotFound => return Ok(()),
            Err(error) if !is_passing(&error) => return Err(error.into()),
            _ if Instant::now() > until => {
                return Err(ApiError::from(ErrorCode::Timeout).into());
            }
            _ => sleep(LOOK_EVERY).await,
        }
    }
}
