//! An engine that is started to be asked, in a folder and on a loopback address of its own.

use anyhow::{Context as _, Result, bail, ensure};
use model::release::EngineId;
use resp::request::encode;
use resp::value::Value;
use std::io::{Read as _, Write as _};
use std::net::Ipv4Addr;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Where it listens for its cluster, 10,000 higher too.
const PORT: u16 = 17_000;
const SOCKET: &str = "engine.sock";
const LOG: &str = "engine.log";
/// How long it may take to start, and to answer.
const PATIENCE: Duration = Duration::from_secs(20);
/// Longest reply, bytes. `COMMAND` has some 100 KiB.
const REPLY_MAX: usize = 4 << 20;

/// How many addresses are tried.
const TRIES: u8 = 20;

/// A running engine; ended when dropped.
pub(super) struct Engine {
    child: Child,
    stream: UnixStream,
    folder: TempDir,
}

impl Engine {
    /// Starts it and waits until it answers. It runs as a node of an engine's own cluster, since
    /// only such a one knows all subcommands of `CLUSTER`.
    pub(super) fn start(root: &Path, id: &EngineId) -> Result<Self> {
        let installed = crate::engines::folder(root).join(id.to_string());
        let server = installed.join("bin").join(id.name.server());
        ensure!(
            server.is_file(),
            "{} is missing: run `cargo xtask engines`",
            server.display()
        );
        let mut number = 0;
        loop {
            let mut command = Command::new(&server);
            command.env("LD_LIBRARY_PATH", installed.join("lib"));
            match Self::try_start(command, some_address(number)) {
                Ok(engine) => return Ok(engine),
                Err(error) if number + 1 == TRIES => {
                    return Err(error.context(format!("{id} does not start")));
                }
                Err(_) => number += 1,
            }
        }
    }

    fn try_start(mut command: Command, address: Ipv4Addr) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let mut child = command
            .args(["--bind", &address.to_string()])
            .args(["--port", &PORT.to_string()])
            .args(["--unixsocket", SOCKET, "--logfile", LOG])
            .args([
                "--cluster-enabled",
                "yes",
                "--save",
                "",
                "--appendonly",
                "no",
            ])
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()?;
        match connect_in_time(&mut child, folder.path()) {
            Ok(stream) => Ok(Self {
                child,
                stream,
                folder,
            }),
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                let log = std::fs::read_to_string(folder.path().join(LOG)).unwrap_or_default();
                Err(error.context(log))
            }
        }
    }

    /// Its answer to a command.
    pub(super) fn ask(&mut self, words: &[&str]) -> Result<Value> {
        let answer = ask(&mut self.stream, words)?;
        answer.with_context(|| format!("the engine closed the connection on {words:?}"))
    }

    /// Its answer on a connection that is closed afterwards. `None`: it closed it instead.
    pub(super) fn ask_apart(&mut self, words: &[&str]) -> Result<Option<Value>> {
        ask(&mut connect(self.folder.path())?, words)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An address of this process, hardly anybody else's.
fn some_address(number: u8) -> Ipv4Addr {
    let [_, _, high, low] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, 230 + number, high, low.max(1))
}

fn connect_in_time(child: &mut Child, folder: &Path) -> Result<UnixStream> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let error = match connect(folder) {
            Ok(stream) => return Ok(stream),
            Err(error) => error,
        };
        if let Some(status) = child.try_wait()? {
            bail!("it ended with {status}");
        }
        if Instant::now() > deadline {
            return Err(error);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn connect(folder: &Path) -> Result<UnixStream> {
    let stream = UnixStream::connect(folder.join(SOCKET))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

fn ask(stream: &mut UnixStream, words: &[&str]) -> Result<Option<Value>> {
    let mut command = Vec::new();
    encode(words.iter().map(|word| word.as_bytes()), &mut command);
    stream.write_all(&command)?;
    let (mut reply, mut piece) = (Vec::new(), vec![0; 256 << 10]);
    loop {
        let read = stream.read(&mut piece)?;
        if read == 0 {
            return Ok(None);
        }
        reply.extend_from_slice(&piece[..read]);
        if let Ok((value, _)) = Value::decode(&reply) {
            return Ok(Some(value));
        }
        ensure!(
            reply.len() < REPLY_MAX,
            "the answer to {words:?} has no end"
        );
    }
}
