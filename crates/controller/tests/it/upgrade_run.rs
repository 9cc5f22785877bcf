//! Upgrades of all nodes: pure nodes that do what is stored, in a seeded disorder. Whatever is killed between two
//! things that are stored, no turn is begun twice, never two at once, and it ends; what is missing pauses it.

use crate::upgrade::{NEW, OLD, facts, runs};
use crate::upgrade_plan::{healthy, target, view};
use crate::world::World;
use controller::upgrade::run::{GATE_WITHIN, SETTLES_WITHIN, TURN_WITHIN, step, stored};
use jiff::Timestamp;
use model::intent::Intent;
use model::upgrade::run::{
    BundleFacts, Direction, JobReport, JobState, RunState, RunWish, StartRun, TurnClients,
    TurnState, UpgradeRun,
};
use model::upgrade::{NodePhase, UpgradeTarget};
use model::view::ClusterView;
use model::{ErrorCode, NodeUid};
use std::collections::{BTreeMap, BTreeSet};

const NODES: u64 = 3;

/// xorshift: the same seed, the same run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

/// What the release does on a node.
#[derive(Clone, Copy, PartialEq)]
enum Release {
    Good,
    /// The installer goes back by itself.
    Broken,
    /// It comes up, and the proxy does not serve.
    Unserved,
    /// It serves, each command as slowly, µs.
    Slow(u64),
    /// Its installer is killed each time.
    Cut,
}

/// A node's root, and its installer.
#[derive(Default)]
struct Node {
    staged: bool,
    /// What the install record says.
    pending: bool,
    job: Option<JobReport>,
    back: bool,
    /// Steps that the installer still has to do.
    left: u32,
    /// Silent until this second.
    silent_until: i64,
}

struct Sim {
    world: World,
    nodes: BTreeMap<u64, Node>,
    dice: Dice,
    primary: u64,
    /// Every turn that was begun, by name.
    begun: BTreeSet<String>,
    /// Node after node, as their turns began.
    order: Vec<u64>,
    release: Release,
    kills: bool,
    /// Nodes whose attendant is gone.
    alone: BTreeSet<u64>,
    /// Full syncs that every primary has given.
    syncs: u64,
    /// An operation of the database ended then.
    changed: Option<Timestamp>,
}

fn wanted() -> UpgradeTarget {
    UpgradeTarget {
        build_id: format!("build of {NEW}"),
        ..target(None)
    }
}

fn start(wish: RunWish) -> Intent {
    Intent::StartUpgradeRun(Box::new(StartRun {
        from: OLD.to_owned(),
        target: wanted(),
        bundle: BundleFacts {
            digest: "d".repeat(64),
            size: 1 << 20,
            source: NodeUid(1),
        },
        wish,
    }))
}

impl Sim {
    fn new(seed: u64, wish: RunWish) -> Self {
        let mut world = healthy();
        for uid in 1..=NODES {
            runs(&mut world, uid, OLD, 1);
        }
        for seen in world.nodes.values_mut() {
            seen.upgrade.turn.attended = true;
        }
        world.request(&start(wish)).unwrap();
        let mut nodes = BTreeMap::new();
        for uid in 1..=NODES {
            nodes.insert(uid, Node::default());
        }
        Self {
            world,
            nodes,
            dice: Dice(seed * 2 + 1),
            primary: 1,
            begun: BTreeSet::new(),
            order: Vec::new(),
            release: Release::Good,
            kills: false,
            alone: BTreeSet::new(),
            syncs: 0,
            changed: None,
        }
    }

    fn run(&self) -> UpgradeRun {
        self.world.cluster().upgrade.run.clone().unwrap()
    }

    fn now(&self) -> i64 {
        self.world.now.as_second()
    }

