//! What a run of install.sh is: a new install, one to finish, an upgrade, a repair, a way back, or
//! something to refuse.

use crate::answers::{Answers, Question};
use crate::bundle::Bundle;
use crate::checks::{self, Subject};
use crate::console::Console;
use crate::options::Options;
use crate::registry::{self, Install, RecordFacts, Target};
use crate::steps::{Run, Step};
use crate::{accounts, cluster, host, keys, layout, rollback, terminal, upgrade};
use anyhow::{Context, Result, bail};
use model::node_config::NodeConfig;
use model::release::InstallRecord;
use model::upgrade::{NodePhase, ReleaseFacts};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// How a run ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// As wanted.
    Done,
    /// Installed, but rlcheck found something.
    Unhealthy,
    /// The new release did not come up: the old one runs again.
    WentBack,
}

/// Steps of a new install, in order.
const NEW: [Step; 10] = [
    Step::Record,
    Step::Accounts,
    Step::Folders,
    Step::Unpack,
    Step::Supervisor,
    Step::Configuration,
    Step::Programs,
    Step::Switch,
    Step::System,
    Step::Start,
];

/// Does what install.sh was called for.
///
/// # Errors
/// Why not; unless it says otherwise, nothing was changed.
pub fn run(console: &Console, options: &Options) -> Result<Outcome> {
    let answers = Answers::read(options.answers.as_deref(), options.yes)?;
    terminal::attend()?;
    let _lock = registry::lock(console)?;
    let installs = registry::all()?;
    let target = registry::choose(&installs, options.address)?;
    if options.rollback {
        let Target::Existing(install) = target else {
            bail!(
                "nothing is installed here{}: there is no way back",
                at(options)
            );
        };
        return rollback::run(console, &install);
    }
    let root = options
        .bundle
        .as_deref()
        .context("run install.sh of an unpacked bundle")?;
    match target {
        Target::New => new(console, options, &answers, root, &installs),
        Target::Existing(install) => match &install.record {
            Some(record) if record.is_complete() => {
                existing(console, options, &answers, root, &install, record)
            }
            _ => resume(console, options, &answers, root, &install),
        },
    }
}

fn at(options: &Options) -> String {
    options
        .address
        .map(|address| format!(" at {address}"))
        .unwrap_or_default()
}

fn trusted_for_new(console: &Console, options: &Options) -> Result<Vec<String>> {
    match &options.key {
        Some(path) => Ok(vec![keys::from_file(path)?]),
        None => {
            let key = keys::built_in()?;
            if keys::is_development(&key) {
                console.note(
                    "THIS BUNDLE IS TRUSTED BY THE DEVELOPMENT KEY, WHOSE SECRET HALF IS PUBLIC: \
                     anybody could have made it. Use --key FILE for one of a distributor",
                );
            }
            Ok(vec![key])
        }
    }
}

fn new(
    console: &Console,
    options: &Options,
    answers: &Answers,
    root: &Path,
    installs: &[Install],
) -> Result<Outcome> {
    let trusted = trusted_for_new(console, options)?;
    let bundle = Bundle::open(root, &trusted)?;
    let manifest = &bundle.manifest;
    console.note(format!(
        "new install of Mainstay {} (build {})",
        manifest.version, manifest.build_id
    ));
    for other in installs {
        console.note(format!("beside the one that is here: {}", other.describe()));
    }
    let address = match options.address {
        Some(address) => address,
        None => host::default_address()
            .context("this machine has no route to a network: name its address with --address")?,
    };
    if options.address.is_none() {
        console.note(format!(
            "address of this node: {address} (--address chooses another)"
        ));
    }
    let config = layout::wanted(options, address)?;
    let subject = Subject {
        console,
        options,
        answers,
        config: &config,
        bundle: &bundle,
        installs,
    };
    checks::new_install(&subject)?;
    let record = InstallRecord {
        schema: 1,
        install_id: config.install_id.clone(),
        version: manifest.version.clone(),
        build_id: manifest.build_id.clone(),
        previous: None,
        pending: None,
        trusted_keys: trusted,
        created_user: false,
        created_group: false,
        made: Vec::new(),
        systemd: false,
        extra: serde_json::Map::new(),
    };
    let run = Run {
        console,
        answers,
        config,
        record,
        bundle: &bundle,
        update_env_path: options.update_env_path,
        times: Vec::new(),
    };
    complete_new(run)
}

