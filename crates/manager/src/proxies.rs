//! What this node's proxies say. There are two of them while one replaces the other: the one that came last
//! speaks for the node.
//!
//! The other one says nothing any more, but serves its last clients, by rules that it was given before. What
//! all of the node's proxies have to keep to is therefore said for the node only when it is gone.

use model::DatabaseUid;
use model::observation::ProxyObservation;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Most processes that are remembered; more than a node ever has at once.
const PROCESSES_MAX: usize = 64;

/// How long a proxy without a connection is expected to come back, or to come at all after a start of this
/// program. Longer than it pauses between two tries.
const BACK_WITHIN: Duration = Duration::from_secs(2);

/// For how long a database that is served elsewhere now must have had no client here until it is served no more.
/// Longer than a proxy that says nothing keeps its connection, and than one that is replaced is in two processes.
const EMPTY_FOR: Duration = Duration::from_secs(10);

/// How long a proxy's first configuration waits for its first word: of clients that it serves beside its policy only it
/// knows. First of one that was here before, or is older than this program by [`OLDER`]: it has something to say, and says
/// it as soon as it runs. Then of one that has come up with this program, as after a start of the node: it may have nothing.
const FIRST_WORD: (Duration, Duration) = (Duration::from_secs(2), Duration::from_millis(200));

/// See [`FIRST_WORD`]; clock ticks.
const OLDER: Start = 300;

#[derive(Debug, Default)]
struct Known {
    /// What each connection says.
    connected: BTreeMap<u64, ProxyObservation>,
    /// Processes that came.
    processes: BTreeMap<u32, Process>,
    /// Databases that had clients here, or were open to them, and when that was so last.
    had_clients: BTreeMap<DatabaseUid, Instant>,
}

#[derive(Clone, Copy, Debug)]
struct Process {
    started: Start,
    /// When its connection ended.
    left: Option<Instant>,
}

impl Process {
    fn runs(self, pid: u32) -> bool {
        started(pid) == Some(self.started)
    }
}

/// When a process was started, clock ticks since the host was: two with the same number differ in it.
type Start = u64;

/// See the module's text.
#[derive(Debug)]
pub struct Proxies {
    known: Mutex<Known>,
    /// Since when this program may be connected to.
    since: Instant,
    latest: watch::Sender<Option<ProxyObservation>>,
}

impl Default for Proxies {
    fn default() -> Self {
        Self {
            known: Mutex::default(),
            since: Instant::now(),
            latest: watch::Sender::new(None),
        }
    }
}

impl Proxies {
    /// A proxy's process has connected. How long its first configuration waits for its first word.
    pub fn came(&self, process: u32) -> Duration {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.processes.retain(|pid, known| known.runs(*pid));
        let before = known.processes.contains_key(&process);
        let (its, own) = (started(process), started(std::process::id()));
        if let Some(started) = its
            && known.processes.len() < PROCESSES_MAX
        {
            let left = None;
            known.processes.insert(process, Process { started, left });
        }
        let older = its.zip(own).is_some_and(|(its, own)| its + OLDER <= own);
        match self.since.elapsed() < BACK_WITHIN {
            _ if before || older => FIRST_WORD.0,
            true => FIRST_WORD.1,
            false => Duration::ZERO,
        }
    }

