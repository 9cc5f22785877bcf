//! What an engine says of itself in `INFO`.

/// The part of `INFO` that the agent uses.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct EngineInfo {
    /// Id of this process.
    pub(crate) run_id: String,
    /// Its pid.
    pub(crate) process_id: u32,
    /// Whether it calls itself a primary.
    pub(crate) is_primary: bool,
    /// Whether it still loads its data.
    pub(crate) loading: bool,
    /// How far, percent.
    pub(crate) loading_percent: f64,
    /// Memory used by data, bytes.
    pub(crate) used_memory: u64,
    /// Memory that the system gave, over memory used.
    pub(crate) fragmentation: f64,
    /// Keys in all its databases.
    pub(crate) keys: u64,
    /// Client connections.
    pub(crate) connections: u64,
    /// Whether the append-only file is on.
    pub(crate) append_only: bool,
    /// Whether a new append-only file is being written, or about to be.
    pub(crate) rewriting: bool,
    /// Whether the last one was written well.
    pub(crate) rewrite_ok: bool,
    /// Whether a snapshot is being written, or about to be.
    pub(crate) saving: bool,
    /// Whether the last one was written well.
    pub(crate) save_ok: bool,
}

impl EngineInfo {
    /// Reads it; what is not there keeps its zero.
    pub(crate) fn parse(text: &str) -> Self {
        let mut info = Self::default();
        for line in text.lines() {
            if let Some((name, value)) = line.split_once(':') {
                info.take(name, value.trim_end());
            }
        }
        info
    }

    fn take(&mut self, name: &str, value: &str) {
        let number = || value.parse::<u64>().unwrap_or(0);
        // Early on an engine prints `-nan` or `inf` for ratios.
        let ratio = || {
            value
                .parse::<f64>()
                .ok()
                .filter(|v| v.is_finite())
                .unwrap_or(0.0)
        };
        match name {
            "run_id" => value.clone_into(&mut self.run_id),
            "process_id" => self.process_id = value.parse().unwrap_or(0),
            "role" => self.is_primary = value == "master",
            "loading" => self.loading = value == "1",
            "loading_loaded_perc" => self.loading_percent = ratio(),
            "used_memory" => self.used_memory = number(),
            "mem_fragmentation_ratio" => self.fragmentation = ratio(),
            "connected_clients" => self.connections = number(),
            "aof_enabled" => self.append_only = value == "1",
            "aof_rewrite_in_progress" | "aof_rewrite_scheduled" => self.rewriting |= value == "1",
            "aof_last_bgrewrite_status" => self.rewrite_ok = value == "ok",
            "rdb_bgsave_in_progress" => self.saving = value == "1",
            "rdb_last_bgsave_status" => self.save_ok = value == "ok",
            _ if is_database(name) => {
                let keys = value.split(',').find_map(|part| part.strip_prefix("keys="));
                self.keys += keys.and_then(|keys| keys.parse::<u64>().ok()).unwrap_or(0);
            }
            _ => {}
        }
    }
}

/// `db0`, `db15`.
fn is_database(name: &str) -> bool {
    name.strip_prefix("db")
        .is_some_and(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn info_of_a_primary() {
        let text = "# Server\r\nrun_id:abc\r\nprocess_id:42\r\n# Memory\r\nused_memory:1000\r\n\
            used_memory_human:1K\r\nmem_fragmentation_ratio:-nan\r\nloading:0\r\nrole:master\r\n\
            aof_enabled:1\r\naof_rewrite_in_progress:0\r\naof_rewrite_scheduled:1\r\n\
            aof_last_bgrewrite_status:ok\r\nrdb_last_bgsave_status:err\r\nconnected_clients:3\r\n\
            db0:keys=5,expires=0,avg_ttl=0\r\ndb3:keys=2,expires=0,avg_ttl=0\r\ndbx:keys=9\r\n";
        let info = EngineInfo::parse(text);
        assert_eq!(
            (info.run_id.as_str(), info.process_id, info.keys),
            ("abc", 42, 7)
        );
        assert!(info.is_primary && info.append_only && info.rewriting && info.rewrite_ok);
        assert!(!info.save_ok && !info.loading);
        assert!((info.used_memory, info.connections) == (1000, 3) && info.fragmentation == 0.0);
    }
}
