//! `cluster …` and `tune cluster`.

use super::failure::Failure;
use super::operation::{LOOK_EVERY, is_passing};
use super::parse::Invocation;
use super::password::new_password;
use super::session::Context;
use model::rest::{
    Bootstrap, BootstrapRequest, ClusterIdentity, ClusterInfo, ClusterUpdate, Credentials,
    NodeIdentityFields, NodeIdentityRequest,
};
use model::{ApiError, ErrorCode, NodeUid, limits};
use serde_json::{Value, json};
use std::net::IpAddr;
use tokio::time::{Instant, sleep};

/// `cluster create`.
///
/// # Errors
/// As REST answers.
pub async fn create(context: &Context, invocation: &Invocation) -> Result<(), Failure> {
    confirm_address(context, invocation)?;
    let username = invocation.owned("username");
    let secret = new_password(
        &context.screen,
        invocation.text("password"),
        "Password of the admin",
    )?;
    let request = BootstrapRequest {
        action: Some("create_cluster".to_owned()),
        cluster: ClusterIdentity {
            name: invocation.owned("name"),
            ..ClusterIdentity::default()
        },
        credentials: Credentials {
            username: username.clone(),
            password: Some(secret.expose().to_owned()),
            ..Credentials::default()
        },
        node: node_identity(invocation),
    };
    context.screen.begin("Creating a new cluster... ");
    let done = bootstrap(context, "create_cluster", &request).await;
    context
        .screen
        .progress(if done.is_ok() { "ok" } else { "failed" });
    let done = done?;
    if context.screen.json {
        return context.screen.object(&done);
    }
    let address = context.installation.config.address;
    if let Some(fingerprint) = &done.local_node_info.ca_fingerprint {
        context
            .screen
            .line(format!("CA fingerprint (SHA-256): {fingerprint}"));
        context.screen.line(format!(
            "To add a node, run on it: rladmin cluster join nodes {address} username {} \
             ca_fingerprint {fingerprint}",
            username.unwrap_or_default()
        ));
    }
    let https = context.installation.config.ports.https;
    context.screen.line(format!(
        "REST: https://{}",
        super::resources::with_port(&address.to_string(), https)
    ));
    Ok(())
}

/// The parts of a bootstrap request that describe this node.
#[must_use]
pub fn node_identity(invocation: &Invocation) -> NodeIdentityRequest {
    let external = invocation.list("external_addr");
    NodeIdentityRequest {
        identity: Some(NodeIdentityFields {
            rack_id: invocation.owned("rack_id"),
            external_addr: (!external.is_empty()).then(|| external.to_vec()),
        }),
    }
}

/// The address is the install's; `addr` may only confirm it.
///
/// # Errors
/// `config_error` when it names another one.
pub fn confirm_address(context: &Context, invocation: &Invocation) -> Result<(), Failure> {
    let fixed = context.installation.config.address;
    match invocation.text("addr").map(str::parse::<IpAddr>) {
        Some(Ok(wanted)) if wanted != fixed => Err(ApiError::new(
            ErrorCode::ConfigError,
            format!(
                "this node was installed with the address {fixed}, not {wanted}. Leave addr out, \
                 or install the node with that address"
            ),
        )
        .into()),
        _ => Ok(()),
    }
}

/// Sends a bootstrap request and waits until this node is a member.
///
/// # Errors
/// As REST answers; why the bootstrap failed; that it takes too long.
pub async fn bootstrap(
    context: &Context,
    action: &str,
    request: &BootstrapRequest,
) -> Result<Bootstrap, Failure> {
    let _: Value = context
        .rest
        .post(&format!("/v1/bootstrap/{action}"), request)
        .await?;
    let until = Instant::now() + limits::READY_WAIT;
    loop {
        let state = match context.rest.get::<Bootstrap>("/v1/bootstrap").await {
            Ok(done) if done.bootstrap_status.state == "completed" => return Ok(done),
            Ok(now) if now.bootstrap_status.state == "error" => return Err(gave_up(&now)),
            Ok(now) => now.bootstrap_status.state,
            Err(error) if is_passing(&error) => error.description,
            Err(error) => return Err(error.into()),
        };
        if Instant::now() > until {
            return Err(Failure::Other(format!(
                "not done after {} s ({state}). It may still end well: see `rladmin status` and \
                 cnm_exec.log",
                limits::READY_WAIT.as_secs()
            )));
        }
        sleep(LOOK_EVERY).await;
    }
}

