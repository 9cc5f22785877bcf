//! Commands that operators know and that this release does not have: they are answered by name, not
//! as if they were mistyped.

use super::commands::COMMANDS;
use super::failure::Failure;

/// A command of a later release.
#[derive(Clone, Copy, Debug)]
pub struct Later {
    /// Its words; one in `<…>` stands for any word.
    pub words: &'static [&'static str],
    /// What there is instead.
    pub remedy: Option<&'static str>,
}

/// Keywords of a later release in a command that there is.
#[derive(Clone, Copy, Debug)]
pub struct LaterWords {
    /// The command.
    pub command: &'static [&'static str],
    /// The keywords.
    pub words: &'static [&'static str],
    /// What there is instead.
    pub remedy: Option<&'static str>,
}

const fn later(words: &'static [&'static str]) -> Later {
    Later {
        words,
        remedy: None,
    }
}

const fn instead(words: &'static [&'static str], remedy: &'static str) -> Later {
    Later {
        words,
        remedy: Some(remedy),
    }
}

const BY_ITSELF: &str =
    "A database comes back by itself when its nodes do: see `rladmin status databases`.";

/// The commands. One that a release brings is taken out here.
pub const LATER: &[Later] = &[
    instead(
        &["bind"],
        "`rladmin tune db <db> proxy_policy <policy>` says which proxies serve a database.",
    ),
    later(&["cluster", "backup"]),
    later(&["cluster", "certificate"]),
    later(&["cluster", "change_password_hashing_algorithm"]),
    later(&["cluster", "debug_info"]),
    later(&["cluster", "ocsp"]),
    instead(
        &["cluster", "recover"],
        "A cluster goes on by itself when a majority of its voters is back.",
    ),
    later(&["cluster", "reset_password"]),
    later(&["cluster", "stats_archiver"]),
    later(&["info", "metrics"]),
    later(&["metrics"]),
    later(&["node", "<node>", "addr"]),
    later(&["node", "<node>", "external_addr"]),
    later(&["node", "<node>", "recovery_path"]),
    instead(
        &["placement"],
        "The placement is fixed by `rladmin create db … shards_placement`.",
    ),
    instead(&["recover", "all"], BY_ITSELF),
    instead(&["recover", "db"], BY_ITSELF),
    instead(&["recover", "list"], BY_ITSELF),
    later(&["recover", "s3_import"]),
    later(&["restart"]),
    later(&["suffix", "add"]),
    later(&["suffix", "delete"]),
    later(&["suffix", "list"]),
    later(&["tune", "node"]),
    instead(
        &["upgrade"],
        "Databases keep their engine; `cluster upgrade` is about the release of the nodes.",
    ),
];

