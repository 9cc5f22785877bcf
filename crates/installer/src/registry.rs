//! Which installs this host has. One small file each in a folder of root's, made before anything
//! else and removed after everything else; the install record itself lies in the configuration
//! folder.

use crate::console::Console;
use crate::files;
use anyhow::{Context, Result, bail};
use model::node_config::NodeConfig;
use model::release::{INSTALL_RECORD, InstallRecord};
use rustix::net::sockopt::socket_peercred;
use serde::{Deserialize, Serialize};
use std::fs;
use std::net::IpAddr;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The folder.
const FOLDER: &str = "/etc/opt/mainstay-installs";
/// Under this name a record holds the layout, which a run that was cut short needs again.
const LAYOUT: &str = "layout";

/// Entry of an install.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Its layout.
    pub config: NodeConfig,
    /// Folders above its own that this install made, outermost first.
    pub made: Vec<PathBuf>,
}

/// An install of this host.
#[derive(Clone, Debug)]
pub struct Install {
    /// Its entry.
    pub entry: Entry,
    /// Its record; `None`: it was cut short before there was one, or is half removed.
    pub record: Option<InstallRecord>,
}

impl Install {
    /// One line for a list.
    #[must_use]
    pub fn describe(&self) -> String {
        let config = &self.entry.config;
        let version = match &self.record {
            Some(record) if record.is_complete() => record.version.to_string(),
            _ => "unfinished".to_owned(),
        };
        format!(
            "{} in {} ({version})",
            config.address,
            config.install_dir.display()
        )
    }
}

/// What an install record tells beyond its fields.
pub trait RecordFacts {
    /// Whether the install has ended at least once: a first install that was cut short has not.
    fn is_complete(&self) -> bool;
}

/// Under this name a record says that the first install ended.
const COMPLETE: &str = "installed";

impl RecordFacts for InstallRecord {
    fn is_complete(&self) -> bool {
        self.extra.get(COMPLETE) == Some(&serde_json::Value::Bool(true))
    }
}

/// Marks a record as one of an install that has ended.
pub fn mark_complete(record: &mut InstallRecord) {
    record
        .extra
        .insert(COMPLETE.to_owned(), serde_json::Value::Bool(true));
}

/// Every install of this host.
///
/// # Errors
/// When an entry or a record cannot be read: what cannot be read cannot be left alone safely.
pub fn all() -> Result<Vec<Install>> {
    let entries = match fs::read_dir(FOLDER) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).context(FOLDER),
    };
    let mut installs = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let entry: Entry = serde_json::from_str(&text)
            .with_context(|| format!("{} is damaged", path.display()))?;
        let record = read_record(&entry.config.config_dir)?;
        installs.push(Install { entry, record });
    }
    installs.sort_by_key(|install| install.entry.config.address);
    Ok(installs)
}

fn read_record(config_dir: &Path) -> Result<Option<InstallRecord>> {
    let path = config_dir.join(INSTALL_RECORD);
    match fs::read_to_string(&path) {
        Ok(text) => serde_json::from_str(&text)
            .map(Some)
            .with_context(|| format!("install record {} is damaged", path.display())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| path.display().to_string()),
    }
}

fn path_of(config: &NodeConfig) -> PathBuf {
    Path::new(FOLDER).join(format!("{}.json", config.install_id))
}

/// Writes an entry.
///
/// # Errors
/// When it cannot be written.
pub fn write(entry: &Entry) -> Result<()> {
    let path = path_of(&entry.config);
    fs::create_dir_all(FOLDER).context(FOLDER)?;
    files::write_atomic(&path, &to_json(entry)?, 0o644, None)
}

/// Removes an entry, and the folder with the last one.
///
/// # Errors
/// When it cannot be removed.
pub fn remove(config: &NodeConfig) -> Result<()> {
    files::remove(&path_of(config))?;
    // Fails while it holds others, which is right.
    let _ = fs::remove_dir(FOLDER);
    Ok(())
}

/// Writes an install record, so that either the old or the new one is there whatever happens.
///
/// # Errors
/// When it cannot be written.
pub fn write_record(config: &NodeConfig, gid: Option<u32>, record: &InstallRecord) -> Result<()> {
    let mut record = record.clone();
    record
        .extra
        .insert(LAYOUT.to_owned(), serde_json::to_value(config)?);
    let path = config.config_dir.join(INSTALL_RECORD);
    files::write_atomic(&path, &to_json(&record)?, 0o640, gid.map(|gid| (0, gid)))
}

fn to_json<T: Serialize>(value: &T) -> Result<Vec<u8>> {
    let mut text = serde_json::to_vec_pretty(value)?;
    text.push(b'\n');
    Ok(text)
}

/// Which install a run of install.sh is about.
#[derive(Debug)]
pub enum Target {
    /// One of this host.
    Existing(Box<Install>),
    /// None of them.
    New,
}

/// Decides by address, or by there being only one.
///
/// # Errors
/// When it is not clear which one is meant.
pub fn choose(installs: &[Install], address: Option<IpAddr>) -> Result<Target> {
    let existing = |install: &Install| Target::Existing(Box::new(install.clone()));
    match (address, installs) {
        (_, []) => Ok(Target::New),
        (Some(address), _) => Ok(installs
            .iter()
            .find(|install| install.entry.config.address == address)
            .map_or(Target::New, existing)),
        (None, [only]) => Ok(existing(only)),
        (None, several) => {
            let list: Vec<String> = several.iter().map(Install::describe).collect();
            bail!(
                "this host has {} installs; say with --address which one is meant, or the address \
                 of a new one:\n{}",
                several.len(),
                list.join("\n")
            )
        }
    }
}

/// How long another installer of this host is waited for.
const OTHER_RUN: Duration = Duration::from_secs(300);

/// Only one installer at a time on a host: the name is the kernel's, and ends with the process.
///
/// # Errors
/// When another one runs and does not end.
pub fn lock(console: &Console) -> Result<impl Sized> {
    let name = SocketAddr::from_abstract_name("mainstay-install")?;
    let deadline = Instant::now() + OTHER_RUN;
    let mut other = None;
    loop {
        match UnixListener::bind_addr(&name) {
            Ok(lock) => return Ok(lock),
            Err(error) if error.kind() != std::io::ErrorKind::AddrInUse => return Err(error.into()),
            Err(_) => {}
        }
        // Asked once: nobody accepts there, so that many questions would end in a wait.
        let other = other.get_or_insert_with(|| {
            let other = format!(
                "another install.sh or rl_uninstall.sh runs on this host{}",
                holder(&name)
            );
            console.note(format!("{other}: waiting for it"));
            other
        });
        if Instant::now() >= deadline {
            bail!("{other} and does not end")
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Whose the name is, as far as the kernel says.
fn holder(name: &SocketAddr) -> String {
    let peer = UnixStream::connect_addr(name)
        .ok()
        .and_then(|stream| socket_peercred(&stream).ok());
    peer.map(|peer| {
        let (pid, uid) = (peer.pid.as_raw_nonzero(), peer.uid.as_raw());
        format!(" (process {pid} of user {uid})")
    })
    .unwrap_or_default()
}
