//! `POST /v1/bootstrap/create_cluster` and `…/join_cluster`.

use super::invalid;
use crate::failure::Failure;
use model::intent::{CreateCluster, JoinCluster};
use model::node_config::NodeConfig;
use model::rest::BootstrapRequest;
use model::validate::shown;
use model::{ErrorCode, Secret, limits, validate};
use std::net::{IpAddr, SocketAddr};

/// Most addresses of a node as seen from outside.
const EXTERNAL_MAX: usize = 16;

/// What a node is to become part of.
#[derive(Clone, Debug, PartialEq)]
pub enum Wanted {
    /// A new cluster.
    Create(CreateCluster),
    /// A cluster that exists.
    Join(JoinCluster),
}

impl Wanted {
    /// `create_cluster` or `join_cluster`.
    #[must_use]
    pub const fn action(&self) -> &'static str {
        match self {
            Self::Create(_) => "create_cluster",
            Self::Join(_) => "join_cluster",
        }
    }
}

/// Reads a request for `action`; `node` is the node that is asked.
///
/// # Errors
/// The code of the first rule that is broken.
pub fn wanted(
    action: &str,
    request: &BootstrapRequest,
    node: &NodeConfig,
) -> Result<Wanted, Failure> {
    if !["create_cluster", "join_cluster"].contains(&action) {
        return Err(invalid(format!(
            "'{}' is not a bootstrap action: use create_cluster or join_cluster",
            shown(action)
        )));
    }
    if request
        .action
        .as_deref()
        .is_some_and(|named| named != action)
    {
        return Err(invalid(format!(
            "action is not the path's: leave it out, or say {action}"
        )));
    }
    let (username, password) = credentials(request)?;
    let identity = request.node.identity.clone().unwrap_or_default();
    let rack_id = identity.rack_id.filter(|text| !text.is_empty());
    rack_id.as_deref().map_or(Ok(()), validate::rack_id)?;
    let external_address = identity.external_addr.unwrap_or_default();
    external(&external_address)?;
    if action == "create_cluster" {
        let name = cluster_name(request)?;
        let create = CreateCluster {
            name,
            username,
            password,
            rack_id,
            external_address,
        };
        return Ok(Wanted::Create(create));
    }
    let (ca_fingerprint, trusted_ca) = expected_ca(request)?;
    Ok(Wanted::Join(JoinCluster {
        nodes: members(&request.cluster.nodes, node)?,
        username,
        password,
        ca_fingerprint,
        trusted_ca,
        rack_id,
        external_address,
    }))
}

fn cluster_name(request: &BootstrapRequest) -> Result<String, Failure> {
    if !request.cluster.nodes.is_empty() {
        return Err(invalid(
            "cluster.nodes belongs to join_cluster: leave it out",
        ));
    }
    if request.credentials.trusted_ca.is_some() || request.credentials.ca_fingerprint.is_some() {
        return Err(invalid(
            "credentials.trusted_ca and credentials.ca_fingerprint belong to join_cluster: leave \
             them out",
        ));
    }
    let name = request.cluster.name.as_deref().unwrap_or_default();
    validate::cluster_name(name)?;
    Ok(name.to_owned())
}

fn credentials(request: &BootstrapRequest) -> Result<(String, Secret), Failure> {
    let given = &request.credentials;
    let username = given.username.as_deref().unwrap_or_default();
    validate::email(username)?;
    let password = given.password.as_deref().unwrap_or_default();
    validate::password(password)?;
    Ok((username.to_owned(), Secret::new(password)))
}

fn external(addresses: &[String]) -> Result<(), Failure> {
    if addresses.len() > EXTERNAL_MAX {
        return Err(invalid(format!(
            "external_addr has at most {EXTERNAL_MAX} addresses"
        )));
    }
    match addresses
        .iter()
        .find(|text| text.parse::<IpAddr>().is_err())
    {
        None => Ok(()),
        Some(text) => Err(invalid(format!(
            "external_addr: '{}' is not an IP address",
            shown(text)
        ))),
    }
}

fn members(nodes: &[String], me: &NodeConfig) -> Result<Vec<String>, Failure> {
    if nodes.is_empty() || nodes.len() > limits::NODES_MAX {
        return Err(invalid(format!(
            "cluster.nodes has the addresses of 1 to {} nodes that are in the cluster",
            limits::NODES_MAX
        )));
    }
    for text in nodes {
        let address = text
            .parse::<SocketAddr>()
            .or_else(|_| {
                text.parse::<IpAddr>()
                    .map(|ip| SocketAddr::new(ip, me.ports.https))
            })
            .map_err(|_| {
                invalid(format!(
                    "cluster.nodes: '{}' is not an address: write an IP address, or IP:port",
                    shown(text)
                ))
            })?;
        if address == me.https_address() {
            return Err(ErrorCode::JoinSelf.into());
        }
    }
    Ok(nodes.to_vec())
}

/// Fingerprint and certificate of the CA that is expected. Without both, `cnm_exec` reads the
/// fingerprint that the other node shows, sends nothing, and refuses with it: the caller decides.
fn expected_ca(request: &BootstrapRequest) -> Result<(Option<String>, Option<String>), Failure> {
    let text = |field: &Option<String>| field.clone().filter(|text| !text.trim().is_empty());
    let fingerprint = text(&request.credentials.ca_fingerprint);
    let certificate = text(&request.credentials.trusted_ca);
    if let Some(fingerprint) = &fingerprint {
        let digits = fingerprint.bytes().filter(|b| *b != b':');
        if digits.clone().count() != 64 || !digits.clone().all(|b| b.is_ascii_hexdigit()) {
            return Err(invalid(format!(
                "credentials.ca_fingerprint '{}' is not a SHA-256 fingerprint: 64 hex digits, \
                 colons allowed",
                shown(fingerprint)
            )));
        }
    }
    if let Some(pem) = &certificate
        && !matches!(
            rustls_pemfile::certs(&mut pem.as_bytes()).next(),
            Some(Ok(_))
        )
    {
        return Err(invalid(
            "credentials.trusted_ca is not a certificate in PEM",
        ));
    }
    Ok((fingerprint, certificate))
}
