//! The manifest of a bundle, unpacked or not. It is read for a plan, which changes nothing: that it is
//! signed is what install.sh checks.

use crate::rladmin::failure::Failure;
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

fn limited(from: impl Read) -> std::io::Result<Vec<u8>> {
    let mut text = Vec::new();
    from.take(MANIFEST_MAX).read_to_end(&mut text)?;
    Ok(text)
}
