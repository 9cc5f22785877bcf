//! A new server takes the endpoints of the old one, so that the listening sockets never close.
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
//! Until the commit both may accept; a new server that ends before leaves the old one as it was.

use anyhow::{Context, bail};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// Version of the messages. A server understands its own and all earlier ones.
const RECORD_VERSION: u32 = 1;
/// Most sockets in one packet (the kernel's limit).
const SOCKETS_PER_PACKET: usize = 253;
/// Longest message, bytes.
const MESSAGE_MAX: usize = 64 * 1024;
/// How long either side waits for the other's next message.
const ANSWER_WAIT: Duration = Duration::from_secs(10);

/// How often a server looks whether a successor would find it.
const LOOK_AFTER: Duration = Duration::from_secs(1);

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
}

#[derive(Debug, Serialize, Deserialize)]
struct Commit {
    commit: bool,
}

#[derive(Debug, Serialize, Deserialize)]
struct Done {
    done: bool,
}

/// What the old server's control thread is asked on behalf of a successor.
#[derive(Debug)]
pub(crate) enum Asked {
    /// The sockets, and the id of the next client. From now on endpoints stay as they are.
    Offer(oneshot::Sender<(Vec<TcpListener>, u64)>),
    /// The successor serves: accept no more.
    Commit(oneshot::Sender<()>),
    /// The successor is gone: go on.
    Abandoned,
}

/// What a new server got. Dropping it without [`Taken::commit`] leaves the old server as it was.
#[derive(Debug)]
pub(crate) struct Taken {
    connection: OwnedFd,
    pub(crate) listeners: Vec<TcpListener>,
    pub(crate) next_client: u64,
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
        record_version: RECORD_VERSION,
        build_id: build_id.to_owned(),
    };
    send(connection.as_fd(), &hello, &[])?;
    let (offer, _) = receive::<Offer>(connection.as_fd())?;
    if let Some(refusal) = offer.refusal {
        bail!("the server that runs does not hand over: {refusal}");
    }
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
        listeners,
        next_client: offer.next_client,
    }))
}

impl Taken {
    /// The new server serves: the old one accepts no more, and ends when its clients have gone.
    ///
    /// # Errors
    /// The old server did not answer; it may be gone, which does no harm.
    pub(crate) fn commit(self) -> anyhow::Result<()> {
        send(self.connection.as_fd(), &Commit { commit: true }, &[])?;
        receive::<Done>(self.connection.as_fd())?;
        Ok(())
    }
}

/// The place where a successor asks.
#[derive(Debug)]
pub(crate) struct Desk {
    socket: OwnedFd,
    path: PathBuf,
    /// Which file is its own.
    inode: u64,
}

/// Opens it. It takes the place of an earlier one in a single step.
///
/// # Errors
/// The folder cannot be written.
pub(crate) fn open_desk(path: &Path) -> anyhow::Result<Desk> {
    let socket = socket()?;
    let draft = path.with_extension(format!("{}", std::process::id()));
    // Left by a process of the same number that ended half-way.
    let _ = std::fs::remove_file(&draft);
    let address = SocketAddrUnix::new(&draft).context("naming the handover socket")?;
    let open = || -> rustix::io::Result<()> {
        rustix::net::bind(&socket, &address)?;
        rustix::fs::chmod(&draft, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR)?;
        rustix::net::listen(&socket, 4)?;
        rustix::fs::rename(&draft, path)
    };
    open().with_context(|| format!("opening {}", path.display()))?;
    rustix::net::sockopt::set_socket_timeout(
        &socket,
        rustix::net::sockopt::Timeout::Recv,
        Some(LOOK_AFTER),
    )
    .context("bounding the wait")?;
    let inode = std::fs::symlink_metadata(path)
        .with_context(|| format!("looking at {}", path.display()))?
        .ino();
    Ok(Desk {
        socket,
        path: path.to_owned(),
        inode,
    })
}

