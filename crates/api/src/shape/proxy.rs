//! `/v1/proxies`.

use super::observation;
use model::documents::Node;
use model::rest::Proxy;
use model::tuning::ProxyMode;
use model::view::ClusterView;

/// The proxy of a node.
#[must_use]
pub fn info(view: &ClusterView, node: &Node) -> Proxy {
    let seen = observation(view, node.uid)
        .filter(|_| view.is_heard(node.uid))
        .and_then(|seen| seen.proxy.as_ref());
    let settings = &node.proxy;
    Proxy {
        uid: node.uid,
        threads: settings.threads,
        max_threads: settings.max_threads,
        dynamic_threads_scaling: settings.mode == ProxyMode::Dynamic,
        threads_usage_threshold: settings.scale_threshold,
        duration_usage_threshold: settings.scale_duration,
        mode: settings.mode,
        running_threads: seen.map(|proxy| proxy.threads),
        connections: seen.map_or(0, |proxy| proxy.connections),
    }
}
