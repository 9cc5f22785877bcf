//! `releases/<version>`: unpacked and verified in a folder of root's on the same file system, then
//! renamed; repaired file by file. `releases/` belongs to the OS user, and root writes nothing below
//! a folder that another user may turn into a link meanwhile.

use crate::bundle::{self, Bundle, mode_of, sha256_of};
use crate::files::{self, Owner};
use anyhow::{Context, Result, bail};
use model::release::{MANIFEST, MANIFEST_SIGNATURE, Manifest};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown};
use std::path::Path;

/// What was done to a release's folder.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// It was right.
    Whole,
    /// It was not there.
    Unpacked,
    /// These files were missing or altered.
    Repaired(Vec<String>),
}

/// Makes `folder` hold the release of `bundle`, by way of `staging`, a folder that is root's alone.
///
/// # Errors
/// When it cannot be written; then nothing of it is left in `folder`.
pub fn ensure(bundle: &Bundle, folder: &Path, staging: &Path, owner: Owner) -> Result<Outcome> {
    files::folder(staging, 0o700, (0, 0))?;
    let outcome = if folder.exists() {
        repair_all(bundle, folder, staging, owner)
    } else {
        let partial = staging.join(format!("{}.partial", bundle.manifest.version));
        files::remove_tree(&partial)?;
        unpack(bundle, &partial, owner).and_then(|()| {
            fs::rename(&partial, folder)
                .with_context(|| format!("cannot make {}", folder.display()))?;
            files::sync_folder(folder)?;
            Ok(Outcome::Unpacked)
        })
    };
    // A full disk should not stay full of what is of no use.
    let cleaned = files::remove_tree(staging);
    let outcome = outcome?;
    cleaned?;
    Ok(outcome)
}

fn unpack(bundle: &Bundle, partial: &Path, owner: Owner) -> Result<()> {
    files::folder(partial, 0o750, owner)?;
    let mut folders = BTreeSet::new();
    for (name, entry) in bundle.release_files() {
        make_folders(partial, name, owner, &mut folders)?;
        let target = partial.join(name);
        bundle.copy(name, entry, &target)?;
        lchown(&target, Some(owner.0), Some(owner.1))
            .with_context(|| target.display().to_string())?;
    }
    write_manifest(bundle, partial, owner)?;
    let bad = faults(&bundle.manifest, partial, owner);
    if !bad.is_empty() {
        bail!(
            "after unpacking, these files are not what was signed: {}",
            bad.join(", ")
        );
    }
    Ok(())
}

fn make_folders(root: &Path, name: &str, owner: Owner, made: &mut BTreeSet<String>) -> Result<()> {
    for (at, _) in name.match_indices('/') {
        if made.insert(name[..at].to_owned()) {
            files::folder(&root.join(&name[..at]), 0o750, owner)?;
        }
    }
    Ok(())
}

fn write_manifest(bundle: &Bundle, folder: &Path, owner: Owner) -> Result<()> {
    files::write_if_other(&folder.join(MANIFEST), &bundle.manifest_text, 0o640, owner)?;
    files::write_if_other(
        &folder.join(MANIFEST_SIGNATURE),
        &bundle.signature_text,
        0o640,
        owner,
    )?;
    Ok(())
}

/// Files of a release folder that are missing or not what the manifest says.
#[must_use]
pub fn faults(manifest: &Manifest, folder: &Path, owner: Owner) -> Vec<String> {
    bundle::release_files(manifest)
        .filter(|(name, entry)| {
            let path = folder.join(name);
            let right = fs::symlink_metadata(&path).is_ok_and(|meta| {
                meta.is_file()
                    && meta.len() == entry.size
                    && (meta.uid(), meta.gid()) == owner
                    && mode_of(entry).is_ok_and(|mode| meta.permissions().mode() & 0o7777 == mode)
            });
            !(right && sha256_of(&path).is_ok_and(|hash| hash == entry.sha256))
        })
        .map(|(name, _)| name.to_owned())
        .collect()
}

/// Puts files right in place: the folder itself stays, because running engines are known by the path
/// of their program.
fn repair_all(bundle: &Bundle, folder: &Path, staging: &Path, owner: Owner) -> Result<Outcome> {
    let bad = faults(&bundle.manifest, folder, owner);
    for (name, entry) in bundle
        .release_files()
        .filter(|(name, _)| bad.iter().any(|b| b == name))
    {
        let new = staging.join("file");
        files::remove(&new)?;
        bundle.copy(name, entry, &new)?;
        lchown(&new, Some(owner.0), Some(owner.1))?;
        make_folders(folder, name, owner, &mut BTreeSet::new())?;
        let target = folder.join(name);
        if fs::symlink_metadata(&target).is_ok_and(|meta| meta.is_dir()) {
            files::remove_tree(&target)?;
        }
        fs::rename(&new, &target).with_context(|| format!("cannot repair {}", target.display()))?;
    }
    write_manifest(bundle, folder, owner)?;
    Ok(if bad.is_empty() {
        Outcome::Whole
    } else {
        Outcome::Repaired(bad)
    })
}

/// Reads the manifest of an unpacked release and checks that root's trusted keys signed it.
///
/// # Errors
/// When it is missing or was not signed with a trusted key.
pub fn read_manifest(folder: &Path, trusted: &[String]) -> Result<Manifest> {
    let path = folder.join(MANIFEST);
    let text = fs::read(&path).with_context(|| path.display().to_string())?;
    let signature = fs::read_to_string(folder.join(MANIFEST_SIGNATURE))
        .with_context(|| format!("signature of {}", path.display()))?;
    crate::keys::verify(trusted, &text, &signature).with_context(|| path.display().to_string())?;
    bundle::parse(&text)
}
