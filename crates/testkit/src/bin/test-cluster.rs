//! `cargo xtask cluster up|down [--nodes N]`: nodes straight from the build folder, left running.

use anyhow::{Context as _, bail, ensure};
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use testkit::cluster::{ADMIN, Node, PASSWORD, processes_below};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        ["up"] => up(3),
        ["up", "--nodes", count] => count.parse().context("--nodes wants a number").and_then(up),
        ["down"] => down(),
        _ => Err(anyhow::anyhow!(
            "usage: cargo xtask cluster up [--nodes N] | down"
        )),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn root() -> PathBuf {
    std::env::temp_dir().join("mainstay-cluster")
}

fn up(count: u8) -> anyhow::Result<()> {
    ensure!((1..=9).contains(&count), "--nodes takes 1 to 9");
    if root().exists() {
        bail!(
            "a cluster is up already in {}: `cargo xtask cluster down` first",
            root().display()
        );
    }
    let mut nodes = Vec::new();
    for number in 1..=count {
        let address = IpAddr::V4(Ipv4Addr::new(127, 0, 2, 10 + number));
        let mut node = Node::lay_out(&root().join(format!("n{number}")), address)?;
        node.start()?;
        nodes.push(node);
    }
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
    // They stay: nobody's children when this program ends.
    nodes.into_iter().for_each(std::mem::forget);
    Ok(())
}

fn down() -> anyhow::Result<()> {
    if !root().exists() {
        println!("no cluster is up");
        return Ok(());
    }
    for entry in std::fs::read_dir(root())? {
        stop(&entry?.path());
    }
    std::fs::remove_dir_all(root())?;
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
