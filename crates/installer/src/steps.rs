//! The steps of an install. Each may be run again after it was cut short at any moment, and says
//! what it changed; before each one the install record names it.

mod folders;
mod programs;
mod system;

use crate::accounts;
use crate::answers::Answers;
use crate::attendant;
use crate::bundle::Bundle;
use crate::checks::Accounts;
use crate::console::Console;
use crate::files::{self, Owner};
use crate::layout;
use crate::registry::{self, Entry};
use crate::release_folder;
use crate::services;
use anyhow::{Context, Result};
use model::node_config::NodeConfig;
use model::release::{InstallRecord, PendingInstall};
use std::time::{Duration, Instant};

/// A step.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Step {
    /// The configuration folder, with the install record in it.
    Record,
    /// Group and user.
    Accounts,
    /// Folders and the links between them.
    Folders,
    /// `releases/<version>`.
    Unpack,
    /// supervisord.
    Supervisor,
    /// `node.toml` and supervisord's configuration.
    Configuration,
    /// Root's own programs.
    Programs,
    /// `current` points at the release.
    Switch,
    /// Unit, log rotation, profile, links, settings of the host.
    System,
    /// mainstay-node and the daemons run.
    Start,
    /// The cluster hears that this node's release is about to change.
    Announce,
    /// `cnm_http` is replaced.
    Http,
    /// `cnm_exec` is replaced.
    Exec,
    /// `dmcproxy` is replaced.
    Proxy,
    /// mainstay-node is replaced.
    Node,
    /// supervisord is replaced, if its version changes.
    Supervisord,
    /// The node and the cluster are whole again.
    Gate,
    /// The daemons are watched.
    Watch,
    /// The cluster hears that the new release stays.
    Finish,
}

impl Step {
    /// The word in the install record.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Record => "record",
            Self::Accounts => "accounts",
            Self::Folders => "folders",
            Self::Unpack => "unpack",
            Self::Supervisor => "supervisor",
            Self::Configuration => "configuration",
            Self::Programs => "programs",
            Self::Switch => "switch",
            Self::System => "system",
            Self::Start => "start",
            Self::Announce => "announce",
            Self::Http => "cnm_http",
            Self::Exec => "cnm_exec",
            Self::Proxy => "dmcproxy",
            Self::Node => "mainstay-node",
            Self::Supervisord => "supervisord",
            Self::Gate => "gate",
            Self::Watch => "watch",
            Self::Finish => "finish",
        }
    }

    /// The daemons' steps, in the order of [`layout::DAEMONS`].
    pub const DAEMONS: [Self; 3] = [Self::Http, Self::Exec, Self::Proxy];

    /// Whether the step of this word is one after which the node may not be as it was.
    #[must_use]
    pub fn is_past_prepared(word: &str) -> bool {
        [
            Self::Switch,
            Self::Http,
            Self::Exec,
            Self::Proxy,
            Self::Node,
            Self::Supervisord,
            Self::Gate,
            Self::Watch,
            Self::Finish,
        ]
        .iter()
        .any(|step| step.as_str() == word)
    }
}

/// An install that is worked on.
#[derive(Debug)]
pub struct Run<'a> {
    /// Where lines go.
    pub console: &'a Console,
    /// What the operator answered.
    pub answers: &'a Answers,
    /// Its layout.
    pub config: NodeConfig,
    /// Its record.
    pub record: InstallRecord,
    /// What is installed.
    pub bundle: &'a Bundle,
    /// Whether the programs go into everybody's PATH.
    pub update_env_path: bool,
    /// The steps that were done, and how long each took.
    pub times: Vec<(&'static str, Duration)>,
}

