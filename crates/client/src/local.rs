//! `cnm_exec` of this node, over its unix socket: HTTP/1.1, JSON.
//!
//! | call | answer |
//! |---|---|
//! | `GET /local/bootstrap` | [`BootstrapStatus`] |
//! | `POST /local/create-cluster` [`CreateCluster`] | [`BootstrapStatus`] when done |
//! | `POST /local/join-cluster` [`JoinCluster`] | [`BootstrapStatus`] when done |
//! | `POST /local/admit` [`JoinRequest`] | [`JoinGrant`]; a member admits a joining node |
//! | `GET /local/view?consistency=…` | [`ClusterView`] |
//! | `POST /local/intent` [`Intent`] | [`IntentOutcome`] |
//! | `POST /local/upgrade-plan` [`UpgradeTarget`] | [`UpgradePlan`]; changes nothing |
//! | `POST /local/upgrade-start` [`GivenBundle`] | [`IntentOutcome`], when the bundle is verified and the upgrade has begun |
//! | `GET /local/events` | the newest [`Event`]s, oldest first |
//! | `POST /local/history` [`HistoryQuery`] | [`HistoryAnswer`] |
//! | `POST /local/check/{uid}` | [`NodeCheck`] of that node |
//! | `POST /local/drain` | [`Drained`], when this node's primaries are on other nodes, as far as they can |
//! | `POST /local/stop-engines` | when every engine of this node has saved and stopped |
//!
//! A failed call answers [`ApiError`] with the code's HTTP status.

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use model::documents::Event;
use model::history::{HistoryAnswer, HistoryQuery};
use model::intent::{
    BootstrapStatus, CreateCluster, Drained, Intent, IntentOutcome, JoinCluster, JoinGrant,
    JoinRequest,
};
use model::rest::NodeCheck;
use model::upgrade::run::GivenBundle;
use model::upgrade::{UpgradePlan, UpgradeTarget};
use model::view::{ClusterView, Consistency};
use model::{ApiError, ErrorCode, NodeUid};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::UnixStream;

/// Largest answer that is read, bytes.
const ANSWER_MAX: usize = 64 * 1024 * 1024;

/// Client of `cnm_exec`. Opens a connection for each call: calls are few, and a restarted
/// `cnm_exec` is met at once.
#[derive(Clone, Debug)]
pub struct ExecClient {
    socket: PathBuf,
}

