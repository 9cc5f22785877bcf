//! The interface for other nodes: HTTP/2 with mutual TLS; see [`client::internode`] for the calls.
//! Who has no certificate of the cluster's CA does not get as far as a request.

use crate::local::{Answer, Failure, known_intent};
use crate::member::Member;
use crate::turns::{self, PieceWanted};
use crate::{bootstrap, gates, leases, primary, questions, view};
use anyhow::Context as _;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::routing::post;
use axum::{Json, Router};
use client::internode::{AgentAnswer, GateResult, HeartbeatAnswer, NodeCertificates};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use model::clients::{Answered, Question};
use model::command::AgentCommand;
use model::documents::Event;
use model::gate::GateCall;
use model::history::{HistoryAnswer, HistoryQuery};
use model::intent::{IntentOutcome, JoinGrant, JoinRequest};
use model::node_config::NodeConfig;
use model::observation::NodeObservation;
use model::proxy::{LeaseCall, LeaseOutcome};
use model::rest::NodeCheck;
use model::view::ClusterView;
use model::{ApiError, ErrorCode, NodeUid};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};
use store::RpcKind;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;

/// Largest body: a snapshot of the whole configuration.
const BODY_MAX: usize = store::transport::MAX_BODY;
/// Most connections: a few from each of 35 nodes.
const CONNECTIONS_MAX: usize = 512;
/// A handshake that takes longer is not one.
const HANDSHAKE_MAX: Duration = Duration::from_secs(5);
/// How long a node may take to check itself.
const CHECK_MAX: Duration = Duration::from_secs(45);

/// Binds the internode address.
///
/// # Errors
/// When it cannot be bound.
pub fn bind(config: &NodeConfig) -> anyhow::Result<TcpListener> {
    let address = config.internode_address();
    let work = || {
        let socket = if address.is_ipv4() {
            TcpSocket::new_v4()?
        } else {
            TcpSocket::new_v6()?
        };
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(256)
    };
    work().with_context(|| format!("listen on {address}"))
}

/// TLS that demands a certificate of the cluster's CA.
///
/// # Errors
/// When the certificates cannot be used.
pub fn acceptor(certificates: &NodeCertificates) -> anyhow::Result<TlsAcceptor> {
    let decoded = certificates.decode()?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(
        Arc::new(decoded.roots),
        Arc::clone(&provider),
    )
    .build()?;
    let mut tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier)
        .with_single_cert(decoded.chain, decoded.key)?;
    tls.alpn_protocols = vec![b"h2".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(tls)))
}

