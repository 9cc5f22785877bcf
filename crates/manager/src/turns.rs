//! Upgrades of all nodes. On the primary node: what [`controller::upgrade::run`] says is stored. On every node: what
//! is stored of its own turn is done, by way of root's attendant, and told in its heartbeats.
//!
//! | file | what |
//! |---|---|
//! | `attendant` | asking it |
//! | `bundle` | fetching the bundle from the node that has it, and giving it to others |
//! | `start` | an operator gave a bundle to this node |

mod attendant;
mod bundle;
mod start;

pub use bundle::{PieceWanted, piece};
pub use start::start;

use crate::member::Member;
use crate::{primary, view};
use controller::state::ClusterState;
use controller::upgrade::run as planner;
use controller::upgrade::stop;
use jiff::Timestamp;
use model::documents::keys;
use model::release::{INSTALL_RECORD, InstallRecord};
use model::upgrade::Upgrade;
use model::upgrade::run::{
    AttendantAnswer, AttendantCall, Direction, JobState, NodeTurn, TurnObservation, TurnState,
    UpgradeRun,
};
use model::view::Consistency;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

/// How often the primary node looks what is next.
const LOOK_EVERY: Duration = Duration::from_millis(300);
/// How often a node looks while an upgrade of all nodes is under way.
const ACT_EVERY: Duration = Duration::from_millis(500);
/// How often while there is none.
const IDLE_EVERY: Duration = Duration::from_secs(5);
/// Changes that come together are looked at together.
const GATHER: Duration = Duration::from_millis(50);
/// How long an attendant that is being replaced counts as there.
const REPLACED_WITHIN: Duration = Duration::from_secs(10);
/// Pause before a bundle that could not be had is tried again.
const AGAIN_AFTER: Duration = Duration::from_secs(20);

/// The run that is stored, if one is open.
fn open_run(member: &Member) -> Option<UpgradeRun> {
    let stored = member.store.state().get::<Upgrade>(keys::UPGRADE);
    let (upgrade, _) = stored.ok()??;
    upgrade.run.filter(UpgradeRun::is_open)
}

/// On the primary node: stores what comes next, as long as this task lives.
pub async fn lead(member: Arc<Member>) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        if member.store.status().is_leader
            && open_run(&member).is_some()
            && let Err(error) = one_step(&member).await
        {
            tracing::debug!("an upgrade of all nodes waits: {error:#}");
        }
    }
}

async fn one_step(member: &Member) -> anyhow::Result<()> {
    // What a quorum confirms, not what this node remembers.
    let state = member.store.barrier().await?;
    let view = view::build(member, &state, true).map_err(anyhow::Error::msg)?;
    let now = Timestamp::now();
    let Some(next) = planner::step(&view, now) else {
        return Ok(());
    };
    let Some(cluster) = ClusterState::read(&state)? else {
        return Ok(());
    };
    let reason = next.reason.clone();
    let txn = planner::stored(&cluster, next, now);
    stop::stored(&member.store, &cluster.upgrade.doc, txn).await?;
    tracing::info!(reason, "upgrade of all nodes");
    Ok(())
}

/// On every node: does its own part, as long as this task lives.
pub async fn attend(member: Arc<Member>) {
    let mut revisions = member.store.watch();
    let mut node = Turns {
        member,
        attended: None,
        stage_failed: None,
        stagings: 0,
    };
    loop {
        let open = node.round().await;
        let pause = if open { ACT_EVERY } else { IDLE_EVERY };
        let due = tokio::time::Instant::now() + pause;
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(due) => break,
                changed = revisions.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    tokio::time::sleep(GATHER).await;
                }
            }
            // Whatever else is stored is no reason to ask the attendant.
            if open || open_run(&node.member).is_some() {
                break;
            }
        }
    }
}

struct Turns {
    member: Arc<Member>,
    /// When the attendant answered last.
    attended: Option<Instant>,
    /// When, and why, the bundle could not be had.
    stage_failed: Option<(Instant, String)>,
    stagings: u32,
}

impl Turns {
    fn tell(&self, change: impl FnOnce(&mut TurnObservation)) {
        change(
            &mut self
                .member
                .turn
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        );
    }

    async fn ask(&mut self, call: AttendantCall) -> Result<AttendantAnswer, String> {
        let answer = attendant::ask(&self.member.program.config, call).await;
        if answer.is_ok() {
            self.attended = Some(Instant::now());
        }
        let attended = self
            .attended
            .is_some_and(|at| at.elapsed() < REPLACED_WITHIN);
        let step = install_step(&self.member);
        self.tell(|turn| {
            turn.attended = attended;
            if let Ok(answer) = &answer {
                turn.staged.clone_from(&answer.staged);
                turn.job.clone_from(&answer.job);
            }
            turn.step = step;
        });
        answer
    }

    /// Whether a run is open.
    async fn round(&mut self) -> bool {
        let answer = self.ask(AttendantCall::Status).await;
        let run = open_run(&self.member);
        match (&run, answer) {
            (None, answer) => self.tidy(answer.ok()).await,
            (Some(run), Ok(answer)) => self.act(run, &answer).await,
            (Some(_), Err(error)) => tracing::debug!(error, "the attendant does not answer"),
        }
        run.is_some()
    }

