//! What the Sentinel commands say of a database and of the other nodes: fields and values as clients of
//! Sentinel read them.

use crate::finder::Found;
use crate::view::View;
use resp::value::Value;

/// After how long a node that is not heard counts as down, milliseconds: what clients are told.
const DOWN_AFTER: &str = "1000";

/// The fields of a database.
#[must_use]
pub fn master(view: &View, found: &Found) -> Value {
    let flags = if found.live {
        "master"
    } else {
        "s_down,o_down,master"
    };
    let others = view.nodes.len().saturating_sub(1).to_string();
    let quorum = (view.nodes.len() / 2 + 1).to_string();
    let (ip, port) = match found.address {
        Some(address) => (address.ip().to_string(), address.port().to_string()),
        None => (String::new(), "0".to_owned()),
    };
    fields(&[
        ("name", &found.name),
        ("ip", &ip),
        ("port", &port),
        ("runid", &view.database_run_id(found.database)),
        ("flags", flags),
        ("link-pending-commands", "0"),
        ("link-refcount", "1"),
        ("last-ping-sent", "0"),
        ("last-ok-ping-reply", "0"),
        ("last-ping-reply", "0"),
        ("down-after-milliseconds", DOWN_AFTER),
        ("info-refresh", "0"),
        ("role-reported", "master"),
        ("role-reported-time", "0"),
        ("config-epoch", &view.revision.to_string()),
        ("num-slaves", "0"),
        ("num-other-sentinels", &others),
        ("quorum", &quorum),
        ("failover-timeout", "60000"),
        ("parallel-syncs", "1"),
    ])
}

/// The other nodes, where these commands are answered too. All nodes of a cluster use the same port.
#[must_use]
pub fn sentinels(view: &View, port: u16, internal: bool) -> Value {
    let others = view.nodes.iter().filter(|node| node.uid != view.me);
    let port = port.to_string();
    let list = others.map(|node| {
        let address = match node.external {
            Some(external) if !internal => external,
            _ => node.address,
        };
        let id = view.node_run_id(node.uid);
        let flags = if node.heard {
            "sentinel"
        } else {
            "s_down,sentinel"
        };
        fields(&[
            ("name", &id),
            ("ip", &address.to_string()),
            ("port", &port),
            ("runid", &id),
            ("flags", flags),
            ("link-pending-commands", "0"),
            ("link-refcount", "1"),
            ("last-ping-sent", "0"),
            ("last-ok-ping-reply", "0"),
            ("last-ping-reply", "0"),
            ("down-after-milliseconds", DOWN_AFTER),
            ("last-hello-message", "0"),
            ("voted-leader", "?"),
            ("voted-leader-epoch", "0"),
        ])
    });
    Value::Array(list.collect())
}

/// Whether changes are possible: `SENTINEL ckquorum`.
#[must_use]
pub fn quorum(view: &View) -> Value {
    let heard = view.nodes.iter().filter(|node| node.heard).count();
    if view.has_quorum {
        let text = format!(
            "OK {heard} usable Sentinels. Quorum and failover authorization can be reached"
        );
        return Value::Simple(text.into_bytes());
    }
    let text = format!(
        "NOQUORUM {heard} usable Sentinels. Not enough available Sentinels to reach the majority"
    );
    Value::Error(text.into_bytes())
}

/// `INFO`: what this is, and every database.
#[must_use]
pub fn info(view: &View, port: u16, found: &[Found], sections: &[String]) -> String {
    let wants = |name: &str| {
        sections.is_empty()
            || sections
                .iter()
                .any(|s| s == name || s == "all" || s == "everything" || s == "default")
    };
    let mut text = String::new();
    if wants("server") {
        text.push_str(&format!(
            "# Server\r\nredis_version:7.0.0\r\nredis_mode:sentinel\r\nserver_name:mainstay\r\n\
             run_id:{}\r\ntcp_port:{port}\r\n",
            view.node_run_id(view.me)
        ));
    }
    if wants("sentinel") {
        if !text.is_empty() {
            text.push_str("\r\n");
        }
        text.push_str(&format!(
            "# Sentinel\r\nsentinel_masters:{}\r\nsentinel_tilt:0\r\nsentinel_running_scripts:0\r\n\
             sentinel_scripts_queue_length:0\r\nsentinel_simulate_failure_flags:0\r\n",
            found.len()
        ));
        for (index, one) in found.iter().enumerate() {
            let status = if one.live { "ok" } else { "odown" };
            let address = one.address.map(|a| a.to_string()).unwrap_or_default();
            text.push_str(&format!(
                "master{index}:name={},status={status},address={address},slaves=0,sentinels={}\r\n",
                one.name,
                view.nodes.len()
            ));
        }
    }
    text
}

fn fields(pairs: &[(&str, &str)]) -> Value {
    let pair = |(name, value): &(&str, &str)| (Value::bulk(name), Value::bulk(value));
    Value::Map(pairs.iter().map(pair).collect())
}
