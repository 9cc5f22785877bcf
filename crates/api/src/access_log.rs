//! One line a request: method, path, status, time, user. Never a body, never a header. Also where
//! a panic in a handler becomes an answer.

use crate::auth::Caller;
use crate::failure::{FailedWith, Failure};
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures::FutureExt;
use model::ErrorCode;
use model::validate::shown;
use std::panic::AssertUnwindSafe;
use std::time::Instant;

/// Logs a request and its answer.
pub async fn log(request: Request, next: Next) -> Response {
    let started = Instant::now();
    let method = request.method().clone();
    let path = shown(request.uri().path());
    // Nothing that a handler holds is used after it panicked: its request is gone with it.
    let response = AssertUnwindSafe(next.run(request))
        .catch_unwind()
        .await
        .unwrap_or_else(|_| {
            Failure::new(
                ErrorCode::InternalError,
                "the request failed inside cnm_http: see its log, cnm_http.log, and report it",
            )
            .into_response()
        });
    let user = response
        .extensions()
        .get::<Caller>()
        .map(ToString::to_string);
    let code = response
        .extensions()
        .get::<FailedWith>()
        .map(|FailedWith(code)| code.as_str());
    tracing::info!(
        %method,
        path,
        status = response.status().as_u16(),
        ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
        user = user.as_deref().unwrap_or("-"),
        code,
        "request"
    );
    response
}
