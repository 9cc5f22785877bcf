//! From the bodies of requests to what the cluster is asked for, with every rule that needs no
//! knowledge of the cluster's resources. Pure functions.

pub mod bootstrap;
pub mod cluster;
pub mod database;
pub mod node;
pub mod persistence;
pub mod proxy;

use crate::failure::Failure;
use model::ErrorCode;
use model::validate::shown;

/// An engine version as operators write it: `9`, `9.1`, `9.1.2`, `valkey-9.1`, `redis-7.0`.
fn engine_version(text: &str) -> Result<(), Failure> {
    let version = match text.split_once('-') {
        Some((name, version)) if ["redis", "valkey"].contains(&&*name.to_ascii_lowercase()) => {
            version
        }
        Some(_) => "",
        None => text,
    };
    let parts: Vec<&str> = version.split('.').collect();
    let number = |part: &&str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    if text.len() <= 40 && parts.len() <= 3 && parts.iter().all(number) {
        return Ok(());
    }
    Err(Failure::new(
        ErrorCode::InvalidVersion,
        format!(
            "'{}' is not an engine version: write 9.1, valkey-9.1 or redis-7.0",
            shown(text)
        ),
    ))
}

fn invalid(description: impl Into<String>) -> Failure {
    Failure::new(ErrorCode::InvalidParam, description)
}
