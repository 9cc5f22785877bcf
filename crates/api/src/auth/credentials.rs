//! HTTP Basic, checked against the users of the cluster.
//!
//! Checking a password costs tens of milliseconds and 19 MiB on purpose. So what was right is
//! remembered for [`REMEMBERED_FOR`], by a keyed hash over user, password and stored hash: a changed
//! or removed password is forgotten with the next reading of the users, after [`USERS_AGE`] at most.

use crate::failure::Failure;
use argon2::Argon2;
use argon2::password_hash::{PasswordVerifier, phc::PasswordHash};
use axum::http::{HeaderMap, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use client::local::ExecClient;
use model::documents::{ManagementRole, User};
use model::view::Consistency;
use model::{ApiError, ErrorCode, Secret};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;

/// How long a password that was right is not checked again.
const REMEMBERED_FOR: Duration = Duration::from_secs(60);
/// Most passwords that are remembered.
const REMEMBERED_MAX: usize = 256;
/// How old the list of users may be.
const USERS_AGE: Duration = Duration::from_secs(1);
/// Passwords that are checked at the same time.
const CHECKS_AT_ONCE: usize = 2;
/// How long a check waits for its turn.
const TURN_WITHIN: Duration = Duration::from_secs(5);
/// Longest `authorization` header that is looked at, bytes.
const HEADER_MAX: usize = 2_048;

/// A user name and a password as they came.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// E-mail.
    pub username: String,
    /// Password.
    pub password: Secret,
}

impl Credentials {
    /// Reads HTTP Basic from a request's headers; `None` when there is none that can be read.
    #[must_use]
    pub fn from_headers(headers: &HeaderMap) -> Option<Self> {
        let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
        let (scheme, encoded) = value.split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("basic") || encoded.len() > HEADER_MAX {
            return None;
        }
        let text = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
        let (username, password) = text.split_once(':')?;
        Some(Self {
            username: username.to_owned(),
            password: Secret::new(password),
        })
    }
}

/// Checks credentials.
#[derive(Debug)]
pub struct Authenticator {
    exec: ExecClient,
    users: tokio::sync::Mutex<Option<Reading>>,
    key: [u8; 32],
    remembered: Mutex<HashMap<[u8; 32], Instant>>,
    turns: Arc<Semaphore>,
}

/// The users as they were read.
#[derive(Clone, Debug)]
struct Reading {
    at: Instant,
    users: Arc<[User]>,
}

impl Authenticator {
    /// Asks `exec` for the users.
    #[must_use]
    pub fn new(exec: ExecClient) -> Self {
        Self {
            exec,
            users: tokio::sync::Mutex::new(None),
            key: rand::random(),
            remembered: Mutex::new(HashMap::new()),
            turns: Arc::new(Semaphore::new(CHECKS_AT_ONCE)),
        }
    }

    /// The users, at most [`USERS_AGE`] old, or fresh.
    ///
    /// # Errors
    /// As [`ExecClient::view`]: `not_member` before the bootstrap.
    async fn users(&self, fresh: bool) -> Result<Reading, ApiError> {
        // Held while asking: many requests at once ask once.
        let mut kept = self.users.lock().await;
        if let Some(reading) = kept
            .as_ref()
            .filter(|r| !fresh && r.at.elapsed() <= USERS_AGE)
        {
            return Ok(reading.clone());
        }
        let at = Instant::now();
        let view = self
            .exec
            .view(Consistency::Local)
            .await
            .inspect_err(|_| *kept = None)?;
        let reading = Reading {
            at,
            users: view.users.into(),
        };
        *kept = Some(reading.clone());
        Ok(reading)
    }

    /// Whether this node belongs to a cluster.
    ///
    /// # Errors
    /// `not_ready` while `cnm_exec` does not answer.
    pub async fn is_member(&self) -> Result<bool, ApiError> {
        match self.users(false).await {
            Ok(_) => Ok(true),
            Err(error) if error.error_code == ErrorCode::NotMember => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The role of a user whose password is right.
    ///
    /// # Errors
    /// `unauthorized`; `not_ready` when too many passwords wait to be checked.
    pub async fn check(&self, given: &Credentials) -> Result<ManagementRole, Failure> {
        let started = Instant::now();
        let reading = self.users(false).await?;
        if let Some(role) = self.role_in(&reading.users, given).await? {
            return Ok(role);
        }
        // The user may have been added, or the password changed, since the users were read.
        if reading.at < started {
            let fresh = self.users(true).await?;
            if find(&fresh.users, given) != find(&reading.users, given)
                && let Some(role) = self.role_in(&fresh.users, given).await?
            {
                return Ok(role);
            }
        }
        Err(ErrorCode::Unauthorized.into())
    }

    async fn role_in(
        &self,
        users: &[User],
        given: &Credentials,
    ) -> Result<Option<ManagementRole>, Failure> {
        let user = find(users, given);
        // An unknown user costs as much time as a wrong password.
        let hash = match (user, users.first()) {
            (Some(user), _) | (None, Some(user)) => user.password_hash.clone(),
            (None, None) => return Ok(None),
        };
        let digest = self.digest(given, &hash);
        if user.is_some() && self.remembers(&digest) {
            return Ok(user.map(|user| user.management));
        }
        let right = self.matches(given.password.clone(), hash).await?;
        let Some(user) = user.filter(|_| right) else {
            return Ok(None);
        };
        self.remember(digest);
        Ok(Some(user.management))
    }

    /// Whether a password has a hash.
    async fn matches(&self, password: Secret, hash: Secret) -> Result<bool, Failure> {
        let turn = tokio::time::timeout(TURN_WITHIN, Arc::clone(&self.turns).acquire_owned());
        let Ok(Ok(turn)) = turn.await else {
            return Err(Failure::new(
                ErrorCode::NotReady,
                "too many passwords are being checked: try again in a moment",
            ));
        };
        let checked = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            let parsed = PasswordHash::new(hash.expose());
            parsed.is_ok_and(|parsed| {
                Argon2::default()
                    .verify_password(password.expose().as_bytes(), &parsed)
                    .is_ok()
            })
        });
        checked.await.map_err(|_| ErrorCode::InternalError.into())
    }

    fn digest(&self, given: &Credentials, hash: &Secret) -> [u8; 32] {
        let mut digest = Sha256::new_with_prefix(self.key);
        for part in [
            given.username.as_str(),
            given.password.expose(),
            hash.expose(),
        ] {
            digest.update(part.len().to_be_bytes());
            digest.update(part.as_bytes());
        }
        digest.finalize().into()
    }

    fn remembers(&self, digest: &[u8; 32]) -> bool {
        let kept = self
            .remembered
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        kept.get(digest)
            .is_some_and(|at| at.elapsed() <= REMEMBERED_FOR)
    }

    fn remember(&self, digest: [u8; 32]) {
        let mut kept = self
            .remembered
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= REMEMBERED_MAX {
            kept.retain(|_, at| at.elapsed() <= REMEMBERED_FOR);
        }
        if kept.len() >= REMEMBERED_MAX {
            kept.clear();
        }
        kept.insert(digest, Instant::now());
    }
}

fn find<'a>(users: &'a [User], given: &Credentials) -> Option<&'a User> {
    users.iter().find(|user| user.email == given.username)
}
