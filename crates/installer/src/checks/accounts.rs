//! Of user and group: there, or to be made.

use super::Subject;
use crate::accounts;
use crate::answers::Question;
use crate::options::OS_USER;
use anyhow::{Result, bail};

/// What is known of user and group, and what must be made.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Accounts {
    /// Number of the user, if it is there.
    pub uid: Option<u32>,
    /// Numbers of its groups, if it is there.
    pub groups: Vec<u32>,
    /// Whether the user must be made.
    pub make_user: bool,
    /// Whether the group must be made.
    pub make_group: bool,
}

/// User and group exist, or are ours to make.
pub(super) fn check(subject: &Subject<'_>) -> Result<Accounts> {
    let config = subject.config;
    let user = accounts::user(&config.os_user);
    let group = accounts::group(&config.os_group);
    let ours = config.os_user == OS_USER && config.os_group == OS_USER;
    if config.os_user == "root" || user.as_ref().is_some_and(|user| user.uid == 0) {
        bail!("--os-user: the programs do not run as root: name another user");
    }
    if !ours {
        let (Some(user), Some(group)) = (&user, group) else {
            bail!(
                "user {} and group {} must exist: make them with 'groupadd --system {}' and \
                 'useradd --system --gid {} {}'",
                config.os_user,
                config.os_group,
                config.os_group,
                config.os_group,
                config.os_user
            );
        };
        if user.gid != group {
            bail!(
                "{} is not the primary group of {}: run 'usermod --gid {} {}', or name its primary \
                 group with --os-group",
                config.os_group,
                config.os_user,
                config.os_group,
                config.os_user
            );
        }
    } else if user.is_some() || group.is_some() {
        confirm_existing(subject)?;
    }
    let mut groups = accounts::groups_of(&config.os_user);
    groups.extend(group);
    Ok(Accounts {
        uid: user.as_ref().map(|user| user.uid),
        groups,
        make_user: user.is_none(),
        make_group: group.is_none(),
    })
}

/// A user that another install here made is no surprise; any other may belong to somebody.
fn confirm_existing(subject: &Subject<'_>) -> Result<()> {
    let shared = subject
        .installs
        .iter()
        .any(|install| install.entry.config.os_user == subject.config.os_user);
    if shared {
        return Ok(());
    }
    let name = &subject.config.os_user;
    let question = format!("User or group {name} exist already. Use them?");
    let question_key = Question::IgnoreExistingOsuserOsgroup;
    if subject
        .answers
        .get(subject.console, question_key, &question)?
    {
        return Ok(());
    }
    bail!(
        "user or group {name} exist already and belong to no install of this host: answer \
         {}=yes to use them, or name others with --os-user and --os-group",
        question_key.key()
    )
}
