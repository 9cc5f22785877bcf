//! `PUT /v1/proxies` and `PUT /v1/proxies/{uid}`.

use super::invalid;
use crate::failure::Failure;
use model::NodeUid;
use model::rest::ProxyUpdate;
use model::tuning::{ProxyChange, ProxyMode};

/// A change of one proxy, or of all.
///
/// # Errors
/// `invalid_param`: `uid` is not the one of the path.
pub fn change(request: &ProxyUpdate, node: Option<NodeUid>) -> Result<ProxyChange, Failure> {
    if request.uid.is_some() && request.uid != node {
        return Err(invalid("uid is the one of the path: leave it out"));
    }
    let mode = request
        .dynamic_threads_scaling
        .map(|dynamic| match dynamic {
            true => ProxyMode::Dynamic,
            false => ProxyMode::Static,
        });
    Ok(ProxyChange {
        mode,
        threads: request.threads,
        max_threads: request.max_threads,
        scale_threshold: request.threads_usage_threshold,
        scale_duration: request.duration_usage_threshold,
    })
}