    /// Its connection has ended.
    pub fn left(&self, process: u32) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = known.processes.get_mut(&process) {
            known.left = Some(Instant::now());
        }
    }

    /// A process that runs and is not among those that are connected, though it may be serving: it has a lease,
    /// or was connected lately; in words. `leased`: processes that may have one.
    ///
    /// One that has had no connection for longer has no lease, and is no more waited for than one that is gone:
    /// what it sends all the same is refused by an engine that has handed its role over.
    #[must_use]
    pub fn missing(&self, connected: &[u32], leased: &[u32]) -> Option<String> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let there = |pid: &u32| connected.contains(pid);
        let has_lease = leased.iter().find(|pid| {
            let runs = match known.processes.get(pid) {
                Some(known) => known.runs(**pid),
                // A predecessor of this program knew it.
                None => started(**pid).is_some(),
            };
            !there(pid) && runs
        });
        if let Some(pid) = has_lease {
            return Some(format!(
                "its process {pid} may have a lease and is not connected to cnm_exec"
            ));
        }
        let lately = known.processes.iter().find(|(pid, process)| {
            let lately = process.left.is_none_or(|left| left.elapsed() < BACK_WITHIN);
            !there(pid) && lately && process.runs(**pid)
        });
        if let Some((pid, _)) = lately {
            return Some(format!("its process {pid} is not connected to cnm_exec"));
        }
        let early = connected.is_empty() && self.since.elapsed() < BACK_WITHIN;
        early.then(|| "none has come yet since cnm_exec was started".to_owned())
    }

    /// Takes in what the proxy of a connection says; `None`: the connection has ended. Connections
    /// are numbered in the order in which they came.
    pub fn heard(&self, connection: u64, seen: Option<ProxyObservation>) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        match seen {
            Some(seen) => {
                let with_clients = seen.databases.iter().filter(|d| d.connections > 0);
                let now = Instant::now();
                for database in with_clients {
                    known.had_clients.insert(database.database, now);
                }
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
            if others.any(|(pid, process)| process.runs(*pid)) {
                latest.leases = false;
            }
        }
        self.latest.send_replace(latest);
    }

    /// A proxy is open to new clients of these until now.
    pub fn was_open(&self, databases: impl IntoIterator<Item = DatabaseUid>) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        known
            .had_clients
            .retain(|_, then| now.duration_since(*then) < EMPTY_FOR);
        known
            .had_clients
            .extend(databases.into_iter().map(|uid| (uid, now)));
    }

    /// Whether a proxy of this node may have clients of a database that is served elsewhere now.
    #[must_use]
    pub fn may_have_clients(&self, database: DatabaseUid) -> bool {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let then = known.had_clients.get(&database);
        then.is_some_and(|then| then.elapsed() < EMPTY_FOR)
    }

    /// What the one that came last says.
    #[must_use]
    pub fn latest(&self) -> watch::Receiver<Option<ProxyObservation>> {
        self.latest.subscribe()
    }
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
    use model::observation::ProxyDatabaseObservation;
    use std::process::Command;

    fn of(pid: u32) -> ProxyObservation {
        ProxyObservation {
            pid,
            leases: true,
            ..ProxyObservation::default()
        }
    }

    #[test]
    fn who_was_here_before_is_asked_first_what_it_has() {
        let proxies = Proxies::default();
        let me = std::process::id();
        assert_eq!(proxies.came(me), FIRST_WORD.1, "all are new");
        assert_eq!(proxies.came(me), FIRST_WORD.0, "it comes again");
        assert_eq!(proxies.came(1), FIRST_WORD.0, "it ran before");
        let running = Proxies {
            since: Instant::now().checked_sub(BACK_WITHIN).unwrap(),
            ..Proxies::default()
        };
        assert_eq!(running.came(me), Duration::ZERO, "it is new alone");
    }

    #[test]
    fn a_database_is_kept_while_it_has_clients() {
        let proxies = Proxies::default();
        let (open, busy, other) = (DatabaseUid(1), DatabaseUid(2), DatabaseUid(3));
        proxies.was_open([open]);
        let mut seen = of(1);
        seen.databases = [(busy, 1), (other, 0)]
            .map(|(database, connections)| ProxyDatabaseObservation {
                database,
                connections,
                ..ProxyDatabaseObservation::default()
            })
            .to_vec();
        proxies.heard(1, Some(seen));
        let kept = [open, busy, other].map(|uid| proxies.may_have_clients(uid));
        assert_eq!(kept, [true, true, false]);
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

    #[test]
    fn one_that_may_be_serving_is_missed_until_it_is_connected_or_gone() {
        let proxies = Proxies::default();
        let me = std::process::id();
        let mut other = Command::new("sleep").arg("600").spawn().unwrap();
        let says = |connected: &[u32], leased: &[u32], what: &str| {
            let missing = proxies.missing(connected, leased).unwrap_or_default();
            assert!(missing.contains(what), "{missing}");
            assert_eq!(missing.is_empty(), what.is_empty(), "{missing}");
        };
        says(&[], &[], "none has come yet");
        says(&[me], &[], "");
        // A predecessor knew it: nobody has come here.
        says(&[me], &[other.id()], "may have a lease");
        proxies.came(me);
        says(&[], &[], "is not connected");
        says(&[me], &[me], "");
        proxies.left(me);
        says(&[], &[], &format!("process {me} is not connected"));
        other.kill().unwrap();
        other.wait().unwrap();
        says(&[me], &[other.id()], "");
    }
}
