//! Of the ports: free on this node's address, and not given to outgoing connections.

use super::Subject;
use crate::host;
use crate::processes::{Protocol, holder};
use anyhow::{Result, bail};
use model::limits::{ENDPOINT_PORTS, SHARD_PORTS};

/// Discovery.
const DISCOVERY: u16 = 8001;
/// Name service.
const DNS: u16 = 53;

/// Every port that a node needs.
pub(super) fn check(subject: &Subject<'_>) -> Result<()> {
    let config = subject.config;
    let mut needed = vec![
        (Protocol::Tcp, config.ports.https, "REST"),
        (Protocol::Tcp, config.ports.console, "console"),
        (Protocol::Tcp, config.ports.internode, "internode traffic"),
        (Protocol::Tcp, DISCOVERY, "discovery"),
    ];
    if !subject.options.skip_dns_port_verification {
        needed.push((Protocol::Udp, DNS, "DNS"));
        needed.push((Protocol::Tcp, DNS, "DNS"));
    }
    let taken: Vec<String> = needed
        .into_iter()
        .filter_map(|(protocol, port, what)| {
            let holder = holder(protocol, config.address, port)?;
            Some(format!("port {port} ({what}) is held by {holder}"))
        })
        .collect();
    if !taken.is_empty() {
        bail!(
            "ports that this node needs on {} are taken: stop who holds them, or choose another \
             address with --address (for port 53 alone: --skip-dns-port-verification)\n{}",
            config.address,
            taken.join("\n")
        );
    }
    local_range(subject);
    Ok(())
}

/// A port that an outgoing connection happens to use cannot be listened on: rare, and then a
/// database does not come up.
fn local_range(subject: &Subject<'_>) {
    let Some((low, high)) = host::local_port_range() else {
        return;
    };
    let overlaps = |from: u16, to: u16| low <= to && from <= high;
    if overlaps(*ENDPOINT_PORTS.start(), *ENDPOINT_PORTS.end())
        || overlaps(*SHARD_PORTS.start(), *SHARD_PORTS.end())
    {
        subject.console.note(format!(
            "outgoing connections may take ports {low}-{high}, which databases need too: answer \
             systune=yes, or run 'sysctl net.ipv4.ip_local_port_range=\"30000 65535\"'"
        ));
    }
}
