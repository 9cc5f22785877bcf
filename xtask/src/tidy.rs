//! `cargo xtask tidy`: rules that no compiler checks.

use anyhow::{Context as _, bail};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;
use walkdir::WalkDir;

/// Longest source file, lines. Beyond it a file has stopped being one room.
const LINES_MAX: usize = 700;
/// Largest file in the repository, bytes.
const FILE_MAX: u64 = 500 * 1024;

/// A room may not pull these, directly or through others.
const FORBIDDEN: &[(&str, &[&str])] = &[
    ("resp", &["tokio", "axum", "openraft"]),
    ("model", &["tokio", "axum", "openraft", "reqwest"]),
    ("proxy", &["axum", "openraft", "rusqlite", "reqwest"]),
];

/// Who may use whom among our own crates; development dependencies do not count.
const MAY_USE: &[(&str, &[&str])] = &[
    ("resp", &[]),
    ("model", &[]),
    ("discovery", &["model", "resp"]),
    ("store", &["model"]),
    ("client", &["model"]),
    ("controller", &["model", "store", "client"]),
    ("agent", &["model", "resp"]),
    (
        "manager",
        &[
            "model",
            "store",
            "client",
            "controller",
            "agent",
            "discovery",
        ],
    ),
    ("api", &["model", "client"]),
    ("proxy", &["model", "resp"]),
    ("installer", &["model", "client", "agent"]),
    ("cli", &["model", "client", "agent"]),
];

/// Checks all rules.
pub(crate) fn run(root: &Path) -> anyhow::Result<()> {
    let mut findings = Vec::new();
    layers(root, &mut findings)?;
    files(root, &mut findings)?;
    findings.extend(crate::dist::release::findings(root)?);
    if findings.is_empty() {
        return Ok(());
    }
    bail!("{}", findings.join("\n"));
}

fn layers(root: &Path, findings: &mut Vec<String>) -> anyhow::Result<()> {
    let output = Command::new("cargo")
        .args(["metadata", "--format-version", "1", "--locked"])
        .current_dir(root)
        .output()
        .context("run cargo metadata")?;
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout)
        .with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
    let graph = graph(&metadata);
    let ours: BTreeSet<&str> = MAY_USE.iter().map(|(name, _)| *name).collect();
    for (name, allowed) in MAY_USE {
        for used in graph.get(*name).into_iter().flatten() {
            if ours.contains(used.as_str()) && !allowed.contains(&used.as_str()) {
                findings.push(format!("crates/{name} may not use crates/{used}"));
            }
        }
    }
    for (name, forbidden) in FORBIDDEN {
        let reached = reached(&graph, name);
        for bad in forbidden.iter().filter(|bad| reached.contains(**bad)) {
            findings.push(format!("crates/{name} pulls {bad}"));
        }
    }
    Ok(())
}

/// Package name → names of the packages that it needs to run or to be built.
fn graph(metadata: &serde_json::Value) -> BTreeMap<String, BTreeSet<String>> {
    let list = |value: &serde_json::Value| value.as_array().cloned().unwrap_or_default();
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let names: BTreeMap<String, String> = list(&metadata["packages"])
        .iter()
        .map(|p| (text(&p["id"]), text(&p["name"])))
        .collect();
    let mut graph: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for node in list(&metadata["resolve"]["nodes"]) {
        let Some(name) = names.get(&text(&node["id"])) else {
            continue;
        };
        for dep in list(&node["deps"]) {
            let runs = list(&dep["dep_kinds"])
                .iter()
                .any(|kind| text(&kind["kind"]) != "dev");
            if let Some(used) = names.get(&text(&dep["pkg"])).filter(|_| runs) {
                graph.entry(name.clone()).or_default().insert(used.clone());
            }
        }
    }
    graph
}

fn reached(graph: &BTreeMap<String, BTreeSet<String>>, from: &str) -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    let mut next = vec![from.to_owned()];
    while let Some(name) = next.pop() {
        for used in graph.get(&name).into_iter().flatten() {
            if seen.insert(used.clone()) {
                next.push(used.clone());
            }
        }
    }
    seen
}

fn files(root: &Path, findings: &mut Vec<String>) -> anyhow::Result<()> {
    let walk = WalkDir::new(root).into_iter().filter_entry(|entry| {
        let name = entry.file_name().to_string_lossy();
        entry.depth() == 0 || !matches!(&*name, "target" | ".git" | "node_modules")
    });
    for entry in walk {
        let entry = entry?;
        if !entry.file_type().is_file() {
            continue;
        }
        let path = entry.path().strip_prefix(root)?;
        let shown = path.display();
        let size = entry.metadata()?.len();
        if size > FILE_MAX {
            findings.push(format!("{shown} has {size} bytes: more than {FILE_MAX}"));
        }
        let extension = path
            .extension()
            .and_then(|e| e.to_str())
            .unwrap_or_default();
        let stem = path
            .file_stem()
            .and_then(|s| s.to_str())
            .unwrap_or_default();
        if extension == "rs" && matches!(stem, "utils" | "util" | "common" | "helpers" | "misc") {
            findings.push(format!("{shown}: a name that says nothing"));
        }
        if matches!(extension, "rs" | "sh" | "md" | "toml" | "py" | "js") {
            text(
                &shown.to_string(),
                extension,
                &std::fs::read_to_string(entry.path())?,
                findings,
            );
        }
    }
    Ok(())
}

fn text(path: &str, extension: &str, text: &str, findings: &mut Vec<String>) {
    if extension == "rs" && text.lines().count() > LINES_MAX {
        findings.push(format!(
            "{path} has more than {LINES_MAX} lines: it is not one room any more"
        ));
    }
    for (number, line) in text.lines().enumerate() {
        let trailing = line.ends_with(' ') || line.ends_with('\t');
        if trailing && extension != "md" {
            findings.push(format!("{path}:{}: white space at the end", number + 1));
        }
    }
}
