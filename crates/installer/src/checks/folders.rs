//! Of the folders: empty, reachable, with room, short enough for sockets.

use super::{Accounts, Subject};
use crate::host;
use anyhow::{Result, bail};
use model::ErrorCode;
use model::limits::SOCKET_PATH_MAX;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

/// Room that the data folder needs to begin with, bytes.
const DATA_MIN: u64 = 256 << 20;
/// Room beyond the release's own size, bytes: the file system's own needs, logs of the first days.
const MARGIN: u64 = 64 << 20;
/// The same beside a release in use, bytes, as the cluster's plan has it (`controller::upgrade`).
const UPGRADE_MARGIN: u64 = 128 << 20;

/// Nothing lies where the install is to go.
pub(super) fn empty(subject: &Subject<'_>) -> Result<()> {
    let config = subject.config;
    // The folders become the install's own, with owner and mode, and go with it.
    for path in [
        &config.install_dir,
        &config.config_dir,
        &config.var_dir,
        &config.socket_dir,
    ] {
        match fs::symlink_metadata(path) {
            Err(_) => {}
            Ok(meta) if meta.is_dir() => {
                if fs::read_dir(path)?.next().is_some() {
                    bail!(
                        "{} is not empty and belongs to no install of this host: move it away, or \
                         name another folder",
                        path.display()
                    );
                }
            }
            Ok(_) => bail!("{} is not a folder: move it away", path.display()),
        }
    }
    Ok(())
}

/// The OS user can get at every folder: each one above needs its x.
pub(super) fn reachable(subject: &Subject<'_>, accounts: &Accounts) -> Result<()> {
    let config = subject.config;
    for path in [
        &config.install_dir,
        &config.config_dir,
        &config.var_dir,
        &config.socket_dir,
    ] {
        for ancestor in path.ancestors().skip(1) {
            let Ok(meta) = fs::metadata(ancestor) else {
                continue;
            };
            if !meta.is_dir() {
                bail!(
                    "{} is not a folder, but {} must go below it",
                    ancestor.display(),
                    path.display()
                );
            }
            let mode = meta.permissions().mode();
            let needed = if accounts.uid == Some(meta.uid()) {
                0o100
            } else if accounts.groups.contains(&meta.gid()) {
                0o010
            } else {
                0o001
            };
            if mode & needed == 0 {
                bail!(
                    "user {} cannot enter {} (mode {:04o}), which is above {}: run 'chmod o+x {}' \
                     or name another folder",
                    config.os_user,
                    ancestor.display(),
                    mode & 0o7777,
                    path.display(),
                    ancestor.display()
                );
            }
        }
    }
    Ok(())
}

/// Paths of unix sockets have a bound of the kernel's.
pub(super) fn socket_paths(subject: &Subject<'_>) -> Result<()> {
    let too_long = subject.config.socket_paths_too_long();
    let Some(path) = too_long.first() else {
        return Ok(());
    };
    bail!(
        "{} has {} bytes, a unix socket takes {SOCKET_PATH_MAX}: name a shorter folder with -s",
        path.display(),
        path.as_os_str().len()
    )
}

/// Room for another release beside the one in use; the cluster's plan asks for the same.
pub(super) fn space_for_release(subject: &Subject<'_>) -> Result<()> {
    let path = &subject.config.install_dir;
    let (free, need) = (
        host::free_space(path)?,
        subject.bundle.size() + UPGRADE_MARGIN,
    );
    if free < need {
        let code = ErrorCode::UpgradeDiskShort;
        bail!(
            "{code}: the file system of {} has {} free, {} are needed. {}",
            path.display(),
            model::units::format_size(free),
            model::units::format_size(need),
            code.remedy()
        );
    }
    Ok(())
}

/// Room, added up where several folders share a file system.
pub(super) fn space(subject: &Subject<'_>) -> Result<()> {
    let config = subject.config;
    let needs = [
        (&config.install_dir, subject.bundle.size() + MARGIN),
        (&config.var_dir, DATA_MIN),
    ];
    let mut by_device: BTreeMap<u64, (u64, u64, &Path)> = BTreeMap::new();
    for (path, need) in needs {
        let existing = path
            .ancestors()
            .find(|ancestor| ancestor.exists())
            .unwrap_or(path);
        let free = host::free_space(existing)?;
        let device = fs::metadata(existing)?.dev();
        by_device.entry(device).or_insert((0, free, path)).0 += need;
    }
    for (need, free, path) in by_device.into_values() {
        if free < need {
            bail!(
                "the file system of {} has {} free, {} are needed: make room, or name another \
                 folder",
                path.display(),
                model::units::format_size(free),
                model::units::format_size(need)
            );
        }
    }
    Ok(())
}