    fn view(&self) -> ClusterView {
        let mut view = view(&self.world);
        view.primary_node = Some(NodeUid(self.primary));
        for operation in &mut view.operations {
            operation.ended = self.changed.or(operation.ended);
        }
        for seen in &mut view.observed {
            let shards = seen.observation.shards.iter_mut();
            for given in shards.filter_map(|shard| shard.replication.as_mut()) {
                given.full_syncs = self.syncs;
            }
            let node = &self.nodes[&seen.observation.node.0];
            if node.silent_until > self.now() {
                seen.age_ms = 30_000;
            }
            let seen = &mut seen.observation;
            if let Some(proxy) = &mut seen.proxy {
                proxy.build_id.clone_from(&seen.build_id);
                if self.release == Release::Unserved && seen.software_version == NEW {
                    proxy.since_start.errors.outcome_unknown = 1_000;
                }
                let second = &mut proxy.latency.shared.last_second;
                (second.count, second.p50_us) = match self.release {
                    Release::Slow(us) if seen.software_version == NEW => (1_000, us),
                    _ => (1_000, 900),
                };
            }
        }
        view
    }

    /// What each node tells; what it tells may be older than what it did.
    fn heartbeats(&mut self) {
        for (uid, node) in &self.nodes {
            if self.kills && self.dice.roll(4) == 0 {
                continue;
            }
            let seen = self.world.nodes.get_mut(&NodeUid(*uid)).unwrap();
            let turn = &mut seen.upgrade.turn;
            turn.attended = !self.alone.contains(uid);
            turn.staged = node.staged.then(|| "d".repeat(64));
            turn.job.clone_from(&node.job);
            turn.step = node.pending.then(|| "switch".to_owned());
        }
    }

    /// A node reads what is stored, and begins what is its own.
    fn node_acts(&mut self, uid: u64) {
        let run = self.run();
        let Some(turn) = run.turn(NodeUid(uid)).cloned() else {
            return;
        };
        let node = self.nodes.get_mut(&uid).unwrap();
        if node.silent_until > self.world.now.as_second() || self.alone.contains(&uid) {
            return;
        }
        if run.is_open() && !node.staged {
            node.staged = true;
            return;
        }
        let job = run.job(&turn);
        let orders = matches!(turn.state, TurnState::Turn | TurnState::Back);
        let knows = node.job.as_ref().is_some_and(|known| known.id == job);
        let busy = node
            .job
            .as_ref()
            .is_some_and(|known| known.state == JobState::Running);
        if !orders || knows || busy {
            return;
        }
        assert!(self.begun.insert(job.clone()), "{job} is begun twice");
        self.order.push(uid);
        node.back = turn.state == TurnState::Back;
        node.left = 6;
        node.job = Some(JobReport {
            id: job,
            state: JobState::Running,
            said: String::new(),
            clients: None,
        });
    }

    /// The installer of a node goes on by a step.
    fn installer_works(&mut self, uid: u64) {
        let (release, primary) = (self.release, self.primary);
        let node = self.nodes.get_mut(&uid).unwrap();
        let works = node
            .job
            .as_ref()
            .is_some_and(|job| job.state == JobState::Running);
        if !works {
            return;
        }
        let killed = self.kills && self.dice.roll(12) == 0;
        if killed || release == Release::Cut {
            node.job.as_mut().unwrap().state = JobState::Cut;
            return;
        }
        node.left -= 1;
        let (version, max) = if node.back { (OLD, 1) } else { (NEW, 2) };
        let say = |world: &mut World, phase| {
            let intent = Intent::NodeRelease {
                node: NodeUid(uid),
                phase,
                release: facts(version, max),
            };
            world.request(&intent).map(|_| ())
        };
        match node.left {
            5 => {
                say(&mut self.world, NodePhase::Begin).unwrap();
                node.pending = true;
            }
            // What an attempt before has replaced is not replaced again.
            3 if self.world.nodes[&NodeUid(uid)].software_version != version => {
                runs(&mut self.world, uid, version, max);
                let now = self.world.now;
                let seen = self.world.nodes.get_mut(&NodeUid(uid)).unwrap();
                seen.started = now;
                if uid == primary {
                    self.primary = uid % NODES + 1;
                }
            }
            1 if release == Release::Broken && !node.back => {
                runs(&mut self.world, uid, OLD, 1);
                say(&mut self.world, NodePhase::Back).unwrap();
                node.pending = false;
                let job = node.job.as_mut().unwrap();
                job.state = JobState::WentBack;
                "dmcproxy came up and ended".clone_into(&mut job.said);
            }
            1 => say(&mut self.world, NodePhase::Done).unwrap(),
            0 => {
                node.pending = false;
                let job = node.job.as_mut().unwrap();
                job.state = JobState::Done;
                job.clients = (!node.back).then_some(TurnClients {
                    kept: 10,
                    of: 10,
                    errors: 0,
                    longest_pause_us: 900,
                });
            }
            _ => {}
        }
    }

