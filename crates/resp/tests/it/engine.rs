//! A real engine, as a node of an engine's own cluster that has no slots.

use resp::request::encode;
use resp::value::Value;
use std::io::{Read as _, Write as _};
use std::net::Ipv4Addr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Where it listens for its cluster, 10,000 higher too; tests use a unix socket.
const PORT: u16 = 17_100;
const PATIENCE: Duration = Duration::from_secs(20);

/// How many addresses are tried.
const TRIES: u8 = 20;
static NEXT: AtomicU8 = AtomicU8::new(0);

/// Ended with this value.
pub(crate) struct Engine {
    child: Child,
    stream: UnixStream,
    _folder: TempDir,
}

impl Engine {
    /// Starts `valkey-9.1.2` or another one.
    pub(crate) fn start(name: &str) -> Self {
        let installed = engines().join(name);
        let kind = name.split('-').next().unwrap();
        let server = installed.join("bin").join(format!("{kind}-server"));
        assert!(
            server.is_file(),
            "{} is missing: run `cargo xtask engines`, or set MAINSTAY_ENGINES_DIR",
            server.display()
        );
        (0..TRIES)
            .find_map(|_| Self::try_start(&server, &installed.join("lib")))
            .unwrap_or_else(|| panic!("{name} found no free address"))
    }

    /// `None`: it ended at once, since its address is taken.
    fn try_start(server: &Path, libraries: &Path) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("engine.sock");
        let child = Command::new(server)
            .args(["--bind", &some_address().to_string()])
            .args(["--port", &PORT.to_string()])
            .arg("--unixsocket")
            .arg(&socket)
            .args([
                "--cluster-enabled",
                "yes",
                "--save",
                "",
                "--appendonly",
                "no",
            ])
            .args(["--logfile", "engine.log"])
            .current_dir(folder.path())
            .env("LD_LIBRARY_PATH", libraries)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let mut child = Ending(Some(child));
        let deadline = Instant::now() + PATIENCE;
        let stream = loop {
            match UnixStream::connect(&socket) {
                Ok(stream) => break stream,
                Err(error) => assert!(Instant::now() < deadline, "{}: {error}", server.display()),
            }
            if child.0.as_mut().unwrap().try_wait().unwrap().is_some() {
                return None;
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Some(Self {
            child: child.0.take().unwrap(),
            stream,
            _folder: folder,
        })
    }

    /// Its answers to commands that are sent at once.
    pub(crate) fn ask(&mut self, commands: &[Vec<Vec<u8>>]) -> Vec<Value> {
        let mut bytes = Vec::new();
        for command in commands {
            encode(command.iter().map(Vec::as_slice), &mut bytes);
        }
        self.stream.write_all(&bytes).unwrap();
        let (mut waiting, mut piece) = (Vec::new(), vec![0; 64 << 10]);
        let mut answers = Vec::new();
        while answers.len() < commands.len() {
            let read = self.stream.read(&mut piece).unwrap();
            assert!(read > 0, "the engine closed the connection");
            waiting.extend_from_slice(&piece[..read]);
            let mut at = 0;
            while let Ok((value, length)) = Value::decode(&waiting[at..]) {
                answers.push(value);
                at += length;
            }
            waiting.drain(..at);
        }
        answers
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Ends it if the test fails before it answers.
struct Ending(Option<Child>);

impl Drop for Ending {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn engines() -> PathBuf {
    std::env::var_os("MAINSTAY_ENGINES_DIR").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/engines"),
        PathBuf::from,
    )
}

/// Another one at each call; tests run at once, in one process or in several.
fn some_address() -> Ipv4Addr {
    let [_, _, high, low] = std::process::id().to_be_bytes();
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    Ipv4Addr::new(127, 130 + number % 100, high, low.max(1))
}
