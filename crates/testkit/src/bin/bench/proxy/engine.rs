//! Engines: valkey 8.0.1 without persistence, one thread.

use super::client::Client;
use super::processes::{Guarded, program};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Name of the engine's folder.
pub(crate) const ENGINE: &str = "valkey-8.0.1";
/// User that dmcproxy signs in as, and its password; the others come as the default user.
pub(crate) const USER: &str = "proxy@e1";
pub(crate) const PASSWORD: &str = "bench-secret";
const BEGIN: Duration = Duration::from_secs(20);

pub(crate) struct Engine {
    process: Guarded,
    pub(crate) tcp: SocketAddr,
    pub(crate) socket: PathBuf,
}

/// A program of the engine's folder, with its libraries.
pub(crate) fn tool(name: &str) -> Command {
    let folder = testkit::cluster::engines_folder().join(ENGINE);
    let mut command = program(&folder.join("bin").join(name));
    command.env("LD_LIBRARY_PATH", folder.join("lib"));
    command
}

impl Engine {
    /// Starts one; `clustered`: that holds a part of the slots.
    pub(crate) fn start(folder: &Path, tcp: SocketAddr, clustered: bool) -> anyhow::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let socket = folder.join("engine.sock");
        // The others look for it where it calls from, which is another address of this machine.
        let announced = format!("cluster-enabled yes\ncluster-announce-ip {}\n", tcp.ip());
        let clustered = if clustered { &announced } else { "" };
        let settings = format!(
            "bind {}\nport {}\nunixsocket {}\nsave \"\"\nappendonly no\nio-threads 1\ndir {}\n\
             maxclients 2000\n{clustered}user default on nopass ~* &* +@all\nuser {USER} on >{PASSWORD} ~* &* +@all\n",
            tcp.ip(),
            tcp.port(),
            socket.display(),
            folder.display(),
        );
        let path = folder.join("engine.conf");
        std::fs::write(&path, settings)?;
        let log = folder.join("engine.log");
        let mut process = Guarded::start(tool("valkey-server").arg(&path), &log)?;
        testkit::wait::until("the engine answers", BEGIN, || {
            if process.ended() {
                return Err(std::fs::read_to_string(&log).unwrap_or_default());
            }
            Client::connect(tcp)
                .and_then(|mut client| client.tell(&["ECHO", "here"]))
                .map_err(|error| format!("{error:#}"))
        })?;
        Ok(Self {
            process,
            tcp,
            socket,
        })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }
}
