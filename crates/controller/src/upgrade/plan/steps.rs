//! The steps of an upgrade, in order, and what clients notice of each.

use model::NodeUid;
use model::upgrade::{PlannedNode, PlannedStep, UpgradeTarget};
use model::view::ClusterView;

const NOTHING: &str = "nothing";
/// What the table of the proxy's step says; `docs/upgrade.md` has the whole story.
const HANDED_OVER: &str = "connections are handed over to the new proxy";

pub(super) fn all(
    view: &ClusterView,
    target: &UpgradeTarget,
    nodes: &[PlannedNode],
) -> Vec<PlannedStep> {
    let mut steps: Vec<PlannedStep> = Vec::new();
    let mut add = |node: Option<NodeUid>, what: String, clients: &str| {
        let number = u32::try_from(steps.len() + 1).unwrap_or(u32::MAX);
        steps.push(PlannedStep {
            number,
            node,
            what,
            clients: clients.to_owned(),
        });
    };
    let level = (view.cluster.feature_level, target.feature_max);
    for node in nodes.iter().filter(|node| node.state != "done") {
        let version = &target.version;
        let uid = Some(node.uid);
        add(
            uid,
            format!("unpack {version} beside the release in use, check each file"),
            NOTHING,
        );
        add(uid, format!("current points at {version}"), NOTHING);
        add(
            uid,
            "replace cnm_http: REST pauses for a moment".to_owned(),
            NOTHING,
        );
        let part = if node.primary && nodes.len() > 1 {
            "the part of the primary node goes to another one, then cnm_exec is replaced; engines are adopted"
        } else {
            "replace cnm_exec; engines are adopted, not restarted"
        };
        add(uid, part.to_owned(), NOTHING);
        add(uid, "replace dmcproxy".to_owned(), HANDED_OVER);
        add(
            uid,
            "see that the node is well, else go back by itself; then watch it for a moment"
                .to_owned(),
            NOTHING,
        );
    }
    if nodes.len() > 1 && nodes.iter().any(|node| node.state != "done") {
        add(
            None,
            "a node with the new release is the primary node".to_owned(),
            NOTHING,
        );
    }
    let soak = view.upgrade.soak();
    let how = if view.upgrade.hold_finalize {
        "hold_finalize is set: wait for `rladmin cluster upgrade finalize`".to_owned()
    } else {
        format!("soak for {soak} s, or until `rladmin cluster upgrade finalize`")
    };
    add(None, how, NOTHING);
    if level.1 > level.0 {
        add(
            None,
            format!(
                "point of no return: the feature level rises from {} to {}",
                level.0, level.1
            ),
            NOTHING,
        );
    }
    steps
}
