//! A bundle travels in pieces from the node that it was given to. What has arrived stays over a restart.

use crate::member::Member;
use crate::transport::internode_address;
use model::upgrade::run::{PIECE_MAX, UpgradeRun, is_digest};
use model::{ApiError, ErrorCode};
use rustix::fs::statvfs;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::Semaphore;

/// Pieces that a node gives at the same time.
static GIVEN_AT_ONCE: Semaphore = Semaphore::const_new(4);
/// How long a piece may take.
const PIECE_WITHIN: Duration = Duration::from_secs(60);
/// Room that is left on a disk, bytes.
const MARGIN: u64 = 128 << 20;
/// How long a bundle that was given here is kept for its start.
const STARTS_WITHIN: Duration = Duration::from_hours(1);

/// A piece that another node wants.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PieceWanted {
    /// Of which bundle: SHA-256, hex.
    pub digest: String,
    /// From which byte on.
    pub offset: u64,
}

/// Where a bundle lies that has arrived.
pub(super) fn path(member: &Member, digest: &str) -> PathBuf {
    let folder = member.program.config.bundles_dir();
    folder.join(format!("{digest}.tar"))
}

/// A piece of a bundle that lies here; empty behind its end.
///
/// # Errors
/// `not_found`, `internal_error`.
pub async fn piece(member: &Member, wanted: PieceWanted) -> Result<Vec<u8>, ApiError> {
    let _place = GIVEN_AT_ONCE.acquire().await;
    if !is_digest(&wanted.digest) {
        return Err(ErrorCode::InvalidParam.into());
    }
    let path = path(member, &wanted.digest);
    let read = tokio::task::spawn_blocking(move || {
        let file = File::open(path)?;
        let mut piece = vec![0; PIECE_MAX];
        let mut filled = 0;
        while filled < piece.len() {
            let n = file.read_at(&mut piece[filled..], wanted.offset + filled as u64)?;
            if n == 0 {
                break;
            }
            filled += n;
        }
        piece.truncate(filled);
        Ok::<_, std::io::Error>(piece)
    });
    match read.await {
        Ok(Ok(piece)) => Ok(piece),
        Ok(Err(error)) => Err(ApiError::new(
            ErrorCode::UpgradeStageFailed,
            format!("the bundle is not here: {error}"),
        )),
        Err(error) => Err(ApiError::new(ErrorCode::InternalError, error.to_string())),
    }
}

/// Whether a bundle was given here a while ago, so that a run may be about to begin.
pub(super) fn is_being_given(member: &Member) -> bool {
    files(&member.program.config.bundles_dir())
        .iter()
        .any(|path| {
            let written = fs::metadata(path).and_then(|meta| meta.modified()).ok();
            written
                .and_then(|at| at.elapsed().ok())
                .is_some_and(|age| age < STARTS_WITHIN)
        })
        && !member_has_ended_run(member)
}

/// The last run has ended: nothing is about to begin, unless what was given is of another one.
fn member_has_ended_run(member: &Member) -> bool {
    let stored = member
        .store
        .state()
        .get::<model::upgrade::Upgrade>(model::documents::keys::UPGRADE);
    let Ok(Some((upgrade, _))) = stored else {
        return false;
    };
    let Some(run) = upgrade.run else {
        return false;
    };
    let ended = run.ended.unwrap_or(run.changed);
    let folder = member.program.config.bundles_dir();
    !run.is_open()
        && files(&folder).iter().all(|path| {
            let written = fs::metadata(path).and_then(|meta| meta.modified()).ok();
            written
                .and_then(|at| jiff::Timestamp::try_from(at).ok())
                .is_some_and(|at| at < ended)
        })
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    entries.flatten().map(|entry| entry.path()).collect()
}

