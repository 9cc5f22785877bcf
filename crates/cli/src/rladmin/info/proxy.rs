//! `info proxy`: what a node's proxy is and does.

use super::super::failure::Failure;
use super::super::parse::Invocation;
use super::super::session::Context;
use super::{Facts, chosen_nodes};
use model::observation::{LatencySummary, ProxyErrors};
use model::rest::{NodeInfo, ProxyInfo};
use model::units::format_size;

/// `info proxy`.
///
/// # Errors
/// As REST answers; `node_not_found`.
pub async fn proxy(context: &Context, invocation: &Invocation) -> Result<(), Failure> {
    let shown = chosen_nodes(context, invocation).await?;
    if context.screen.json {
        let proxies: Vec<_> = shown
            .iter()
            .map(|node| serde_json::json!({ "node_uid": node.uid, "proxy": node.proxy }))
            .collect();
        return context.screen.object(&proxies);
    }
    for node in &shown {
        context.screen.text(&facts_of_proxy(node));
    }
    Ok(())
}

fn facts_of_proxy(node: &NodeInfo) -> String {
    let mut facts = Facts::of(&format!("proxy:{}", node.uid));
    match &node.proxy {
        Some(proxy) => {
            // The number of threads is set when the process starts.
            facts.add("mode", "static");
            facts.add("threads", proxy.threads.to_string());
            add_traffic(&mut facts, proxy);
            facts.add("software version", &proxy.software_version);
            facts.add("build", &proxy.software_version_sha);
            facts.add("applied state id", proxy.applied_state_id.to_string());
            facts.add("pid", proxy.pid.to_string());
        }
        None => facts.add("status", "not heard"),
    }
    facts.text
}

fn add_traffic(facts: &mut Facts, proxy: &ProxyInfo) {
    let (now, since_start) = (&proxy.per_second, &proxy.since_start);
    facts.add("connections", proxy.connections.to_string());
    facts.add(
        "connections accepted",
        format!("{} ({}/s)", since_start.accepted, now.accepted),
    );
    facts.add("connections refused", since_start.refused.to_string());
    facts.add("commands in flight", proxy.in_flight.to_string());
    facts.add(
        "commands/s",
        format!(
            "{} (read {}, write {}, other {})",
            now.read_req + now.write_req + now.other_req,
            now.read_req,
            now.write_req,
            now.other_req
        ),
    );
    facts.add(
        "traffic/s",
        format!(
            "{} in, {} out",
            format_size(now.ingress_bytes),
            format_size(now.egress_bytes)
        ),
    );
    facts.add("latency", latency(&proxy.latency.shared.last_second));
    facts.add(
        "latency of own connections",
        latency(&proxy.latency.own.last_second),
    );
    facts.add("slow commands", since_start.slow.to_string());
    facts.add("errors", errors(&since_start.errors));
}

/// Of the last second; empty when there was nothing to measure.
fn latency(latency: &LatencySummary) -> String {
    if latency.count == 0 {
        return String::new();
    }
    let shown = |micros: u64| format!("{}.{:03} ms", micros / 1_000, micros % 1_000);
    format!(
        "p50 {}, p99 {}, max {}",
        shown(latency.p50_us),
        shown(latency.p99_us),
        shown(latency.max_us)
    )
}

/// Since the proxy's server started.
fn errors(errors: &ProxyErrors) -> String {
    format!(
        "engine {}, refused {}, unavailable {}, outcome unknown {}, protocol {}, unread {}",
        errors.engine,
        errors.refused,
        errors.unavailable,
        errors.outcome_unknown,
        errors.protocol,
        errors.unread
    )
}
