//! The way back to the version before the last upgrade.

use crate::bundle::sha256_of;
use crate::console::Console;
use crate::install::Outcome;
use crate::registry::{self, Install, RecordFacts};
use crate::steps::cut_short;
use crate::{accounts, cluster, files, layout, release_folder, services, supervisor};
use anyhow::{Context, Result, bail};
use model::node_config::NodeConfig;
use model::release::{InstallRecord, Manifest, PendingInstall};
use model::upgrade::{NodePhase, ReleaseFacts};
use std::path::Path;
use std::time::Duration;

/// How long `cnm_exec` is waited for before the proxy is replaced.
const EXEC_HEARD: Duration = Duration::from_secs(5);

/// Goes back to the version before, or from an unfinished upgrade to the version in force.
///
/// # Errors
/// Why not, or what did not come up.
pub fn run(console: &Console, install: &Install) -> Result<Outcome> {
    let config = &install.entry.config;
    let record = install
        .record
        .as_ref()
        .filter(|record| record.is_complete());
    let Some(record) = record else {
        bail!(
            "the install in {} was never finished: there is no way back",
            config.install_dir.display()
        );
    };
    let to = match &record.pending {
        // A way back that was cut short goes on to where it went.
        Some(pending) if pending.step == STEP => Some(&pending.to),
        Some(_) => Some(&record.version),
        None => record.previous.as_ref(),
    };
    let Some(to) = to.cloned() else {
        bail!(
            "Mainstay {}: there is none to go back to. The way back is one version long, and this node has upgraded \
             nothing since it was installed or went back",
            record.version
        );
    };
    let _ = console.log_to(&layout::install_log(config));
    let release = layout::release(config, &to);
    let manifest = release_folder::read_manifest(&release, &record.trusted_keys)
        .with_context(|| format!("Mainstay {to} cannot come back"))?;
    let owner = owner(config)?;
    let bad = release_folder::faults(&manifest, &release, owner);
    if !bad.is_empty() {
        bail!(
            "Mainstay {to} cannot come back, its files were altered:\n{}",
            bad.join("\n")
        );
    }
    level_allows(config, &manifest)?;
    console.note(format!(
        "going back from Mainstay {} to {to}",
        in_force(record)
    ));
    let facts = ReleaseFacts::from(&manifest);
    announce(console, config, &facts)?;
    let mut record = record.clone();
    record.pending = Some(PendingInstall {
        to: to.clone(),
        step: STEP.to_owned(),
        extra: serde_json::Map::new(),
    });
    registry::write_record(config, Some(owner.1), &record)?;
    cut_short("after", "rollback-announce");

    replace(console, config, &manifest)?;
    root_program(config, &manifest)?;
    cut_short("before", "rollback-finish");
    if let Err(error) = cluster::announce_for_sure(config, NodePhase::Done, &facts) {
        console.note(format!(
            "the cluster could not be told: {error:#}; other nodes wait until it is: run install.sh of {to} \
             when it can be"
        ));
    }

    record.version = to.clone();
    record.build_id = manifest.build_id.clone();
    record.previous = None;
    record.pending = None;
    registry::write_record(config, Some(owner.1), &record)?;
    console.note(format!(
        "the node at {} runs Mainstay {to} again",
        config.address
    ));
    Ok(Outcome::Done)
}

/// Switches, and replaces the daemons.
fn replace(console: &Console, config: &NodeConfig, manifest: &Manifest) -> Result<()> {
    let to = &manifest.version;
    let release = layout::release(config, to);
    let link = format!("releases/{to}");
    files::link(&config.current(), link.as_ref(), owner(config)?)?;
    cut_short("after", "rollback-switch");
    bring_back(console, config, &manifest.supervisor_version, &release)?;
    cut_short("after", "rollback-mainstay-node");
    cluster::wait_until_whole(console, config, &manifest.build_id, cluster::Scope::Node)
}

