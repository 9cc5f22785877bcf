//! `info proxy`: what a node's proxy is and does.

use super::super::failure::Failure;
use super::super::parse::Invocation;
use super::super::session::Context;
use super::{Facts, chosen_nodes};
use model::observation::{LatencySummary, ProxyErrors};
use model::rest::{NodeInfo, Proxy, ProxyInfo};
use model::tuning::ProxyMode;
use model::units::format_size;

/// `info proxy`.
///
/// # Errors
/// As REST answers; `node_not_found`.
pub async fn proxy(context: &Context, invocation: &Invocation) -> Result<(), Failure> {
    let shown = chosen_nodes(context, invocation).await?;
    let all: Vec<Proxy> = context.rest.get("/v1/proxies").await?;
    let settings = |node: &NodeInfo| all.iter().find(|proxy| proxy.uid == node.uid);
    if context.screen.json {
        let proxies: Vec<_> = shown
            .iter()
            .map(|node| {
                let (settings, proxy) = (settings(node), &node.proxy);
                serde_json::json!({ "node_uid": node.uid, "settings": settings, "proxy": proxy })
            })
            .collect();
        return context.screen.object(&proxies);
    }
    for node in &shown {
        context.screen.text(&facts_of_proxy(node, settings(node)));
    }
    Ok(())
}

/// A number of threads as it is set.
fn chosen(threads: u32, otherwise: &str) -> String {
    match threads {
        0 => otherwise.to_owned(),
        given => given.to_string(),
    }
}

fn add_settings(facts: &mut Facts, settings: &Proxy) {
    facts.add(
        "mode",
        match settings.mode {
            ProxyMode::Dynamic => "dynamic",
            ProxyMode::Static => "static",
        },
    );
    facts.add(
        "scale_threshold",
        format!("{} (%)", settings.threads_usage_threshold),
    );
    facts.add(
        "scale_duration",
        format!("{} (seconds)", settings.duration_usage_threshold),
    );
    facts.add(
        "max_threads",
        chosen(settings.max_threads, "three quarters of the cores"),
    );
    facts.add("threads", chosen(settings.threads, "half of the cores"));
}

fn facts_of_proxy(node: &NodeInfo, settings: Option<&Proxy>) -> String {
    let mut facts = Facts::of(&format!("proxy:{}", node.uid));
    if let Some(settings) = settings {
        add_settings(&mut facts, settings);
    }
    match &node.proxy {
        Some(proxy) => {
            facts.add("running threads", proxy.threads.to_string());
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
