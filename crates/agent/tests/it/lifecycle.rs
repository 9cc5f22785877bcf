//! Starting, changing and stopping engines.

use crate::bench::*;
use model::Generation;
use model::command::{AgentCommand, EngineSettings};
use model::documents::{EvictionPolicy, Persistence};
use model::observation::EngineState;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_starts_without_a_role() {
    for engine in engines() {
        let node = Node::new();
        let agent = node.agent().await;
        let shard = run(&agent, &spec(engine.clone())).await;
        assert_eq!(
            (shard.role, shard.epoch, shard.error.as_deref()),
            (None, None, None)
        );
        assert_eq!(shard.engine, engine);
        let mut cnm = node.as_cnm();
        let refused = say::<String>(&mut cnm, "SET a 1").unwrap_err();
        assert_eq!(refused.code(), Some("READONLY"), "{engine}");
        let refused = say::<Option<String>>(&mut cnm, "GET a").unwrap_err();
        assert_eq!(refused.code(), Some("MASTERDOWN"), "{engine}");
        assert_eq!(
            say::<Vec<String>>(&mut cnm, "ACL USERS").unwrap(),
            ["cnm", "default"]
        );
        assert!(node.connect("default", "").is_err(), "{engine}");
        // The same order again changes nothing.
        let again = run(&agent, &spec(engine)).await;
        assert_eq!((again.pid, again.run_id), (shard.pid, shard.run_id));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_process_has_nothing_of_ours_but_its_lock() {
    let node = Node::new();
    let agent = node.agent().await;
    let shard = run(&agent, &spec(newest())).await;
    let pid = shard.pid.unwrap();
    let environment = fs::read(format!("/proc/{pid}/environ")).unwrap();
    let environment = String::from_utf8(environment).unwrap();
    let names: Vec<&str> = environment
        .split('\0')
        .filter_map(|one| Some(one.split_once('=')?.0))
        .collect();
    assert!(
        names.iter().all(|name| *name == "LD_LIBRARY_PATH"),
        "{names:?}"
    );
    let descriptor = |number| fs::read_link(format!("/proc/{pid}/fd/{number}")).unwrap();
    assert_eq!(descriptor(0), node.shard_folder().lock_path());
    let log = node.config.node.log_dir().join("redis-1.log");
    assert_eq!((descriptor(1), descriptor(2)), (log.clone(), log));
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let group = stat
        .rsplit_once(')')
        .unwrap()
        .1
        .split_ascii_whitespace()
        .nth(2)
        .unwrap();
    assert_eq!(group, pid.to_string());
    for name in ["ledger.json", "lock", "redis.conf", "users.acl"] {
        let mode = fs::metadata(node.file(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o640, "{name}");
    }
    let socket = node.config.node.shard_socket(SHARD);
    assert_eq!(
        fs::metadata(socket).unwrap().permissions().mode() & 0o777,
        0o770
    );
    let inspection = node.shard_folder().inspect().unwrap();
    assert!(
        inspection.locked && inspection.problem.is_none(),
        "{inspection:?}"
    );
    assert_eq!(
        (inspection.pid_file, inspection.recorded),
        (Some(pid), Some(pid))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_description_changes_what_runs() {
    let node = Node::new();
    let agent = node.agent().await;
    let first = serve(&agent, &spec(newest()), 1).await;
    let mut wanted = spec(newest());
    wanted.generation = Generation(2);
    wanted.settings.memory_bytes = 64 * 1024 * 1024;
    wanted.users.cnm = model::Secret::new("another");
    let second = run(&agent, &wanted).await;
    assert_eq!((second.pid, second.generation), (first.pid, Generation(2)));
    assert_eq!(second.role, first.role);
    assert!(
        node.connect("cnm", "cnm-password").is_err(),
        "the old password is void"
    );
    let mut cnm = node.connect("cnm", "another").unwrap();
    let set: Vec<String> = say(&mut cnm, "CONFIG GET maxmemory").unwrap();
    assert_eq!(set[1], (64 * 1024 * 1024).to_string());

    let old = agent
        .execute(AgentCommand::EnsureEngine(spec(newest())))
        .await;
    assert!(stale(old).contains("generation 2 is known"));
    let mut other = wanted.clone();
    other.port += 1;
    let same = agent
        .execute(AgentCommand::EnsureEngine(other.clone()))
        .await;
    assert!(failed(same).contains("needs a new generation"));

    other.generation = Generation(3);
    let third = run(&agent, &other).await;
    assert_ne!(third.pid, first.pid);
    assert_eq!(
        (third.role, process_state(first.pid.unwrap())),
        (None, None)
    );
    let address = node.config.node.address;
    assert!(std::net::TcpStream::connect((address, PORT + 1)).is_ok());
    assert!(std::net::TcpStream::connect((address, PORT)).is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_engine_loads_the_data_of_the_older() {
    let engines = engines();
    let node = Node::new();
    let agent = node.agent().await;
    let mut wanted = spec(engines[0].clone());
    wanted.settings.persistence = Persistence::AofEveryWrite;
    for (epoch, engine) in (1..).zip(engines) {
        wanted.engine = engine.clone();
        wanted.generation = Generation(epoch);
        let shard = serve(&agent, &wanted, epoch).await;
        assert_eq!(shard.engine, engine);
        let mut proxy = node.as_proxy(epoch).unwrap();
        for earlier in 1..epoch {
            let value = get(&mut proxy, &format!("key-{earlier}"));
            assert_eq!(value.as_deref(), Some("kept"), "{engine} of {earlier}");
        }
        set(&mut proxy, &format!("key-{epoch}"), "kept");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_change_while_it_runs() {
    for engine in engines() {
        let node = Node::new();
        let agent = node.agent().await;
        let shard = serve(&agent, &spec(engine.clone()), 1).await;
        let configure = |generation| AgentCommand::Configure {
            shard: SHARD,
            generation: Generation(generation),
            settings: EngineSettings {
                memory_bytes: 1 << 30,
                eviction_policy: EvictionPolicy::VolatileTtl,
                persistence: Persistence::Snapshot {
                    seconds: 3600,
                    writes: 5,
                },
                notify_keyspace_events: "AKE".to_owned(),
            },
        };
        let after = agent.execute(configure(1)).await.unwrap().unwrap();
        assert_eq!(after.pid, shard.pid);
        let mut cnm = node.as_cnm();
        for (name, value) in [
            ("maxmemory", (1u64 << 30).to_string()),
            ("maxmemory-policy", "volatile-ttl".to_owned()),
            ("notify-keyspace-events", "AKE".to_owned()),
            ("save", "3600 5".to_owned()),
            ("repl-backlog-size", ((1u64 << 30) / 100).to_string()),
        ] {
            let set: Vec<String> = say(&mut cnm, &format!("CONFIG GET {name}")).unwrap();
            assert_eq!(set[1], value, "{engine} {name}");
        }
        stale(agent.execute(configure(0)).await);
        not_yet(agent.execute(configure(2)).await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn all_engines_stop_with_their_data_saved() {
    for engine in engines() {
        let node = Node::new();
        let mut wanted = spec(engine.clone());
        wanted.settings.persistence = Persistence::Snapshot {
            seconds: 3600,
            writes: 1_000_000,
        };
        let agent = node.agent().await;
        let shard = serve(&agent, &wanted, 1).await;
        set(&mut node.as_proxy(1).unwrap(), "a", "saved at the end");
        let stopped = agent.stop_all_engines(Duration::from_secs(20)).await;
        assert_eq!(stopped.len(), 1);
        assert_eq!(
            (stopped[0].shard, stopped[0].trouble.as_deref()),
            (SHARD, None),
            "{engine}"
        );
        assert_eq!(process_state(shard.pid.unwrap()), None);
        seen(&agent, |shard| {
            shard.state == EngineState::Stopped && shard.error.is_none()
        })
        .await;
        let refused = agent
            .execute(AgentCommand::EnsureEngine(wanted.clone()))
            .await;
        assert!(not_yet(refused).contains("being stopped"));
        drop(agent);

        let agent = node.agent().await;
        serve(&agent, &wanted, 2).await;
        let value = get(&mut node.as_proxy(2).unwrap(), "a");
        assert_eq!(value.as_deref(), Some("saved at the end"), "{engine}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_seen_of_an_engine_and_its_host() {
    let node = Node::new();
    let agent = node.agent().await;
    assert_eq!(agent.engines(), engines());
    serve(&agent, &spec(newest()), 1).await;
    let mut proxy = node.as_proxy(1).unwrap();
    for number in 0..10 {
        set(&mut proxy, &format!("k{number}"), "v");
    }
    say::<()>(&mut proxy, "SELECT 3").unwrap();
    set(&mut proxy, "another", "v");
    let shard = seen(&agent, |shard| shard.keys == 11).await;
    assert!(shard.used_memory > 0 && shard.connections >= 2, "{shard:?}");
    let host = agent.host();
    assert!(host.total_memory >= host.free_memory && host.free_memory > 0);
    assert!(host.cores > 0 && host.persistent_size > 0 && host.uptime > 0);
    assert!(!host.hostname.is_empty() && !host.boot_id.is_empty());
    assert!(agent.services().await.is_empty(), "no supervisord here");
}
