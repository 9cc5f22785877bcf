//! A bundle's tar, written by somebody who may do wrong, becomes a folder of root's that holds what was signed and
//! nothing else.

use super::{arrived, folder};
use crate::bundle::Bundle;
use crate::files;
use crate::host;
use anyhow::{Context, Result, bail};
use model::node_config::NodeConfig;
use model::release::{MANIFEST, MANIFEST_SIGNATURE};
use model::upgrade::UpgradeTarget;
use model::upgrade::run::{BUNDLE_MAX, is_digest};
use rustix::fs::{Mode, OFlags};
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

/// Most entries of a bundle.
const ENTRIES_MAX: usize = 50_000;
/// Room that is left on the disk, bytes.
const MARGIN: u64 = 64 << 20;

/// Where a bundle lies when it is staged.
pub(super) fn place(config: &NodeConfig, digest: &str) -> PathBuf {
    folder(config).join("staged").join(digest)
}

/// What is staged: digest and release.
pub(super) fn staged(config: &NodeConfig) -> Option<(String, UpgradeTarget)> {
    let entries = fs::read_dir(folder(config).join("staged")).ok()?;
    entries.filter_map(Result::ok).find_map(|entry| {
        let digest = entry
            .file_name()
            .to_str()
            .filter(|name| is_digest(name))?
            .to_owned();
        let text = fs::read(entry.path().join(MANIFEST)).ok()?;
        let manifest = crate::bundle::parse(&text).ok()?;
        Some((digest, UpgradeTarget::from(&manifest)))
    })
}

/// Forgets every staged bundle.
pub(super) fn clear(config: &NodeConfig) -> Result<()> {
    files::remove_tree(&folder(config).join("staged"))
}

/// Unpacks and verifies a bundle; whatever was staged before goes.
///
/// # Errors
/// What is wrong with it; nothing of it is left.
pub(super) fn stage(config: &NodeConfig, digest: &str, trusted: &[String]) -> Result<()> {
    if !is_digest(digest) {
        bail!("'{digest}' is no SHA-256");
    }
    let target = place(config, digest);
    if target.exists() {
        return Ok(());
    }
    clear(config)?;
    let root = folder(config);
    for path in [root.clone(), root.join("staged")] {
        files::folder(&path, 0o700, (0, 0))?;
    }
    let partial = root.join("partial");
    files::remove_tree(&partial)?;
    files::folder(&partial, 0o700, (0, 0))?;
    let done = unpack(&arrived(config, digest), digest, &partial)
        .and_then(|()| verify(&partial, trusted))
        .and_then(|()| {
            fs::rename(&partial, &target).with_context(|| target.display().to_string())?;
            Ok(files::sync_folder(&target)?)
        });
    if done.is_err() {
        files::remove_tree(&partial)?;
    }
    done
}

/// Hashes what passes.
struct Hashing<R> {
    inner: R,
    hash: Sha256,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.hash.update(&buffer[..n]);
        Ok(n)
    }
}

fn open(path: &Path, into: &Path) -> Result<File> {
    // Neither a link nor a pipe that somebody put there.
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = fs::OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits().cast_signed())
        .open(path)
        .with_context(|| path.display().to_string())?;
    let meta = file.metadata()?;
    if !meta.is_file() || meta.len() > BUNDLE_MAX {
        bail!("{} is no bundle", path.display());
    }
    let free = host::free_space(into)?;
    if free < meta.len() + MARGIN {
        bail!(
            "{} MB are free for programs, {} MB are needed",
            free >> 20,
            (meta.len() + MARGIN) >> 20
        );
    }
    Ok(file)
}

fn unpack(tar: &Path, digest: &str, into: &Path) -> Result<()> {
    let mut source = Hashing {
        inner: open(tar, into)?.take(BUNDLE_MAX),
        hash: Sha256::new(),
    };
    let mut archive = tar::Archive::new(&mut source);
    let mut count = 0;
    for entry in archive.entries().context("the tar")? {
        let mut entry = entry.context("the tar")?;
        count += 1;
        let path = entry.path().context("the tar")?.into_owned();
        let plain = path
            .components()
            .all(|part| matches!(part, Component::Normal(_)));
        if !plain || count > ENTRIES_MAX {
            bail!("the tar holds what no bundle holds: {}", path.display());
        }
        let target = into.join(&path);
        match entry.header().entry_type() {
            tar::EntryType::Directory => fs::create_dir_all(&target)?,
            tar::EntryType::Regular => {
                if let Some(above) = target.parent() {
                    fs::create_dir_all(above)?;
                }
                let mode = entry.header().mode()? & 0o755;
                let mut file = File::create_new(&target)
                    .with_context(|| format!("{} is in the tar twice", path.display()))?;
                std::io::copy(&mut entry, &mut file)?;
                file.set_permissions(fs::Permissions::from_mode(mode))?;
                file.sync_all()?;
            }
            _ => bail!("the tar holds what no bundle holds: {}", path.display()),
        }
    }
    std::io::copy(&mut source, &mut std::io::sink())?;
    let hash = hex::encode(source.hash.finalize());
    if hash != digest {
        bail!("the tar is not what was announced: its SHA-256 is {hash}");
    }
    Ok(())
}

