//! `cnm_exec` of other nodes: HTTP/2 with mutual TLS by the cluster's CA, port 3342, JSON bodies;
//! Raft messages and snapshots as raw bytes.
//!
//! | call | what |
//! |---|---|
//! | `POST /raft/{rpc}` | a message of the configuration store |
//! | `POST /heartbeat` [`NodeObservation`] | [`HeartbeatAnswer`], by the primary node |
//! | `POST /agent` [`AgentCommand`] | [`AgentAnswer`] |
//! | `POST /gate` [`GateCall`] | [`GateResult`] |
//! | `POST /clients` [`Question`] | [`Answered`] |
//! | `GET /view`, `POST /intent`, `POST /admit` | as on the local interface, forwarded to the primary node |
//! | `POST /bundle` | a piece of a bundle that lies there, as raw bytes |
//! | `POST /check` | [`NodeCheck`] of the node itself |

use crate::local::Answer;
use bytes::Bytes;
use model::clients::{Answered, Question};
use model::command::{AgentCommand, AgentRefusal};
use model::documents::Event;
use model::gate::{GateAnswer, GateCall};
use model::history::{HistoryAnswer, HistoryQuery};
use model::intent::{Intent, IntentOutcome, JoinGrant, JoinRequest};
use model::observation::{NodeObservation, ShardObservation};
use model::proxy::{LeaseCall, LeaseOutcome};
use model::rest::NodeCheck;
use model::view::{ClusterView, Observed};
use model::{ApiError, ErrorCode, NodeUid};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// What the primary node answers to a heartbeat.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HeartbeatAnswer {
    /// The primary node; an asked node that is not names the one it knows.
    pub primary: Option<NodeUid>,
    /// What the primary node has heard of every node: kept as the last known, for the time without
    /// a quorum.
    pub observed: Vec<Observed>,
}

/// What an agent answers.
pub type AgentAnswer = Result<Option<ShardObservation>, AgentRefusal>;

/// What a node's proxies answer; an error is theirs, in words.
pub type GateResult = Result<GateAnswer, String>;

/// A node's own certificate and the CA that all trust, PEM.
#[derive(Clone)]
pub struct NodeCertificates {
    /// The CA's certificate.
    pub ca: String,
    /// This node's certificate.
    pub certificate: String,
    /// Its key.
    pub key: String,
}

impl std::fmt::Debug for NodeCertificates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NodeCertificates").finish_non_exhaustive()
    }
}

impl NodeCertificates {
    /// The certificates, decoded.
    ///
    /// # Errors
    /// When the PEM text does not hold what it should.
    pub fn decode(&self) -> anyhow::Result<DecodedCertificates> {
        let key = rustls_pemfile::private_key(&mut self.key.as_bytes())?
            .ok_or_else(|| anyhow::anyhow!("the node's key file holds no key"))?;
        Ok(DecodedCertificates {
            chain: pem_certificates(&self.certificate)?,
            key,
            roots: roots(&self.ca)?,
        })
    }
}

/// Certificates as rustls wants them.
#[derive(Debug)]
pub struct DecodedCertificates {
    /// This node's certificate.
    pub chain: Vec<CertificateDer<'static>>,
    /// Its key.
    pub key: PrivateKeyDer<'static>,
    /// The CA.
    pub roots: rustls::RootCertStore,
}

/// Certificates of a PEM text.
///
/// # Errors
/// When there is none, or it is not PEM.
pub fn pem_certificates(pem: &str) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let chain = rustls_pemfile::certs(&mut pem.as_bytes()).collect::<Result<Vec<_>, _>>()?;
    anyhow::ensure!(!chain.is_empty(), "no certificate in the PEM text");
    Ok(chain)
}

/// A root store with the CA of a PEM text.
///
/// # Errors
/// When there is none, or it is not a certificate.
pub fn roots(ca: &str) -> anyhow::Result<rustls::RootCertStore> {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in pem_certificates(ca)? {
        roots.add(certificate)?;
    }
    Ok(roots)
}

/// Why an internode call failed.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// No answer: not reachable, or not within the time.
    #[error("no answer from {address}: {reason}")]
    Unreachable {
        /// The node's internode address.
        address: String,
        /// What went wrong.
        reason: String,
        /// Whether the request may have arrived: an order or a change may be carried out then.
        sent: bool,
    },
    /// An answer of a release that does not know the call.
    #[error("{address} does not know {path}")]
    NoSuchCall {
        /// The node's internode address.
        address: String,
        /// The call.
        path: String,
    },
    /// An answer that says no.
    #[error(transparent)]
    Refused(#[from] ApiError),
}

impl From<CallError> for ApiError {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Unreachable { sent: true, .. } => Self::new(
                ErrorCode::Timeout,
                format!("{error}; the change may still happen"),
            ),
            CallError::Unreachable { .. } => Self::new(ErrorCode::ConnectError, error.to_string()),
            CallError::NoSuchCall { .. } => Self::new(ErrorCode::InternalError, error.to_string()),
            CallError::Refused(error) => error,
        }
    }
}

/// Client of other nodes. Keeps connections open and shares them between calls.
#[derive(Clone, Debug)]
pub struct InternodeClient {
    http: reqwest::Client,
}

