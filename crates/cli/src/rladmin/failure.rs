//! How a command ends when it does not end well, and the exit codes.

use crate::installation::{Installation, NotInstalled, start_of_stopped};
use model::{ApiError, ErrorCode};
use serde_json::json;

/// Exit code of a command that was carried out.
pub const EXIT_OK: u8 = 0;
/// Exit code of a command that failed.
pub const EXIT_FAILED: u8 = 1;
/// Exit code of a command that could not be understood.
pub const EXIT_USAGE: u8 = 2;

/// Why a command did not do what it should.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// It cannot be understood.
    #[error("{message}")]
    Usage {
        /// What is wrong, naming the word.
        message: String,
        /// How it is written.
        usage: Vec<String>,
    },
    /// A later release has it.
    #[error("{message}")]
    NotInRelease {
        /// What is not in this release.
        message: String,
        /// What there is instead.
        remedy: Option<&'static str>,
    },
    /// The cluster refused, or cannot.
    #[error("{0}")]
    Api(#[from] ApiError),
    /// There is no install.
    #[error("{0}")]
    NotInstalled(#[from] NotInstalled),
    /// Anything else, in words that say what to do.
    #[error("{0}")]
    Other(String),
}

impl Failure {
    /// A usage error of a command.
    pub fn usage(message: impl Into<String>, usage: impl Into<String>) -> Self {
        Self::Usage {
            message: message.into(),
            usage: vec![usage.into()],
        }
    }

    /// The exit code that goes with it.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Usage { .. } | Self::NotInRelease { .. } => EXIT_USAGE,
            _ => EXIT_FAILED,
        }
    }

    /// What is printed to standard error.
    #[must_use]
    pub fn render(&self, installation: Option<&Installation>) -> String {
        match self {
            Self::Usage { message, usage } => {
                let mut text = format!("ERROR: {message}\n");
                for (index, line) in usage.iter().enumerate() {
                    let lead = if index == 0 {
                        "Usage: rladmin"
                    } else {
                        "       rladmin"
                    };
                    text.push_str(&format!("{lead} {line}\n"));
                }
                text
            }
            Self::NotInRelease { message, remedy } => {
                let mut text = format!("ERROR: {message}\n");
                if let Some(remedy) = remedy {
                    text.push_str(&format!("{remedy}\n"));
                }
                text
            }
            Self::Api(error) => {
                let mut text = format!("ERROR: {} ({})\n", error.description, error.error_code);
                if let Some(remedy) = remedy(error, installation) {
                    text.push_str(&format!("{remedy}\n"));
                }
                text
            }
            Self::NotInstalled(error) => format!("ERROR: {error}\n"),
            Self::Other(message) => format!("ERROR: {message}\n"),
        }
    }

    /// The same for programs (`--json`).
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        let code = match self {
            Self::Usage { .. } => "usage",
            Self::NotInRelease { .. } => "not_in_this_release",
            Self::Api(error) => error.error_code.as_str(),
            Self::NotInstalled(_) => "not_installed",
            Self::Other(_) => "failed",
        };
        let mut description = self.to_string();
        if let Self::NotInRelease {
            remedy: Some(remedy),
            ..
        } = self
        {
            description = format!("{description} {remedy}");
        }
        json!({ "error_code": code, "description": description })
    }
}

/// What to do, unless the description says it already.
fn remedy(error: &ApiError, installation: Option<&Installation>) -> Option<String> {
    if error.error_code == ErrorCode::NotReady
        && let Some((service, _)) = error.description.split_once(" is not running on this node")
    {
        if let Some(start) = installation.and_then(|i| start_of_stopped(&i.config)) {
            return Some(format!("The node is stopped. As root: `{start}`."));
        }
        let supervisorctl = installation.map_or_else(
            || "supervisorctl".to_owned(),
            |installation| installation.program("supervisorctl"),
        );
        return Some(format!(
            "See `{supervisorctl} status`; start it with `{supervisorctl} start {service}`. \
             Databases go on serving without it."
        ));
    }
    // Their descriptions say what to do: the remedy could only say to follow them.
    if matches!(
        error.error_code,
        ErrorCode::InvalidParam | ErrorCode::ConfigError
    ) {
        return None;
    }
    let remedy = error.error_code.remedy();
    // One with a place for a name stands in the description, with the name.
    let said = error.description.contains(remedy) || remedy.contains('<');
    (!said).then(|| remedy.to_owned())
}
