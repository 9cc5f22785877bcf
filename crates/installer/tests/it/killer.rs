//! Kills, within some milliseconds, whoever stores something of an upgrade, before and after he does: debug builds
//! tell where they are and stand still there (`controller/src/upgrade/stop.rs`).

use crate::all_nodes::Three;
use installer::processes::{self, Process};
use model::rest::ShardInfo;
use rustix::process::Signal;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use testkit::history::{Micros, Span};
use testkit::load::Clock;

/// Between two looks whether somebody stands still.
const LOOK_AGAIN: Duration = Duration::from_millis(2);
/// After a kill everything is to be whole again within this.
const HEALS: Duration = Duration::from_mins(2);
/// A replica set fails over twice a minute, then an operator is asked: hosts that die more often are no single fault.
const BETWEEN_FAILOVERS: Duration = Duration::from_secs(31);

/// What is killed of the node that stands still.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Victim {
    /// `cnm_exec`, which supervisord starts again.
    Exec,
    /// Everything but the engines: mainstay-node, supervisord, daemons, attendant, installer; started again at once.
    Platform,
    /// All of it, as when the host goes down; started again when clients of the other nodes are served.
    Host,
}

impl Victim {
    /// Whether it is killed at such a place. A host that comes back some seconds later finds before a change what it
    /// found after the one before.
    pub(crate) fn dies(self, place: &str) -> bool {
        self != Self::Host || place.starts_with("after:")
    }
}

/// A kill.
#[derive(Clone, Debug)]
pub(crate) struct Kill {
    /// Where: `before:` or `after:`, and what is stored.
    pub(crate) place: String,
    /// How long until everything was whole again, where that was waited for.
    pub(crate) span: Span,
}

/// The folder in which they tell where they are, one for all nodes.
pub(crate) struct Stops {
    folder: PathBuf,
}

impl Stops {
    pub(crate) fn of(three: &Three) -> Self {
        let folder = three.path("stops");
        fs::create_dir(&folder).unwrap();
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).unwrap();
        for node in 1..=3 {
            symlink(&folder, three.folder(node, "var/mainstay/upgrade-stops")).unwrap();
        }
        Self { folder }
    }

    /// Nobody stands still any more, until [`Self::forget`].
    pub(crate) fn pass(&self) {
        fs::set_permissions(&self.folder, fs::Permissions::from_mode(0o755)).unwrap();
        self.forget();
    }

    /// Everybody stands still anew at each place but these.
    fn again(&self, done: &BTreeSet<String>) {
        self.forget();
        for place in done {
            fs::write(self.folder.join(place), "").unwrap();
        }
        fs::set_permissions(&self.folder, fs::Permissions::from_mode(0o777)).unwrap();
    }

    fn forget(&self) {
        for entry in fs::read_dir(&self.folder).unwrap().flatten() {
            fs::remove_file(entry.path()).unwrap();
        }
    }

    /// Places at which somebody has stood still.
    fn places(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.folder).unwrap().flatten();
        entries
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect()
    }
}

/// What came of it.
#[derive(Debug, Default)]
pub(crate) struct Killed {
    pub(crate) kills: Vec<Kill>,
    /// Places that were passed while a node that had been killed came back: one fault at a time.
    pub(crate) passed: BTreeSet<String>,
}

/// Kills as long as it lives.
pub(crate) struct Killer {
    enough: Arc<AtomicBool>,
    thread: Option<JoinHandle<Killed>>,
}

impl Killer {
    /// At places that are `done` already nobody is killed; `served` counts what clients got.
    pub(crate) fn start(
        three: &Arc<Three>,
        stops: &Stops,
        (victim, clock, in_a_row): (Victim, Clock, bool),
        done: &BTreeSet<String>,
        served: impl Fn() -> u64 + Send + 'static,
    ) -> Self {
        stops.again(done);
        let enough = Arc::new(AtomicBool::new(false));
        let round = Round {
            three: Arc::clone(three),
            stops: Stops {
                folder: stops.folder.clone(),
            },
            victim,
            clock,
            served: Box::new(served),
            failed_over: None,
            in_a_row,
            seen: done.clone(),
            killed: Killed::default(),
        };
        let stop = Arc::clone(&enough);
        Self {
            enough,
            thread: Some(std::thread::spawn(move || round.run(&stop))),
        }
    }

