//! What an engine says of itself in `INFO`.

use model::replication::{ReplicaSeen, ReplicationObservation};
use std::net::{IpAddr, SocketAddr};

/// The part of `INFO` that the agent uses.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct EngineInfo {
    /// Id of this process.
    pub(crate) run_id: String,
    /// Its pid.
    pub(crate) process_id: u32,
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
    /// Whether it could not append to it last.
    pub(crate) append_failed: bool,
    /// Whether a snapshot is being written, or about to be.
    pub(crate) saving: bool,
    /// Whether the last one was written well.
    pub(crate) save_ok: bool,
    /// How it replicates.
    pub(crate) replication: ReplicationObservation,
}

impl EngineInfo {
    /// Reads it; what is not there keeps its zero.
    pub(crate) fn parse(text: &str) -> Self {
        let mut info = Self::default();
        for (name, value) in fields(text) {
            info.take(name, value);
        }
        info.replication = replication(text);
        info
    }

    /// Whether it calls itself a primary.
    pub(crate) fn is_primary(&self) -> bool {
        self.replication.is_primary
    }

    /// Takes in `INFO replication` alone. The counters of syncs are not part of it.
    pub(crate) fn refresh_replication(&mut self, text: &str) {
        let before = std::mem::replace(&mut self.replication, replication(text));
        self.replication.full_syncs = before.full_syncs;
        self.replication.partial_syncs = before.partial_syncs;
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
            "loading" => self.loading = value == "1",
            "loading_loaded_perc" => self.loading_percent = ratio(),
            "used_memory" => self.used_memory = number(),
            "mem_fragmentation_ratio" => self.fragmentation = ratio(),
            "connected_clients" => self.connections = number(),
            "aof_enabled" => self.append_only = value == "1",
            "aof_rewrite_in_progress" | "aof_rewrite_scheduled" => self.rewriting |= value == "1",
            "aof_last_bgrewrite_status" => self.rewrite_ok = value == "ok",
            "aof_last_write_status" => self.append_failed = value != "ok",
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

fn fields(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name, value.trim_end()))
}

/// What has never had a link says -1, and before Redis 7 the time since 1970.
const SINCE_1970: u64 = 1_000_000_000;

/// Whether nothing of a `FAILOVER` is under way.
pub(crate) fn is_at_rest(replication: &ReplicationObservation) -> bool {
    matches!(replication.failover_state.as_str(), "" | "no-failover")
}

/// What `INFO` says of replication.
pub(crate) fn replication(text: &str) -> ReplicationObservation {
    let mut seen = ReplicationObservation {
        second_offset: -1,
        last_io_seconds: -1,
        ..ReplicationObservation::default()
    };
    let (mut host, mut port) = (None, None);
    // Of a replica without data -1.
    let (mut sent, mut received) = (0, 0);
    let offset = |value: &str| value.parse().unwrap_or(0);
    for (name, value) in fields(text) {
        match name {
            "role" => seen.is_primary = value == "master",
            "master_replid" => value.clone_into(&mut seen.replication_id),
            // Forty zeros: it has none.
            "master_replid2" if value.bytes().any(|b| b != b'0') => {
                value.clone_into(&mut seen.replication_id2);
            }
            "second_repl_offset" => seen.second_offset = value.parse().unwrap_or(-1),
            "master_repl_offset" => sent = offset(value),
            "slave_repl_offset" => received = offset(value),
            "master_link_status" => seen.link_up = value == "up",
            "master_sync_in_progress" => seen.sync_in_progress = value == "1",
            "master_last_io_seconds_ago" => seen.last_io_seconds = value.parse().unwrap_or(-1),
            "master_link_down_since_seconds" => {
                seen.link_down_seconds = value.parse().ok().filter(|told| *told < SINCE_1970);
            }
            "master_host" => host = value.parse::<IpAddr>().ok(),
            "master_port" => port = value.parse::<u16>().ok(),
            "master_failover_state" => value.clone_into(&mut seen.failover_state),
            "sync_full" => seen.full_syncs = offset(value),
            "sync_partial_ok" => seen.partial_syncs = offset(value),
            _ => seen.replicas.extend(replica(name, value)),
        }
    }
    seen.primary = host
        .zip(port)
        .map(|(host, port)| SocketAddr::new(host, port));
    seen.offset = if seen.is_primary { sent } else { received };
    seen
}

