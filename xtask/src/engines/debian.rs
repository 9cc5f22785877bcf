//! Engines from Debian packages, by way of a private apt folder: the machine's own apt configuration
//! and lists stay as they are.

use super::recipe::{DebianPackage, EngineRecipe};
use super::{LIBRARIES, LibraryPackage, libraries, output_of, sha256_of, write_json};
use anyhow::{Context, Result, bail};
use model::release::EngineSource;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// apt with lists, sources and cache of its own.
pub(crate) struct Index {
    root: PathBuf,
    packages: PathBuf,
}

/// A downloaded and unpacked package.
pub(crate) struct Package {
    name: String,
    version: String,
    sha256: String,
    /// Its files.
    files: tempfile::TempDir,
}

impl Index {
    /// Makes the folder and fetches the lists.
    pub(crate) fn open(downloads: &Path) -> Result<Self> {
        let root = downloads.join("apt");
        let index = Self {
            packages: downloads.join("deb"),
            root,
        };
        for sub in ["lists/partial", "cache/archives/partial", "sources"] {
            fs::create_dir_all(index.root.join(sub))?;
        }
        fs::create_dir_all(&index.packages)?;
        fs::write(
            index.root.join("sources/mainstay.sources"),
            private_sources()?,
        )?;
        println!("  reading Debian's package lists");
        output_of(&mut index.apt("apt-get", &["--quiet", "update"])).context(
            "cannot read Debian's package lists; is the archive in the machine's apt sources reachable?",
        )?;
        Ok(index)
    }

    fn apt(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        let root = self.root.display();
        for option in [
            format!("Dir::State::lists={root}/lists"),
            format!("Dir::Cache={root}/cache"),
            "Dir::Etc::sourcelist=/dev/null".to_owned(),
            format!("Dir::Etc::sourceparts={root}/sources"),
            // The folder lies in the repository, where apt's own user may not write.
            "APT::Sandbox::User=root".to_owned(),
            "Acquire::Languages=none".to_owned(),
        ] {
            command.args(["-o", &option]);
        }
        command.args(arguments).env("LC_ALL", "C");
        command
    }

    /// The newest revision of an upstream version.
    fn revision_of(&self, package: &str, upstream: &str) -> Result<String> {
        let rows = output_of(&mut self.apt("apt-cache", &["madison", package]))?;
        let versions: Vec<&str> = rows
            .lines()
            .filter_map(|row| row.split('|').nth(1))
            .map(str::trim)
            .collect();
        let found = versions
            .iter()
            .find(|version| upstream_of(version) == upstream);
        found.map(|version| (*version).to_owned()).with_context(|| {
            let found = if versions.is_empty() {
                "none".into()
            } else {
                versions.join(", ")
            };
            format!("Debian has no package {package} of {upstream}; found: {found}")
        })
    }

    /// The version that apt itself would install: never one of backports for a library that the
    /// release has.
    fn candidate(&self, package: &str) -> Result<String> {
        let text = output_of(&mut self.apt("apt-cache", &["policy", package]))?;
        let candidate = text
            .lines()
            .find_map(|line| line.trim().strip_prefix("Candidate: "));
        candidate
            .filter(|version| *version != "(none)")
            .map(str::to_owned)
            .with_context(|| format!("Debian has no package {package}"))
    }

    fn fetch(&self, package: &str, upstream: Option<&str>) -> Result<Package> {
        let version = match upstream {
            Some(upstream) => self.revision_of(package, upstream)?,
            None => self.candidate(package)?,
        };
        let prefix = format!("{package}_{}_", version.replace(':', "%3a"));
        let mut apt = self.apt("apt-get", &["--quiet", "download"]);
        // Downloads into the current folder; what is there already with the right hash is kept.
        apt.arg(format!("{package}={version}"))
            .current_dir(&self.packages);
        output_of(&mut apt).with_context(|| format!("cannot download {package} {version}"))?;
        let file = fs::read_dir(&self.packages)?
            .filter_map(Result::ok)
            .map(|entry| entry.path())
            .find(|path| {
                path.file_name()
                    .is_some_and(|name| name.to_string_lossy().starts_with(&prefix))
            })
            .with_context(|| format!("apt downloaded {package} {version}, but no file is there"))?;
        let files = tempfile::tempdir()?;
        output_of(
            Command::new("dpkg-deb")
                .arg("-x")
                .arg(&file)
                .arg(files.path()),
        )?;
        Ok(Package {
            name: package.to_owned(),
            version,
            sha256: sha256_of(&file)?,
            files,
        })
    }
}

