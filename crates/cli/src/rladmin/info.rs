//! `info …`: settings and facts, a line each.

mod proxy;

pub use proxy::proxy;

use super::database::without_password;
use super::failure::Failure;
use super::parse::Invocation;
use super::resources::{self, nodes, with_port, working_address};
use super::session::Context;
use crate::terminal::age;
use model::documents::{Sensitivity, ShardsPlacement};
use model::rest::{Bdb, ClusterInfo, ClusterPolicy, NodeInfo};
use model::units::format_size;

/// What stands after a key that has no value.
const NONE: &str = "N/A";

/// A heading and `key: value` lines.
struct Facts {
    text: String,
}

impl Facts {
    fn of(heading: &str) -> Self {
        Self {
            text: format!("{heading}:\n"),
        }
    }

    fn add(&mut self, key: &str, value: impl AsRef<str>) {
        let value = value.as_ref();
        let value = if value.is_empty() { NONE } else { value };
        self.text.push_str(&format!("   {key}: {value}\n"));
    }
}

fn enabled(on: bool) -> &'static str {
    if on { "enabled" } else { "disabled" }
}

/// `info cluster`.
///
/// # Errors
/// As REST answers.
pub async fn cluster(context: &Context) -> Result<(), Failure> {
    let cluster: ClusterInfo = context.rest.get("/v1/cluster").await?;
    if context.screen.json {
        return context.screen.object(&cluster);
    }
    let mut facts = Facts::of("Cluster configuration");
    facts.add("name", &cluster.name);
    facts.add("cluster_id", &cluster.cluster_id);
    facts.add("created_time", &cluster.created_time);
    facts.add("ca_fingerprint", &cluster.ca_fingerprint);
    facts.add(
        "master",
        cluster
            .primary_node
            .map_or(String::new(), |uid| format!("node:{uid}")),
    );
    facts.add(
        "quorum",
        if cluster.has_quorum {
            "yes"
        } else {
            "NO: nothing can be changed"
        },
    );
    let voters: Vec<String> = cluster
        .voters
        .iter()
        .map(|uid| format!("node:{uid}"))
        .collect();
    facts.add("voters", voters.join(", "));
    facts.add("feature_level", cluster.feature_level.to_string());
    facts.add("upgrade mode", enabled(cluster.upgrade_mode));
    add_policy(&mut facts, &cluster.policy);
    facts.add(
        "cm_session_timeout_minutes",
        cluster.cm_session_timeout_minutes.to_string(),
    );
    facts.add("cm_port", cluster.cm_port.to_string());
    facts.add("cnm_https_port", cluster.cnm_https_port.to_string());
    context.screen.text(&facts.text);
    if !cluster.has_quorum {
        context
            .screen
            .warn("no quorum: what is shown is what this node knew last");
    }
    Ok(())
}

fn add_policy(facts: &mut Facts, policy: &ClusterPolicy) {
    let word = |policy: Option<model::documents::ProxyPolicy>| policy.map_or("", |p| p.as_str());
    facts.add(
        "default_non_sharded_proxy_policy",
        word(policy.default_non_sharded_proxy_policy),
    );
    facts.add(
        "default_sharded_proxy_policy",
        word(policy.default_sharded_proxy_policy),
    );
    facts.add(
        "default_shards_placement",
        placement(policy.default_shards_placement),
    );
    let version = policy
        .default_provisioned_redis_version
        .as_deref()
        .unwrap_or_default();
    facts.add(
        "default_provisioned_redis_version",
        if version.is_empty() {
            "newest"
        } else {
            version
        },
    );
    facts.add("rack_aware", enabled(policy.rack_aware.unwrap_or(false)));
    facts.add(
        "failure_detection_sensitivity",
        match policy.failure_detection_sensitivity {
            Some(Sensitivity::High) => "high",
            Some(Sensitivity::Low) => "low",
            None => "",
        },
    );
    facts.add("slave_ha", enabled(policy.slave_ha.unwrap_or(false)));
    for (name, seconds) in [
        ("slave_ha_grace_period", policy.slave_ha_grace_period),
        ("slave_ha_cooldown_period", policy.slave_ha_cooldown_period),
        (
            "slave_ha_bdb_cooldown_period",
            policy.slave_ha_bdb_cooldown_period,
        ),
    ] {
        facts.add(name, seconds.unwrap_or_default().to_string());
    }
}

