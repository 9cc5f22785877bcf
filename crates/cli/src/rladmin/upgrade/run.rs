//! `cluster upgrade start|watch|pause|resume|rollback|report`: all nodes by one command.

use super::{bundle, show_run};
use crate::rladmin::failure::Failure;
use crate::rladmin::operation::is_passing;
use crate::rladmin::parse::Invocation;
use crate::rladmin::session::Context;
use model::rest::{UpgradeBundleReceived, UpgradeRunInfo, UpgradeStart, UpgradeStatus};
use model::upgrade::run::PIECE_MAX;
use model::{ApiError, ErrorCode};
use serde_json::json;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{IsTerminal, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How often is looked.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How long nothing need be heard of the node's own REST: it is replaced, too.
const SILENT_MAX: Duration = Duration::from_mins(3);

/// `cluster upgrade start`.
///
/// # Errors
/// As REST answers; that the tar cannot be read.
pub async fn start(context: &Context, invocation: &Invocation) -> Result<(), Failure> {
    let path = Path::new(invocation.text("bundle").unwrap_or_default());
    let wrong = |why: String| Failure::Other(format!("{}: {why}", path.display()));
    if path.is_dir() {
        return Err(wrong(
            "this is a folder: give the tar, as it was downloaded".to_owned(),
        ));
    }
    let file = File::open(path).map_err(|e| wrong(e.to_string()))?;
    // Says at once that it is no bundle, before it travels.
    let target = bundle::target(&path.display().to_string())?;
    let size = file.metadata().map_err(|e| wrong(e.to_string()))?.len();
    let screen = &context.screen;
    screen.progress(format!(
        "Mainstay {} (build {}), {} MB",
        target.version,
        target.build_id,
        size >> 20
    ));
    let mut hash = Sha256::new();
    std::io::copy(&mut &file, &mut hash).map_err(|e| wrong(e.to_string()))?;
    let digest: String = hash.finalize().iter().map(|b| format!("{b:02x}")).collect();
    give(context, &file, size, &digest).await?;
    screen.progress("Given to this node, where root verifies it");
    let request = UpgradeStart {
        digest,
        canary: invocation.node("canary"),
        canary_soak_seconds: invocation.number("canary_soak_seconds"),
        soak_seconds: invocation.number("soak_seconds").unwrap_or(0),
        hold_finalize: invocation.has("hold_finalize"),
    };
    let status: UpgradeStatus = context.rest.post("/v1/upgrade/start", &request).await?;
    if screen.json {
        return screen.object(&status);
    }
    screen.line(format!(
        "The upgrade of all nodes to {} has begun: rladmin cluster upgrade watch",
        target.version
    ));
    Ok(())
}

/// Gives the tar to this node, in pieces; one that was broken off goes on.
async fn give(context: &Context, file: &File, size: u64, digest: &str) -> Result<(), Failure> {
    let mut offset = 0;
    let mut again = 0;
    loop {
        let length = usize::try_from((size - offset).min(PIECE_MAX as u64)).unwrap_or(PIECE_MAX);
        let mut piece = vec![0; length];
        file.read_exact_at(&mut piece, offset)
            .map_err(|e| Failure::Other(format!("the tar cannot be read: {e}")))?;
        let path = format!("/v1/upgrade/bundle/{digest}?offset={offset}&size={size}");
        let answer: Result<UpgradeBundleReceived, ApiError> =
            context.rest.put_bytes(&path, piece).await;
        match answer {
            Ok(answer) if answer.complete => return Ok(()),
            Ok(answer) if answer.received != offset && answer.received < size => {
                offset = answer.received;
                again = 0;
            }
            Ok(_) if again < 3 => again += 1,
            Err(error) if is_passing(&error) && again < 20 => {
                again += 1;
                sleep(LOOK_EVERY).await;
            }
            Ok(_) => {
                return Err(Failure::Other(
                    "the node does not take the bundle: somebody else gives it one".to_owned(),
                ));
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// `cluster upgrade pause`, `resume`.
///
/// # Errors
/// As REST answers.
pub async fn ask(context: &Context, what: &str, done: &str) -> Result<(), Failure> {
    let path = format!("/v1/upgrade/{what}");
    let status: UpgradeStatus = context.rest.post(&path, &json!({})).await?;
    if context.screen.json {
        return context.screen.object(&status);
    }
    context.screen.line(done);
    Ok(())
}

/// `cluster upgrade rollback`.
///
/// # Errors
/// As REST answers.
pub async fn rollback(context: &Context) -> Result<(), Failure> {
    let question = "Take every node that was upgraded back to the release before?";
    if !context.screen.confirm(question)? {
        return Err(Failure::Other("nothing was changed".to_owned()));
    }
    let done = "The nodes go back, one after the other: rladmin cluster upgrade watch";
    ask(context, "rollback", done).await
}

/// `cluster upgrade report`.
///
/// # Errors
/// As REST answers.
pub async fn report(context: &Context) -> Result<(), Failure> {
    let run: UpgradeRunInfo = context.rest.get("/v1/upgrade/report").await?;
    if context.screen.json {
        return context.screen.object(&run);
    }
    context
        .screen
        .text(&show_run::report(&run, context.screen.colours));
    Ok(())
}

/// `cluster upgrade watch`: until it has ended, or waits for an operator.
///
/// # Errors
/// As REST answers; that it waits for an operator.
pub async fn watch(context: &Context) -> Result<(), Failure> {
    let screen = &context.screen;
    let live = !screen.json && std::io::stdout().is_terminal();
    let mut heard = Instant::now();
    let mut shown: Vec<String> = Vec::new();
    let mut drawn = 0;
    loop {
        let run = match context
            .rest
            .get::<UpgradeRunInfo>("/v1/upgrade/report")
            .await
        {
            Ok(run) => run,
            // The node of this very command is replaced on the way.
            Err(error) if is_passing(&error) && heard.elapsed() < SILENT_MAX => {
                sleep(LOOK_EVERY).await;
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        heard = Instant::now();
        if live {
            drawn = redraw(&show_run::live(&run, screen.colours), drawn);
        } else {
            let lines = show_run::lines(&run);
            for line in lines.iter().filter(|line| !shown.contains(line)) {
                screen.progress(line);
            }
            shown = lines;
        }
        match (run.state.as_str(), &run.paused) {
            ("done", _) if screen.json => return screen.object(&run),
            ("done", _) => {
                screen.text(&show_run::report(&run, screen.colours));
                return Ok(());
            }
            (_, Some(pause)) => {
                if screen.json {
                    screen.object(&run)?;
                }
                let code = pause.code.unwrap_or(ErrorCode::NewerRelease);
                return Err(Failure::Other(format!(
                    "paused ({code}): {}. {}",
                    pause.evidence, pause.remedy
                )));
            }
            _ => sleep(LOOK_EVERY).await,
        }
    }
}

/// Draws over what was drawn before; gives the number of lines.
fn redraw(text: &str, before: usize) -> usize {
    let mut out = std::io::stdout().lock();
    if before > 0 {
        let _ = write!(out, "\x1b[{before}A\x1b[J");
    }
    let _ = out.write_all(text.as_bytes());
    let _ = out.flush();
    text.lines().count()
}
