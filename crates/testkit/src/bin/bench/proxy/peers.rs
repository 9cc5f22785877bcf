//! The peers, each as its makers would have it for this load; settings are in `benches/`.

use super::engine::Engine;
use super::options::Link;
use super::processes::{Guarded, program};
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;

/// Threads of Envoy.
pub(crate) const ENVOY_THREADS: u32 = 2;
const TWEMPROXY: &str = include_str!("../../../../../../benches/nutcracker.yml");
const ENVOY: &str = include_str!("../../../../../../benches/envoy.yaml");

pub(crate) fn twemproxy(
    path: &Path,
    folder: &Path,
    endpoint: SocketAddr,
    engines: &[Engine],
    link: Link,
) -> anyhow::Result<Guarded> {
    std::fs::create_dir_all(folder)?;
    let mut settings = TWEMPROXY.replace("{address}", &endpoint.to_string());
    for (number, engine) in engines.iter().enumerate() {
        let place = match link {
            Link::Unix => engine.socket.display().to_string(),
            Link::Tcp => engine.tcp.to_string(),
        };
        writeln!(settings, "    - {place}:1 engine{number}")?;
    }
    let file = folder.join("nutcracker.yml");
    std::fs::write(&file, settings)?;
    let mut command = program(path);
    // Its statistics must listen somewhere: beside the endpoint.
    command.arg("--conf-file").arg(&file).args([
        format!("--stats-addr={}", endpoint.ip()),
        format!("--stats-port={}", endpoint.port() + 1),
    ]);
    Guarded::start(&mut command, &folder.join("nutcracker.log"))
}

pub(crate) fn envoy(
    path: &Path,
    folder: &Path,
    endpoint: SocketAddr,
    engines: &[Engine],
    link: Link,
) -> anyhow::Result<Guarded> {
    std::fs::create_dir_all(folder)?;
    let mut settings = ENVOY
        .replace("{ip}", &endpoint.ip().to_string())
        .replace("{port}", &endpoint.port().to_string());
    for engine in engines {
        let place = match link {
            Link::Unix => format!("pipe: {{ path: {} }}", engine.socket.display()),
            Link::Tcp => format!(
                "socket_address: {{ address: {}, port_value: {} }}",
                engine.tcp.ip(),
                engine.tcp.port()
            ),
        };
        writeln!(
            settings,
            "              - endpoint: {{ address: {{ {place} }} }}"
        )?;
    }
    let file = folder.join("envoy.yaml");
    std::fs::write(&file, settings)?;
    let mut command = program(path);
    command
        .arg("-c")
        .arg(&file)
        .args(["--concurrency", &ENVOY_THREADS.to_string()])
        .args(["--disable-hot-restart", "--log-level", "error"]);
    Guarded::start(&mut command, &folder.join("envoy.log"))
}
