//! Finding endpoints: whether this node answers who asks for them.

use super::Subject;
use super::report::Findings;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(3);

/// `verify_discovery`: this node answers the Sentinel commands; advice: its name service answers.
pub async fn discovery(subject: &Subject) -> Findings {
    if !subject.is_member {
        return Findings::note("this node is in no cluster yet: there is nothing to find");
    }
    let config = &subject.config;
    let mut findings = Findings::default();
    let sentinel = config.discovery_address();
    if let Err(error) = within(ping(sentinel)).await {
        findings.fail(format!(
            "the discovery service (Sentinel) does not answer at {sentinel}: {error}. See \
             cnm_exec.log"
        ));
    }
    let dns = config.dns_address();
    if let Err(error) = within(ask(dns)).await {
        findings.warnings.push(format!(
            "the name service (DNS) does not answer at {dns}: {error}. Names of databases are not \
             found here. If the port may not be used: where systemd runs the node, its unit has \
             the right to since its last start (systemctl restart); elsewhere sysctl \
             net.ipv4.ip_unprivileged_port_start={}; or set another port as dns under [ports] in \
             {}; see cnm_exec.log",
            dns.port(),
            config.config_dir.join("node.toml").display()
        ));
    }
    findings
}

async fn within(work: impl Future<Output = io::Result<()>>) -> io::Result<()> {
    timeout(PATIENCE, work).await.unwrap_or_else(|_| {
        let text = format!("no answer within {} s", PATIENCE.as_secs());
        Err(io::Error::new(io::ErrorKind::TimedOut, text))
    })
}

async fn ping(address: SocketAddr) -> io::Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(b"*1\r\n$4\r\nPING\r\n").await?;
    let mut answer = [0; 7];
    stream.read_exact(&mut answer).await?;
    if &answer == b"+PONG\r\n" {
        return Ok(());
    }
    Err(io::Error::other("something else answers there"))
}

async fn ask(address: SocketAddr) -> io::Result<()> {
    let socket = UdpSocket::bind(SocketAddr::new(address.ip(), 0)).await?;
    socket.connect(address).await?;
    // A header, and a question for the root: refused, since it is not ours, and so answered.
    let question = [0x4d, 0x53, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 1];
    socket.send(&question).await?;
    let mut answer = [0; 512];
    let length = socket.recv(&mut answer).await?;
    let is_ours = length >= 12 && answer[..2] == question[..2] && answer[2] & 0x80 != 0;
    if is_ours {
        return Ok(());
    }
    Err(io::Error::other("something else answers there"))
}
