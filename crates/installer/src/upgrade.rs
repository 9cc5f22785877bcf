//! An upgrade of this node, in place: unpacked beside the old release, switched, the daemons
//! replaced one by one. Engines and client connections stay. If the new release does not come up,
//! the node goes back by itself.

mod hops;

use crate::answers::{Answers, Question};
use crate::bundle::Bundle;
use crate::checks::{self, Subject};
use crate::console::Console;
use crate::install::{Outcome, rlcheck};
use crate::options::Options;
use crate::registry::Install;
use crate::steps::{Run, Step};
use crate::{cluster, files, layout, services};
use anyhow::{Context, Result, bail};
use model::release::InstallRecord;
use semver::Version;

/// Steps before the daemons are replaced.
const PREPARE: [Step; 5] = [
    Step::Unpack,
    Step::Supervisor,
    Step::Configuration,
    Step::Programs,
    Step::System,
];

pub(crate) fn run(
    console: &Console,
    options: &Options,
    answers: &Answers,
    bundle: &Bundle,
    install: &Install,
    record: &InstallRecord,
) -> Result<Outcome> {
    let config = install.entry.config.clone();
    let (from, to) = (&record.version, &bundle.manifest.version);
    let _ = console.log_to(&layout::install_log(&config));
    may(from, to, bundle)?;
    console.note(format!(
        "upgrade of the node at {} from Mainstay {from} to {to} (build {})",
        config.address, bundle.manifest.build_id
    ));
    let subject = Subject {
        console,
        options,
        answers,
        config: &config,
        bundle,
        installs: &[],
    };
    checks::upgrade(&subject)?;
    if record.pending.is_none() {
        cluster_allows(console, answers, &config, to)?;
    }
    let mut run = Run {
        console,
        answers,
        config,
        record: record.clone(),
        bundle,
        update_env_path: options.update_env_path,
    };
    run.begin(Step::Unpack);
    for step in PREPARE {
        run.step(step)?;
    }
    let Err(error) = replace(&mut run) else {
        run.record.previous = Some(run.record.version.clone());
        run.record.version = to.clone();
        run.record.build_id = bundle.manifest.build_id.clone();
        run.record.pending = None;
        run.write_record()?;
        console.note(format!(
            "the node at {} runs Mainstay {to}",
            run.config.address
        ));
        return rlcheck(console, answers, &run.config);
    };
    console.error(format!("Mainstay {to} does not come up: {error:#}"));
    console.note(format!("going back to Mainstay {from}"));
    go_back(&mut run)
        .context("the way back failed too: see the logs, then run install.sh --rollback again")?;
    console.note(format!(
        "the node runs Mainstay {from} again; nothing else was changed"
    ));
    Ok(Outcome::WentBack)
}

/// Whether the versions allow it.
fn may(from: &Version, to: &Version, bundle: &Bundle) -> Result<()> {
    if to < from {
        bail!(
            "Mainstay {from} is installed, this bundle is {to}: there is no downgrade; the version \
             before the last upgrade comes back with install.sh --rollback"
        );
    }
    let paths = &bundle.manifest.supported_paths;
    if paths.allows(from, to) {
        return Ok(());
    }
    match hops::between(from, to, paths) {
        Some(hops) => {
            let hops: Vec<String> = hops.iter().map(Version::to_string).collect();
            bail!(
                "there is no direct upgrade from {from} to {to}: upgrade every node to {} (or a \
                 later version of the same row) first, then to {to}",
                hops.join(", then to ")
            )
        }
        None => bail!(
            "there is no supported upgrade from {from} to {to}: install {to} on a new \
                       machine and join it to the cluster"
        ),
    }
}

/// Whether the cluster is in a state to be upgraded, and this node's turn has come.
fn cluster_allows(
    console: &Console,
    answers: &Answers,
    config: &model::node_config::NodeConfig,
    to: &Version,
) -> Result<()> {
    let view = cluster::view(config).context(
        "an upgrade needs a running node: bring it up with the install.sh of the version that is \
         installed, then try again",
    )?;
    let Some(view) = view else {
        console.note("this node is in no cluster yet");
        return Ok(());
    };
    let faults = cluster::faults(&view);
    if !faults.is_empty() {
        bail!(
            "the cluster is not whole ('rladmin status extra all'):\n{}",
            faults.join("\n")
        );
    }
    let Some(primary) = cluster::older_primary(&view, to) else {
        return Ok(());
    };
    console.note(format!(
        "the primary node, {primary}, does not run {to} yet: it should be first"
    ));
    let question = "The primary node is not upgraded yet. Go on with this one?";
    if answers.get(console, Question::IgnoreMasterVersion, question)? {
        return Ok(());
    }
    bail!(
        "the primary node comes first: upgrade {primary}, then this one, or answer \
         ignore_master_version=yes"
    )
}

/// Switches and replaces the daemons; on an error the caller goes back.
fn replace(run: &mut Run<'_>) -> Result<()> {
    run.step(Step::Switch)?;
    run.step(Step::Restart)?;
    let version = run.bundle.manifest.supervisor_version.clone();
    let release = layout::release(&run.config, &run.bundle.manifest.version);
    services::read_configuration(run.console, &run.config, &version)?;
    services::replace_daemons(run.console, &run.config, &version, &release)?;
    services::replace_node(&run.config, &release)?;
    let build_id = &run.bundle.manifest.build_id;
    cluster::wait_until_whole(&run.config, build_id, cluster::Scope::Cluster)
}

fn go_back(run: &mut Run<'_>) -> Result<()> {
    let old = run.record.version.clone();
    let target = format!("releases/{old}");
    files::link(&run.config.current(), target.as_ref(), run.owner()?)?;
    let release = layout::release(&run.config, &old);
    let version = run.bundle.manifest.supervisor_version.clone();
    services::replace_daemons(run.console, &run.config, &version, &release)?;
    services::replace_node(&run.config, &release)?;
    run.record.pending = None;
    run.write_record()
}
