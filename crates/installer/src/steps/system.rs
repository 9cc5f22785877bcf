//! What an install makes outside of its folders: unit, log rotation, profile, links.

use super::Run;
use super::folders::template;
use crate::answers::Question;
use crate::registry::RecordFacts;
use crate::{accounts, files, host, layout, tuning};
use anyhow::Result;
use std::path::Path;

/// Makes it, where it is missing or wrong.
pub(super) fn make(run: &mut Run<'_>) -> Result<Vec<String>> {
    let mut changed = Vec::new();
    run.record.systemd = host::has_systemd();
    for (name, path) in layout::system_files(&run.config) {
        let is_unit = std::path::Path::new(name)
            .extension()
            .is_some_and(|extension| extension == "service");
        let wanted = if is_unit {
            run.record.systemd
        } else {
            path.parent().is_some_and(Path::is_dir)
        };
        if !wanted {
            continue;
        }
        let text = template(run, name)?;
        run.will_make(&path)?;
        if files::write_if_other(&path, text.as_bytes(), 0o644, (0, 0))? {
            changed.push(path.display().to_string());
            if is_unit {
                run.console.command("systemctl daemon-reload");
                accounts::run("systemctl", &["daemon-reload"])?;
            }
        }
    }
    for (link, target) in layout::command_links(&run.config) {
        run.will_make(&link)?;
        if files::link(&link, &target, (0, 0))? {
            changed.push(link.display().to_string());
        }
    }
    let first = !run.record.is_complete();
    profile(run, first, &mut changed)?;
    if first {
        settings(run)?;
    }
    Ok(changed)
}

/// The profile is asked for at first; later it is what it was, or what the option says.
fn profile(run: &mut Run<'_>, first: bool, changed: &mut Vec<String>) -> Result<()> {
    let path = layout::profile_file(&run.config);
    let question = "Put the programs into everybody's PATH?";
    let wanted = run.update_env_path
        || run.record.made.contains(&path)
        // The default install is found by its links; another one only by this.
        || (first
            && layout::is_default(&run.config)
            && run.answers.get(run.console, Question::UpdateEnvPath, question)?);
    if !wanted {
        return Ok(());
    }
    let text = template(run, "profile.sh")?;
    run.will_make(&path)?;
    if files::write_if_other(&path, text.as_bytes(), 0o644, (0, 0))? {
        changed.push(path.display().to_string());
    }
    Ok(())
}

fn settings(run: &mut Run<'_>) -> Result<()> {
    for path in tuning::system(run.console, run.answers)? {
        run.will_make(&path)?;
    }
    let ports = &run.config.ports;
    let ports = [
        format!("{}/tcp", ports.https),
        format!("{}/tcp", ports.console),
        format!("{}/tcp", ports.internode),
        format!("{}/tcp", ports.discovery),
        format!("{}/udp", ports.dns),
        format!("{}/tcp", ports.dns),
        "10000-19999/tcp".to_owned(),
        "20000-29999/tcp".to_owned(),
    ];
    tuning::services(run.console, run.answers, &ports)
}
