//! Packets of the handover's socket, and the sockets that come with them.

use anyhow::{Context, bail};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::cell::RefCell;
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Most sockets in one packet (the kernel's limit).
pub(super) const SOCKETS_PER_PACKET: usize = 253;
/// Longest packet, bytes.
pub(super) const PACKET_MAX: usize = 64 * 1024;
/// How long either side waits for the other's next message.
pub(super) const ANSWER_WAIT: Duration = Duration::from_secs(10);

/// What was received.
pub(super) struct Packet {
    pub(super) bytes: Vec<u8>,
    pub(super) sockets: Vec<OwnedFd>,
    /// This process could not take all sockets that came.
    pub(super) cut: bool,
}

pub(super) fn socket() -> anyhow::Result<OwnedFd> {
    rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )
    .context("making the handover socket")
}

/// Only the same user may hand over or take.
pub(super) fn check_peer(connection: BorrowedFd<'_>) -> anyhow::Result<()> {
    let peer = rustix::net::sockopt::socket_peercred(connection).context("asking who it is")?;
    if peer.uid != rustix::process::geteuid() {
        bail!("the other side runs as user {}", peer.uid.as_raw());
    }
    Ok(())
}

pub(super) fn bound_waits(connection: BorrowedFd<'_>) -> anyhow::Result<()> {
    for id in [
        rustix::net::sockopt::Timeout::Recv,
        rustix::net::sockopt::Timeout::Send,
    ] {
        rustix::net::sockopt::set_socket_timeout(connection, id, Some(ANSWER_WAIT))
            .context("bounding the wait")?;
    }
    Ok(())
}

pub(super) fn send(
    connection: BorrowedFd<'_>,
    message: &impl Serialize,
    sockets: &[BorrowedFd<'_>],
) -> anyhow::Result<()> {
    send_bytes(connection, &serde_json::to_vec(message)?, sockets)
}

pub(super) fn send_bytes(
    connection: BorrowedFd<'_>,
    bytes: &[u8],
    sockets: &[BorrowedFd<'_>],
) -> anyhow::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(SOCKETS_PER_PACKET))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !sockets.is_empty() && !control.push(SendAncillaryMessage::ScmRights(sockets)) {
        bail!("too many sockets for one packet");
    }
    rustix::net::sendmsg(
        connection,
        &[IoSlice::new(bytes)],
        &mut control,
        SendFlags::NOSIGNAL,
    )
    .context("sending to the other server")?;
    Ok(())
}

pub(super) fn receive<T: DeserializeOwned>(
    connection: BorrowedFd<'_>,
) -> anyhow::Result<(T, Vec<OwnedFd>)> {
    let packet = receive_packet(connection)?;
    if packet.cut {
        bail!("too few descriptors are free for the other server's sockets");
    }
    Ok((read(&packet)?, packet.sockets))
}

pub(super) fn read<T: DeserializeOwned>(packet: &Packet) -> anyhow::Result<T> {
    serde_json::from_slice(&packet.bytes).context("the other server sent an unreadable message")
}

/// # Errors
/// Nothing came in time ([`rustix::io::Errno::AGAIN`]), or the other side has ended.
pub(super) fn receive_packet(connection: BorrowedFd<'_>) -> anyhow::Result<Packet> {
    BUFFER.with_borrow_mut(|buffer| {
        buffer.resize(PACKET_MAX, 0);
        receive_into(connection, buffer)
    })
}

thread_local! {
    /// For what is received. Memory of this size that is given back is cleared by the system when it is taken again.
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

fn receive_into(connection: BorrowedFd<'_>, buffer: &mut [u8]) -> anyhow::Result<Packet> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(SOCKETS_PER_PACKET))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut reset = false;
    let got = loop {
        match rustix::net::recvmsg(
            connection,
            &mut [IoSliceMut::new(buffer)],
            &mut control,
            RecvFlags::CMSG_CLOEXEC,
        ) {
            Err(rustix::io::Errno::INTR) => {}
            // It ended before it had read everything. Said once, ahead of what it had sent until then.
            Err(rustix::io::Errno::CONNRESET) if !reset => reset = true,
            other => break other.context("waiting for the other server")?,
        }
    };
    let sockets = control
        .drain()
        .flat_map(|message| match message {
            RecvAncillaryMessage::ScmRights(sockets) => sockets.collect::<Vec<_>>(),
            _ => Vec::new(),
        })
        .collect();
    if got.bytes == 0 {
        bail!(Gone);
    }
    if got.flags.contains(ReturnFlags::TRUNC) {
        bail!("the other server sent too long a message");
    }
    Ok(Packet {
        bytes: buffer.get(..got.bytes).unwrap_or_default().to_vec(),
        sockets,
        cut: got.flags.contains(ReturnFlags::CTRUNC),
    })
}

/// The other side has ended, or has closed its end.
#[derive(Debug, thiserror::Error)]
#[error("the other server is gone")]
pub(super) struct Gone;

/// Whether an error means that the other side has ended.
pub(super) fn is_gone(error: &anyhow::Error) -> bool {
    use rustix::io::Errno;
    let broken = error.downcast_ref::<Errno>();
    error.is::<Gone>() || matches!(broken, Some(&(Errno::CONNRESET | Errno::PIPE)))
}

/// Whether an error means that nothing came in time.
pub(super) fn is_late(error: &anyhow::Error) -> bool {
    error.downcast_ref::<rustix::io::Errno>() == Some(&rustix::io::Errno::AGAIN)
}

/// What a test wants: `version=1` and `version=2` speak as earlier releases; `dies=<where>` kills
/// this process there, `dies=<where>:<n>` when it comes there the nth time; `patient` has questions about all clients
/// wait as long as the handover takes; `tells` tells of the clients that are left at every opportunity.
pub(super) const TEST_ENV: &str = "MAINSTAY_HANDOVER_TEST";

/// Kills this process if a test wants it to die here.
pub(super) fn may_die(here: &str) {
    static TIMES: AtomicUsize = AtomicUsize::new(1);
    let wanted = std::env::var(TEST_ENV).unwrap_or_default();
    let Some(wanted) = wanted.strip_prefix("dies=") else {
        return;
    };
    let (place, nth) = wanted.split_once(':').unwrap_or((wanted, "1"));
    if place == here && nth.parse() == Ok(TIMES.fetch_add(1, Ordering::Relaxed)) {
        tracing::warn!(here, "a test has this process killed");
        let own = rustix::process::getpid();
        let _ = rustix::process::kill_process(own, rustix::process::Signal::KILL);
    }
}