impl Desk {
    /// Serves successors, one after the other, until one has taken over. Blocks: for a thread of
    /// its own.
    pub(crate) fn serve(mut self, build_id: &str, control: &mpsc::Sender<Asked>) {
        loop {
            let connection = match rustix::net::accept_with(&self.socket, SocketFlags::CLOEXEC) {
                Ok(connection) => connection,
                Err(rustix::io::Errno::INTR | rustix::io::Errno::CONNABORTED) => continue,
                Err(rustix::io::Errno::AGAIN) => {
                    self.stay_reachable();
                    continue;
                }
                Err(error) => {
                    tracing::error!(%error, "no successor can be served any more");
                    return;
                }
            };
            match hand_over(connection.as_fd(), build_id, control) {
                Ok(()) => return,
                Err(error) => {
                    tracing::warn!("a handover was given up: {error:#}");
                    // Before the connection ends: a new server that lives on takes the place after.
                    self.stay_reachable();
                    if control.blocking_send(Asked::Abandoned).is_err() {
                        return;
                    }
                }
            }
        }
    }
}

impl Desk {
    /// Opens the place again if it was lost: a successor that took it and ended before it had taken
    /// over leaves a dead socket there, and the next one would find nobody.
    fn stay_reachable(&mut self) {
        let own = std::fs::symlink_metadata(&self.path).is_ok_and(|file| file.ino() == self.inode);
        if own || answers(&self.path) {
            return;
        }
        match open_desk(&self.path) {
            Ok(desk) => {
                tracing::info!("the place for successors is open again");
                *self = desk;
            }
            Err(error) => tracing::warn!("no successor can be served: {error:#}"),
        }
    }
}

/// Whether somebody listens there.
fn answers(path: &Path) -> bool {
    let reached = socket().and_then(|socket| {
        let address = SocketAddrUnix::new(path).context("naming the handover socket")?;
        rustix::net::connect(&socket, &address).context("reaching the handover socket")
    });
    reached.is_ok()
}

fn hand_over(
    connection: BorrowedFd<'_>,
    build_id: &str,
    control: &mpsc::Sender<Asked>,
) -> anyhow::Result<()> {
    check_peer(connection)?;
    bound_waits(connection)?;
    let (hello, _) = receive::<Hello>(connection)?;
    let mut offer = Offer {
        record_version: RECORD_VERSION,
        build_id: build_id.to_owned(),
        refusal: None,
        listeners: 0,
        next_client: 0,
    };
    if hello.record_version < RECORD_VERSION {
        let text = format!(
            "it writes handover records of version {RECORD_VERSION}, the new server reads {}",
            hello.record_version
        );
        offer.refusal = Some(text.clone());
        send(connection, &offer, &[])?;
        bail!("{text}");
    }
    let (answer, sockets) = oneshot::channel();
    control
        .blocking_send(Asked::Offer(answer))
        .context("the server is ending")?;
    let (sockets, next_client) = sockets.blocking_recv().context("the server is ending")?;
    offer.listeners = sockets.len();
    offer.next_client = next_client;
    send(connection, &offer, &[])?;
    for batch in sockets.chunks(SOCKETS_PER_PACKET) {
        let batch: Vec<BorrowedFd<'_>> = batch.iter().map(AsFd::as_fd).collect();
        send(
            connection,
            &serde_json::json!({ "sockets": batch.len() }),
            &batch,
        )?;
    }
    receive::<Commit>(connection).context("the new server did not take over")?;
    let (answer, done) = oneshot::channel();
    control
        .blocking_send(Asked::Commit(answer))
        .context("the server is ending")?;
    done.blocking_recv().context("the server is ending")?;
    tracing::info!(to = hello.build_id, "the endpoints are handed over");
    // The new server serves in any case.
    let _ = send(connection, &Done { done: true }, &[]);
    Ok(())
}

fn socket() -> anyhow::Result<OwnedFd> {
    rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )
    .context("making the handover socket")
}

/// Only the same user may hand over or take.
fn check_peer(connection: BorrowedFd<'_>) -> anyhow::Result<()> {
    let peer = rustix::net::sockopt::socket_peercred(connection).context("asking who it is")?;
    if peer.uid != rustix::process::geteuid() {
        bail!("the other side runs as user {}", peer.uid.as_raw());
    }
    Ok(())
}

