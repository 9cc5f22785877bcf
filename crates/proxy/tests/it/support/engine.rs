//! A real engine.

use super::{client::Client, process, until};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Name of the user that the proxy signs in as, and its password.
pub const USER: &str = "proxy@e1";
pub const PASSWORD: &str = "engine-secret";

/// An engine process, ended with this value.
pub struct Engine {
    child: Child,
    name: &'static str,
    folder: PathBuf,
    /// More lines of its configuration.
    more: String,
    /// Where it listens for the test itself.
    pub direct: SocketAddr,
    /// Where it listens for the proxy.
    pub socket: PathBuf,
}

/// Folder of an engine whose name begins so. The test fails if there is none.
fn installed(name: &str) -> PathBuf {
    let root = std::env::var_os("MAINSTAY_ENGINES_DIR").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/engines"),
        PathBuf::from,
    );
    let found = std::fs::read_dir(&root).ok().and_then(|mut folder| {
        folder.find_map(|entry| {
            let entry = entry.ok()?;
            let fits = entry.file_name().to_str()?.starts_with(name);
            (fits && entry.path().join("bin").is_dir()).then(|| entry.path())
        })
    });
    found.unwrap_or_else(|| {
        panic!(
            "no engine {name} is in {}: run `cargo xtask engines`, or set MAINSTAY_ENGINES_DIR",
            root.display()
        )
    })
}

impl Engine {
    /// Starts `valkey-9.1` or another one in a folder.
    pub fn start(name: &'static str, folder: &Path, direct: SocketAddr) -> Self {
        let socket = folder.join("engine.sock");
        let child = Self::spawn(name, folder, direct, &socket, "");
        let engine = Self {
            child,
            name,
            folder: folder.to_owned(),
            more: String::new(),
            direct,
            socket,
        };
        engine.wait();
        engine
    }

    fn spawn(name: &str, folder: &Path, direct: SocketAddr, socket: &Path, more: &str) -> Child {
        let installed = installed(name);
        let mut rights = model::documents::PROXY_RIGHTS.join(" ");
        if !name.starts_with("redis-6") {
            rights.push_str(" +sort_ro");
        }
        let config = format!(
            "bind {}\nport {}\nprotected-mode no\nunixsocket {}\nsave \"\"\nappendonly no\ndir {}\nlogfile {}\n\
             masterauth replication-secret\nmaxclients 2000\n\
             user default on nopass ~* &* +@all\nuser {USER} on >{PASSWORD} {}\n{more}",
            direct.ip(),
            direct.port(),
            socket.display(),
            folder.display(),
            folder.join("engine.log").display(),
            rights,
        );
        let path = folder.join("engine.conf");
        std::fs::write(&path, config).unwrap();
        let server = if name.starts_with("valkey") {
            "valkey-server"
        } else {
            "redis-server"
        };
        Command::new(installed.join("bin").join(server))
            .arg(&path)
            .env("LD_LIBRARY_PATH", installed.join("lib"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap()
    }

    fn wait(&self) {
        until("the engine answers", || {
            Client::try_connect(self.direct).is_some_and(|mut client| client.pings())
        });
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Has it look often whether a blocked client's time is over: else it does so ten times a second, and what
    /// waits for 10 ms takes 100.
    pub fn look_often(&self) {
        assert_eq!(
            Client::connect(self.direct).text("CONFIG SET hz 500"),
            "+OK\r\n"
        );
    }

    /// From its next start on it logs every command before it answers, so that it comes back with all
    /// that it has answered.
    pub fn keep_data(&mut self) {
        self.more = "appendonly yes\nappendfsync no\n".to_owned();
    }

    /// Kills it. Its data is gone, but for [`Engine::keep_data`].
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Starts it again after [`Engine::kill`].
    pub fn restart(&mut self) {
        self.child = Self::spawn(
            self.name,
            &self.folder,
            self.direct,
            &self.socket,
            &self.more,
        );
        self.wait();
    }

    /// Stops its process without ending it, or lets it go on.
    pub fn freeze(&self, frozen: bool) {
        let signal = if frozen {
            rustix::process::Signal::STOP
        } else {
            rustix::process::Signal::CONT
        };
        process::signal(self.pid(), signal);
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.kill();
    }
}
