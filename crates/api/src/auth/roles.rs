//! Which role may do what. A path that is not named here can only be changed by an admin.

use axum::http::Method;
use model::documents::ManagementRole;

/// What a request needs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Permission {
    /// Look at the cluster, its nodes, databases, shards and actions.
    View,
    /// Read the event log.
    ViewLogs,
    /// See passwords of databases.
    ViewPasswords,
    /// Create, change and delete databases.
    ChangeDatabases,
    /// Everything else.
    Administer,
    /// Bootstrap this node: once it is part of a cluster, the same as [`Self::Administer`].
    Bootstrap,
}

impl Permission {
    /// Every permission.
    pub const ALL: [Self; 6] = [
        Self::View,
        Self::ViewLogs,
        Self::ViewPasswords,
        Self::ChangeDatabases,
        Self::Administer,
        Self::Bootstrap,
    ];

    /// Whether a role has it.
    #[must_use]
    pub const fn is_granted_to(self, role: ManagementRole) -> bool {
        use ManagementRole::{
            Admin, ClusterMember, ClusterViewer, DbMember, DbViewer, None, UserManager,
        };
        match role {
            Admin => true,
            None => false,
            ClusterMember | DbMember => !matches!(self, Self::Administer | Self::Bootstrap),
            UserManager => matches!(self, Self::View | Self::ViewLogs | Self::ViewPasswords),
            ClusterViewer => matches!(self, Self::View | Self::ViewLogs),
            DbViewer => matches!(self, Self::View),
        }
    }

    /// What a request needs, by its method and path as they came.
    #[must_use]
    pub fn for_request(method: &Method, path: &str) -> Self {
        let below = |prefix: &str| {
            path.strip_prefix(prefix)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let reads = [Method::GET, Method::HEAD].contains(method);
        match () {
            () if below("/v1/logs") && reads => Self::ViewLogs,
            () if reads => Self::View,
            () if below("/v1/bdbs") || below("/v1/shards") => Self::ChangeDatabases,
            () if below("/v1/bootstrap") => Self::Bootstrap,
            () => Self::Administer,
        }
    }
}
