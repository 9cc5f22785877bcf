//! `tune proxy`.

use super::failure::Failure;
use super::parse::Invocation;
use super::session::Context;
use model::rest::{Proxy, ProxyUpdate};

/// `tune proxy`.
///
/// # Errors
/// As REST answers: `node_not_found`, `invalid_param`.
pub async fn tune(context: &Context, invocation: &Invocation) -> Result<(), Failure> {
    let update = ProxyUpdate {
        uid: None,
        threads: invocation.number("threads"),
        max_threads: invocation.number("max_threads"),
        dynamic_threads_scaling: invocation.text("mode").map(|mode| mode == "dynamic"),
        threads_usage_threshold: invocation.number("scale_threshold"),
        duration_usage_threshold: invocation.number("scale_duration"),
    };
    let changed: Vec<Proxy> = match invocation.operand_node() {
        Some(uid) => vec![
            context
                .rest
                .put(&format!("/v1/proxies/{uid}"), &update)
                .await?,
        ],
        None => context.rest.put("/v1/proxies", &update).await?,
    };
    if context.screen.json {
        return context.screen.object(&changed);
    }
    for proxy in &changed {
        context.screen.line(format!("- proxy:{}: ok", proxy.uid));
    }
    Ok(())
}
