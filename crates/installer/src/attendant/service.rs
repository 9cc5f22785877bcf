//! The attendant's socket: a name of the kernel's, so that no folder of the OS user's is in the way, and there is
//! one of it.

use super::work::{self, Work, is_replaced, may_ask};
use super::{folder, staging};
use crate::files;
use crate::layout;
use crate::registry::{self, Target};
use crate::services;
use anyhow::{Context, Result, bail};
use model::attendant::{CALL_MAX, socket};
use model::node_config::NodeConfig;
use model::upgrade::run::{AttendantAnswer, AttendantCall, JobState, is_digest};
use std::net::IpAddr;
use std::os::unix::net::UnixListener as StdListener;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::signal::unix::{SignalKind, signal};

/// How long a caller may take.
const CALL_WITHIN: Duration = Duration::from_secs(5);
/// How often it is looked whether this program was replaced.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How long a predecessor that is about to end is waited for.
const NAME_WITHIN: Duration = Duration::from_secs(10);

/// Attends the install at an address until it is told to end.
///
/// # Errors
/// When it cannot begin.
pub fn run(address: IpAddr) -> Result<()> {
    staging::own_umask();
    let installs = registry::all()?;
    let Target::Existing(install) = registry::choose(&installs, Some(address))? else {
        bail!("nothing is installed at {address}");
    };
    let config = install.entry.config.clone();
    files::folder(&folder(&config), 0o700, (0, 0))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let replaced = runtime.block_on(serve(&config))?;
    drop(runtime);
    if !replaced {
        return Ok(());
    }
    // The program of the release that has just come: its process stays this one.
    let error = Command::new(layout::sbin(&config).join("mainstay-install"))
        .args(std::env::args_os().skip(1))
        .exec();
    Err(error).context("the new mainstay-install cannot be run")
}

fn bind(config: &NodeConfig) -> Result<StdListener> {
    let name = socket(&config.install_id)?;
    let deadline = Instant::now() + NAME_WITHIN;
    loop {
        match StdListener::bind_addr(&name) {
            Ok(listener) => return Ok(listener),
            Err(error) if Instant::now() >= deadline => {
                return Err(error).context("another attendant of this install runs");
            }
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

/// Serves until it is to end, or (`true`) its program was replaced.
async fn serve(config: &NodeConfig) -> Result<bool> {
    let listener = bind(config)?;
    listener.set_nonblocking(true)?;
    let listener = UnixListener::from_std(listener)?;
    let mut term = signal(SignalKind::terminate())?;
    let mut work = Work::default();
    let mut mended = None;
    loop {
        tokio::select! {
            _ = term.recv() => return Ok(false),
            accepted = listener.accept() => {
                if let Ok((stream, _)) = accepted {
                    // One at a time: calls are few and short.
                    let _ = tokio::time::timeout(CALL_WITHIN, call(config, &mut work, stream)).await;
                }
            }
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
        mend(config, &mut work, &mut mended).await;
        if !work.is_busy(config) && is_replaced(config) {
            return Ok(true);
        }
    }
}

/// An installer that was killed between the stop of a daemon and its start leaves the node without it. If that is
/// `cnm_exec`, nobody would order the turn again.
async fn mend(config: &NodeConfig, work: &mut Work, mended: &mut Option<String>) {
    let report = work.report(config);
    let Some(cut) = report.filter(|report| report.state == JobState::Cut) else {
        return;
    };
    if mended.as_ref() == Some(&cut.id) {
        return;
    }
    let config = config.clone();
    let started = tokio::task::spawn_blocking(move || services::start_stopped(&config)).await;
    // One that does not answer now, since the host is just coming up, is asked again.
    if matches!(started, Ok(Ok(()))) {
        *mended = Some(cut.id);
    }
}

async fn call(config: &NodeConfig, work: &mut Work, stream: UnixStream) -> Result<()> {
    let uid = stream.peer_cred()?.uid();
    if !may_ask(config, uid) {
        bail!("user {uid} may not ask");
    }
    let (read, mut write) = stream.into_split();
    let mut line = String::new();
    BufReader::new(read.take(CALL_MAX))
        .read_line(&mut line)
        .await?;
    let mut answer = match serde_json::from_str::<AttendantCall>(&line) {
        Ok(call) => answer(config, work, &call),
        Err(error) => AttendantAnswer {
            refused: Some(format!("not understood: {error}")),
            ..AttendantAnswer::default()
        },
    };
    answer.job = work.report(config);
    if let Some((digest, target)) = staging::staged(config) {
        answer.staged = Some(digest);
        answer.target = Some(target);
    }
    let mut text = serde_json::to_vec(&answer)?;
    text.push(b'\n');
    write.write_all(&text).await?;
    Ok(())
}

fn answer(config: &NodeConfig, work: &mut Work, call: &AttendantCall) -> AttendantAnswer {
    let done = match call {
        AttendantCall::Status => Ok(()),
        AttendantCall::Clear if work.is_busy(config) => Err(anyhow::anyhow!("work is under way")),
        AttendantCall::Clear => staging::clear(config),
        AttendantCall::Turn { digest, .. }
            if is_digest(digest) && !staging::place(config, digest).exists() =>
        {
            Err(anyhow::anyhow!("the bundle {digest} is not staged"))
        }
        other => work::Work::begin(work, config, other),
    };
    AttendantAnswer {
        refused: done.err().map(|error| format!("{error:#}")),
        ..AttendantAnswer::default()
    }
}
