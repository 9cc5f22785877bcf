//! The configuration of this node's `dmcproxy`: made from the store, sent whole after each change.

mod holding;

use crate::gates::Pending;
use crate::leases::Leases;
use crate::member::Member;
use crate::proxies::Proxies;
use crate::wishes::Wishes;
use anyhow::Context as _;
use controller::placement::plan::{primaries, proxies};
use controller::replica_set;
use controller::state::ClusterState;
use holding::{Closed, Holding};
use model::documents::{Database, DatabaseStatus, Shard};
use model::node_config::NodeConfig;
use model::observation::ProxyObservation;
use model::proxy::{
    Copies, FromProxy, LINE_MAX, ProxyConfig, ProxyDatabase, ProxyShard, Renewal, ShardAddress,
    ToProxy,
};
use model::tuning::DatabaseTuning;
use model::{DatabaseUid, NodeUid, Revision};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};

/// A proxy that does not take its configuration for this long is let go; it connects again.
const WRITE_MAX: Duration = Duration::from_secs(5);

/// A proxy tells of itself every second; one that does not for this long is not counted on.
const SILENCE_MAX: Duration = Duration::from_secs(5);
/// How long it takes at most to take in what a proxy has said already.
const LOOKS_WITHIN: Duration = Duration::from_millis(250);

/// For how long clients of a node that leaves the cluster may have something under way: a subscription ends only so.
const LEAVES_WITHIN: Duration = Duration::from_secs(10);

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
                    member.gates.close(connection);
                    member.questions.close(connection);
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

async fn feed(member: &Arc<Member>, stream: UnixStream, connection: u64) -> anyhow::Result<()> {
    let process = stream.peer_cred().ok().and_then(|peer| peer.pid());
    let process = process.and_then(|pid| u32::try_from(pid).ok());
    let process = process.context("the proxy's process is not known")?;
    let first_word = member.proxies.came(process);
    let ended = feed_process(member, stream, (connection, process), first_word).await;
    member.proxies.left(process);
    ended
}

async fn feed_process(
    member: &Arc<Member>,
    stream: UnixStream,
    (connection, process): (u64, u32),
    first_word: Duration,
) -> anyhow::Result<()> {
    let mut leases = Leases::of(process);
    let (read, mut write) = stream.into_split();
    let mut lines = BufReader::new(read);
    let mut revisions = member.store.watch();
    let mut told = Told::default();
    let mut orders = member.gates.open(connection, process);
    let mut pending = Pending::default();
    let mut holding = hold_first(member, &mut write, &mut pending).await?;
    let (mut wishes, mut line) = (Wishes::default(), Vec::new());
    let mut questions = member.questions.open(connection, process);
    let mut silence = Silence::begin();
    let first = tokio::time::sleep(first_word);
    tokio::pin!(first);
    let (mut news, mut unknown) = (true, !first_word.is_zero());
    loop {
        if holding.is_over() && !unknown && std::mem::take(&mut news) {
            send_if_new(member, &mut write, (&mut told, holding.closed())).await?;
        }
        tokio::select! {
            () = holding.next() => {}
            () = &mut first, if unknown => unknown = false,
            changed = revisions.changed() => {
                changed?;
                news = true;
                holding.look(member)?;
            }
            Some(ordered) = orders.recv() => {
                let order = pending.number(ordered);
                send_line(&mut write, &ToProxy::Order { order }).await?;
            }
            read = read_line(&mut lines, &mut line) => {
                if read? == 0 {
                    return Ok(());
                }
                let said: FromProxy = serde_json::from_slice(&line)?;
                line.clear();
                silence = Silence::begin();
                match said {
                    FromProxy::Observation(seen) => {
                        unknown = false;
                        news |= heard(member, connection, *seen, &told);
                    }
                    FromProxy::Answer { answer } => pending.answered(answer),
                    FromProxy::Renewal { renewal } => {
                        let known = (&mut told, &holding, unknown);
                        renew(member, &mut write, known, (&mut leases, renewal)).await?;
                    }
                    FromProxy::Wish { wish } => {
                        if let Some(granted) = wishes.take(member, wish) {
                            send_line(&mut write, &ToProxy::Granted { granted }).await?;
                        }
                    }
                    about_clients => questions.hear(member, about_clients),
                }
            }
            granted = wishes.next() => {
                send_line(&mut write, &ToProxy::Granted { granted }).await?;
            }
            line = questions.next() => send_line(&mut write, &line).await?,
            lease = leases.next() => {
                send_line(&mut write, &ToProxy::Lease { lease }).await?;
            }
            () = silence.over() => anyhow::bail!("the proxy has fallen silent"),
        }
    }
}

/// A proxy says nothing.
struct Silence {
    until: tokio::time::Instant,
    is_long: bool,
}

impl Silence {
    /// From now on.
    fn begin() -> Self {
        Self {
            until: tokio::time::Instant::now() + SILENCE_MAX,
            is_long: false,
        }
    }