    /// The primary node stores what is next; it may be killed before or after.
    fn primary_acts(&mut self) -> bool {
        let at = self.world.now;
        let Some(next) = step(&self.view(), at) else {
            return false;
        };
        if self.kills && self.dice.roll(5) == 0 {
            return false;
        }
        let txn = stored(&self.world.cluster(), next, at);
        self.world.apply(&txn);
        true
    }

    fn faults(&mut self) {
        if !self.kills {
            return;
        }
        if self.dice.roll(15) == 0 {
            self.primary = self.dice.roll(NODES) + 1;
        }
        if self.dice.roll(25) == 0 {
            let uid = self.dice.roll(NODES) + 1;
            let until = self.now() + self.dice.roll(15).cast_signed();
            self.nodes.get_mut(&uid).unwrap().silent_until = until;
        }
    }

    fn second(&mut self) {
        self.world.now = Timestamp::from_second(self.now() + 1).unwrap();
        self.faults();
        let first = self.dice.roll(NODES);
        for at in 0..NODES {
            let uid = (first + at) % NODES + 1;
            self.node_acts(uid);
            self.installer_works(uid);
        }
        self.heartbeats();
        let working = self.nodes.values().filter(|node| {
            node.job
                .as_ref()
                .is_some_and(|job| job.state == JobState::Running)
        });
        assert!(working.count() <= 1, "two nodes at once");
        self.primary_acts();
        let in_flight = |run: &UpgradeRun| {
            run.nodes
                .iter()
                .filter(|turn| turn.state.is_in_flight())
                .count()
        };
        assert!(in_flight(&self.run()) <= 1);
    }

    /// Until it is paused or done; gives its state.
    fn until_it_rests(&mut self) -> RunState {
        for _ in 0..20_000 {
            self.second();
            let run = self.run();
            if run.state != RunState::Running && run.in_flight().is_none() {
                return run.state;
            }
        }
        panic!("it never rests: {:?}", self.run());
    }

    /// Nodes on which install.sh would say that it was cut short.
    fn unfinished(&self) -> usize {
        self.nodes.values().filter(|node| node.pending).count()
    }

    fn versions(&self) -> Vec<&str> {
        let seen = self.world.nodes.values();
        seen.map(|seen| seen.software_version.as_str()).collect()
    }
}

fn code(state: &RunState) -> Option<ErrorCode> {
    match state {
        RunState::Paused { code, .. } => Some(*code),
        _ => None,
    }
}

#[test]
fn the_primary_node_goes_first_then_one_after_the_other_and_all_back() {
    let mut sim = Sim::new(1, RunWish::default());
    assert_eq!(sim.until_it_rests(), RunState::Done);
    assert_eq!(sim.order, [1, 2, 3]);
    assert_eq!(sim.versions(), [NEW; 3]);
    let clients = sim.run().nodes[0].clients.unwrap();
    assert_eq!((clients.kept, clients.of), (10, 10));

    sim.order.clear();
    sim.world.request(&Intent::RollBackUpgradeRun).unwrap();
    assert_eq!(sim.until_it_rests(), RunState::Done);
    assert_eq!(sim.versions(), [OLD; 3]);
    assert_eq!(sim.order.len(), 3);
    assert_eq!(sim.run().direction, Direction::Back);
}

