//! Files of the node: owners, modes, and whether the programs are those of the release.

use super::report::Findings;
use crate::installation::read_manifest;
use model::node_config::NodeConfig;
use model::release::FileEntry;
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Before the names of the release's own files in a manifest.
const RELEASE: &str = "release/";
/// Most files below one folder that are looked at.
const FILES_MAX: usize = 100_000;

/// Numbers of user and group.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Owner {
    uid: u32,
    gid: u32,
}

/// `verify_owner_and_group`: files belong to the node's user and group, nobody else may write them,
/// and secrets are not readable for others.
#[must_use]
pub fn owner_and_group(config: &NodeConfig) -> Findings {
    let owner = match owner(config) {
        Ok(owner) => owner,
        Err(why) => return Findings::failure(why),
    };
    let names = format!("{}:{}", config.os_user, config.os_group);
    let mut check = OwnerCheck {
        owner,
        names,
        findings: Findings::default(),
    };
    let release = fs::canonicalize(config.current());
    match &release {
        Ok(release) => check.tree(release),
        Err(error) => check.findings.fail(format!(
            "{} leads to no release: {error}",
            config.current().display()
        )),
    }
    for folder in [
        config.var_dir.clone(),
        config.log_dir(),
        config.tmp_dir(),
        config.socket_dir.clone(),
    ] {
        check.one(&folder);
    }
    check.tree(&config.persist_dir());
    check.tree(&config.certificates_dir());
    check.one(&config.identity_path());
    let secrets = secrets(config);
    for path in &secrets {
        check.private(path);
    }
    check.roots_own(&config.install_dir.join("sbin"));
    check.findings
}

struct OwnerCheck {
    owner: Owner,
    names: String,
    findings: Findings,
}

impl OwnerCheck {
    /// One file or folder. That it does not exist is another test's matter.
    fn one(&mut self, path: &Path) {
        let meta = match fs::symlink_metadata(path) {
            Ok(meta) => meta,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return,
            Err(error) => return self.findings.fail(unreadable(path, &error)),
        };
        if (meta.uid(), meta.gid()) != (self.owner.uid, self.owner.gid) {
            self.findings.fail(format!(
                "{} belongs to {}:{}, not to {}. Run: chown -h {} {}",
                path.display(),
                meta.uid(),
                meta.gid(),
                self.names,
                self.names,
                path.display()
            ));
        }
        if !meta.is_symlink() && meta.mode() & 0o002 != 0 {
            self.findings.fail(format!(
                "{} may be written by everybody. Run: chmod o-w {}",
                path.display(),
                path.display()
            ));
        }
    }

    /// A folder and everything below it, sockets aside.
    fn tree(&mut self, root: &Path) {
        let mut left = vec![root.to_path_buf()];
        let mut seen = 0;
        while let Some(path) = left.pop() {
            seen += 1;
            if seen > FILES_MAX {
                let text = format!(
                    "only {FILES_MAX} files below {} were checked",
                    root.display()
                );
                return self.findings.notes.push(text);
            }
            self.one(&path);
            if !fs::symlink_metadata(&path).is_ok_and(|meta| meta.is_dir()) {
                continue;
            }
            match fs::read_dir(&path) {
                Ok(entries) => left.extend(entries.filter_map(|e| Some(e.ok()?.path()))),
                // Engines delete and rename files while we look.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => self.findings.fail(unreadable(&path, &error)),
            }
        }
    }

    /// A file or folder that others may not get at. One below a folder that is closed to others is
    /// closed too.
    fn private(&mut self, path: &Path) {
        let open =
            |path: &Path, bits: u32| fs::metadata(path).is_ok_and(|meta| meta.mode() & bits != 0);
        if open(path, 0o007) && path.ancestors().skip(1).all(|folder| open(folder, 0o001)) {
            self.findings.fail(format!(
                "{} may be read by everybody. Run: chmod o-rwx {}",
                path.display(),
                path.display()
            ));
        }
    }

    /// A folder whose programs root runs: nobody else may own or write anything in it.
    fn roots_own(&mut self, folder: &Path) {
        let Ok(entries) = fs::read_dir(folder) else {
            return;
        };
        let files = entries.filter_map(|entry| Some(entry.ok()?.path()));
        for path in std::iter::once(folder.to_path_buf()).chain(files) {
            let theirs = fs::symlink_metadata(&path).is_ok_and(|meta| {
                meta.uid() != 0 || (!meta.is_symlink() && meta.mode() & 0o022 != 0)
            });
            if theirs {
                self.findings.fail(format!(
                    "{} is run by root but may be changed by others. Run: chown -h root:root {} && \
                     chmod go-w {}",
                    path.display(),
                    path.display(),
                    path.display()
                ));
            }
        }
    }
}

