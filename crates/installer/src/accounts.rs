//! Users and groups, by way of the machine's own name service, so that accounts of a directory are
//! found too.

use anyhow::{Context, Result, bail};
use std::process::Command;

/// A user.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct User {
    /// Its number.
    pub uid: u32,
    /// Number of its primary group.
    pub gid: u32,
}

/// The user of a name.
#[must_use]
pub fn user(name: &str) -> Option<User> {
    let fields = getent("passwd", name)?;
    Some(User {
        uid: fields.get(2)?.parse().ok()?,
        gid: fields.get(3)?.parse().ok()?,
    })
}

/// Number of the group of a name.
#[must_use]
pub fn group(name: &str) -> Option<u32> {
    getent("group", name)?.get(2)?.parse().ok()
}

/// Numbers of the groups that a user is in.
#[must_use]
pub fn groups_of(user: &str) -> Vec<u32> {
    let Ok(output) = Command::new("id").args(["-G", "--", user]).output() else {
        return Vec::new();
    };
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.split_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect()
}

fn getent(table: &str, name: &str) -> Option<Vec<String>> {
    let output = Command::new("getent")
        .args(["--", table, name])
        .output()
        .ok()?;
    if !output.status.success() {
        return None;
    }
    let text = String::from_utf8(output.stdout).ok()?;
    let fields: Vec<String> = text.lines().next()?.split(':').map(str::to_owned).collect();
    // A name that is a number is looked up as one: that is another account than the operator named.
    (fields.first().map(String::as_str) == Some(name)).then_some(fields)
}

/// Whether a name may be used for a user or a group.
#[must_use]
pub fn is_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    (1..=32).contains(&name.len())
        && bytes
            .next()
            .is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte))
}

/// Runs one of the machine's account programs.
///
/// # Errors
/// What it said.
pub fn run(program: &str, arguments: &[&str]) -> Result<()> {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .with_context(|| format!("cannot run {program}: is it installed?"))?;
    if !output.status.success() {
        bail!(
            "{program} failed: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}
