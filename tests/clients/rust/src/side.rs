//! The two sides that every scenario runs on: an engine reached directly, and the endpoint.

use anyhow::{bail, ensure};
use redis::aio::{ConnectionManager, ConnectionManagerConfig, MultiplexedConnection};
use redis::{
    AsyncConnectionConfig, Client, Connection, ConnectionAddr, ConnectionInfo,
    IntoConnectionInfo as _, ProtocolVersion, RedisConnectionInfo, RedisResult, Value,
};
use serde::Deserialize;
use std::cell::{Cell, RefCell};
use std::fmt::Debug;
use std::future::Future;
use std::time::{Duration, Instant};
use tokio::runtime::Handle;

/// A scenario waits at most so long for what must come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A database, and an engine of the same version.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Target {
    pub(crate) name: String,
    password: Option<String>,
    port: u16,
    endpoint: Vec<String>,
    direct: Vec<String>,
    pub(crate) shards: u32,
}

/// Where a scenario runs, and what it saw there.
pub(crate) struct Side {
    pub(crate) runtime: Handle,
    pub(crate) protocol: u8,
    pub(crate) target: Target,
    program: String,
    proxied: bool,
    run: u32,
    scenario: Cell<&'static str>,
    next: Cell<usize>,
    seen: RefCell<Vec<(String, String)>>,
}

impl Side {
    pub(crate) fn new(
        runtime: Handle,
        protocol: u8,
        program: &str,
        target: &Target,
        proxied: bool,
    ) -> Self {
        Self {
            runtime,
            protocol,
            target: target.clone(),
            program: program.to_owned(),
            proxied,
            run: std::process::id(),
            scenario: Cell::new(""),
            next: Cell::new(0),
            seen: RefCell::default(),
        }
    }

    /// A scenario begins: nothing has been seen.
    pub(crate) fn begin(&self, scenario: &'static str) {
        self.scenario.set(scenario);
        self.seen.borrow_mut().clear();
    }

    pub(crate) fn seen(&self) -> Vec<(String, String)> {
        self.seen.borrow().clone()
    }

    /// Notes what must be the same on both sides; returns it.
    pub(crate) fn see<T: Debug>(&self, what: &str, value: T) -> T {
        let shown: String = format!("{value:?}").chars().take(600).collect();
        self.seen.borrow_mut().push((what.to_owned(), shown));
        value
    }

    /// A key of this run and scenario alone, the same on both sides; on one of several shards.
    pub(crate) fn key(&self, name: &str) -> String {
        let prefix = format!("{}:{}:{}", self.program, self.run, self.scenario.get());
        if self.target.shards > 1 {
            format!("{{{prefix}}}:{name}")
        } else {
            format!("{prefix}:{name}")
        }
    }

    /// A key like that, on any shard.
    pub(crate) fn anywhere(&self, name: &str) -> String {
        format!(
            "{}:{}:{}:{name}",
            self.program,
            self.run,
            self.scenario.get()
        )
    }

    /// A client of the next node.
    pub(crate) fn client(&self) -> RedisResult<Client> {
        let hosts = if self.proxied {
            &self.target.endpoint
        } else {
            &self.target.direct
        };
        let host = &hosts[self.next.replace(self.next.get() + 1) % hosts.len()];
        Client::open(self.at(host)?)
    }

    /// A client of the first node, always.
    pub(crate) fn client_of_one_node(&self) -> RedisResult<Client> {
        self.next.set(0);
        self.client()
    }

    /// Where a client of a node connects to.
    fn at(&self, host: &str) -> RedisResult<ConnectionInfo> {
        let mut settings = RedisConnectionInfo::default().set_protocol(match self.protocol {
            3 => ProtocolVersion::RESP3,
            _ => ProtocolVersion::RESP2,
        });
        if let Some(password) = &self.target.password {
            settings = settings.set_password(password);
        }
        let address = ConnectionAddr::Tcp(host.to_owned(), self.target.port);
        Ok(address.into_connection_info()?.set_redis_settings(settings))
    }

    /// A connection of the library's synchronous half.
    pub(crate) fn connection(&self) -> RedisResult<Connection> {
        patient(self.client()?.get_connection_with_timeout(PATIENCE)?)
    }

    /// A connection of its asynchronous half.
    pub(crate) async fn multiplexed(&self) -> RedisResult<MultiplexedConnection> {
        self.client()?
            .get_multiplexed_async_connection_with_config(&config())
            .await
    }

    /// A connection that comes back by itself.
    pub(crate) async fn manager(&self, client: Client) -> RedisResult<ConnectionManager> {
        ConnectionManager::new_with_config(client, manager_config()).await
    }

    /// Runs the asynchronous part of a scenario.
    pub(crate) fn wait<T>(
        &self,
        work: impl Future<Output = anyhow::Result<T>>,
    ) -> anyhow::Result<T> {
        self.runtime.block_on(async {
            match tokio::time::timeout(PATIENCE * 2, work).await {
                Ok(result) => result,
                Err(_) => bail!("it was still waiting after {} s", PATIENCE.as_secs() * 2),
            }
        })
    }
}

/// A synchronous connection that does not wait for ever.
pub(crate) fn patient(connection: Connection) -> RedisResult<Connection> {
    connection.set_read_timeout(Some(PATIENCE))?;
    connection.set_write_timeout(Some(PATIENCE))?;
    Ok(connection)
}

/// The library's own half second is too short for machines with more to do than cores.
pub(crate) fn config() -> AsyncConnectionConfig {
    AsyncConnectionConfig::new()
        .set_connection_timeout(Some(PATIENCE))
        .set_response_timeout(Some(PATIENCE))
}

pub(crate) fn manager_config() -> ConnectionManagerConfig {
    ConnectionManagerConfig::new()
        .set_connection_timeout(Some(PATIENCE))
        .set_response_timeout(Some(PATIENCE))
        .set_min_delay(Duration::from_millis(5))
        .set_number_of_retries(20)
}

/// The call must fail, with this in its text.
pub(crate) fn fails<T: Debug>(
    result: RedisResult<T>,
    says: &str,
) -> anyhow::Result<redis::RedisError> {
    match result {
        Ok(got) => bail!("no error but {got:?}"),
        Err(error) => {
            ensure!(
                error.to_string().contains(says),
                "the error is {error}, without {says:?}"
            );
            Ok(error)
        }
    }
}

/// Waits for what another connection does; `what` says what it is.
pub(crate) async fn until<T>(
    what: &str,
    mut condition: impl AsyncFnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<T> {
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end {
        if let Some(found) = condition().await? {
            return Ok(found);
        }
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    bail!("{what}: not within {} s", PATIENCE.as_secs())
}

/// A reply's texts, however they were written.
pub(crate) fn texts(values: &[Value]) -> Vec<String> {
    values
        .iter()
        .map(|value| match value {
            Value::BulkString(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            Value::SimpleString(text) => text.clone(),
            other => format!("{other:?}"),
        })
        .collect()
}