    /// Returns when the proxy has fallen silent. A node that was stopped for a while has not looked yet at what its proxy
    /// said meanwhile, so it looks once more.
    async fn over(&mut self) {
        loop {
            tokio::time::sleep_until(self.until).await;
            if std::mem::replace(&mut self.is_long, true) {
                return;
            }
            self.until = tokio::time::Instant::now() + LOOKS_WITHIN;
        }
    }
}

/// A proxy wants its lease: it has to know everything that is stored. `unknown`: it has not had its first word.
async fn renew(
    member: &Arc<Member>,
    write: &mut tokio::net::unix::OwnedWriteHalf,
    (told, holding, unknown): (&mut Told, &Holding, bool),
    (leases, renewal): (&mut Leases, Renewal),
) -> anyhow::Result<()> {
    if holding.is_over() && !unknown && told.looked < member.store.state().revision {
        send_if_new(member, write, (told, holding.closed())).await?;
    }
    let applied = told.applied(renewal.applied);
    let applied = holding.is_over().then_some(applied);
    if let Some(lease) = leases.renew(member, renewal, applied) {
        send_line(write, &ToProxy::Lease { lease }).await?;
    }
    Ok(())
}

/// Takes in what a proxy says of itself; `true`: it is to have another configuration.
fn heard(member: &Member, connection: u64, mut seen: ProxyObservation, told: &Told) -> bool {
    seen.applied = told.applied(seen.applied);
    member.questions.says(connection, seen.questions);
    member.proxies.heard(connection, Some(seen));
    let goes = member.is_removed() || told.is_drained();
    told.keeps_in_vain(&member.proxies) || (goes && told.has_any())
}

