//! The place where a successor asks, and the old server's side of handing over its endpoints.

use super::clients::Standing;
use super::give::{Giving, give};
use super::packet::{
    ANSWER_WAIT, SOCKETS_PER_PACKET, bound_waits, check_peer, receive, send, socket,
};
use super::{Commit, Done, Hello, Offer, WITH_CLIENTS, WITH_WINDOW, version};
use anyhow::Context;
use rustix::net::{SocketAddrUnix, SocketFlags};
use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};

/// How often a server looks whether a successor would find it.
const LOOK_AFTER: Duration = Duration::from_secs(1);

/// What the old server's control thread is asked on behalf of a successor.
#[derive(Debug)]
pub(crate) enum Asked {
    /// What a successor gets at once. From now on endpoints stay as they are.
    Offer(oneshot::Sender<Offered>),
    /// The successor serves: accept no more. Unless it takes the clients, too, nothing is asked afterwards.
    Commit {
        clients: bool,
        done: oneshot::Sender<()>,
    },
    /// The successor takes the clients, too.
    Give(oneshot::Sender<Giving>),
    /// It has taken all that it can.
    Given,
    /// It came to nothing. `alone`: the successor is gone, and nobody else would be asked by the next one.
    Abandoned { alone: bool },
}

/// What a successor gets at once.
#[derive(Debug)]
pub(crate) struct Offered {
    pub(crate) listeners: Vec<TcpListener>,
    /// Id of the next client.
    pub(crate) next_client: u64,
    /// How many sockets clients have here.
    pub(crate) sockets: usize,
    pub(crate) standing: Standing,
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
    /// its own. `busy`: this server is still taking over clients itself.
    pub(crate) fn serve(
        mut self,
        build_id: &str,
        busy: &AtomicBool,
        control: &mpsc::Sender<Asked>,
    ) {
        loop {
            let connection = match rustix::net::accept_with(&self.socket, SocketFlags::CLOEXEC) {
                Ok(connection) => connection,
                Err(rustix::io::Errno::INTR | rustix::io::Errno::CONNABORTED) => continue,
                Err(rustix::io::Errno::AGAIN) => {
                    // The server has ended: nobody would ever answer a successor.
                    if control.is_closed() {
                        return;
                    }
                    let lost = !self.is_own();
                    let alone = self.stay_reachable();
                    if lost && alone && control.blocking_send(Asked::Abandoned { alone }).is_err() {
                        return;
                    }
                    continue;
                }
                Err(error) => {
                    tracing::error!(%error, "no successor can be served any more");
                    return;
                }
            };
            match hand_over(connection.as_fd(), (build_id, busy), control) {
                Ok(()) => return,
                Err(error) => {
                    tracing::warn!("a handover was given up: {error:#}");
                    // Before the connection ends: a new server that lives on takes the place after.
                    let alone = self.stay_reachable();
                    if control.blocking_send(Asked::Abandoned { alone }).is_err() {
                        return;
                    }
                }
            }
        }
    }
}

impl Desk {
    /// Opens the place again if it was lost: a successor that took it and ended before it had taken
    /// over leaves a dead socket there, and the next one would find nobody. `false`: another server lives there.
    fn stay_reachable(&mut self) -> bool {
        if self.is_own() {
            return true;
        }
        if answers(&self.path) {
            return false;
        }
        match open_desk(&self.path) {
            Ok(desk) => {
                tracing::info!("the place for successors is open again");
                *self = desk;
            }
            Err(error) => tracing::warn!("no successor can be served: {error:#}"),
        }
        true
    }

    fn is_own(&self) -> bool {
        std::fs::symlink_metadata(&self.path).is_ok_and(|file| file.ino() == self.inode)
    }
}

/// Whether somebody listens there.
pub(super) fn answers(path: &Path) -> bool {
    let reached = socket().and_then(|socket| {
        let address = SocketAddrUnix::new(path).context("naming the handover socket")?;
        rustix::net::connect(&socket, &address).context("reaching the handover socket")
    });
    reached.is_ok()
}

fn ask<T>(
    control: &mpsc::Sender<Asked>,
    question: impl FnOnce(oneshot::Sender<T>) -> Asked,
) -> anyhow::Result<T> {
    let (answer, answered) = oneshot::channel();
    control
        .blocking_send(question(answer))
        .context("the server is ending")?;
    answered.blocking_recv().context("the server is ending")
}

fn hand_over(
    connection: BorrowedFd<'_>,
    (build_id, busy): (&str, &AtomicBool),
    control: &mpsc::Sender<Asked>,
) -> anyhow::Result<()> {
    check_peer(connection)?;
    bound_waits(connection)?;
    let (hello, _) = receive::<Hello>(connection)?;
    let mut offer = Offer {
        record_version: version().min(hello.record_version),
        build_id: build_id.to_owned(),
        refusal: None,
        listeners: 0,
        next_client: 0,
        sockets: 0,
        standing: Standing::default(),
    };
    // Those of its own predecessor come first: they go over with the others.
    let asked = Instant::now();
    while busy.load(Ordering::Acquire) && asked.elapsed() < ANSWER_WAIT / 2 {
        std::thread::sleep(Duration::from_millis(2));
    }
    let offered = ask(control, Asked::Offer)?;
    offer.listeners = offered.listeners.len();
    offer.next_client = offered.next_client;
    offer.sockets = offered.sockets;
    offer.standing = offered.standing;
    send(connection, &offer, &[])?;
    for batch in offered.listeners.chunks(SOCKETS_PER_PACKET) {
        let batch: Vec<BorrowedFd<'_>> = batch.iter().map(AsFd::as_fd).collect();
        send(
            connection,
            &serde_json::json!({ "sockets": batch.len() }),
            &batch,
        )?;
    }
    receive::<Commit>(connection).context("the new server did not take over")?;
    let clients = offer.record_version >= WITH_CLIENTS;
    ask(control, |done| Asked::Commit { clients, done })?;
    tracing::info!(to = hello.build_id, "the endpoints are handed over");
    // The new server serves in any case.
    let _ = send(connection, &Done { done: true }, &[]);
    if !clients {
        return Ok(());
    }
    let giving: Giving = ask(control, Asked::Give)?;
    give(connection, &giving, offer.record_version >= WITH_WINDOW)?;
    control
        .blocking_send(Asked::Given)
        .context("the server is ending")
}
