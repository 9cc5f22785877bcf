//! An unpacked bundle, verified before anything of it is used.

use crate::keys;
use anyhow::{Context, Result, bail};
use model::release::{FileEntry, MANIFEST, MANIFEST_SIGNATURE, Manifest};
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, Instant};

/// Largest manifest, in bytes.
const MANIFEST_MAX: u64 = 4 * 1024 * 1024;
/// Folder in the bundle that becomes `releases/<version>`.
pub const RELEASE: &str = "release/";
/// Most faults that are listed.
const LISTED_MAX: usize = 5;

/// A bundle whose signature and files were checked.
#[derive(Debug)]
pub struct Bundle {
    root: PathBuf,
    /// What it holds.
    pub manifest: Manifest,
    /// The manifest as it was signed.
    pub manifest_text: Vec<u8>,
    /// Its signature.
    pub signature_text: Vec<u8>,
    /// The trusted key that signed it.
    pub key: String,
    /// How long it took to read and check it.
    pub checked_in: Duration,
}

impl Bundle {
    /// Opens the bundle unpacked in `root`: signature, then hash, size and mode of every file.
    ///
    /// # Errors
    /// What is wrong with it. Nothing was changed.
    pub fn open(root: &Path, trusted: &[String]) -> Result<Self> {
        let began = Instant::now();
        let shown = root.display();
        let again = "unpack the bundle again from a good copy of the tar";
        let read = |name: &str| {
            read_bounded(&root.join(name), MANIFEST_MAX)
                .with_context(|| format!("{shown} holds no whole bundle: {name}; {again}"))
        };
        let manifest_text = read(MANIFEST)?;
        let signature_text = read(MANIFEST_SIGNATURE)?;
        let signature = String::from_utf8_lossy(&signature_text);
        let key = keys::verify(trusted, &manifest_text, &signature)
            .with_context(|| format!("the bundle in {shown} is refused"))?
            .to_owned();
        let manifest = parse(&manifest_text)?;
        let mut bundle = Self {
            root: root.to_path_buf(),
            manifest,
            manifest_text,
            signature_text,
            key,
            checked_in: Duration::ZERO,
        };
        let faults: Vec<String> = bundle
            .manifest
            .files
            .iter()
            .filter_map(|(name, entry)| bundle.fault(name, entry))
            .collect();
        if !faults.is_empty() {
            let more = faults.len().saturating_sub(LISTED_MAX);
            let mut text = faults
                .into_iter()
                .take(LISTED_MAX)
                .collect::<Vec<_>>()
                .join("\n");
            if more > 0 {
                text.push_str(&format!("\nand {more} more"));
            }
            bail!("the bundle in {shown} is not what was signed; {again}\n{text}");
        }
        bundle.checked_in = began.elapsed();
        Ok(bundle)
    }

    fn fault(&self, name: &str, entry: &FileEntry) -> Option<String> {
        let path = self.root.join(name);
        let Ok(meta) = fs::symlink_metadata(&path) else {
            return Some(format!("{name}: missing"));
        };
        if !meta.is_file() {
            return Some(format!("{name}: not a regular file"));
        }
        if meta.len() != entry.size {
            return Some(format!(
                "{name}: {} bytes, signed were {}",
                meta.len(),
                entry.size
            ));
        }
        match sha256_of(&path) {
            Ok(hash) if hash == entry.sha256 => {}
            Ok(_) => return Some(format!("{name}: altered")),
            Err(error) => return Some(format!("{name}: {error}")),
        }
        let (mode, signed) = (meta.permissions().mode() & 0o777, mode_of(entry).ok()?);
        // tar applies the umask of who unpacks: less for others is fine, more is not.
        if mode & 0o700 != signed & 0o700 || mode & !signed != 0 {
            return Some(format!(
                "{name}: mode {mode:04o}, signed was {}",
                entry.mode
            ));
        }
        None
    }

