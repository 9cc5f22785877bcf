//! Programs outside of the releases: supervisord, and what root runs.

use super::Run;
use crate::files;
use crate::layout;
use anyhow::{Context, Result, bail};
use std::fs;
use std::io::Read;
use std::os::unix::fs::{PermissionsExt, lchown};
use std::path::Path;

/// Largest file of the wheel, bytes.
const FILE_MAX: u64 = 4 * 1024 * 1024;
/// Starts the uninstall with root's own program.
const UNINSTALL: &str = "#!/bin/sh\n\
    # Removes this install: programs, configuration and all data of this node.\n\
    self=$(readlink -f \"$0\") || exit 1\n\
    exec \"${self%/*}/mainstay-install\" uninstall \"$@\"\n";

/// Unpacks supervisord's wheel; a folder that is not as the wheel is made anew.
pub(super) fn supervisor(run: &mut Run<'_>) -> Result<Vec<String>> {
    let version = &run.bundle.manifest.supervisor_version;
    let folder = layout::supervisor(&run.config, version);
    let (_, gid) = run.owner()?;
    let prefix = format!("supervisor/supervisor-{version}-");
    let (name, entry) = run
        .bundle
        .release_files()
        .find(|(name, _)| name.starts_with(&prefix))
        .with_context(|| format!("the bundle holds no supervisord {version}"))?;
    let staging = run.config.install_dir.join(".unpack");
    files::remove_tree(&staging)?;
    files::folder(&staging, 0o700, (0, 0))?;
    let wheel = staging.join("wheel");
    run.bundle.copy(name, entry, &wheel)?;
    let mut archive =
        zip::ZipArchive::new(fs::File::open(&wheel)?).context("supervisord's wheel")?;
    let whole = visit(&mut archive, |name, bytes| {
        Ok(fs::read(folder.join(name)).is_ok_and(|there| there == bytes))
    })?;
    if !whole {
        let partial = staging.join("supervisor");
        files::folder(&partial, 0o750, (0, gid))?;
        visit(&mut archive, |name, bytes| {
            let target = partial.join(name);
            for above in files::missing_above(&target) {
                files::folder(&above, 0o750, (0, gid))?;
            }
            fs::write(&target, bytes).with_context(|| target.display().to_string())?;
            lchown(&target, Some(0), Some(gid))?;
            fs::set_permissions(&target, fs::Permissions::from_mode(0o640))?;
            Ok(true)
        })?;
        files::remove_tree(&folder)?;
        fs::rename(&partial, &folder).with_context(|| folder.display().to_string())?;
        files::sync_folder(&folder)?;
    }
    files::remove_tree(&staging)?;
    Ok(if whole {
        Vec::new()
    } else {
        vec![folder.display().to_string()]
    })
}

/// Shows every file but supervisord's own tests; stops at the first `false`.
fn visit(
    archive: &mut zip::ZipArchive<fs::File>,
    mut each: impl FnMut(&Path, &[u8]) -> Result<bool>,
) -> Result<bool> {
    for at in 0..archive.len() {
        let file = archive.by_index(at)?;
        let Some(name) = file.enclosed_name() else {
            bail!("the wheel names a path outside of itself: {}", file.name());
        };
        if file.is_dir() || name.starts_with("supervisor/tests") {
            continue;
        }
        let mut bytes = Vec::new();
        file.take(FILE_MAX + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > FILE_MAX {
            bail!("{} in the wheel is too large", name.display());
        }
        if !each(&name, &bytes)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// What root runs later: `mainstay-install` and `rl_uninstall.sh`, in a folder of root's.
pub(super) fn root_programs(run: &mut Run<'_>) -> Result<Vec<String>> {
    const PROGRAM: &str = "mainstay-install";
    let folder = layout::sbin(&run.config);
    let mut changed = Vec::new();
    let inside = format!("bin/{PROGRAM}");
    let (name, entry) = run
        .bundle
        .release_files()
        .find(|(name, _)| *name == inside)
        .context("the bundle holds no mainstay-install")?;
    let target = folder.join(PROGRAM);
    if crate::bundle::sha256_of(&target).ok().as_ref() != Some(&entry.sha256) {
        let partial = folder.join(".partial");
        files::remove(&partial)?;
        run.bundle.copy(name, entry, &partial)?;
        fs::rename(&partial, &target).with_context(|| target.display().to_string())?;
        changed.push(target.display().to_string());
    }
    let script = folder.join("rl_uninstall.sh");
    if files::write_if_other(&script, UNINSTALL.as_bytes(), 0o755, (0, 0))? {
        changed.push(script.display().to_string());
    }
    Ok(changed)
}
