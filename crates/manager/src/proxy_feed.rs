//! The configuration of this node's `dmcproxy`: made from the store, sent whole after each change.

use crate::member::Member;
use anyhow::Context as _;
use controller::placement::plan::{primaries, proxies};
use controller::state::ClusterState;
use model::documents::{Database, DatabaseStatus, Shard};
use model::node_config::NodeConfig;
use model::observation::ProxyObservation;
use model::proxy::{LINE_MAX, ProxyConfig, ProxyDatabase, ProxySettings, ProxyShard, ShardAddress};
use model::{DatabaseUid, NodeUid};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};

/// A proxy that does not take its configuration for this long is let go; it connects again.
const WRITE_MAX: Duration = Duration::from_secs(5);

/// A proxy tells of itself every second; one that does not for this long is not counted on.
const SILENCE_MAX: Duration = Duration::from_secs(5);

/// Binds a unix socket, in place of one that a killed predecessor left.
///
/// # Errors
/// When it cannot be bound.
pub fn bind_unix(path: &Path, mode: u32) -> anyhow::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("remove {}", path.display()));
        }
        _ => {}
    }
    let listener =
        UnixListener::bind(path).with_context(|| format!("listen on {}", path.display()))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    Ok(listener)
}

/// Binds the proxy's socket.
///
/// # Errors
/// When it cannot be bound.
pub fn bind(config: &NodeConfig) -> anyhow::Result<UnixListener> {
    bind_unix(&config.proxy_socket(), 0o600)
}

/// Serves proxies until the task is dropped. During a replacement there are two of them.
pub async fn serve(member: Arc<Member>, listener: UnixListener) {
    for connection in 0_u64.. {
        match listener.accept().await {
            Ok((stream, _)) => {
                let member = Arc::clone(&member);
                tokio::spawn(async move {
                    if let Err(error) = feed(&member, stream, connection).await {
                        tracing::debug!("a proxy's connection ended: {error:#}");
                    }
                    member.proxies.heard(connection, None);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a proxy");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn feed(member: &Member, stream: UnixStream, connection: u64) -> anyhow::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut lines = BufReader::new(read);
    let mut revisions = member.store.watch();
    let mut sent: Option<ProxyConfig> = None;
    let mut line = Vec::new();
    let silence = tokio::time::sleep(SILENCE_MAX);
    tokio::pin!(silence);
    loop {
        send_if_new(member, &mut write, &mut sent).await?;
        tokio::select! {
            changed = revisions.changed() => changed?,
            read = read_line(&mut lines, &mut line) => {
                if read? == 0 {
                    return Ok(());
                }
                let seen: ProxyObservation = serde_json::from_slice(&line)?;
                line.clear();
                silence.as_mut().reset(tokio::time::Instant::now() + SILENCE_MAX);
                member.proxies.heard(connection, Some(seen));
            }
            () = &mut silence => anyhow::bail!("the proxy has fallen silent"),
        }
    }
}

async fn read_line<R: tokio::io::AsyncBufRead + Unpin>(
    reader: &mut R,
    line: &mut Vec<u8>,
) -> anyhow::Result<usize> {
    let read = reader.take(LINE_MAX as u64).read_until(b'\n', line).await?;
    anyhow::ensure!(
        line.len() < LINE_MAX,
        "a line of more than {LINE_MAX} bytes"
    );
    Ok(read)
}

async fn send_if_new(
    member: &Member,
    write: &mut tokio::net::unix::OwnedWriteHalf,
    sent: &mut Option<ProxyConfig>,
) -> anyhow::Result<()> {
    let Some(state) = ClusterState::read(&member.store.state())? else {
        return Ok(());
    };
    let config = build(&state, member.identity.node, &member.program.config);
    let same = sent
        .as_ref()
        .is_some_and(|old| old.databases == config.databases && old.settings == config.settings);
    if same {
        return Ok(());
    }
    let mut text = serde_json::to_vec(&config)?;
    text.push(b'\n');
    tokio::time::timeout(WRITE_MAX, write.write_all(&text))
        .await
        .context("the proxy does not read its configuration")??;
    *sent = Some(config);
    Ok(())
}

/// The configuration of a node's proxy; `config` is that node's own.
#[must_use]
pub fn build(state: &ClusterState, me: NodeUid, config: &NodeConfig) -> ProxyConfig {
    let databases = state
        .databases
        .iter()
        .filter(|d| is_served(d) && proxies(state, d).contains(&me))
        .map(|d| ProxyDatabase {
            uid: d.uid,
            name: d.name.clone(),
            listen: vec![SocketAddr::new(config.address, d.port)],
            password: d.password.clone(),
            max_connections: d.max_connections,
            shards: proxy_shards(state, me, config, d.uid),
        })
        .collect();
    ProxyConfig {
        revision: state.revision,
        cluster_id: state.cluster.cluster_id.clone(),
        node: me,
        databases,
        settings: ProxySettings::default(),
    }
}

fn is_served(database: &Database) -> bool {
    match database.status {
        DatabaseStatus::Pending | DatabaseStatus::Active | DatabaseStatus::ActiveChangePending => {
            true
        }
        DatabaseStatus::DeletePending | DatabaseStatus::CreationFailed => false,
    }
}

/// The primaries of a database, by slots. With several all are named, those too that do not serve:
/// from the list a proxy knows which slots are whose. One that does not serve is not named when it is
/// the only one: proxies of older releases do not know the difference.
fn proxy_shards(
    state: &ClusterState,
    me: NodeUid,
    config: &NodeConfig,
    database: DatabaseUid,
) -> Vec<ProxyShard> {
    let primaries = primaries(state, database);
    let several = primaries.len() > 1;
    primaries
        .into_iter()
        .filter(|shard| several || shard.is_serving())
        .map(|shard| proxy_shard(state, me, config, shard))
        .collect::<Option<_>>()
        .unwrap_or_default()
}

fn proxy_shard(
    state: &ClusterState,
    me: NodeUid,
    config: &NodeConfig,
    shard: &Shard,
) -> Option<ProxyShard> {
    let address = if shard.node == me {
        ShardAddress::Unix(config.shard_socket(shard.uid))
    } else {
        let ip: IpAddr = state.node(shard.node)?.address.parse().ok()?;
        ShardAddress::Tcp(SocketAddr::new(ip, shard.port))
    };
    Some(ProxyShard {
        uid: shard.uid,
        slots: shard.slots,
        epoch: shard.epoch,
        address,
        user: shard.proxy_user(),
        password: shard.users.proxy.clone(),
        serving: shard.is_serving(),
    })
}

#[cfg(test)]
mod tests;
