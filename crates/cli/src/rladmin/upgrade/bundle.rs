//! The manifest of a bundle, unpacked or not. Whether the bundle is whole and signed says the installer of this
//! node's own release, which knows the keys that the node trusts.

use crate::rladmin::failure::Failure;
use model::node_config::NodeConfig;
use model::release::{MANIFEST, Manifest};
use model::upgrade::UpgradeTarget;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};

/// Largest manifest that is read, bytes.
const MANIFEST_MAX: u64 = 8 * 1024 * 1024;

/// The release of a bundle.
pub(super) fn target(path: &str) -> Result<UpgradeTarget, Failure> {
    let path = Path::new(path);
    let failed = |why: String| Failure::Other(format!("{}: {why}", path.display()));
    if let Err(error) = std::fs::metadata(path) {
        return Err(failed(format!(
            "{error}: give the tar of a release, or the folder that it was unpacked into"
        )));
    }
    let text = if path.is_dir() {
        let file = File::open(path.join(MANIFEST))
            .map_err(|e| failed(format!("it holds no readable {MANIFEST} ({e})")))?;
        limited(file).map_err(|e| failed(e.to_string()))?
    } else {
        let mut child = Command::new("tar")
            .arg("-xOf")
            .arg(path)
            .arg(MANIFEST)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|e| failed(format!("cannot run tar ({e}): unpack it first")))?;
        let text = child
            .stdout
            .take()
            .map_or_else(|| Ok(Vec::new()), limited)
            .map_err(|e| failed(e.to_string()));
        let _ = child.kill();
        let _ = child.wait();
        text?
    };
    if text.is_empty() {
        return Err(failed(format!(
            "it is no tar of a release, or it is cut short: no {MANIFEST} is in it"
        )));
    }
    let manifest: Manifest = serde_json::from_slice(&text)
        .map_err(|e| failed(format!("it is no bundle of Mainstay ({e})")))?;
    Ok(UpgradeTarget::from(&manifest))
}

/// Whether the bundle is whole and signed. Outside of an install there are no keys to check it by.
pub(super) fn verify(path: &str) -> Result<(), Failure> {
    let program = std::env::current_exe().and_then(|program| program.canonicalize());
    let release = program
        .ok()
        .and_then(|program| NodeConfig::release_of(&program));
    let Some(release) = release.filter(|release| release.join(MANIFEST).is_file()) else {
        return Ok(());
    };
    let output = Command::new(release.join("bin/mainstay-install"))
        .args(["verify", "--installed", "--bundle"])
        .arg(path)
        .stdin(Stdio::null())
        .output()
        .map_err(|e| Failure::Other(format!("cannot run mainstay-install: {e}")))?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let why = text.split_once("Error: ").map_or(&*text, |(_, why)| why);
    let lines: Vec<&str> = why.lines().map(str::trim).collect();
    Err(Failure::Other(lines.join("\n")))
}

fn limited(from: impl Read) -> std::io::Result<Vec<u8>> {
    let mut text = Vec::new();
    from.take(MANIFEST_MAX).read_to_end(&mut text)?;
    Ok(text)
}