/// Bundles that nobody needs go; `keep` is the digest of one that stays.
pub(super) fn tidy(member: &Member, keep: Option<&str>) {
    for path in files(&member.program.config.bundles_dir()) {
        let kept = keep.is_some_and(|digest| {
            path.file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with(digest))
        });
        if !kept && let Err(error) = fs::remove_file(&path) {
            tracing::warn!(%error, path = %path.display(), "a bundle stays");
        }
    }
}

/// Gets the bundle of a run here, whole and as it was announced.
///
/// # Errors
/// In words, why not; what has arrived stays.
pub(super) async fn fetch(
    member: &Member,
    run: &UpgradeRun,
    progress: impl Fn(u64),
) -> Result<(), String> {
    let bundle = &run.bundle;
    let whole = path(member, &bundle.digest);
    if fs::metadata(&whole).is_ok_and(|meta| meta.len() == bundle.size) {
        progress(bundle.size);
        return Ok(());
    }
    if bundle.source == member.identity.node {
        return Err(
            "the bundle that was given here is gone: roll back, and start again".to_owned(),
        );
    }
    let address = internode_address(&member.store, bundle.source)
        .ok_or_else(|| format!("node:{}, which has the bundle, is gone", bundle.source))?;
    tidy(member, Some(&bundle.digest));
    let part = whole.with_extension("part");
    let mut file = open(&part).map_err(|e| format!("{}: {e}", part.display()))?;
    let mut have = file.metadata().map_err(|e| e.to_string())?.len();
    room(&part, bundle.size.saturating_sub(have), run)?;
    while have < bundle.size {
        progress(have);
        let wanted = PieceWanted {
            digest: bundle.digest.clone(),
            offset: have,
        };
        let body = serde_json::to_vec(&wanted).map_err(|e| e.to_string())?;
        let piece = member
            .internode
            .raw(&address, "/bundle", body.into(), PIECE_WITHIN)
            .await
            .map_err(|e| format!("node:{}, which has the bundle: {e}", bundle.source))?;
        if piece.is_empty() || have + piece.len() as u64 > bundle.size {
            let _ = fs::remove_file(&part);
            return Err(format!(
                "node:{} does not have the bundle that was announced",
                bundle.source
            ));
        }
        file.write_all(&piece)
            .map_err(|e| format!("{}: {e}", part.display()))?;
        have += piece.len() as u64;
    }
    progress(have);
    finish(&part, &whole, &bundle.digest).await
}

/// Hashes what has arrived and gives it its name.
async fn finish(part: &Path, whole: &Path, digest: &str) -> Result<(), String> {
    let (part, whole, digest) = (part.to_path_buf(), whole.to_path_buf(), digest.to_owned());
    let work = move || -> Result<(), String> {
        let hash = || -> std::io::Result<String> {
            let mut file = File::open(&part)?;
            file.sync_all()?;
            let mut hash = Sha256::new();
            std::io::copy(&mut file, &mut hash)?;
            Ok(hex::encode(hash.finalize()))
        };
        let hash = hash().map_err(|e| e.to_string())?;
        if hash != digest {
            let _ = fs::remove_file(&part);
            return Err(format!(
                "the bundle is not what was announced: its SHA-256 is {hash}"
            ));
        }
        fs::rename(&part, &whole).map_err(|e| e.to_string())
    };
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|e| e.to_string())?
}

fn open(path: &Path) -> std::io::Result<File> {
    if let Some(folder) = path.parent() {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o750)
            .create(folder)?;
    }
    OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o640)
        .open(path)
}

/// For the tar, what it unpacks to in root's folder, and the release; they may lie on one disk.
fn room(path: &Path, rest: u64, run: &UpgradeRun) -> Result<(), String> {
    let folder = path.parent().unwrap_or(path);
    let free = statvfs(folder).map_or(u64::MAX, |at| at.f_bavail.saturating_mul(at.f_frsize));
    let need = rest + 2 * run.target.unpacked_bytes + MARGIN;
    if free < need {
        return Err(format!(
            "{} MB are free in {}, {} MB are needed",
            free >> 20,
            folder.display(),
            need >> 20
        ));
    }
    Ok(())
}
