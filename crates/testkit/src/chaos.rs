//! Faults by a seeded schedule, while clients append values and primaries move; then the faults end,
//! and everything must be whole again without help. `cargo xtask chaos` and `tests/chaos` run it.
//!
//! | file | what |
//! |---|---|
//! | `faults` | what can go wrong, and how it is done to real processes |
//! | `schedule` | which fault when: from a seed alone |

mod faults;
mod schedule;

pub use faults::Kind;

use crate::cluster::{Cluster, Surroundings};
use crate::database::order_move;
use crate::history::{Allowed, Append, History, Micros, Span, Verdict};
use crate::load::{Clock, Load, Plan};
use crate::wait;
use anyhow::{Context as _, bail, ensure};
use faults::Whom;
use schedule::{Schedule, Step};
use std::time::Duration;

/// Clients; three lists are shared by all proxies, so that two lineages would meet in one.
const CLIENTS: u16 = 9;
const LISTS: u16 = 3;
/// Between two appends of a client.
const EVERY: Duration = Duration::from_millis(10);
/// A client gives an answer up after this.
const PATIENCE: Duration = Duration::from_secs(60);
/// After a fault everything must be whole again within this.
const HEALS: Duration = Duration::from_secs(60);

/// In which failovers of a replica set are counted, with a little more.
const MINUTE: Micros = 62_000_000;

/// What is to be done.
#[derive(Clone, Debug)]
pub struct Options {
    /// Faults begin for so long.
    pub length: Duration,
    /// And at most so many steps are made: what a short run does then depends on its seed alone.
    pub steps: Option<usize>,
    /// Decides which, when, and on which node.
    pub seed: u64,
    /// Kinds of faults.
    pub kinds: Vec<Kind>,
    /// More words of `create db`: how many shards it has, whether they keep their data on disk.
    pub database: Vec<String>,
    /// Whether each step is told.
    pub loud: bool,
}

/// What came of it.
#[derive(Debug)]
pub struct Story {
    /// Whether the rules held.
    pub verdict: Verdict,
    /// What was done, in order.
    pub steps: Vec<String>,
    /// Moves that were carried out.
    pub moves: usize,
    /// Faults that were made, in order.
    pub faults: Vec<Kind>,
    /// How long the longest one was noticed, from its beginning until everything was whole.
    pub longest: Duration,
    /// The longest that an append waited for its answer.
    pub longest_answer: Duration,
}

/// Runs it.
///
/// # Errors
/// When the cluster cannot be made, or a fault cannot be done. A broken rule is no error: it is in the
/// story.
pub fn run(options: &Options) -> anyhow::Result<Story> {
    ensure!(!options.kinds.is_empty(), "no kind of fault");
    let mut cluster = Cluster::start_with(
        3,
        Surroundings {
            apart: options.kinds.contains(&Kind::Partition),
            small_disks: options.kinds.contains(&Kind::Disk),
            clocks: options.kinds.contains(&Kind::Clock),
        },
    )?;
    let more: Vec<&str> = options.database.iter().map(String::as_str).collect();
    cluster.create_replicated(&more)?;
    cluster.whole(HEALS)?;
    let clock = Clock::start();
    let plan = Plan {
        targets: cluster.endpoints(),
        clients: CLIENTS,
        lists: LISTS,
        every: EVERY,
        patience: PATIENCE,
    };
    let load = Load::start(plan, clock)?;
    let mut run = Run {
        clock,
        loud: options.loud,
        steps: Vec::new(),
        spans: Vec::new(),
        faults: Vec::new(),
        longest: 0,
        moves: 0,
        replaced: Vec::new(),
        not_healed: None,
    };
    let done = run.carry_out(&mut cluster, options);
    if run.not_healed.is_none() && done.is_ok() {
        run.serves_again(&load);
    }
    let appends = load.stop()?;
    done?;
    run.judge(&cluster, appends)
}

struct Run {
    clock: Clock,
    loud: bool,
    steps: Vec<String>,
    /// Those that clients may notice.
    spans: Vec<Span>,
    faults: Vec<Kind>,
    longest: Micros,
    moves: usize,
    /// When a primary was taken away.
    replaced: Vec<Micros>,
    not_healed: Option<String>,
}

impl Run {
    fn tell(&mut self, text: String) {
        let text = format!("{:8.3} s  {text}", self.clock.now() as f64 / 1e6);
        if self.loud {
            println!("{text}");
        }
        self.steps.push(text);
    }

    fn carry_out(&mut self, cluster: &mut Cluster, options: &Options) -> anyhow::Result<()> {
        let end = self.clock.now() + u64::try_from(options.length.as_micros())?;
        let steps = options.steps.unwrap_or(usize::MAX);
        for step in Schedule::new(options.seed, &options.kinds).take(steps) {
            if self.clock.now() > end || self.not_healed.is_some() {
                break;
            }
            std::thread::sleep(step.pause);
            self.step(cluster, &step)?;
        }
        Ok(())
    }

