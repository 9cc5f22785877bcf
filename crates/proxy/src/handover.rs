//! A new server takes the endpoints and the clients of the old one: listening sockets never close, and
//! connected clients go on with the new process as if nothing had happened.
//!
//! Over a private SOCK_SEQPACKET unix socket, one JSON message a packet:
//!
//! | who | message |
//! |---|---|
//! | new | [`Hello`]: record version first, build id |
//! | old | [`Offer`]: how many sockets come, what else is carried over; or why not |
//! | old | packets with up to 253 sockets each |
//! | new | [`Commit`], when it accepts clients itself |
//! | old | [`Done`], when it accepts no more |
//!
//! Until the commit both may accept; a new server that ends before leaves the old one as it was. Then, if
//! both speak version 2, clients go over, batch by batch ([`clients`]); from version 3 on some batches are on
//! the way at a time.
//!
//! | file | what |
//! |---|---|
//! | [`desk`] | the old server's side of the endpoints |
//! | [`clients`] | the messages about clients, and who owns one when |
//! | [`give`], [`flight`], [`adopt`] | the old and the new server's side of that |
//! | [`record`] | what is written of a client |
//! | [`packet`] | packets and sockets |

mod adopt;
mod clients;
mod desk;
mod flight;
mod give;
mod packet;
pub(crate) mod record;

pub(crate) use adopt::{Adopted, Verdict, adopt};
pub(crate) use clients::Standing;
pub(crate) use desk::{Asked, Offered, open_desk};
pub(crate) use give::{Giving, standing};

use crate::bounds;
use anyhow::{Context, bail};
use packet::{bound_waits, check_peer, receive, send, socket};
use rustix::net::SocketAddrUnix;
use serde::{Deserialize, Serialize};
use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

/// Version of the messages. A server understands its own and all earlier ones.
const RECORD_VERSION: u32 = 3;
/// From which on clients go over, too.
const WITH_CLIENTS: u32 = 2;
/// From which on the new server takes a batch while it waits for the word about the ones before.
const WITH_WINDOW: u32 = 3;

/// Sockets that room is made for if the server before does not say how many come.
const ROOM: usize = 8192;
/// Descriptors that are needed beside those: listening sockets, engines, files.
const ROOM_BESIDE: usize = 256;

/// The version that this process speaks.
fn version() -> u32 {
    match std::env::var(packet::TEST_ENV).as_deref() {
        Ok("version=1") => 1,
        Ok("version=2") => 2,
        _ => RECORD_VERSION,
    }
}

/// How long questions about all clients wait at most while some are with another process.
pub(crate) fn patience() -> Duration {
    match std::env::var(packet::TEST_ENV).as_deref() {
        Ok("patient") => Duration::MAX,
        _ => bounds::DIVIDED_WAIT,
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Hello {
    record_version: u32,
    build_id: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct Offer {
    record_version: u32,
    build_id: String,
    /// Why nothing is handed over.
    refusal: Option<String>,
    listeners: usize,
    next_client: u64,
    /// How many sockets its clients have; 0: it does not say.
    #[serde(default)]
    sockets: usize,
    /// Whose those are.
    #[serde(default)]
    standing: Standing,
}

#[derive(Debug, Serialize, Deserialize)]
struct Commit {
    commit: bool,
}

#[derive(Debug, Serialize, Deserialize)]
struct Done {
    done: bool,
}

/// What a new server got. Dropping it without [`Taken::commit`] leaves the old server as it was.
#[derive(Debug)]
pub(crate) struct Taken {
    connection: OwnedFd,
    /// The old server's version of the messages.
    version: u32,
    pub(crate) listeners: Vec<TcpListener>,
    pub(crate) next_client: u64,
    /// What the old server has, until it says more.
    pub(crate) standing: Standing,
}

/// Asks the server that runs for its endpoints. `None`: there is none.
///
/// # Errors
/// There is one, but it does not hand over.
pub(crate) fn take(path: &Path, build_id: &str) -> anyhow::Result<Option<Taken>> {
    let connection = socket()?;
    let address = SocketAddrUnix::new(path).context("naming the handover socket")?;
    match rustix::net::connect(&connection, &address) {
        Ok(()) => {}
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::CONNREFUSED) => return Ok(None),
        Err(error) => return Err(error).context("reaching the server that runs"),
    }
    check_peer(connection.as_fd())?;
    bound_waits(connection.as_fd())?;
    let hello = Hello {
        record_version: version(),
        build_id: build_id.to_owned(),
    };
    send(connection.as_fd(), &hello, &[])?;
    let (offer, _) = receive::<Offer>(connection.as_fd())?;
    if let Some(refusal) = offer.refusal {
        bail!("the server that runs does not hand over: {refusal}");
    }
    make_room(connection.as_fd(), offer.sockets);
    let mut listeners = Vec::new();
    while listeners.len() < offer.listeners {
        let (_, sockets) = receive::<serde_json::Value>(connection.as_fd())?;
        if sockets.is_empty() {
            bail!("the server that runs announced sockets and sent none");
        }
        listeners.extend(sockets.into_iter().map(TcpListener::from));
    }
    tracing::info!(
        from = offer.build_id,
        listeners = listeners.len(),
        "endpoints are taken over"
    );
    Ok(Some(Taken {
        connection,
        version: offer.record_version,
        listeners,
        next_client: offer.next_client,
        standing: offer.standing,
    }))
}

/// Has the system make the table of descriptors as large as it will be. It doubles the table whenever a process
/// needs more, and with several threads waits some 10 ms each time: between two clients.
fn make_room(any: BorrowedFd<'_>, sockets: usize) {
    let sockets = if sockets == 0 { ROOM } else { sockets };
    let wanted = sockets.saturating_add(sockets / 4 + ROOM_BESIDE);
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let limit = limit.map_or(usize::MAX, |most| {
        usize::try_from(most).unwrap_or(usize::MAX)
    });
    let highest = wanted.min(limit.saturating_sub(1));
    let highest = i32::try_from(highest).unwrap_or(i32::MAX);
    // It is closed at once; the table stays. Without it the handover takes longer.
    if let Err(error) = rustix::io::fcntl_dupfd_cloexec(any, highest) {
        tracing::warn!(%error, highest, "no room is made for the clients' sockets");
    }
}

impl Taken {
    /// The new server serves: the old one accepts no more, and ends when its clients have gone. If it
    /// hands those over too, this returns the connection for [`adopt`].
    ///
    /// # Errors
    /// The old server did not answer; it may be gone, which does no harm.
    pub(crate) fn commit(self) -> anyhow::Result<Option<OwnedFd>> {
        send(self.connection.as_fd(), &Commit { commit: true }, &[])?;
        receive::<Done>(self.connection.as_fd())?;
        let clients = self.version.min(version()) >= WITH_CLIENTS;
        Ok(clients.then_some(self.connection))
    }
}

#[cfg(test)]
mod tests;
