//! Releases of the past: which commit each is, and the bundle of one, built from its commit in a worktree of
//! git's. What is built there and here knows nothing of each other, but for what came from registries: that is
//! taken over, file by file, so that it need not be compiled again.

use super::Options;
use crate::engines::output_of;
use anyhow::{Context, Result, bail};
use semver::Version;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use walkdir::WalkDir;

/// packaging/releases.toml.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Releases {
    /// The version that the tree is on its way to.
    next: Version,
    /// The releases, oldest first.
    #[serde(default)]
    release: Vec<Release>,
}

/// A release.
#[derive(Clone, Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Release {
    version: Version,
    /// 40 hex digits.
    commit: String,
}

fn read(repository: &Path) -> Result<Releases> {
    let path = repository.join("packaging/releases.toml");
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    toml::from_str(&text).with_context(|| path.display().to_string())
}

/// The version that the tree is on its way to.
pub(crate) fn next(repository: &Path) -> Result<Version> {
    Ok(read(repository)?.next)
}

/// The last release.
pub(crate) fn last(repository: &Path) -> Result<Version> {
    let last = read(repository)?.release.pop();
    Ok(last
        .context("packaging/releases.toml names no release")?
        .version)
}

/// What this tree is stamped as where `version` runs: on its way to `next`, or, if that is what runs, to one more.
pub(crate) fn after(repository: &Path, version: &Version) -> Result<Version> {
    let next = next(repository)?;
    Ok(if *version < next {
        next
    } else {
        Version::new(version.major, version.minor + 1, 0)
    })
}

fn git(repository: &Path, arguments: &[&str]) -> Result<String> {
    let mut command = Command::new("git");
    command.arg("-C").arg(repository).args(arguments);
    Ok(output_of(&mut command)?.trim().to_owned())
}

fn is_shallow(repository: &Path) -> Result<bool> {
    Ok(git(repository, &["rev-parse", "--is-shallow-repository"])? == "true")
}

/// What is wrong with the list of releases.
pub(crate) fn findings(repository: &Path) -> Result<Vec<String>> {
    let releases = read(repository)?;
    let mut findings = Vec::new();
    let file = "packaging/releases.toml";
    let versions: Vec<&Version> = releases.release.iter().map(|r| &r.version).collect();
    if !versions.is_sorted_by(|a, b| a < b) {
        findings.push(format!(
            "{file}: the releases are not in the order of their versions"
        ));
    }
    if versions.last().is_some_and(|last| **last >= releases.next) {
        findings.push(format!(
            "{file}: next is {}, which is released",
            releases.next
        ));
    }
    if releases.release.is_empty() {
        return Ok(findings);
    }
    if is_shallow(repository)? {
        findings.push(format!("{file}: {SHALLOW}"));
        return Ok(findings);
    }
    for release in &releases.release {
        let is_ancestor = ["merge-base", "--is-ancestor", &release.commit, "HEAD"];
        if git(repository, &is_ancestor).is_err() {
            findings.push(format!(
                "{file}: {} names {}, which is no ancestor of HEAD",
                release.version, release.commit
            ));
        }
    }
    Ok(findings)
}

const SHALLOW: &str = "this clone is shallow, so that commits of releases cannot be found: \
                       `git fetch --unshallow` brings them";

/// Builds the bundle of a release from its commit, and prints its path.
pub(super) fn build(repository: &Path, version: &Version, options: &Options) -> Result<()> {
    let releases = read(repository)?.release;
    let Some(release) = releases.iter().find(|release| release.version == *version) else {
        let known: Vec<String> = releases.iter().map(|r| r.version.to_string()).collect();
        bail!(
            "packaging/releases.toml names no release {version}; it names {}",
            if known.is_empty() {
                "none".to_owned()
            } else {
                known.join(", ")
            }
        );
    };
    if is_shallow(repository)? {
        bail!("release {version} cannot be built: {SHALLOW}");
    }
    let tree = worktree(repository, release)?;
    let folder = if options.fast { "debug" } else { "dist" };
    share(repository, &tree, folder)?;
    let out = options
        .out
        .clone()
        .unwrap_or_else(|| repository.join("target/dist"));
    fs::create_dir_all(&out).with_context(|| out.display().to_string())?;
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .args(["xtask", "dist", "--version", &version.to_string(), "--out"])
        .arg(out.canonicalize()?)
        .current_dir(&tree)
        .env_remove("CARGO_TARGET_DIR")
        .env_remove("CARGO_MANIFEST_DIR");
    if options.fast {
        cargo.arg("--fast");
    }
    if let Some(key) = &options.key {
        cargo.arg("--key").arg(key.canonicalize()?);
    }
    let status = cargo.status().context("cannot run cargo")?;
    if !status.success() {
        bail!("building release {version} from {} failed", tree.display());
    }
    Ok(())
}

/// The release's sources, as they were.
fn worktree(repository: &Path, release: &Release) -> Result<PathBuf> {
    let tree = repository
        .join("target/releases")
        .join(release.version.to_string());
    let commit = git(
        repository,
        &[
            "rev-parse",
            "--verify",
            &format!("{}^{{commit}}", release.commit),
        ],
    )
    .with_context(|| {
        format!(
            "release {} is commit {}, which is not here",
            release.version, release.commit
        )
    })?;
    let there = tree.join(".git").exists()
        && git(&tree, &["rev-parse", "HEAD"]).is_ok_and(|head| head == commit);
    if there {
        // Somebody may have looked around in it.
        git(
            &tree,
            &["checkout", "--quiet", "--force", "--detach", &commit],
        )?;
        return Ok(tree);
    }
    if tree.exists() {
        fs::remove_dir_all(&tree).with_context(|| tree.display().to_string())?;
    }
    git(repository, &["worktree", "prune"])?;
    let shown = tree.display().to_string();
    git(
        repository,
        &[
            "worktree", "add", "--quiet", "--force", "--detach", &shown, &commit,
        ],
    )?;
    Ok(tree)
}

