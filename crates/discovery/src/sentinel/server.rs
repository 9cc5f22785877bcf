//! Connections of clients.

use crate::finder::{Finder, News};
use crate::sentinel::session::{Next, Session};
use resp::inline;
use resp::request::{Args, Progress, RequestFramer, RequestLimits, Shape};
use resp::value::Value;
use socket2::{SockRef, TcpKeepalive};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, broadcast};
use tokio::time::{sleep, timeout};

/// Most clients.
const CONNECTIONS_MAX: usize = 2_000;
/// Longest command, bytes: names are short.
const COMMAND_MAX: usize = 16 * 1024;
/// Room for what is read at once, bytes.
const READ: usize = 4 * 1024;
/// Most arguments of a command.
const ARGS_MAX: usize = 256;
/// Replies that are written together, bytes: a client that sends many commands gets them by and by, and
/// is not read meanwhile.
const REPLIES_TOGETHER: usize = 64 * 1024;
/// How long a client may be silent that has subscribed to nothing.
const SILENCE_MAX: Duration = Duration::from_secs(600);
/// After how long a silent connection is asked whether it is still there.
const KEEPALIVE: Duration = Duration::from_secs(60);
/// How long a client may take to read what it asked for.
const WRITE_MAX: Duration = Duration::from_secs(10);
/// How often databases are looked for while somebody wants to know of moves.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// A cluster of many databases is looked through more slowly: one of these for each.
const LOOK_EACH: Duration = Duration::from_millis(1);

/// Binds the service's address.
///
/// # Errors
/// When it cannot be bound, with the address.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    crate::dns::listen(address, 256)
        .map_err(|error| io::Error::new(error.kind(), format!("TCP {address}: {error}")))
}

/// Serves clients until the task is dropped. `port`: of this service on every node.
pub async fn serve(finder: Finder, listener: TcpListener, port: u16) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    for id in 1.. {
        let Ok(place) = Arc::clone(&room).acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, from)) => {
                let session = Session::new(finder.clone(), id, port);
                let news = finder.clone();
                tokio::spawn(async move {
                    if let Err(error) = client(session, stream, &news).await {
                        tracing::debug!(%from, %error, "a connection of the discovery service ended");
                    }
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "the discovery service cannot accept a connection");
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Looks for all databases again and again while somebody has subscribed to their moves. Ends with the
/// task.
pub async fn follow(mut finder: Finder) {
    loop {
        let count = u32::try_from(finder.view().endpoints.len()).unwrap_or(u32::MAX);
        tokio::select! {
            () = sleep(LOOK_EVERY.max(LOOK_EACH.saturating_mul(count))) => {}
            () = finder.changed() => {}
        }
        if finder.is_heard() {
            let view = finder.view();
            finder.find_all(&view, false).await;
        }
    }
}

async fn client(mut session: Session, mut stream: TcpStream, finder: &Finder) -> io::Result<()> {
    stream.set_nodelay(true)?;
    // A subscriber may be silent for ever; one whose machine is gone must not stay.
    SockRef::from(&stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE))?;
    let mut input = Input::default();
    let mut out = Vec::new();
    let mut news: Option<broadcast::Receiver<News>> = None;
    loop {
        let subscribed = session.channels.count() > 0;
        if subscribed != news.is_some() {
            news = subscribed.then(|| finder.news());
        }
        input.bytes.reserve(READ);
        tokio::select! {
            read = timeout(SILENCE_MAX, stream.read_buf(&mut input.bytes)) => match read {
                Err(_) if subscribed => {}
                Err(_) | Ok(Ok(0)) => return Ok(()),
                Ok(read) => {
                    read?;
                    if commands(&mut session, &mut stream, &mut input, &mut out).await? == Next::Close {
                        write(&mut stream, &mut out).await?;
                        return stream.shutdown().await;
                    }
                }
            },
            told = next(&mut news) => for message in session.channels.messages(&told) {
                message.write(session.version(), &mut out);
            },
        }
        write(&mut stream, &mut out).await?;
    }
}

/// The next news, for a client that wants them. One that was too slow misses the oldest.
async fn next(news: &mut Option<broadcast::Receiver<News>>) -> News {
    loop {
        match news {
            None => return std::future::pending().await,
            Some(receiver) => match receiver.recv().await {
                Ok(told) => return told,
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => *news = None,
            },
        }
    }
}

/// What a client has sent and is not done yet.
#[derive(Debug, Default)]
struct Input {
    bytes: Vec<u8>,
    framer: RequestFramer,
    /// How far the command at the start of the bytes has been understood.
    seen: usize,
}

impl Input {
    /// Takes the next whole command out.
    fn next(&mut self) -> Result<Option<Vec<Vec<u8>>>, String> {
        let limits = RequestLimits {
            authenticated: true,
        };
        let progress = self
            .framer
            .advance(&self.bytes[self.seen..], limits)
            .map_err(|error| format!("ERR {error}"))?;
        match progress {
            Progress::Incomplete { consumed } => {
                self.seen += consumed;
                if self.bytes.len() > COMMAND_MAX {
                    return Err(format!("ERR a command of more than {COMMAND_MAX} bytes"));
                }
                Ok(None)
            }
            Progress::Complete { consumed, shape } => {
                let end = self.seen + consumed;
                let frame = &self.bytes[..end];
                let args = match shape {
                    Shape::Empty => Vec::new(),
                    Shape::Inline => {
                        let line = frame.trim_ascii_end();
                        inline::split(line).map_err(|error| format!("ERR {error}"))?
                    }
                    Shape::Array => Args::of(frame)
                        .take(ARGS_MAX + 1)
                        .map(<[u8]>::to_vec)
                        .collect(),
                };
                if args.len() > ARGS_MAX {
                    return Err(format!("ERR a command of more than {ARGS_MAX} arguments"));
                }
                self.bytes.drain(..end);
                self.framer = RequestFramer::default();
                self.seen = 0;
                Ok(Some(args))
            }
        }
    }
}

async fn commands(
    session: &mut Session,
    stream: &mut TcpStream,
    input: &mut Input,
    out: &mut Vec<u8>,
) -> io::Result<Next> {
    loop {
        match input.next() {
            Ok(None) => return Ok(Next::Go),
            Ok(Some(args)) => {
                let args: Vec<&[u8]> = args.iter().map(Vec::as_slice).collect();
                if session.command(&args, out).await == Next::Close {
                    return Ok(Next::Close);
                }
            }
            Err(text) => {
                Value::Error(text.into_bytes()).write(2, out);
                return Ok(Next::Close);
            }
        }
        if out.len() > REPLIES_TOGETHER {
            write(stream, out).await?;
        }
    }
}

async fn write(stream: &mut TcpStream, out: &mut Vec<u8>) -> io::Result<()> {
    if !out.is_empty() {
        timeout(WRITE_MAX, stream.write_all(out)).await??;
        out.clear();
        out.shrink_to(REPLIES_TOGETHER);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