/// `slave0:ip=127.0.0.1,port=1,state=online,offset=14,lag=1`.
fn replica(name: &str, value: &str) -> Option<ReplicaSeen> {
    let number = name.strip_prefix("slave")?;
    if number.is_empty() || !number.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let field = |wanted: &str| {
        value
            .split(',')
            .filter_map(|part| part.split_once('='))
            .find_map(|(name, value)| (name == wanted).then_some(value))
    };
    let address = SocketAddr::new(field("ip")?.parse().ok()?, field("port")?.parse().ok()?);
    let number = |name: &str| field(name).and_then(|n| n.parse().ok()).unwrap_or(0);
    Some(ReplicaSeen {
        address,
        online: field("state") == Some("online"),
        offset: number("offset"),
        lag_seconds: number("lag"),
    })
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
        assert!(info.is_primary() && info.append_only && info.rewriting && info.rewrite_ok);
        assert!(!info.save_ok && !info.loading);
        assert!((info.used_memory, info.connections) == (1000, 3) && info.fragmentation == 0.0);
    }

    #[test]
    fn replication_of_both_sides() {
        let text = "# Stats\r\nsync_full:2\r\nsync_partial_ok:3\r\n# Replication\r\nrole:master\r\n\
            connected_slaves:2\r\nslave0:ip=127.0.0.2,port=7002,state=online,offset=14,lag=1\r\n\
            slave1:ip=::1,port=7003,state=wait_bgsave,offset=0,lag=9,type=replica\r\n\
            master_failover_state:no-failover\r\nmaster_replid:ab\r\nmaster_replid2:000\r\n\
            master_repl_offset:14\r\nsecond_repl_offset:-1\r\n";
        let primary = replication(text);
        assert!(primary.is_primary && is_at_rest(&primary) && primary.replication_id2.is_empty());
        assert_eq!((primary.offset, primary.second_offset), (14, -1));
        assert_eq!((primary.full_syncs, primary.partial_syncs), (2, 3));
        let seen: Vec<_> = primary
            .replicas
            .iter()
            .map(|r| (r.address.to_string(), r.online, r.offset, r.lag_seconds))
            .collect();
        assert_eq!(
            seen,
            [
                ("127.0.0.2:7002".to_owned(), true, 14, 1),
                ("[::1]:7003".to_owned(), false, 0, 9)
            ]
        );

        let text = "role:slave\r\nmaster_host:127.0.0.1\r\nmaster_port:7001\r\n\
            master_link_status:up\r\nmaster_last_io_seconds_ago:4\r\nmaster_sync_in_progress:1\r\n\
            slave_repl_offset:12\r\nmaster_failover_state:failover-in-progress\r\n\
            master_replid2:ab\r\nmaster_repl_offset:15\r\nsecond_repl_offset:9\r\n";
        let mut info = EngineInfo::default();
        info.replication.full_syncs = 7;
        info.refresh_replication(text);
        let replica = info.replication;
        assert!(!replica.is_primary && replica.link_up && replica.sync_in_progress);
        assert!(!is_at_rest(&replica));
        assert_eq!(
            replica.primary.map(|p| p.to_string()).as_deref(),
            Some("127.0.0.1:7001")
        );
        assert_eq!((replica.offset, replica.last_io_seconds), (12, 4));
        assert_eq!(replica.link_down_seconds, None);
        for (told, seconds) in [("7", Some(7)), ("-1", None), ("1795800000", None)] {
            let text = format!("role:slave\r\nmaster_link_down_since_seconds:{told}\r\n");
            assert_eq!(super::replication(&text).link_down_seconds, seconds);
        }
        assert_eq!(
            (replica.replication_id2.as_str(), replica.second_offset),
            ("ab", 9)
        );
        assert_eq!(replica.full_syncs, 7);
    }
}