impl InternodeClient {
    /// A client that binds `source` and shows `certificates`.
    ///
    /// # Errors
    /// When the certificates cannot be used.
    pub fn new(source: IpAddr, certificates: &NodeCertificates) -> anyhow::Result<Self> {
        let decoded = certificates.decode()?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(decoded.roots)
            .with_client_auth_cert(decoded.chain, decoded.key)?;
        tls.alpn_protocols = vec![b"h2".to_vec()];
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .http2_prior_knowledge()
            .local_address(source)
            .connect_timeout(Duration::from_secs(2))
            .http2_keep_alive_interval(Duration::from_secs(5))
            .http2_keep_alive_timeout(Duration::from_secs(3))
            .no_proxy()
            .build()?;
        Ok(Self { http })
    }

    /// Sends raw bytes, gets raw bytes.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn raw(
        &self,
        address: &str,
        path: &str,
        body: Bytes,
        timeout: Duration,
    ) -> Result<Bytes, CallError> {
        let unreachable = |e: reqwest::Error| CallError::Unreachable {
            address: address.to_owned(),
            reason: chain(&e),
            sent: !e.is_connect(),
        };
        let request = self
            .http
            .post(format!("https://{address}{path}"))
            .header("content-type", "application/json")
            .timeout(timeout)
            .body(body);
        let response = request.send().await.map_err(unreachable)?;
        let status = response.status().as_u16();
        let headers = response.headers().clone();
        let body = response.bytes().await.map_err(unreachable)?;
        if status == 200 {
            return Ok(body);
        }
        // An error that a call answers has a body.
        if status == 404 && body.is_empty() {
            return Err(CallError::NoSuchCall {
                address: address.to_owned(),
                path: path.to_owned(),
            });
        }
        Err(Answer {
            status,
            headers,
            body,
        }
        .json::<()>()
        .err()
        .map_or_else(
            || CallError::Unreachable {
                address: address.to_owned(),
                reason: format!("HTTP status {status}"),
                sent: true,
            },
            CallError::Refused,
        ))
    }

    async fn json<B: Serialize, T: DeserializeOwned>(
        &self,
        address: &str,
        path: &str,
        body: &B,
        timeout: Duration,
    ) -> Result<T, CallError> {
        let internal = |what: &str, e: serde_json::Error| {
            CallError::Refused(ApiError::new(
                ErrorCode::InternalError,
                format!("{what} {path} of {address}: {e}"),
            ))
        };
        let body = serde_json::to_vec(body).map_err(|e| internal("encode", e))?;
        let answer = self.raw(address, path, body.into(), timeout).await?;
        serde_json::from_slice(&answer).map_err(|e| internal("decode answer to", e))
    }

    /// Tells the primary node of this node.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn heartbeat(
        &self,
        address: &str,
        observation: &NodeObservation,
    ) -> Result<HeartbeatAnswer, CallError> {
        self.json(address, "/heartbeat", observation, Duration::from_secs(3))
            .await
    }

    /// Orders a node's agent.
    ///
    /// # Errors
    /// [`CallError`]; what the agent itself says is inside the answer.
    pub async fn agent(
        &self,
        address: &str,
        command: &AgentCommand,
    ) -> Result<AgentAnswer, CallError> {
        self.json(address, "/agent", command, Duration::from_secs(60))
            .await
    }

    /// Has a node's proxies hold a replica set's commands, or go on with them.
    ///
    /// # Errors
    /// [`CallError`]; what the proxies say is inside the answer.
    pub async fn gate(&self, address: &str, call: &GateCall) -> Result<GateResult, CallError> {
        self.json(address, "/gate", call, Duration::from_secs(15))
            .await
    }

    /// Asks a node's proxies about their clients.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn clients(
        &self,
        address: &str,
        question: &Question,
        timeout: Duration,
    ) -> Result<Answered, CallError> {
        self.json(address, "/clients", question, timeout).await
    }

    /// Asks the primary node for a proxy's lease.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn lease(&self, address: &str, call: &LeaseCall) -> Result<LeaseOutcome, CallError> {
        self.json(address, "/lease", call, Duration::from_secs(1))
            .await
    }

    /// The cluster as the primary node sees it.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn view(&self, address: &str) -> Result<ClusterView, CallError> {
        self.json(address, "/view", &(), Duration::from_secs(5))
            .await
    }

    /// What happened, as the primary node knows it.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn events(&self, address: &str) -> Result<Vec<Event>, CallError> {
        self.json(address, "/events", &(), Duration::from_secs(5))
            .await
    }

    /// What databases did a while ago, as the primary node knows it.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn history(
        &self,
        address: &str,
        query: &HistoryQuery,
    ) -> Result<HistoryAnswer, CallError> {
        self.json(address, "/history", query, Duration::from_secs(5))
            .await
    }

    /// Asks the primary node for a change.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn intent(&self, address: &str, intent: &Intent) -> Result<IntentOutcome, CallError> {
        self.json(address, "/intent", intent, Duration::from_secs(25))
            .await
    }

    /// Asks the primary node to admit a joining node.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn admit(
        &self,
        address: &str,
        request: &JoinRequest,
    ) -> Result<JoinGrant, CallError> {
        self.json(address, "/admit", request, Duration::from_secs(25))
            .await
    }

    /// Has a node check itself.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn check(&self, address: &str) -> Result<NodeCheck, CallError> {
        self.json(address, "/check", &(), Duration::from_secs(50))
            .await
    }
}

/// An error with its causes, on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