/// Keywords in commands that there are.
pub const LATER_WORDS: &[LaterWords] = &[
    LaterWords {
        command: &["cluster", "create"],
        words: &[
            "ccs_persistent_path",
            "ephemeral_path",
            "flash_enabled",
            "flash_path",
            "license_file",
            "node_uid",
            "persistent_path",
            "register_dns_suffix",
            "second_rack_id",
        ],
        remedy: None,
    },
    LaterWords {
        command: &["cluster", "create"],
        words: &["rack_aware"],
        remedy: Some(
            "`rladmin tune cluster rack_aware enabled` turns it on, when every node has a rack.",
        ),
    },
    LaterWords {
        command: &["cluster", "join"],
        words: &[
            "accept_servers",
            "ccs_persistent_path",
            "client_cert",
            "client_key",
            "cnm_http_port",
            "ephemeral_path",
            "flash_enabled",
            "flash_path",
            "override_rack_id",
            "override_repair",
            "persistent_path",
            "replace_node",
            "second_rack_id",
        ],
        remedy: None,
    },
    LaterWords {
        command: &["cluster", "config"],
        words: &[
            "auditing",
            "availability_lag_tolerance_ms",
            "bigstore_driver",
            "cipher_suites",
            "cm_port",
            "cnm_http_port",
            "cnm_https_port",
            "control_cipher_suites",
            "crdb_coordinator_port",
            "data_cipher_list",
            "data_cipher_suites_tls_1_3",
            "debuginfo_path",
            "encrypt_pkeys",
            "envoy_admin_port",
            "envoy_mgmt_server_port",
            "external_ipv6",
            "handle_metrics_redirects",
            "handle_redirects",
            "http_support",
            "ipv6",
            "min_control_TLS_version",
            "min_data_TLS_version",
            "min_sentinel_TLS_version",
            "options_method_forbidden",
            "reserved_ports",
            "s3_ca_cert",
            "s3_url",
            "sentinel_cipher_suites",
            "sentinel_tls_mode",
            "services",
            "upgrade_mode",
        ],
        remedy: None,
    },
    LaterWords {
        command: &["tune", "cluster"],
        words: &[
            "acl_pubsub_default",
            "auto_recovery",
            "automatic_node_offload",
            "control_plane_basic_authentication",
            "data_internode_encryption",
            "db_conns_auditing",
            "default_concurrent_restore_actions",
            "default_oss_sharding",
            "default_recovery_wait_time",
            "default_tracking_table_max_keys_policy",
            "expose_hostnames_for_all_suffixes",
            "filter_node_wd_health_metrics",
            "login_lockout_counter_reset_after",
            "login_lockout_duration",
            "login_lockout_threshold",
            "max_redis_forks",
            "max_saved_events_per_type",
            "max_simultaneous_backups",
            "max_slave_full_syncs",
            "metrics_exporter_expose_bdb_name",
            "parallel_shards_upgrade",
            "redis_migrate_node_threshold",
            "redis_migrate_node_threshold_percent",
            "redis_provision_node_threshold",
            "redis_provision_node_threshold_percent",
            "redis_upgrade_policy",
            "repl_diskless",
            "resp3_default",
            "show_internals",
        ],
        remedy: None,
    },
    LaterWords {
        command: &["migrate"],
        words: &["commit", "endpoint_to_shards", "restrict_target_node"],
        remedy: Some(
            "An endpoint is on the nodes of its primaries: it goes with them, there is nothing to bring to it.",
        ),
    },
    LaterWords {
        command: &["migrate"],
        words: &["max_concurrent_bdb_migrations"],
        remedy: Some(
            "All databases are worked on at the same time, each with one shard after the other.",
        ),
    },
    LaterWords {
        command: &["node", "<node>", "maintenance_mode", "on"],
        words: &["evict_active_active_replica"],
        remedy: None,
    },
    LaterWords {
        command: &["node", "<node>", "enslave"],
        words: &["endpoints_only"],
        remedy: Some(
            "An endpoint is on the nodes of its primaries: it goes with them, or `rladmin tune db <db> \
             proxy_policy` says which proxies serve it.",
        ),
    },
    LaterWords {
        command: &["node", "<node>", "remove"],
        words: &["wait_for_persistence"],
        remedy: Some("Shards move while they serve: nothing has to be written to disk first."),
    },
    LaterWords {
        command: &["tune", "cluster"],
        words: &["watchdog_profile"],
        remedy: Some("`rladmin tune cluster failure_detection_sensitivity` is its newer form."),
    },
    LaterWords {
        command: &["tune", "db"],
        words: &["conns", "conns_type", "max_shard_pipeline", "schedpolicy"],
        remedy: Some(
            "Each thread of a proxy has one connection to each shard, which all of its clients share: \
             there is nothing to choose. `max_client_pipeline` bounds a client, `rladmin tune proxy \
             <node> threads` the threads.",
        ),
    },
    LaterWords {
        command: &["tune", "db"],
        words: &["maxclients"],
        remedy: Some(
            "Clients connect to proxies, not to shards: `rladmin tune db <db> max_connections` bounds \
             them.",
        ),
    },
    LaterWords {
        command: &["tune", "proxy"],
        words: &["client_eviction"],
        remedy: Some(
            "No client is ended for memory: what a client may hold is bounded by `rladmin tune db <db> \
             client_buffer`.",
        ),
    },
    LaterWords {
        command: &["tune", "proxy"],
        words: &[
            "incoming_connections_capacity",
            "incoming_connections_min_capacity",
            "incoming_connections_rate_limit",
        ],
        remedy: Some("`rladmin tune db <db> max_connections` bounds the clients of a database."),
    },
    LaterWords {
        command: &["tune", "db"],
        words: &["redis_version"],
        remedy: Some(
            "A database keeps the engine with which it was created (`rladmin create db … redis_version`): no \
             command changes it.",
        ),
    },
    LaterWords {
        command: &["tune", "db"],
        words: &["port", "shards_count", "shards_placement"],
        remedy: Some("It is fixed when the database is created: see `rladmin help create db`."),
    },
    LaterWords {
        command: &["tune", "db"],
        words: &[
            "continue_on_error",
            "crdt_repl_backlog",
            "crdt_xadd_id_uniqueness_mode",
            "data_internode_encryption",
            "db_conns_auditing",
            "gradual_src_mode",
            "gradual_sync_max_shards_per_source",
            "gradual_sync_mode",
            "master_persistence",
            "max_aof_file_size",
            "max_aof_load_time",
            "metrics_export_all",
            "mkms",
            "module_config_params",
            "module_name",
            "mtls_allow_outdated_certs",
            "mtls_allow_weak_hashing",
            "oss_cluster",
            "oss_cluster_api_preferred_ip_type",
            "repl_backlog",
            "repl_diskless",
            "repl_timeout",
            "resp3",
            "skip_import_analyze",
            "slave_buffer",
            "syncer_mode",
            "syncer_monitoring",
            "tracking_table_max_keys",
        ],
        remedy: None,
    },
];

