//! Of the ports: free on this node's address, and not given to outgoing connections.

use super::Subject;
use crate::host;
use crate::processes::{Protocol, holder};
use anyhow::{Result, bail};
use model::limits::{ENDPOINT_PORTS, SHARD_PORTS};

/// Every port that a node needs.
pub(super) fn check(subject: &Subject<'_>) -> Result<()> {
    let config = subject.config;
    let mut needed = vec![
        (Protocol::Tcp, config.ports.https, "REST"),
        (Protocol::Tcp, config.ports.console, "console"),
        (Protocol::Tcp, config.ports.internode, "internode traffic"),
        (Protocol::Tcp, config.ports.discovery, "discovery"),
    ];
    if !subject.options.skip_dns_port_verification {
        needed.push((Protocol::Udp, config.ports.dns, "DNS"));
        needed.push((Protocol::Tcp, config.ports.dns, "DNS"));
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
             address with --address (for the port of DNS alone: --dns-port PORT, or \
             --skip-dns-port-verification)\n{}",
            config.address,
            taken.join("\n")
        );
    }
    local_range(subject);
    name_service(subject);
    Ok(())
}

/// The node's own user may bind a port below 1024 only where the host, or the node's unit, allows it.
fn name_service(subject: &Subject<'_>) {
    if host::has_systemd() {
        return;
    }
    let port = subject.config.ports.dns;
    let Some(first) = host::first_unprivileged_port() else {
        return;
    };
    if port < first {
        subject.console.note(format!(
            "the name service (DNS) needs port {port}, which only root may use on this host: run \
             'sysctl net.ipv4.ip_unprivileged_port_start={port}', or choose \
             --dns-port (until then only DNS is missing)"
        ));
    }
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
