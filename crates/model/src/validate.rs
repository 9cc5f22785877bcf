//! Rules for what operators type.

use crate::limits;
use crate::{ApiError, ErrorCode};

fn word(text: &str, max: usize, also: &[u8]) -> bool {
    let bytes = text.as_bytes();
    let edge = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    bytes.len() <= max
        && edge(bytes.first())
        && edge(bytes.last())
        && bytes
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || also.contains(b))
}

/// A database's name.
///
/// # Errors
/// `name_violation` or `missing_db_name`.
pub fn database_name(name: &str) -> Result<(), ApiError> {
    if name.is_empty() {
        return Err(ErrorCode::MissingDbName.into());
    }
    if word(name, limits::DATABASE_NAME_MAX, b"-_.") {
        return Ok(());
    }
    Err(ApiError::new(
        ErrorCode::NameViolation,
        format!(
            "'{}' is not a database name: {}",
            shown(name),
            ErrorCode::NameViolation.remedy()
        ),
    ))
}

/// The name of a node's snapshot.
///
/// # Errors
/// `name_violation`.
pub fn snapshot_name(name: &str) -> Result<(), ApiError> {
    if word(name, limits::DATABASE_NAME_MAX, b"-_.") {
        return Ok(());
    }
    Err(ApiError::new(
        ErrorCode::NameViolation,
        format!(
            "'{}' is not the name of a snapshot: {}",
            shown(name),
            ErrorCode::NameViolation.remedy()
        ),
    ))
}

/// A cluster's name: labels of letters, digits and '-', joined by dots (RFC 1123).
///
/// # Errors
/// `name_violation`.
pub fn cluster_name(name: &str) -> Result<(), ApiError> {
    let good = !name.is_empty()
        && name.len() <= limits::CLUSTER_NAME_MAX
        && name.split('.').all(|label| word(label, 63, b"-"));
    if good {
        return Ok(());
    }
    Err(ApiError::new(
        ErrorCode::NameViolation,
        format!(
            "'{}' is not a cluster name: at most {} bytes of letters, digits and '-' in labels \
             joined by dots, like cluster.example.com",
            shown(name),
            limits::CLUSTER_NAME_MAX
        ),
    ))
}

/// A user's e-mail.
///
/// # Errors
/// `invalid_param`.
pub fn email(text: &str) -> Result<(), ApiError> {
    let good = text.len() <= limits::USER_NAME_MAX
        && text
            .split_once('@')
            .is_some_and(|(name, host)| !name.is_empty() && !host.is_empty())
        && text.bytes().all(|b| b.is_ascii_graphic() && b != b':');
    if good {
        return Ok(());
    }
    Err(ApiError::new(
        ErrorCode::InvalidParam,
        format!(
            "'{}' is not a user name: give an e-mail like admin@example.com",
            shown(text)
        ),
    ))
}

/// A password.
///
/// # Errors
/// `invalid_param`.
pub fn password(text: &str) -> Result<(), ApiError> {
    if limits::PASSWORD_LEN.contains(&text.len()) && !text.chars().any(char::is_control) {
        return Ok(());
    }
    Err(ApiError::new(
        ErrorCode::InvalidParam,
        format!(
            "a password has {} to {} bytes and no control characters",
            limits::PASSWORD_LEN.start(),
            limits::PASSWORD_LEN.end()
        ),
    ))
}

/// A rack id: a letter, then letters, digits, '-' or '_', at most 63.
///
/// # Errors
/// `invalid_param`.
pub fn rack_id(text: &str) -> Result<(), ApiError> {
    if word(text, 63, b"-_") && text.as_bytes()[0].is_ascii_alphabetic() {
        return Ok(());
    }
    Err(ApiError::new(
        ErrorCode::InvalidParam,
        format!(
            "'{}' is not a rack id: a letter, then letters, digits, '-' or '_', at most 63",
            shown(text)
        ),
    ))
}

/// Input as it may be shown in a message: short and printable.
#[must_use]
pub fn shown(text: &str) -> String {
    let mut out: String = text
        .chars()
        .take(80)
        .map(|c| if c.is_control() { '?' } else { c })
        .collect();
    if text.chars().nth(100).is_some() {
        out.push('…');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for good in ["a", "demo", "my-db_1.x"] {
            assert!(database_name(good).is_ok(), "{good}");
        }
        for bad in ["", "-a", "a-", "a b", "a/b", "ä", &"x".repeat(65)] {
            assert!(database_name(bad).is_err(), "{bad}");
        }
        assert!(cluster_name("cluster.local").is_ok());
        for bad in ["", ".", "a..b", "a_b", "-a.b", &"x".repeat(65)] {
            assert!(cluster_name(bad).is_err(), "{bad}");
        }
        assert!(email("admin@example.com").is_ok());
        for bad in ["", "admin", "@", "a@", "a b@c", "a:b@c"] {
            assert!(email(bad).is_err(), "{bad}");
        }
        assert!(rack_id("rack-1").is_ok());
        assert!(rack_id("1rack").is_err() && rack_id("").is_err());
    }
}
