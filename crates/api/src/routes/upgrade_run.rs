//! `/v1/upgrade/…` of an upgrade of all nodes by one command: the bundle is given in pieces, then it begins.

use crate::App;
use crate::answer::Answer;
use crate::body::{JsonBody, RawBody};
use crate::failure::Failure;
use crate::query::{NoParameters, Parameters};
use crate::shape;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use jiff::Timestamp;
use model::intent::Intent;
use model::rest::{UpgradeBundleReceived, UpgradeRunInfo, UpgradeStart, UpgradeStatus};
use model::upgrade::run::{BUNDLE_MAX, GivenBundle, PIECE_MAX, RunWish, is_digest};
use model::{ApiError, ErrorCode};
use rustix::fs::statvfs;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path as FilePath, PathBuf};
use tokio::sync::Mutex;
use utoipa::IntoParams;

/// Room that is left on the disk, bytes.
const MARGIN: u64 = 128 << 20;
/// One piece at a time is written.
static WRITING: Mutex<()> = Mutex::const_new(());

/// Where a piece belongs.
#[derive(Clone, Copy, Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Piece {
    /// The byte of the tar with which it begins. A piece that begins elsewhere than where the one before ended is
    /// not taken; the answer says where that is. 0: from the beginning.
    pub offset: u64,
    /// Bytes of the whole tar.
    pub size: u64,
}

/// Takes a piece of a bundle's tar, at most 4 MiB; the last one completes it.
#[utoipa::path(put, path = "/v1/upgrade/bundle/{digest}", tag = "upgrade",
    params(("digest" = String, Path, description = "SHA-256 of the whole tar, hex."), Piece),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses(
    (status = 200, body = UpgradeBundleReceived),
    (status = "default", description = "Why not.", body = ApiError),
))]
pub async fn bundle(
    State(app): State<App>,
    Path(digest): Path<String>,
    Parameters(piece): Parameters<Piece>,
    RawBody(bytes): RawBody<PIECE_MAX>,
) -> Result<Answer<UpgradeBundleReceived>, Failure> {
    if !is_digest(&digest) || piece.size == 0 || piece.size > BUNDLE_MAX {
        return Err(Failure::new(
            ErrorCode::InvalidParam,
            "the path names the SHA-256 of the tar (64 hex digits), `size` its bytes",
        ));
    }
    let view = app.view().await?;
    let open = view.upgrade.run.as_ref().filter(|run| run.is_open());
    if let Some(run) = open {
        return Err(Failure::new(
            ErrorCode::UpgradeRunOpen,
            format!(
                "the upgrade to {} has not ended. {}",
                run.target.version,
                ErrorCode::UpgradeRunOpen.remedy()
            ),
        ));
    }
    let folder = app.config.bundles_dir();
    let _one = WRITING.lock().await;
    let taken = tokio::task::spawn_blocking(move || take(&folder, &digest, piece, &bytes)).await;
    let received =
        taken.map_err(|error| Failure::new(ErrorCode::InternalError, error.to_string()))??;
    Ok(Answer::plain(received))
}

fn failed(path: &FilePath, error: &std::io::Error) -> Failure {
    Failure::new(
        ErrorCode::UpgradeStageFailed,
        format!("{}: {error}", path.display()),
    )
}

fn take(
    folder: &FilePath,
    digest: &str,
    piece: Piece,
    bytes: &[u8],
) -> Result<UpgradeBundleReceived, Failure> {
    let whole = folder.join(format!("{digest}.tar"));
    if fs::metadata(&whole).is_ok_and(|meta| meta.len() == piece.size) {
        // Given before; what is new is that it is wanted now.
        let _ = File::open(&whole).and_then(|file| file.set_modified(std::time::SystemTime::now()));
        return Ok(UpgradeBundleReceived {
            received: piece.size,
            complete: true,
        });
    }
    let part = folder.join(format!("{digest}.given"));
    let mut file = open(folder, &part, piece).map_err(|e| failed(&part, &e))?;
    let have = file.metadata().map_err(|e| failed(&part, &e))?.len();
    if have == 0 {
        room(folder, piece.size)?;
    }
    if piece.offset != have || have + bytes.len() as u64 > piece.size {
        return Ok(UpgradeBundleReceived {
            received: have,
            complete: false,
        });
    }
    file.write_all(bytes).map_err(|e| failed(&part, &e))?;
    let received = have + bytes.len() as u64;
    let complete = received == piece.size;
    if complete {
        file.sync_all().map_err(|e| failed(&part, &e))?;
        finish(&part, &whole, digest)?;
    }
    Ok(UpgradeBundleReceived { received, complete })
}

/// A bundle that begins anew takes the place of all others.
fn open(folder: &FilePath, part: &PathBuf, piece: Piece) -> std::io::Result<File> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o750)
        .create(folder)?;
    if piece.offset == 0 {
        for entry in fs::read_dir(folder)?.flatten() {
            fs::remove_file(entry.path())?;
        }
    }
    OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o640)
        .open(part)
}

