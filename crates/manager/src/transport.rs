//! How the store and the controller reach other nodes.

use crate::gates;
use crate::member::Member;
use bytes::Bytes;
use client::internode::{CallError, InternodeClient};
use controller::reconcile::{NodeError, Nodes};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use model::NodeUid;
use model::command::{AgentCommand, AgentRefusal};
use model::documents::{Node, keys};
use model::gate::{GateAnswer, GateCall};
use model::observation::ShardObservation;
use std::sync::{Arc, Weak};
use std::time::Duration;
use store::{RpcKind, Store, Transport, TransportError};

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
        target: &store::Member,
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
        CallError::NoSuchCall { .. } => TransportError::Refused(error.to_string()),
        CallError::Refused(error) => TransportError::Refused(error.to_string()),
    }
}

/// Agents and proxies of all nodes: this one's directly, the others' over the internode interface. The
/// member owns the task that has these.
#[derive(Clone, Debug)]
pub struct Routes(pub Weak<Member>);

impl Routes {
    fn member(&self) -> Result<Arc<Member>, NodeError> {
        let gone = || NodeError::Unreachable("this node is shutting down".to_owned());
        self.0.upgrade().ok_or_else(gone)
    }
}

fn address(member: &Member, node: NodeUid) -> Result<String, NodeError> {
    internode_address(&member.store, node)
        .ok_or_else(|| NodeError::Unreachable(format!("node:{node} has no address")))
}

impl Nodes for Routes {
    fn order(
        &self,
        node: NodeUid,
        command: AgentCommand,
    ) -> BoxFuture<'static, Result<Option<ShardObservation>, NodeError>> {
        let routes = self.clone();
        async move {
            let member = routes.member()?;
            if node == member.identity.node {
                return Ok(member.agent.execute(command).await?);
            }
            let answer = member
                .internode
                .agent(&address(&member, node)?, &command)
                .await
                .map_err(|e| NodeError::Unreachable(e.to_string()))?;
            Ok(answer?)
        }
        .boxed()
    }

    fn gate(
        &self,
        node: NodeUid,
        call: GateCall,
    ) -> BoxFuture<'static, Result<GateAnswer, NodeError>> {
        let routes = self.clone();
        async move {
            let member = routes.member()?;
            let answer = if node == member.identity.node {
                gates::call(&member, call).await
            } else {
                member
                    .internode
                    .gate(&address(&member, node)?, &call)
                    .await
                    .map_err(|e| NodeError::Unreachable(e.to_string()))?
            };
            answer.map_err(|reason| AgentRefusal::Failed { reason }.into())
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
