//! Installed nodes under supervisord: whatever is killed comes back by itself, once, and the engines
//! and their data are as they were.

use crate::story::{get, set};
use rustix::process::{Pid, Signal, kill_process};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use testkit::installed::{InstalledCluster, InstalledNode};
use testkit::wait;

/// Processes of a node that must each run exactly once. `dmcproxy` runs twice: launcher and server.
const PROGRAMS: [(&str, usize); 4] = [
    ("mainstay-node", 1),
    ("cnm_exec", 1),
    ("cnm_http", 1),
    ("dmcproxy", 2),
];

fn kill(pids: &[u32]) {
    assert!(!pids.is_empty(), "nothing to kill");
    for pid in pids {
        let _ = kill_process(Pid::from_raw(pid.cast_signed()).unwrap(), Signal::KILL);
    }
}

/// Waits until every program of a node runs as often as it should, and supervisord once; then looks
/// again after a while of work, so that a second copy that is just starting is not missed.
fn once(node: &InstalledNode) {
    let count = || {
        let mut counts: Vec<(&str, usize)> = PROGRAMS
            .iter()
            .map(|(name, _)| (*name, node.pids(name).len()))
            .collect();
        counts.push(("supervisord", node.supervisord().len()));
        counts
    };
    let mut wanted = PROGRAMS.to_vec();
    wanted.push(("supervisord", 1));
    wait::until("every program runs once", Duration::from_secs(60), || {
        let found = count();
        if found == wanted {
            Ok(())
        } else {
            Err(format!("{found:?}"))
        }
    })
    .unwrap();
    node.until("rlcheck", &["--suppress-tests", "verify_host_settings"])
        .unwrap();
    assert_eq!(count(), wanted);
}

fn still_the_same(cluster: &InstalledCluster, engine: Option<u32>) {
    let shard = cluster.whole().unwrap();
    assert_eq!(shard.pid, engine, "the engine was restarted");
    for node in 0..3 {
        let value = wait::until("the endpoint serves", Duration::from_secs(20), || {
            let mut connection = cluster.connect(node).map_err(|e| e.to_string())?;
            redis::cmd("GET")
                .arg("key")
                .query::<Option<String>>(&mut connection)
                .map_err(|e| e.to_string())
        });
        assert_eq!(value.unwrap().as_deref(), Some("value"));
    }
}

#[test]
fn whatever_is_killed_comes_back_once() {
    let cluster = InstalledCluster::start().unwrap();
    let shard = cluster.whole().unwrap();
    let holder = usize::try_from(shard.node_uid.0).unwrap() - 1;
    set(&mut cluster.connect(0).unwrap(), "key", "value");
    let node = &cluster.nodes[holder];
    for (program, _) in PROGRAMS.iter().skip(1) {
        kill(&node.pids(program));
        once(node);
        still_the_same(&cluster, shard.pid);
    }
    kill(&node.supervisord());
    once(node);
    still_the_same(&cluster, shard.pid);

    // All at once, as when memory runs out; then mainstay-node is started as an init would.
    let mut all = node.supervisord();
    all.extend(PROGRAMS.iter().flat_map(|(program, _)| node.pids(program)));
    kill(&all);
    let start = node.config.install_dir.join("sbin/mainstay-install");
    let started = std::process::Command::new(start)
        .arg("start")
        .output()
        .unwrap();
    assert!(
        started.status.success(),
        "{}",
        String::from_utf8_lossy(&started.stderr)
    );
    once(node);
    still_the_same(&cluster, shard.pid);
    stopped_and_started(&cluster, node);
}

/// The whole node stopped as for a reboot: the engine is a new process, with its data.
fn stopped_and_started(cluster: &InstalledCluster, node: &InstalledNode) {
    let main = node.config.current().join("bin/mainstay-node");
    let stop = std::process::Command::new(main)
        .arg("stop")
        .output()
        .unwrap();
    assert!(
        stop.status.success(),
        "{}",
        String::from_utf8_lossy(&stop.stderr)
    );
    assert!(node.pids("valkey-server").is_empty() && node.supervisord().is_empty());
    let start = node.config.install_dir.join("sbin/mainstay-install");
    assert!(
        std::process::Command::new(start)
            .arg("start")
            .status()
            .unwrap()
            .success()
    );
    once(node);
    let shard = cluster.whole().unwrap();
    assert!(shard.epoch > 1);
    let mut connection = cluster.connect(2).unwrap();
    assert_eq!(get(&mut connection, "key").as_deref(), Some("value"));
}

/// Clients that stay connected and clients that connect anew, while daemons are restarted by the
/// operator's own command.
#[test]
fn restarts_by_supervisorctl_cost_clients_nothing() {
    let cluster = Arc::new(InstalledCluster::start().unwrap());
    cluster.whole().unwrap();
    let enough = Arc::new(AtomicBool::new(false));
    let served = Arc::new(AtomicU64::new(0));
    let clients: Vec<_> = (0..6)
        .map(|number| {
            let (cluster, enough, served) = (
                Arc::clone(&cluster),
                Arc::clone(&enough),
                Arc::clone(&served),
            );
            std::thread::spawn(move || {
                client(&cluster, number, &enough, &served).map_err(|e| format!("{e:#}"))
            })
        })
        .collect();
    let progress = |word: &str| {
        let before = served.load(Ordering::Relaxed);
        wait::until(
            &format!("clients are served {word}"),
            Duration::from_secs(20),
            || {
                let now = served.load(Ordering::Relaxed);
                if now > before + 200 {
                    Ok(())
                } else {
                    Err(format!("{before} → {now}"))
                }
            },
        )
        .unwrap();
    };
    progress("at first");
    for daemon in ["cnm_exec", "dmcproxy"] {
        for node in &cluster.nodes {
            let restart = node.run("supervisorctl", &["restart", daemon]).unwrap();
            let text = String::from_utf8_lossy(&restart.stdout).into_owned();
            assert!(text.contains("started"), "{text}");
            progress(&format!("after a restart of {daemon}"));
            cluster.whole().unwrap();
        }
    }
    enough.store(true, Ordering::Relaxed);
    for client in clients {
        client.join().unwrap().unwrap();
    }
}

/// Even clients keep one connection, odd ones connect for each write.
fn client(
    cluster: &InstalledCluster,
    number: usize,
    enough: &AtomicBool,
    served: &AtomicU64,
) -> anyhow::Result<()> {
    let mut kept = cluster.connect(number % 3)?;
    for count in 0_u64.. {
        if enough.load(Ordering::Relaxed) {
            return Ok(());
        }
        let key = format!("client{number}");
        let mut fresh = (number % 2 == 1)
            .then(|| cluster.connect(number % 3))
            .transpose()?;
        let connection = fresh.as_mut().unwrap_or(&mut kept);
        redis::cmd("SET")
            .arg(&key)
            .arg(count)
            .query::<()>(connection)?;
        let found: u64 = redis::cmd("GET").arg(&key).query(connection)?;
        anyhow::ensure!(found == count, "{key} is {found}, not {count}");
        served.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}
