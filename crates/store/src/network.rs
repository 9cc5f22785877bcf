//! Requests of Raft to other members, carried by the caller's [`Transport`], and those of others.

use crate::config::StoreConfig;
use crate::error::StoreError;
use crate::machine;
use crate::raft::{Address, Raft, Snapshot, Types, Vote};
use crate::record::{RecordError, SnapshotHeader};
use crate::store::{Node, stopped};
use crate::transport::{Member, RpcKind, Transport, TransportError};
use crate::wire::{
    self, Append, AppendAnswer, InstallSnapshot, Message, PreVote, PreVoteAnswer, SnapshotAnswer,
    TakeOver, TakeOverAnswer, VoteAnswer, VoteRequest,
};
use bytes::Bytes;
use model::NodeUid;
use openraft::error::{
    InstallSnapshotError, RPCError, RaftError, ReplicationClosed, StreamingError, Unreachable,
};
use openraft::network::{Backoff, RPCOption};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse,
    SnapshotResponse,
};
use openraft::{RaftNetwork, RaftNetworkFactory};
use sha2::{Digest, Sha256};
use std::io::Cursor;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;

/// A member that did not answer is tried again after so long.
const RETRY: Duration = Duration::from_millis(200);

/// Why a request brought no answer that can be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    #[error(transparent)]
    Transport(#[from] TransportError),
    #[error("answer: {0}")]
    Answer(#[from] RecordError),
}

/// Reaches every member.
#[derive(Clone)]
pub(crate) struct Network {
    transport: Arc<dyn Transport>,
    me: NodeUid,
    vote_timeout: Duration,
}

impl Network {
    pub(crate) fn new(config: &StoreConfig, transport: Arc<dyn Transport>) -> Self {
        Self {
            transport,
            me: config.node,
            vote_timeout: config.vote_timeout(),
        }
    }

    /// Asks a member and reads its answer.
    pub(crate) async fn call<A: Message>(
        &self,
        target: &Member,
        rpc: RpcKind,
        message: &impl Message,
        timeout: Duration,
    ) -> Result<A, CallError> {
        let body = wire::request(self.me, target.uid, message);
        let call = self.transport.call(target, rpc, body, timeout);
        let body = tokio::time::timeout(timeout, call)
            .await
            .map_err(|_| CallError::Transport(TransportError::Timeout))??;
        Ok(wire::read_answer(&body)?)
    }
}

impl RaftNetworkFactory<Types> for Network {
    type Network = Link;

    async fn new_client(&mut self, target: u64, node: &Address) -> Link {
        let target = Member {
            uid: NodeUid(target),
            address: node.0.clone(),
        };
        Link {
            network: self.clone(),
            target,
        }
    }
}

/// Reaches one member.
pub(crate) struct Link {
    network: Network,
    target: Member,
}

type Answer<T, E = RaftError<u64>> = Result<T, RPCError<u64, Address, E>>;

impl Link {
    /// Every failure counts as unreachable, so that the library waits before it tries again.
    async fn ask<A: Message>(
        &self,
        rpc: RpcKind,
        message: &impl Message,
        option: &RPCOption,
    ) -> Result<A, Unreachable> {
        self.network
            .call(&self.target, rpc, message, option.hard_ttl())
            .await
            .map_err(|error| Unreachable::new(&error))
    }
}

impl RaftNetwork<Types> for Link {
    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> Answer<AppendEntriesResponse<u64>> {
        let message = Append {
            vote: rpc.vote,
            previous: rpc.prev_log_id,
            committed: rpc.leader_commit,
            entries: rpc.entries,
        };
        let answer = self.ask(RpcKind::Append, &message, &option).await?;
        Ok(match answer {
            AppendAnswer::Success => AppendEntriesResponse::Success,
            AppendAnswer::Partial(matched) => AppendEntriesResponse::PartialSuccess(matched),
            AppendAnswer::Conflict => AppendEntriesResponse::Conflict,
            AppendAnswer::HigherVote(vote) => AppendEntriesResponse::HigherVote(vote),
        })
    }

    /// Never called: `full_snapshot` sends a snapshot in one piece.
    async fn install_snapshot(
        &mut self,
        _rpc: InstallSnapshotRequest<Types>,
        _option: RPCOption,
    ) -> Answer<InstallSnapshotResponse<u64>, RaftError<u64, InstallSnapshotError>> {
        let error = std::io::Error::other("snapshots are sent in one piece");
        Err(RPCError::Unreachable(Unreachable::new(&error)))
    }

    /// The library's own limit is tied to the lease: a vote may take longer to be written.
    async fn vote(
        &mut self,
        rpc: openraft::raft::VoteRequest<u64>,
        _option: RPCOption,
    ) -> Answer<openraft::raft::VoteResponse<u64>> {
        let message = VoteRequest {
            vote: rpc.vote,
            last_log: rpc.last_log_id,
        };
        let option = RPCOption::new(self.network.vote_timeout);
        let answer: VoteAnswer = self.ask(RpcKind::Vote, &message, &option).await?;
        Ok(openraft::raft::VoteResponse {
            vote: answer.vote,
            vote_granted: answer.granted,
            last_log_id: answer.last_log,
        })
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<u64>, StreamingError<Types, openraft::error::Fatal<u64>>> {
        let body = snapshot.snapshot.into_inner();
        let header = SnapshotHeader {
            meta: snapshot.meta,
            body_len: body.len() as u64,
            checksum: Sha256::digest(&body).into(),
        };
        let message = InstallSnapshot { vote, header, body };
        tokio::select! {
            closed = cancel => Err(StreamingError::Closed(closed)),
            answer = self.ask::<SnapshotAnswer>(RpcKind::Snapshot, &message, &option) => {
                Ok(SnapshotResponse::new(answer?.vote))
            }
        }
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(std::iter::repeat(RETRY))
    }
}

/// Does what another member asks for.
pub(crate) async fn handle(node: &Node, rpc: RpcKind, body: &[u8]) -> Result<Bytes, StoreError> {
    let me = node.config.node;
    match rpc {
        RpcKind::PreVote => {
            let asked: PreVote = wire::read_request(me, body)?;
            let granted = node.would_vote(asked.last_log).await?;
            Ok(wire::answer(&PreVoteAnswer { granted }))
        }
        RpcKind::Vote => vote(&node.raft, wire::read_request(me, body)?).await,
        RpcKind::Append => append(node, wire::read_request(me, body)?).await,
        RpcKind::Snapshot => snapshot(node, wire::read_request(me, body)?).await,
        RpcKind::TakeOver => {
            let asked: TakeOver = wire::read_request(me, body)?;
            let accepted = node.take_over(asked.last_log).await?;
            Ok(wire::answer(&TakeOverAnswer { accepted }))
        }
    }
}

async fn vote(raft: &Raft, asked: VoteRequest) -> Result<Bytes, StoreError> {
    let request = openraft::raft::VoteRequest::new(asked.vote, asked.last_log);
    let answer = raft.vote(request).await.map_err(stopped)?;
    Ok(wire::answer(&VoteAnswer {
        vote: answer.vote,
        granted: answer.vote_granted,
        last_log: answer.last_log_id,
    }))
}

/// Gives Raft what a leader sent when it has done with what came before. Raft keeps what it was given until the disk has it,
/// and the leader sends it again and again: the rest is kept only as long as its callers wait.
async fn in_turn<T: Send + 'static>(
    turn: &Arc<Mutex<()>>,
    work: impl Future<Output = T> + Send + 'static,
) -> Result<T, StoreError> {
    let turn = Arc::clone(turn).lock_owned().await;
    // Raft goes on with it if the caller is gone.
    let done = tokio::spawn(async move {
        let done = work.await;
        drop(turn);
        done
    });
    done.await
        .map_err(|error| StoreError::Storage(error.to_string()))
}

async fn append(node: &Node, asked: Append) -> Result<Bytes, StoreError> {
    let _heard = node.hearing.begin(asked.vote, node.metrics().vote);
    let request = AppendEntriesRequest {
        vote: asked.vote,
        prev_log_id: asked.previous,
        entries: asked.entries,
        leader_commit: asked.committed,
    };
    let raft = node.raft.clone();
    let done = in_turn(&node.appending, async move {
        raft.append_entries(request).await
    });
    let answer = match done.await?.map_err(stopped)? {
        AppendEntriesResponse::Success => AppendAnswer::Success,
        AppendEntriesResponse::PartialSuccess(matched) => AppendAnswer::Partial(matched),
        AppendEntriesResponse::Conflict => AppendAnswer::Conflict,
        AppendEntriesResponse::HigherVote(vote) => AppendAnswer::HigherVote(vote),
    };
    Ok(wire::answer(&answer))
}

async fn snapshot(node: &Node, asked: InstallSnapshot) -> Result<Bytes, StoreError> {
    // A damaged one is refused here: once Raft has it, it cannot be refused any more.
    let asked = tokio::task::spawn_blocking(move || {
        machine::decode(&asked.header, &asked.body).map(|_| asked)
    })
    .await
    .map_err(|error| StoreError::Storage(error.to_string()))??;
    let snapshot = openraft::Snapshot {
        meta: asked.header.meta,
        snapshot: Box::new(Cursor::new(asked.body)),
    };
    let raft = node.raft.clone();
    let done = in_turn(&node.installing, async move {
        raft.install_full_snapshot(asked.vote, snapshot).await
    });
    let answer = done
        .await?
        .map_err(|error| stopped(RaftError::<u64, openraft::error::Infallible>::Fatal(error)))?;
    Ok(wire::answer(&SnapshotAnswer { vote: answer.vote }))
}