#[test]
fn a_canary_goes_first_and_is_watched_longer() {
    let wish = RunWish {
        canary: Some(NodeUid(3)),
        canary_soak_seconds: Some(300),
        soak_seconds: 40,
        hold_finalize: true,
    };
    let mut sim = Sim::new(2, wish);
    let began = sim.now();
    assert_eq!(sim.until_it_rests(), RunState::Done);
    assert_eq!(sim.order[0], 3);
    assert!(sim.world.cluster().upgrade.hold_finalize);
    let took = sim.now() - began;
    assert!((340..460).contains(&took), "{took}");
}

/// Kills of the primary node, of a node, of an installer, of what was about to be stored: at every place.
#[test]
fn it_ends_whatever_is_killed() {
    for seed in 0..400 {
        let mut sim = Sim::new(seed, RunWish::default());
        sim.kills = true;
        let mut asked = 0;
        loop {
            match sim.until_it_rests() {
                RunState::Done => break,
                // An installer that is killed again and again is the operator's business.
                RunState::Paused { code, .. } => {
                    let expected = [ErrorCode::UpgradeTurnFailed, ErrorCode::UpgradeNodeDown];
                    assert!(expected.contains(&code), "seed {seed}: {code}");
                    sim.world.request(&Intent::ResumeUpgradeRun).unwrap();
                }
                RunState::Running => unreachable!(),
            }
            asked += 1;
            assert!(asked < 20, "seed {seed}");
        }
        assert_eq!(sim.versions(), [NEW; 3], "seed {seed}");
        assert_eq!(sim.unfinished(), 0, "seed {seed}");
    }
}

#[test]
fn a_rollback_in_the_middle_ends_whatever_is_killed() {
    for seed in 0..400 {
        let mut sim = Sim::new(seed, RunWish::default());
        sim.kills = true;
        for _ in 0..sim.dice.roll(60) {
            sim.second();
        }
        sim.world.request(&Intent::RollBackUpgradeRun).unwrap();
        let mut asked = 0;
        while sim.until_it_rests() != RunState::Done {
            sim.world.request(&Intent::ResumeUpgradeRun).unwrap();
            asked += 1;
            assert!(asked < 20, "seed {seed}: {:?}", sim.run());
        }
        assert_eq!(sim.versions(), [OLD; 3], "seed {seed}");
        assert_eq!(sim.unfinished(), 0, "seed {seed}");
    }
}

#[test]
fn a_broken_release_pauses_and_touches_no_other_node() {
    let mut sim = Sim::new(3, RunWish::default());
    sim.release = Release::Broken;
    let state = sim.until_it_rests();
    assert_eq!(code(&state), Some(ErrorCode::UpgradeWentBack));
    let RunState::Paused { evidence, by, .. } = state else {
        unreachable!()
    };
    assert_eq!(
        (by.as_str(), evidence.as_str()),
        ("gate", "node:1: dmcproxy came up and ended")
    );
    for _ in 0..600 {
        sim.second();
    }
    assert_eq!(sim.order, [1]);
    assert_eq!(sim.versions(), [OLD; 3]);

    // A repaired host: the same node again, then the others.
    sim.release = Release::Good;
    sim.primary = 1;
    sim.world.request(&Intent::ResumeUpgradeRun).unwrap();
    assert_eq!(sim.until_it_rests(), RunState::Done);
    assert_eq!(sim.order, [1, 1, 2, 3]);
}

/// However often it was tried before an operator asked for it.
#[test]
fn a_turn_is_tried_three_times_before_an_operator_is_asked() {
    let mut sim = Sim::new(5, RunWish::default());
    assert_eq!(sim.until_it_rests(), RunState::Done);
    sim.release = Release::Cut;
    sim.order.clear();
    sim.world.request(&Intent::RollBackUpgradeRun).unwrap();
    for asked in 1..=2 {
        let state = sim.until_it_rests();
        assert_eq!(code(&state), Some(ErrorCode::UpgradeTurnFailed));
        let first = sim.order[0];
        assert_eq!(sim.order, vec![first; 3 * asked]);
        sim.world.request(&Intent::ResumeUpgradeRun).unwrap();
    }
    sim.release = Release::Good;
    assert_eq!(sim.until_it_rests(), RunState::Done);
    assert_eq!(sim.versions(), [OLD; 3]);
}

