//! An upgrade of all nodes, in half of the worlds: what is stored says whose turn it is, the node reads it, its installer
//! works, `cnm_exec` and the proxy are other processes then and engines live on. Installers are killed, a release goes
//! back by itself in some worlds, operators pause it, take it back and have it go on; at the end it has ended, one way
//! or the other.
//!
//! What a release does is the same here, old or new: it differs by its version and by the levels that it can run.

use super::bugs::Bug;
use super::{Sim, all_nodes};
use crate::upgrade::{NEW, OLD, facts, runs};
use crate::upgrade_plan::target;
use controller::state::ClusterState;
use controller::upgrade::data::MIGRATIONS;
use controller::upgrade::level::{self, Known};
use controller::upgrade::run::{step, stored};
use jiff::SignedDuration;
use model::NodeUid;
use model::intent::Intent;
use model::upgrade::run::{
    BundleFacts, Direction, JobReport, JobState, RunState, RunWish, StartRun, TurnObservation,
    TurnState, UpgradeRun,
};
use model::upgrade::{NodePhase, UpgradeTarget};
use model::view::{ClusterView, Observed};
use rand::Rng;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

/// A node's root: its attendant, and its installer.
#[derive(Debug, Default)]
struct Root {
    staged: bool,
    /// What the install record says.
    pending: bool,
    job: Option<JobReport>,
    back: bool,
    /// Steps that the installer still has to do.
    left: u32,
}

impl Root {
    fn works(&self) -> bool {
        let state = self.job.as_ref().map(|job| job.state);
        state == Some(JobState::Running)
    }
}

/// The upgrade, as nodes' disks and operators know it.
#[derive(Debug, Default)]
pub(super) struct Upgrades {
    /// Whether there is one in this world.
    pub(super) wanted: bool,
    started: bool,
    /// The release does not stay by itself.
    broken: bool,
    roots: BTreeMap<NodeUid, Root>,
    begun: BTreeSet<String>,
    /// What must not be.
    twice: Option<String>,
}

impl Upgrades {
    pub(super) fn of(seed: u64) -> Self {
        Self {
            wanted: seed % 2 == 1,
            broken: seed % 16 == 5,
            roots: all_nodes()
                .into_iter()
                .map(|node| (node, Root::default()))
                .collect(),
            ..Self::default()
        }
    }

    /// Why a piece of work was begun that had been begun before.
    pub(super) const fn twice(&self) -> Option<&String> {
        self.twice.as_ref()
    }

    /// Nodes on which an installer is past its beginning.
    pub(super) fn at_work(&self) -> impl Iterator<Item = NodeUid> {
        let at_work = self
            .roots
            .iter()
            .filter(|(_, root)| root.works() && root.pending);
        at_work.map(|(node, _)| *node)
    }

    /// What a node tells of its turn.
    pub(super) fn turn(&self, node: NodeUid) -> TurnObservation {
        let root = &self.roots[&node];
        TurnObservation {
            attended: true,
            staged: root.staged.then(|| "d".repeat(64)),
            job: root.job.clone(),
            step: root.pending.then(|| "switch".to_owned()),
            ..TurnObservation::default()
        }
    }
}

fn wanted() -> UpgradeTarget {
    UpgradeTarget {
        build_id: format!("build of {NEW}"),
        ..target(None)
    }
}

impl Sim {
    /// Before an upgrade all nodes run the old release.
    pub(super) fn install_old(&mut self) {
        for node in all_nodes() {
            self.runs_release(node, OLD, 1);
        }
    }

    fn runs_release(&mut self, node: NodeUid, version: &str, max: u32) {
        runs(&mut self.world, node.0, version, max);
        let seen = self.world.nodes.get_mut(&node).unwrap();
        let build = seen.build_id.clone();
        let proxy = seen.proxy.get_or_insert_default();
        version.clone_into(&mut proxy.software_version);
        proxy.build_id = build;
    }

    pub(super) fn upgrade_run(&self) -> Option<UpgradeRun> {
        self.world.cluster().upgrade.run.clone()
    }

    /// Everybody does his part of it. Whether anything was done.
    pub(super) fn upgrade_turn(&mut self) -> bool {
        if !self.upgrades.wanted {
            return false;
        }
        if !self.upgrades.started && self.leader().is_some() {
            self.start_upgrade();
        }
        let mut done = self.lead_upgrade();
        let first = self.rng.random_range(0..3);
        for at in 0..3 {
            let node = NodeUid((first + at) % 3 + 1);
            self.node_acts(node);
            done |= self.installer_works(node);
        }
        if !self.calm && self.rng.random_ratio(1, 40) {
            self.operate_upgrade();
        }
        done
    }

    fn start_upgrade(&mut self) {
        self.upgrades.started = true;
        let start = StartRun {
            from: OLD.to_owned(),
            target: wanted(),
            bundle: BundleFacts {
                digest: "d".repeat(64),
                size: 1 << 20,
                source: NodeUid(1),
            },
            wish: RunWish::default(),
        };
        self.ask(&Intent::StartUpgradeRun(Box::new(start)));
    }

