//! An upgrade of this node, in place: unpacked beside the old release, switched, the daemons
//! replaced one by one. Engines and client connections stay. If the new release does not come up,
//! the node goes back by itself.
//!
//! The step that is under way stands in the install record before it begins; a run that was killed at any
//! moment goes on where that says. The cluster is told before the first thing that matters is changed, and
//! when the node has been found well: no other installer begins meanwhile, and the feature level stays.

mod clients;

use crate::answers::{Answers, Question};
use crate::attendant;
use crate::bundle::Bundle;
use crate::checks::{self, Subject};
use crate::cluster::{self, Scope};
use crate::console::Console;
use crate::install::{Outcome, Rlcheck};
use crate::options::Options;
use crate::processes::Process;
use crate::registry::Install;
use crate::steps::{Run, Step};
use crate::{files, layout, release_folder, rollback, services, supervisor};
use anyhow::{Context, Result, bail};
use clients::Clients;
use model::ErrorCode;
use model::release::InstallRecord;
use model::upgrade::{Gravity, NodePhase, ReleaseFacts, UpgradeTarget};
use semver::Version;
use std::time::Duration;

/// Steps before the daemons are replaced: the node notices nothing of them.
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
    match record.pending.as_ref().map(|pending| pending.step.as_str()) {
        Some(step) if Step::is_past_prepared(step) => {
            console.note(format!(
                "going on with the unfinished upgrade (step {step})"
            ));
        }
        _ => {
            checks::upgrade(&subject)?;
            cluster_allows(console, answers, &config, bundle)?;
        }
    }
    let mut run = Run {
        console,
        answers,
        config,
        record: record.clone(),
        bundle,
        update_env_path: options.update_env_path,
        times: Vec::new(),
    };
    run.times.push(("checks", since_begin()));
    run.begin(Step::Unpack);
    for step in PREPARE {
        run.step(step)?;
    }
    announce(&mut run)?;
    match replace(&mut run) {
        Ok(found) => finish(&mut run, found),
        Err(error) => went_wrong(&mut run, &error),
    }
}

/// How long ago install.sh was started: this process was it.
fn since_begin() -> Duration {
    let own = Process::of(std::process::id());
    own.and_then(|own| own.age()).unwrap_or_default()
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
    match paths.hops(from, to) {
        Some(hops) => {
            let hops: Vec<String> = hops.iter().map(Version::to_string).collect();
            bail!(
                "there is no direct upgrade from {from} to {to}: upgrade every node to {} (or a \
                 later version of the same row) first, then to {to}",
                hops.join(", then to ")
            )
        }
        None => bail!(
            "there is no supported upgrade from {from} to {to}: choose a release that \
             'rladmin cluster upgrade paths' reaches, or make a new cluster with {to} and copy the data"
        ),
    }
}

/// Whether the cluster is in a state to be upgraded, and this node's turn has come: the plan says so.
fn cluster_allows(
    console: &Console,
    answers: &Answers,
    config: &model::node_config::NodeConfig,
    bundle: &Bundle,
) -> Result<()> {
    let target = UpgradeTarget::from(&bundle.manifest);
    let plan = cluster::settled_plan(config, &target).context(
        "an upgrade needs a running node: bring it up with the install.sh of the version that is \
         installed, then try again",
    )?;
    let Some(plan) = plan else {
        console.note("this node is in no cluster yet");
        return Ok(());
    };
    let mut blockers = Vec::new();
    for finding in &plan.findings {
        let text = format!(
            "{}: {}\n  {}",
            finding.code, finding.evidence, finding.remedy
        );
        match (finding.severity, finding.code) {
            (Gravity::Warning, _) => console.note(format!("warning: {text}")),
            (Gravity::Blocker, ErrorCode::UpgradePrimaryFirst) => {
                console.note(text);
                let question = "The primary node is not upgraded yet. Go on with this one?";
                if !answers.get(console, Question::IgnoreMasterVersion, question)? {
                    bail!(
                        "the primary node comes first ({}): upgrade it, then this one, or answer \
                         ignore_master_version=yes",
                        finding.evidence
                    );
                }
            }
            (Gravity::Blocker, _) => blockers.push(text),
        }
    }
    if !blockers.is_empty() {
        bail!(
            "the cluster is not to be upgraded now ('rladmin cluster upgrade plan' shows it all):\n{}",
            blockers.join("\n")
        );
    }
    Ok(())
}

