//! Signs a manifest in minisign's format, so that the same manifest gets the same bytes: minisign's
//! own signer mixes random bytes into each signature and the time into its comment.

use anyhow::{Context, Result, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use blake2::{Blake2b512, Digest};
use minisign::{PublicKey, SecretKey, SecretKeyBox};
use std::fs;
use std::path::Path;

/// What every signature says; a time in it would change the bytes.
const TRUSTED_COMMENT: &str = "mainstay release manifest";
const UNTRUSTED_COMMENT: &str = "signature of a mainstay release manifest";
/// Where a secret key's bytes hold the number of the key (8) and the key itself (64).
const KEY_NUMBER: std::ops::Range<usize> = 54..62;
const KEY: std::ops::Range<usize> = 62..126;
/// Algorithm mark of minisign: Ed25519 over BLAKE2b-512.
const PREHASHED: &[u8] = b"ED";

/// The text of `<manifest>.minisig`, with the secret key in `key`.
pub(crate) fn sign(key: &Path, manifest: &str) -> Result<String> {
    let text = fs::read_to_string(key)
        .with_context(|| format!("{}: the secret key to sign with", key.display()))?;
    let secret = SecretKeyBox::from_string(&text)
        .and_then(SecretKeyBox::into_unencrypted_secret_key)
        .with_context(|| format!("{}: a minisign key without password", key.display()))?;
    let signature = sign_with(&secret, manifest.as_bytes())?;
    check(&secret, &signature, manifest)?;
    Ok(signature)
}

fn sign_with(secret: &SecretKey, manifest: &[u8]) -> Result<String> {
    let bytes = secret.to_bytes();
    let (Some(number), Some(key)) = (bytes.get(KEY_NUMBER), bytes.get(KEY)) else {
        bail!("the secret key has {} bytes: not minisign's", bytes.len());
    };
    let key = ed25519_compact::SecretKey::from_slice(key)
        .map_err(|error| anyhow::anyhow!("the secret key is not one of Ed25519: {error}"))?;
    let signature = key.sign(Blake2b512::digest(manifest), None);
    let mut global = signature.to_vec();
    global.extend_from_slice(TRUSTED_COMMENT.as_bytes());
    let global = key.sign(&global, None);
    let line = [PREHASHED, number, signature.as_ref()].concat();
    Ok(format!(
        "untrusted comment: {UNTRUSTED_COMMENT}\n{}\ntrusted comment: {TRUSTED_COMMENT}\n{}\n",
        BASE64.encode(line),
        BASE64.encode(global.as_ref()),
    ))
}

/// minisign itself must accept what was made.
fn check(secret: &SecretKey, signature: &str, manifest: &str) -> Result<()> {
    let public = PublicKey::from_secret_key(secret)?;
    let signature = minisign::SignatureBox::from_string(signature)?;
    minisign::verify(
        &public,
        &signature,
        std::io::Cursor::new(manifest),
        true,
        false,
        false,
    )
    .context("the signature just made does not verify")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minisign_accepts_it_and_the_bytes_repeat() {
        let pair = minisign::KeyPair::generate_unencrypted_keypair().unwrap();
        let first = sign_with(&pair.sk, b"manifest").unwrap();
        check(&pair.sk, &first, "manifest").unwrap();
        assert!(check(&pair.sk, &first, "manifesT").is_err());
        assert_eq!(first, sign_with(&pair.sk, b"manifest").unwrap());
    }
}
