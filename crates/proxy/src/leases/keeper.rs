//! Asking one engine for its promise: it is given by signing in as a user that is there only while the engine
//! keeps its role, and by answering `PING` as that user.

use model::proxy::{Copies, ShardAddress};
use std::io;
use std::net::{IpAddr, SocketAddr};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, UnixStream};

/// What is shown of an answer that is none.
const SHOWN: usize = 120;

trait Socket: AsyncRead + AsyncWrite + Send + Sync + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Sync + Unpin> Socket for S {}

/// A connection over which an engine has promised, and on which nothing is under way.
pub(super) struct Keeper(Box<dyn Socket>);

/// Asks an engine once. The connection comes back when it has promised.
///
/// # Errors
/// Why it has not; the connection is closed.
pub(super) async fn ask(
    known: Option<Keeper>,
    address: &ShardAddress,
    source: IpAddr,
    copies: &Copies,
) -> Result<Keeper, String> {
    let mut words = Vec::new();
    let (mut keeper, promise) = if let Some(keeper) = known {
        (keeper, &b"+PONG\r\n"[..])
    } else {
        let (user, password) = (copies.user.as_bytes(), copies.password.expose().as_bytes());
        resp::request::encode([b"AUTH", user, password], &mut words);
        let socket = open(address, source).await;
        let socket = socket.map_err(|error| format!("it is not reached: {error}"))?;
        (Keeper(socket), &b"+OK\r\n+PONG\r\n"[..])
    };
    resp::request::encode([model::own_words::PING.as_bytes()], &mut words);
    let written = keeper.0.write_all(&words).await;
    written.map_err(|error| format!("the connection broke: {error}"))?;
    expect(&mut keeper.0, promise).await?;
    Ok(keeper)
}

/// Reads exactly this answer.
async fn expect(socket: &mut Box<dyn Socket>, promise: &[u8]) -> Result<(), String> {
    let mut answer = [0; 512];
    let mut length = 0;
    loop {
        match socket.read(&mut answer[length..]).await {
            Ok(0) => return Err("it closed the connection".to_owned()),
            Ok(count) => length += count,
            Err(error) => return Err(format!("the connection broke: {error}")),
        }
        let answer = &answer[..length];
        if answer == promise {
            return Ok(());
        }
        if !promise.starts_with(answer) {
            let text = String::from_utf8_lossy(answer);
            let line = text.lines().find(|line| !line.starts_with('+'));
            let line: String = line.unwrap_or("").chars().take(SHOWN).collect();
            return Err(format!("it says {line:?}"));
        }
    }
}

async fn open(address: &ShardAddress, source: IpAddr) -> io::Result<Box<dyn Socket>> {
    match address {
        ShardAddress::Unix(path) => Ok(Box::new(UnixStream::connect(path).await?)),
        ShardAddress::Tcp(address) => {
            let socket = if address.is_ipv4() {
                TcpSocket::new_v4()?
            } else {
                TcpSocket::new_v6()?
            };
            if address.is_ipv4() == source.is_ipv4() {
                socket.bind(SocketAddr::new(source, 0))?;
            }
            let stream = socket.connect(*address).await?;
            stream.set_nodelay(true)?;
            Ok(Box::new(stream))
        }
    }
}

/// Where an engine is, for people; clients hear it too, and need no paths.
pub(super) fn place(address: &ShardAddress) -> String {
    match address {
        ShardAddress::Unix(path) => path.file_name().unwrap_or_default().display().to_string(),
        ShardAddress::Tcp(address) => address.to_string(),
    }
}
