//! What the tests share: two bundles made from one build, and a place on this machine to install
//! into, which is left as it was found.

use rustix::fs::{FlockOperation, flock};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};
use walkdir::WalkDir;

/// The version that is installed first.
pub(crate) const FIRST: &str = "1.0.0";
/// The version that comes after it.
pub(crate) const SECOND: &str = "1.1.0";

/// For how many seconds daemons are watched.
const WATCH: &str = "MAINSTAY_INSTALL_WATCH";

pub(crate) fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .unwrap()
        .to_path_buf()
}

/// Whether these tests can run; says why not.
pub(crate) fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("not run: installs need root");
    }
    root
}

/// Runs a program to its end, with its output as text.
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) text: String,
}

pub(crate) fn ran(output: &Output) -> Ran {
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    Ran {
        code: output.status.code(),
        text,
    }
}

/// Waits until `true`, and fails when it does not become so.
pub(crate) fn wait_until(what: &str, condition: impl FnMut() -> bool) {
    wait_until_within(what, Duration::from_secs(30), condition);
}

/// As [`wait_until`], for what takes its time.
pub(crate) fn wait_until_within(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) {
    let deadline = std::time::Instant::now() + limit;
    while !condition() {
        assert!(
            std::time::Instant::now() < deadline,
            "not within {} s: {what}",
            limit.as_secs()
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A place to install into. While it lives no other test installs: the machine has one user table,
/// one /etc, and one installer at a time.
pub(crate) struct Bench {
    pub(crate) root: tempfile::TempDir,
    pub(crate) address: Ipv4Addr,
    _lock: File,
}

impl Bench {
    pub(crate) fn new() -> Self {
        let lock = lock("bench");
        let root = tempfile::Builder::new()
            .prefix("mi-")
            .tempdir_in("/var/tmp")
            .unwrap();
        // The OS user must be able to enter it.
        fs::set_permissions(
            root.path(),
            std::os::unix::fs::PermissionsExt::from_mode(0o755),
        )
        .unwrap();
        // 127.x.y.z by process: two checkouts may be tested at once.
        let pid = std::process::id();
        let octet = |at: u32| u8::try_from(pid >> at & 0x7f).unwrap() + 64;
        Self {
            root,
            address: Ipv4Addr::new(127, octet(7), octet(0), 11),
            _lock: lock,
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    pub(crate) fn install_dir(&self) -> PathBuf {
        self.path("opt/mainstay")
    }

    /// Where the install goes.
    pub(crate) fn places(&self) -> Vec<String> {
        let path = |name: &str| self.path(name).display().to_string();
        [
            "--install-dir",
            &path("opt"),
            "--config-dir",
            &path("etc"),
            "--var-dir",
            &path("var"),
        ]
        .map(str::to_owned)
        .to_vec()
    }

    pub(crate) fn command(&self, bundle: &Path) -> Command {
        let mut command = Command::new(bundle.join("install.sh"));
        command
            .arg("--address")
            .arg(self.address.to_string())
            .arg("--skip-dns-port-verification")
            .env(WATCH, "1")
            .stdin(Stdio::null());
        command
    }

    /// As [`Bench::command`], for a release that only watching finds out: watched as long as everywhere.
    pub(crate) fn watching(&self, bundle: &Path) -> Command {
        let mut command = self.command(bundle);
        command.arg("-y").env_remove(WATCH);
        command
    }

    /// Runs install.sh of a bundle with `-y` and more options.
    pub(crate) fn install_sh(&self, bundle: &Path, more: &[&str]) -> Ran {
        ran(&self.command(bundle).arg("-y").args(more).output().unwrap())
    }

    /// Runs rladmin of the install.
    pub(crate) fn rladmin(&self, words: &[&str]) -> Ran {
        let program = self.install_dir().join("bin/rladmin");
        let output = Command::new(program)
            .args(words)
            .stdin(Stdio::null())
            .output();
        ran(&output.unwrap())
    }

    /// The node becomes a cluster of its own.
    pub(crate) fn create_cluster(&self) {
        let words = [
            "cluster",
            "create",
            "name",
            "test.local",
            "username",
            "admin@test.local",
            "password",
            "secret-of-the-test",
        ];
        let ran = self.rladmin(&words);
        assert_eq!(ran.code, Some(0), "{}", ran.text);
    }

    /// A new install into this place, which must go well.
    pub(crate) fn install(&self, bundle: &Path) -> String {
        let places = self.places();
        let places: Vec<&str> = places.iter().map(String::as_str).collect();
        let ran = self.install_sh(bundle, &places);
        assert_eq!(ran.code, Some(0), "{}", ran.text);
        ran.text
    }

    /// Pid of a daemon.
    pub(crate) fn pid_of(&self, name: &str) -> Option<String> {
        let output = Command::new(self.install_dir().join("bin/supervisorctl"))
            .args(["pid", name])
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        text.parse::<u32>()
            .ok()
            .filter(|pid| *pid > 0)
            .map(|pid| pid.to_string())
    }

    /// Pids of the engines that run from this install.
    pub(crate) fn engines(&self) -> Vec<u32> {
        let releases = self.install_dir().join("releases");
        let is_engine = |program: PathBuf| {
            program.starts_with(&releases)
                && program
                    .components()
                    .any(|part| part.as_os_str() == "engines")
        };
        let processes = installer::processes::all().into_iter();
        let engines = processes.filter(|process| process.program().is_some_and(is_engine));
        engines.map(|process| process.pid).collect()
    }

    pub(crate) fn node_pid(&self) -> String {
        let lock = self.path("var/mainstay/run/mainstay-node.lock");
        fs::read_to_string(lock).unwrap().trim().to_owned()
    }

    /// Removes the install, which must go well.
    pub(crate) fn uninstall(&self) {
        let program = bundle(FIRST).join("release/bin/mainstay-install");
        let output = Command::new(program)
            .args(["uninstall", "-y", "--address", &self.address.to_string()])
            .output()
            .unwrap();
        let ran = ran(&output);
        assert_eq!(ran.code, Some(0), "{}", ran.text);
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        // After a failed test something may be left; after a good one there is nothing.
        let _ = Command::new(bundle(FIRST).join("release/bin/mainstay-install"))
            .args(["uninstall", "-y", "--address", &self.address.to_string()])
            .output();
    }
}

/// What an install may leave on a machine. A demo that runs meanwhile has its own traces, which do
/// not count.
pub(crate) fn traces() -> Vec<String> {
    let others = others();
    let mut found: Vec<String> = Vec::new();
    if others.is_empty() {
        let tables = ["/etc/passwd", "/etc/group"].map(|path| fs::read_to_string(path).unwrap());
        let lines = tables.iter().flat_map(|table| table.lines());
        found.extend(
            lines
                .filter(|line| line.starts_with("mainstay:"))
                .map(str::to_owned),
        );
    }
    for folder in [
        "/etc/opt",
        "/etc/logrotate.d",
        "/etc/profile.d",
        "/etc/systemd/system",
        "/usr/local/bin",
        "/opt",
    ] {
        let walk = WalkDir::new(folder)
            .max_depth(2)
            .into_iter()
            .filter_map(Result::ok);
        found.extend(walk.map(|entry| entry.path().display().to_string()));
    }
    found.retain(|path| {
        let of_other = others.iter().any(|id| path.contains(id));
        !of_other && (others.is_empty() || path != REGISTRY)
    });
    found.sort();
    found
}

const REGISTRY: &str = "/etc/opt/mainstay-installs";

/// Ids of installs that no test made.
pub(crate) fn others() -> Vec<String> {
    let Ok(entries) = fs::read_dir(REGISTRY) else {
        return Vec::new();
    };
    let of_test = |text: &str| text.contains("\"/var/tmp/mi-");
    entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| fs::read_to_string(path).is_ok_and(|text| !of_test(&text)))
        .map(|path| path.file_stem().unwrap().to_string_lossy().into_owned())
        .collect()
}

fn lock(name: &str) -> File {
    let folder = repository().join("target/installer-tests");
    fs::create_dir_all(&folder).unwrap();
    let file = File::create(folder.join(format!("{name}.lock"))).unwrap();
    flock(&file, FlockOperation::LockExclusive).unwrap();
    file
}

/// The unpacked bundle of a version, made from what `cargo build` built last; made once for all
/// tests, and the same one for a whole test even if somebody builds meanwhile.
pub(crate) fn bundle(version: &str) -> PathBuf {
    static MADE: Mutex<BTreeMap<String, PathBuf>> = Mutex::new(BTreeMap::new());
    let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
    made.entry(version.to_owned())
        .or_insert_with(|| make_bundle(version))
        .clone()
}

/// A version, and its unpacked bundle.
pub(crate) struct Release {
    pub(crate) version: String,
    pub(crate) bundle: PathBuf,
}

/// packaging/releases.toml.
fn releases() -> toml::Table {
    let text = fs::read_to_string(repository().join("packaging/releases.toml")).unwrap();
    text.parse().unwrap()
}

/// The last release, built from its commit: another program than this tree's.
pub(crate) fn last_release() -> Release {
    let releases = releases();
    let last = releases["release"].as_array().unwrap().last().unwrap();
    let version = last["version"].as_str().unwrap().to_owned();
    let commit = last["commit"].as_str().unwrap();
    let _lock = lock("bundles");
    let folder = repository()
        .join("target/installer-tests/released")
        .join(commit);
    let done = folder.with_extension("done");
    if !done.exists() {
        let tar = repository().join(format!("target/dist/mainstay-{version}-linux-amd64.tar"));
        let mut command = Command::new(env!("CARGO"));
        command
            .args(["xtask", "dist", "--fast", "--release", &version])
            .current_dir(repository());
        let ran = ran(&command.output().unwrap());
        assert_eq!(ran.code, Some(0), "{}", ran.text);
        unpack(&tar, &folder);
        File::create(done).unwrap();
    }
    Release {
        version,
        bundle: folder,
    }
}

/// This tree, as the version that it is on its way to.
pub(crate) fn this_tree() -> Release {
    let version = releases()["next"].as_str().unwrap().to_owned();
    let bundle = bundle(&version);
    Release { version, bundle }
}

fn unpack(tar: &Path, folder: &Path) {
    let _ = fs::remove_dir_all(folder);
    fs::create_dir_all(folder).unwrap();
    let status = Command::new("tar")
        .arg("xf")
        .arg(tar)
        .arg("-C")
        .arg(folder)
        .status()
        .unwrap();
    assert!(status.success());
}

fn make_bundle(version: &str) -> PathBuf {
    let _lock = lock("bundles");
    let folder = repository().join("target/installer-tests").join(version);
    let stamp = folder.with_file_name(format!("{version}.stamp"));
    let built = newest_input();
    if fs::metadata(&stamp)
        .and_then(|meta| meta.modified())
        .is_ok_and(|made| made > built)
    {
        return folder;
    }
    let tar = dist(version, &repository().join("target/installer-tests"));
    unpack(&tar, &folder);
    fs::remove_file(tar).unwrap();
    File::create(stamp).unwrap();
    folder
}

/// Runs `cargo xtask dist`; gives the tar.
pub(crate) fn dist(version: &str, out: &Path) -> PathBuf {
    let output = Command::new(env!("CARGO"))
        .args([
            "xtask",
            "dist",
            "--fast",
            "--no-build",
            "--version",
            version,
            "--out",
        ])
        .arg(out)
        .current_dir(repository())
        .output()
        .unwrap();
    let ran = ran(&output);
    assert_eq!(ran.code, Some(0), "{}", ran.text);
    out.join(format!("mainstay-{version}-linux-amd64.tar"))
}

/// When the last of a bundle's inputs was made.
pub(crate) fn newest_input() -> SystemTime {
    let programs = [
        "cnm_exec",
        "cnm_http",
        "dmcproxy",
        "mainstay-install",
        "mainstay-node",
        "rladmin",
        "rlcheck",
    ];
    let packaging = WalkDir::new(repository().join("packaging"))
        .into_iter()
        .map(|entry| entry.unwrap().into_path());
    programs
        .iter()
        .map(|name| repository().join("target/debug").join(name))
        .chain(packaging)
        .map(|path| {
            let meta = fs::metadata(&path);
            let meta =
                meta.unwrap_or_else(|_| panic!("{}: run `cargo build` first", path.display()));
            meta.modified().unwrap()
        })
        .max()
        .unwrap()
}

/// A copy of a bundle that a test may spoil.
pub(crate) fn copy_of(bundle: &Path, into: &Path) -> PathBuf {
    let status = Command::new("cp")
        .arg("-a")
        .arg(bundle)
        .arg(into)
        .status()
        .unwrap();
    assert!(status.success());
    into.to_path_buf()
}

/// Replaces a file of a bundle and signs the bundle again, as a distributor would who made it so.
pub(crate) fn replace_signed(bundle: &Path, name: &str, bytes: &[u8]) {
    let path = bundle.join(name);
    fs::write(&path, bytes).unwrap();
    change_signed(bundle, |manifest| {
        manifest["files"][name]["sha256"] = installer::bundle::sha256_of(&path).unwrap().into();
        manifest["files"][name]["size"] = bytes.len().into();
        manifest["build_id"] = "0000000000000bad".into();
    });
}

/// Changes the manifest of a bundle and signs it again.
pub(crate) fn change_signed(bundle: &Path, change: impl FnOnce(&mut serde_json::Value)) {
    let text = fs::read_to_string(bundle.join("manifest.json")).unwrap();
    let mut manifest: serde_json::Value = serde_json::from_str(&text).unwrap();
    change(&mut manifest);
    let text = serde_json::to_string_pretty(&manifest).unwrap();
    let key = fs::read_to_string(repository().join("packaging/keys/dev.key")).unwrap();
    let key = minisign::SecretKeyBox::from_string(&key)
        .unwrap()
        .into_unencrypted_secret_key()
        .unwrap();
    let signature = minisign::sign(None, &key, text.as_bytes(), None, None).unwrap();
    fs::write(bundle.join("manifest.json"), text).unwrap();
    fs::write(
        bundle.join("manifest.json.minisig"),
        signature.into_string(),
    )
    .unwrap();
}
