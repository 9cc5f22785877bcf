//! Who asks, and what it may do.
//!
//! | file | what |
//! |---|---|
//! | [`credentials`] | HTTP Basic, checked against the stored hash; a short cache of what was right |
//! | [`roles`] | which role may do what |
//! | [`gate`] | the two doors: HTTPS asks for a password, the unix socket asks for none |

pub mod credentials;
pub mod gate;
pub mod roles;

use model::documents::ManagementRole;
use std::fmt;

/// Who asks.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Caller {
    /// A process on this node that may open the unix socket: as good as an admin.
    Local {
        /// Its user id.
        uid: Option<u32>,
    },
    /// A user of the platform.
    User {
        /// Its e-mail.
        email: String,
        /// What it may do.
        role: ManagementRole,
    },
    /// Anyone, before this node belongs to a cluster. Only bootstrap is open to it.
    Anonymous,
}

impl Caller {
    /// Whether it may do something.
    #[must_use]
    pub fn may(&self, permission: roles::Permission) -> bool {
        match self {
            Self::Local { .. } => true,
            Self::User { role, .. } => permission.is_granted_to(*role),
            // It was let in for the paths of bootstrap alone.
            Self::Anonymous => {
                matches!(
                    permission,
                    roles::Permission::View | roles::Permission::Bootstrap
                )
            }
        }
    }
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local { uid: Some(uid) } => write!(f, "local:{uid}"),
            Self::Local { uid: None } => f.write_str("local"),
            Self::User { email, .. } => f.write_str(email),
            Self::Anonymous => f.write_str("-"),
        }
    }
}
