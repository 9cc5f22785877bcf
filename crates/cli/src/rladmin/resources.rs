//! What commands read from REST.

use super::failure::Failure;
use super::grammar::DatabaseRef;
use super::session::Context;
use model::rest::{Bdb, Endpoint, NodeInfo};
use model::{ApiError, ErrorCode, NodeUid};
use std::net::{IpAddr, SocketAddr};

/// The nodes.
///
/// # Errors
/// As REST answers.
pub async fn nodes(context: &Context) -> Result<Vec<NodeInfo>, ApiError> {
    context.rest.get("/v1/nodes").await
}

/// One node out of those.
///
/// # Errors
/// `node_not_found`, naming the nodes that there are.
pub fn node(nodes: &[NodeInfo], uid: NodeUid) -> Result<&NodeInfo, ApiError> {
    nodes.iter().find(|node| node.uid == uid).ok_or_else(|| {
        let known: Vec<String> = nodes
            .iter()
            .map(|node| format!("node:{}", node.uid))
            .collect();
        ApiError::new(
            ErrorCode::NodeNotFound,
            format!("there is no node:{uid}, only {}", known.join(", ")),
        )
    })
}

/// A database by id or name.
///
/// # Errors
/// `db_not_found`, and as REST answers.
pub async fn database(context: &Context, wanted: &DatabaseRef) -> Result<Bdb, Failure> {
    match wanted {
        DatabaseRef::Uid(uid) => Ok(context.rest.get(&format!("/v1/bdbs/{uid}")).await?),
        DatabaseRef::Name(_) => {
            let all: Vec<Bdb> = context.rest.get("/v1/bdbs").await?;
            Ok(find_database(&all, wanted)?.clone())
        }
    }
}

/// One database out of those.
///
/// # Errors
/// `db_not_found`.
pub fn find_database<'a>(all: &'a [Bdb], wanted: &DatabaseRef) -> Result<&'a Bdb, ApiError> {
    let (found, shown) = match wanted {
        DatabaseRef::Uid(uid) => (all.iter().find(|db| db.uid == *uid), format!("db:{uid}")),
        DatabaseRef::Name(name) => (all.iter().find(|db| db.name == *name), format!("'{name}'")),
    };
    found.ok_or_else(|| {
        ApiError::new(
            ErrorCode::DbNotFound,
            format!(
                "there is no database {shown}. {}",
                ErrorCode::DbNotFound.remedy()
            ),
        )
    })
}

/// `ip:port`, with brackets where IPv6 needs them.
#[must_use]
pub fn with_port(address: &str, port: u16) -> String {
    match address.parse::<IpAddr>() {
        Ok(ip) => SocketAddr::new(ip, port).to_string(),
        Err(_) => format!("{address}:{port}"),
    }
}

/// An address at which an endpoint serves now: at `local` if that is one, else at the first proxy
/// that is well. While a lost primary is being replaced none is: then at one that holds its clients.
#[must_use]
pub fn working_address(endpoint: &Endpoint, nodes: &[NodeInfo], local: NodeUid) -> Option<String> {
    let usable = endpoint.proxies.iter();
    let usable = usable.filter(|proxy| proxy.ok || proxy.listening);
    let chosen = usable.min_by_key(|proxy| (!proxy.ok, proxy.node_uid != local))?;
    let node = nodes.iter().find(|node| node.uid == chosen.node_uid)?;
    Some(with_port(&node.addr, endpoint.port))
}
