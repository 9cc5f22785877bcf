//! A bundle that nobody has unpacked yet: whether it is whole, and what was signed. Nothing is written.

use crate::{bundle, keys};
use anyhow::{Context, Result, bail};
use model::release::{MANIFEST, MANIFEST_SIGNATURE, Manifest};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Largest manifest or signature, bytes.
const TEXT_MAX: u64 = 4 * 1024 * 1024;
/// Most entries of a bundle.
const ENTRIES_MAX: usize = 50_000;

/// Reads the tar once: the signature by a trusted key, then size and hash of every file.
///
/// # Errors
/// What is wrong with it.
pub fn verify(path: &Path, trusted: &[String]) -> Result<Manifest> {
    let shown = path.display();
    let again = "copy it again from where it came from";
    let cut = || format!("{shown} is no tar of a release, or it is cut short: {again}");
    let mut archive = tar::Archive::new(File::open(path).with_context(|| shown.to_string())?);
    let mut texts: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    let mut found: BTreeMap<String, (u64, String)> = BTreeMap::new();
    for (count, entry) in archive.entries().with_context(cut)?.enumerate() {
        let mut entry = entry.with_context(cut)?;
        let name = entry
            .path()
            .with_context(cut)?
            .to_string_lossy()
            .into_owned();
        if count >= ENTRIES_MAX {
            bail!("{shown} holds more than any release does");
        }
        if entry.header().entry_type().is_dir() {
            continue;
        }
        if name == MANIFEST || name == MANIFEST_SIGNATURE {
            let mut text = Vec::new();
            (&mut entry)
                .take(TEXT_MAX)
                .read_to_end(&mut text)
                .with_context(cut)?;
            texts.insert(name, text);
            continue;
        }
        let mut hash = Sha256::new();
        let size = std::io::copy(&mut entry, &mut hash).with_context(cut)?;
        if size != entry.header().size().with_context(cut)? {
            bail!(cut());
        }
        found.insert(name, (size, hex::encode(hash.finalize())));
    }
    let text = |name: &str| {
        texts
            .get(name)
            .with_context(|| format!("{}: it holds no {name}", cut()))
    };
    let (manifest, signature) = (text(MANIFEST)?, text(MANIFEST_SIGNATURE)?);
    keys::verify(trusted, manifest, &String::from_utf8_lossy(signature))
        .with_context(|| format!("the bundle {shown} is refused"))?;
    let manifest = bundle::parse(manifest)?;
    for (name, entry) in &manifest.files {
        match found.get(name) {
            None => bail!("{}: {name} is missing", cut()),
            Some((size, hash)) if *size != entry.size || *hash != entry.sha256 => {
                bail!("{shown} is not what was signed: {name} is altered; {again}")
            }
            Some(_) => {}
        }
    }
    Ok(manifest)
}