fn placement(placement: Option<ShardsPlacement>) -> &'static str {
    match placement {
        Some(ShardsPlacement::Dense) => "dense",
        Some(ShardsPlacement::Sparse) => "sparse",
        None => "",
    }
}

/// `info db`.
///
/// # Errors
/// As REST answers.
pub async fn database(context: &Context, invocation: &Invocation) -> Result<(), Failure> {
    let databases = async {
        match invocation.operand_database() {
            Some(wanted) => Ok(vec![resources::database(context, &wanted).await?]),
            None => Ok(context.rest.get::<Vec<Bdb>>("/v1/bdbs").await?),
        }
    };
    let others = async {
        Ok::<_, Failure>((
            context.rest.get::<ClusterInfo>("/v1/cluster").await?,
            nodes(context).await?,
        ))
    };
    let (databases, (cluster, nodes)) = tokio::try_join!(databases, others)?;
    if context.screen.json {
        let shown: Vec<Bdb> = databases.into_iter().map(without_password).collect();
        return match (invocation.operand.is_some(), shown.first()) {
            (true, Some(one)) => context.screen.object(one),
            _ => context.screen.object(&shown),
        };
    }
    if databases.is_empty() {
        context.screen.line("There are no databases");
    }
    for database in &databases {
        context
            .screen
            .text(&database_facts(database, &cluster, &nodes));
    }
    Ok(())
}

fn database_facts(database: &Bdb, cluster: &ClusterInfo, nodes: &[NodeInfo]) -> String {
    let mut facts = Facts::of(&format!("db:{} [{}]", database.uid, database.name));
    facts.add("status", super::status::databases::status_word(database));
    for endpoint in &database.endpoints {
        facts.add("endpoint", with_port(&endpoint.dns_name, endpoint.port));
        let address = working_address(endpoint, nodes, cluster.local_node);
        facts.add("address", address.as_deref().unwrap_or("none serves now"));
    }
    facts.add(
        "redis_version",
        format!("{}-{}", database.engine, database.redis_version),
    );
    facts.add("memory_size", format_size(database.memory_size));
    facts.add("used_memory", format_size(database.used_memory));
    facts.add("shards_count", database.shards_count.to_string());
    facts.add("shards_placement", placement(database.shards_placement));
    facts.add("replication", enabled(database.replication));
    facts.add("rack_aware", enabled(database.rack_aware));
    facts.add("slave_ha", enabled(database.slave_ha));
    facts.add("slave_ha_priority", database.slave_ha_priority.to_string());
    facts.add("persistence", &database.data_persistence);
    if database.data_persistence == "aof" {
        facts.add("aof_policy", &database.aof_policy);
    }
    for rule in &database.snapshot_policy {
        facts.add(
            "snapshot_policy",
            format!("{} s if {} changed", rule.secs, rule.writes),
        );
    }
    facts.add(
        "eviction_policy",
        database
            .eviction_policy
            .map_or("", |policy| policy.as_str()),
    );
    facts.add(
        "proxy_policy",
        database.proxy_policy.map_or("", |policy| policy.as_str()),
    );
    facts.add("max_connections", database.max_connections.to_string());
    add_limits(&mut facts, database);
    let password = !database.authentication_redis_pass.is_empty();
    facts.add("password", if password { "set" } else { "none" });
    facts.add("exec_state_machine", &database.exec_state_machine);
    facts.add("exec_state", &database.exec_state);
    let tags: Vec<String> = database
        .tags
        .iter()
        .map(|tag| format!("{}={}", tag.key, tag.value))
        .collect();
    facts.add("tags", tags.join(", "));
    facts.add("created_time", &database.created_time);
    facts.add("last_changed_time", &database.last_changed_time);
    facts.text
}