/// From here on no other node begins, and the cluster's level stays.
fn announce(run: &mut Run<'_>) -> Result<()> {
    let facts = ReleaseFacts::from(&run.bundle.manifest);
    let told = run.during(Step::Announce, |run| {
        // A node that goes on may be one whose new release does not answer; it was told of before, most likely.
        let limit = cluster::TELL_SOON;
        match cluster::announce_within(&run.config, NodePhase::Begin, &facts, limit) {
            Err(error) if cluster::is_refusal(&error) => bail!(error),
            Err(error) if run.is_untouched() => Err(error).context(
                "the cluster could not be told that this node is upgraded: see rladmin status, then run install.sh \
                 again",
            ),
            Err(error) => {
                run.console.note(format!(
                    "the cluster could not be told: {}",
                    error.description
                ));
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    });
    if told.is_err() && run.is_untouched() {
        run.record.pending = None;
        run.write_record()?;
    }
    told
}

/// What was found of the node with the new release.
struct Found {
    clients: Clients,
    /// One that cannot be run is no reason to go back.
    rlcheck: Result<Rlcheck>,
    /// From the start of install.sh until the gate was passed.
    well_after: Duration,
}

/// Switches and replaces the daemons; on an error the caller goes back.
fn replace(run: &mut Run<'_>) -> Result<Found> {
    run.step(Step::Switch)?;
    let version = run.bundle.manifest.supervisor_version.clone();
    let release = layout::release(&run.config, &run.bundle.manifest.version);
    services::read_configuration(run.console, &run.config, &version)?;
    // Asked before `cnm_exec` is replaced: the new one has heard nothing of the proxy for a moment.
    let mut clients = Clients::before(&run.config);
    let mut started = Vec::new();
    for (name, step) in layout::DAEMONS.into_iter().zip(Step::DAEMONS) {
        let daemon = run.during(step, |run| {
            let daemon = services::replace_daemon(run.console, &run.config, &release, name)?;
            // The proxy finds its configuration and its leases there, and a release that answers nobody is
            // noticed before a client can.
            if step == Step::Exec {
                cluster::wait_until_heard(&run.config, cluster::patience())?;
            }
            Ok(daemon)
        })?;
        started.push(daemon);
    }
    run.during(Step::Node, |run| {
        services::replace_node(&run.config, &release)
    })?;
    if !supervisor::serves(&run.config, &version) {
        run.during(Step::Supervisord, |run| {
            supervisor::replace(run.console, &run.config, &version, &release)
        })?;
        // It has started the daemons again.
        started = services::processes(&run.config, &release)?;
    }
    let target = UpgradeTarget::from(&run.bundle.manifest);
    run.during(Step::Gate, |run| {
        services::wait_until_up(&run.config, &release, &started)?;
        let scope = Scope::Cluster(&target);
        cluster::wait_until_whole(run.console, &run.config, &target.build_id, scope)?;
        clients::probe(&run.config)
    })?;
    let well_after = since_begin();
    run.console.note(format!(
        "the node is well, after {:.1} s; it is watched for {:.0} s more",
        well_after.as_secs_f64(),
        services::left_to_watch(&started).as_secs_f64()
    ));
    let rlcheck = Rlcheck::start(run.console, run.answers, &run.config);
    run.during(Step::Watch, |run| services::watch(&run.config, &started))?;
    // What the new proxy says of the clients that it took over may be some seconds old.
    clients.after(&run.config);
    Ok(Found {
        clients,
        rlcheck,
        well_after,
    })
}

/// The new release stays.
fn finish(run: &mut Run<'_>, found: Found) -> Result<Outcome> {
    let facts = ReleaseFacts::from(&run.bundle.manifest);
    run.during(Step::Finish, |run| {
        cluster::announce_for_sure(&run.config, NodePhase::Done, &facts).context(
            "the new release runs, but the cluster could not be told: run install.sh again",
        )
    })?;
    if let Err(error) = cluster::lead(&run.config, &facts.version) {
        run.console.note(format!(
            "this node did not become the primary node ({error:#}): one with the new release does by itself"
        ));
    }
    // A primary node that has just changed has not heard every node yet: whoever looks next is to find all well.
    let target = UpgradeTarget::from(&run.bundle.manifest);
    let scope = Scope::Cluster(&target);
    if let Err(error) = cluster::wait_until_whole(run.console, &run.config, &target.build_id, scope)
    {
        run.console.note(format!(
            "the cluster is not whole ({error:#}): see rladmin status before the next node"
        ));
    }
    let before = std::mem::replace(&mut run.record.version, run.bundle.manifest.version.clone());
    if before != run.record.version {
        run.record.previous = Some(before);
    }
    run.record
        .build_id
        .clone_from(&run.bundle.manifest.build_id);
    run.record.pending = None;
    found.clients.note(&mut run.record);
    run.write_record()?;
    if let Err(error) = attendant::ensure(run.console, &run.config, run.record.systemd) {
        run.console.note(format!(
            "an upgrade of all nodes by one command will not reach this node: {error:#}"
        ));
    }
    run.console.note(format!(
        "the node at {} runs Mainstay {}",
        run.config.address, run.record.version
    ));
    for line in found.clients.report() {
        run.console.note(line);
    }
    run.console.note(times(run, found.well_after));
    found.rlcheck?.end(run.console)
}

/// How long the node took, and each step that took some time.
fn times(run: &Run<'_>, well_after: Duration) -> String {
    /// Shorter ones are not worth a word.
    const SHOWN: Duration = Duration::from_millis(20);
    let checksums = run.bundle.checked_in;
    let shown = run.times.iter().filter(|(_, took)| *took >= SHOWN);
    let steps: Vec<String> = shown
        .map(|(step, took)| format!("{step} {:.2}", took.as_secs_f64()))
        .collect();
    let unpack = run
        .times
        .iter()
        .find(|(step, _)| *step == Step::Unpack.as_str());
    let beside = checksums + unpack.map_or(Duration::ZERO, |(_, took)| *took);
    format!(
        "well after {:.2} s, of which checksums and unpacking {:.2} s; seconds by step: {}",
        well_after.as_secs_f64(),
        beside.as_secs_f64(),
        steps.join(", ")
    )
}

fn went_wrong(run: &mut Run<'_>, error: &anyhow::Error) -> Result<Outcome> {
    let (from, to) = (
        run.record.version.clone(),
        run.bundle.manifest.version.clone(),
    );
    run.console
        .error(format!("Mainstay {to} does not come up: {error:#}"));
    run.console.note(format!("going back to Mainstay {from}"));
    go_back(run)
        .context("the way back failed too: see the logs, then run install.sh --rollback again")?;
    run.console.note(format!(
        "the node runs Mainstay {from} again; nothing else was changed"
    ));
    Ok(Outcome::WentBack)
}

fn go_back(run: &mut Run<'_>) -> Result<()> {
    let old = run.record.version.clone();
    let target = format!("releases/{old}");
    files::link(&run.config.current(), target.as_ref(), run.owner()?)?;
    let release = layout::release(&run.config, &old);
    let version =
        release_folder::read_manifest(&release, &run.record.trusted_keys)?.supervisor_version;
    rollback::bring_back(run.console, &run.config, &version, &release)?;
    // Until it is told, other nodes wait and the level stays: that is safe, and told by the next run.
    let facts = ReleaseFacts::from(&run.bundle.manifest);
    if let Err(error) = cluster::announce_for_sure(&run.config, NodePhase::Back, &facts) {
        run.console.note(format!(
            "the cluster could not be told that the node went back: {error:#}; other nodes wait until it is: run \
             install.sh of {old} when it can be"
        ));
    }
    run.record.pending = None;
    run.write_record()
}
