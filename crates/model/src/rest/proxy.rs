//! Proxies and their settings.

use crate::ids::NodeUid;
use crate::tuning::ProxyMode;
use serde::{Deserialize, Serialize};

object! {
    /// A proxy (`/v1/proxies`).
    pub struct Proxy {
        /// Its node.
        pub uid: NodeUid,
        /// Worker threads, in dynamic mode the least; 0: half of the cores, at least one.
        pub threads: u32,
        /// Most worker threads in dynamic mode; 0: three quarters of the cores.
        pub max_threads: u32,
        /// Whether the number of worker threads follows the load.
        pub dynamic_threads_scaling: bool,
        /// How busy workers must be before another one is started, percent.
        pub threads_usage_threshold: u32,
        /// For how long, seconds.
        pub duration_usage_threshold: u32,
        /// Ours: `dynamic` or `static`.
        pub mode: ProxyMode,
        /// Ours: worker threads that run now; absent: it is not heard.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        pub running_threads: Option<u32>,
        /// Ours: client connections now.
        pub connections: u64,
    }
}

object! {
    /// Body of `PUT /v1/proxies` and `PUT /v1/proxies/{uid}`: what is absent stays.
    #[serde(deny_unknown_fields, default)]
    pub struct ProxyUpdate {
        /// Only the one that it has.
        pub uid: Option<NodeUid>,
        /// Worker threads, 1 to 255, in dynamic mode the least; 0: half of the cores, at least one.
        pub threads: Option<u32>,
        /// Most worker threads in dynamic mode, 1 to 255; 0: three quarters of the cores.
        pub max_threads: Option<u32>,
        /// Whether the number of worker threads follows the load.
        pub dynamic_threads_scaling: Option<bool>,
        /// How busy workers must be before another one is started, 50 to 99 percent.
        pub threads_usage_threshold: Option<u32>,
        /// For how long, 10 to 300 seconds.
        pub duration_usage_threshold: Option<u32>,
    }
}
