//! How the store and the controller reach other nodes.

use agent::Agent;
use bytes::Bytes;
use client::internode::{CallError, InternodeClient};
use controller::reconcile::{NodeError, Nodes};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use model::NodeUid;
use model::command::AgentCommand;
use model::documents::{Node, keys};
use model::observation::ShardObservation;
use std::time::Duration;
use store::{Member, RpcKind, Store, Transport, TransportError};

/// Path of a store's message in the internode interface.
#[must_use]
pub fn rpc_path(rpc: RpcKind) -> String {
    format!("/raft/{}", rpc.as_str())
}

/// The store's messages over the internode interface.
#[derive(Clone, Debug)]
pub struct RaftTransport(pub InternodeClient);

impl Transport for RaftTransport {
    fn call(
        &self,
        target: &Member,
        rpc: RpcKind,
        body: Bytes,
        timeout: Duration,
    ) -> BoxFuture<'static, Result<Bytes, TransportError>> {
        let client = self.0.clone();
        let address = target.address.clone();
        async move {
            client
                .raw(&address, &rpc_path(rpc), body, timeout)
                .await
                .map_err(transport_error)
        }
        .boxed()
    }
}

fn transport_error(error: CallError) -> TransportError {
    match error {
        CallError::Unreachable { .. } => TransportError::Unreachable(error.to_string()),
        CallError::Refused(error) => TransportError::Refused(error.to_string()),
    }
}

/// Agents of all nodes: this one's directly, the others' over the internode interface.
#[derive(Clone)]
pub struct AgentRoutes {
    /// This node.
    pub me: NodeUid,
    /// Its agent.
    pub agent: Agent,
    /// The others.
    pub internode: InternodeClient,
    /// Where their addresses are.
    pub store: Store,
}

impl std::fmt::Debug for AgentRoutes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AgentRoutes")
            .field("me", &self.me)
            .finish_non_exhaustive()
    }
}

impl Nodes for AgentRoutes {
    fn order(
        &self,
        node: NodeUid,
        command: AgentCommand,
    ) -> BoxFuture<'static, Result<Option<ShardObservation>, NodeError>> {
        let routes = self.clone();
        async move {
            if node == routes.me {
                return Ok(routes.agent.execute(command).await?);
            }
            let address = internode_address(&routes.store, node)
                .ok_or_else(|| NodeError::Unreachable(format!("node:{node} has no address")))?;
            let answer = routes
                .internode
                .agent(&address, &command)
                .await
                .map_err(|e| NodeError::Unreachable(e.to_string()))?;
            Ok(answer?)
        }
        .boxed()
    }
}

/// Internode address of a node, from the store.
#[must_use]
pub fn internode_address(store: &Store, node: NodeUid) -> Option<String> {
    let (node, _) = store.state().get::<Node>(&keys::node(node)).ok()??;
    Some(node.internode_address())
}
