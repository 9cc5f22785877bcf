//! How the launcher knows that its server lives: every second the server says so, on the socket that is its
//! standard input, when all its workers have had a turn since the last time. A server that is stopped, or of
//! which a worker hangs, says nothing; it would keep its clients, its port and its name for ever, so the
//! launcher ends it, and the supervisor starts another.
//!
//! The control thread is not asked: it may wait for a disk, and clients are served meanwhile.

use crate::listeners::Acceptor;
use crate::worker::WorkerHandle;
use std::collections::HashMap;
use std::io::{ErrorKind, Read};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

/// Between two beats, and how long the launcher waits for one at a time.
const BEAT: Duration = Duration::from_secs(1);
/// So many waits in a row without a beat are a server that hangs. Waits are counted, not the time: of a launcher
/// that was itself stopped none has passed. More than the 5 s after which an endpoint is told elsewhere.
const HANGS: u32 = 10;

/// Beats until the end of the process.
pub(crate) fn beat(acceptor: &Acceptor) {
    let mut before = HashMap::new();
    loop {
        let workers = acceptor.all_workers();
        let turns: HashMap<usize, u64> = workers.iter().map(|w| (w.number(), w.turns())).collect();
        if all_turned(&before, &turns) {
            // A launcher that is stopped reads nothing; one that is gone needs nothing.
            let flags = rustix::net::SendFlags::DONTWAIT | rustix::net::SendFlags::NOSIGNAL;
            let _ = rustix::net::send(std::io::stdin().as_fd(), &[1], flags);
            before = turns;
            // One that has nothing to do has no turn either.
            workers.iter().for_each(WorkerHandle::nudge);
        }
        std::thread::sleep(BEAT);
    }
}

/// Whether each worker that was there before, and still is, has had a turn.
fn all_turned(before: &HashMap<usize, u64>, now: &HashMap<usize, u64>) -> bool {
    before
        .iter()
        .all(|(number, turns)| now.get(number).is_none_or(|now| now != turns))
}

/// Waits for the end of a server; `false`: it hangs, and is there.
pub(crate) fn ended(beats: &mut UnixStream) -> std::io::Result<bool> {
    beats.set_read_timeout(Some(BEAT))?;
    let mut silent = None;
    loop {
        match beats.read(&mut [0; 64]) {
            Ok(0) => return Ok(true),
            // One that takes over from another may begin late.
            Ok(_) => silent = Some(0),
            Err(error) => match error.kind() {
                ErrorKind::Interrupted => {}
                ErrorKind::WouldBlock | ErrorKind::TimedOut => {
                    silent = silent.map(|looks| looks + 1);
                }
                _ => return Err(error),
            },
        }
        if silent.is_some_and(|looks| looks >= HANGS) {
            return Ok(false);
        }
    }
}

/// Starts the thread that beats.
pub(crate) fn start(acceptor: &Arc<Acceptor>) -> std::io::Result<()> {
    let acceptor = Arc::clone(acceptor);
    let thread = std::thread::Builder::new().name("beat".to_owned());
    thread.spawn(move || beat(&acceptor)).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_that_come_and_go_are_no_hang() {
        let of = |turns: &[(usize, u64)]| turns.iter().copied().collect();
        assert!(all_turned(&of(&[]), &of(&[(0, 0)])), "it is new");
        assert!(
            all_turned(&of(&[(0, 5), (1, 7)]), &of(&[(0, 6)])),
            "one is gone"
        );
        assert!(
            all_turned(&of(&[(0, 5)]), &of(&[(0, 1)])),
            "another has its number"
        );
        assert!(!all_turned(&of(&[(0, 5), (1, 7)]), &of(&[(0, 6), (1, 7)])));
    }
}