    /// The primary node stores what comes next, of the upgrade and of the level.
    fn lead_upgrade(&mut self) -> bool {
        let from_memory = self.bug == Some(Bug::TurnsFromMemory);
        let mut leads = all_nodes();
        leads.retain(|uid| self.nodes[uid].leads.is_some() && !self.nodes[uid].is_away());
        let mut done = false;
        for uid in leads {
            let state = if from_memory {
                self.read(uid)
            } else if self.barrier(uid) {
                self.world.cluster()
            } else {
                continue;
            };
            let Some(term) = self.nodes[&uid].leads else {
                continue;
            };
            let now = self.world.now;
            if let Some(next) = step(&self.view(uid, &state), now) {
                let told = format!("node:{uid} stores of the upgrade: {}", next.reason);
                let txn = stored(&state, next, now);
                let stored = if from_memory {
                    self.overwrite(txn)
                } else {
                    self.commit((uid, term), &txn)
                };
                self.note(format!("{told}: {stored}"));
                done = true;
            } else {
                done |= self.level_turn(uid, &state);
            }
        }
        self.newest_leads();
        done
    }

    fn level_turn(&mut self, uid: NodeUid, state: &ClusterState) -> bool {
        let node = &self.nodes[&uid];
        let known = Known {
            state,
            observed: &node.observed,
            instant: self.clock,
            now: self.world.now,
        };
        let Some(((txn, reason), term)) = level::step(&known, MIGRATIONS).zip(node.leads) else {
            return false;
        };
        let stored = self.commit((uid, term), &txn);
        self.note(format!(
            "node:{uid} stores of the level: {reason}: {stored}"
        ));
        true
    }

    /// While nodes run different releases, one with the newest leads (`manager::levels`).
    fn newest_leads(&mut self) {
        let Some(leader) = self.leader() else {
            return;
        };
        let (clock, tip) = (self.clock, self.world.state.revision.0);
        let observed = &self.nodes[&leader].observed;
        let newer = |uid: &NodeUid| {
            let seen = observed.fresh(*uid, clock);
            seen.is_some_and(|seen| seen.software_version == NEW && seen.applied.0 + 64 >= tip)
        };
        let old = self.world.nodes[&leader].software_version == OLD;
        let next = all_nodes().into_iter().find(newer);
        if let (true, Some(next)) = (old, next)
            && self.talks(leader, next)
            && self.rng.random_ratio(1, 8)
        {
            self.note("one with the newer release is to lead");
            self.elect(next);
        }
    }

    /// The cluster as a primary node sees it.
    fn view(&self, uid: NodeUid, state: &Rc<ClusterState>) -> ClusterView {
        let observed = self.nodes[&uid].observed.iter().map(|heard| {
            let age = self.clock.saturating_duration_since(heard.at).as_millis();
            Observed {
                observation: (*heard.observation).clone(),
                age_ms: u64::try_from(age).unwrap(),
                clock_ahead_ms: 0,
            }
        });
        ClusterView {
            revision: state.revision,
            local_node: uid,
            primary_node: Some(uid),
            has_quorum: true,
            voters: all_nodes(),
            cluster: state.cluster.doc.clone(),
            nodes: state.nodes.iter().map(|n| n.doc.clone()).collect(),
            databases: state.databases.iter().map(|d| d.doc.clone()).collect(),
            shards: state.shards.iter().map(|s| s.doc.clone()).collect(),
            users: Vec::new(),
            operations: state.operations.iter().map(|o| o.doc.clone()).collect(),
            upgrade: state.upgrade.doc.clone(),
            observed: observed.collect(),
            primary_for_ms: None,
            removed: false,
        }
    }

    /// A node reads what it has applied, and begins what is its own.
    fn node_acts(&mut self, uid: NodeUid) {
        if self.nodes[&uid].is_away() {
            return;
        }
        let state = self.read(uid);
        let Some(run) = &state.upgrade.run else {
            return;
        };
        let Some(turn) = run.turn(uid) else {
            return;
        };
        let root = self.upgrades.roots.get_mut(&uid).unwrap();
        if run.is_open() && !root.staged {
            root.staged = true;
            return;
        }
        let job = run.job(turn);
        let orders = matches!(turn.state, TurnState::Turn | TurnState::Back);
        let knows = root.job.as_ref().is_some_and(|known| known.id == job);
        if !orders || knows || root.works() {
            return;
        }
        root.back = turn.state == TurnState::Back;
        root.left = 6;
        root.job = Some(JobReport {
            id: job.clone(),
            state: JobState::Running,
            said: String::new(),
            clients: None,
        });
        let way = if root.back { "back" } else { "forward" };
        if !self.upgrades.begun.insert(job.clone()) {
            self.upgrades.twice = Some(format!("{job} is begun twice on node:{uid}"));
        }
        self.note(format!("node:{uid}: its installer begins {job}, {way}"));
    }

    fn ends(&mut self, uid: NodeUid, state: JobState) {
        self.note(format!("node:{uid}: its installer has ended: {state:?}"));
        let root = self.upgrades.roots.get_mut(&uid).unwrap();
        if matches!(state, JobState::Done | JobState::WentBack) {
            root.pending = false;
        }
        root.job.as_mut().unwrap().state = state;
    }

