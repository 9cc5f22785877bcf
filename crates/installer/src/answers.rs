//! The answers file (`-c`): `key=value` lines, values `yes` or `no`.

use crate::console::Console;
use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;
use std::path::Path;

/// Largest answers file, in bytes.
const FILE_MAX: u64 = 64 * 1024;

/// A question that install.sh may ask.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Question {
    /// Swap is on: go on?
    IgnoreSwap,
    /// Change settings of the host?
    Systune,
    /// Switch clock synchronisation on?
    Ntp,
    /// Open the ports in the default zone of firewalld?
    Firewall,
    /// Run rlcheck at the end?
    Rlcheck,
    /// User or group exist: go on?
    IgnoreExistingOsuserOsgroup,
    /// The primary node is not upgraded yet: go on?
    IgnoreMasterVersion,
    /// Put the programs into everybody's PATH?
    UpdateEnvPath,
}

impl Question {
    const ALL: [Self; 8] = [
        Self::IgnoreSwap,
        Self::Systune,
        Self::Ntp,
        Self::Firewall,
        Self::Rlcheck,
        Self::IgnoreExistingOsuserOsgroup,
        Self::IgnoreMasterVersion,
        Self::UpdateEnvPath,
    ];

    /// The key in an answers file.
    #[must_use]
    pub const fn key(self) -> &'static str {
        match self {
            Self::IgnoreSwap => "ignore_swap",
            Self::Systune => "systune",
            Self::Ntp => "ntp",
            Self::Firewall => "firewall",
            Self::Rlcheck => "rlcheck",
            Self::IgnoreExistingOsuserOsgroup => "ignore_existing_osuser_osgroup",
            Self::IgnoreMasterVersion => "ignore_master_version",
            Self::UpdateEnvPath => "update_env_path",
        }
    }

    /// What `-y` means here. Settings of the host that others on it feel are changed only for one
    /// who says so.
    const fn default(self) -> bool {
        !matches!(
            self,
            Self::Systune | Self::Ntp | Self::Firewall | Self::IgnoreMasterVersion
        )
    }
}

/// What the operator answered beforehand.
#[derive(Clone, Debug, Default)]
pub struct Answers {
    given: BTreeMap<Question, bool>,
    /// `-y`.
    defaults: bool,
}

impl Answers {
    /// From an answers file, if there is one, and `-y`.
    ///
    /// # Errors
    /// A line that is not understood, with its number.
    pub fn read(file: Option<&Path>, defaults: bool) -> Result<Self> {
        let mut answers = Self {
            defaults,
            ..Self::default()
        };
        if let Some(path) = file {
            let name = path.display();
            let size = std::fs::metadata(path).with_context(|| format!("answers file {name}"))?;
            if size.len() > FILE_MAX {
                bail!("answers file {name} is larger than {FILE_MAX} bytes");
            }
            let text = std::fs::read_to_string(path)
                .with_context(|| format!("answers file {name} cannot be read"))?;
            answers.given = parse(&text).with_context(|| format!("answers file {name}"))?;
        }
        Ok(answers)
    }

    /// Answers a question as if the file had held it.
    pub fn set(&mut self, question: Question, answer: bool) {
        self.given.insert(question, answer);
    }

    /// The answer from the file, from `-y`, or from the operator.
    ///
    /// # Errors
    /// When nobody can answer.
    pub fn get(&self, console: &Console, question: Question, text: &str) -> Result<bool> {
        if let Some(answer) = self.given.get(&question) {
            return Ok(*answer);
        }
        if self.defaults {
            return Ok(question.default());
        }
        console.ask(text)
    }
}

fn parse(text: &str) -> Result<BTreeMap<Question, bool>> {
    let mut given = BTreeMap::new();
    for (at, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let number = at + 1;
        let Some((key, value)) = line.split_once('=') else {
            bail!("line {number}: '{line}' is not key=yes or key=no");
        };
        let key = key.trim();
        let Some(question) = Question::ALL
            .into_iter()
            .find(|question| question.key() == key)
        else {
            let known: Vec<&str> = Question::ALL
                .iter()
                .map(|question| question.key())
                .collect();
            bail!(
                "line {number}: unknown key '{key}'; known are {}",
                known.join(", ")
            );
        };
        let answer = match value.trim().to_ascii_lowercase().as_str() {
            "yes" => true,
            "no" => false,
            other => bail!("line {number}: {key} is yes or no, not '{other}'"),
        };
        if given
            .insert(question, answer)
            .is_some_and(|before| before != answer)
        {
            bail!("line {number}: {key} has two answers");
        }
    }
    Ok(given)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_yes_and_no() {
        let given = parse("# note\n\nignore_swap=yes\n systune = NO \n").unwrap();
        assert_eq!(given.get(&Question::IgnoreSwap), Some(&true));
        assert_eq!(given.get(&Question::Systune), Some(&false));
        assert_eq!(given.len(), 2);
    }

    #[test]
    fn says_which_line_is_wrong() {
        for (text, wanted) in [
            ("ignore_swap=yes\nswap=yes", "line 2: unknown key 'swap'"),
            ("ntp", "line 1: 'ntp' is not"),
            ("ntp=maybe", "line 1: ntp is yes or no"),
            ("ntp=yes\nntp=no", "line 2: ntp has two answers"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.starts_with(wanted), "{error}");
        }
    }

    #[test]
    fn yes_to_all_leaves_the_host_alone() {
        let console = Console::default();
        let answers = Answers::read(None, true).unwrap();
        assert!(answers.get(&console, Question::IgnoreSwap, "").unwrap());
        assert!(!answers.get(&console, Question::Systune, "").unwrap());
    }
}
