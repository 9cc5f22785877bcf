//! An operator gave a bundle to this node: it is staged here, which is where root verifies it, then planned; only then
//! the cluster hears of it.

use super::{attendant, bundle};
use crate::member::Member;
use crate::primary;
use jiff::Timestamp;
use model::intent::{Intent, IntentOutcome};
use model::upgrade::UpgradeTarget;
use model::upgrade::run::{AttendantCall, BundleFacts, GivenBundle, JobState, StartRun};
use model::view::{ClusterView, Consistency};
use model::{ApiError, ErrorCode};
use std::time::{Duration, Instant};

/// How long unpacking and verifying may take.
const STAGED_WITHIN: Duration = Duration::from_secs(100);
/// Pause between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

fn refused(code: ErrorCode, text: impl std::fmt::Display) -> ApiError {
    ApiError::new(code, format!("{text}. {}", code.remedy()))
}

/// Begins an upgrade of all nodes.
///
/// # Errors
/// `upgrade_bundle_refused`, `upgrade_not_attended`, what stands against it.
pub async fn start(member: &Member, given: GivenBundle) -> Result<IntentOutcome, ApiError> {
    let path = bundle::path(member, &given.digest);
    let size = std::fs::metadata(&path)
        .map(|meta| meta.len())
        .map_err(|_| {
            refused(
                ErrorCode::UpgradeBundleRefused,
                format!("the bundle {} was not given to this node", given.digest),
            )
        })?;
    let view = primary::view(member, Consistency::Linearizable).await?;
    if let Some(run) = view.upgrade.run.as_ref().filter(|run| run.is_open()) {
        return Err(refused(
            ErrorCode::UpgradeRunOpen,
            format!("the upgrade to {} has not ended", run.target.version),
        ));
    }
    let target = staged(member, &given.digest).await?;
    may(&view, &target)?;
    let start = StartRun {
        from: member.program.version.clone(),
        target,
        bundle: BundleFacts {
            digest: given.digest,
            size,
            source: member.identity.node,
        },
        wish: given.wish,
    };
    primary::intent(member, &Intent::StartUpgradeRun(Box::new(start))).await
}

/// Has the attendant unpack and verify the bundle; gives its release.
async fn staged(member: &Member, digest: &str) -> Result<UpgradeTarget, ApiError> {
    let config = &member.program.config;
    let id = format!("given-{}", Timestamp::now().as_millisecond());
    let call = AttendantCall::Stage {
        id: id.clone(),
        digest: digest.to_owned(),
    };
    let not_there = |error: String| {
        refused(
            ErrorCode::UpgradeNotAttended,
            format!("the attendant of this node does not answer ({error})"),
        )
    };
    let mut answer = attendant::ask(config, call).await.map_err(not_there)?;
    let deadline = Instant::now() + STAGED_WITHIN;
    loop {
        if let Some(why) = answer.refused.take() {
            return Err(refused(ErrorCode::UpgradeStageFailed, why));
        }
        let job = answer.job.take().filter(|job| job.id == id);
        match job.as_ref().map(|job| job.state) {
            Some(JobState::Done) if answer.staged.as_deref() == Some(digest) => {
                return answer
                    .target
                    .ok_or_else(|| ErrorCode::UpgradeBundleRefused.into());
            }
            Some(JobState::Running) if Instant::now() < deadline => {}
            Some(JobState::Running) => {
                return Err(refused(
                    ErrorCode::UpgradeStageFailed,
                    "it takes too long to unpack and verify the bundle: start again in a moment",
                ));
            }
            _ => {
                let said = job.map(|job| job.said).unwrap_or_default();
                return Err(refused(ErrorCode::UpgradeBundleRefused, said));
            }
        }
        tokio::time::sleep(LOOK_AGAIN).await;
        answer = attendant::ask(config, AttendantCall::Status)
            .await
            .map_err(not_there)?;
    }
}

/// Everything that stands against it, in one answer.
fn may(view: &ClusterView, target: &UpgradeTarget) -> Result<(), ApiError> {
    let versions = |node: &model::documents::Node| {
        let seen = view.observed(node.uid);
        seen.map(|seen| seen.observation.software_version.as_str()) == Some(&target.version)
    };
    if view.nodes.iter().all(versions) {
        return Err(ApiError::new(
            ErrorCode::InvalidParam,
            format!("every node runs {} already", target.version),
        ));
    }
    let plan = controller::upgrade::plan::plan(view, target, Timestamp::now());
    let blockers: Vec<_> = plan.blockers().collect();
    if let Some(first) = blockers.first() {
        let all: Vec<&str> = blockers.iter().map(|at| at.evidence.as_str()).collect();
        return Err(refused(first.code, all.join("; ")));
    }
    let alone: Vec<String> = view
        .nodes
        .iter()
        .filter(|node| {
            let seen = view.observed(node.uid);
            seen.is_none_or(|seen| !seen.observation.upgrade.turn.attended)
        })
        .map(|node| format!("node:{}", node.uid))
        .collect();
    if !alone.is_empty() {
        return Err(refused(
            ErrorCode::UpgradeNotAttended,
            format!("not attended: {}", alone.join(", ")),
        ));
    }
    Ok(())
}