#[test]
fn a_missed_gate_pauses() {
    let mut sim = Sim::new(4, RunWish::default());
    sim.release = Release::Unserved;
    let began = sim.now();
    let state = sim.until_it_rests();
    assert_eq!(code(&state), Some(ErrorCode::UpgradeGateMissed));
    assert!(sim.now() - began > GATE_WITHIN);
    assert_eq!(sim.versions(), [NEW, OLD, OLD]);
    sim.world.request(&Intent::RollBackUpgradeRun).unwrap();
    assert_eq!(sim.until_it_rests(), RunState::Done);
    assert_eq!(sim.versions(), [OLD; 3]);
}

/// What is counted since the proxy's start does not go down: an operator who has seen it has it go on.
#[test]
fn a_gate_that_errors_have_missed_is_passed_when_an_operator_has_it_go_on() {
    let mut sim = Sim::new(4, RunWish::default());
    sim.release = Release::Unserved;
    let mut asked = 0;
    loop {
        let state = sim.until_it_rests();
        if state == RunState::Done {
            break;
        }
        assert_eq!(code(&state), Some(ErrorCode::UpgradeGateMissed));
        sim.world.request(&Intent::ResumeUpgradeRun).unwrap();
        asked += 1;
        assert!(asked <= NODES, "{:?}", sim.run());
    }
    // Each node has missed it once.
    assert_eq!(asked, NODES);
    assert_eq!(sim.versions(), [NEW; 3]);
}

/// A turn starts no engine again, so nobody has to sync; what an operator has brought elsewhere meanwhile has to.
#[test]
fn a_full_sync_pauses_unless_an_operation_has_brought_copies() {
    for (moved, pauses) in [(false, true), (true, false)] {
        let mut sim = Sim::new(5, RunWish::default());
        while sim.run().nodes[0].state != TurnState::Turn {
            sim.second();
        }
        sim.syncs = 1;
        sim.changed = moved.then_some(sim.world.now);
        let state = sim.until_it_rests();
        let missed = code(&state) == Some(ErrorCode::UpgradeGateMissed);
        assert_eq!(
            (missed, state == RunState::Done),
            (pauses, !pauses),
            "{state:?}"
        );
    }
}

/// Nothing is skipped: a node that was done and is taken back has its turn again, when an operator says so.
#[test]
fn a_node_that_is_taken_back_by_hand_pauses() {
    let mut sim = Sim::new(11, RunWish::default());
    while sim.run().nodes[0].state != TurnState::Done {
        sim.second();
    }
    for phase in [NodePhase::Begin, NodePhase::Done] {
        let intent = Intent::NodeRelease {
            node: NodeUid(1),
            phase,
            release: facts(OLD, 1),
        };
        sim.world.request(&intent).unwrap();
        runs(&mut sim.world, 1, OLD, 1);
    }
    let state = sim.until_it_rests();
    assert_eq!(code(&state), Some(ErrorCode::UpgradeGateMissed));
    let RunState::Paused { evidence, .. } = state else {
        unreachable!()
    };
    assert!(evidence.contains("install.sh --rollback"), "{evidence}");
    assert_eq!(sim.versions(), [OLD; 3]);
    sim.world.request(&Intent::ResumeUpgradeRun).unwrap();
    assert_eq!(sim.until_it_rests(), RunState::Done);
    assert_eq!(sim.versions(), [NEW; 3]);
}

#[test]
fn a_release_that_is_much_slower_pauses_until_an_operator_says_that_it_may_be() {
    let mut sim = Sim::new(4, RunWish::default());
    sim.release = Release::Slow(19_000);
    assert_eq!(sim.until_it_rests(), RunState::Done);

    let mut sim = Sim::new(4, RunWish::default());
    sim.release = Release::Slow(21_000);
    let state = sim.until_it_rests();
    assert_eq!(code(&state), Some(ErrorCode::UpgradeGateMissed));
    let RunState::Paused { evidence, .. } = state else {
        unreachable!()
    };
    assert_eq!(
        evidence,
        "node:1: half of its proxy's commands take 21000 µs or more, before its turn it was 900 µs"
    );
    assert_eq!(sim.versions(), [NEW, OLD, OLD]);
    // Its turn comes again: what it is now is what it was before.
    sim.world.request(&Intent::ResumeUpgradeRun).unwrap();
    let state = sim.until_it_rests();
    assert_eq!(code(&state), Some(ErrorCode::UpgradeGateMissed));
    assert_eq!(sim.versions(), [NEW, NEW, OLD]);
}

