//! A successful answer: JSON, the header `cluster-state-id`, and the choice of fields that the
//! caller made.

use crate::failure::Failure;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use model::{ErrorCode, Revision};
use serde::Serialize;
use serde_json::Value;

/// Header that carries the revision of the configuration: in answers the current one, in a change
/// the one that the caller has read.
pub const STATE_ID: HeaderName = HeaderName::from_static("cluster-state-id");

/// Most names in `fields`.
const FIELDS_MAX: usize = 100;

/// A successful answer.
#[derive(Clone, Debug)]
pub struct Answer<T> {
    body: T,
    state: Option<Revision>,
    fields: Option<Vec<String>>,
}

impl<T: Serialize> Answer<T> {
    /// With the revision that it was made from.
    pub fn at(state: Revision, body: T) -> Self {
        Self {
            body,
            state: Some(state),
            fields: None,
        }
    }

    /// Of something that is not part of the configuration.
    pub fn plain(body: T) -> Self {
        Self {
            body,
            state: None,
            fields: None,
        }
    }

    /// Keeps only these fields (`a,b`) of the object, or of each object of the list. Names that
    /// this release does not have are passed over: callers may ask for fields of other releases.
    #[must_use]
    pub fn only(mut self, fields: Option<&str>) -> Self {
        self.fields = fields.map(|text| {
            text.split(',')
                .map(|f| f.trim().to_owned())
                .take(FIELDS_MAX)
                .collect()
        });
        self
    }

    fn encode(&self) -> serde_json::Result<Vec<u8>> {
        match &self.fields {
            None => serde_json::to_vec(&self.body),
            Some(fields) => serde_json::to_vec(&chosen(serde_json::to_value(&self.body)?, fields)),
        }
    }
}

fn chosen(value: Value, fields: &[String]) -> Value {
    match value {
        Value::Array(items) => items.into_iter().map(|item| chosen(item, fields)).collect(),
        Value::Object(object) => Value::Object(
            object
                .into_iter()
                .filter(|(name, _)| fields.contains(name))
                .collect(),
        ),
        other => other,
    }
}

impl<T: Serialize> IntoResponse for Answer<T> {
    fn into_response(self) -> Response {
        let body = match self.encode() {
            Ok(body) => body,
            Err(e) => {
                return Failure::new(ErrorCode::InternalError, format!("encode the answer: {e}"))
                    .into_response();
            }
        };
        let mut response = (StatusCode::OK, body).into_response();
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        );
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(Revision(number)) = self.state {
            headers.insert(STATE_ID, HeaderValue::from(number));
        }
        response
    }
}

/// The revision that the caller of a change has read, if it says one.
///
/// # Errors
/// `invalid_param` when the header is not a number.
pub fn state_that_was_read(headers: &HeaderMap) -> Result<Option<Revision>, Failure> {
    let Some(value) = headers.get(STATE_ID) else {
        return Ok(None);
    };
    let number = value
        .to_str()
        .ok()
        .and_then(|text| text.trim().parse().ok());
    number.map(|n| Some(Revision(n))).ok_or_else(|| {
        Failure::new(
            ErrorCode::InvalidParam,
            "the header cluster-state-id is not a number: send the one of an earlier answer, or none",
        )
    })
}
