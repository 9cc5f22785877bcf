//! Bootstraps go on when their caller goes away: each runs in a task of its own, one at a time.

use crate::certificates::Certificates;
use crate::failure::Failure;
use crate::request::bootstrap::Wanted;
use client::local::ExecClient;
use jiff::Timestamp;
use model::intent::BootstrapStatus;
use model::{ApiError, ErrorCode};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use tokio::task::JoinHandle;

/// The bootstrap that was asked for last through this process.
#[derive(Debug, Default)]
pub struct BootstrapRuns {
    last: Mutex<Last>,
    certificates: OnceLock<Arc<Certificates>>,
}

#[derive(Clone, Debug, Default)]
enum Last {
    #[default]
    None,
    Running {
        since: Timestamp,
    },
    Failed {
        since: Timestamp,
        ended: Timestamp,
        error: ApiError,
    },
}

impl BootstrapRuns {
    /// Names the certificates that a bootstrap replaces. Before it is reported as done they are in
    /// use: whoever reads "done" may let the next node join at once, and that one compares the CA.
    pub fn replaces(&self, certificates: Arc<Certificates>) {
        // A second server in one process does not exist; its certificates would be looked at twice
        // a second all the same.
        let _ = self.certificates.set(certificates);
    }

    /// Starts one.
    ///
    /// # Errors
    /// `busy` while another one runs.
    pub fn start(
        self: &Arc<Self>,
        exec: &ExecClient,
        wanted: Wanted,
    ) -> Result<JoinHandle<Result<BootstrapStatus, ApiError>>, Failure> {
        let since = Timestamp::now();
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(*last, Last::Running { .. }) {
            return Err(Failure::new(
                ErrorCode::Busy,
                "a bootstrap is running: follow it at GET /v1/bootstrap",
            ));
        }
        *last = Last::Running { since };
        drop(last);
        let (runs, exec) = (Arc::clone(self), exec.clone());
        Ok(tokio::spawn(async move {
            let action = wanted.action();
            tracing::info!(action, "a bootstrap begins");
            let result = match &wanted {
                Wanted::Create(create) => exec.create_cluster(create).await,
                Wanted::Join(join) => exec.join_cluster(join).await,
            };
            match &result {
                Ok(_) => {
                    if let Some(certificates) = runs.certificates.get() {
                        certificates.look();
                    }
                    tracing::info!(action, "the bootstrap is done");
                }
                Err(error) => tracing::warn!(action, %error, "the bootstrap failed"),
            }
            let ended = Timestamp::now();
            let now = match &result {
                Ok(_) => Last::None,
                Err(error) => Last::Failed {
                    since,
                    ended,
                    error: error.clone(),
                },
            };
            *runs.last.lock().unwrap_or_else(PoisonError::into_inner) = now;
            result
        }))
    }

    /// What `cnm_exec` says, and where it knows of nothing, what was asked for here.
    #[must_use]
    pub fn seen_from_here(&self, mut status: BootstrapStatus) -> BootstrapStatus {
        if status.state != "idle" {
            return status;
        }
        match self
            .last
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
        {
            Last::None => {}
            Last::Running { since } => {
                status.state = "initiated".to_owned();
                status.start_time = Some(since.to_string());
            }
            Last::Failed {
                since,
                ended,
                error,
            } => {
                status.state = "error".to_owned();
                status.start_time = Some(since.to_string());
                status.end_time = Some(ended.to_string());
                status.error_code = Some(error.error_code.to_string());
                status.error_details = Some(error.description);
            }
        }
        status
    }
}
