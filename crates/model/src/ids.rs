//! Newtypes for every number that names something, so that two of them cannot be mixed up.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize,
        )]
        #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = std::num::ParseIntError;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map(Self)
            }
        }

        impl $name {
            /// The number after this one.
            #[must_use]
            pub const fn next(self) -> Self {
                Self(self.0 + 1)
            }
        }
    };
}

number!(
    /// A node of the cluster, counted from 1. Never used twice, not even after a wipe: it is also
    /// the node's Raft id.
    NodeUid(u64)
);
number!(
    /// A database (`bdb`), counted from 1, never used twice.
    DatabaseUid(u64)
);
number!(
    /// A shard (one engine process), counted from 1, never used twice.
    ShardUid(u64)
);
number!(
    /// A user of the platform (not of a database).
    UserUid(u64)
);
number!(
    /// How often the primary of a replica set has changed or restarted. Orders to agents and
    /// proxies carry it; older ones are refused.
    Epoch(u64)
);
number!(
    /// How often a shard's wanted engine process has been described anew.
    Generation(u64)
);
number!(
    /// A revision of the configuration store: the number of the transaction that wrote last.
    Revision(u64)
);

/// The name of one operation (`action_uid` in REST): a UUID.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(transparent)]
pub struct OperationUid(pub String);

impl OperationUid {
    /// A fresh name; its first part is the time, so names sort by age.
    #[must_use]
    pub fn fresh() -> Self {
        Self(uuid::Uuid::now_v7().to_string())
    }

    /// The name of what a planner begins: of a moment and of a number that no other one has then.
    #[must_use]
    pub fn of(moment: jiff::Timestamp, number: u64) -> Self {
        let millis = u64::try_from(moment.as_millisecond()).unwrap_or(0);
        let mut bytes = [0; 10];
        bytes[2..].copy_from_slice(&number.to_be_bytes());
        let uuid = uuid::Builder::from_unix_timestamp_millis(millis, &bytes).into_uuid();
        Self(uuid.to_string())
    }
}

impl fmt::Display for OperationUid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
