//! A failed request as it is answered: the body `{"error_code", "description"}` with the code's HTTP
//! status. The only place where an error code becomes a status.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use model::{ApiError, ErrorCode};

/// Longest description that is sent, in characters. Messages may repeat input.
const DESCRIPTION_MAX: usize = 1_000;

/// A failed request.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Failure(pub ApiError);

impl Failure {
    /// With its own description.
    pub fn new(code: ErrorCode, description: impl Into<String>) -> Self {
        Self(ApiError::new(code, description))
    }
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        Self(error)
    }
}

impl From<ErrorCode> for Failure {
    fn from(code: ErrorCode) -> Self {
        Self(code.into())
    }
}

/// The code of a failed request, left in the response's extensions for the access log.
#[derive(Clone, Copy, Debug)]
pub struct FailedWith(pub ErrorCode);

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let Self(ApiError {
            error_code,
            description,
        }) = self;
        let status =
            StatusCode::from_u16(error_code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        if status.is_server_error() {
            tracing::warn!(code = %error_code, %description, "request failed");
        }
        let body = ApiError {
            error_code,
            description: printable(&description),
        };
        let mut response = (status, Json(body)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if status == StatusCode::UNAUTHORIZED {
            let ask = HeaderValue::from_static("Basic realm=\"mainstay\", charset=\"UTF-8\"");
            headers.insert(header::WWW_AUTHENTICATE, ask);
        }
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response.extensions_mut().insert(FailedWith(error_code));
        response
    }
}

fn printable(text: &str) -> String {
    let mut out: String = text
        .chars()
        .take(DESCRIPTION_MAX)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    if text.chars().nth(DESCRIPTION_MAX).is_some() {
        out.push('…');
    }
    out
}
