//! One piece of work at a time. It is noted before it begins; a process of its own does it, which outlives the
//! attendant, and notes how it ended. One that neither runs nor has noted an end was cut short.

use super::{background, folder, is_id, staging};
use crate::accounts;
use crate::files;
use crate::layout;
use crate::processes::Process;
use crate::registry::{self, Target};
use anyhow::{Context, Result, bail};
use model::node_config::NodeConfig;
use model::release::InstallRecord;
use model::upgrade::run::{AttendantCall, JobReport, JobState, SAID_MAX, TurnClients, is_digest};
use rustix::fs::{FlockOperation, flock};
use rustix::process::setsid;
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// Under this name an install record holds what a turn did to clients.
pub(crate) const CLIENTS: &str = "clients";
/// Answers to what install.sh asks: the order of the nodes was decided, with a canary if one was wanted.
const ANSWERS: &str = "ignore_master_version=yes\n";

/// What is noted of a piece of work.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Noted {
    call: AttendantCall,
    report: JobReport,
}

fn note_path(config: &NodeConfig) -> PathBuf {
    folder(config).join("job.json")
}

fn output_path(config: &NodeConfig) -> PathBuf {
    folder(config).join("output")
}

fn read(config: &NodeConfig) -> Option<Noted> {
    serde_json::from_slice(&fs::read(note_path(config)).ok()?).ok()
}

fn write(config: &NodeConfig, noted: &Noted) -> Result<()> {
    files::folder(&folder(config), 0o700, (0, 0))?;
    files::write_atomic(&note_path(config), &serde_json::to_vec(noted)?, 0o600, None)
}

/// Held by the process that works.
fn lock(config: &NodeConfig) -> Result<Option<File>> {
    let path = folder(config).join("job.lock");
    let file = File::create(&path).with_context(|| path.display().to_string())?;
    Ok(flock(&file, FlockOperation::NonBlockingLockExclusive)
        .is_ok()
        .then_some(file))
}

/// The attendant's view of its work.
#[derive(Debug, Default)]
pub(super) struct Work {
    child: Option<Child>,
}

impl Work {
    /// Whether something is under way.
    pub(super) fn is_busy(&mut self, config: &NodeConfig) -> bool {
        self.report(config)
            .is_some_and(|report| report.state == JobState::Running)
    }

    /// How the last piece of work stands.
    pub(super) fn report(&mut self, config: &NodeConfig) -> Option<JobReport> {
        let runs = match &mut self.child {
            Some(child) => matches!(child.try_wait(), Ok(None)),
            None => false,
        };
        if !runs {
            self.child = None;
        }
        let mut report = read(config)?.report;
        if report.state == JobState::Running && !runs && matches!(lock(config), Ok(Some(_))) {
            report.state = JobState::Cut;
        }
        Some(report)
    }

    /// Begins a piece of work; one of the same name was begun before, and is not begun again.
    ///
    /// # Errors
    /// Why not.
    pub(super) fn begin(&mut self, config: &NodeConfig, call: &AttendantCall) -> Result<()> {
        let id = match call {
            AttendantCall::Stage { id, digest } | AttendantCall::Turn { id, digest } => {
                if !is_digest(digest) {
                    bail!("'{digest}' is no SHA-256");
                }
                id
            }
            AttendantCall::Back { id } => id,
            AttendantCall::Status | AttendantCall::Clear => bail!("that is no work"),
        };
        if !is_id(id) {
            bail!("'{id}' is no name of a piece of work");
        }
        if let Some(report) = self.report(config) {
            if report.id == *id {
                return Ok(());
            }
            if report.state == JobState::Running {
                bail!("{} is under way", report.id);
            }
        }
        let noted = Noted {
            call: call.clone(),
            report: JobReport {
                id: id.clone(),
                state: JobState::Running,
                said: String::new(),
                clients: None,
            },
        };
        write(config, &noted)?;
        self.child = Some(background(config, "work")?);
        Ok(())
    }
}

/// Does the work that is noted, in a process of its own.
///
/// # Errors
/// When it cannot be noted how it ended; what goes wrong otherwise is noted.
pub fn perform(address: std::net::IpAddr) -> Result<()> {
    staging::own_umask();
    let _ = setsid();
    let installs = registry::all()?;
    let Target::Existing(install) = registry::choose(&installs, Some(address))? else {
        bail!("nothing is installed at {address}");
    };
    let config = &install.entry.config;
    let record = install
        .record
        .as_ref()
        .context("the install is unfinished")?;
    let Some(_lock) = lock(config)? else {
        bail!("another one works");
    };
    let mut noted = read(config).context("no work is noted")?;
    if noted.report.state != JobState::Running {
        return Ok(());
    }
    let ended = match &noted.call {
        AttendantCall::Stage { digest, .. } => staging::stage(config, digest, &record.trusted_keys)
            .map(|()| (JobState::Done, String::new())),
        AttendantCall::Turn { digest, .. } => turn(config, digest),
        AttendantCall::Back { .. } => back(config),
        AttendantCall::Status | AttendantCall::Clear => return Ok(()),
    };
    let (state, said) = ended.unwrap_or_else(|error| (JobState::Failed, format!("{error:#}")));
    noted.report.state = state;
    noted.report.said = said.chars().take(SAID_MAX).collect();
    if matches!(noted.call, AttendantCall::Turn { .. }) && state == JobState::Done {
        noted.report.clients = clients(config);
    }
    if state != JobState::Cut {
        write(config, &noted)?;
    }
    Ok(())
}

