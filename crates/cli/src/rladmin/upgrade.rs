//! `cluster upgrade …` and `explain`.

mod bundle;
mod run;
mod show;
mod show_run;

use super::failure::Failure;
use super::operation::{LOOK_EVERY, is_passing};
use super::parse::Invocation;
use super::session::Context;
use model::rest::{UpgradePaths, UpgradeSettings, UpgradeStatus};
use model::upgrade::UpgradePlan;
use model::{ErrorCode, limits};
use serde_json::json;
use tokio::time::{Instant, sleep};

pub use run::{ask, report, rollback, start, watch};
pub use show::status_line;
pub use show_run::line as run_line;

/// `cluster upgrade status`.
///
/// # Errors
/// As REST answers.
pub async fn status(context: &Context) -> Result<(), Failure> {
    let status: UpgradeStatus = context.rest.get("/v1/upgrade").await?;
    if context.screen.json {
        return context.screen.object(&status);
    }
    context
        .screen
        .text(&show::status(&status, context.screen.colours));
    Ok(())
}

/// `cluster upgrade plan`.
///
/// # Errors
/// As REST answers; that something stands against it.
pub async fn plan(context: &Context, invocation: &Invocation) -> Result<(), Failure> {
    let plan: UpgradePlan = match invocation.text("bundle") {
        Some(path) => {
            let target = bundle::target(path)?;
            bundle::verify(path)?;
            context.rest.post("/v1/upgrade/plan", &target).await?
        }
        None => context.rest.get("/v1/upgrade/plan").await?,
    };
    if context.screen.json {
        context.screen.object(&plan)?;
    } else {
        context
            .screen
            .text(&show::plan(&plan, context.screen.colours));
    }
    match plan.blockers().count() {
        0 => Ok(()),
        1 => Err(Failure::Other("one finding stands against it".to_owned())),
        count => Err(Failure::Other(format!("{count} findings stand against it"))),
    }
}

/// `cluster upgrade paths`.
///
/// # Errors
/// As REST answers.
pub async fn paths(context: &Context, invocation: &Invocation) -> Result<(), Failure> {
    let to = invocation.text("to");
    let paths: UpgradePaths = match invocation.text("bundle") {
        Some(path) => {
            let mut target = bundle::target(path)?;
            if let Some(to) = to {
                to.clone_into(&mut target.version);
            }
            context.rest.post("/v1/upgrade/paths", &target).await?
        }
        None => {
            let query = to.map_or_else(String::new, |to| format!("?to={}", encoded(to)));
            context
                .rest
                .get(&format!("/v1/upgrade/paths{query}"))
                .await?
        }
    };
    if context.screen.json {
        return context.screen.object(&paths);
    }
    context
        .screen
        .text(&show::paths(&paths, context.screen.colours));
    Ok(())
}

/// What is no letter, digit or `.-+` of a version goes into a path as its number.
fn encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' => char::from(byte).to_string(),
            other => format!("%{other:02X}"),
        })
        .collect()
}

/// `cluster upgrade finalize`; returns when every node has confirmed the level.
///
/// # Errors
/// As REST answers; that it takes too long.
pub async fn finalize(context: &Context) -> Result<(), Failure> {
    let now: UpgradeStatus = context.rest.get("/v1/upgrade").await?;
    if now.state == "none" {
        // The answer says so.
        let _: UpgradeStatus = context
            .rest
            .post("/v1/upgrade/finalize", &json!({}))
            .await?;
    }
    let question = "Finalise the upgrade? If the feature level rises, no node goes back to the release before after that.";
    if !context.screen.confirm(question)? {
        return Err(Failure::Other("nothing was changed".to_owned()));
    }
    let asked: UpgradeStatus = context
        .rest
        .post("/v1/upgrade/finalize", &json!({}))
        .await?;
    let until = Instant::now() + limits::READY_WAIT;
    let mut now = asked;
    while now.state != "none" {
        if Instant::now() > until {
            return Err(Failure::Other(format!(
                "not done after {} s ({}: {}). It goes on: see `rladmin cluster upgrade status`",
                limits::READY_WAIT.as_secs(),
                now.state,
                now.waiting_on.join("; ")
            )));
        }
        sleep(LOOK_EVERY).await;
        now = match context.rest.get::<UpgradeStatus>("/v1/upgrade").await {
            Ok(status) => status,
            Err(error) if is_passing(&error) => continue,
            Err(error) => return Err(error.into()),
        };
    }
    if context.screen.json {
        return context.screen.object(&now);
    }
    context.screen.line(format!(
        "The upgrade is finalised: the cluster uses feature level {}",
        now.feature_level
    ));
    Ok(())
}

/// `cluster upgrade config`.
///
/// # Errors
/// As REST answers.
pub async fn config(context: &Context, invocation: &Invocation) -> Result<(), Failure> {
    let settings = UpgradeSettings {
        hold_finalize: invocation
            .text("hold_finalize")
            .map(|word| word == "enabled"),
        soak_seconds: invocation.number("soak_seconds"),
    };
    let status: UpgradeStatus = context.rest.put("/v1/upgrade", &settings).await?;
    if context.screen.json {
        return context.screen.object(&status);
    }
    context.screen.line("Finished successfully");
    Ok(())
}

/// `explain`.
///
/// # Errors
/// That there is no such code.
pub fn explain(context: &Context, invocation: &Invocation) -> Result<(), Failure> {
    let wanted = invocation.operand.as_deref().unwrap_or_default();
    let Some(code) = ErrorCode::named(wanted) else {
        let known = ErrorCode::ALL.iter().map(|code| code.as_str());
        let near = super::words::nearest(wanted, known)
            .map_or_else(String::new, |near| format!("; did you mean {near}?"));
        return Err(Failure::Other(format!("there is no code '{wanted}'{near}")));
    };
    if context.screen.json {
        return context.screen.object(&json!({
            "code": code, "status": code.status(), "cause": code.cause(), "remedy": code.remedy(),
        }));
    }
    let screen = &context.screen;
    screen.line(code.as_str());
    screen.line(format!("  what it means: {}", code.cause()));
    screen.line(format!("  what to do:    {}", code.remedy()));
    Ok(())
}