    fn step(&mut self, cluster: &mut Cluster, step: &Step) -> anyhow::Result<()> {
        if step.kind == Kind::Move {
            return self.planned_move(cluster, step);
        }
        let from = self.clock.now();
        let victim = faults::victim(step, self.whom(step), cluster)?;
        if victim.primary && step.kind.replaces() {
            self.replaced.push(from);
        }
        self.tell(format!("{} on node {}", step.kind, victim.node + 1));
        let primary = faults::of_step(step, "master", cluster)?.uid;
        faults::begin(step, &victim, cluster).with_context(|| format!("{}", step.kind))?;
        let mut meanwhile = None;
        if step.kind.lasts() {
            if step.moves_meanwhile {
                let node = &cluster.nodes[(victim.node + 1) % 3];
                let (socket, shard) = (node.config.http_socket(), primary);
                // By a node that is not the victim, and beside the fault: the answer may take its time.
                meanwhile = Some(std::thread::spawn(move || order_move(socket, shard)));
            }
            std::thread::sleep(step.length);
        }
        faults::end(step, &victim, cluster).with_context(|| format!("end of {}", step.kind))?;
        // A move may be refused or given up: that is for the operator to see, not for clients.
        let meanwhile = meanwhile.map(|ordered| {
            let ordered = ordered
                .join()
                .unwrap_or_else(|_| bail!("the order panicked"));
            match ordered.and_then(|action| cluster.moved(&action)) {
                Ok(moved) => format!("held for {} µs", moved.held_us),
                Err(error) => format!("{error:#}"),
            }
        });
        let killed = victim.killed(step.kind);
        let healed = cluster.whole_without(killed, HEALS);
        let took = self.clock.now() - from;
        self.faults.push(step.kind);
        self.longest = self.longest.max(took);
        if step.kind.may_be_noticed() {
            self.spans.push(Span {
                what: step.kind.to_string(),
                closes: step.kind.closes().then_some(victim.node),
                from,
                to: self.clock.now(),
            });
        }
        match healed {
            Ok(()) => self.tell(format!("    whole after {:.1} s", took as f64 / 1e6)),
            Err(error) => {
                self.tell(format!("    {error:#}"));
                self.not_healed = Some(format!(
                    "after {} on node {}: {error:#}",
                    step.kind,
                    victim.node + 1
                ));
            }
        }
        if let Some(ordered) = meanwhile {
            self.tell(format!("    a move meanwhile: {ordered}"));
        }
        Ok(())
    }

    /// A replica set has two failovers a minute; after that an operator is needed. The third fault spares the
    /// primaries, whosever the first two were.
    fn whom(&self, step: &Step) -> Whom {
        let recent = |at: &&Micros| self.clock.now() - **at < MINUTE;
        let enough = self.replaced.iter().filter(recent).count() >= 2;
        match step.kind.replaces() && enough {
            true => Whom::NoPrimary,
            false => Whom::Drawn,
        }
    }

    /// A move that nothing disturbs: it must be carried out, and clients must not notice.
    fn planned_move(&mut self, cluster: &Cluster, step: &Step) -> anyhow::Result<()> {
        cluster.whole(HEALS)?;
        let shard = faults::of_step(step, "master", cluster)?.uid;
        match cluster.move_shard(shard) {
            Ok(moved) => {
                self.moves += 1;
                self.tell(format!(
                    "redis:{shard} moved, held for {} µs",
                    moved.held_us
                ));
            }
            Err(error) => {
                self.tell(format!("redis:{shard} not moved: {error:#}"));
                self.not_healed = Some(format!("a move without a fault: {error:#}"));
            }
        }
        if let Err(error) = cluster.whole(HEALS) {
            self.not_healed = Some(format!("after a move: {error:#}"));
        }
        Ok(())
    }

    /// With no fault left, every client writes again.
    fn serves_again(&mut self, load: &Load) {
        let enough = load.acknowledged() + 10 * u64::from(CLIENTS);
        let served = wait::until("clients write again", HEALS, || {
            let now = load.acknowledged();
            (now >= enough)
                .then_some(())
                .ok_or_else(|| format!("{now} of {enough} appends"))
        });
        if let Err(error) = served {
            self.not_healed = Some(format!("{error:#}"));
        }
    }

    fn judge(self, cluster: &Cluster, appends: Vec<Append>) -> anyhow::Result<Story> {
        let waits = appends.iter().map(|a| a.answered.saturating_sub(a.sent));
        let longest_answer = waits.max().unwrap_or(0);
        let history = History {
            lists: cluster.lists(LISTS)?,
            failovers: cluster.failovers(&self.clock)?,
            appends,
            allowed: allowed(&self.spans),
            faults: self.spans,
            not_healed: self.not_healed,
        };
        Ok(Story {
            verdict: history.check(),
            steps: self.steps,
            moves: self.moves,
            faults: self.faults,
            longest: Duration::from_micros(self.longest),
            longest_answer: Duration::from_micros(longest_answer),
        })
    }
}

/// A replica lags a little; while nodes cannot hear each other, a primary goes on until its lease ends. A node that is
/// gone is missed for some seconds before its primary's place is taken.
fn allowed(spans: &[Span]) -> Allowed {
    const LOCAL: Micros = 1_000_000;
    const UNHEARD: Micros = 10_000_000;
    let unheard = [Kind::Partition, Kind::Node, Kind::NodeStop].map(|kind| kind.to_string());
    let unheard = spans.iter().any(|span| unheard.contains(&span.what));
    Allowed {
        before: if unheard { UNHEARD } else { LOCAL },
        after: LOCAL,
    }
}
