//! Other installs on this host: allowed beside each other, with nothing in common but the user.

use super::Subject;
use crate::host;
use anyhow::{Result, bail};
use std::path::Path;

/// Address and folders are this install's alone.
pub(super) fn check(subject: &Subject<'_>) -> Result<()> {
    let config = subject.config;
    if !host::has_address(config.address) {
        bail!(
            "{} is not an address of this machine: name one with --address ('ip address' lists \
             them)",
            config.address
        );
    }
    let own = [
        ("programs", &config.install_dir),
        ("configuration", &config.config_dir),
        ("data", &config.var_dir),
        ("sockets", &config.socket_dir),
    ];
    for (at, (what, path)) in own.iter().enumerate() {
        for (other, same) in &own[..at] {
            // The sockets may lie in the data folder, nothing else in anything else.
            let inside =
                *what == "sockets" && *other == "data" && path != same && path.starts_with(same);
            if overlap(path, same) && !inside {
                bail!(
                    "{what} and {other} cannot share {}: name another folder",
                    path.display()
                );
            }
        }
    }
    for install in subject.installs {
        let theirs = &install.entry.config;
        if theirs.address == config.address {
            bail!(
                "{} is the address of another install: {}",
                config.address,
                install.describe()
            );
        }
        for (what, path) in own {
            let taken = [
                &theirs.install_dir,
                &theirs.config_dir,
                &theirs.var_dir,
                &theirs.socket_dir,
            ];
            if taken.into_iter().any(|taken| overlap(path, taken)) {
                bail!(
                    "{} ({what}) belongs to another install: {}. A second install on a host needs \
                     --install-dir, --config-dir, --var-dir and --address of its own; to work on \
                     the other one, say --address {}",
                    path.display(),
                    install.describe(),
                    theirs.address
                );
            }
        }
    }
    Ok(())
}

fn overlap(a: &Path, b: &Path) -> bool {
    a.starts_with(b) || b.starts_with(a)
}