/// Gives the worktree what is built already and comes from registries, and the engines. Our own crates are not
/// shared: cargo tells two trees of one workspace apart by the times of files alone.
fn share(repository: &Path, tree: &Path, folder: &str) -> Result<()> {
    let (from, to) = (repository.join("target"), tree.join("target"));
    fs::create_dir_all(&to)?;
    let engines = to.join("engines");
    if !engines.exists() && from.join("engines").exists() {
        std::os::unix::fs::symlink(from.join("engines"), &engines)
            .with_context(|| engines.display().to_string())?;
    }
    if to.join(folder).exists() {
        return Ok(());
    }
    let ours = members(repository)?;
    for part in ["deps", "build", ".fingerprint"] {
        let inside = Path::new(folder).join(part);
        for entry in WalkDir::new(from.join(&inside)).into_iter().flatten() {
            let path = entry.path().strip_prefix(from.join(&inside))?;
            let crate_of = path
                .iter()
                .next()
                .map(|name| crate_name(&name.to_string_lossy()));
            if entry.file_type().is_file() && crate_of.is_some_and(|name| !ours.contains(&name)) {
                let target = to.join(&inside).join(path);
                if let Some(above) = target.parent() {
                    fs::create_dir_all(above)?;
                }
                // One that went away meanwhile is built again.
                let _ = fs::hard_link(entry.path(), &target);
            }
        }
    }
    Ok(())
}

/// `libserde_json-0123456789abcdef.rlib` and `serde-json-0123456789abcdef` are of `serde_json`.
fn crate_name(file: &str) -> String {
    let stem = file.rsplit_once('-').map_or(file, |(stem, _)| stem);
    let is_library = file.contains('.') && stem.starts_with("lib");
    let stem = if is_library { &stem[3..] } else { stem };
    stem.replace('-', "_")
}

/// Our own crates and programs, as their files are named.
fn members(repository: &Path) -> Result<BTreeSet<String>> {
    let mut command = Command::new("cargo");
    command
        .args([
            "metadata",
            "--format-version",
            "1",
            "--locked",
            "--offline",
            "--no-deps",
        ])
        .current_dir(repository);
    let metadata: serde_json::Value = serde_json::from_str(&output_of(&mut command)?)?;
    let list = |value: &serde_json::Value| value.as_array().cloned().unwrap_or_default();
    let mut names = BTreeSet::new();
    for package in list(&metadata["packages"]) {
        names.extend(package["name"].as_str().map(str::to_owned));
        for target in list(&package["targets"]) {
            names.extend(target["name"].as_str().map(str::to_owned));
        }
    }
    Ok(names
        .into_iter()
        .map(|name| name.replace('-', "_"))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crates_by_the_names_of_their_files() {
        for (file, name) in [
            ("libserde_json-0123456789abcdef.rlib", "serde_json"),
            ("serde-json-0123456789abcdef", "serde_json"),
            ("libc-0123456789abcdef", "libc"),
            ("liblibc-0123456789abcdef.rmeta", "libc"),
            ("cnm_exec-0123456789abcdef", "cnm_exec"),
        ] {
            assert_eq!(crate_name(file), name, "{file}");
        }
    }

    fn run(folder: &Path, arguments: &[&str]) {
        git(folder, arguments).unwrap();
    }

    /// A repository with one commit, and a clone of it that has no history.
    #[test]
    fn a_shallow_clone_and_a_foreign_commit_are_told() {
        let folder = tempfile::tempdir().unwrap();
        let (full, shallow) = (folder.path().join("full"), folder.path().join("shallow"));
        fs::create_dir_all(full.join("packaging")).unwrap();
        run(&full, &["init", "--quiet"]);
        run(&full, &["config", "user.email", "t@example.com"]);
        run(&full, &["config", "user.name", "t"]);
        let write = |text: &str| fs::write(full.join("packaging/releases.toml"), text).unwrap();
        write("next = \"1.0.0\"\n");
        let commit = |text: &str| {
            run(&full, &["add", "."]);
            run(&full, &["commit", "--quiet", "-m", text]);
            git(&full, &["rev-parse", "HEAD"]).unwrap()
        };
        let first = commit("one");
        assert_eq!(findings(&full).unwrap(), Vec::<String>::new());
        let named = |commit: &str| {
            format!("next = \"1.1.0\"\n[[release]]\nversion = \"1.0.0\"\ncommit = \"{commit}\"\n")
        };
        write(&named(&first));
        commit("two");
        assert_eq!(findings(&full).unwrap(), Vec::<String>::new());
        let from = format!("file://{}", full.display());
        let to = shallow.display().to_string();
        run(
            folder.path(),
            &["clone", "--quiet", "--depth", "1", &from, &to],
        );
        let told = findings(&shallow).unwrap().join("\n");
        assert!(told.contains("this clone is shallow"), "{told}");
        let options = Options {
            version: None,
            release: Some(Version::new(1, 0, 0)),
            fast: true,
            out: None,
            key: None,
            no_build: false,
        };
        let error = build(&shallow, &Version::new(1, 0, 0), &options).unwrap_err();
        assert!(
            error.to_string().contains("this clone is shallow"),
            "{error}"
        );
        write(&named("0123456789012345678901234567890123456789"));
        let told = findings(&full).unwrap().join("\n");
        assert!(told.contains("no ancestor of HEAD"), "{told}");
    }
}
