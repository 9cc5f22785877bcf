//! Which keys bundles may be signed with.

use anyhow::{Context, Result, bail};
use minisign_verify::{PublicKey, Signature};
use std::path::Path;

/// The public half of the development key: compiled in, so that a bundle made from a checkout can
/// be installed. Its secret half is public.
const DEVELOPMENT_KEY: &str = include_str!("../../../packaging/keys/dev.pub");
/// Largest key file, in bytes.
const FILE_MAX: u64 = 4 * 1024;

/// The key that is built in, base64.
///
/// # Errors
/// Never for a released program: the key is a constant.
pub fn built_in() -> Result<String> {
    base64_line(DEVELOPMENT_KEY).context("the built-in key")
}

/// Whether a key is the development key, whose secret half everybody has.
#[must_use]
pub fn is_development(key: &str) -> bool {
    built_in().is_ok_and(|development| development == key)
}

/// The key (base64) in a minisign public key file.
///
/// # Errors
/// When the file cannot be read or holds no key.
pub fn from_file(path: &Path) -> Result<String> {
    let name = path.display();
    let size = std::fs::metadata(path)
        .with_context(|| format!("key file {name}"))?
        .len();
    if size > FILE_MAX {
        bail!("key file {name} is no minisign public key: it has {size} bytes");
    }
    let text = std::fs::read_to_string(path).with_context(|| format!("key file {name}"))?;
    base64_line(&text).with_context(|| format!("key file {name} is no minisign public key"))
}

fn base64_line(text: &str) -> Result<String> {
    let line = text
        .lines()
        .map(str::trim)
        .find(|line| !line.is_empty() && !line.starts_with("untrusted comment:"))
        .context("it is empty")?;
    PublicKey::from_base64(line).map_err(|error| anyhow::anyhow!("{error}"))?;
    Ok(line.to_owned())
}

/// Checks a signature against the trusted keys; gives the one that made it.
///
/// # Errors
/// `foreign` when no trusted key made it.
pub fn verify<'a>(trusted: &'a [String], data: &[u8], signature: &str) -> Result<&'a str> {
    let signature = Signature::decode(signature)
        .map_err(|error| anyhow::anyhow!("the signature cannot be read ({error})"))?;
    for key in trusted {
        let public = PublicKey::from_base64(key)
            .map_err(|error| anyhow::anyhow!("trusted key {key} cannot be read ({error})"))?;
        if public.verify(data, &signature, false).is_ok() {
            return Ok(key);
        }
    }
    bail!(
        "it is not signed with a key that is trusted here ({}), or the manifest was altered",
        trusted.join(", ")
    )
}
