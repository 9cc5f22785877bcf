//! Whether an address accepts connections, asked by connecting to it from this node's own address.
//!
//! The answer is kept for a moment, so that however often clients ask, a proxy sees at most four
//! connections a second from each node, and only for endpoints that are asked about.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::net::TcpSocket;
use tokio::sync::{Mutex as AsyncMutex, Semaphore};
use tokio::time::timeout;

/// How long an answer holds.
const HOLDS: Duration = Duration::from_millis(250);
/// How long a refusal may be passed on while it is asked again behind it.
const STALE_MAX: Duration = Duration::from_secs(5);
/// How long a connection may take. It is tried twice: the first packet may be lost.
const CONNECT_MAX: Duration = Duration::from_millis(300);
const TRIES: usize = 2;
/// Most connections at once.
const AT_ONCE: usize = 64;
/// Addresses that are remembered; beyond it those not asked about lately are forgotten.
const KEPT_MAX: usize = 4_096;

#[derive(Clone, Copy, Debug)]
struct Seen {
    open: bool,
    at: Instant,
}

/// One address: whoever holds the lock asks, the others wait for the answer.
type Entry = Arc<AsyncMutex<Option<Seen>>>;

/// Knows which addresses accept connections.
#[derive(Debug)]
pub struct Reach {
    source: IpAddr,
    entries: Mutex<BTreeMap<SocketAddr, Entry>>,
    room: Semaphore,
}

impl Reach {
    /// `source`: this node's address; a connection comes from it.
    #[must_use]
    pub fn new(source: IpAddr) -> Arc<Self> {
        Arc::new(Self {
            source,
            entries: Mutex::default(),
            room: Semaphore::new(AT_ONCE),
        })
    }

    /// Whether an address accepts connections; what was found in the last quarter of a second counts.
    pub async fn is_open(&self, address: SocketAddr) -> bool {
        self.is_open_within(address, HOLDS).await
    }

    /// The same, but a refusal that is older than this moment is asked again: somebody waits for the address.
    pub async fn is_open_now(&self, address: SocketAddr, moment: Duration) -> bool {
        self.is_open_within(address, moment).await
    }

    async fn is_open_within(&self, address: SocketAddr, refused: Duration) -> bool {
        let entry = self.entry(address);
        let mut seen = entry.lock().await;
        if let Some(seen) = *seen
            && seen.at.elapsed() < if seen.open { HOLDS } else { refused }
        {
            return seen.open;
        }
        let open = self.connects(address).await;
        *seen = Some(Seen {
            open,
            at: Instant::now(),
        });
        open
    }

    /// The same, but one that was shut a moment ago is taken to be shut still, and is asked behind the
    /// answer: an address that swallows packets does not slow every answer down.
    pub async fn is_open_soon(self: &Arc<Self>, address: SocketAddr) -> bool {
        let entry = self.entry(address);
        let shut = match entry.try_lock() {
            Ok(seen) => {
                seen.is_some_and(|s| !s.open && (HOLDS..STALE_MAX).contains(&s.at.elapsed()))
            }
            Err(_) => false,
        };
        if shut {
            let reach = Arc::clone(self);
            tokio::spawn(async move { reach.is_open(address).await });
            return false;
        }
        self.is_open(address).await
    }

    fn entry(&self, address: SocketAddr) -> Entry {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if entries.len() >= KEPT_MAX && !entries.contains_key(&address) {
            entries.retain(|_, entry| {
                let used = Arc::strong_count(entry) > 1;
                used || entry
                    .try_lock()
                    .is_ok_and(|seen| seen.is_some_and(|s| s.at.elapsed() < STALE_MAX))
            });
        }
        Arc::clone(entries.entry(address).or_default())
    }

    async fn connects(&self, address: SocketAddr) -> bool {
        let Ok(_place) = self.room.acquire().await else {
            return false;
        };
        for _ in 0..TRIES {
            match timeout(CONNECT_MAX, connect(self.source, address)).await {
                Ok(Ok(())) => return true,
                // It says no: that is an answer.
                Ok(Err(error)) => {
                    tracing::debug!(%address, %error, "does not accept connections");
                    return false;
                }
                Err(_) => tracing::debug!(%address, "is silent"),
            }
        }
        false
    }
}

async fn connect(source: IpAddr, address: SocketAddr) -> std::io::Result<()> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    if source.is_ipv4() == address.is_ipv4() {
        socket.bind(SocketAddr::new(source, 0))?;
    }
    // No time in which the port waits for late packets: nothing is ever sent.
    socket.set_zero_linger()?;
    socket.connect(address).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;
    use tokio::net::TcpListener;

    #[tokio::test]
    async fn an_answer_holds_for_a_moment_and_then_is_asked_again() {
        let reach = Reach::new(Ipv4Addr::LOCALHOST.into());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        assert!(reach.is_open(address).await);
        drop(listener);
        let deadline = Instant::now() + Duration::from_secs(10);
        while reach.is_open(address).await {
            assert!(Instant::now() < deadline, "a closed port counts as open");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let _again = TcpListener::bind(address).await.unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        while !reach.is_open_soon(address).await {
            assert!(Instant::now() < deadline, "an open port counts as closed");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    #[tokio::test]
    async fn many_that_ask_at_once_make_one_connection() {
        let reach = Reach::new(Ipv4Addr::LOCALHOST.into());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asks = (0..50).map(|_| {
            let reach = Arc::clone(&reach);
            tokio::spawn(async move { reach.is_open_soon(address).await })
        });
        for ask in asks.collect::<Vec<_>>() {
            assert!(ask.await.unwrap());
        }
        let (_first, _) = listener.accept().await.unwrap();
        let more = timeout(Duration::from_millis(1), listener.accept()).await;
        assert!(more.is_err(), "more than one connection");
    }

    #[tokio::test]
    async fn what_is_not_asked_about_any_more_is_forgotten() {
        let reach = Reach::new(Ipv4Addr::LOCALHOST.into());
        for number in 0..2 * KEPT_MAX {
            let [_, _, a, b] = u32::try_from(number).unwrap().to_be_bytes();
            reach.entry(SocketAddr::from(([127, 9, a, b], 1)));
        }
        assert!(reach.entries.lock().unwrap().len() <= KEPT_MAX);
    }
}
