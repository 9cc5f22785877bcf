//! `/v1/bootstrap`.

use model::intent::BootstrapStatus;
use model::rest::{AvailableAddress, Bootstrap, BootstrapState, LocalNodeInfo};
use std::net::IpAddr;

/// How far the bootstrap is, and this node.
#[must_use]
pub fn status(status: &BootstrapStatus) -> Bootstrap {
    let host = &status.host;
    Bootstrap {
        bootstrap_status: BootstrapState {
            state: status.state.clone(),
            start_time: status.start_time.clone(),
            end_time: status.end_time.clone(),
            error_code: status.error_code.clone(),
            error_details: status.error_details.clone(),
        },
        local_node_info: LocalNodeInfo {
            uid: status.node,
            software_version: status.software_version.clone(),
            cores: host.cores,
            ephemeral_storage_size: host.ephemeral_size,
            persistent_storage_size: host.persistent_size,
            os_version: host.os_version.clone(),
            total_memory: host.total_memory,
            uptime: host.uptime,
            available_addrs: vec![address(&status.address)],
            ca_fingerprint: status.ca_fingerprint.clone(),
        },
    }
}

fn address(text: &str) -> AvailableAddress {
    let parsed = text.parse::<IpAddr>().ok();
    let private = match parsed {
        Some(IpAddr::V4(ip)) => ip.is_private() || ip.is_loopback() || ip.is_link_local(),
        Some(IpAddr::V6(ip)) => {
            ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local()
        }
        None => false,
    };
    AvailableAddress {
        address: text.to_owned(),
        format: if matches!(parsed, Some(IpAddr::V6(_))) {
            "ipv6"
        } else {
            "ipv4"
        }
        .to_owned(),
        if_name: String::new(),
        private,
    }
}