fn bound_waits(connection: BorrowedFd<'_>) -> anyhow::Result<()> {
    for id in [
        rustix::net::sockopt::Timeout::Recv,
        rustix::net::sockopt::Timeout::Send,
    ] {
        rustix::net::sockopt::set_socket_timeout(connection, id, Some(ANSWER_WAIT))
            .context("bounding the wait")?;
    }
    Ok(())
}

fn send(
    connection: BorrowedFd<'_>,
    message: &impl Serialize,
    sockets: &[BorrowedFd<'_>],
) -> anyhow::Result<()> {
    let bytes = serde_json::to_vec(message)?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(SOCKETS_PER_PACKET))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !sockets.is_empty() && !control.push(SendAncillaryMessage::ScmRights(sockets)) {
        bail!("too many sockets for one packet");
    }
    rustix::net::sendmsg(
        connection,
        &[IoSlice::new(&bytes)],
        &mut control,
        SendFlags::NOSIGNAL,
    )
    .context("sending to the other server")?;
    Ok(())
}

fn receive<T: DeserializeOwned>(connection: BorrowedFd<'_>) -> anyhow::Result<(T, Vec<OwnedFd>)> {
    let mut bytes = vec![0; MESSAGE_MAX];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(SOCKETS_PER_PACKET))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let got = rustix::net::recvmsg(
        connection,
        &mut [IoSliceMut::new(&mut bytes)],
        &mut control,
        RecvFlags::CMSG_CLOEXEC,
    )
    .context("waiting for the other server")?;
    let sockets = control
        .drain()
        .flat_map(|message| match message {
            RecvAncillaryMessage::ScmRights(sockets) => sockets.collect::<Vec<_>>(),
            _ => Vec::new(),
        })
        .collect();
    if got.bytes == 0 {
        bail!("the other server is gone");
    }
    let message = serde_json::from_slice(&bytes[..got.bytes])
        .context("the other server sent an unreadable message")?;
    Ok((message, sockets))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpStream;

    /// Hands one listener over between two ends of this process.
    #[test]
    fn a_listener_moves_and_a_dead_successor_does_no_harm() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("handover.sock");
        assert!(take(&path, "new").unwrap().is_none());
        let desk = open_desk(&path).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (control, mut asked) = mpsc::channel(4);
        let desk = std::thread::spawn(move || desk.serve("old", &control));
        let old = std::thread::spawn(move || {
            let (mut offers, mut abandoned) = (0, 0);
            while let Some(question) = asked.blocking_recv() {
                match question {
                    Asked::Offer(answer) => {
                        offers += 1;
                        answer
                            .send((vec![listener.try_clone().unwrap()], 42))
                            .unwrap();
                    }
                    Asked::Abandoned => abandoned += 1,
                    Asked::Commit(done) => done.send(()).unwrap(),
                }
            }
            (offers, abandoned)
        });
        drop(take(&path, "first").unwrap().unwrap());
        // This one dies after it has taken the place where successors ask.
        let dying = take(&path, "dying").unwrap().unwrap();
        drop(open_desk(&path).unwrap());
        drop(dying);
        let deadline = std::time::Instant::now() + ANSWER_WAIT;
        while !answers(&path) {
            assert!(
                std::time::Instant::now() < deadline,
                "it is reachable again"
            );
            std::thread::sleep(Duration::from_millis(5));
        }
        let taken = take(&path, "second").unwrap().unwrap();
        assert_eq!(taken.next_client, 42);
        let moved = taken.listeners[0].try_clone().unwrap();
        taken.commit().unwrap();
        desk.join().unwrap();
        let (offers, abandoned) = old.join().unwrap();
        assert!(offers == 3 && abandoned >= 2, "{offers} {abandoned}");
        assert_eq!(moved.local_addr().unwrap(), address);
        let client = TcpStream::connect(address).unwrap();
        let (_, peer) = moved.accept().unwrap();
        assert_eq!(peer, client.local_addr().unwrap());
    }
}