/// The answer to words that begin with a command of a later release, or are the beginning of one and
/// of no command that there is.
#[must_use]
pub fn command(words: &[String]) -> Option<Failure> {
    let agree = |later: &Later| {
        let same = |(a, b): (&&str, &String)| a.starts_with('<') || a == b;
        later.words.iter().zip(words).all(same)
    };
    let whole = LATER
        .iter()
        .find(|later| words.len() >= later.words.len() && agree(later));
    if let Some(later) = whole {
        return Some(answer(format!("'{}'", later.words.join(" ")), later.remedy));
    }
    let first = words.first()?;
    let begins = LATER.iter().any(agree) && COMMANDS.iter().all(|c| c.words[0] != first);
    begins.then(|| answer(format!("'{first}'"), None))
}

/// The answer to a keyword of a later release in a command that there is.
#[must_use]
pub fn keyword(command: &[&str], word: &str) -> Option<Failure> {
    let known = LATER_WORDS
        .iter()
        .find(|later| later.command == command && later.words.contains(&word))?;
    let what = format!("'{word}' of '{}'", command.join(" "));
    Some(answer(what, known.remedy))
}

fn answer(what: String, remedy: Option<&'static str>) -> Failure {
    Failure::NotInRelease {
        message: format!("{what} is not in this release."),
        remedy,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rladmin::grammar::Kind;
    use crate::rladmin::help::help;
    use crate::rladmin::parse::parse;

    fn refused(words: &[&str]) -> String {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        match parse(&words) {
            Err(failure @ Failure::NotInRelease { .. }) => failure.to_string(),
            other => panic!("{words:?}: {other:?}"),
        }
    }

    /// The words of an entry as an operator would type them.
    fn typed(later: &Later) -> Vec<&'static str> {
        let fill = |word: &&'static str| if word.starts_with('<') { "1" } else { *word };
        later.words.iter().map(fill).collect()
    }

    #[test]
    fn every_command_of_a_later_release_is_answered_by_name() {
        for later in LATER {
            let wanted = format!("'{}' is not in this release.", later.words.join(" "));
            let words = typed(later);
            assert_eq!(refused(&words), wanted);
            let more = ["db", "demo", "shard", "1", "--json", "-y"];
            assert_eq!(refused(&[&words[..], &more].concat()), wanted);
            assert_eq!(refused(&[&["-y"], &words[..]].concat()), wanted);
            let topic: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
            assert_eq!(help(&topic).unwrap_err().to_string(), wanted);
        }
    }

    #[test]
    fn every_keyword_of_a_later_release_is_answered_by_name() {
        for later in LATER_WORDS {
            let command = COMMANDS
                .iter()
                .find(|c| c.words == later.command)
                .expect("a command that there is");
            for word in later.words {
                assert!(command.field(word).is_none(), "{word} is in this release");
                let mut words = later.command.to_vec();
                words.extend(command.operand.map(|operand| match operand.kind {
                    Kind::NodeOrAll => "all",
                    _ => "demo",
                }));
                words.extend([word, "enabled"]);
                let wanted = format!(
                    "'{word}' of '{}' is not in this release.",
                    later.command.join(" ")
                );
                assert_eq!(refused(&words), wanted);
            }
        }
    }

    #[test]
    fn the_beginning_of_one_too_but_not_what_is_mistyped() {
        assert_eq!(refused(&["recover"]), "'recover' is not in this release.");
        for words in [
            &["failovr"][..],
            &["node"],
            &["node", "3"],
            &["node", "1", "frobnicate"],
            &["node", "x", "remove"],
            &["recover", "everything"],
            &["cluster", "recovr"],
            &["cluster"],
            &["tune", "db", "demo", "slave_hat", "x"],
        ] {
            let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
            let failure = parse(&words).unwrap_err();
            assert!(
                matches!(failure, Failure::Usage { .. }),
                "{words:?}: {failure}"
            );
        }
    }

    #[test]
    fn nothing_is_in_this_release_and_in_a_later_one() {
        for later in LATER {
            let same = |c: &&crate::rladmin::grammar::Command| {
                later.words.iter().zip(c.words).all(|(a, b)| a == b)
            };
            let found = COMMANDS.iter().find(same);
            assert!(found.is_none(), "{:?}", later.words);
            if let Some(remedy) = later.remedy {
                assert!(remedy.ends_with('.'), "{remedy}");
            }
        }
        let overview = help(&[]).unwrap();
        assert!(overview.contains("failover") && !overview.contains("recover"));
    }
}
