//! `cnm_http` of this node, over its unix socket: the REST API without a password, for members of
//! the node's group. What `rladmin`, `install.sh` and `rlcheck` use.

use crate::local::{Answer, call};
use bytes::Bytes;
use hyper::Method;
use model::{ApiError, ErrorCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::path::PathBuf;

/// How long an answer to a question may take, seconds: longer than `cnm_http` waits for `cnm_exec`,
/// so that the cause is told by who knows it.
const READ_WITHIN: u64 = 20;
/// How long a change may take: a node joins in it. So may a check of all nodes.
const CHANGE_WITHIN: u64 = 120;

/// Client of REST over the unix socket.
#[derive(Clone, Debug)]
pub struct RestClient {
    socket: PathBuf,
}

impl RestClient {
    /// For the socket at `socket` ([`model::node_config::NodeConfig::http_socket`]).
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self {
            socket: socket.into(),
        }
    }

    /// `GET path`.
    ///
    /// # Errors
    /// As REST answers; `not_ready` when `cnm_http` does not run, `timeout`.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ApiError> {
        self.raw(Method::GET, path, Bytes::new()).await?.json()
    }

    /// `POST path` with a body.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub async fn post<B: Serialize, T: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
    ) -> Result<T, ApiError> {
        self.raw(Method::POST, path, encode(body)?).await?.json()
    }

    /// `PUT path` with a body.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub async fn put<B: Serialize, T: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
    ) -> Result<T, ApiError> {
        self.raw(Method::PUT, path, encode(body)?).await?.json()
    }

    /// `PUT path` with bytes as they are.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub async fn put_bytes<T: DeserializeOwned>(
        &self,
        path: &str,
        body: impl Into<Bytes>,
    ) -> Result<T, ApiError> {
        self.raw(Method::PUT, path, body.into()).await?.json()
    }

    /// `DELETE path`.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub async fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T, ApiError> {
        self.raw(Method::DELETE, path, Bytes::new()).await?.json()
    }

    async fn raw(&self, method: Method, path: &str, body: Bytes) -> Result<Answer, ApiError> {
        let seconds = if method == Method::GET && !path.ends_with("/check") {
            READ_WITHIN
        } else {
            CHANGE_WITHIN
        };
        call(&self.socket, method, path, body, seconds).await
    }
}

fn encode<B: Serialize>(body: &B) -> Result<Bytes, ApiError> {
    serde_json::to_vec(body)
        .map(Bytes::from)
        .map_err(|e| ApiError::new(ErrorCode::InternalError, format!("encode request: {e}")))
}