    /// Files of the release: name below `releases/<version>` and entry.
    pub fn release_files(&self) -> impl Iterator<Item = (&str, &FileEntry)> {
        release_files(&self.manifest)
    }

    /// Copies one file of the release to `target`, hashing what is really written: the bundle's
    /// folder may belong to somebody who changes it meanwhile.
    ///
    /// # Errors
    /// When it cannot be copied, or is not what was signed.
    pub fn copy(&self, name: &str, entry: &FileEntry, target: &Path) -> Result<()> {
        let source = self.root.join(RELEASE).join(name);
        let copied = (|| -> std::io::Result<String> {
            let mut from = File::open(&source)?;
            let mut to = File::create_new(target)?;
            let mut hash = Sha256::new();
            let mut buffer = vec![0; 256 * 1024];
            loop {
                let n = from.read(&mut buffer)?;
                if n == 0 {
                    break;
                }
                hash.update(&buffer[..n]);
                to.write_all(&buffer[..n])?;
            }
            to.set_permissions(fs::Permissions::from_mode(mode_of(entry).unwrap_or(0o600)))?;
            to.sync_all()?;
            Ok(hex::encode(hash.finalize()))
        })();
        let hash = copied.with_context(|| format!("cannot write {}", target.display()))?;
        if hash != entry.sha256 {
            bail!("{} changed while it was copied", source.display());
        }
        Ok(())
    }

    /// Bytes of the release's files.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.release_files().map(|(_, entry)| entry.size).sum()
    }

    /// Path of a file of the release in the bundle.
    #[must_use]
    pub fn release_path(&self, name: &str) -> PathBuf {
        self.root.join(RELEASE).join(name)
    }
}

/// Files of a release: name below its folder and entry.
pub fn release_files(manifest: &Manifest) -> impl Iterator<Item = (&str, &FileEntry)> {
    manifest
        .files
        .iter()
        .filter_map(|(name, entry)| name.strip_prefix(RELEASE).map(|name| (name, entry)))
}

/// Reads a manifest's text.
///
/// # Errors
/// When it is of another schema, product or machine, or names a path outside of its folder.
pub fn parse(text: &[u8]) -> Result<Manifest> {
    let manifest: Manifest = serde_json::from_slice(text).context("the manifest")?;
    if manifest.schema != 1 || manifest.product != "mainstay" {
        bail!(
            "manifest of {} schema {}: not one of ours",
            manifest.product,
            manifest.schema
        );
    }
    if (manifest.os.as_str(), manifest.arch.as_str()) != ("linux", "amd64") {
        bail!("this bundle is for {}-{}", manifest.os, manifest.arch);
    }
    for (name, entry) in &manifest.files {
        mode_of(entry).with_context(|| name.clone())?;
        let plain = Path::new(name)
            .components()
            .all(|part| matches!(part, Component::Normal(_)));
        if !plain {
            bail!("the manifest names a path outside of the bundle: {name}");
        }
    }
    Ok(manifest)
}

/// Permission bits of an entry.
///
/// # Errors
/// When they are not octal.
pub fn mode_of(entry: &FileEntry) -> Result<u32> {
    let mode = u32::from_str_radix(&entry.mode, 8)
        .with_context(|| format!("mode '{}' is not octal", entry.mode))?;
    if mode > 0o777 {
        bail!("mode {} is not allowed", entry.mode);
    }
    Ok(mode)
}

/// SHA-256 of a file, hex.
///
/// # Errors
/// When it cannot be read.
pub fn sha256_of(path: &Path) -> std::io::Result<String> {
    let mut hash = Sha256::new();
    std::io::copy(&mut File::open(path)?, &mut hash)?;
    Ok(hex::encode(hash.finalize()))
}

fn read_bounded(path: &Path, max: u64) -> Result<Vec<u8>> {
    let file = File::open(path).context("missing")?;
    let mut bytes = Vec::new();
    file.take(max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > max {
        bail!("larger than {max} bytes");
    }
    Ok(bytes)
}