impl ExecClient {
    /// For the socket at `socket` ([`model::node_config::NodeConfig::exec_socket`]).
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self {
            socket: socket.into(),
        }
    }

    /// Where this node is in its bootstrap.
    ///
    /// # Errors
    /// `not_ready` while `cnm_exec` does not answer.
    pub async fn bootstrap(&self) -> Result<BootstrapStatus, ApiError> {
        self.get("/local/bootstrap", 10).await
    }

    /// Makes this node the first of a new cluster; returns when it is.
    ///
    /// # Errors
    /// As [`ErrorCode`] says.
    pub async fn create_cluster(
        &self,
        request: &CreateCluster,
    ) -> Result<BootstrapStatus, ApiError> {
        self.post("/local/create-cluster", request, 60).await
    }

    /// Makes this node a member of a cluster; returns when it is.
    ///
    /// # Errors
    /// As [`ErrorCode`] says.
    pub async fn join_cluster(&self, request: &JoinCluster) -> Result<BootstrapStatus, ApiError> {
        self.post("/local/join-cluster", request, 90).await
    }

    /// Admits a node that wants to join. The caller has checked who asks.
    ///
    /// # Errors
    /// As [`ErrorCode`] says.
    pub async fn admit(&self, request: &JoinRequest) -> Result<JoinGrant, ApiError> {
        self.post("/local/admit", request, 30).await
    }

    /// The cluster.
    ///
    /// # Errors
    /// `not_member` before the bootstrap, `not_ready` while `cnm_exec` does not answer.
    pub async fn view(&self, consistency: Consistency) -> Result<ClusterView, ApiError> {
        let word = match consistency {
            Consistency::Linearizable => "linearizable",
            Consistency::Local => "local",
        };
        // What this node knows is there at once; a confirmed answer may wait for an election.
        let seconds = match consistency {
            Consistency::Linearizable => 15,
            Consistency::Local => 5,
        };
        self.get(&format!("/local/view?consistency={word}"), seconds)
            .await
    }

    /// Asks for a change.
    ///
    /// # Errors
    /// As [`ErrorCode`] says.
    pub async fn intent(&self, intent: &Intent) -> Result<IntentOutcome, ApiError> {
        self.post("/local/intent", intent, 30).await
    }

    /// Plans an upgrade; changes nothing.
    ///
    /// # Errors
    /// As [`Self::view`].
    pub async fn upgrade_plan(&self, target: &UpgradeTarget) -> Result<UpgradePlan, ApiError> {
        self.post("/local/upgrade-plan", target, 20).await
    }

    /// Upgrades all nodes by a bundle that was given to this node.
    ///
    /// # Errors
    /// `upgrade_bundle_refused`, what stands against it.
    pub async fn upgrade_start(&self, given: &GivenBundle) -> Result<IntentOutcome, ApiError> {
        self.post("/local/upgrade-start", given, 115).await
    }

    /// What happened.
    ///
    /// # Errors
    /// As [`Self::view`].
    pub async fn events(&self) -> Result<Vec<Event>, ApiError> {
        self.get("/local/events", 15).await
    }

    /// What databases did a while ago.
    ///
    /// # Errors
    /// As [`Self::view`].
    pub async fn history(&self, query: &HistoryQuery) -> Result<HistoryAnswer, ApiError> {
        self.post("/local/history", query, 15).await
    }

    /// Checks a node's settings and services.
    ///
    /// # Errors
    /// `node_not_found`, or `connect_error` when it is not heard.
    pub async fn check(&self, node: NodeUid) -> Result<NodeCheck, ApiError> {
        self.post(&format!("/local/check/{node}"), &(), 60).await
    }

    /// Gives this node's primaries to other nodes: the node is going down.
    ///
    /// # Errors
    /// `not_member`, or `not_ready` while `cnm_exec` does not answer.
    pub async fn drain(&self) -> Result<Drained, ApiError> {
        self.post("/local/drain", &(), 40).await
    }

    /// Saves and stops every engine of this node: the node is going down.
    ///
    /// # Errors
    /// `not_ready` while `cnm_exec` does not answer.
    pub async fn stop_engines(&self) -> Result<(), ApiError> {
        self.post("/local/stop-engines", &(), 60).await
    }

    async fn get<T: DeserializeOwned>(&self, path: &str, seconds: u64) -> Result<T, ApiError> {
        let answer = call(&self.socket, Method::GET, path, Bytes::new(), seconds).await?;
        answer.json()
    }

    async fn post<B: Serialize, T: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
        seconds: u64,
    ) -> Result<T, ApiError> {
        let body = serde_json::to_vec(body)
            .map_err(|e| ApiError::new(ErrorCode::InternalError, format!("encode {path}: {e}")))?;
        call(&self.socket, Method::POST, path, body.into(), seconds)
            .await?
            .json()
    }
}

/// A raw answer.
#[derive(Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Headers.
    pub headers: hyper::HeaderMap,
    /// Body.
    pub body: Bytes,
}

impl Answer {
    /// The body as an object, or the error that it holds.
    ///
    /// # Errors
    /// The [`ApiError`] of a failed call; `internal_error` when the body is neither.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, ApiError> {
        let wrong = |e: serde_json::Error| {
            ApiError::new(ErrorCode::InternalError, format!("unexpected answer: {e}"))
        };
        if (200..300).contains(&self.status) {
            let body: &[u8] = if self.body.is_empty() {
                b"null"
            } else {
                &self.body
            };
            return serde_json::from_slice(body).map_err(wrong);
        }
        Err(
            serde_json::from_slice::<ApiError>(&self.body).unwrap_or_else(|_| {
                let text =
                    String::from_utf8_lossy(&self.body[..self.body.len().min(300)]).into_owned();
                ApiError::new(
                    ErrorCode::InternalError,
                    format!("HTTP status {}: {text}", self.status),
                )
            }),
        )
    }
}

