//! The name server of a node: UDP and TCP on its own address.

use crate::finder::Finder;
use crate::zone::{self, Wanted};
use hickory_proto::op::{Message, MessageType, OpCode, ResponseCode};
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// Largest message that is read, bytes. A question has at most 255 bytes of name; the rest is room for
/// what extensions add.
const QUESTION_MAX: usize = 4_096;
/// Most questions over UDP at once; beyond it they are dropped, and the client asks again.
const QUESTIONS_MAX: usize = 512;
/// Most connections.
const CONNECTIONS_MAX: usize = 128;
/// How long a connection may be silent, or take to read an answer.
const SILENCE_MAX: Duration = Duration::from_secs(10);
/// Most questions a second over UDP from one address, on average; beyond it they are dropped, so that
/// this node is of no use for flooding an address that did not ask.
const RATE: u32 = 500;
/// Addresses whose rate is watched.
const SOURCES_MAX: usize = 4_096;
/// Header of a message, bytes.
const HEADER: usize = 12;

/// The sockets of a name server.
#[derive(Debug)]
pub struct Sockets {
    udp: UdpSocket,
    tcp: TcpListener,
}

impl Sockets {
    /// Binds both.
    ///
    /// # Errors
    /// When one cannot be bound, with the address and the protocol.
    pub async fn bind(address: SocketAddr) -> io::Result<Self> {
        let failed = |protocol: &'static str| {
            move |error: io::Error| {
                io::Error::new(error.kind(), format!("{protocol} {address}: {error}"))
            }
        };
        // TCP first: the port is free for it only after a while when a predecessor had connections, so
        // it takes the address at once; and with port 0 it chooses.
        let tcp = listen(address, 64).map_err(failed("TCP"))?;
        let address = tcp.local_addr()?;
        let udp = UdpSocket::bind(address).await.map_err(failed("UDP"))?;
        Ok(Self { udp, tcp })
    }

    /// Where they are.
    ///
    /// # Errors
    /// When the kernel does not say.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }
}

/// Listens for connections, though those of a predecessor may still be closing.
pub(crate) fn listen(address: SocketAddr, backlog: u32) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() {
        tokio::net::TcpSocket::new_v4()?
    } else {
        tokio::net::TcpSocket::new_v6()?
    };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(backlog)
}

/// Answers until the task is dropped.
pub async fn serve(finder: Finder, sockets: Sockets) {
    tokio::join!(
        serve_udp(finder.clone(), Arc::new(sockets.udp)),
        serve_tcp(finder, sockets.tcp),
    );
}

async fn serve_udp(finder: Finder, socket: Arc<UdpSocket>) {
    let room = Arc::new(Semaphore::new(QUESTIONS_MAX));
    let mut rates = Rates::default();
    let mut buffer = vec![0; QUESTION_MAX];
    loop {
        let (length, from) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            Err(error) => {
                tracing::debug!(%error, "cannot receive a question");
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            }
        };
        // Port 0 cannot be answered; an answer to another name server's port could go round for ever
        // only if it were a question, which it never is.
        if from.port() == 0 || !rates.allows(from.ip(), Instant::now()) {
            continue;
        }
        let Ok(place) = Arc::clone(&room).try_acquire_owned() else {
            continue;
        };
        let asked = buffer[..length].to_vec();
        let finder = finder.clone();
        let socket = Arc::clone(&socket);
        tokio::spawn(async move {
            if let Some(answer) = answer(&finder, &asked, true).await
                && let Err(error) = socket.send_to(&answer, from).await
            {
                tracing::debug!(%from, %error, "an answer cannot be sent");
            }
            drop(place);
        });
    }
}

async fn serve_tcp(finder: Finder, listener: TcpListener) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = Arc::clone(&room).acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, from)) => {
                let finder = finder.clone();
                tokio::spawn(async move {
                    if let Err(error) = connection(&finder, stream).await {
                        tracing::debug!(%from, %error, "a connection of the name server ended");
                    }
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "the name server cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn connection(finder: &Finder, mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = vec![0; QUESTION_MAX];
    loop {
        let read = async {
            let length = usize::from(stream.read_u16().await?);
            if length > QUESTION_MAX {
                return Err(io::Error::other("a question that is too long"));
            }
            stream.read_exact(&mut buffer[..length]).await?;
            Ok(length)
        };
        let length = match timeout(SILENCE_MAX, read).await {
            Err(_) => return Ok(()),
            Ok(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Ok(read) => read?,
        };
        let Some(answer) = answer(finder, &buffer[..length], false).await else {
            return Ok(());
        };
        let mut framed = Vec::with_capacity(answer.len() + 2);
        let length = u16::try_from(answer.len()).map_err(io::Error::other)?;
        framed.extend_from_slice(&length.to_be_bytes());
        framed.extend_from_slice(&answer);
        timeout(SILENCE_MAX, stream.write_all(&framed)).await??;
    }
}

/// The bytes that answer a message; `None`: it deserves none.
async fn answer(finder: &Finder, bytes: &[u8], over_udp: bool) -> Option<Vec<u8>> {
    let Ok(message) = Message::from_vec(bytes) else {
        return unreadable(bytes);
    };
    if message.metadata.message_type == MessageType::Response {
        return None;
    }
    let reply = match zone::question(&message) {
        Err(code) => zone::reply(&message, code),
        Ok(query) => {
            let view = finder.view();
            let live = match zone::wanted(&view, query.name()) {
                Wanted::Endpoint { port, .. } => match view.by_port(port) {
                    Some(endpoint) => finder.live(&view, endpoint).await,
                    None => Vec::new(),
                },
                _ => Vec::new(),
            };
            zone::answer(&view, &message, query, &live)
        }
    };
    let whole = reply.to_vec().ok()?;
    if over_udp && whole.len() > usize::from(zone::payload(&message)) {
        return reply.truncate().to_vec().ok();
    }
    Some(whole)
}

/// What is said to bytes that are no message, if they have a header of a question at all.
fn unreadable(bytes: &[u8]) -> Option<Vec<u8>> {
    let header = bytes.first_chunk::<HEADER>()?;
    let [id_high, id_low, flags, ..] = *header;
    if flags & 0x80 != 0 {
        return None;
    }
    let id = u16::from_be_bytes([id_high, id_low]);
    let op_code = OpCode::from_u8((flags >> 3) & 0x0f);
    let mut reply = Message::new(id, MessageType::Response, op_code);
    reply.metadata.response_code = ResponseCode::FormErr;
    reply.to_vec().ok()
}

/// Questions of each address in the current second and what is left of the last ones.
#[derive(Debug, Default)]
struct Rates {
    sources: BTreeMap<IpAddr, (Instant, f64)>,
}

impl Rates {
    fn allows(&mut self, source: IpAddr, now: Instant) -> bool {
        let rate = f64::from(RATE);
        if self.sources.len() >= SOURCES_MAX && !self.sources.contains_key(&source) {
            // Whoever has not asked for a second has its whole allowance again.
            self.sources
                .retain(|_, (at, _)| now.saturating_duration_since(*at) < Duration::from_secs(1));
            if self.sources.len() >= SOURCES_MAX {
                return false;
            }
        }
        let (at, left) = self.sources.entry(source).or_insert((now, rate));
        let since = now.saturating_duration_since(*at).as_secs_f64();
        *left = (*left + since * rate).min(rate);
        *at = now;
        if *left < 1.0 {
            return false;
        }
        *left -= 1.0;
        true
    }
}

#[cfg(test)]
mod tests;
