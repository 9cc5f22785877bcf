//! What this node's proxies say. There are two of them while one replaces the other: the one that came last
//! speaks for the node.
//!
//! The other one says nothing any more, but serves its last clients, by rules that it was given before. What
//! all of the node's proxies have to keep to is therefore said for the node only when it is gone.

use model::observation::ProxyObservation;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use tokio::sync::watch;

/// Most processes that are remembered; more than a node ever has at once.
const PROCESSES_MAX: usize = 64;

#[derive(Debug, Default)]
struct Known {
    /// What each connection says.
    connected: BTreeMap<u64, ProxyObservation>,
    /// Processes that came, and when they were started.
    processes: BTreeMap<u32, Start>,
}

/// When a process was started, clock ticks since the host was: two with the same number differ in it.
type Start = u64;

/// See the module's text.
#[derive(Debug)]
pub struct Proxies {
    known: Mutex<Known>,
    latest: watch::Sender<Option<ProxyObservation>>,
}

impl Default for Proxies {
    fn default() -> Self {
        Self {
            known: Mutex::default(),
            latest: watch::Sender::new(None),
        }
    }
}

impl Proxies {
    /// A proxy's process has connected.
    pub fn came(&self, process: u32) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.processes.retain(|pid, start| runs(*pid, *start));
        if let Some(start) = started(process)
            && known.processes.len() < PROCESSES_MAX
        {
            known.processes.insert(process, start);
        }
    }

    /// Takes in what the proxy of a connection says; `None`: the connection has ended. Connections
    /// are numbered in the order in which they came.
    pub fn heard(&self, connection: u64, seen: Option<ProxyObservation>) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        match seen {
            Some(seen) => {
                known.connected.insert(connection, seen);
            }
            None => {
                known.connected.remove(&connection);
            }
        }
        let mut latest = known.connected.values().next_back().cloned();
        if let Some(latest) = &mut latest {
            let mut others = known
                .processes
                .iter()
                .filter(|(pid, _)| **pid != latest.pid);
            // One that serves its last clients may do so without a lease.
            if others.any(|(pid, start)| runs(*pid, *start)) {
                latest.leases = false;
            }
        }
        self.latest.send_replace(latest);
    }

    /// What the one that came last says.
    #[must_use]
    pub fn latest(&self) -> watch::Receiver<Option<ProxyObservation>> {
        self.latest.subscribe()
    }
}

/// Whether a process still runs.
fn runs(process: u32, start: Start) -> bool {
    started(process) == Some(start)
}

/// When a process was started; `None`: it has ended, whether or not somebody has asked how.
fn started(process: u32) -> Option<Start> {
    let text = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name, in brackets, may hold anything.
    let mut fields = text.get(text.rfind(')')? + 1..)?.split_whitespace();
    let state = fields.next()?;
    let start = fields.nth(18)?.parse().ok()?;
    (!matches!(state, "Z" | "X")).then_some(start)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    fn of(pid: u32) -> ProxyObservation {
        ProxyObservation {
            pid,
            leases: true,
            ..ProxyObservation::default()
        }
    }

    #[test]
    fn one_that_drains_counts_until_it_is_gone() {
        let proxies = Proxies::default();
        let latest = proxies.latest();
        let leases = || latest.borrow().as_ref().map(|seen| seen.leases);
        let mut old = Command::new("sleep").arg("600").spawn().unwrap();
        let new = std::process::id();
        proxies.came(old.id());
        proxies.heard(1, Some(of(old.id())));
        assert_eq!(leases(), Some(true), "it is alone");
        proxies.came(new);
        proxies.heard(2, Some(of(new)));
        assert_eq!(leases(), Some(false));
        // It says nothing any more, and its connection ends before its clients are gone.
        proxies.heard(1, None);
        assert_eq!(leases(), Some(false));
        old.kill().unwrap();
        // A process that has ended and was not asked about counts no more than one that is gone.
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while leases() == Some(false) && std::time::Instant::now() < deadline {
            proxies.heard(2, Some(of(new)));
            std::thread::yield_now();
        }
        assert_eq!(leases(), Some(true));
        old.wait().unwrap();
        proxies.heard(2, None);
        assert_eq!(leases(), None);
    }
}
