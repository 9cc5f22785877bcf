//! What becomes of each field of `INFO`. `docs/several-shards.md` has the same for people.

use super::{decimals, extreme, number, shown, sum};

/// How the values of the shards become one. What cannot be computed keeps the first shard's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rule {
    /// The first shard's.
    First,
    /// `role`: the database takes writes.
    Primary,
    /// The sum.
    Sum,
    /// The greatest.
    Maximum,
    /// The least.
    Minimum,
    /// The sum of limits; 0, no limit, if a shard has none.
    Limit,
    /// The first value that is not the usual one.
    Unlike(&'static str),
    /// Another field's merged value, for people.
    Human(&'static str),
    /// The quotient of two fields' merged values.
    Quotient {
        of: &'static str,
        by: &'static str,
        unit: Unit,
    },
    /// The mean, weighted with another field.
    Weighted(&'static str),
    /// `used_memory_dataset_perc`.
    Dataset,
    /// `name=number` pairs, merged by name.
    Pairs,
}

/// How a quotient is written, with two digits after the point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    Plain,
    Percent,
}

/// Fields that are not added up though numbers of their kind are.
const EXCEPTIONS: &[(&str, Rule)] = &[
    // Clients
    ("maxclients", Rule::Minimum),
    ("client_recent_max_input_buffer", Rule::Maximum),
    ("client_recent_max_output_buffer", Rule::Maximum),
    ("client_longest_output_list", Rule::Maximum),
    ("client_biggest_input_buf", Rule::Maximum),
    ("paused_reason", Rule::Unlike("none")),
    ("paused_actions", Rule::Unlike("none")),
    ("paused_timeout_milliseconds", Rule::Maximum),
    // Memory
    ("used_memory_human", Rule::Human("used_memory")),
    ("used_memory_rss_human", Rule::Human("used_memory_rss")),
    ("used_memory_peak_human", Rule::Human("used_memory_peak")),
    ("used_memory_lua_human", Rule::Human("used_memory_lua")),
    (
        "used_memory_vm_total_human",
        Rule::Human("used_memory_vm_total"),
    ),
    (
        "used_memory_scripts_human",
        Rule::Human("used_memory_scripts"),
    ),
    ("maxmemory", Rule::Limit),
    ("maxmemory_human", Rule::Human("maxmemory")),
    ("maxmemory_policy", Rule::First),
    ("total_system_memory", Rule::Maximum),
    (
        "total_system_memory_human",
        Rule::Human("total_system_memory"),
    ),
    (
        "used_memory_peak_perc",
        quotient("used_memory", "used_memory_peak", Unit::Percent),
    ),
    ("used_memory_dataset_perc", Rule::Dataset),
    (
        "mem_fragmentation_ratio",
        quotient("used_memory_rss", "used_memory", Unit::Plain),
    ),
    ("allocator_frag_ratio", Rule::Weighted("used_memory")),
    ("allocator_rss_ratio", Rule::Weighted("used_memory")),
    ("rss_overhead_ratio", Rule::Weighted("used_memory")),
    // Scripts and functions are on all shards.
    ("number_of_cached_scripts", Rule::Maximum),
    ("number_of_functions", Rule::Maximum),
    ("number_of_libraries", Rule::Maximum),
    ("active_defrag_running", Rule::Maximum),
    // Persistence
    ("loading", Rule::Maximum),
    ("async_loading", Rule::Maximum),
    ("loading_start_time", Rule::Minimum),
    ("loading_loaded_perc", Rule::Minimum),
    ("loading_eta_seconds", Rule::Maximum),
    ("current_cow_size_age", Rule::Maximum),
    ("current_fork_perc", Rule::Maximum),
    ("rdb_last_save_time", Rule::Minimum),
    ("aof_enabled", Rule::Maximum),
    ("aof_rewrite_scheduled", Rule::Maximum),
    // Stats
    ("expired_stale_perc", Rule::Maximum),
    ("expired_keys_with_volatile_items_stale_perc", Rule::Maximum),
    ("current_eviction_exceeded_time", Rule::Maximum),
    ("current_active_defrag_time", Rule::Maximum),
    ("latest_fork_usec", Rule::Maximum),
    ("instantaneous_eventloop_duration_usec", Rule::Maximum),
    // A pattern is subscribed on every shard.
    ("pubsub_patterns", Rule::Maximum),
    // Scripting Engines
    ("engines_count", Rule::Maximum),
    // Server
    ("uptime_in_seconds", Rule::Minimum),
    ("uptime_in_days", Rule::Minimum),
    ("server_time_usec", Rule::Maximum),
];

const fn quotient(of: &'static str, by: &'static str, unit: Unit) -> Rule {
    Rule::Quotient { of, by, unit }
}

/// What newer engines may add, by the end of the name.
const ENDINGS: &[(&str, Rule)] = &[
    ("_human", Rule::First),
    ("_status", Rule::Unlike("ok")),
    ("_in_progress", Rule::Maximum),
    ("_time_sec", Rule::Maximum),
    ("_ratio", Rule::Maximum),
    ("_perc", Rule::Maximum),
    ("_consecutive_failures", Rule::Maximum),
];

/// The rule of a field in the section of that title. Numbers that nothing is known of are added up,
/// except in sections that describe the server.
pub(super) fn rule(title: &str, field: &str) -> Rule {
    match (title, field) {
        ("Replication", "role") => return Rule::Primary,
        ("Replication" | "Modules" | "Cluster" | "TLS", _) => return Rule::First,
        ("Commandstats" | "Errorstats" | "Latencystats" | "Keyspace", _) => return Rule::Pairs,
        ("Scripting Engines", _) if field.starts_with("engine_") => return Rule::Pairs,
        _ => {}
    }
    let known = EXCEPTIONS.iter().find(|(name, _)| *name == field);
    if let Some((_, rule)) = known {
        return *rule;
    }
    if title == "Server" {
        return Rule::First;
    }
    let ending = ENDINGS.iter().find(|(end, _)| field.ends_with(end));
    ending.map_or(Rule::Sum, |(_, rule)| *rule)
}

/// `calls=1,usec=2` of several shards: every pair by its name, in the first one's order.
pub(super) fn merged_pairs(title: &str, values: &[&str]) -> String {
    let shards: Vec<Vec<(&str, &str)>> = values
        .iter()
        .map(|value| {
            let pairs = value.split(',');
            pairs.filter_map(|pair| pair.split_once('=')).collect()
        })
        .collect();
    let mut names: Vec<&str> = Vec::new();
    for (name, _) in shards.iter().flatten() {
        if !names.contains(name) {
            names.push(name);
        }
    }
    let merged = names
        .into_iter()
        .map(|name| format!("{name}={}", pair(title, name, &shards)));
    merged.collect::<Vec<_>>().join(",")
}

fn pair(title: &str, name: &str, shards: &[Vec<(&str, &str)>]) -> String {
    let all = |wanted: &str| -> Vec<&str> {
        let found = shards
            .iter()
            .filter_map(|pairs| pairs.iter().find(|(name, _)| *name == wanted));
        found.map(|(_, value)| *value).collect()
    };
    let values = all(name);
    let first = values.first().copied().unwrap_or_default();
    let total = |name: &str| number(&sum(&all(name))?);
    let merged = match (title, name) {
        ("Latencystats", _) => extreme(&values, |one, other| one > other),
        ("Commandstats", "usec_per_call") => total("usec")
            .zip(total("calls"))
            .map(|(usec, calls)| usec / calls)
            .map(|each| if each.is_finite() { each } else { 0.0 })
            .map(|each| shown(each, decimals(first))),
        ("Keyspace", "avg_ttl") => average_ttl(shards),
        ("Scripting Engines", "abi_version") => None,
        _ => sum(&values),
    };
    merged.unwrap_or_else(|| first.to_owned())
}

/// The mean of the shards' means, weighted with the number of their keys that expire; ms.
fn average_ttl(shards: &[Vec<(&str, &str)>]) -> Option<String> {
    let (mut sum, mut weight) = (0_u128, 0_u128);
    for pairs in shards {
        let of = |wanted: &str| -> Option<u64> {
            let (_, value) = pairs.iter().find(|(name, _)| *name == wanted)?;
            value.parse().ok()
        };
        // Before the engine's first look at a shard's keys it says 0, which is no mean.
        if let (Some(keys), Some(mean @ 1..)) = (of("expires"), of("avg_ttl")) {
            sum = sum.saturating_add(u128::from(keys) * u128::from(mean));
            weight += u128::from(keys);
        }
    }
    Some(sum.checked_div(weight).unwrap_or(0).to_string())
}
