//! Writes the tar: sorted, one time, one owner, so that the same contents give the same bytes.

use super::contents::{Contents, Source};
use anyhow::{Context, Result};
use std::collections::BTreeSet;
use std::fs;
use std::io::{BufWriter, Write};
use std::path::Path;

/// Time of every entry: 2025-01-01 00:00:00 UTC.
const MTIME: u64 = 1_735_689_600;

/// Writes `contents` to `path`, whole or not at all.
pub(crate) fn write(path: &Path, contents: &Contents) -> Result<()> {
    let folder = path.parent().context("the result has no folder")?;
    let partial = tempfile::NamedTempFile::new_in(folder)?;
    let mut tar = tar::Builder::new(BufWriter::new(partial.as_file()));
    let mut folders = BTreeSet::new();
    for (name, item) in &contents.items {
        for (at, _) in name.match_indices('/') {
            if folders.insert(&name[..at]) {
                let mut header = header(tar::EntryType::Directory, 0o755, 0);
                tar.append_data(&mut header, format!("{}/", &name[..at]), std::io::empty())?;
            }
        }
        match &item.source {
            Source::Bytes(bytes) => {
                let mut header = header(tar::EntryType::Regular, item.mode, bytes.len() as u64);
                tar.append_data(&mut header, name, bytes.as_slice())?;
            }
            Source::File(file) => {
                let open = fs::File::open(file).with_context(|| file.display().to_string())?;
                let size = open.metadata()?.len();
                let mut header = header(tar::EntryType::Regular, item.mode, size);
                tar.append_data(&mut header, name, open)?;
            }
        }
    }
    tar.into_inner()?.flush()?;
    partial.as_file().sync_all()?;
    let file = partial
        .persist(path)
        .with_context(|| path.display().to_string())?;
    file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
    Ok(())
}

fn header(kind: tar::EntryType, mode: u32, size: u64) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(MTIME);
    header.set_size(size);
    header
}
