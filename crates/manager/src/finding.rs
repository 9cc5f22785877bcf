//! Finding the endpoint: what this node knows of it, kept up to date for the name service and the
//! Sentinel commands of the [`discovery`] crate, and the sockets of both.
//!
//! A port that cannot be bound is said in the log and by `rlcheck`, and tried again: databases are served
//! all the same.

use crate::member::Member;
use crate::proxy_feed::is_served;
use crate::view;
use controller::placement::plan::proxies;
use controller::state::ClusterState;
use discovery::finder::Finder;
use discovery::view::{Endpoint, Node, Proxy, View};
use discovery::{dns, sentinel};
use model::NodeUid;
use model::limits::HEARTBEAT_LOST;
use model::observation::ProxyObservation;
use model::view::Observed;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// How often what was heard of other nodes is looked at. That a proxy is gone is found out by
/// connecting to it, which does not wait for this.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How long a port that cannot be bound is left alone.
const BIND_AGAIN: Duration = Duration::from_secs(5);
/// How often it is said that it still cannot be.
const SAY_AGAIN: Duration = Duration::from_secs(3_600);

/// What a node knows when its view is made.
#[derive(Debug)]
pub struct Known<'a> {
    /// The node.
    pub me: NodeUid,
    /// What was heard of every node, with its age now.
    pub observed: &'a [Observed],
    /// Whether that list is recent: if not, it says nothing of who is alive.
    pub recent: bool,
    /// What this node's own proxy says.
    pub own: Option<&'a ProxyObservation>,
    /// Whether a quorum is heard.
    pub has_quorum: bool,
}

/// The view of a state.
#[must_use]
pub fn view_of(state: &ClusterState, known: &Known<'_>) -> View {
    let nodes = state.nodes.iter().filter_map(|node| {
        let external = node.external_address.first();
        Some(Node {
            uid: node.uid,
            address: node.address.parse().ok()?,
            external: external.and_then(|text| text.parse().ok()),
            heard: is_heard(known, node.uid),
        })
    });
    let served = state.databases.iter().filter(|d| is_served(d));
    let endpoints = served.map(|database| Endpoint {
        database: database.uid.0,
        name: database.name.clone(),
        port: database.port,
        proxies: proxies(state, database)
            .into_iter()
            .map(|node| Proxy {
                node,
                doubtful: is_doubtful(known, node, database),
            })
            .collect(),
    });
    View {
        cluster_name: state.cluster.name.clone(),
        cluster_id: state.cluster.cluster_id.clone(),
        revision: state.revision.0,
        me: known.me,
        has_quorum: known.has_quorum,
        nodes: nodes.collect(),
        endpoints: endpoints.collect(),
    }
}

fn heard<'a>(known: &'a Known<'_>, node: NodeUid) -> Option<&'a Observed> {
    known.observed.iter().find(|o| o.observation.node == node)
}

/// Missing information does not speak against a node: it is connected to anyway.
fn is_heard(known: &Known<'_>, node: NodeUid) -> bool {
    node == known.me
        || !known.recent
        || heard(known, node).is_none_or(|o| u128::from(o.age_ms) <= HEARTBEAT_LOST.as_millis())
}

fn is_doubtful(known: &Known<'_>, node: NodeUid, database: &model::documents::Database) -> bool {
    let proxy = if node == known.me {
        known.own
    } else {
        if !known.recent {
            return false;
        }
        let Some(heard) = heard(known, node) else {
            return false;
        };
        if !is_heard(known, node) {
            return true;
        }
        heard.observation.proxy.as_ref()
    };
    // A proxy that has not connected to the shards says so as an error, and holds its clients for a moment; that is no
    // reason to send them elsewhere: when a node is lost all proxies say so, one a little after the other.
    !proxy.is_some_and(|proxy| {
        let mut databases = proxy.databases.iter();
        databases.any(|d| d.database == database.uid && d.listening)
    })
}

