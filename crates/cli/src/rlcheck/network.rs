//! Ways to the other nodes.

use super::Subject;
use super::report::Findings;
use client::internode::{DecodedCertificates, NodeCertificates};
use model::node_config::NodeConfig;
use model::rest::{ClusterInfo, NodeInfo, NodeStatus};
use model::{ApiError, NodeUid};
use rustls::pki_types::ServerName;
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

/// How long a connection, or an answer on it, may take.
const PATIENCE: Duration = Duration::from_secs(3);
/// How a client of HTTP/2 begins: greeting and empty settings.
const GREETING: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// `verify_tcp_connectivity`: REST and internode ports of every live node can be reached from this
/// node's own address.
pub async fn tcp_connectivity(subject: &Subject) -> Findings {
    if !subject.is_member {
        return Findings::note("this node is in no cluster yet: there is nothing to reach");
    }
    let (nodes, status) = match read_nodes(subject).await {
        Ok(read) => read,
        Err(error) => {
            return Findings::failure(format!(
                "connectivity check failed retrieving nodes: {error}"
            ));
        }
    };
    let mut findings = Findings::default();
    let ports = &subject.config.ports;
    let source = subject.config.address;
    let mut tries = JoinSet::new();
    // Who is not heard is not tried below: where too few are, that itself is what is wrong.
    let cluster = subject.rest.get::<ClusterInfo>("/v1/cluster").await;
    if cluster.is_ok_and(|cluster| !cluster.has_quorum) {
        findings.fail(
            "too few nodes are heard from here: there is no quorum. `rladmin status` names those that are not: see to \
             them, and to the network between them and this node"
                .to_owned(),
        );
    }
    for node in nodes {
        let known = status.get(&node.uid).map(|s| s.node_status.as_str());
        if known != Some("OK") {
            let why = match known {
                Some("UNKNOWN") => "has not been heard yet",
                _ => "is down",
            };
            let note = format!("node:{} {why}: not tried", node.uid);
            findings.notes.push(note);
            continue;
        }
        let Ok(address) = node.addr.parse::<IpAddr>() else {
            findings.fail(format!(
                "node:{} has no usable address: '{}'",
                node.uid, node.addr
            ));
            continue;
        };
        for (what, port) in [("REST", ports.https), ("internode", ports.internode)] {
            let target = SocketAddr::new(address, port);
            tries.spawn(async move {
                let failed = connect(source, target).await.err()?;
                Some(format!(
                    "node:{} cannot be reached at {target} ({what}) from {source}: {failed}. Open \
                     the port in firewalls between the nodes",
                    node.uid
                ))
            });
        }
    }
    while let Some(tried) = tries.join_next().await {
        findings.failures.extend(tried.ok().flatten());
    }
    findings.failures.sort();
    findings
}

async fn read_nodes(
    subject: &Subject,
) -> Result<(Vec<NodeInfo>, BTreeMap<NodeUid, NodeStatus>), ApiError> {
    tokio::try_join!(
        subject.rest.get("/v1/nodes"),
        subject.rest.get("/v1/nodes/status")
    )
}

async fn connect(source: IpAddr, target: SocketAddr) -> io::Result<TcpStream> {
    let socket = if target.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    socket.bind(SocketAddr::new(source, 0))?;
    timeout(PATIENCE, socket.connect(target))
        .await
        .unwrap_or_else(|_| Err(silent()))
}

fn silent() -> io::Error {
    io::Error::new(
        io::ErrorKind::TimedOut,
        format!("no answer within {} s", PATIENCE.as_secs()),
    )
}

