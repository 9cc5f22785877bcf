//! Writing files and folders so that a run that is cut short at any moment can be run again.

use anyhow::{Context, Result};
use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown, lchown, symlink};
use std::path::{Path, PathBuf};

/// User and group numbers.
pub type Owner = (u32, u32);

/// Writes a file whole or not at all, with its owner and mode, down to the disk.
///
/// # Errors
/// When it cannot be written.
pub fn write_atomic(path: &Path, bytes: &[u8], mode: u32, owner: Option<Owner>) -> Result<()> {
    let partial = sibling(path);
    let write = || -> std::io::Result<()> {
        remove_if_there(&partial)?;
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&partial)?;
        file.write_all(bytes)?;
        if let Some((uid, gid)) = owner {
            lchown(&partial, Some(uid), Some(gid))?;
        }
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        file.sync_all()?;
        fs::rename(&partial, path)?;
        sync_folder(path)
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

/// As [`write_atomic`], but leaves a file alone that is right already; says whether it was not.
///
/// # Errors
/// When it cannot be written.
pub fn write_if_other(path: &Path, bytes: &[u8], mode: u32, owner: Owner) -> Result<bool> {
    let right = fs::symlink_metadata(path).is_ok_and(|meta| {
        meta.is_file()
            && meta.permissions().mode() & 0o7777 == mode
            && (meta.uid(), meta.gid()) == owner
            && fs::read(path).is_ok_and(|there| there == bytes)
    });
    if right {
        return Ok(false);
    }
    write_atomic(path, bytes, mode, Some(owner))?;
    Ok(true)
}

/// Makes a folder with its owner and mode, or gives them to one that is there; says whether it
/// changed anything. The folders above must exist. A link in its place, which the OS user could put there at any
/// moment, is never followed.
///
/// # Errors
/// When it cannot be made.
pub fn folder(path: &Path, mode: u32, owner: Owner) -> Result<bool> {
    let make = || -> std::io::Result<bool> {
        let mut changed = false;
        match fs::create_dir(path) {
            Ok(()) => changed = true,
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let folder = open(path, flags, Mode::empty()).map_err(|error| match error {
            Errno::NOTDIR | Errno::LOOP => {
                std::io::Error::other("something else than a folder is there")
            }
            other => other.into(),
        })?;
        let folder = File::from(folder);
        let meta = folder.metadata()?;
        if (meta.uid(), meta.gid()) != owner {
            fchown(&folder, Some(owner.0), Some(owner.1))?;
            changed = true;
        }
        // Last, because a change of owner clears bits.
        if meta.permissions().mode() & 0o7777 != mode || changed {
            folder.set_permissions(fs::Permissions::from_mode(mode))?;
            changed = true;
        }
        Ok(changed)
    };
    make().with_context(|| format!("folder {}", path.display()))
}

/// Makes a link point at `target`, in one step; says whether it did not before.
///
/// # Errors
/// When it cannot be made, or something else than a link is there.
pub fn link(path: &Path, target: &Path, owner: Owner) -> Result<bool> {
    let there = fs::symlink_metadata(path);
    if there.as_ref().is_ok_and(|meta| !meta.is_symlink()) {
        anyhow::bail!(
            "{} is in the way: a link to {} belongs there",
            path.display(),
            target.display()
        );
    }
    let right = there.is_ok_and(|meta| (meta.uid(), meta.gid()) == owner)
        && fs::read_link(path).is_ok_and(|now| now == target);
    if right {
        return Ok(false);
    }
    let partial = sibling(path);
    let make = || -> std::io::Result<()> {
        remove_if_there(&partial)?;
        symlink(target, &partial)?;
        lchown(&partial, Some(owner.0), Some(owner.1))?;
        fs::rename(&partial, path)?;
        sync_folder(path)
    };
    make().with_context(|| format!("link {}", path.display()))?;
    Ok(true)
}

/// Removes a file or link, if it is there.
///
/// # Errors
/// When it cannot be removed.
pub fn remove(path: &Path) -> Result<()> {
    remove_if_there(path).with_context(|| format!("cannot remove {}", path.display()))
}

/// Removes a folder with all that is in it, if it is there.
///
/// # Errors
/// When it cannot be removed.
pub fn remove_tree(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Folders that are missing above `path`, outermost first.
#[must_use]
pub fn missing_above(path: &Path) -> Vec<PathBuf> {
    let mut missing: Vec<PathBuf> = path
        .ancestors()
        .skip(1)
        .take_while(|ancestor| !ancestor.exists())
        .map(Path::to_path_buf)
        .collect();
    missing.reverse();
    missing
}

/// Makes the content of the folder of `path` last over a power cut.
///
/// # Errors
/// When the disk does not take it.
pub fn sync_folder(path: &Path) -> std::io::Result<()> {
    match path.parent() {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

fn remove_if_there(path: &Path) -> std::io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// A name beside `path`, always the same one, so that a run after a cut cleans it up.
fn sibling(path: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".partial");
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_in_the_place_of_a_folder_is_not_followed() {
        let place = tempfile::tempdir().unwrap();
        let (other, path) = (place.path().join("other"), place.path().join("run"));
        fs::create_dir(&other).unwrap();
        fs::set_permissions(&other, fs::Permissions::from_mode(0o755)).unwrap();
        let meta = fs::metadata(&other).unwrap();
        let own = (meta.uid(), meta.gid());
        symlink(&other, &path).unwrap();
        let refused = format!("{:#}", folder(&path, 0o700, own).unwrap_err());
        assert!(
            refused.contains("something else than a folder"),
            "{refused}"
        );
        let mode = fs::metadata(&other).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o755);
        fs::remove_file(&path).unwrap();
        assert!(folder(&path, 0o700, own).unwrap());
        assert!(!folder(&path, 0o700, own).unwrap());
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o700);
    }
}
