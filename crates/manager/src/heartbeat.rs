//! Telling the primary node of this one: once a second, and at once when an engine or the proxy
//! changes, or when the primary node is another one.

use crate::levels;
use crate::member::Member;
use crate::primary::{self, Primary};
use crate::view;
use model::NodeUid;
use model::limits::HEARTBEAT_EVERY;
use model::observation::{NodeObservation, ServiceObservation};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Changes that come together are told together.
const GATHER: Duration = Duration::from_millis(10);
/// How often supervisord is asked: it answers in Python, and that costs.
const SERVICES_EVERY: Duration = Duration::from_secs(5);

/// Runs until the task is dropped.
pub async fn run(member: Arc<Member>) {
    let mut engines = member.agent.changed();
    let mut proxy = member.proxies.latest();
    let mut leader = member.store.leadership();
    let mut services: Vec<ServiceObservation> = Vec::new();
    let mut services_asked: Option<Instant> = None;
    loop {
        if services_asked.is_none_or(|at| at.elapsed() > SERVICES_EVERY) {
            services = member.agent.services().await;
            services_asked = Some(Instant::now());
        }
        beat(&member, &services).await;
        tokio::select! {
            () = tokio::time::sleep(HEARTBEAT_EVERY) => {}
            _ = engines.changed() => tokio::time::sleep(GATHER).await,
            () = proxy_changed(&mut proxy) => tokio::time::sleep(GATHER).await,
            // The new primary node knows nothing of this one.
            _ = leader.changed() => {}
        }
    }
}

/// Returns when the proxy came, went, or took over another configuration: its counters alone are
/// no news.
async fn proxy_changed(
    proxy: &mut tokio::sync::watch::Receiver<Option<model::observation::ProxyObservation>>,
) {
    let news = |seen: &Option<model::observation::ProxyObservation>| {
        seen.as_ref().map(|p| {
            let databases: Vec<_> = p
                .databases
                .iter()
                .map(|d| (d.database, d.listening, d.shards_connected, d.error.clone()))
                .collect();
            (p.pid, p.applied, databases)
        })
    };
    let before = news(&proxy.borrow_and_update());
    loop {
        if proxy.changed().await.is_err() {
            return std::future::pending().await;
        }
        if news(&proxy.borrow_and_update()) != before {
            return;
        }
    }
}

/// Tells it now, whoever becomes the primary node in this moment, until that says that it has heard it: what this node
/// says is the last of it, and what comes before a new primary node has begun is forgotten there.
pub async fn tell(member: &Member) {
    let services = member.agent.services().await;
    let me = member.identity.node;
    while primary::find(member).await.is_ok() {
        let taken = beat(member, &services).await;
        let known = member.last_known().observed;
        let mut known = known.iter().map(|one| &one.observation);
        if known.any(|seen| seen.node == me && seen.taken == taken) {
            return;
        }
        tokio::time::sleep(GATHER).await;
    }
}

/// Returns when what was told had been taken.
async fn beat(member: &Member, services: &[ServiceObservation]) -> jiff::Timestamp {
    let observation = observe(member, services);
    let taken = observation.taken;
    // Whoever is known is told, however long it has been silent: it may be back.
    match primary::known(member) {
        Some(Primary::Me) => {
            member.controller.heard(observation);
            let observed = view::told(member, Instant::now());
            let acked = member.store.status().quorum_age_ms;
            // A primary node without a quorum is no source of news.
            if acked.is_none_or(|ms| ms < 3_000) {
                member.remember(observed);
            }
        }
        Some(Primary::Other(node, address)) => {
            tell_one(member, &observation, node, &address).await;
        }
        None => tracing::debug!("no primary node to tell"),
    }
    taken
}

/// Tells one node, which may be the primary node.
async fn tell_one(member: &Member, observation: &NodeObservation, node: NodeUid, address: &str) {
    match member.internode.heartbeat(address, observation).await {
        Ok(answer) if answer.primary == Some(node) => {
            member.controller.led(node);
            member.remember(answer.observed);
        }
        Ok(_) => tracing::debug!(%node, "no longer the primary node"),
        Err(error) => tracing::debug!(%node, %error, "heartbeat not delivered"),
    }
}

/// What this node knows of itself.
#[must_use]
pub fn observe(member: &Member, services: &[ServiceObservation]) -> NodeObservation {
    let state = member.store.state();
    NodeObservation {
        node: member.identity.node,
        taken: jiff::Timestamp::now(),
        software_version: member.program.version.clone(),
        build_id: member.program.build_id.clone(),
        feature_min: member.program.levels.min,
        feature_max: member.program.levels.max,
        started: member.started,
        host: member.agent.host(),
        engines: member.agent.engines(),
        shards: member.agent.shards(),
        proxy: member.proxies.latest().borrow().clone(),
        services: services.to_vec(),
        stopping: member.is_stopping(),
        disk_full: member.store.status().disk_full,
        upgrade: levels::observe(member),
        applied: state.revision,
        state_hash: state.hash(),
    }
}