/// `verify_encrypted_gossip`: the internode port talks TLS only, refuses who shows no certificate of
/// the cluster's CA, and accepts this node's own.
pub async fn encrypted_gossip(subject: &Subject) -> Findings {
    if !subject.is_member {
        return Findings::note("this node is in no cluster yet: there is no gossip");
    }
    let config = &subject.config;
    let with = match certificates(config)
        .and_then(|certificates| certificates.decode().map_err(|error| format!("{error:#}")))
    {
        Ok(certificates) => certificates,
        Err(why) => {
            return Findings::failure(format!(
                "the certificates in {} cannot be used: {why}",
                config.certificates_dir().display()
            ));
        }
    };
    let mut findings = Findings::default();
    let target = config.internode_address();
    match plain(config.address, target).await {
        Ok(false) => {}
        Ok(true) => findings.fail(format!("{target} answers without encryption")),
        Err(error) => {
            return Findings::failure(format!("{target} cannot be reached: {error}"));
        }
    }
    match greeted(config.address, target, &with, false).await {
        Ok(true) => findings.fail(format!("{target} serves clients that show no certificate")),
        Ok(false) => {}
        Err(why) => findings.fail(format!("{target}: {why}")),
    }
    match greeted(config.address, target, &with, true).await {
        Ok(true) => {}
        Ok(false) => {
            findings.fail(format!(
                "{target} refuses this node's own certificate: is it expired?"
            ));
        }
        Err(why) => findings.fail(format!("{target}: {why}")),
    }
    findings
}

fn certificates(config: &NodeConfig) -> Result<NodeCertificates, String> {
    let read = |name: &str| {
        let path = config.certificates_dir().join(name);
        crate::installation::read_bounded(&path).map_err(|e| format!("{}: {e}", path.display()))
    };
    Ok(NodeCertificates {
        ca: read("ca_cert.pem")?,
        certificate: read("node_cert.pem")?,
        key: read("node_key.pem")?,
    })
}

/// Whether plain HTTP/2 is answered as such.
async fn plain(source: IpAddr, target: SocketAddr) -> io::Result<bool> {
    let mut stream = connect(source, target).await?;
    let answer = answer(&mut stream).await;
    // TLS says no with an alert record (type 21) or by closing.
    Ok(answer.is_ok_and(|first| first.is_some_and(|byte| byte != 21)))
}

/// The first byte of an answer to the greeting; `None`: the connection was closed.
async fn answer(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> io::Result<Option<u8>> {
    let exchange = async {
        stream.write_all(GREETING).await?;
        stream.flush().await?;
        let mut first = [0];
        let read = stream.read(&mut first).await?;
        Ok((read > 0).then_some(first[0]))
    };
    timeout(PATIENCE, exchange)
        .await
        .unwrap_or_else(|_| Err(silent()))
}

/// Whether the greeting is answered over TLS, with or without this node's certificate. `Err`: TLS
/// itself is not as it should be.
async fn greeted(
    source: IpAddr,
    target: SocketAddr,
    certificates: &DecodedCertificates,
    shown: bool,
) -> Result<bool, String> {
    let tls = configuration(certificates, shown).map_err(|error| error.to_string())?;
    let tcp = connect(source, target)
        .await
        .map_err(|error| error.to_string())?;
    let name = ServerName::IpAddress(target.ip().into());
    let handshake = TlsConnector::from(Arc::new(tls)).connect(name, tcp);
    let mut stream = match timeout(PATIENCE, handshake).await {
        Err(_) => return Err(silent().to_string()),
        // The other side refused us: an alert, or the end of the connection.
        Ok(Err(error)) if is_refusal(&error) => return Ok(false),
        Ok(Err(error)) => return Err(error.to_string()),
        Ok(Ok(stream)) => stream,
    };
    match answer(&mut stream).await {
        Ok(first) => Ok(first.is_some()),
        Err(error) if error.kind() == io::ErrorKind::TimedOut => Err(error.to_string()),
        Err(_) => Ok(false),
    }
}

fn is_refusal(error: &io::Error) -> bool {
    let alert = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>())
        .is_some_and(|error| matches!(error, rustls::Error::AlertReceived(_)));
    alert
        || matches!(
            error.kind(),
            io::ErrorKind::UnexpectedEof
                | io::ErrorKind::ConnectionReset
                | io::ErrorKind::BrokenPipe
        )
}

fn configuration(
    certificates: &DecodedCertificates,
    shown: bool,
) -> Result<rustls::ClientConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(certificates.roots.clone());
    let mut tls = if shown {
        builder.with_client_auth_cert(certificates.chain.clone(), certificates.key.clone_key())?
    } else {
        builder.with_no_client_auth()
    };
    tls.alpn_protocols = vec![b"h2".to_vec()];
    Ok(tls)
}