impl Run<'_> {
    /// Does one step; gives what it changed.
    ///
    /// # Errors
    /// Why it could not be done; running it again goes on here.
    pub fn step(&mut self, step: Step) -> Result<Vec<String>> {
        self.during(step, |run| run.perform(step))
    }

    /// Does something as a step: the record names it first.
    ///
    /// # Errors
    /// Why it could not be done; running it again goes on here.
    pub fn during<T>(
        &mut self,
        step: Step,
        work: impl FnOnce(&mut Self) -> Result<T>,
    ) -> Result<T> {
        if let Some(pending) = &mut self.record.pending {
            pending.step = step.as_str().to_owned();
            if step != Step::Record {
                self.write_record()?;
            }
        }
        cut_short("before", step.as_str());
        let began = Instant::now();
        let done = work(self).with_context(|| format!("step {}", step.as_str()))?;
        self.times.push((step.as_str(), began.elapsed()));
        cut_short("after", step.as_str());
        Ok(done)
    }

    /// Whether the release in force is the one that was there before: nothing was switched yet.
    #[must_use]
    pub fn is_untouched(&self) -> bool {
        let target = format!("releases/{}", self.record.version);
        std::fs::read_link(self.config.current()).is_ok_and(|at| at.ends_with(&target))
    }

    fn perform(&mut self, step: Step) -> Result<Vec<String>> {
        match step {
            Step::Record => self.make_record(),
            Step::Accounts => self.make_accounts(),
            Step::Folders => folders::make(self),
            Step::Unpack => self.unpack(),
            Step::Supervisor => programs::supervisor(self),
            Step::Configuration => folders::configuration(self),
            Step::Programs => programs::root_programs(self),
            Step::Switch => self.switch(),
            Step::System => system::make(self),
            Step::Start => self.start(),
            // The steps of an upgrade do their work themselves.
            _ => Ok(Vec::new()),
        }
    }

    /// Number of the OS user and its group.
    ///
    /// # Errors
    /// When one does not exist.
    pub fn owner(&self) -> Result<Owner> {
        let config = &self.config;
        let user = accounts::user(&config.os_user)
            .with_context(|| format!("user {} does not exist", config.os_user))?;
        let group = accounts::group(&config.os_group)
            .with_context(|| format!("group {} does not exist", config.os_group))?;
        Ok((user.uid, group))
    }

    /// Writes the record down.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_record(&self) -> Result<()> {
        let gid = accounts::group(&self.config.os_group);
        registry::write_record(&self.config, gid, &self.record)
    }

    /// Names a file outside of the install's folders, before it is made.
    fn will_make(&mut self, path: &std::path::Path) -> Result<()> {
        if !self.record.made.iter().any(|made| made == path) {
            self.record.made.push(path.to_path_buf());
            self.write_record()?;
        }
        Ok(())
    }

    fn make_record(&mut self) -> Result<Vec<String>> {
        let config = &self.config;
        if self.record.made.is_empty() {
            let roots = [
                &config.config_dir,
                &config.install_dir,
                &config.var_dir,
                &config.socket_dir,
            ];
            for path in roots
                .into_iter()
                .flat_map(|path| files::missing_above(path))
            {
                // The data folder holds the sockets' by default: not above the install, but in it.
                let inside = path.starts_with(&config.var_dir);
                if !inside && !self.record.made.contains(&path) {
                    self.record.made.push(path);
                }
            }
        }
        registry::write(&Entry {
            config: config.clone(),
            made: self.record.made.clone(),
        })?;
        for folder in files::missing_above(&config.config_dir) {
            files::folder(&folder, 0o755, (0, 0))?;
        }
        if !config.config_dir.exists() {
            files::folder(&config.config_dir, 0o700, (0, 0))?;
        }
        self.write_record()?;
        Ok(Vec::new())
    }

    fn make_accounts(&mut self) -> Result<Vec<String>> {
        let (user, group) = (self.config.os_user.clone(), self.config.os_group.clone());
        let mut changed = Vec::new();
        let missing = Accounts {
            make_user: accounts::user(&user).is_none(),
            make_group: accounts::group(&group).is_none(),
            ..Accounts::default()
        };
        if missing.make_group {
            self.record.created_group = true;
            self.write_record()?;
            self.console.command(format!("groupadd --system {group}"));
            accounts::run("groupadd", &["--system", &group])?;
            changed.push(format!("group {group}"));
        }
        if missing.make_user {
            self.record.created_user = true;
            self.write_record()?;
            let home = self.config.var_dir.display().to_string();
            self.console
                .command(format!("useradd --system --gid {group} {user}"));
            let arguments = [
                "--system",
                "--gid",
                group.as_str(),
                "--home-dir",
                home.as_str(),
                "--no-create-home",
                "--shell",
                "/usr/sbin/nologin",
                "--comment",
                "Mainstay",
                user.as_str(),
            ];
            accounts::run("useradd", &arguments)?;
            changed.push(format!("user {user}"));
        }
        Ok(changed)
    }

    fn unpack(&mut self) -> Result<Vec<String>> {
        let folder = layout::release(&self.config, &self.bundle.manifest.version);
        let staging = self.config.install_dir.join(".unpack");
        let outcome = release_folder::ensure(self.bundle, &folder, &staging, self.owner()?)?;
        Ok(match outcome {
            release_folder::Outcome::Whole => Vec::new(),
            release_folder::Outcome::Unpacked => vec![folder.display().to_string()],
            release_folder::Outcome::Repaired(names) => names
                .iter()
                .map(|name| folder.join(name).display().to_string())
                .collect(),
        })
    }

    fn switch(&mut self) -> Result<Vec<String>> {
        let target = format!("releases/{}", self.bundle.manifest.version);
        let current = self.config.current();
        let changed = files::link(&current, target.as_ref(), self.owner()?)?;
        Ok(if changed {
            vec![current.display().to_string()]
        } else {
            Vec::new()
        })
    }

    fn start(&mut self) -> Result<Vec<String>> {
        let release = layout::release(&self.config, &self.bundle.manifest.version);
        let ran = services::node_process(&self.config).is_some();
        services::start_node(self.console, &self.config, self.record.systemd)?;
        services::wait_until_up(&self.config, &release, &[])?;
        let mut started = Vec::new();
        if !ran {
            started.push("mainstay-node and the daemons".to_owned());
        }
        if attendant::ensure(self.console, &self.config, self.record.systemd)? {
            started.push("the attendant of upgrades".to_owned());
        }
        Ok(started)
    }

    /// Begins work that a later run must finish.
    pub fn begin(&mut self, step: Step) {
        self.record.pending = Some(PendingInstall {
            to: self.bundle.manifest.version.clone(),
            step: step.as_str().to_owned(),
            extra: serde_json::Map::new(),
        });
    }
}

/// Debug builds end as if killed, before or after the step that the environment names: so the tests
/// cut an install short at each of them.
pub(crate) fn cut_short(when: &str, step: &str) {
    if cfg!(debug_assertions)
        && std::env::var("MAINSTAY_INSTALL_CUT").is_ok_and(|at| at == format!("{when}:{step}"))
    {
        let _ =
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    }
}