/// One HTTP/1.1 call over a unix socket.
///
/// # Errors
/// `not_ready` when nobody listens, `timeout` after `seconds`.
pub async fn call(
    socket: &Path,
    method: Method,
    path: &str,
    body: Bytes,
    seconds: u64,
) -> Result<Answer, ApiError> {
    let who = socket
        .file_stem()
        .map_or_else(String::new, |s| s.to_string_lossy().into_owned());
    // What was asked may have been carried out before an answer was missed.
    let (cut, or_not) = match method {
        Method::GET => (ErrorCode::NotReady, ""),
        _ => (ErrorCode::Timeout, "; the change may still happen"),
    };
    let work = async {
        let stream = UnixStream::connect(socket)
            .await
            .map_err(|e| unreachable(&who, socket, &e))?;
        exchange(TokioIo::new(stream), method, path, body)
            .await
            .map_err(|e| ApiError::new(cut, format!("{who} ended the connection: {e}{or_not}")))
    };
    tokio::time::timeout(Duration::from_secs(seconds), work)
        .await
        .unwrap_or_else(|_| {
            let advice = match who.as_str() {
                "cnm_exec" => {
                    ". If it goes on so, it hangs, or its disk does: `supervisorctl restart cnm_exec` \
                     is harmless at any time"
                }
                _ => "",
            };
            Err(ApiError::new(
                ErrorCode::Timeout,
                format!("{who} did not answer within {seconds} s{or_not}{advice}"),
            ))
        })
}

fn unreachable(who: &str, socket: &Path, error: &std::io::Error) -> ApiError {
    let description = match error.kind() {
        std::io::ErrorKind::PermissionDenied => format!(
            "{} may only be used by members of the node's group: use sudo, or join the group",
            socket.display()
        ),
        _ => format!(
            "{who} is not running on this node ({}: {error})",
            socket.display()
        ),
    };
    ApiError::new(ErrorCode::NotReady, description)
}

async fn exchange(
    io: TokioIo<UnixStream>,
    method: Method,
    path: &str,
    body: Bytes,
) -> anyhow::Result<Answer> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await?;
    let driver = tokio::spawn(connection);
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "localhost")
        .header("content-type", "application/json")
        .body(Full::new(body))?;
    let response = sender.send_request(request).await?;
    let (parts, incoming) = response.into_parts();
    let body = Limited::new(incoming, ANSWER_MAX)
        .collect()
        .await
        .map_err(|e| anyhow::anyhow!("read answer: {e}"))?
        .to_bytes();
    driver.abort();
    Ok(Answer {
        status: parts.status.as_u16(),
        headers: parts.headers,
        body,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::UnixListener;

    #[tokio::test]
    async fn a_daemon_that_hangs_is_named_with_what_helps() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("cnm_exec.sock");
        // Nobody accepts.
        let _listener = UnixListener::bind(&socket).unwrap();
        for (method, or_not) in [(Method::GET, false), (Method::POST, true)] {
            let error = call(&socket, method, "/", Bytes::new(), 1)
                .await
                .unwrap_err();
            assert_eq!(error.error_code, ErrorCode::Timeout);
            let told = error.description;
            assert!(told.starts_with("cnm_exec did not answer within 1 s"));
            assert_eq!(told.contains("may still happen"), or_not, "{told}");
            assert!(told.contains("`supervisorctl restart cnm_exec`"), "{told}");
        }
    }

    /// What was asked may have been done before its connection was cut.
    #[tokio::test]
    async fn a_change_that_is_cut_off_may_have_happened() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("cnm_exec.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                stream.readable().await.unwrap();
            }
        });
        let cases = [
            (Method::GET, ErrorCode::NotReady),
            (Method::POST, ErrorCode::Timeout),
        ];
        for (method, code) in cases {
            let error = call(&socket, method, "/", Bytes::new(), 5)
                .await
                .unwrap_err();
            assert_eq!(error.error_code, code, "{error:?}");
        }
    }
}