    /// The installer of a node goes on by a step.
    fn installer_works(&mut self, uid: NodeUid) -> bool {
        let root = &self.upgrades.roots[&uid];
        let (back, left) = (root.back, root.left);
        if !root.works() {
            return false;
        }
        if !self.calm && self.rng.random_ratio(1, 40) {
            self.ends(uid, JobState::Cut);
            return true;
        }
        let goes_back = self.upgrades.broken && !self.calm && !back;
        let (version, max) = if back { (OLD, 1) } else { (NEW, 2) };
        match left {
            // What it says goes through this node's program, which may be away.
            6 => match self.says(uid, NodePhase::Begin, (version, max)) {
                Some(true) => self.root(uid).pending = true,
                Some(false) => {
                    self.ends(uid, JobState::Failed);
                    return true;
                }
                None => return false,
            },
            4 if self.world.nodes[&uid].software_version != version => {
                self.replaced(uid, (version, max));
            }
            2 if goes_back && self.nodes[&uid].down.is_none() => self.replaced(uid, (OLD, 1)),
            1 => {
                let (phase, facts) = if goes_back {
                    (NodePhase::Back, (OLD, 1))
                } else {
                    (NodePhase::Done, (version, max))
                };
                if self.says(uid, phase, facts) != Some(true) {
                    return false;
                }
            }
            0 => {
                let end = if goes_back {
                    JobState::WentBack
                } else {
                    JobState::Done
                };
                self.ends(uid, end);
                return true;
            }
            _ => {}
        }
        self.root(uid).left -= 1;
        true
    }

    fn root(&mut self, uid: NodeUid) -> &mut Root {
        self.upgrades.roots.get_mut(&uid).unwrap()
    }

    /// An installer says something to the cluster; `None`: nobody hears it now.
    fn says(
        &mut self,
        uid: NodeUid,
        phase: NodePhase,
        (version, max): (&str, u32),
    ) -> Option<bool> {
        let leader = self.leader().filter(|leader| self.talks(uid, *leader))?;
        let intent = Intent::NodeRelease {
            node: uid,
            phase,
            release: facts(version, max),
        };
        let (clock, observed) = (self.clock, self.nodes[&leader].observed.clone());
        let said = self.world.request_by((&observed, clock), &intent);
        self.barrier(leader);
        let answer = match &said {
            Ok(_) => "noted".to_owned(),
            Err(error) => error.error_code.to_string(),
        };
        self.note(format!("node:{uid} says of {version}: {phase:?}: {answer}"));
        Some(said.is_ok())
    }

    /// `cnm_exec` and the proxy are other processes from here on; who leads gives that away before.
    fn replaced(&mut self, uid: NodeUid, (version, max): (&str, u32)) {
        self.note(format!("node:{uid} runs {version}"));
        if self.leader() == Some(uid) {
            self.leadership_moves();
        }
        self.runs_release(uid, version, max);
        let down = Duration::from_millis(self.rng.random_range(200..1_500));
        self.exec_starts_again(uid, down);
        self.proxies.get_mut(&uid).unwrap().is_replaced();
    }

    /// An operator looks at it.
    pub(super) fn operate_upgrade(&mut self) {
        let Some(run) = self.upgrade_run() else {
            return;
        };
        let paused = matches!(run.state, RunState::Paused { .. });
        let intent = match self.rng.random_range(0..8) {
            0 => Intent::RollBackUpgradeRun,
            1 | 2 if !paused => Intent::PauseUpgradeRun,
            _ if paused => Intent::ResumeUpgradeRun,
            _ => return,
        };
        self.ask(&intent);
    }

    /// Whether it has ended, and everything of it; what stands still is brought on by an operator, or by time.
    pub(super) fn upgrade_ended(&mut self) -> bool {
        let cluster = self.world.cluster();
        let Some(run) = &cluster.upgrade.run else {
            return !self.upgrades.wanted;
        };
        if let RunState::Paused { .. } = run.state {
            for node in cluster.nodes.iter().filter(|n| n.maintenance.is_some()) {
                self.ask(&Intent::MaintenanceOff {
                    node: node.uid,
                    restore: model::intent::Restore::Nothing,
                    pace: model::intent::Pace::default(),
                });
            }
            self.ask(&Intent::ResumeUpgradeRun);
            return false;
        }
        if run.is_open() || cluster.upgrade.current.is_some() {
            self.note("minutes pass");
            self.world.now += SignedDuration::from_mins(11);
            return false;
        }
        true
    }

    /// At the end every node runs what the run says.
    pub(super) fn upgrade_is_whole(&self) -> Result<(), String> {
        let Some(run) = self.upgrade_run() else {
            return Ok(());
        };
        let version = match run.direction {
            Direction::Forward => NEW,
            Direction::Back => OLD,
        };
        for (uid, seen) in &self.world.nodes {
            if seen.software_version != version || self.upgrades.roots[uid].pending {
                let state = &run.state;
                return Err(format!(
                    "node:{uid} does not run {version} for good, and the run is {state:?}"
                ));
            }
        }
        Ok(())
    }
}