/// `5:7.0.15-1~deb12u7` → `7.0.15`, `8.0.1+dfsg1-1~bpo12+1` → `8.0.1`.
fn upstream_of(version: &str) -> &str {
    let version = version.split_once(':').map_or(version, |(_, rest)| rest);
    let version = version
        .rsplit_once('-')
        .map_or(version, |(upstream, _)| upstream);
    version.split('+').next().unwrap_or(version)
}

/// The machine's own entries for bookworm, with bookworm-backports beside them.
fn private_sources() -> Result<String> {
    let rows = output_of(Command::new("apt-get").args([
        "indextargets",
        "--format",
        "$(REPO_URI) $(RELEASE) $(COMPONENT)",
        "Created-By: Packages",
    ]))
    .context("the engines come from Debian packages: a Debian 12 machine with apt is needed")?;
    let mut entries = BTreeSet::new();
    for row in rows.lines() {
        let mut words = row.split_whitespace();
        if let (Some(uri), Some(suite), Some("main")) = (words.next(), words.next(), words.next())
            && suite.starts_with("bookworm")
        {
            entries.insert((uri.to_owned(), suite.to_owned()));
            if suite == "bookworm" {
                entries.insert((uri.to_owned(), "bookworm-backports".to_owned()));
            }
        }
    }
    if entries.is_empty() {
        bail!("the machine's apt sources have no entry for Debian bookworm, component main");
    }
    let mut text = String::new();
    for (uri, suite) in entries {
        text.push_str(&format!(
            "Types: deb\nURIs: {uri}\nSuites: {suite}\nComponents: main\n"
        ));
        if Path::new(KEYRING).exists() {
            text.push_str(&format!("Signed-By: {KEYRING}\n"));
        }
        text.push('\n');
    }
    Ok(text)
}

/// Puts an engine's programs, libraries and licences into `folder`.
pub(crate) fn unpack(
    index: &Index,
    recipe: &EngineRecipe,
    origin: &DebianPackage,
    folder: &Path,
) -> Result<EngineSource> {
    let id = recipe.id();
    let upstream = id.version.to_string();
    let package = index
        .fetch(&origin.package, Some(&upstream))
        .with_context(|| {
            format!(
                "engine {id} comes from the package {} of {}",
                origin.package, origin.suite
            )
        })?;
    let mut programs = Vec::new();
    for (inside, name) in &origin.programs {
        let target = folder.join("bin").join(name);
        fs::copy(package.files.path().join(inside), &target)
            .with_context(|| format!("{inside} is not in {}", package.name))?;
        fs::set_permissions(&target, fs::Permissions::from_mode(0o755))?;
        programs.push(target);
    }
    copy_licence(&package, folder)?;

    let mut fetched = Vec::new();
    for name in &origin.libraries {
        fetched.push(index.fetch(name, None)?);
    }
    let folders: Vec<PathBuf> = fetched
        .iter()
        .map(|library| library.files.path().to_path_buf())
        .collect();
    let taken = libraries::collect(&programs, &folders, &folder.join("lib"))?;
    let mut records = Vec::new();
    for (library, files) in fetched.iter().zip(taken) {
        copy_licence(library, folder)?;
        records.push(LibraryPackage {
            package: library.name.clone(),
            version: library.version.clone(),
            sha256: library.sha256.clone(),
            files,
        });
    }
    write_json(&folder.join(LIBRARIES), &records)?;
    Ok(EngineSource {
        engine: id,
        package: format!(
            "{} {} (Debian {})",
            package.name, package.version, origin.suite
        ),
        sha256: package.sha256,
        licence: recipe.licence.clone(),
    })
}

fn copy_licence(package: &Package, folder: &Path) -> Result<()> {
    let text = package
        .files
        .path()
        .join("usr/share/doc")
        .join(&package.name)
        .join("copyright");
    // Some link their folder to a sister package's, which is then named in `libraries` as well.
    if text.exists() {
        fs::copy(&text, folder.join("licences").join(&package.name))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::upstream_of;

    #[test]
    fn upstream_versions() {
        assert_eq!(upstream_of("5:7.0.15-1~deb12u7"), "7.0.15");
        assert_eq!(upstream_of("8.0.1+dfsg1-1~bpo12+1"), "8.0.1");
        assert_eq!(upstream_of("3.0"), "3.0");
    }
}