/// Finishes a first install that was cut short. What was checked before it began is not checked
/// again: it may hold its own ports by now.
fn resume(
    console: &Console,
    options: &Options,
    answers: &Answers,
    root: &Path,
    install: &Install,
) -> Result<Outcome> {
    let config = install.entry.config.clone();
    refuse_changes(options, &config)?;
    let trusted = match &install.record {
        Some(record) => record.trusted_keys.clone(),
        None => trusted_for_new(console, options)?,
    };
    let bundle = Bundle::open(root, &trusted)?;
    let manifest = &bundle.manifest;
    if let Some(record) = &install.record
        && (record.version != manifest.version || record.build_id != manifest.build_id)
    {
        bail!(
            "the install in {} is unfinished: finish it with the install.sh of {} (build {}), or \
             remove it: {} uninstall --address {}",
            config.install_dir.display(),
            record.version,
            record.build_id,
            root.join("release/bin/mainstay-install").display(),
            config.address
        );
    }
    let step = install
        .record
        .as_ref()
        .and_then(|record| record.pending.as_ref());
    let step = step.map_or("record", |pending| pending.step.as_str());
    console.note(format!(
        "going on with the unfinished install of Mainstay {} in {} (step {step})",
        manifest.version,
        config.install_dir.display()
    ));
    let record = install.record.clone().unwrap_or_else(|| InstallRecord {
        schema: 1,
        install_id: config.install_id.clone(),
        version: manifest.version.clone(),
        build_id: manifest.build_id.clone(),
        previous: None,
        pending: None,
        trusted_keys: trusted,
        created_user: false,
        created_group: false,
        made: install.entry.made.clone(),
        systemd: false,
        extra: serde_json::Map::new(),
    });
    let update_env_path = options.update_env_path;
    complete_new(Run {
        console,
        answers,
        config,
        record,
        bundle: &bundle,
        update_env_path,
        times: Vec::new(),
    })
}

fn complete_new(mut run: Run<'_>) -> Result<Outcome> {
    run.begin(Step::Record);
    for step in NEW {
        run.step(step)?;
    }
    run.record.pending = None;
    registry::mark_complete(&mut run.record);
    run.write_record()?;
    let outcome = rlcheck(run.console, run.answers, &run.config)?;
    say_what_is_next(run.console, &run.config, &run.record);
    Ok(outcome)
}

fn say_what_is_next(console: &Console, config: &NodeConfig, record: &InstallRecord) {
    let rladmin = if layout::is_default(config) {
        "rladmin".to_owned()
    } else {
        config.install_dir.join("bin/rladmin").display().to_string()
    };
    console.note(format!(
        "Mainstay {} is installed in {}",
        record.version,
        config.install_dir.display()
    ));
    console.note(format!("REST API: https://{}", config.https_address()));
    console.note(format!(
        "a new cluster: {rladmin} cluster create name <name.example.com> username <email> password \
         <password>\nor into one: {rladmin} cluster join nodes <address of a member> username \
         <email> password <password> ca_fingerprint <what the member's 'rladmin info cluster' shows>"
    ));
    console.note(format!(
        "operators who are not root must be in group {} (usermod -aG {} NAME, then log in again)",
        config.os_group, config.os_group
    ));
    if !record.systemd {
        console.note(format!(
            "systemd does not run this machine: after its next start, run '{} start'",
            layout::sbin(config).join("mainstay-install").display()
        ));
    }
}

/// A version, a repair or an upgrade of what is there.
fn existing(
    console: &Console,
    options: &Options,
    answers: &Answers,
    root: &Path,
    install: &Install,
    record: &InstallRecord,
) -> Result<Outcome> {
    let config = &install.entry.config;
    let bundle = Bundle::open(root, &record.trusted_keys)?;
    let to = &bundle.manifest.version;
    if let Some(pending) = &record.pending
        && pending.step == rollback::STEP
    {
        bail!(
            "the way back from {} to {} was cut short: run install.sh --rollback again, of any of the two",
            record.version,
            pending.to
        );
    }
    if let Some(pending) = &record.pending
        && pending.to != *to
    {
        bail!(
            "an upgrade from {} to {} is unfinished (step {}): run the install.sh of {} again, or \
             go back with --rollback",
            record.version,
            pending.to,
            pending.step,
            pending.to
        );
    }
    if record.pending.is_none() && *to == record.version {
        if bundle.manifest.build_id != record.build_id {
            bail!(
                "Mainstay {to} is installed as build {}, this bundle is build {} of the same \
                 version: a release never changes; use one of another version",
                record.build_id,
                bundle.manifest.build_id
            );
        }
        refuse_changes(options, config)?;
        return repair(console, options, answers, &bundle, install, record);
    }
    if let Some(option) = options.new_install_only().first() {
        bail!("{option} cannot be set during upgrade");
    }
    upgrade::run(console, options, answers, &bundle, install, record)
}