fn gave_up(now: &Bootstrap) -> Failure {
    let status = &now.bootstrap_status;
    let details = status
        .error_details
        .clone()
        .unwrap_or_else(|| "no details given".to_owned());
    let code = status
        .error_code
        .clone()
        .and_then(|code| serde_json::from_value::<ErrorCode>(Value::String(code)).ok());
    match code {
        Some(code) => ApiError::new(code, details).into(),
        None => Failure::Other(details),
    }
}

/// `cluster config`.
///
/// # Errors
/// As REST answers.
pub async fn config(context: &Context, invocation: &Invocation) -> Result<(), Failure> {
    let update = ClusterUpdate {
        cm_session_timeout_minutes: invocation.number("cm_session_timeout_minutes"),
        ..ClusterUpdate::default()
    };
    let answer: Value = context.rest.put("/v1/cluster", &update).await?;
    finished(context, &answer, "Cluster configured successfully")
}

/// `tune cluster`.
///
/// # Errors
/// As REST answers.
pub async fn tune(context: &Context, invocation: &Invocation) -> Result<(), Failure> {
    let update = ClusterUpdate {
        default_non_sharded_proxy_policy: invocation.choice("default_non_sharded_proxy_policy"),
        default_sharded_proxy_policy: invocation.choice("default_sharded_proxy_policy"),
        default_shards_placement: invocation.choice("default_shards_placement"),
        default_provisioned_redis_version: invocation.text("default_redis_version").map(
            |version| {
                if version == "newest" {
                    String::new()
                } else {
                    version.to_owned()
                }
            },
        ),
        rack_aware: invocation.text("rack_aware").map(|word| word == "enabled"),
        failure_detection_sensitivity: invocation.choice("failure_detection_sensitivity"),
        slave_ha: invocation.text("slave_ha").map(|word| word == "enabled"),
        slave_ha_grace_period: invocation.number("slave_ha_grace_period"),
        slave_ha_cooldown_period: invocation.number("slave_ha_cooldown_period"),
        slave_ha_bdb_cooldown_period: invocation.number("slave_ha_bdb_cooldown_period"),
        ..ClusterUpdate::default()
    };
    let answer: Value = context.rest.put("/v1/cluster/policy", &update).await?;
    finished(context, &answer, "Finished successfully")
}

fn finished(context: &Context, answer: &Value, text: &str) -> Result<(), Failure> {
    if context.screen.json {
        return context.screen.object(answer);
    }
    context.screen.line(text);
    Ok(())
}

/// `cluster master`.
///
/// # Errors
/// As REST answers; that the node did not become the primary node in time.
pub async fn master(context: &Context, invocation: &Invocation) -> Result<(), Failure> {
    let Some(wanted) = invocation.node("set") else {
        let cluster: ClusterInfo = context.rest.get("/v1/cluster").await?;
        let primary = cluster.primary_node.ok_or_else(|| {
            let code = if cluster.has_quorum {
                ErrorCode::NoPrimary
            } else {
                ErrorCode::NoQuorum
            };
            ApiError::from(code)
        })?;
        if context.screen.json {
            return context.screen.object(&json!({ "node_uid": primary }));
        }
        context
            .screen
            .line(format!("Node {primary} is the cluster master node"));
        return Ok(());
    };
    let body = json!({ "node_uid": wanted });
    let _: Value = context
        .rest
        .post("/v1/cluster/actions/change_master", &body)
        .await?;
    wait_for_primary(context, wanted).await?;
    if context.screen.json {
        return context.screen.object(&body);
    }
    context
        .screen
        .line(format!("Node {wanted} set to be the cluster master node"));
    Ok(())
}

async fn wait_for_primary(context: &Context, wanted: NodeUid) -> Result<(), Failure> {
    let until = Instant::now() + limits::READY_WAIT;
    loop {
        let now = match context.rest.get::<ClusterInfo>("/v1/cluster").await {
            Ok(cluster) if cluster.has_quorum && cluster.primary_node == Some(wanted) => {
                return Ok(());
            }
            Ok(cluster) => cluster
                .primary_node
                .map_or_else(|| "no node".to_owned(), |node| format!("node:{node}")),
            Err(error) if is_passing(&error) => error.description,
            Err(error) => return Err(error.into()),
        };
        if Instant::now() > until {
            return Err(Failure::Other(format!(
                "node:{wanted} did not become the primary node within {} s (now: {now}). Try again; \
                 see cnm_exec.log on that node",
                limits::READY_WAIT.as_secs()
            )));
        }
        sleep(LOOK_EVERY).await;
    }
}