fn unreadable(path: &Path, error: &std::io::Error) -> String {
    format!(
        "cannot look at {}: {error}; run as a member of the node's group",
        path.display()
    )
}

/// Keys, identity, and the folders' own secrets.
fn secrets(config: &NodeConfig) -> Vec<PathBuf> {
    let mut paths = vec![
        config.identity_path(),
        config.store_dir(),
        config.shards_dir(),
    ];
    if let Ok(entries) = fs::read_dir(config.certificates_dir()) {
        let keys = entries.filter_map(|entry| Some(entry.ok()?.path()));
        paths.extend(keys.filter(|path| path.to_string_lossy().ends_with("_key.pem")));
    }
    paths
}

/// The numbers of the node's user and group.
fn owner(config: &NodeConfig) -> Result<Owner, String> {
    let number = |table: &str, name: &str| {
        lookup(table, name).ok_or_else(|| format!("there is no {table} entry '{name}': create it"))
    };
    Ok(Owner {
        uid: number("passwd", &config.os_user)?,
        gid: number("group", &config.os_group)?,
    })
}

/// The number of a name: from the file first, then from wherever the host keeps accounts.
fn lookup(table: &str, name: &str) -> Option<u32> {
    let line = |text: &str| {
        text.lines().find_map(|line| {
            let mut fields = line.split(':');
            (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok())?
        })
    };
    if let Some(number) = fs::read_to_string(format!("/etc/{table}"))
        .ok()
        .and_then(|t| line(&t))
    {
        return Some(number);
    }
    let output = Command::new("getent")
        .args(["--", table, name])
        .output()
        .ok()?;
    line(&String::from_utf8_lossy(&output.stdout))
}

/// `verify_capabilities`: the release in force is what its manifest says, and no program has
/// capability bits: the loader would then ignore the folder that engines have their libraries in.
#[must_use]
pub fn capabilities(config: &NodeConfig) -> Findings {
    let release = match fs::canonicalize(config.current()) {
        Ok(release) => release,
        Err(error) => {
            let link = config.current();
            return Findings::failure(format!("{} leads to no release: {error}", link.display()));
        }
    };
    let manifest = match read_manifest(&release) {
        Ok(manifest) => manifest,
        Err(why) => return Findings::failure(format!("{why}. Run install.sh again to repair it")),
    };
    let mut findings = Findings::default();
    let mut programs = 0;
    for (name, entry) in &manifest.files {
        let Some(name) = name.strip_prefix(RELEASE) else {
            continue;
        };
        programs += usize::from(is_program(entry));
        if let Some(what) = fault(&release.join(name), entry) {
            findings.fail(format!(
                "{} {what}. Run install.sh of {} again to repair it",
                release.join(name).display(),
                manifest.version
            ));
        }
    }
    if programs == 0 {
        findings.fail(format!(
            "the manifest in {} names no programs",
            release.display()
        ));
    }
    findings
}

fn is_program(entry: &FileEntry) -> bool {
    mode(entry).is_some_and(|mode| mode & 0o100 != 0)
}

fn mode(entry: &FileEntry) -> Option<u32> {
    u32::from_str_radix(&entry.mode, 8).ok()
}

/// What is wrong with a file of a release.
fn fault(path: &Path, entry: &FileEntry) -> Option<String> {
    let meta = match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_file() => meta,
        Ok(_) => return Some("is not a file".to_owned()),
        Err(error) => return Some(format!("is missing ({error})")),
    };
    let found = meta.permissions().mode() & 0o7777;
    if mode(entry).is_some_and(|wanted| wanted != found) {
        return Some(format!("has mode {found:04o}, not {}", entry.mode));
    }
    if is_program(entry) && has_capabilities(path) {
        return Some("has capability bits".to_owned());
    }
    if meta.len() != entry.size {
        return Some(format!("has {} bytes, not {}", meta.len(), entry.size));
    }
    match sha256(path) {
        Ok(hash) if hash == entry.sha256 => None,
        Ok(_) => Some("is not the file of the release".to_owned()),
        Err(error) => Some(format!("cannot be read ({error})")),
    }
}

fn has_capabilities(path: &Path) -> bool {
    let mut value = [0_u8; 64];
    rustix::fs::lgetxattr(path, "security.capability", &mut value[..]).is_ok()
}

fn sha256(path: &Path) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 256 * 1024];
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok(hash
                .finalize()
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect());
        }
        hash.update(&buffer[..read]);
    }
}