/// Keeps the view up to date and serves both services until the task is dropped.
pub async fn run(member: Arc<Member>) {
    let config = &member.program.config;
    let (sender, receiver) = watch::channel(Arc::new(View::default()));
    let finder = Finder::new(receiver, config.address);
    tokio::join!(
        keep(&member, &sender),
        sentinel::follow(finder.clone()),
        serve_names(&finder, config.dns_address()),
        serve_sentinel(&finder, config.discovery_address()),
    );
}

async fn keep(member: &Member, sender: &watch::Sender<Arc<View>>) {
    let mut revisions = member.store.watch();
    let mut proxy = member.proxies.latest();
    let mut state: Option<ClusterState> = None;
    loop {
        let stored = member.store.state();
        let known = state.as_ref().map(|s| s.revision);
        if known.is_none_or(|revision| revision != stored.revision) {
            match ClusterState::read(&stored) {
                Ok(read) => state = read,
                Err(error) => tracing::warn!(%error, "endpoints cannot be read"),
            }
        }
        if let Some(state) = &state {
            let view = now(member, state);
            sender.send_if_modified(|old| {
                let news = **old != view;
                if news {
                    *old = Arc::new(view);
                }
                news
            });
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            changed = revisions.changed() => if changed.is_err() {
                return std::future::pending().await;
            },
            changed = proxy.changed() => if changed.is_err() {
                return std::future::pending().await;
            },
        }
    }
}

fn now(member: &Member, state: &ClusterState) -> View {
    let status = member.store.status();
    let at = Instant::now();
    let (observed, recent, has_quorum) = if status.is_leader {
        let acked = status.quorum_age_ms;
        let quorum = acked.is_some_and(|ms| u128::from(ms) < HEARTBEAT_LOST.as_millis());
        // Whom this primary node has not heard yet in its time is not lost for that.
        (view::told(member, at), quorum, quorum)
    } else {
        let known = member.last_known().at;
        let recent = known.is_some_and(|heard| heard.elapsed() < HEARTBEAT_LOST);
        (view::aged(member, at), recent, recent)
    };
    let own = member.proxies.latest().borrow().clone();
    view_of(
        state,
        &Known {
            me: member.identity.node,
            observed: &observed,
            recent,
            own: own.as_ref(),
            has_quorum,
        },
    )
}

async fn serve_names(finder: &Finder, address: SocketAddr) {
    let mut said = None;
    let sockets = loop {
        match dns::Sockets::bind(address).await {
            Ok(sockets) => break sockets,
            Err(error) => {
                let remedy = if error.kind() == std::io::ErrorKind::PermissionDenied {
                    format!(
                        "run 'sysctl net.ipv4.ip_unprivileged_port_start={}', or set another port \
                         as dns under [ports] in node.toml",
                        address.port()
                    )
                } else {
                    "end who holds the port, or set another one as dns under [ports] in node.toml"
                        .to_owned()
                };
                say(
                    &mut said,
                    &format!("no name service (DNS): {error}; {remedy}"),
                );
                tokio::time::sleep(BIND_AGAIN).await;
            }
        }
    };
    tracing::info!(%address, "name service (DNS)");
    dns::serve(finder.clone(), sockets).await;
}

async fn serve_sentinel(finder: &Finder, address: SocketAddr) {
    let mut said = None;
    let listener = loop {
        match sentinel::bind(address) {
            Ok(listener) => break listener,
            Err(error) => {
                say(
                    &mut said,
                    &format!("no discovery service (Sentinel): {error}; end who holds the port"),
                );
                tokio::time::sleep(BIND_AGAIN).await;
            }
        }
    };
    tracing::info!(%address, "discovery service (Sentinel)");
    sentinel::serve(finder.clone(), listener, address.port()).await;
}

fn say(said: &mut Option<Instant>, text: &str) {
    if said.is_none_or(|at: Instant| at.elapsed() > SAY_AGAIN) {
        tracing::warn!("{text}");
        *said = Some(Instant::now());
    }
}

#[cfg(test)]
mod tests;