/// Orders a proxy that has come to hold what it must not serve as it may know it.
async fn hold_first(
    member: &Member,
    write: &mut tokio::net::unix::OwnedWriteHalf,
    pending: &mut Pending,
) -> anyhow::Result<Holding> {
    let state = ClusterState::read(&member.store.state())?;
    let (holding, orders) = Holding::begin(state.as_ref(), jiff::Timestamp::now());
    for ordered in orders {
        let order = pending.number(ordered);
        send_line(write, &ToProxy::Order { order }).await?;
    }
    Ok(holding)
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

/// What a proxy has been told.
#[derive(Default)]
struct Told {
    sent: Option<ProxyConfig>,
    /// The newest revision of which it has been told everything that concerns it.
    looked: Revision,
    /// Since when clients are closed because the node leaves the cluster.
    drains: Option<Instant>,
}

impl Told {
    /// Databases that the proxy is open to new clients of.
    fn open(&self) -> impl Iterator<Item = DatabaseUid> {
        let databases = self.sent.iter().flat_map(|sent| &sent.databases);
        databases.filter(|d| !d.listen.is_empty()).map(|d| d.uid)
    }

    /// Whether those that have something under way for ever are closed too.
    fn is_drained(&self) -> bool {
        self.drains
            .is_some_and(|since| since.elapsed() >= LEAVES_WITHIN)
    }

    fn has_any(&self) -> bool {
        self.sent
            .as_ref()
            .is_some_and(|sent| !sent.databases.is_empty())
    }

    /// Whether it serves a database that is served elsewhere now, and has no clients of it any more.
    fn keeps_in_vain(&self, proxies: &Proxies) -> bool {
        let mut databases = self.sent.iter().flat_map(|sent| &sent.databases);
        databases.any(|d| d.listen.is_empty() && !proxies.may_have_clients(d.uid))
    }

    /// The revision of which a proxy has applied everything that concerns it, if it has applied the
    /// configuration of this one.
    fn applied(&self, applied: Revision) -> Revision {
        let newest = self.sent.as_ref().map(|sent| sent.revision);
        if newest == Some(applied) {
            self.looked
        } else {
            applied
        }
    }
}

async fn send_if_new(
    member: &Member,
    write: &mut tokio::net::unix::OwnedWriteHalf,
    (told, closed): (&mut Told, &Closed),
) -> anyhow::Result<()> {
    let Some(mut state) = ClusterState::read(&member.store.state())? else {
        return Ok(());
    };
    for shard in &mut state.shards {
        if closed.contains(&(shard.uid, shard.epoch)) {
            shard.doc.serving = None;
        }
    }
    member.proxies.was_open(told.open());
    let kept = |uid| member.proxies.may_have_clients(uid);
    let mut config = build(&state, member.identity.node, &member.program.config, &kept);
    let drains = config.databases.iter().any(|database| database.drains);
    told.drains = drains.then(|| told.drains.unwrap_or_else(Instant::now));
    if member.is_removed() || told.is_drained() {
        config.databases.clear();
    }
    let sent = told.sent.as_ref();
    let same = sent
        .is_some_and(|old| old.databases == config.databases && old.settings == config.settings);
    if !same {
        send_line(write, &config).await?;
        told.sent = Some(config);
    }
    told.looked = state.revision;
    Ok(())
}

async fn send_line<T: serde::Serialize>(
    write: &mut tokio::net::unix::OwnedWriteHalf,
    line: &T,
) -> anyhow::Result<()> {
    let mut text = serde_json::to_vec(line)?;
    text.push(b'\n');
    tokio::time::timeout(WRITE_MAX, write.write_all(&text))
        .await
        .context("the proxy does not read what it is sent")??;
    Ok(())
}

/// The configuration of a node's proxy; `config` is that node's own. A database that other nodes serve by its policy
/// now, and that is `kept` here, goes on for the clients that are there; new ones are not taken. They are closed when the
/// node has no shards left and leaves the cluster.
#[must_use]
pub fn build(
    state: &ClusterState,
    me: NodeUid,
    config: &NodeConfig,
    kept: &dyn Fn(DatabaseUid) -> bool,
) -> ProxyConfig {
    let node = state.node(me);
    let leaves = node.is_some_and(|node| node.leaving && state.shards_on(me) == 0);
    let by_policy = |d: &Database| !leaves && proxies(state, d).contains(&me);
    let address = |d: &Database| SocketAddr::new(config.address, d.port);
    let databases = state
        .databases
        .iter()
        .filter(|d| is_served(d) && (by_policy(d) || (node.is_some() && kept(d.uid))))
        .map(|d| ProxyDatabase {
            uid: d.uid,
            name: d.name.clone(),
            listen: by_policy(d).then(|| address(d)).into_iter().collect(),
            password: d.password.clone(),
            max_connections: d.max_connections,
            tuning: tuning_of(state, d, me),
            shards: proxy_shards(state, me, config, d.uid),
            lease: lease(state, me, config, d),
            drains: leaves,
            elsewhere: elsewhere(state, d, me),
        })
        .collect();
    ProxyConfig {
        revision: state.revision,
        cluster_id: state.cluster.cluster_id.clone(),
        node: me,
        databases,
        settings: state
            .node(me)
            .map(|node| node.proxy.clone())
            .unwrap_or_default(),
        takes_wishes: true,
        takes_questions: true,
    }
}

/// The other nodes that serve a database by its policy.
fn elsewhere(state: &ClusterState, database: &Database, me: NodeUid) -> Vec<NodeUid> {
    let mut nodes = proxies(state, database);
    nodes.retain(|node| *node != me);
    nodes
}

/// The limits of a database in one of its proxies: a rate is shared among those that serve it, so that
/// all of them together keep to it.
fn tuning_of(state: &ClusterState, database: &Database, me: NodeUid) -> DatabaseTuning {
    let proxies = proxies(state, database);
    let place = proxies.iter().position(|node| *node == me).unwrap_or(0);
    let mut tuning = database.tuning.clone();
    for rate in [
        &mut tuning.max_commands_per_second,
        &mut tuning.max_bytes_per_second,
    ] {
        *rate = share(*rate, proxies.len(), place);
    }
    tuning
}

/// The part of a rate that the proxy at a place gets; never 0, which would be no limit.
fn share(rate: u64, proxies: usize, place: usize) -> u64 {
    if rate == 0 || proxies == 0 {
        return rate;
    }
    let more = (place as u64) < rate % proxies as u64;
    (rate / proxies as u64 + u64::from(more)).max(1)
}

pub(crate) fn is_served(database: &Database) -> bool {
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
        .filter(|shard| several || shard.is_usable())
        .map(|shard| proxy_shard(state, me, config, shard))
        .collect::<Option<_>>()
        .unwrap_or_default()
}

/// Whose promises stand in for a lease; `None`: none is needed.
fn lease(
    state: &ClusterState,
    me: NodeUid,
    config: &NodeConfig,
    database: &Database,
) -> Option<Vec<Copies>> {
    let sets = replica_set::of_database(state, database);
    let needed = database.leased || sets.iter().any(|set| !set.replicas.is_empty());
    needed.then(|| {
        let copies = sets.iter().filter_map(|set| {
            let addresses = set
                .members()
                .map(|shard| address_of(state, me, config, shard))
                .collect::<Option<_>>()?;
            Some(Copies {
                shard: set.primary.uid,
                epoch: set.primary.epoch,
                user: set.keeper_user(),
                password: set.primary.users.proxy.clone(),
                addresses,
            })
        });
        copies.collect()
    })
}

/// Where a proxy of this node reaches an engine.
fn address_of(
    state: &ClusterState,
    me: NodeUid,
    config: &NodeConfig,
    shard: &Shard,
) -> Option<ShardAddress> {
    if shard.node == me {
        return Some(ShardAddress::Unix(config.shard_socket(shard.uid)));
    }
    replica_set::address(state, shard).map(ShardAddress::Tcp)
}

pub(crate) fn proxy_shard(
    state: &ClusterState,
    me: NodeUid,
    config: &NodeConfig,
    shard: &Shard,
) -> Option<ProxyShard> {
    let address = address_of(state, me, config, shard)?;
    Some(ProxyShard {
        uid: shard.uid,
        slots: shard.slots,
        epoch: shard.epoch,
        address,
        user: shard.proxy_user(),
        password: shard.users.proxy.clone(),
        serving: shard.is_usable(),
        trouble: shard.trouble.clone(),
    })
}

#[cfg(test)]
pub(crate) mod tests;
