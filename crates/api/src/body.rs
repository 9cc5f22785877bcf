//! Bodies of requests: bounded in size and time, and read so that the error names the field.

use crate::failure::Failure;
use axum::body::{Body, BodyDataStream};
use axum::extract::{FromRequest, Request};
use axum::http::header;
use axum::middleware::Next;
use axum::response::Response;
use bytes::BytesMut;
use futures::{Stream, StreamExt};
use model::validate::shown;
use model::{ErrorCode, limits};
use serde::de::DeserializeOwned;
use serde_json::error::Category;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

/// How long a body may take to arrive.
const ARRIVES_WITHIN: Duration = Duration::from_secs(30);
/// How much of a body that nobody wants is read and thrown away, bytes, so that the answer reaches a caller that is
/// still sending.
const THROWN_AWAY_MAX: usize = 8 * limits::BODY_MAX;

/// Reads what a request's answer was made without (all of its body, or the rest of one that is too large) before the
/// answer goes out. Over HTTP/2 what is still on its way is answered by a reset of the stream, and curl 7.88 takes that
/// for the end of it all: it has no answer then.
pub async fn read_to_its_end(request: Request, next: Next) -> Response {
    // A caller that waits for `100 Continue` has sent nothing yet.
    if request.headers().contains_key(header::EXPECT) {
        return next.run(request).await;
    }
    let until = tokio::time::Instant::now() + ARRIVES_WITHIN;
    let (parts, body) = request.into_parts();
    let mut lent = Lent(Arc::new(Mutex::new(body.into_data_stream())));
    let body = Body::from_stream(lent.clone());
    let response = next.run(Request::from_parts(parts, body)).await;
    let rest = async {
        let mut left = THROWN_AWAY_MAX;
        while let Some(Ok(piece)) = lent.next().await {
            match left.checked_sub(piece.len()) {
                Some(less) => left = less,
                None => return,
            }
        }
    };
    // Who does not send the rest gets the answer all the same.
    if tokio::time::timeout_at(until, rest).await.is_err() {
        tracing::debug!("the rest of a body did not come");
    }
    response
}

/// A body that is read on by somebody else once its reader has gone.
#[derive(Clone)]
struct Lent(Arc<Mutex<BodyDataStream>>);

impl Stream for Lent {
    type Item = <BodyDataStream as Stream>::Item;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut stream = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        stream.poll_next_unpin(context)
    }
}

/// A JSON object as body, whatever `content-type` says.
#[derive(Clone, Copy, Debug)]
pub struct JsonBody<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for JsonBody<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Failure> {
        let bytes = tokio::time::timeout(ARRIVES_WITHIN, read(request, limits::BODY_MAX))
            .await
            .map_err(|_| {
                Failure::new(
                    ErrorCode::BadRequest,
                    "the body did not arrive within 30 s: send it again",
                )
            })??;
        decode(&bytes).map(Self)
    }
}

/// Bytes as they come, at most so many.
#[derive(Clone, Debug)]
pub struct RawBody<const MAX: usize>(pub BytesMut);

impl<const MAX: usize, S: Send + Sync> FromRequest<S> for RawBody<MAX> {
    type Rejection = Failure;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Failure> {
        tokio::time::timeout(ARRIVES_WITHIN, read(request, MAX))
            .await
            .map_err(|_| {
                Failure::new(
                    ErrorCode::BadRequest,
                    "the body did not arrive within 30 s: send it again, or a smaller piece",
                )
            })?
            .map(Self)
    }
}

async fn read(request: Request, max: usize) -> Result<BytesMut, Failure> {
    let announced = request
        .headers()
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    let mut stream = request.into_body().into_data_stream();
    if announced.is_some_and(|length| length > max) {
        return Err(ErrorCode::BodyTooLarge.into());
    }
    let mut bytes = BytesMut::with_capacity(announced.unwrap_or(0));
    while let Some(piece) = stream.next().await {
        let piece = piece.map_err(|_| {
            Failure::new(
                ErrorCode::BadRequest,
                "the body ended early: send the whole of it",
            )
        })?;
        if bytes.len() + piece.len() > max {
            return Err(ErrorCode::BodyTooLarge.into());
        }
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes)
}

/// Reads an object from JSON.
///
/// # Errors
/// `bad_request` when it is not a JSON object; `invalid_schema`, naming the field, when a field is
/// unknown or has the wrong type; `invalid_proxy_policy` when that field is a policy of proxies.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Failure> {
    // An array would be taken for the fields in order: only objects are meant.
    if bytes.iter().find(|b| !b.is_ascii_whitespace()) != Some(&b'{') {
        return Err(Failure::new(
            ErrorCode::BadRequest,
            "the body is not a JSON object: send one as in openapi/v1.json",
        ));
    }
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value: T = serde_path_to_error::deserialize(&mut deserializer).map_err(wrong)?;
    deserializer.end().map_err(|e| not_json(&e))?;
    Ok(value)
}

fn wrong(error: serde_path_to_error::Error<serde_json::Error>) -> Failure {
    let path = error.path().to_string();
    let error = error.into_inner();
    if error.classify() != Category::Data {
        return not_json(&error);
    }
    let text = error.to_string();
    // Where in the text it was says less than the field's name.
    let text = text
        .rfind(" at line ")
        .map_or(text.as_str(), |end| &text[..end]);
    let policy = path.ends_with("proxy_policy") && text.starts_with("unknown variant");
    let code = if policy {
        ErrorCode::InvalidProxyPolicy
    } else {
        ErrorCode::InvalidSchema
    };
    let description = if path == "." || text.contains(&format!("`{path}`")) {
        text.to_owned()
    } else {
        format!("`{}`: {text}", shown(&path))
    };
    Failure::new(code, description)
}

fn not_json(error: &serde_json::Error) -> Failure {
    Failure::new(
        ErrorCode::BadRequest,
        format!("the body is not JSON: {error}"),
    )
}
