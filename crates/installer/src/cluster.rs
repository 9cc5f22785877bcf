//! The cluster as this node's `cnm_exec` sees it: what an upgrade asks before and after, and what it tells.

use crate::console::Console;
use crate::layout;
use crate::services::hurried;
use anyhow::{Context, Result, bail};
use client::local::ExecClient;
use model::documents::Shard;
use model::intent::Intent;
use model::node_config::{NodeConfig, NodeIdentity};
use model::observation::{EngineState, ProxyObservation};
use model::upgrade::{NodePhase, ReleaseFacts, UpgradePlan, UpgradeTarget};
use model::view::{ClusterView, Consistency};
use model::{ApiError, ErrorCode};
use std::time::{Duration, Instant};

/// How long a cluster may take to be whole again after the daemons of a node were replaced.
const WHOLE_AGAIN: Duration = Duration::from_secs(90);
/// How long it is tried to tell the cluster.
const TELL_WITHIN: Duration = Duration::from_secs(30);
/// How long that is tried by a node whose `cnm_exec` may be what is broken: longer than an election takes.
pub(crate) const TELL_SOON: Duration = Duration::from_secs(8);
/// How long this node may take to become the primary node.
const LEADS_WITHIN: Duration = Duration::from_secs(15);
/// How long what passes by itself is waited for before an upgrade begins.
const SETTLES_WITHIN: Duration = Duration::from_secs(6);
/// Pause between two looks at what comes in a moment.
const LOOK_SOON: Duration = Duration::from_millis(20);
/// Pause between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// How often an operator hears what is waited for.
const TELL_EVERY: Duration = Duration::from_secs(5);

fn ask<T>(
    config: &NodeConfig,
    question: impl AsyncFnOnce(ExecClient) -> Result<T, ApiError>,
) -> Result<T, ApiError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| ApiError::new(ErrorCode::InternalError, error.to_string()))?;
    runtime.block_on(question(ExecClient::new(config.exec_socket())))
}

/// Whether this node is in a cluster, and if so, what it looks like.
///
/// # Errors
/// When `cnm_exec` does not say.
pub fn view(config: &NodeConfig) -> Result<Option<ClusterView>> {
    in_cluster(ask(config, async |exec| {
        exec.view(Consistency::Linearizable).await
    }))
}

fn in_cluster<T>(answer: Result<T, ApiError>) -> Result<Option<T>> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(error) if error.error_code == ErrorCode::NotMember => Ok(None),
        Err(error) => bail!("cnm_exec cannot tell of the cluster: {}", error.description),
    }
}

/// How the turn of this node would go, and what stands against it; `None`: it is in no cluster.
///
/// # Errors
/// When `cnm_exec` does not say.
pub fn plan(config: &NodeConfig, target: &UpgradeTarget) -> Result<Option<UpgradePlan>> {
    let target = UpgradeTarget {
        node: identity(config)?.map(|identity| identity.node),
        ..target.clone()
    };
    in_cluster(ask(config, async |exec| exec.upgrade_plan(&target).await))
}

