//! What an upgrade of this node did to its clients, by the counters of its proxies.

use crate::attendant::CLIENTS;
use crate::cluster;
use anyhow::{Result, bail};
use model::node_config::NodeConfig;
use model::observation::ProxyObservation;
use model::release::InstallRecord;
use model::upgrade::run::TurnClients;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// How long an endpoint of this node may take to answer.
const ANSWERS_WITHIN: Duration = Duration::from_secs(10);
/// How long the new proxy may take to tell of the clients that it took over.
const TOLD_WITHIN: Duration = Duration::from_secs(3);
/// Pause between two tries.
const TRY_AGAIN: Duration = Duration::from_millis(100);

/// The node's proxy before and after it was replaced.
#[derive(Clone, Debug, Default)]
pub(super) struct Clients {
    before: Option<ProxyObservation>,
    after: Option<ProxyObservation>,
}

impl Clients {
    /// The proxy that serves now.
    pub(super) fn before(config: &NodeConfig) -> Self {
        Self {
            before: cluster::proxy(config),
            after: None,
        }
    }

    /// The one that serves after it. A proxy tells once a second what it counts.
    pub(super) fn after(&mut self, config: &NodeConfig) {
        let deadline = Instant::now() + TOLD_WITHIN;
        loop {
            self.after = cluster::proxy(config);
            if self.is_told() || Instant::now() >= deadline {
                return;
            }
            std::thread::sleep(TRY_AGAIN);
        }
    }

    /// Whether what became of the clients is known, if there were any.
    fn is_told(&self) -> bool {
        match (&self.before, &self.after) {
            (None, _) => true,
            (Some(before), None) => before.connections == 0,
            (Some(before), Some(after)) => {
                before.connections == 0 || before.pid == after.pid || after.handover.is_some()
            }
        }
    }

    /// Records it for the report of an upgrade of all nodes.
    pub(super) fn note(&self, record: &mut InstallRecord) {
        record.extra.remove(CLIENTS);
        let (Some(before), Some(after)) = (&self.before, &self.after) else {
            return;
        };
        let errors = &after.since_start.errors;
        let handover = after.handover.unwrap_or_default();
        let counts = TurnClients {
            kept: handover.adopted,
            of: handover.adopted + handover.left,
            errors: errors.unavailable + errors.outcome_unknown + errors.unread,
            longest_pause_us: handover.longest_pause_us,
        };
        if before.pid != after.pid
            && let Ok(value) = serde_json::to_value(counts)
        {
            record.extra.insert(CLIENTS.to_owned(), value);
        }
    }

    /// A line for each thing that is known.
    pub(super) fn report(&self) -> Vec<String> {
        let (Some(before), Some(after)) = (&self.before, &self.after) else {
            // The counters are what cnm_exec heard last.
            return vec!["clients of this node: not counted, the proxy was not heard".to_owned()];
        };
        if before.pid == after.pid {
            return vec!["clients of this node: the proxy had been replaced before".to_owned()];
        }
        let errors = &after.since_start.errors;
        let lost = errors.unavailable + errors.outcome_unknown + errors.unread;
        let mut lines = vec![format!(
            "clients of this node: {lost} errors by the new proxy since it took over"
        )];
        match &after.handover {
            Some(handover) => {
                let all = handover.adopted + handover.left;
                let most = handover.p99_pause_us.map_or_else(String::new, |us| {
                    format!("; of 99 in 100 up to about {}", milliseconds(us))
                });
                lines.push(format!(
                    "connections kept: {} of {all}; longest pause of one: {}{most}",
                    handover.adopted,
                    milliseconds(handover.longest_pause_us)
                ));
                if handover.left > 0 {
                    lines.push(format!(
                        "{} connections stay with the old proxy until they end, or its drain time is over",
                        handover.left
                    ));
                }
            }
            None => lines.push(format!(
                "connections: {} before, {} at the new proxy; others stay with the old one until they end, \
                 or its drain time is over",
                before.connections, after.connections
            )),
        }
        lines
    }
}

fn milliseconds(us: u64) -> String {
    format!("{}.{:03} ms", us / 1000, us % 1000)
}

/// Every endpoint that this node's proxy serves answers a client. Which answer is the database's: one that
/// asks for a password does so.
pub(super) fn probe(config: &NodeConfig) -> Result<()> {
    for port in cluster::endpoints(config)? {
        let address = SocketAddr::new(config.address, port);
        let deadline = Instant::now() + ANSWERS_WITHIN;
        while let Err(error) = ping(address) {
            if Instant::now() >= deadline {
                bail!("the endpoint {address} does not answer: {error}");
            }
            std::thread::sleep(TRY_AGAIN);
        }
    }
    Ok(())
}

fn ping(address: SocketAddr) -> std::io::Result<()> {
    let limit = Duration::from_secs(2);
    let mut stream = TcpStream::connect_timeout(&address, limit)?;
    stream.set_read_timeout(Some(limit))?;
    stream.set_write_timeout(Some(limit))?;
    stream.write_all(b"*1\r\n$4\r\nPING\r\n")?;
    let mut first = [0];
    stream.read_exact(&mut first)?;
    match first[0] {
        b'+' | b'-' => Ok(()),
        other => Err(std::io::Error::other(format!(
            "an answer that begins with byte {other}"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::observation::HandoverCounts;

    fn proxy(pid: u32, connections: u64) -> ProxyObservation {
        ProxyObservation {
            pid,
            connections,
            ..ProxyObservation::default()
        }
    }

    #[test]
    fn the_report_says_what_is_known() {
        let mut clients = Clients {
            before: Some(proxy(1, 1000)),
            after: Some(proxy(2, 3)),
        };
        let text = clients.report().join("\n");
        assert!(text.contains("0 errors"), "{text}");
        assert!(text.contains("1000 before, 3 at the new proxy"), "{text}");
        clients.after = Some(ProxyObservation {
            handover: Some(HandoverCounts {
                adopted: 999,
                left: 1,
                longest_pause_us: 4_321,
                p99_pause_us: Some(1_234),
            }),
            ..proxy(2, 999)
        });
        let text = clients.report().join("\n");
        assert!(text.contains("kept: 999 of 1000"), "{text}");
        assert!(
            text.contains("of one: 4.321 ms; of 99 in 100 up to about 1.234 ms"),
            "{text}"
        );
        let text = Clients::default().report().join("\n");
        assert!(text.contains("not counted"), "{text}");
    }
}