/// Limits in the proxies, 0: none.
fn add_limits(facts: &mut Facts, database: &Bdb) {
    facts.add(
        "max_client_pipeline",
        database.max_client_pipeline.to_string(),
    );
    facts.add(
        "max_commands_per_second",
        database.max_commands_per_second.to_string(),
    );
    facts.add(
        "max_bytes_per_second",
        match database.max_bytes_per_second {
            0 => "0".to_owned(),
            bytes => format_size(bytes),
        },
    );
    facts.add("client_buffer", &database.client_buffer);
    facts.add(
        "slowlog_log_slower_than",
        format!("{} us", database.slowlog_log_slower_than),
    );
    facts.add("slowlog_max_len", database.slowlog_max_len.to_string());
    facts.add(
        "notify_keyspace_events",
        match database.notify_keyspace_events.as_str() {
            "" => "none",
            flags => flags,
        },
    );
}

/// The node of the operand, or all.
async fn chosen_nodes(
    context: &Context,
    invocation: &Invocation,
) -> Result<Vec<NodeInfo>, Failure> {
    let all = nodes(context).await?;
    match invocation.operand_node() {
        Some(uid) => Ok(vec![resources::node(&all, uid)?.clone()]),
        None => Ok(all),
    }
}

/// `info node`.
///
/// # Errors
/// As REST answers; `node_not_found`.
pub async fn node(context: &Context, invocation: &Invocation) -> Result<(), Failure> {
    let shown = chosen_nodes(context, invocation).await?;
    if context.screen.json {
        return match (invocation.operand.is_some(), shown.first()) {
            (true, Some(one)) => context.screen.object(one),
            _ => context.screen.object(&shown),
        };
    }
    for node in &shown {
        context.screen.text(&facts_of_node(node));
    }
    Ok(())
}

fn facts_of_node(node: &NodeInfo) -> String {
    let mut facts = Facts::of(&format!("node:{}", node.uid));
    facts.add(
        "status",
        super::status::nodes::status_word(&node.status, node.last_heard_seconds),
    );
    facts.add("address", &node.addr);
    facts.add("external addresses", node.external_addr.join(", "));
    facts.add("hostname", &node.hostname);
    facts.add("rack_id", &node.rack_id);
    facts.add("software version", &node.software_version);
    facts.add("build", &node.software_version_sha);
    facts.add(
        "feature levels",
        format!("{}-{}", node.feature_min, node.feature_max),
    );
    facts.add("os", &node.os_version);
    facts.add("architecture", &node.architecture);
    facts.add("cores", node.cores.to_string());
    facts.add("memory", format_size(node.total_memory));
    facts.add("host uptime", age(node.uptime as f64));
    facts.add("shards", node.shard_count.to_string());
    facts.add("max redis servers", node.max_redis_servers.to_string());
    facts.add("quorum only", enabled(!node.accept_servers));
    facts.add(
        "persistent storage",
        format!(
            "{} ({} free of {})",
            node.persistent_storage_path,
            format_size(node.persistent_storage_free),
            format_size(node.persistent_storage_size)
        ),
    );
    facts.add("ephemeral storage", &node.ephemeral_storage_path);
    let engines: Vec<String> = node
        .supported_database_versions
        .iter()
        .map(|engine| format!("{}-{}", engine.db_type, engine.version))
        .collect();
    facts.add("engines", engines.join(", "));
    for (name, service) in &node.services {
        let pid = service
            .pid
            .map_or(String::new(), |pid| format!(" (pid {pid})"));
        facts.add(
            &format!("service {name}"),
            format!("{}{pid}", service.status),
        );
    }
    facts.text
}
