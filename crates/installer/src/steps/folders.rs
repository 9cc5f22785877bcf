//! Folders, the links between them, and the configuration in them.

use super::Run;
use crate::files::{self, Owner};
use crate::layout::{self, PRIVATE};
use anyhow::{Context, Result};
use model::node_config::NodeConfig;
use std::fs;
use std::path::{Path, PathBuf};

/// Group members may add entries, but take away only their own (sticky): the OS user flips `current`
/// and writes its certificates here, and root's files beside them stay root's.
const SHARED: u32 = 0o1770;

/// Makes them, or puts owner and mode right.
pub(super) fn make(run: &mut Run<'_>) -> Result<Vec<String>> {
    let owner = run.owner()?;
    let config = run.config.clone();
    let shared = (0, owner.1);
    let mut folders: Vec<(PathBuf, u32, Owner)> = vec![
        (config.install_dir.clone(), SHARED, shared),
        (layout::releases(&config), PRIVATE, owner),
        (layout::sbin(&config), 0o755, (0, 0)),
        (config.config_dir.clone(), SHARED, shared),
        (config.certificates_dir(), PRIVATE, owner),
        (config.var_dir.clone(), PRIVATE, owner),
    ];
    let run_dir = config.run_file("x").parent().map(Path::to_path_buf);
    let in_var = [
        Some(config.log_dir()),
        Some(config.persist_dir()),
        Some(config.shards_dir()),
        Some(config.tmp_dir()),
        run_dir,
        Some(config.socket_dir.clone()),
    ];
    // As cnm_exec keeps it: the configuration holds secrets.
    folders.push((config.store_dir(), 0o700, owner));
    folders.extend(
        in_var
            .into_iter()
            .flatten()
            .map(|path| (path, PRIVATE, owner)),
    );

    let mut changed = Vec::new();
    for (path, mode, owner) in folders {
        for above in files::missing_above(&path) {
            files::folder(&above, 0o755, (0, 0))?;
        }
        if files::folder(&path, mode, owner)? {
            changed.push(path.display().to_string());
        }
    }
    let links = [
        (config.install_dir.join("config"), config.config_dir.clone()),
        (config.install_dir.join("var"), config.var_dir.clone()),
        (config.install_dir.join("bin"), PathBuf::from("current/bin")),
    ];
    for (link, target) in links {
        if files::link(&link, &target, (0, 0))? {
            changed.push(link.display().to_string());
        }
    }
    let _ = run.console.log_to(&layout::install_log(&config));
    Ok(changed)
}

/// Writes `node.toml` and supervisord's configuration, where they are missing or wrong.
pub(super) fn configuration(run: &mut Run<'_>) -> Result<Vec<String>> {
    let (_, gid) = run.owner()?;
    let config = &run.config;
    let mut changed = Vec::new();
    let node = config.config_dir.join("node.toml");
    // What an operator set by hand (memory, ports) stays; what would lead elsewhere does not.
    let right = fs::read_to_string(&node)
        .ok()
        .and_then(|text| NodeConfig::parse(&text).ok())
        .filter(|there| {
            let mut same = config.clone();
            same.memory_bytes = there.memory_bytes;
            same.ports = there.ports.clone();
            *there == same
        })
        .unwrap_or_else(|| config.clone());
    let text = right.to_toml().context("node.toml")?;
    if files::write_if_other(&node, text.as_bytes(), 0o640, (0, gid))? {
        changed.push(node.display().to_string());
    }
    let text = supervisord_conf(run)?;
    let path = config.supervisor_config();
    if files::write_if_other(&path, text.as_bytes(), 0o640, (0, gid))? {
        changed.push(path.display().to_string());
    }
    Ok(changed)
}

/// supervisord's configuration of this install.
fn supervisord_conf(run: &Run<'_>) -> Result<String> {
    // The order of start; they stop the other way round.
    let order = [("cnm_exec", "10"), ("dmcproxy", "20"), ("cnm_http", "30")];
    let program = template(run, "supervisord-program.conf")?;
    let programs: Vec<String> = order
        .iter()
        .map(|(name, priority)| {
            program
                .replace("@PROGRAM@", name)
                .replace("@PRIORITY@", priority)
        })
        .collect();
    Ok(template(run, "supervisord.conf")?.replace("@PROGRAMS@", programs.join("\n").trim_end()))
}

/// What has systemd make the sockets' folder where it is gone after each start of the machine. Making it as root
/// would follow a link that the OS user has put above it.
fn runtime_directory(sockets: &Path) -> String {
    let below = sockets
        .strip_prefix("/run")
        .or_else(|_| sockets.strip_prefix("/var/run"));
    match below {
        // Engines outlive the unit, and so do their sockets.
        Ok(below) if !below.as_os_str().is_empty() => format!(
            "RuntimeDirectory={}\nRuntimeDirectoryMode={PRIVATE:04o}\nRuntimeDirectoryPreserve=yes",
            below.display()
        ),
        _ => "# The sockets' folder is not below /run, where it would be gone after each start of the machine."
            .to_owned(),
    }
}

/// A template of the verified bundle, filled in.
pub(super) fn template(run: &Run<'_>, name: &str) -> Result<String> {
    let path = run.bundle.release_path(&format!("templates/{name}"));
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let config = &run.config;
    Ok(text
        .replace("@INSTALL_ID@", &config.install_id)
        .replace("@INSTALL_DIR@", &config.install_dir.display().to_string())
        .replace("@CONFIG_DIR@", &config.config_dir.display().to_string())
        .replace("@VAR_DIR@", &config.var_dir.display().to_string())
        .replace(
            "@RUNTIME_DIRECTORY@",
            &runtime_directory(&config.socket_dir),
        )
        .replace("@SOCKET_DIR@", &config.socket_dir.display().to_string())
        .replace("@OS_USER@", &config.os_user)
        .replace("@OS_GROUP@", &config.os_group)
        .replace("@ADDRESS@", &config.address.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn systemd_makes_only_what_is_below_run() {
        for path in ["/run/a/b", "/var/run/a/b"] {
            let text = runtime_directory(Path::new(path));
            assert!(text.starts_with("RuntimeDirectory=a/b\n"), "{text}");
            assert!(text.contains("\nRuntimeDirectoryMode=0750\n"), "{text}");
        }
        for path in ["/var/opt/mainstay/run", "/running/a", "/run"] {
            let text = runtime_directory(Path::new(path));
            assert!(text.starts_with('#') && !text.contains('\n'), "{text}");
        }
    }
}
