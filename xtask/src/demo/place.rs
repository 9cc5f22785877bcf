//! Where a demo lies: one folder, named by its first address.

use super::node::Node;
use crate::engines::output_of;
use anyhow::{Context, Result, ensure};
use semver::Version;
use std::fs;
use std::io::Read;
use std::net::Ipv4Addr;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

const DEFAULT: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);

/// How long an old proxy may keep connections that it cannot give away: its drain time, and a margin.
const OLD_PROXIES: Duration = Duration::from_secs(120);

/// The folder and the addresses.
#[derive(Debug)]
pub(crate) struct Place {
    base: Ipv4Addr,
    root: PathBuf,
}

impl Place {
    /// By the first of three loopback addresses.
    pub(crate) fn new(base: Ipv4Addr) -> Result<Self> {
        let last = base.octets()[3];
        ensure!(
            base.is_loopback() && (1..=252).contains(&last),
            "--base {base}: name one of 127.x.y.1 to 127.x.y.252"
        );
        Ok(Self {
            base,
            root: PathBuf::from(format!("/var/tmp/mainstay-demo-{base}")),
        })
    }

    pub(crate) fn base(&self) -> Ipv4Addr {
        self.base
    }

    /// What names it to `./demo.sh`.
    pub(crate) fn option(&self) -> String {
        if self.base == DEFAULT {
            String::new()
        } else {
            format!(" --base {}", self.base)
        }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Makes the folder; the OS user must be able to enter it.
    pub(crate) fn make(&self) -> Result<()> {
        fs::create_dir_all(&self.root).with_context(|| self.root.display().to_string())?;
        fs::set_permissions(&self.root, fs::Permissions::from_mode(0o755))?;
        Ok(())
    }

    pub(crate) fn node(&self, number: u8) -> Result<Node> {
        self.nodes()
            .into_iter()
            .find(|node| node.number == number)
            .context("nodes are 1, 2, 3")
    }

    pub(crate) fn nodes(&self) -> Vec<Node> {
        (1..=3)
            .map(|number| Node::new(number, self.base, &self.root))
            .collect()
    }

    /// The tar of a version.
    pub(crate) fn tar(&self, repository: &Path, version: &Version) -> PathBuf {
        repository.join(format!("target/dist/mainstay-{version}-linux-amd64.tar"))
    }

    /// Unpacks a tar into the demo's folder, as an operator would.
    pub(crate) fn unpack(&self, tar: &Path, version: &Version) -> Result<PathBuf> {
        unpack(tar, &self.root.join(format!("bundle-{version}")))
    }

    /// Unpacks a tar beside the demo's folder, to remove an earlier demo with its tools.
    pub(crate) fn unpack_for_tools(&self, tar: &Path, version: &Version) -> Result<PathBuf> {
        let folder = tar.parent().context("the tar lies in a folder")?;
        unpack(
            tar,
            &folder.join(format!("unpacked-{version}-{}", self.base)),
        )
    }

    /// Removes the three installs and the folder. `bundle`: where the tools are if a node's own are
    /// gone.
    pub(crate) fn remove(&self, bundle: Option<&Path>) -> Result<()> {
        for node in self.nodes() {
            node.remove(bundle)?;
        }
        if let Some(bundle) = bundle {
            fs::remove_dir_all(bundle)?;
        }
        match fs::remove_dir_all(&self.root) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| self.root.display().to_string())
            }
            _ => Ok(()),
        }
    }

    /// Makes a password and keeps it, for root alone.
    pub(crate) fn new_password(&self) -> Result<String> {
        let mut bytes = [0; 9];
        fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
        let password = hex::encode(bytes);
        let path = self.root.join("password");
        let mut options = fs::OpenOptions::new();
        let file = options
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(path)?;
        std::io::Write::write_all(&mut &file, password.as_bytes())?;
        Ok(password)
    }

    /// Waits until no proxy of another version than `to` runs from this folder.
    pub(crate) fn wait_for_old_proxies(&self, to: &Version) -> Result<()> {
        let deadline = Instant::now() + OLD_PROXIES;
        let old = |program: &Path| {
            let version = program
                .parent()
                .and_then(Path::parent)
                .and_then(Path::file_name);
            program.file_name().is_some_and(|name| name == "dmcproxy")
                && version.is_some_and(|name| name != to.to_string().as_str())
        };
        while !self.processes(old).is_empty() {
            ensure!(
                Instant::now() < deadline,
                "an old proxy still runs after {} s",
                OLD_PROXIES.as_secs()
            );
            std::thread::sleep(Duration::from_millis(200));
        }
        Ok(())
    }

    /// Pids of the engines that run from this folder, sorted.
    pub(crate) fn engine_processes(&self) -> Vec<u32> {
        self.processes(|program| {
            program
                .components()
                .any(|part| part.as_os_str() == "engines")
        })
    }

    /// Pids of the programs of this folder that are wanted, sorted.
    fn processes(&self, wanted: impl Fn(&Path) -> bool) -> Vec<u32> {
        let Ok(entries) = fs::read_dir("/proc") else {
            return Vec::new();
        };
        let mut pids: Vec<u32> = entries
            .filter_map(Result::ok)
            .filter_map(|entry| {
                let program = fs::read_link(entry.path().join("exe")).ok()?;
                let ours = program.starts_with(&self.root) && wanted(&program);
                ours.then(|| entry.file_name().to_str()?.parse().ok())?
            })
            .collect();
        pids.sort_unstable();
        pids
    }
}

fn unpack(tar: &Path, folder: &Path) -> Result<PathBuf> {
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    output_of(Command::new("tar").arg("xf").arg(tar).arg("-C").arg(folder))?;
    Ok(folder.to_path_buf())
}
