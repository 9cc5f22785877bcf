//! Settings of the host. They are changed only for an operator who answers yes; otherwise what would
//! be better is said.

use crate::answers::{Answers, Question};
use crate::console::Console;
use crate::files;
use crate::host;
use anyhow::Result;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Kernel settings: name, value, whether what is there is enough.
const SETTINGS: &[(&str, &str)] = &[
    ("net.core.somaxconn", "1024"),
    ("vm.overcommit_memory", "1"),
    ("net.ipv4.ip_local_port_range", "30000 65535"),
];
const HUGE_PAGES: &str = "/sys/kernel/mm/transparent_hugepage/enabled";
const SYSCTL_FILE: &str = "/etc/sysctl.d/90-mainstay.conf";
const TMPFILES_FILE: &str = "/etc/tmpfiles.d/mainstay.conf";

/// Settings that are not as they should be: name and wanted value.
fn short_of() -> Vec<(&'static str, &'static str)> {
    SETTINGS
        .iter()
        .copied()
        .filter(|(name, wanted)| {
            let path = format!("/proc/sys/{}", name.replace('.', "/"));
            let Ok(text) = fs::read_to_string(path) else {
                return false;
            };
            let now: Vec<&str> = text.split_whitespace().collect();
            match *name {
                "net.core.somaxconn" => {
                    now.first().and_then(|n| n.parse::<u64>().ok()) < Some(1024)
                }
                "net.ipv4.ip_local_port_range" => {
                    now.first().and_then(|n| n.parse::<u32>().ok()) < Some(30_000)
                }
                _ => now.join(" ") != *wanted,
            }
        })
        .collect()
}

fn huge_pages_always() -> bool {
    fs::read_to_string(HUGE_PAGES).is_ok_and(|text| text.contains("[always]"))
}

/// Asks and changes, or says what to change. Gives files that were made outside of the install.
///
/// # Errors
/// When the answer cannot be had or a file cannot be written.
pub fn system(console: &Console, answers: &Answers) -> Result<Vec<PathBuf>> {
    let settings = short_of();
    let huge_pages = huge_pages_always();
    if settings.is_empty() && !huge_pages {
        return Ok(Vec::new());
    }
    let mut commands: Vec<String> = settings
        .iter()
        .map(|(name, value)| format!("sysctl -w {name}='{value}'"))
        .collect();
    if huge_pages {
        commands.push(format!("echo madvise > {HUGE_PAGES}"));
    }
    let question = "Tune settings of this host for all its programs (sysctl, huge pages)?";
    if !answers.get(console, Question::Systune, question)? {
        console.note(format!(
            "settings of this host stay as they are; better ones (systune=yes makes them last):\n{}",
            commands.join("\n")
        ));
        return Ok(Vec::new());
    }
    let mut made = Vec::new();
    let mut text = String::from("# Written by install.sh of Mainstay (systune=yes).\n");
    for (name, value) in &settings {
        text.push_str(&format!("{name} = {value}\n"));
    }
    if !settings.is_empty() {
        files::write_atomic(Path::new(SYSCTL_FILE), text.as_bytes(), 0o644, None)?;
        made.push(PathBuf::from(SYSCTL_FILE));
        run(console, "sysctl", &["--quiet", "--load", SYSCTL_FILE]);
    }
    if huge_pages {
        let text = format!("w {HUGE_PAGES} - - - - madvise\n");
        files::write_atomic(Path::new(TMPFILES_FILE), text.as_bytes(), 0o644, None)?;
        made.push(PathBuf::from(TMPFILES_FILE));
        if let Err(error) = fs::write(HUGE_PAGES, "madvise") {
            console.note(format!("{HUGE_PAGES} cannot be changed: {error}"));
        }
    }
    Ok(made)
}

/// Clock synchronisation and firewall.
///
/// # Errors
/// When an answer cannot be had.
pub fn services(console: &Console, answers: &Answers, ports: &[String]) -> Result<()> {
    if host::has_systemd()
        && answers.get(console, Question::Ntp, "Switch clock synchronisation on?")?
    {
        run(console, "timedatectl", &["set-ntp", "true"]);
    }
    let firewalld = Command::new("firewall-cmd").arg("--state").output();
    if !firewalld.is_ok_and(|output| output.status.success()) {
        return Ok(());
    }
    if answers.get(
        console,
        Question::Firewall,
        "Open this node's ports in the default zone?",
    )? {
        for port in ports {
            run(
                console,
                "firewall-cmd",
                &["--permanent", "--add-port", port],
            );
        }
        run(console, "firewall-cmd", &["--reload"]);
    }
    Ok(())
}

/// What fails here is said and not more: the node works without.
fn run(console: &Console, program: &str, arguments: &[&str]) {
    console.command(format!("{program} {}", arguments.join(" ")));
    match Command::new(program).args(arguments).output() {
        Ok(output) if output.status.success() => {}
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            console.note(format!("{program} failed: {said}"));
        }
        Err(error) => console.note(format!("{program} cannot be run: {error}")),
    }
}
