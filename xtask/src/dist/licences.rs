//! What a bundle is made of, and the licences of its parts.

use crate::engines::{self, LIBRARIES, LibraryPackage, Recipes, output_of};
use anyhow::{Context, Result};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Crates whose programs are in a release.
const SHIPPED: &[&str] = &["api", "cli", "installer", "manager", "proxy"];

/// The two texts.
pub(crate) struct Notice {
    /// One line a part.
    pub(crate) summary: String,
    /// The licence texts, each once.
    pub(crate) texts: String,
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    resolve: Resolve,
}

#[derive(Deserialize)]
struct Package {
    id: String,
    name: String,
    version: String,
    license: Option<String>,
    repository: Option<String>,
    manifest_path: PathBuf,
    source: Option<String>,
}

#[derive(Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    id: String,
    deps: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    pkg: String,
    dep_kinds: Vec<Kind>,
}

#[derive(Deserialize)]
struct Kind {
    /// `None`: an ordinary dependency.
    kind: Option<String>,
}

/// Texts for the programs and engines of this repository.
pub(crate) fn notice(repository: &Path) -> Result<Notice> {
    let packages = linked_packages(repository)?;
    let mut summary = String::from(
        "Mainstay, licensed under Apache-2.0.\n\nIt carries these programs, each run as it came:\n\n",
    );
    for source in engines::sources(repository)? {
        let package = &source.package;
        writeln!(
            summary,
            "{} from {package}, {}",
            source.engine, source.licence
        )?;
        let folder = engines::folder(repository).join(source.engine.to_string());
        if let Ok(text) = fs::read_to_string(folder.join(LIBRARIES)) {
            for library in serde_json::from_str::<Vec<LibraryPackage>>(&text)? {
                if !library.files.is_empty() {
                    let files = library.files.join(", ");
                    writeln!(
                        summary,
                        "  {files} from {} {}",
                        library.package, library.version
                    )?;
                }
            }
        }
    }
    let supervisor = Recipes::read(repository)?.supervisor;
    writeln!(
        summary,
        "{} {} (wheel), BSD-derived, its text is in the wheel\n\nThe engines' own licence texts are \
         in engines/*/licences. Mainstay's own programs are linked with:\n",
        supervisor.package, supervisor.version
    )?;
    for package in &packages {
        writeln!(
            summary,
            "{} {}, {}, {}",
            package.name,
            package.version,
            package.license.as_deref().unwrap_or("licence in its text"),
            package
                .repository
                .as_deref()
                .unwrap_or("no repository named"),
        )?;
    }
    Ok(Notice {
        summary,
        texts: texts(&packages)?,
    })
}

/// Packages from a registry that the shipped programs are linked with, by name and version.
fn linked_packages(repository: &Path) -> Result<Vec<Package>> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .args(["metadata", "--format-version", "1", "--locked", "--offline"])
        .args(["--filter-platform", "x86_64-unknown-linux-gnu"])
        .current_dir(repository);
    let metadata: Metadata = serde_json::from_str(&output_of(&mut cargo)?)?;
    let nodes: HashMap<&str, &Node> = metadata
        .resolve
        .nodes
        .iter()
        .map(|node| (node.id.as_str(), node))
        .collect();
    let mut open: Vec<&str> = metadata
        .packages
        .iter()
        .filter(|package| package.source.is_none() && SHIPPED.contains(&package.name.as_str()))
        .map(|package| package.id.as_str())
        .collect();
    let mut linked: BTreeSet<String> = BTreeSet::new();
    while let Some(id) = open.pop() {
        if !linked.insert(id.to_owned()) {
            continue;
        }
        let node = nodes
            .get(id)
            .with_context(|| format!("{id} is not resolved"))?;
        let ordinary =
            |dependency: &&Dependency| dependency.dep_kinds.iter().any(|kind| kind.kind.is_none());
        open.extend(
            node.deps
                .iter()
                .filter(ordinary)
                .map(|dependency| dependency.pkg.as_str()),
        );
    }
    let mut packages: Vec<Package> = metadata
        .packages
        .into_iter()
        .filter(|package| package.source.is_some() && linked.contains(&package.id))
        .collect();
    packages.sort_by(|a, b| (&a.name, &a.version).cmp(&(&b.name, &b.version)));
    Ok(packages)
}

/// Each licence text once, headed by the packages that came with it.
fn texts(packages: &[Package]) -> Result<String> {
    let mut by_text: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for package in packages {
        let folder = package
            .manifest_path
            .parent()
            .context("a manifest lies in a folder")?;
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().to_uppercase();
            let wanted = ["LICENSE", "LICENCE", "COPYING", "NOTICE"]
                .iter()
                .any(|start| name.starts_with(start));
            if wanted && entry.file_type()?.is_file() {
                let text = String::from_utf8_lossy(&fs::read(entry.path())?)
                    .trim()
                    .to_owned();
                let user = format!("{} {}", package.name, package.version);
                by_text.entry(text).or_default().insert(user);
            }
        }
    }
    let mut texts = String::new();
    for (text, users) in by_text {
        let users: Vec<String> = users.into_iter().collect();
        writeln!(
            texts,
            "{}\n{}\n\n{text}\n\n",
            "=".repeat(78),
            users.join(", ")
        )?;
    }
    Ok(texts)
}