fn refuse_changes(options: &Options, config: &NodeConfig) -> Result<()> {
    if let Some(option) = layout::differences(options, config).first() {
        bail!(
            "{option} cannot be changed: the install at {} has programs in {}, configuration in \
             {}, data in {}, user {}",
            config.address,
            config.install_dir.display(),
            config.config_dir.display(),
            config.var_dir.display(),
            config.os_user
        );
    }
    Ok(())
}

/// Puts right what is missing or altered.
fn repair(
    console: &Console,
    options: &Options,
    answers: &Answers,
    bundle: &Bundle,
    install: &Install,
    record: &InstallRecord,
) -> Result<Outcome> {
    console.note(format!(
        "Mainstay {} is installed already: it is checked",
        record.version
    ));
    let mut run = Run {
        console,
        answers,
        config: install.entry.config.clone(),
        record: record.clone(),
        bundle,
        update_env_path: options.update_env_path,
        times: Vec::new(),
    };
    let mut repaired = Vec::new();
    for step in NEW.into_iter().filter(|step| *step != Step::Record) {
        repaired.extend(run.step(step)?);
    }
    if repaired.is_empty() {
        console.note("everything is as it should be, nothing was changed");
    } else {
        console.note(format!("repaired:\n{}", repaired.join("\n")));
    }
    // A run before this one may not have been able to say so.
    let facts = ReleaseFacts::from(&bundle.manifest);
    if let Err(error) = cluster::announce(&run.config, NodePhase::Done, &facts) {
        console.note(format!("the cluster was not told: {}", error.description));
    }
    rlcheck(console, answers, &run.config)
}

/// rlcheck, which runs beside what else is done.
#[derive(Debug)]
pub struct Rlcheck {
    program: String,
    child: Option<Child>,
}

impl Rlcheck {
    /// Starts rlcheck as the OS user, if the operator wants it. What a node has not got before it is in a
    /// cluster is not looked at.
    ///
    /// # Errors
    /// When it cannot be run.
    pub fn start(console: &Console, answers: &Answers, config: &NodeConfig) -> Result<Self> {
        let program = config.current().join("bin/rlcheck");
        let shown = program.display().to_string();
        if !answers.get(console, Question::Rlcheck, "Run rlcheck now?")? {
            return Ok(Self {
                program: shown,
                child: None,
            });
        }
        let user = accounts::user(&config.os_user).context("the OS user is gone")?;
        let group = accounts::group(&config.os_group).context("the OS group is gone")?;
        let mut command = Command::new(&program);
        if !config.identity_path().exists() {
            command.arg("--suppress-tests=verify_bootstrap_status");
        }
        let child = command
            .uid(user.uid)
            .gid(group)
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot run {shown}"))?;
        Ok(Self {
            program: shown,
            child: Some(child),
        })
    }

    /// Waits for its end, and shows what it said.
    ///
    /// # Errors
    /// When that cannot be read.
    pub fn end(self, console: &Console) -> Result<Outcome> {
        let Some(child) = self.child else {
            return Ok(Outcome::Done);
        };
        let output = child
            .wait_with_output()
            .with_context(|| format!("cannot read what {} says", self.program))?;
        console.command(self.program);
        console.plain(String::from_utf8_lossy(&output.stdout));
        console.plain(String::from_utf8_lossy(&output.stderr));
        if output.status.success() {
            return Ok(Outcome::Done);
        }
        console.error("rlcheck found something: see above; what it says can be mended at any time");
        Ok(Outcome::Unhealthy)
    }
}

/// Runs rlcheck as the OS user; see [`Rlcheck`].
///
/// # Errors
/// When it cannot be run.
pub fn rlcheck(console: &Console, answers: &Answers, config: &NodeConfig) -> Result<Outcome> {
    Rlcheck::start(console, answers, config)?.end(console)
}
