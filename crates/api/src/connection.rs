//! Bounds of connections: how many, and how long one may do nothing.

use axum::extract::Extension;
use axum_server::accept::Accept;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep, sleep};
use tower::Layer;

/// How long a connection may stay without a byte in either direction. Longer than the longest
/// request: while a node joins nothing is sent.
const IDLE_MAX: Duration = Duration::from_secs(180);

/// The process at the other end of a unix socket.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Peer {
    /// Its user id.
    pub uid: Option<u32>,
}

/// Accepts connections up to a number; those beyond it are closed at once.
#[derive(Clone, Debug)]
pub struct Bounded {
    slots: Arc<Semaphore>,
    most: usize,
}

impl Bounded {
    /// At most `most` connections.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self {
            slots: Arc::new(Semaphore::new(most)),
            most,
        }
    }

    fn slot(&self) -> io::Result<OwnedSemaphorePermit> {
        Arc::clone(&self.slots).try_acquire_owned().map_err(|_| {
            io::Error::other(format!(
                "{} connections are open, no more are taken",
                self.most
            ))
        })
    }
}

impl<S> Accept<TcpStream, S> for Bounded {
    type Stream = BoundedStream<TcpStream>;
    type Service = S;
    type Future = std::future::Ready<io::Result<(Self::Stream, S)>>;

    fn accept(&self, stream: TcpStream, service: S) -> Self::Future {
        let accepted = self.slot().and_then(|slot| {
            stream.set_nodelay(true)?;
            Ok((BoundedStream::new(stream, slot), service))
        });
        std::future::ready(accepted)
    }
}

impl<S> Accept<UnixStream, S> for Bounded {
    type Stream = BoundedStream<UnixStream>;
    type Service = <Extension<Peer> as Layer<S>>::Service;
    type Future = std::future::Ready<io::Result<(Self::Stream, Self::Service)>>;

    fn accept(&self, stream: UnixStream, service: S) -> Self::Future {
        let accepted = self.slot().map(|slot| {
            let peer = Peer {
                uid: stream.peer_cred().ok().map(|peer| peer.uid()),
            };
            (
                BoundedStream::new(stream, slot),
                Extension(peer).layer(service),
            )
        });
        std::future::ready(accepted)
    }
}

/// A connection that holds one of the slots and ends after [`IDLE_MAX`] without a byte.
#[derive(Debug)]
pub struct BoundedStream<T> {
    inner: T,
    idle: Pin<Box<Sleep>>,
    _slot: OwnedSemaphorePermit,
}

impl<T> BoundedStream<T> {
    fn new(inner: T, slot: OwnedSemaphorePermit) -> Self {
        Self {
            inner,
            idle: Box::pin(sleep(IDLE_MAX)),
            _slot: slot,
        }
    }

    /// Passes on what came of an attempt; while nothing comes, looks at the clock.
    fn watched<R>(
        &mut self,
        cx: &mut Context<'_>,
        attempt: Poll<io::Result<R>>,
    ) -> Poll<io::Result<R>> {
        if attempt.is_ready() {
            self.idle.as_mut().reset(Instant::now() + IDLE_MAX);
            return attempt;
        }
        ready!(self.idle.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for BoundedStream<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let attempt = Pin::new(&mut self.inner).poll_read(cx, buf);
        self.watched(cx, attempt)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for BoundedStream<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let attempt = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.watched(cx, attempt)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let attempt = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        self.watched(cx, attempt)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}