/// What the installer recorded of clients.
fn clients(config: &NodeConfig) -> Option<TurnClients> {
    let path = config.config_dir.join(model::release::INSTALL_RECORD);
    let record: InstallRecord = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
    serde_json::from_value(record.extra.get(CLIENTS)?.clone()).ok()
}

/// install.sh of the staged bundle, as an operator would run it.
fn turn(config: &NodeConfig, digest: &str) -> Result<(JobState, String)> {
    let bundle = staging::place(config, digest);
    if !bundle.exists() {
        bail!("the bundle {digest} is not staged");
    }
    let answers = folder(config).join("answers");
    files::write_atomic(&answers, ANSWERS.as_bytes(), 0o600, None)?;
    let mut command = Command::new(bundle.join("install.sh"));
    command.args(["-y", "-c"]).arg(answers);
    run(config, command)
}

/// The way back by root's own program.
fn back(config: &NodeConfig) -> Result<(JobState, String)> {
    let mut command = Command::new(layout::sbin(config).join("mainstay-install"));
    command.arg("--rollback");
    run(config, command)
}

/// Its output goes into a file: it has the whole of it in install.log, and here the end of it is read.
fn run(config: &NodeConfig, mut command: Command) -> Result<(JobState, String)> {
    let path = output_path(config);
    let output = File::create(&path).with_context(|| path.display().to_string())?;
    let status = command
        .arg("--address")
        .arg(config.address.to_string())
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output)
        .status()
        .context("the installer cannot be run")?;
    let said = last_words(&fs::read_to_string(&path).unwrap_or_default());
    Ok(match status.code() {
        Some(0) => (JobState::Done, String::new()),
        Some(3) => (JobState::WentBack, said),
        Some(_) => (JobState::Failed, said),
        None => (JobState::Cut, said),
    })
}

/// The errors that an installer told, or its last line.
fn last_words(output: &str) -> String {
    let mut errors: Vec<&str> = Vec::new();
    let mut inside = false;
    for line in output.lines() {
        if line.contains(" [x] ") {
            inside = true;
        } else if [" [!] ", " [$] ", " [?] "]
            .iter()
            .any(|mark| line.contains(mark))
        {
            inside = false;
        }
        if inside {
            errors.push(
                line.split_once(" [x] ")
                    .map_or(line, |(_, text)| text)
                    .trim(),
            );
        }
    }
    if errors.is_empty() {
        return output.lines().last().unwrap_or_default().trim().to_owned();
    }
    errors.join(" / ")
}

/// Whether a user may ask: the OS user of the install, or root.
pub(super) fn may_ask(config: &NodeConfig, uid: u32) -> bool {
    uid == 0 || accounts::user(&config.os_user).is_some_and(|user| user.uid == uid)
}

/// Whether this process's program was replaced by another one.
pub(super) fn is_replaced(config: &NodeConfig) -> bool {
    use std::os::unix::fs::MetadataExt;
    let inode = |path: PathBuf| fs::metadata(path).map(|meta| (meta.dev(), meta.ino())).ok();
    let own = inode(PathBuf::from("/proc/self/exe"));
    let there = inode(layout::sbin(config).join("mainstay-install"));
    own.is_some() && there.is_some() && own != there
}

/// The attendant's process, told from others of the same program.
pub(super) fn is_attendant(process: &Process, config: &NodeConfig) -> bool {
    let program = layout::sbin(config).join("mainstay-install");
    process.program().as_ref() == Some(&program)
        && process
            .arguments()
            .get(1)
            .is_some_and(|word| word == "attend")
}

#[cfg(test)]
mod tests {
    use super::last_words;

    #[test]
    fn errors_are_what_counts_of_an_output() {
        let output = "2030-01-01 00:00:00.000 [!] upgrade\n2030-01-01 00:00:00.000 [x] Error: it is full\n                            make room\n2030-01-01 00:00:01.000 [!] going back\n";
        assert_eq!(last_words(output), "Error: it is full / make room");
        assert_eq!(last_words("a\nb\n"), "b");
        assert_eq!(last_words(""), "");
    }
}
