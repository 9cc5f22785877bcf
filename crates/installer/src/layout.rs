//! Where the files of an install lie, beyond what [`NodeConfig`] itself says.

use crate::options::{CONFIG_ROOT, INSTALL_ROOT, OS_USER, Options, VAR_ROOT};
use anyhow::{Context, Result, bail};
use model::limits::{ENDPOINT_PORTS, SHARD_PORTS};
use model::node_config::{NodeConfig, Ports};
use semver::Version;
use std::net::IpAddr;
use std::path::{Component, Path, PathBuf};

/// Mode of the folders that are the OS user's own.
pub(crate) const PRIVATE: u32 = 0o750;
/// Least that a node offers to databases.
const MEMORY_MIN: u64 = 64 << 20;
/// Folder below the roots.
const NAME: &str = "mainstay";

/// The daemons, in the order in which they are replaced.
pub const DAEMONS: [&str; 3] = ["cnm_http", "cnm_exec", PROXY];
/// The daemon that clients are connected to.
pub const PROXY: &str = "dmcproxy";

/// The layout that the options of a new install ask for.
///
/// # Errors
/// A path or a size that cannot be.
pub fn wanted(options: &Options, address: IpAddr) -> Result<NodeConfig> {
    let below = |given: &Option<PathBuf>, root: &str, option: &str| -> Result<PathBuf> {
        let root = given.clone().unwrap_or_else(|| PathBuf::from(root));
        check_path(&root, option)?;
        Ok(root.join(NAME))
    };
    let var_dir = below(&options.var_dir, VAR_ROOT, "--var-dir")?;
    let socket_dir = match &options.socket_dir {
        Some(path) => {
            check_path(path, "-s")?;
            path.clone()
        }
        None => var_dir.join("run"),
    };
    let memory_bytes = options.memory.as_deref().map(memory).transpose()?;
    let os_user = options
        .os_user
        .clone()
        .unwrap_or_else(|| OS_USER.to_owned());
    let os_group = options.os_group.clone().unwrap_or_else(|| {
        // A user of the operator's own has a group of its own; ours goes with ours.
        if options.os_user.is_some() {
            os_user.clone()
        } else {
            OS_USER.to_owned()
        }
    });
    for (option, name) in [("--os-user", &os_user), ("--os-group", &os_group)] {
        if !crate::accounts::is_name(name) {
            bail!("{option}: '{name}' is no name of a user or a group");
        }
    }
    Ok(NodeConfig {
        install_id: new_id(),
        address,
        install_dir: below(&options.install_dir, INSTALL_ROOT, "--install-dir")?,
        config_dir: below(&options.config_dir, CONFIG_ROOT, "--config-dir")?,
        var_dir,
        socket_dir,
        os_user,
        os_group,
        memory_bytes,
        ports: ports(options)?,
    })
}

/// `--memory`. A node that could not take the smallest shard is a slip of the pen.
fn memory(text: &str) -> Result<u64> {
    let bytes =
        model::units::parse_size(text).map_err(|error| anyhow::anyhow!("--memory: {error}"))?;
    if bytes < MEMORY_MIN {
        let least = model::units::format_size(MEMORY_MIN);
        bail!("--memory {text}: a node offers at least {least} to databases");
    }
    Ok(bytes)
}

fn ports(options: &Options) -> Result<Ports> {
    let mut ports = Ports::default();
    if let Some(port) = options.dns_port {
        let taken = [ports.https, ports.console, ports.internode, ports.discovery];
        let databases = ENDPOINT_PORTS.contains(&port) || SHARD_PORTS.contains(&port);
        if port == 0 || databases || taken.contains(&port) {
            bail!("--dns-port: {port} is needed for something else; choose another, like 5353");
        }
        ports.dns = port;
    }
    Ok(ports)
}

fn new_id() -> String {
    let mut id = uuid::Uuid::new_v4().simple().to_string();
    id.truncate(8);
    id
}

/// Paths go into a unit, a shell profile and supervisord's configuration, each with another way to
/// quote: only characters that need none are taken.
fn check_path(path: &Path, option: &str) -> Result<()> {
    let shown = path.display();
    if !path.is_absolute() {
        bail!("{option}: '{shown}' must begin with /");
    }
    let text = path
        .to_str()
        .with_context(|| format!("{option}: '{shown}' is not UTF-8"))?;
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._+-".contains(c);
    if let Some(wrong) = text.chars().find(|c| !plain(*c)) {
        bail!("{option}: '{shown}' holds {wrong:?}; letters, digits and / . _ + - are possible");
    }
    if path.components().any(|part| part == Component::ParentDir) {
        bail!("{option}: '{shown}' holds '..'");
    }
    Ok(())
}

