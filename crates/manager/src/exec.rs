//! The running program: before and after the node belongs to a cluster.

use crate::bootstrap::Progress;
use crate::certificates;
use crate::levels;
use crate::member::{self, Member};
use crate::program::Program;
use agent::{Agent, AgentConfig};
use anyhow::Context as _;
use client::internode::InternodeClient;
use model::node_config::NodeIdentity;
use model::{ApiError, ErrorCode};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// State of `cnm_exec`.
#[derive(Debug)]
pub struct Exec {
    /// The program.
    pub program: Program,
    /// This node's agent.
    pub agent: Agent,
    /// How far create or join is.
    pub progress: Mutex<Progress>,
    /// One create or join at a time.
    pub bootstrapping: tokio::sync::Mutex<()>,
    member: OnceLock<Arc<Member>>,
}

impl Exec {
    /// Starts the agent and, if the node belongs to a cluster, everything else.
    ///
    /// # Errors
    /// When something that must work does not; supervisord starts the program again.
    pub async fn start(program: Program) -> anyhow::Result<Arc<Self>> {
        let config = AgentConfig::new(program.config.clone(), program.release.clone());
        let agent = Agent::start(config).await.context("start the agent")?;
        let exec = Arc::new(Self {
            program,
            agent,
            progress: Mutex::new(Progress::default()),
            bootstrapping: tokio::sync::Mutex::new(()),
            member: OnceLock::new(),
        });
        if let Some(identity) = read_identity(&exec.program)? {
            let certificates = certificates::read(&exec.program.config)?;
            let client = InternodeClient::new(exec.program.config.address, &certificates)?;
            let store = member::open_store(&exec.program, identity.node, &client).await?;
            levels::check(exec.program.levels, &store.state())?;
            let member = Member::start(
                exec.program.clone(),
                exec.agent.clone(),
                identity,
                &certificates,
                store,
                client,
            )
            .await?;
            exec.set_member(member);
            exec.set_progress(Progress::completed());
        }
        Ok(exec)
    }

    /// The node as a member of its cluster.
    ///
    /// # Errors
    /// `not_member`.
    pub fn member(&self) -> Result<&Arc<Member>, ApiError> {
        self.member.get().ok_or_else(|| ErrorCode::NotMember.into())
    }

    /// Makes the node a member, once.
    pub fn set_member(&self, member: Arc<Member>) {
        if self.member.set(member).is_err() {
            tracing::error!("this node became a member twice");
        }
    }

    /// Notes how far create or join is.
    pub fn set_progress(&self, progress: Progress) {
        *self.progress.lock().unwrap_or_else(PoisonError::into_inner) = progress;
    }

    /// Ends in order.
    pub async fn shut_down(&self) {
        if let Some(member) = self.member.get() {
            member.shut_down().await;
        }
    }
}

/// Who this node is; `None` before it belongs to a cluster.
///
/// # Errors
/// When the file is there and cannot be read: guessing would make a second cluster.
pub fn read_identity(program: &Program) -> anyhow::Result<Option<NodeIdentity>> {
    let path = program.config.identity_path();
    match std::fs::read(&path) {
        Ok(bytes) => {
            let identity = serde_json::from_slice(&bytes)
                .with_context(|| format!("read {}", path.display()))?;
            Ok(Some(identity))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
    }
}

/// Writes who this node is: from here on it belongs to its cluster.
///
/// # Errors
/// When the file cannot be written.
pub fn write_identity(program: &Program, identity: &NodeIdentity) -> anyhow::Result<()> {
    let text = serde_json::to_vec_pretty(identity)?;
    certificates::replace(&program.config.identity_path(), &text, 0o640)
}