/// mainstay-node and the daemons become those of a release that was here before.
///
/// # Errors
/// Which one does not come up.
pub(crate) fn bring_back(
    console: &Console,
    config: &NodeConfig,
    supervisor: &str,
    release: &Path,
) -> Result<()> {
    if !supervisor::serves(config, supervisor) {
        // Which supervisord is started is the release's of mainstay-node.
        services::replace_node(config, release)?;
        supervisor::replace(console, config, supervisor, release)?;
    }
    let mut started = Vec::new();
    for name in layout::DAEMONS {
        if name == layout::PROXY {
            // It is better off with a cnm_exec that answers, and comes without one too.
            let _ = cluster::wait_until_heard(config, EXEC_HEARD);
        }
        started.push(services::replace_daemon(console, config, release, name)?);
        cut_short("after", &format!("rollback-{name}"));
    }
    services::replace_node(config, release)?;
    services::wait_until_up(config, release, &started)
}

/// From here on the feature level stays where it is. A cluster that says no is obeyed; one that cannot be asked
/// is no reason to stay with a release that may be the cause.
fn announce(console: &Console, config: &NodeConfig, facts: &ReleaseFacts) -> Result<()> {
    match cluster::announce_within(config, NodePhase::Begin, facts, cluster::TELL_SOON) {
        Ok(()) => Ok(()),
        Err(error) if cluster::is_refusal(&error) => bail!(error),
        Err(error) => {
            console.note(format!(
                "the cluster could not be told: {}",
                error.description
            ));
            Ok(())
        }
    }
}

/// The word of this work in the install record.
pub(crate) const STEP: &str = "rollback";

fn in_force(record: &InstallRecord) -> String {
    match &record.pending {
        Some(pending) if pending.step != STEP => format!("{} (unfinished)", pending.to),
        _ => record.version.to_string(),
    }
}

fn owner(config: &NodeConfig) -> Result<files::Owner> {
    let user = accounts::user(&config.os_user)
        .with_context(|| format!("user {} does not exist", config.os_user))?;
    let group = accounts::group(&config.os_group)
        .with_context(|| format!("group {} does not exist", config.os_group))?;
    Ok((user.uid, group))
}

/// Once the whole cluster uses what only the newer version knows, there is no way back.
fn level_allows(config: &NodeConfig, manifest: &Manifest) -> Result<()> {
    // A node whose new release does not answer is just the one that must be able to go back.
    let Ok(Some(view)) = cluster::view(config) else {
        return Ok(());
    };
    if view.cluster.feature_level > manifest.feature_max {
        bail!(
            "the upgrade is finalised: the cluster uses feature level {}, Mainstay {} knows {} at \
             most",
            view.cluster.feature_level,
            manifest.version,
            manifest.feature_max
        );
    }
    Ok(())
}

/// Root's own copy of the installer goes back with the release that it came from.
fn root_program(config: &NodeConfig, manifest: &Manifest) -> Result<()> {
    const INSIDE: &str = "bin/mainstay-install";
    let source = layout::release(config, &manifest.version).join(INSIDE);
    let target = layout::sbin(config).join("mainstay-install");
    let wanted = manifest
        .files
        .get(&format!("release/{INSIDE}"))
        .map(|entry| &entry.sha256);
    if sha256_of(&target).ok().as_ref() == wanted {
        return Ok(());
    }
    let bytes = std::fs::read(&source).with_context(|| source.display().to_string())?;
    let partial = layout::sbin(config).join(".from-release");
    files::write_atomic(&partial, &bytes, 0o755, Some((0, 0)))?;
    // The source lies in a folder of the OS user: what counts is what was read.
    if sha256_of(&partial).ok().as_ref() != wanted {
        files::remove(&partial)?;
        bail!("{} changed while it was copied", source.display());
    }
    std::fs::rename(&partial, &target).with_context(|| target.display().to_string())
}
