//! The process that the supervisor knows. It has no sockets: it starts a server in a process group
//! of its own and waits for it. When the launcher ends, the server goes on until the server of the
//! next launcher takes over; when the server ends, or hangs, its launcher does, and is started again.

use crate::beat;
use crate::environment::Environment;
use anyhow::{Context, bail};
use rustix::fs::FlockOperation;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::{Duration, Instant};

/// Tells the server that its standard input is a socket of its launcher: the end of that is the end of the
/// launcher, and there the server says that it lives.
pub const LAUNCHED: &str = "--launched";
/// Name of the lock file that a launcher holds.
pub const LOCK: &str = "dmcproxy.lock";
/// How long a launcher waits for the one before it to be gone.
const LOCK_WAIT: Duration = Duration::from_secs(10);

/// Runs until the server ends, which is always an error.
///
/// # Errors
/// Another launcher runs, the server cannot be started, or it ended.
pub fn launch(environment: &Environment) -> anyhow::Result<()> {
    die_with_parent()?;
    let _lock = lock(environment)?;
    let (mut beats, standard_input) = UnixStream::pair().context("making a socket")?;
    let mut server = Command::new(&environment.executable)
        .args(["server", LAUNCHED])
        // The allocator gives freed pages back at once: it would do so at some later allocation, and an
        // idle proxy makes none.
        .env("MIMALLOC_PURGE_DELAY", "0")
        .stdin(OwnedFd::from(standard_input))
        .process_group(0)
        .spawn()
        .with_context(|| format!("starting {}", environment.executable.display()))?;
    tracing::info!(
        pid = server.id(),
        version = environment.version,
        "the server is started"
    );
    if !beat::ended(&mut beats).context("waiting for the server")? {
        tracing::error!(
            pid = server.id(),
            "the server hangs: it is ended, and another one is started"
        );
        server.kill().context("ending the server")?;
    }
    let status = server.wait().context("waiting for the server")?;
    bail!("the server has ended ({status}); the supervisor starts it again")
}

/// A killed supervisor must not leave a launcher behind: the next one would start a second.
fn die_with_parent() -> anyhow::Result<()> {
    let parent = rustix::process::getppid();
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM))
        .context("asking for a signal at the parent's death")?;
    if rustix::process::getppid() != parent {
        bail!("the parent process has ended");
    }
    Ok(())
}

fn lock(environment: &Environment) -> anyhow::Result<File> {
    let path = environment.config.run_file(LOCK);
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("creating {}", folder.display()))?;
    }
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .with_context(|| format!("opening {}", path.display()))?;
    let deadline = Instant::now() + LOCK_WAIT;
    loop {
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            Err(rustix::io::Errno::WOULDBLOCK) if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(50));
            }
            Err(rustix::io::Errno::WOULDBLOCK) => {
                bail!(
                    "another dmcproxy launcher holds {}: stop it first",
                    path.display()
                )
            }
            Err(error) => {
                return Err(error).with_context(|| format!("locking {}", path.display()));
            }
        }
    }
}