/// Serves other nodes until the task is dropped.
pub async fn serve(member: Arc<Member>, listener: TcpListener, acceptor: TlsAcceptor) {
    let router = router(Arc::clone(&member));
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = Arc::clone(&room).acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, peer)) => {
                let acceptor = acceptor.clone();
                let router = router.clone();
                tokio::spawn(async move {
                    if let Err(error) = connection(stream, acceptor, router).await {
                        tracing::debug!(%peer, "internode connection ended: {error:#}");
                    }
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a node's connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

pub(crate) async fn connection(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    router: Router,
) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    let stream = tokio::time::timeout(HANDSHAKE_MAX, acceptor.accept(stream)).await??;
    let mut server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    server
        .timer(hyper_util::rt::TokioTimer::new())
        .keep_alive_interval(Duration::from_secs(10))
        .keep_alive_timeout(Duration::from_secs(5))
        .max_concurrent_streams(128);
    server
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
        .await?;
    Ok(())
}

fn router(member: Arc<Member>) -> Router {
    Router::new()
        .route("/raft/{rpc}", post(raft))
        .route("/heartbeat", post(heartbeat))
        .route("/agent", post(agent))
        .route("/gate", post(gate))
        .route("/lease", post(lease))
        .route("/clients", post(clients))
        .route("/view", post(view_here))
        .route("/intent", post(intent))
        .route("/admit", post(admit))
        .route("/bundle", post(bundle))
        .route("/events", post(events))
        .route("/history", post(history))
        .route("/check", post(check_here))
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .with_state(member)
}

async fn raft(
    State(member): State<Arc<Member>>,
    Path(rpc): Path<String>,
    body: Bytes,
) -> Result<Bytes, Failure> {
    let rpc = RpcKind::ALL
        .into_iter()
        .find(|kind| kind.as_str() == rpc)
        .ok_or_else(|| ApiError::from(ErrorCode::NotFound))?;
    let answer = member.store.handle(rpc, body).await;
    Ok(answer.map_err(|e| controller::reconcile::store_error(&e))?)
}

async fn heartbeat(
    State(member): State<Arc<Member>>,
    Json(observation): Json<NodeObservation>,
) -> Json<HeartbeatAnswer> {
    let status = member.store.status();
    if !status.is_leader {
        return Json(HeartbeatAnswer {
            primary: status.leader,
            observed: Vec::new(),
        });
    }
    member.controller.heard(observation);
    let observed = view::told(&member, Instant::now());
    Json(HeartbeatAnswer {
        primary: Some(status.node),
        observed,
    })
}

async fn agent(
    State(member): State<Arc<Member>>,
    Json(command): Json<AgentCommand>,
) -> Json<AgentAnswer> {
    // To its end, even if the primary node goes away meanwhile.
    let agent = member.agent.clone();
    let answer = tokio::spawn(async move { agent.execute(command).await }).await;
    Json(answer.unwrap_or_else(|error| Err(model::command::AgentRefusal::failed(error))))
}

async fn gate(State(member): State<Arc<Member>>, Json(call): Json<GateCall>) -> Json<GateResult> {
    Json(gates::call(&member, call).await)
}

async fn lease(
    State(member): State<Arc<Member>>,
    Json(call): Json<LeaseCall>,
) -> Json<LeaseOutcome> {
    Json(leases::here(&member, call).await)
}

async fn clients(
    State(member): State<Arc<Member>>,
    Json(question): Json<Question>,
) -> Json<Answered> {
    Json(questions::of_other_node(&member, question).await)
}

async fn view_here(State(member): State<Arc<Member>>) -> Answer<ClusterView> {
    Ok(Json(primary::here(&member).await?))
}

async fn intent(State(member): State<Arc<Member>>, body: Bytes) -> Answer<IntentOutcome> {
    let intent = known_intent(&body)?;
    Ok(Json(primary::intent_here(&member, &intent).await?))
}

async fn admit(
    State(member): State<Arc<Member>>,
    Json(request): Json<JoinRequest>,
) -> Answer<JoinGrant> {
    Ok(Json(bootstrap::admit_here(&member, request).await?))
}

async fn bundle(
    State(member): State<Arc<Member>>,
    Json(wanted): Json<PieceWanted>,
) -> Result<Vec<u8>, Failure> {
    Ok(turns::piece(&member, wanted).await?)
}

async fn events(State(member): State<Arc<Member>>) -> Answer<Vec<Event>> {
    let state = member.store.state();
    let events = primary::events_of(&state).map_err(|e| controller::reconcile::store_error(&e))?;
    Ok(Json(events))
}

async fn history(
    State(member): State<Arc<Member>>,
    Json(query): Json<HistoryQuery>,
) -> Json<HistoryAnswer> {
    Json(crate::history::here(&member, query))
}

async fn check_here(State(member): State<Arc<Member>>) -> Answer<NodeCheck> {
    Ok(Json(check_myself(&member).await))
}

/// Has a node check itself, wherever it is.
///
/// # Errors
/// `node_not_found`, `connect_error`.
pub async fn check(member: &Member, node: NodeUid) -> Result<NodeCheck, ApiError> {
    if node == member.identity.node {
        return Ok(check_myself(member).await);
    }
    let address = crate::transport::internode_address(&member.store, node).ok_or_else(|| {
        ApiError::new(ErrorCode::NodeNotFound, format!("there is no node:{node}"))
    })?;
    Ok(member.internode.check(&address).await?)
}

/// Runs `rlcheck` of this node's release: one set of checks, wherever they are asked from.
async fn check_myself(member: &Member) -> NodeCheck {
    let node_uid = member.identity.node;
    let run = tokio::process::Command::new(member.program.release.join("bin/rlcheck"))
        .arg("--continue-on-error")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let failed = |error: String| NodeCheck {
        node_uid,
        result: false,
        error: Some(error),
    };
    match tokio::time::timeout(CHECK_MAX, run).await {
        Err(_) => failed(format!(
            "the checks did not end within {} s",
            CHECK_MAX.as_secs()
        )),
        Ok(Err(error)) => failed(format!("the checks could not be run: {error}")),
        Ok(Ok(output)) if output.status.success() => NodeCheck {
            node_uid,
            result: true,
            error: None,
        },
        Ok(Ok(output)) => {
            let text = String::from_utf8_lossy(&output.stdout);
            let lines: Vec<&str> = text
                .lines()
                .map(str::trim)
                .filter(|line| line.starts_with("FAIL"))
                .collect();
            failed(if lines.is_empty() {
                text.trim().to_owned()
            } else {
                lines.join("; ")
            })
        }
    }
}