/// What an existing install has and the options would change, by option.
#[must_use]
pub fn differences(options: &Options, config: &NodeConfig) -> Vec<&'static str> {
    let Ok(wanted) = wanted(options, config.address) else {
        return options.new_install_only();
    };
    let mut differ = Vec::new();
    let mut compare = |option, given: bool, same: bool| {
        if given && !same {
            differ.push(option);
        }
    };
    compare(
        "-s",
        options.socket_dir.is_some(),
        wanted.socket_dir == config.socket_dir,
    );
    compare(
        "--install-dir",
        options.install_dir.is_some(),
        wanted.install_dir == config.install_dir,
    );
    compare(
        "--config-dir",
        options.config_dir.is_some(),
        wanted.config_dir == config.config_dir,
    );
    compare(
        "--var-dir",
        options.var_dir.is_some(),
        wanted.var_dir == config.var_dir,
    );
    compare(
        "--os-user",
        options.os_user.is_some(),
        wanted.os_user == config.os_user,
    );
    compare(
        "--os-group",
        options.os_group.is_some(),
        wanted.os_group == config.os_group,
    );
    compare(
        "--memory",
        options.memory.is_some(),
        wanted.memory_bytes == config.memory_bytes,
    );
    compare(
        "--dns-port",
        options.dns_port.is_some(),
        wanted.ports.dns == config.ports.dns,
    );
    differ
}

/// `releases/`.
#[must_use]
pub fn releases(config: &NodeConfig) -> PathBuf {
    config.install_dir.join("releases")
}

/// `releases/<version>`.
#[must_use]
pub fn release(config: &NodeConfig, version: &Version) -> PathBuf {
    releases(config).join(version.to_string())
}

/// Root's own programs: what root runs may not lie in a folder of the OS user.
#[must_use]
pub fn sbin(config: &NodeConfig) -> PathBuf {
    config.install_dir.join("sbin")
}

/// supervisord, outside of the releases.
#[must_use]
pub fn supervisor(config: &NodeConfig, version: &str) -> PathBuf {
    config.install_dir.join(format!("supervisor-{version}"))
}

/// Log of the install's own runs.
#[must_use]
pub fn install_log(config: &NodeConfig) -> PathBuf {
    config.log_dir().join("install.log")
}

/// Whether this is the install in the default folder.
#[must_use]
pub fn is_default(config: &NodeConfig) -> bool {
    config.install_dir == Path::new(INSTALL_ROOT).join(NAME)
}

/// `mainstay`, or `mainstay-<id>` of an install elsewhere: names its unit, log rotation and profile.
#[must_use]
pub fn service_name(config: &NodeConfig) -> String {
    if is_default(config) {
        NAME.to_owned()
    } else {
        format!("{NAME}-{}", config.install_id)
    }
}

/// Files outside of the install's folders, by the template that they are made from.
#[must_use]
pub fn system_files(config: &NodeConfig) -> Vec<(&'static str, PathBuf)> {
    let name = service_name(config);
    vec![
        (
            "mainstay.service",
            PathBuf::from(format!("/etc/systemd/system/{name}.service")),
        ),
        (
            "mainstay-upgrade.service",
            PathBuf::from(format!("/etc/systemd/system/{name}-upgrade.service")),
        ),
        (
            "logrotate",
            PathBuf::from(format!("/etc/logrotate.d/{name}")),
        ),
    ]
}

/// The profile that puts the programs into everybody's PATH.
#[must_use]
pub fn profile_file(config: &NodeConfig) -> PathBuf {
    PathBuf::from(format!("/etc/profile.d/{}.sh", service_name(config)))
}

/// Links of the default install: link and what it points at.
#[must_use]
pub fn command_links(config: &NodeConfig) -> Vec<(PathBuf, PathBuf)> {
    if !is_default(config) {
        return Vec::new();
    }
    ["rladmin", "rlcheck"]
        .into_iter()
        .map(|name| {
            (
                Path::new("/usr/local/bin").join(name),
                config.current().join("bin").join(name),
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address() -> IpAddr {
        IpAddr::from([127, 0, 0, 11])
    }

    #[test]
    fn folders_hold_mainstay_below_what_is_named() {
        let options = Options {
            install_dir: Some("/data/opt".into()),
            var_dir: Some("/data/var".into()),
            memory: Some("2GB".into()),
            ..Options::default()
        };
        let config = wanted(&options, address()).unwrap();
        assert_eq!(config.install_dir, Path::new("/data/opt/mainstay"));
        assert_eq!(config.config_dir, Path::new("/etc/opt/mainstay"));
        assert_eq!(config.socket_dir, Path::new("/data/var/mainstay/run"));
        assert_eq!(config.memory_bytes, Some(2 << 30));
        assert_eq!(
            service_name(&config),
            format!("mainstay-{}", config.install_id)
        );
        assert!(differences(&options, &config).is_empty());
        let small = Options {
            memory: Some("1MB".into()),
            ..options.clone()
        };
        let error = wanted(&small, address()).unwrap_err().to_string();
        assert_eq!(
            error,
            "--memory 1MB: a node offers at least 64MB to databases"
        );
        let other = Options {
            var_dir: Some("/data/other".into()),
            ..options
        };
        assert_eq!(differences(&other, &config), ["--var-dir"]);
    }

    #[test]
    fn paths_that_need_quoting_are_refused() {
        for path in ["relative", "/with space", "/a/../b", "/per%cent", "/quo'te"] {
            let options = Options {
                install_dir: Some(path.into()),
                ..Options::default()
            };
            assert!(wanted(&options, address()).is_err(), "{path}");
        }
    }
}
