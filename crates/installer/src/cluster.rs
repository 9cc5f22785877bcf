//! The cluster as this node's `cnm_exec` sees it: what an upgrade asks before and after.

use crate::layout;
use anyhow::{Result, bail};
use client::local::ExecClient;
use model::documents::{OperationStatus, Shard};
use model::node_config::NodeConfig;
use model::observation::EngineState;
use model::view::{ClusterView, Consistency};
use model::{ErrorCode, NodeUid};
use semver::Version;
use std::time::{Duration, Instant};

/// How long a cluster may take to be whole again after the daemons of a node were replaced.
const WHOLE_AGAIN: Duration = Duration::from_secs(90);

/// Whether this node is in a cluster, and if so, what it looks like.
///
/// # Errors
/// When `cnm_exec` does not say.
pub fn view(config: &NodeConfig) -> Result<Option<ClusterView>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let exec = ExecClient::new(config.exec_socket());
    match runtime.block_on(exec.view(Consistency::Linearizable)) {
        Ok(view) => Ok(Some(view)),
        Err(error) if error.error_code == ErrorCode::NotMember => Ok(None),
        Err(error) => bail!("cnm_exec cannot tell of the cluster: {}", error.description),
    }
}

/// What is not as it should be, one line each.
#[must_use]
pub fn faults(view: &ClusterView) -> Vec<String> {
    let mut faults = Vec::new();
    if !view.has_quorum {
        faults.push("the cluster has no quorum: bring its other nodes up".to_owned());
    }
    for node in &view.nodes {
        if !view.is_heard(node.uid) {
            faults.push(format!("node {} ({}) is down", node.uid, node.address));
        }
    }
    faults.extend(shard_faults(view, |_| true));
    for operation in &view.operations {
        if matches!(
            operation.status,
            OperationStatus::Pending | OperationStatus::Active | OperationStatus::Paused
        ) {
            faults.push(format!(
                "operation {} on database {} is under way: wait until it has ended",
                operation.uid, operation.database
            ));
        }
    }
    faults
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

/// The primary node, as text, if it must be upgraded to `target` before this one.
#[must_use]
pub fn older_primary(view: &ClusterView, target: &Version) -> Option<String> {
    let versions: Vec<(NodeUid, Option<Version>)> = view
        .observed
        .iter()
        .map(|seen| &seen.observation)
        .map(|seen| (seen.node, seen.software_version.parse().ok()))
        .collect();
    let primary = must_precede(view.primary_node, view.local_node, &versions, target)?;
    let node = view.nodes.iter().find(|node| node.uid == primary);
    Some(node.map_or_else(
        || primary.to_string(),
        |node| format!("node {primary} ({})", node.address),
    ))
}

/// The primary node comes first only while no node runs the target yet: afterwards its part may have
/// moved to any of them, and any order will do.
fn must_precede(
    primary: Option<NodeUid>,
    local: NodeUid,
    versions: &[(NodeUid, Option<Version>)],
    target: &Version,
) -> Option<NodeUid> {
    let begun = versions
        .iter()
        .any(|(_, version)| version.as_ref().is_some_and(|version| version >= target));
    primary.filter(|primary| *primary != local && !begun)
}

/// What must be whole again after daemons were replaced.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Scope {
    /// Everything: it was so before.
    Cluster,
    /// What is on this node: the way back must not depend on others.
    Node,
}

/// Waits until this node is heard with `build_id`, proxy included, and what `scope` says is whole.
///
/// # Errors
/// What it still waits for when the time is over.
pub fn wait_until_whole(config: &NodeConfig, build_id: &str, scope: Scope) -> Result<()> {
    let deadline = Instant::now() + WHOLE_AGAIN;
    loop {
        let waiting = match view(config) {
            Ok(None) => return Ok(()),
            Ok(Some(view)) => waiting_for(&view, build_id, scope),
            Err(error) => vec![format!("{error:#}")],
        };
        if waiting.is_empty() {
            return Ok(());
        }
        if Instant::now() >= deadline {
            bail!(
                "after {} s the cluster is not whole again:\n{}\n(logs: {})",
                WHOLE_AGAIN.as_secs(),
                waiting.join("\n"),
                config.log_dir().display()
            );
        }
        std::thread::sleep(Duration::from_millis(250));
    }
}

fn waiting_for(view: &ClusterView, build_id: &str, scope: Scope) -> Vec<String> {
    let mut waiting = match scope {
        Scope::Cluster => faults(view),
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
            layout::DAEMONS[2]
        )),
    }
    waiting
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Who must come before node 2, on the way to 1.1.0.
    fn before_node_2(primary: Option<u64>, versions: [&str; 3]) -> Option<NodeUid> {
        let versions: Vec<_> = versions
            .iter()
            .zip(1..)
            .map(|(version, uid)| (NodeUid(uid), version.parse().ok()))
            .collect();
        let target = Version::new(1, 1, 0);
        must_precede(primary.map(NodeUid), NodeUid(2), &versions, &target)
    }

    #[test]
    fn the_primary_node_comes_first_until_one_node_is_upgraded() {
        let old = ["1.0.0"; 3];
        assert_eq!(before_node_2(Some(1), old), Some(NodeUid(1)));
        assert_eq!(before_node_2(Some(2), old), None, "it is the primary node");
        assert_eq!(before_node_2(None, old), None, "none is known");
        assert_eq!(before_node_2(Some(1), ["1.1.0", "1.0.0", "1.0.0"]), None);
        // Its part moved to a node that is not upgraded yet, after the first one was.
        assert_eq!(before_node_2(Some(3), ["1.1.0", "1.0.0", "1.0.0"]), None);
        assert_eq!(
            before_node_2(Some(3), ["?", "1.0.0", "1.0.0"]),
            Some(NodeUid(3))
        );
    }
}