/// As [`plan`]; what passes by itself in a moment, after another node was upgraded, is waited for.
///
/// # Errors
/// As [`plan`].
pub fn settled_plan(config: &NodeConfig, target: &UpgradeTarget) -> Result<Option<UpgradePlan>> {
    let deadline = Instant::now() + SETTLES_WITHIN;
    loop {
        let plan = plan(config, target);
        // A cnm_exec that was just started again answers in a moment.
        let passing = plan.as_ref().map_or(true, |plan| {
            plan.iter()
                .flat_map(UpgradePlan::blockers)
                .any(|finding| is_of_health(finding.code))
        });
        if !passing || Instant::now() >= deadline {
            return plan;
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}

/// Whether a finding is about how the cluster is, not about what is wanted of it.
const fn is_of_health(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::NoQuorum
            | ErrorCode::UpgradeNodeDown
            | ErrorCode::UpgradeShardDown
            | ErrorCode::UpgradeReplicaSyncing
            | ErrorCode::UpgradeProxyNotServing
    )
}

/// Who this node is in its cluster; `None`: it is in none.
fn identity(config: &NodeConfig) -> Result<Option<NodeIdentity>> {
    let path = config.identity_path();
    match std::fs::read(&path) {
        Ok(text) => serde_json::from_slice(&text)
            .map(Some)
            .with_context(|| format!("{} is damaged", path.display())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| path.display().to_string()),
    }
}

/// Tells the cluster what this node runs, or is about to run. In no cluster there is nobody to tell.
///
/// # Errors
/// Why the cluster refuses it, or could not be told; see [`is_refusal`].
pub fn announce(
    config: &NodeConfig,
    phase: NodePhase,
    release: &ReleaseFacts,
) -> Result<(), ApiError> {
    let identity = identity(config)
        .map_err(|error| ApiError::new(ErrorCode::InternalError, format!("{error:#}")))?;
    let Some(identity) = identity else {
        return Ok(());
    };
    let intent = Intent::NodeRelease {
        node: identity.node,
        phase,
        release: release.clone(),
    };
    ask(config, async |exec| exec.intent(&intent).await).map(|_| ())
}

/// Whether the cluster said no, as against one that could not be asked.
#[must_use]
pub fn is_refusal(error: &ApiError) -> bool {
    matches!(
        error.error_code,
        ErrorCode::UpgradeInstallerRunning
            | ErrorCode::UpgradeNotFinalized
            | ErrorCode::UpgradeLevelUnsupported
            | ErrorCode::NodeNotFound
    )
}

/// As [`announce`], again and again for a while: who keeps it may be killed, or change, just then.
///
/// # Errors
/// What was said last.
pub fn announce_within(
    config: &NodeConfig,
    phase: NodePhase,
    release: &ReleaseFacts,
    limit: Duration,
) -> Result<(), ApiError> {
    let deadline = Instant::now() + limit;
    loop {
        match announce(config, phase, release) {
            Ok(()) => return Ok(()),
            Err(error) if is_refusal(&error) || Instant::now() >= deadline => return Err(error),
            Err(_) => std::thread::sleep(LOOK_AGAIN),
        }
    }
}

/// As [`announce_within`], for as long as it is worth while.
///
/// # Errors
/// What was said last.
pub fn announce_for_sure(
    config: &NodeConfig,
    phase: NodePhase,
    release: &ReleaseFacts,
) -> Result<()> {
    Ok(announce_within(config, phase, release, TELL_WITHIN)?)
}

/// While nodes run different releases, one with the newest leads: this one, unless such a one does already.
///
/// # Errors
/// Why it did not become the primary node.
pub fn lead(config: &NodeConfig, version: &str) -> Result<()> {
    let deadline = Instant::now() + LEADS_WITHIN;
    loop {
        let Some(view) = view(config)? else {
            return Ok(());
        };
        let led_by_new = view.primary_node.is_some_and(|node| {
            node == view.local_node
                || view
                    .observed(node)
                    .is_some_and(|seen| seen.observation.software_version == version)
        });
        // A node that does not vote cannot lead.
        if led_by_new || !view.voters.contains(&view.local_node) {
            return Ok(());
        }
        let intent = Intent::ChangePrimaryNode {
            node: Some(view.local_node),
        };
        let asked = ask(config, async |exec| exec.intent(&intent).await);
        if Instant::now() >= deadline {
            asked?;
            bail!("it was asked for, and did not happen");
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}

/// This node's proxy, as it says itself.
#[must_use]
pub fn proxy(config: &NodeConfig) -> Option<ProxyObservation> {
    let view = view(config).ok()??;
    view.observed(view.local_node)?.observation.proxy.clone()
}

/// Ports of the endpoints that this node's proxy serves.
///
/// # Errors
/// When `cnm_exec` does not say.
pub fn endpoints(config: &NodeConfig) -> Result<Vec<u16>> {
    let Some(view) = view(config)? else {
        return Ok(Vec::new());
    };
    let seen = view.observed(view.local_node);
    let serves = |database: &model::documents::Database| {
        let proxy = seen.and_then(|seen| seen.observation.proxy.as_ref());
        proxy.is_some_and(|proxy| {
            proxy
                .databases
                .iter()
                .any(|served| served.database == database.uid && served.listening)
        })
    };
    let served = view.databases.iter().filter(|database| serves(database));
    Ok(served.map(|database| database.port).collect())
}

/// Waits, for a time, until `cnm_exec`, which was just replaced, answers for the cluster: the proxy that comes
/// after it finds it there.
///
/// # Errors
/// What it says instead when the time is over.
pub fn wait_until_heard(config: &NodeConfig, limit: Duration) -> Result<()> {
    let deadline = Instant::now() + limit;
    while let Err(error) = view(config) {
        if Instant::now() >= deadline {
            return Err(error.context(format!("after {} s", limit.as_secs())));
        }
        std::thread::sleep(LOOK_SOON);
    }
    Ok(())
}

/// How long a cluster may take to be whole again after daemons of a node were replaced.
#[must_use]
pub fn patience() -> Duration {
    hurried("MAINSTAY_INSTALL_PATIENCE").unwrap_or(WHOLE_AGAIN)
}

/// What must be whole again after daemons were replaced.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scope<'a> {
    /// Everything: it was so before. What that is, the plan of this upgrade says.
    Cluster(&'a UpgradeTarget),
    /// What is on this node: the way back must not depend on others.
    Node,
}

/// Waits until this node is heard with `build_id`, proxy included, and what `scope` says is whole.
///
/// # Errors
/// What it still waits for when the time is over.
pub fn wait_until_whole(
    console: &Console,
    config: &NodeConfig,
    build_id: &str,
    scope: Scope<'_>,
) -> Result<()> {
    let limit = patience();
    let deadline = Instant::now() + limit;
    let mut told = Instant::now();
    loop {
        let waiting = match view(config) {
            Ok(None) => return Ok(()),
            Ok(Some(view)) => waiting_for(config, &view, build_id, scope),
            Err(error) => vec![format!("{error:#}")],
        };
        if waiting.is_empty() {
            return Ok(());
        }
        if Instant::now() >= deadline {
            bail!(
                "after {} s the cluster is not whole again:\n{}\n(logs: {})",
                limit.as_secs(),
                waiting.join("\n"),
                config.log_dir().display()
            );
        }
        if told.elapsed() >= TELL_EVERY {
            console.note(format!("waits for: {}", waiting.join("; ")));
            told = Instant::now();
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}

fn waiting_for(
    config: &NodeConfig,
    view: &ClusterView,
    build_id: &str,
    scope: Scope<'_>,
) -> Vec<String> {
    let mut waiting = match scope {
        Scope::Cluster(target) => not_whole(config, target),
        Scope::Node => shard_faults(view, |shard| shard.node == view.local_node),
    };
    let here = view.observed(view.local_node).map(|seen| &seen.observation);
    if here.is_none_or(|here| here.build_id != build_id) {
        waiting.push("cnm_exec of this node is not heard with the new build".to_owned());
    }
    let proxy = here.and_then(|here| here.proxy.as_ref());
    match proxy {
        Some(proxy) if proxy.build_id == build_id => {
            for database in proxy
                .databases
                .iter()
                .filter(|database| !database.shards_connected)
            {
                let error = database.error.as_deref().unwrap_or("not connected");
                waiting.push(format!("proxy, database {}: {error}", database.database));
            }
        }
        _ => waiting.push(format!(
            "{} of this node is not heard with the new build",
            layout::PROXY
        )),
    }
    waiting
}

/// What the plan finds of nodes, copies and proxies. What operators begin meanwhile is no fault of a release.
fn not_whole(config: &NodeConfig, target: &UpgradeTarget) -> Vec<String> {
    let plan = match plan(config, target) {
        Ok(Some(plan)) => plan,
        Ok(None) => return Vec::new(),
        Err(error) => return vec![format!("{error:#}")],
    };
    plan.blockers()
        .filter(|finding| is_of_health(finding.code))
        .map(|finding| finding.evidence.clone())
        .collect()
}

fn shard_faults(view: &ClusterView, counts: impl Fn(&Shard) -> bool) -> Vec<String> {
    let mut faults = Vec::new();
    for shard in view.shards.iter().filter(|shard| counts(shard)) {
        let seen = view.observed(shard.node).and_then(|node| {
            node.observation
                .shards
                .iter()
                .find(|seen| seen.shard == shard.uid)
        });
        let state = seen.map(|seen| seen.state);
        if state != Some(EngineState::Running) {
            let state = state.map_or("not seen".to_owned(), |state| format!("{state:?}"));
            faults.push(format!(
                "shard {} on node {} is {}",
                shard.uid,
                shard.node,
                state.to_lowercase()
            ));
        }
    }
    faults
}
