//! `cargo xtask engines`: fills `target/engines/<name>-<version>/{bin,lib,licences}` with the engines
//! named in `packaging/engines.toml`. A second run with the same recipe does nothing.

mod debian;
mod libraries;
mod recipe;
mod wheel;

use anyhow::{Context, Result, bail};
use model::release::{EngineId, EngineSource};
use recipe::{EngineRecipe, Origin};
pub(crate) use recipe::{Recipes, Wheel};
use sha2::{Digest, Sha256};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
pub(crate) use wheel::fetch as fetch_wheel;

/// Name of the file that says where an engine came from.
pub(crate) const SOURCE: &str = "source.json";
/// Name of the file that says which library packages its `lib` folder was filled from.
pub(crate) const LIBRARIES: &str = "libraries.json";
/// What an engine folder was made from; another recipe, or other code, makes it anew.
const RECIPE: &str = ".recipe";
/// Raise it when this code lays a folder out in another way.
const LAYOUT: u32 = 1;

/// A library package whose files lie in an engine's `lib` folder.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub(crate) struct LibraryPackage {
    /// The Debian package.
    pub(crate) package: String,
    /// Its version.
    pub(crate) version: String,
    /// SHA-256 of the package file, hex.
    pub(crate) sha256: String,
    /// What of it lies in `lib`.
    pub(crate) files: Vec<String>,
}

/// Folder of the engines.
pub(crate) fn folder(repository: &Path) -> PathBuf {
    repository.join("target").join("engines")
}

/// Folder of downloads, kept between runs.
pub(crate) fn downloads(repository: &Path) -> PathBuf {
    folder(repository).join(".downloads")
}

/// Fills the folder.
pub(crate) fn run(repository: &Path) -> Result<()> {
    let recipes = Recipes::read(repository)?;
    let root = folder(repository);
    fs::create_dir_all(downloads(repository))?;
    // Two runs at once would download and unpack over each other.
    let lock = fs::File::create(root.join(".lock"))?;
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive)?;

    fetch_wheel(repository, &recipes.supervisor)?;
    let mut index: Option<debian::Index> = None;
    for recipe in &recipes.engine {
        let id = recipe.id();
        let target = root.join(id.to_string());
        let stamp = stamp(recipe)?;
        if fs::read_to_string(target.join(RECIPE)).is_ok_and(|text| text == stamp) {
            continue;
        }
        println!("engine {id}");
        let partial = tempfile::tempdir_in(&root)?;
        for sub in ["bin", "lib", "licences"] {
            fs::create_dir(partial.path().join(sub))?;
        }
        let source = match recipe.origin()? {
            Origin::Wheel(wheel) => wheel::unpack(repository, recipe, wheel, partial.path())?,
            Origin::Debian(package) => {
                if index.is_none() {
                    index = Some(debian::Index::open(&downloads(repository))?);
                }
                let index = index
                    .as_ref()
                    .context("the package index was opened above")?;
                debian::unpack(index, recipe, package, partial.path())?
            }
        };
        check_version(&id, partial.path())?;
        write_json(&partial.path().join(SOURCE), &source)?;
        fs::write(partial.path().join(RECIPE), stamp)?;
        fs::set_permissions(partial.path(), fs::Permissions::from_mode(0o755))?;
        if target.exists() {
            fs::remove_dir_all(&target)?;
        }
        fs::rename(partial.keep(), &target)?;
    }
    for recipe in &recipes.engine {
        println!("{}", root.join(recipe.id().to_string()).display());
    }
    Ok(())
}

/// Where the engines of a release came from, in the order of the recipe file.
pub(crate) fn sources(repository: &Path) -> Result<Vec<EngineSource>> {
    let recipes = Recipes::read(repository)?;
    let mut sources = Vec::with_capacity(recipes.engine.len());
    for recipe in &recipes.engine {
        let file = folder(repository)
            .join(recipe.id().to_string())
            .join(SOURCE);
        let text = fs::read_to_string(&file)
            .with_context(|| format!("{}: run `cargo xtask engines` first", file.display()))?;
        sources.push(serde_json::from_str(&text)?);
    }
    Ok(sources)
}

/// SHA-256 of a file, hex.
pub(crate) fn sha256_of(path: &Path) -> Result<String> {
    let mut file = fs::File::open(path).with_context(|| path.display().to_string())?;
    let mut hash = Sha256::new();
    std::io::copy(&mut file, &mut hash)?;
    Ok(hex::encode(hash.finalize()))
}

/// Runs a program to its end and gives its standard output; what it said otherwise is the error.
pub(crate) fn output_of(command: &mut Command) -> Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command
        .output()
        .with_context(|| format!("cannot run {program}: is it installed and on PATH?"))?;
    if !output.status.success() {
        bail!(
            "{program} ended with {}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    String::from_utf8(output.stdout).context("output is not UTF-8")
}

pub(crate) fn write_json<T: serde::Serialize>(path: &Path, value: &T) -> Result<()> {
    fs::write(path, serde_json::to_string_pretty(value)? + "\n")
        .with_context(|| path.display().to_string())
}

fn stamp(recipe: &EngineRecipe) -> Result<String> {
    Ok(format!("layout {LAYOUT}\n{}", toml::to_string(recipe)?))
}

/// Starts the server with `--version`: proves that it runs here with its own libraries, and that it
/// is what the recipe says.
fn check_version(id: &EngineId, folder: &Path) -> Result<()> {
    let server = folder.join("bin").join(id.name.server());
    let text = output_of(
        Command::new(&server)
            .arg("--version")
            .env("LD_LIBRARY_PATH", folder.join("lib")),
    )?;
    let wanted = format!(" v={} ", id.version);
    if !text.contains(&wanted) {
        bail!("{id}: its server says '{}' of itself", text.trim());
    }
    Ok(())
}
