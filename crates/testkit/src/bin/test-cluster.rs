//! `cargo xtask cluster up|down`: nodes straight from the build folder, left running.

use anyhow::{Context as _, bail, ensure};
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use testkit::cluster::{ADMIN, Node, PASSWORD, processes_below};

const USAGE: &str =
    "usage: cargo xtask cluster up [--nodes N] [--root DIR] [--base 127.X.Y.] | down [--root DIR]";

/// Where a cluster is and what it listens on; others than the default stand beside it.
struct Place {
    nodes: u8,
    root: PathBuf,
    /// First three numbers of the addresses; nodes end in 11, 12, …
    network: [u8; 3],
}

impl Place {
    fn lay_out(&self) -> anyhow::Result<Vec<Node>> {
        let [a, b, c] = self.network;
        (1..=self.nodes)
            .map(|number| {
                let address = IpAddr::V4(Ipv4Addr::new(a, b, c, 10 + number));
                Node::lay_out(&self.root.join(format!("n{number}")), address)
            })
            .collect()
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match words.split_first() {
        Some((&"up", options)) => place(options).and_then(|place| up(&place)),
        Some((&"keep", options)) => place(options).and_then(|place| keep(&place)),
        Some((&"down", options)) => place(options).and_then(|place| down(&place.root)),
        _ => Err(anyhow::anyhow!(USAGE)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn place(options: &[&str]) -> anyhow::Result<Place> {
    let mut place = Place {
        nodes: 3,
        root: std::env::temp_dir().join("mainstay-cluster"),
        network: [127, 0, 2],
    };
    let (pairs, odd) = options.as_chunks::<2>();
    ensure!(odd.is_empty(), USAGE);
    for [option, value] in pairs {
        match *option {
            "--nodes" => place.nodes = value.parse().context("--nodes wants a number")?,
            "--root" => place.root = std::path::absolute(value)?,
            "--base" => {
                let first: Ipv4Addr = format!("{}.0", value.trim_end_matches('.'))
                    .parse()
                    .context("--base wants three numbers, as in 127.0.3.")?;
                ensure!(first.is_loopback(), "--base takes addresses in 127.0.0.0/8");
                let [a, b, c, _] = first.octets();
                place.network = [a, b, c];
            }
            _ => bail!(USAGE),
        }
    }
    Ok(place)
}

fn up(place: &Place) -> anyhow::Result<()> {
    ensure!((1..=9).contains(&place.nodes), "--nodes takes 1 to 9");
    if place.root.exists() {
        bail!(
            "a cluster is up already in {}: `cargo xtask cluster down` first",
            place.root.display()
        );
    }
    let nodes = place.lay_out()?;
    start_keeper(place)?;
    let (first, others) = nodes.split_first().context("at least one node")?;
    let create = [
        "cluster",
        "create",
        "name",
        "dev.local",
        "username",
        ADMIN,
        "password",
        PASSWORD,
    ];
    print!("{}", first.rladmin_until(&create)?);
    let ca = first.config.certificates_dir().join("ca_cert.pem");
    let ca = ca.to_str().context("a path in UTF-8")?.to_owned();
    let address = first.config.address.to_string();
    for node in others {
        let join = [
            "cluster",
            "join",
            "nodes",
            &address,
            "username",
            ADMIN,
            "password",
            PASSWORD,
            "trusted_ca",
            &ca,
        ];
        print!("{}", node.rladmin_until(&join)?);
    }
    print!("{}", first.rladmin_until(&["status", "extra", "all"])?);
    let bin = first.config.current().join("bin");
    println!(
        "\nup: {}/rladmin; REST https://{address}:9443 as {ADMIN} / {PASSWORD}",
        bin.display()
    );
    // Not dropped: that would stop what the keeper started.
    nodes.into_iter().for_each(std::mem::forget);
    Ok(())
}

/// The daemons' parent, since dmcproxy ends with its parent. It stays until it is killed.
fn start_keeper(place: &Place) -> anyhow::Result<()> {
    let [a, b, c] = place.network;
    // `down` finds it by its working directory, as it finds the engines.
    let folder = place.root.join("keeper/var");
    std::fs::create_dir_all(&folder)?;
    let log = std::fs::File::create(folder.join("log"))?;
    Command::new(std::env::current_exe()?)
        .args(["keep", "--nodes", &place.nodes.to_string()])
        .args(["--base", &format!("{a}.{b}.{c}")])
        .arg("--root")
        .arg(&place.root)
        .current_dir(&folder)
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .context("start the keeper")?;
    Ok(())
}

/// What the keeper does: starts the daemons and stays.
fn keep(place: &Place) -> anyhow::Result<()> {
    let mut nodes = place.lay_out()?;
    for node in &mut nodes {
        node.start()?;
    }
    loop {
        std::thread::park();
    }
}

fn down(root: &Path) -> anyhow::Result<()> {
    if !root.exists() {
        println!("no cluster is up");
        return Ok(());
    }
    for entry in std::fs::read_dir(root)? {
        stop(&entry?.path());
    }
    std::fs::remove_dir_all(root)?;
    println!("down");
    Ok(())
}

fn stop(node: &Path) {
    // Daemons may start engines while they are being stopped: look until nothing is left.
    for _ in 0..50 {
        let processes = processes_below(&node.join("var"));
        if processes.is_empty() {
            return;
        }
        for pid in processes {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}