fn room(folder: &FilePath, size: u64) -> Result<(), Failure> {
    let free = statvfs(folder).map_or(u64::MAX, |at| at.f_bavail.saturating_mul(at.f_frsize));
    // The tar, and what is unpacked from it.
    let need = 2 * size + MARGIN;
    if free >= need {
        return Ok(());
    }
    let text = format!(
        "{} MB are free in {}, {} MB are needed. {}",
        free >> 20,
        folder.display(),
        need >> 20,
        ErrorCode::UpgradeDiskShort.remedy()
    );
    Err(Failure::new(ErrorCode::UpgradeDiskShort, text))
}

fn finish(part: &FilePath, whole: &FilePath, digest: &str) -> Result<(), Failure> {
    let hash = || -> std::io::Result<String> {
        let mut hash = Sha256::new();
        std::io::copy(&mut File::open(part)?, &mut hash)?;
        Ok(hash.finalize().iter().map(|b| format!("{b:02x}")).collect())
    };
    let hash = hash().map_err(|e| failed(part, &e))?;
    if hash != digest {
        let _ = fs::remove_file(part);
        return Err(Failure::new(
            ErrorCode::UpgradeBundleRefused,
            format!("what arrived has the SHA-256 {hash}: send it again from the beginning"),
        ));
    }
    fs::rename(part, whole).map_err(|e| failed(whole, &e))
}

/// Upgrades all nodes, one after the other, by the bundle that was given to this node; the answer comes when it is
/// verified and the upgrade has begun.
#[utoipa::path(post, path = "/v1/upgrade/start", tag = "upgrade", request_body = UpgradeStart, responses(
    (status = 200, body = UpgradeStatus),
    (status = "default", description = "Why not.", body = ApiError),
))]
pub async fn start(
    State(app): State<App>,
    headers: HeaderMap,
    Parameters(NoParameters {}): Parameters<NoParameters>,
    JsonBody(request): JsonBody<UpgradeStart>,
) -> Result<Answer<UpgradeStatus>, Failure> {
    app.view_for_change(&headers).await?;
    if !is_digest(&request.digest) {
        return Err(Failure::new(
            ErrorCode::InvalidParam,
            "`digest` is the SHA-256 of the bundle's tar: 64 hex digits",
        ));
    }
    let given = GivenBundle {
        digest: request.digest,
        wish: RunWish {
            canary: request.canary,
            canary_soak_seconds: request.canary_soak_seconds,
            soak_seconds: request.soak_seconds,
            hold_finalize: request.hold_finalize,
        },
    };
    app.exec.upgrade_start(&given).await?;
    super::upgrade::get(State(app)).await
}

/// No further node's turn begins; the one that is under way is ended.
#[utoipa::path(post, path = "/v1/upgrade/pause", tag = "upgrade", responses(
    (status = 200, body = UpgradeStatus),
    (status = "default", description = "Why not.", body = ApiError),
))]
pub async fn pause(
    State(app): State<App>,
    headers: HeaderMap,
    Parameters(NoParameters {}): Parameters<NoParameters>,
) -> Result<Answer<UpgradeStatus>, Failure> {
    asked(app, &headers, &Intent::PauseUpgradeRun).await
}

/// The upgrade of all nodes goes on; a node whose turn went wrong gets another one.
#[utoipa::path(post, path = "/v1/upgrade/resume", tag = "upgrade", responses(
    (status = 200, body = UpgradeStatus),
    (status = "default", description = "Why not.", body = ApiError),
))]
pub async fn resume(
    State(app): State<App>,
    headers: HeaderMap,
    Parameters(NoParameters {}): Parameters<NoParameters>,
) -> Result<Answer<UpgradeStatus>, Failure> {
    asked(app, &headers, &Intent::ResumeUpgradeRun).await
}

/// Every node that was upgraded goes back to the release before, one after the other.
#[utoipa::path(post, path = "/v1/upgrade/rollback", tag = "upgrade", responses(
    (status = 200, body = UpgradeStatus),
    (status = "default", description = "Why not.", body = ApiError),
))]
pub async fn rollback(
    State(app): State<App>,
    headers: HeaderMap,
    Parameters(NoParameters {}): Parameters<NoParameters>,
) -> Result<Answer<UpgradeStatus>, Failure> {
    asked(app, &headers, &Intent::RollBackUpgradeRun).await
}

async fn asked(
    app: App,
    headers: &HeaderMap,
    intent: &Intent,
) -> Result<Answer<UpgradeStatus>, Failure> {
    app.view_for_change(headers).await?;
    app.exec.intent(intent).await?;
    super::upgrade::get(State(app)).await
}

/// The upgrade of all nodes that is under way, or the last one: each node's time, and what happened to its clients.
#[utoipa::path(get, path = "/v1/upgrade/report", tag = "upgrade", responses(
    (status = 200, body = UpgradeRunInfo),
    (status = "default", description = "Why not.", body = ApiError),
))]
pub async fn report(State(app): State<App>) -> Result<Answer<UpgradeRunInfo>, Failure> {
    let view = app.view().await?;
    let run = shape::upgrade_run::run(&view, Timestamp::now()).ok_or_else(|| {
        Failure::new(
            ErrorCode::UpgradeNoRun,
            format!("there was none. {}", ErrorCode::UpgradeNoRun.remedy()),
        )
    })?;
    Ok(Answer::at(view.revision, run))
}
