//! `/v1/internal`: what nodes ask of each other over REST. Not part of the API's description.

use crate::App;
use crate::answer::Answer;
use crate::body::JsonBody;
use crate::failure::Failure;
use axum::extract::State;
use model::intent::{JoinGrant, JoinRequest};

/// Admits a node: the joining node calls this with an admin's password, after it has checked that
/// this node's certificate comes from the expected CA.
///
/// # Errors
/// As [`client::local::ExecClient::admit`].
pub async fn admit(
    State(app): State<App>,
    JsonBody(request): JsonBody<JoinRequest>,
) -> Result<Answer<JoinGrant>, Failure> {
    tracing::info!(address = %request.address, hostname = %request.hostname, "a node asks to join");
    Ok(Answer::plain(app.exec.admit(&request).await?))
}
