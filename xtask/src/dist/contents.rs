//! Gathers what goes into a bundle.

use super::licences;
use crate::engines::{self, Recipes};
use anyhow::{Context, Result};
use model::release::{EngineId, EngineName};
use semver::Version;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use walkdir::WalkDir;

/// Path in the bundle → item, in the order of the paths.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    pub(crate) items: BTreeMap<String, Item>,
}

/// One file of a bundle.
#[derive(Debug)]
pub(crate) struct Item {
    pub(crate) source: Source,
    /// Permission bits.
    pub(crate) mode: u32,
}

/// Where its bytes are.
#[derive(Debug)]
pub(crate) enum Source {
    File(PathBuf),
    Bytes(Vec<u8>),
}

impl Source {
    /// The bytes.
    pub(crate) fn read(&self) -> Result<Vec<u8>> {
        match self {
            Self::File(path) => fs::read(path).with_context(|| path.display().to_string()),
            Self::Bytes(bytes) => Ok(bytes.clone()),
        }
    }
}

impl Contents {
    fn file(&mut self, name: &str, path: PathBuf, mode: u32) {
        self.items.insert(
            name.to_owned(),
            Item {
                source: Source::File(path),
                mode,
            },
        );
    }

    /// Adds a text.
    pub(crate) fn text(&mut self, name: &str, text: &str, mode: u32) {
        let source = Source::Bytes(text.as_bytes().to_vec());
        self.items.insert(name.to_owned(), Item { source, mode });
    }
}

/// Everything but the manifest.
pub(crate) fn gather(
    repository: &Path,
    version: &Version,
    programs: &BTreeMap<String, PathBuf>,
) -> Result<Contents> {
    let packaging = repository.join("packaging");
    let recipes = Recipes::read(repository)?;
    let mut contents = Contents::default();
    contents.file("install.sh", packaging.join("install.sh"), 0o755);
    for (name, path) in programs {
        contents.file(&format!("release/bin/{name}"), path.clone(), 0o755);
    }
    for name in ["supervisorctl", "rl_uninstall.sh"] {
        let text = fs::read_to_string(packaging.join("bin").join(name))?
            .replace("@SUPERVISOR@", &recipes.supervisor.version);
        contents.text(&format!("release/bin/{name}"), &text, 0o755);
    }
    for template in fs::read_dir(packaging.join("templates"))? {
        let template = template?;
        let name = format!(
            "release/templates/{}",
            template.file_name().to_string_lossy()
        );
        contents.file(&name, template.path(), 0o644);
    }
    let wheel = engines::fetch_wheel(repository, &recipes.supervisor)?;
    contents.file(
        &format!("release/supervisor/{}", recipes.supervisor.file),
        wheel,
        0o644,
    );

    let engines: Vec<EngineId> = recipes.engine.iter().map(|recipe| recipe.id()).collect();
    for engine in &engines {
        add_engine(&mut contents, repository, engine)?;
    }
    for (name, program) in [
        (EngineName::Redis, "redis-cli"),
        (EngineName::Valkey, "valkey-cli"),
    ] {
        let engine = newest_with(&contents, &engines, name, program)
            .with_context(|| format!("no engine of the bundle brings {program}"))?;
        let text = fs::read_to_string(packaging.join("bin/engine-cli"))?
            .replace("@PROGRAM@", program)
            .replace("@ENGINE@", &engine.to_string());
        contents.text(&format!("release/bin/{program}"), &text, 0o755);
    }
    add_documents(&mut contents, repository, version)?;
    Ok(contents)
}

fn newest_with<'a>(
    contents: &Contents,
    engines: &'a [EngineId],
    name: EngineName,
    program: &str,
) -> Option<&'a EngineId> {
    engines
        .iter()
        .filter(|engine| engine.name == name)
        .filter(|engine| {
            contents
                .items
                .contains_key(&format!("release/engines/{engine}/bin/{program}"))
        })
        .max_by_key(|engine| engine.age_key())
}

fn add_engine(contents: &mut Contents, repository: &Path, engine: &EngineId) -> Result<()> {
    let folder = engines::folder(repository).join(engine.to_string());
    for entry in WalkDir::new(&folder) {
        let entry = entry?;
        let inside = entry
            .path()
            .strip_prefix(&folder)?
            .to_string_lossy()
            .into_owned();
        if !entry.file_type().is_file() || inside.starts_with('.') {
            continue;
        }
        let executable = entry.metadata()?.permissions().mode() & 0o100 != 0;
        let mode = if executable { 0o755 } else { 0o644 };
        let name = format!("release/engines/{engine}/{inside}");
        contents.file(&name, entry.path().to_path_buf(), mode);
    }
    Ok(())
}

fn add_documents(contents: &mut Contents, repository: &Path, version: &Version) -> Result<()> {
    contents.text("README.md", &readme(version), 0o644);
    let notes = release_notes(repository, version)?;
    contents.text("release/RELEASE_NOTES.md", &notes, 0o644);
    let notice = licences::notice(repository)?;
    contents.text("release/NOTICE", &notice.summary, 0o644);
    contents.text("release/THIRD_PARTY_LICENCES.txt", &notice.texts, 0o644);
    let licence = repository.join("LICENSE");
    if licence.exists() {
        contents.file("release/LICENSE", licence, 0o644);
    }
    Ok(())
}

fn readme(version: &Version) -> String {
    format!(
        "# Mainstay {version}\n\n\
         Install it, upgrade an earlier version, or repair this one: `sudo ./install.sh`\n\n\
         Go back to the version before: `sudo ./install.sh --rollback`\n\n\
         All options: `./install.sh --help`\n\n\
         What is new: `release/RELEASE_NOTES.md`. What it is made of: `release/NOTICE`.\n"
    )
}

/// The version's own section of the change log; a version that has none (one stamped for a test)
/// says so.
fn release_notes(repository: &Path, version: &Version) -> Result<String> {
    let title = format!("# Mainstay {version}\n\n");
    let path = repository.join("CHANGELOG.md");
    if path.exists() {
        let text = fs::read_to_string(&path)?;
        let heading = format!("## {version}");
        let mut section = text.lines().skip_while(|line| {
            line.split_whitespace()
                .take(2)
                .collect::<Vec<_>>()
                .join(" ")
                != heading
        });
        if section.next().is_some() {
            let body: Vec<&str> = section
                .take_while(|line| !line.starts_with("## "))
                .collect();
            return Ok(format!("{title}{}\n", body.join("\n").trim()));
        }
    }
    Ok(format!(
        "{title}The change log has no section for this version.\n"
    ))
}
