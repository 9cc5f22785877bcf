//! `cnm_http`: the REST API of a node. It has no state of its own: what it shows it asks
//! `cnm_exec` for, what is asked of it it hands to `cnm_exec`.
//!
//! | file | what |
//! |---|---|
//! | [`server`], [`connection`], [`certificates`] | the two sockets, their bounds, TLS and its live reload |
//! | [`auth`] | who asks, and what it may do |
//! | [`routes`] | one file an area of paths; [`openapi`] is made from them |
//! | [`request`] | bodies become intents (pure) |
//! | [`shape`] | the cluster's view becomes REST objects (pure) |
//! | [`answer`], [`failure`], [`body`], [`query`] | how answers, errors, bodies and parameters travel |
//! | [`bootstrap_runs`] | bootstraps that go on behind an answered request |
//! | [`access_log`] | one line a request |
//! | [`process`] | lock file, parent-death signal, the release that runs |

pub mod access_log;
pub mod answer;
pub mod auth;
pub mod body;
pub mod bootstrap_runs;
pub mod certificates;
pub mod connection;
pub mod failure;
pub mod openapi;
pub mod process;
pub mod query;
pub mod request;
pub mod routes;
pub mod server;
pub mod shape;

use crate::answer::state_that_was_read;
use crate::auth::credentials::Authenticator;
use crate::bootstrap_runs::BootstrapRuns;
use crate::failure::Failure;
use crate::process::Release;
use axum::http::HeaderMap;
use client::local::ExecClient;
use model::ErrorCode;
use model::node_config::NodeConfig;
use model::view::{ClusterView, Consistency};
use std::future::Future;
use std::sync::Arc;
use tokio::sync::Semaphore;

/// Requests that are worked on at the same time; more wait.
const REQUESTS_AT_ONCE: usize = 64;

/// What every request can reach.
#[derive(Clone, Debug)]
pub struct App {
    /// `cnm_exec` of this node.
    pub exec: ExecClient,
    /// This node's configuration.
    pub config: Arc<NodeConfig>,
    /// Checks passwords.
    pub authenticator: Arc<Authenticator>,
    /// Bootstraps under way.
    pub bootstraps: Arc<BootstrapRuns>,
    /// Turns of requests.
    pub turns: Arc<Semaphore>,
}

impl App {
    /// For the node of `config`.
    #[must_use]
    pub fn new(config: NodeConfig) -> Self {
        let exec = ExecClient::new(config.exec_socket());
        Self {
            authenticator: Arc::new(Authenticator::new(exec.clone())),
            exec,
            config: Arc::new(config),
            bootstraps: Arc::default(),
            turns: Arc::new(Semaphore::new(REQUESTS_AT_ONCE)),
        }
    }

    /// The cluster after everything that was acknowledged before, or without a quorum what this
    /// node knows.
    ///
    /// # Errors
    /// As [`ExecClient::view`].
    pub async fn view(&self) -> Result<ClusterView, Failure> {
        Ok(self.exec.view(Consistency::Linearizable).await?)
    }

    /// The cluster before a change; refuses when the caller says that it read another revision.
    ///
    /// # Errors
    /// `wrong_cluster_state_id`, and as [`Self::view`].
    pub async fn view_for_change(&self, headers: &HeaderMap) -> Result<ClusterView, Failure> {
        let read = state_that_was_read(headers)?;
        let view = self.view().await?;
        match read {
            Some(revision) if revision != view.revision => Err(Failure::new(
                ErrorCode::WrongClusterStateId,
                format!(
                    "the configuration is at {}, not at {revision}: read it again and repeat the \
                     change",
                    view.revision
                ),
            )),
            _ => Ok(view),
        }
    }
}

/// Serves REST until `shutdown`; then answers what is under way for a few seconds.
///
/// The caller has made sure that it is the only one for this node ([`process::Lock`]).
///
/// # Errors
/// When a socket cannot be opened or a certificate cannot be made.
pub async fn run(
    config: NodeConfig,
    release: Release,
    shutdown: impl Future<Output = ()> + Send,
) -> anyhow::Result<()> {
    tracing::info!(
        version = %release.version,
        build_id = %release.build_id,
        address = %config.https_address(),
        socket = %config.http_socket().display(),
        "cnm_http starts"
    );
    server::serve(App::new(config), shutdown).await?;
    tracing::info!("cnm_http has ended");
    Ok(())
}