#[test]
fn what_is_missing_pauses_after_a_while() {
    // Nobody of root's on a node.
    let mut sim = Sim::new(5, RunWish::default());
    sim.alone.insert(2);
    let state = sim.until_it_rests();
    assert_eq!(code(&state), Some(ErrorCode::UpgradeNotAttended));
    assert!(sim.order.is_empty());

    // A node that is down before it all begins.
    let mut sim = Sim::new(6, RunWish::default());
    sim.nodes.get_mut(&3).unwrap().silent_until = i64::MAX;
    let began = sim.now();
    let state = sim.until_it_rests();
    assert_eq!(code(&state), Some(ErrorCode::UpgradeNodeDown));
    assert!(sim.now() - began > SETTLES_WITHIN);

    // One that goes down in its turn and does not come back.
    let mut sim = Sim::new(7, RunWish::default());
    while sim.run().in_flight().is_none() {
        sim.second();
    }
    sim.nodes.get_mut(&1).unwrap().silent_until = i64::MAX;
    let began = sim.now();
    let state = sim.until_it_rests();
    assert_eq!(code(&state), Some(ErrorCode::UpgradeTurnTimeout));
    assert!(sim.now() - began >= TURN_WITHIN);

    // Without a quorum nothing is decided.
    let sim = Sim::new(8, RunWish::default());
    let mut view = sim.view();
    view.has_quorum = false;
    assert_eq!(step(&view, sim.world.now), None);
}

#[test]
fn operators_pause_it_and_what_has_begun_is_ended() {
    let mut sim = Sim::new(9, RunWish::default());
    while sim.order.is_empty() {
        sim.second();
    }
    sim.world.request(&Intent::PauseUpgradeRun).unwrap();
    let state = sim.until_it_rests();
    assert_eq!(code(&state), Some(ErrorCode::UpgradeRunPaused));
    assert_eq!(sim.run().nodes[0].state, TurnState::Done);
    for _ in 0..100 {
        sim.second();
    }
    assert_eq!(sim.versions(), [NEW, OLD, OLD]);
    sim.world.request(&Intent::ResumeUpgradeRun).unwrap();
    assert_eq!(sim.until_it_rests(), RunState::Done);
    assert_eq!(sim.order, [1, 2, 3]);

    let refused =
        |sim: &mut Sim, intent: &Intent| sim.world.request(intent).unwrap_err().error_code;
    assert_eq!(
        refused(&mut sim, &Intent::PauseUpgradeRun),
        ErrorCode::UpgradeNoRun
    );
    assert_eq!(
        refused(&mut sim, &Intent::ResumeUpgradeRun),
        ErrorCode::UpgradeNoRun
    );
}

/// A second one is refused by the first, but for what cannot be at any time.
#[test]
fn a_second_one_is_refused() {
    let mut sim = Sim::new(11, RunWish::default());
    let nowhere = RunWish {
        canary: Some(NodeUid(9)),
        ..RunWish::default()
    };
    for (wish, code) in [
        (RunWish::default(), ErrorCode::UpgradeRunOpen),
        (nowhere, ErrorCode::NodeNotFound),
    ] {
        let error = sim.world.request(&start(wish)).unwrap_err();
        assert_eq!(error.error_code, code, "{error}");
    }
}

/// A run that a newer release began by other rules is left alone.
#[test]
fn unknown_rules_are_left_alone() {
    let mut sim = Sim::new(10, RunWish::default());
    sim.second();
    sim.second();
    let mut view = sim.view();
    view.upgrade.run.as_mut().unwrap().rules = 99;
    for later in 0..1_000 {
        let now = Timestamp::from_second(sim.now() + later).unwrap();
        assert_eq!(step(&view, now), None);
    }
}