/// Signature and files; and nothing that was not signed.
fn verify(root: &Path, trusted: &[String]) -> Result<()> {
    let bundle = Bundle::open(root, trusted)?;
    let known: BTreeSet<&str> = bundle
        .manifest
        .files
        .keys()
        .map(String::as_str)
        .chain([MANIFEST, MANIFEST_SIGNATURE])
        .collect();
    for entry in walkdir::WalkDir::new(root) {
        let entry = entry?;
        let name = entry.path().strip_prefix(root)?.to_string_lossy();
        if !entry.file_type().is_dir() && !known.contains(name.as_ref()) {
            bail!("the bundle holds a file that was not signed: {name}");
        }
    }
    Ok(())
}

/// Keeps the mode of what root makes away from others, whatever its umask is.
pub(super) fn own_umask() {
    rustix::process::umask(Mode::from_raw_mode(0o022));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tar_with(entries: &[(&str, tar::EntryType, &[u8])]) -> (tempfile::TempDir, PathBuf, String) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("b.tar");
        let mut builder = tar::Builder::new(File::create(&path).unwrap());
        for (name, kind, bytes) in entries {
            let mut header = tar::Header::new_ustar();
            header.set_entry_type(*kind);
            header.set_mode(0o4777);
            header.set_size(bytes.len() as u64);
            // A name as somebody who means harm would write it.
            header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
            header.set_cksum();
            builder.append(&header, *bytes).unwrap();
        }
        builder.into_inner().unwrap();
        let digest = crate::bundle::sha256_of(&path).unwrap();
        (folder, path, digest)
    }

    #[test]
    fn a_tar_is_unpacked_without_special_modes() {
        let (folder, path, digest) = tar_with(&[("a/b", tar::EntryType::Regular, b"text")]);
        let into = folder.path().join("into");
        fs::create_dir(&into).unwrap();
        unpack(&path, &digest, &into).unwrap();
        let meta = fs::metadata(into.join("a/b")).unwrap();
        assert_eq!(meta.permissions().mode() & 0o7777, 0o755);
    }

    #[test]
    fn what_no_bundle_holds_is_refused() {
        let regular = tar::EntryType::Regular;
        for (entries, why) in [
            (vec![("../a", regular, &b"x"[..])], "holds what no bundle"),
            (vec![("/etc/a", regular, b"x")], "holds what no bundle"),
            (
                vec![("a", tar::EntryType::Symlink, b"")],
                "holds what no bundle",
            ),
            (
                vec![("a", tar::EntryType::Fifo, b"")],
                "holds what no bundle",
            ),
            (vec![("a", regular, b"x"), ("a", regular, b"y")], "twice"),
        ] {
            let (folder, path, digest) = tar_with(&entries);
            let into = folder.path().join("into");
            fs::create_dir(&into).unwrap();
            let error = format!("{:#}", unpack(&path, &digest, &into).unwrap_err());
            assert!(error.contains(why), "{error}");
        }
        let (folder, path, _) = tar_with(&[("a", regular, b"x")]);
        let error = unpack(&path, &"0".repeat(64), folder.path()).unwrap_err();
        assert!(
            error.to_string().contains("not what was announced"),
            "{error}"
        );
    }

    #[test]
    fn neither_links_nor_pipes_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("link");
        std::os::unix::fs::symlink("/etc/passwd", &link).unwrap();
        assert!(open(&link, folder.path()).is_err());
        let pipe = folder.path().join("pipe");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &pipe,
            rustix::fs::FileType::Fifo,
            Mode::from_raw_mode(0o600),
            0,
        )
        .unwrap();
        assert!(open(&pipe, folder.path()).is_err());
    }
}