    pub(crate) fn end(mut self) -> Killed {
        self.enough.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Drop for Killer {
    /// A failed test removes its nodes, which must not be killed meanwhile.
    fn drop(&mut self) {
        self.enough.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Round {
    three: Arc<Three>,
    stops: Stops,
    victim: Victim,
    clock: Clock,
    served: Box<dyn Fn() -> u64 + Send>,
    failed_over: Option<Instant>,
    /// Whoever stands at the next place is killed although the cluster is not whole yet: he would be let pass otherwise,
    /// and nobody come there again.
    in_a_row: bool,
    seen: BTreeSet<String>,
    killed: Killed,
}

impl Round {
    fn run(mut self, enough: &AtomicBool) -> Killed {
        while !enough.load(Ordering::Relaxed) {
            for (place, pid) in self.standing() {
                if !self.victim.dies(&place) {
                    let _ = fs::remove_file(self.stops.folder.join(&place));
                    continue;
                }
                // One that was killed meanwhile, or let pass, stands nowhere any more.
                if !self.seen.contains(&place) && self.who(&place) == Some(pid) {
                    self.seen.insert(place.clone());
                    let kill = self.kill(place, pid);
                    self.killed.kills.extend(kill);
                }
            }
            std::thread::sleep(LOOK_AGAIN);
        }
        self.stops.pass();
        self.killed
    }

    /// Who stands still where.
    fn standing(&self) -> Vec<(String, u32)> {
        let places = self.stops.places().into_iter();
        places
            .filter(|place| !self.seen.contains(place))
            .filter_map(|place| Some((place.clone(), self.who(&place)?)))
            .collect()
    }

    /// Who keeps others waiting while a node comes back goes on: it may be he who is to bring it back.
    fn let_pass(&mut self) {
        for (place, _) in self.standing() {
            if !keeps_others_waiting(&place) {
                continue;
            }
            let _ = fs::remove_file(self.stops.folder.join(&place));
            if self.victim.dies(&place) {
                self.killed.passed.insert(place);
            }
        }
    }

    /// Who stands still at a place; `None` before he has written it.
    fn who(&self, place: &str) -> Option<u32> {
        fs::read_to_string(self.stops.folder.join(place))
            .ok()?
            .parse()
            .ok()
    }

    fn kill(&mut self, place: String, pid: u32) -> Option<Kill> {
        let three = Arc::clone(&self.three);
        let node = three.node_of(pid)?;
        if self.victim == Victim::Host {
            // Not too soon after the last failover; who keeps others waiting meanwhile goes on.
            let fails_over = three.has_primary(node);
            let again = self.failed_over.map(|at| at + BETWEEN_FAILOVERS);
            let too_soon = || fails_over && again.is_some_and(|at| Instant::now() < at);
            if too_soon() && keeps_others_waiting(&place) {
                let _ = fs::remove_file(self.stops.folder.join(&place));
                self.seen.remove(&place);
                self.killed.passed.insert(place);
                return None;
            }
            while too_soon() {
                std::thread::sleep(LOOK_AGAIN);
            }
            if fails_over {
                self.failed_over = Some(Instant::now());
            }
        }
        let from = self.clock.now();
        match self.victim {
            Victim::Exec => {
                if let Some(process) = Process::of(pid) {
                    process.signal(Signal::KILL);
                }
            }
            Victim::Platform | Victim::Host => {
                let engines_too = self.victim == Victim::Host;
                three.kill_all(node, engines_too);
                if engines_too {
                    self.others_are_served(&place);
                }
                three.start_again(node);
            }
        }
        let mut to = self.clock.now();
        if self.victim != Victim::Exec && !self.in_a_row {
            self.is_whole(&place);
            to = self.clock.now();
        }
        println!(
            "{:8.3} s  {place}: {:?} of node {node} killed, {} after {:.1} s",
            from as f64 / 1e6,
            self.victim,
            if self.in_a_row { "on" } else { "whole" },
            (to - from) as f64 / 1e6
        );
        let what = format!("{place}, node {node}");
        Some(Kill {
            place,
            span: span(what, node, from, to),
        })
    }

    /// Clients of the other nodes get answers without it.
    fn others_are_served(&mut self, place: &str) {
        let enough = (self.served)() + 100;
        let deadline = Instant::now() + HEALS;
        while (self.served)() < enough {
            assert!(Instant::now() < deadline, "{place}: nobody is served");
            self.let_pass();
            std::thread::sleep(LOOK_AGAIN);
        }
    }

    fn is_whole(&mut self, place: &str) {
        let deadline = Instant::now() + HEALS;
        loop {
            match self.three.whole() {
                Ok(()) => return,
                Err(why) => assert!(Instant::now() < deadline, "{place}: not whole: {why}"),
            }
            self.let_pass();
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Whether the primary node does nothing else while it stands there: what is said by installers and operators, and the
/// level, are the controller's; turns have a task of their own.
fn keeps_others_waiting(place: &str) -> bool {
    let (_, what) = place.split_once(':').unwrap();
    let what = what.strip_prefix("back-").unwrap_or(what);
    let of_turns = [
        "turn-",
        "gate-",
        "done",
        "going_back-",
        "back-",
        "again-",
        "failed-",
    ];
    let more = ["waits", "goes_on", "ordered-", "waiting-"];
    !of_turns
        .iter()
        .chain(&more)
        .any(|start| what.starts_with(start))
}

fn span(what: String, node: u8, from: Micros, to: Micros) -> Span {
    Span {
        what,
        closes: Some(usize::from(node) - 1),
        from,
        to,
    }
}

impl Three {
    /// The node of a process.
    fn node_of(&self, pid: u32) -> Option<u8> {
        let program = Process::of(pid)?.program()?;
        (1..=3).find(|node| program.starts_with(self.folder(*node, "opt")))
    }

    /// Whether a node has the database's primary; what is not known is feared.
    fn has_primary(&self, node: u8) -> bool {
        let shards: Result<Vec<ShardInfo>, String> = self.rest("/v1/shards");
        shards.map_or(true, |shards| {
            shards
                .iter()
                .any(|shard| shard.role == "master" && shard.node_uid.0 == u64::from(node))
        })
    }

    /// Everything of a node dies, the engines if wanted: the ones above first, so that nobody starts anybody again.
    fn kill_all(&self, node: u8, engines_too: bool) {
        let install = self.folder(node, "opt");
        let config = self.folder(node, "etc");
        let is_ours = |process: &Process| {
            let program = process.program().unwrap_or_default();
            let is_engine = program.starts_with(&install)
                && program
                    .components()
                    .any(|part| part.as_os_str() == "engines");
            if is_engine {
                return engines_too;
            }
            program.starts_with(&install)
                || process.arguments().iter().any(|word| {
                    let word = std::path::Path::new(word);
                    word.starts_with(&config) || word.starts_with(&install)
                })
        };
        for _ in 0..3 {
            let mut ours: Vec<Process> = processes::all().into_iter().filter(is_ours).collect();
            let is_above = |process: &Process| {
                let program = process.program().unwrap_or_default();
                !program.ends_with("mainstay-node")
            };
            ours.sort_by_key(is_above);
            for process in &ours {
                process.signal(Signal::KILL);
            }
            let left = processes::wait_for_end(&ours, Duration::from_secs(10));
            assert!(
                left.is_empty(),
                "processes of node {node} do not end: {left:?}"
            );
        }
    }

    /// As the host does when it comes up.
    fn start_again(&self, node: u8) {
        let program = self.folder(node, "opt/mainstay/sbin/mainstay-install");
        let output = Command::new(program)
            .args(["start", "--address", &self.address(node).to_string()])
            .env("MAINSTAY_INSTALL_WATCH", "1")
            .env("MAINSTAY_INSTALL_PATIENCE", "30")
            .stdin(Stdio::null())
            .output();
        let ran = crate::bench::ran(&output.unwrap());
        assert_eq!(ran.code, Some(0), "node {node}: {}", ran.text);
    }
}
