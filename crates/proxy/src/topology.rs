//! What the workers serve: a configuration, made ready for them. It is replaced as a whole, between
//! two turns of a worker.

use crate::stats::DatabaseStats;
use model::proxy::{ProxyConfig, ProxyShard};
use model::{DatabaseUid, Revision, Secret};
use std::collections::HashMap;
use std::sync::Arc;

/// Everything that is served, as of one revision.
#[derive(Debug)]
pub(crate) struct Topology {
    /// Revision of the configuration.
    pub(crate) revision: Revision,
    /// The databases.
    pub(crate) databases: HashMap<DatabaseUid, Arc<Database>>,
}

/// One database.
#[derive(Debug)]
pub(crate) struct Database {
    /// Which.
    pub(crate) uid: DatabaseUid,
    /// Its name.
    pub(crate) name: String,
    /// Password of the default user.
    pub(crate) password: Option<Secret>,
    /// Most client connections; 0: no limit but the proxy's own.
    pub(crate) max_connections: u32,
    /// Its primaries.
    pub(crate) shards: Vec<ProxyShard>,
    /// Its counters; they live as long as the database does.
    pub(crate) stats: Arc<DatabaseStats>,
}

impl Topology {
    /// Makes one from a configuration. Counters are taken over from `before` by database.
    #[must_use]
    pub(crate) fn new(config: &ProxyConfig, before: Option<&Self>, workers: usize) -> Self {
        let databases = config.databases.iter().map(|database| {
            let stats = before
                .and_then(|topology| topology.databases.get(&database.uid))
                .map_or_else(
                    || Arc::new(DatabaseStats::new(workers)),
                    |old| Arc::clone(&old.stats),
                );
            let made = Database {
                uid: database.uid,
                name: database.name.clone(),
                password: database.password.clone(),
                max_connections: database.max_connections,
                shards: database.shards.clone(),
                stats,
            };
            (database.uid, Arc::new(made))
        });
        Self {
            revision: config.revision,
            databases: databases.collect(),
        }
    }
}