    /// What the last run left is removed.
    async fn tidy(&mut self, answer: Option<AttendantAnswer>) {
        self.stage_failed = None;
        let is_idle = |answer: &AttendantAnswer| {
            let job = answer.job.as_ref();
            job.is_none_or(|job| job.state != JobState::Running)
        };
        // One that was just given here is about to begin.
        if bundle::is_being_given(&self.member) {
            return;
        }
        if answer.is_some_and(|answer| answer.staged.is_some() && is_idle(&answer))
            && let Err(error) = self.ask(AttendantCall::Clear).await
        {
            tracing::debug!(error, "staged bundles stay");
        }
        bundle::tidy(&self.member, None);
        self.tell(|turn| {
            turn.fetched = 0;
            turn.stage_error = None;
        });
    }

    async fn act(&mut self, run: &UpgradeRun, answer: &AttendantAnswer) {
        let Some(turn) = run.turn(self.member.identity.node) else {
            return;
        };
        let busy = answer
            .job
            .as_ref()
            .is_some_and(|job| job.state == JobState::Running);
        if busy {
            return;
        }
        let wanted = match turn.state {
            TurnState::Turn | TurnState::Waiting if run.direction == Direction::Forward => {
                if answer.staged.as_ref() != Some(&run.bundle.digest) {
                    return self.stage(run, answer).await;
                }
                self.staged();
                (turn.state == TurnState::Turn).then(|| AttendantCall::Turn {
                    id: run.job(turn),
                    digest: run.bundle.digest.clone(),
                })
            }
            TurnState::Turn => Some(AttendantCall::Turn {
                id: run.job(turn),
                digest: run.bundle.digest.clone(),
            }),
            TurnState::Back => Some(AttendantCall::Back { id: run.job(turn) }),
            _ => None,
        };
        let begun = answer
            .job
            .as_ref()
            .is_some_and(|job| job.id == run.job(turn));
        let Some(call) = wanted.filter(|_| !begun) else {
            return;
        };
        if !self.is_confirmed(run, turn).await {
            return;
        }
        tracing::info!(turn = run.job(turn), "this node's turn begins");
        let what = format!("ordered-{}", turn.node);
        stop::reached("before", &what).await;
        let asked = self.ask(call).await;
        stop::reached("after", &what).await;
        match asked {
            Ok(AttendantAnswer {
                refused: Some(why), ..
            }) => tracing::warn!(why, "the attendant refuses this node's turn"),
            Ok(_) => {}
            Err(error) => tracing::warn!(error, "the attendant cannot be asked"),
        }
    }

    /// The bundle is there: what went wrong before is over.
    fn staged(&mut self) {
        self.stage_failed = None;
        self.tell(|turn| turn.stage_error = None);
    }

    /// What this node read may be old: a quorum must say the same before anything is begun.
    async fn is_confirmed(&self, run: &UpgradeRun, turn: &NodeTurn) -> bool {
        let Ok(view) = primary::view(&self.member, Consistency::Linearizable).await else {
            return false;
        };
        let now = view.upgrade.run.as_ref().filter(|now| now.id == run.id);
        view.has_quorum
            && now
                .and_then(|now| now.turn(turn.node))
                .is_some_and(|now| now.state == turn.state && now.attempt == turn.attempt)
    }

    async fn stage(&mut self, run: &UpgradeRun, answer: &AttendantAnswer) {
        let mine = format!("stage-{}-{}", run.id, self.stagings);
        if let Some(job) = answer.job.as_ref().filter(|job| job.id == mine)
            && job.state != JobState::Done
            && self.stage_failed.is_none()
        {
            let said = if job.said.is_empty() {
                "it was cut short".to_owned()
            } else {
                job.said.clone()
            };
            return self.not_staged(said);
        }
        if self
            .stage_failed
            .as_ref()
            .is_some_and(|(at, _)| at.elapsed() < AGAIN_AFTER)
        {
            return;
        }
        let member = Arc::clone(&self.member);
        let arrived = bundle::fetch(&member, run, |bytes| {
            self.tell(|turn| turn.fetched = bytes);
        })
        .await;
        if let Err(error) = arrived {
            return self.not_staged(error);
        }
        self.stage_failed = None;
        self.stagings += 1;
        let call = AttendantCall::Stage {
            id: format!("stage-{}-{}", run.id, self.stagings),
            digest: run.bundle.digest.clone(),
        };
        match self.ask(call).await {
            Ok(AttendantAnswer {
                refused: Some(why), ..
            })
            | Err(why) => self.not_staged(why),
            Ok(_) => {}
        }
    }

    fn not_staged(&mut self, error: String) {
        tracing::warn!(error, "the bundle cannot be had");
        self.tell(|turn| turn.stage_error = Some(error.clone()));
        self.stage_failed = Some((Instant::now(), error));
    }
}

/// The step that the install record names.
fn install_step(member: &Member) -> Option<String> {
    let path = member.program.config.config_dir.join(INSTALL_RECORD);
    let record: InstallRecord = serde_json::from_slice(&std::fs::read(path).ok()?).ok()?;
    record.pending.map(|pending| pending.step)
}
