//! Starting, being replaced, being killed, serving alone.

use crate::support::client::{Client, words};
use crate::support::node::{Node, VALKEY};
use crate::support::{process, until};
use model::{DatabaseUid, Revision};
use rustix::process::Signal;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

#[test]
fn a_restart_refuses_nobody_and_keeps_everybody() {
    let mut node = Node::start();
    let mut kept: Vec<Client> = (0..20).map(|_| node.client()).collect();
    for client in &mut kept {
        assert!(client.pings());
    }
    let mut subscriber = node.client();
    subscriber.text("SUBSCRIBE news");
    let endpoint = node.endpoint;
    let stop = Arc::new(AtomicBool::new(false));
    let served = Arc::new(AtomicU64::new(0));
    let connecting: Vec<_> = (0..3)
        .map(|_| {
            let (stop, served) = (Arc::clone(&stop), Arc::clone(&served));
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let mut client = Client::connect(endpoint);
                    assert_eq!(client.text("PING"), "+PONG\r\n");
                    served.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for _ in 0..3 {
        let before = served.load(Ordering::Relaxed);
        node.restart_proxy();
        until("more are served", || {
            served.load(Ordering::Relaxed) > before + 50
        });
    }
    stop.store(true, Ordering::Relaxed);
    for thread in connecting {
        thread.join().unwrap();
    }
    // All have gone over to the last one.
    let servers = node.exec.servers();
    let current = node.server();
    until("the old servers end", || {
        servers
            .iter()
            .filter(|pid| **pid != current)
            .all(|pid| !process::runs(*pid))
    });
    for client in &mut kept {
        assert!(client.pings());
    }
    assert_eq!(kept[0].text("PUBLISH news hello"), ":1\r\n");
    assert!(subscriber.raw().ends_with(b"hello\r\n"));
    // Ids go on from one server to the next.
    let id = |client: &mut Client| client.text("CLIENT ID").trim()[1..].parse::<u64>().unwrap();
    assert!(id(&mut node.client()) > id(&mut kept[0]));
    assert!(node.client().pings());
}

#[test]
fn a_killed_server_ends_its_launcher_and_the_next_one_serves() {
    let mut node = Node::start();
    let mut client = node.client();
    assert!(client.pings());
    let server = node.server();
    process::signal(server, Signal::KILL);
    assert!(
        node.launcher_fails(),
        "so that the supervisor starts it again"
    );
    assert!(client.try_raw().is_none());
    // From disk: nobody hands out a configuration before it serves.
    node.launch();
    until("it serves again", || {
        Client::try_connect(node.endpoint).is_some_and(|mut client| client.pings())
    });
    until("the new one speaks", || node.server() != server);
}

#[test]
fn a_server_that_is_stopped_is_replaced() {
    let mut node = Node::start();
    let mut client = node.client();
    assert!(client.pings());
    let server = node.server();
    process::signal(server, Signal::STOP);
    assert!(
        node.launcher_fails(),
        "so that the supervisor starts it again"
    );
    assert!(node.log().contains("the server hangs"));
    assert!(client.try_raw().is_none());
    node.launch();
    until("it serves again", || {
        Client::try_connect(node.endpoint).is_some_and(|mut client| client.pings())
    });
}

#[test]
fn serves_from_disk_without_cnm_exec() {
    let mut node = Node::prepare(VALKEY, |_| {});
    std::fs::write(node.persisted(), serde_json::to_vec(&node.config).unwrap()).unwrap();
    std::fs::remove_file(node.node.proxy_socket()).unwrap();
    node.launch();
    until("it serves", || {
        Client::try_connect(node.endpoint).is_some_and(|mut client| client.pings())
    });
    let launcher = node.launcher_pid();
    for pid in process::children(launcher) {
        process::signal(pid, Signal::KILL);
    }
}

#[test]
fn an_older_configuration_is_not_served() {
    let mut node = Node::start();
    node.reconfigure(|config| config.databases[0].password = Some(model::Secret::new("new")));
    let revision = node.config.revision;
    let mut older = node.config.clone();
    older.revision = Revision(1);
    older.databases.clear();
    node.exec.publish(&older);
    until("it is ignored", || {
        node.log().contains("an older configuration is ignored")
    });
    assert_eq!(node.exec.last().unwrap().applied, revision);
    assert_eq!(node.client().text("AUTH new"), "+OK\r\n");
    // What is kept on disk is the newer one, and another cluster's is another matter.
    let kept: model::proxy::ProxyConfig =
        serde_json::from_slice(&std::fs::read(node.persisted()).unwrap()).unwrap();
    assert_eq!(kept.revision, revision);
    older.cluster_id = "another".to_owned();
    node.exec.publish(&older);
    until("it is served", || {
        node.exec
            .last()
            .is_some_and(|observed| observed.applied == Revision(1))
    });
    until("the endpoint is closed", || {
        TcpStream::connect(node.endpoint).is_err()
    });
}

#[test]
fn endpoints_follow_the_configuration() {
    let mut node = Node::start();
    let mut client = node.client();
    let busy = std::net::SocketAddr::new(node.endpoint.ip(), 12_001);
    let taken = std::net::TcpListener::bind(busy).unwrap();
    node.reconfigure(|config| {
        let mut second = config.databases[0].clone();
        second.uid = DatabaseUid(2);
        second.listen = vec![busy];
        config.databases.push(second);
    });
    until("the reason is told", || {
        node.exec.last().is_some_and(|observed| {
            let second = &observed.databases[1];
            !second.listening
                && second
                    .error
                    .as_deref()
                    .is_some_and(|error| error.contains("12001"))
        })
    });
    drop(taken);
    node.wait_served();
    assert!(Client::connect(busy).pings());
    // A database that is gone takes its clients with it; the other one's stay.
    let mut second = Client::connect(busy);
    assert!(second.pings() && client.pings());
    node.reconfigure(|config| drop(config.databases.pop()));
    assert!(second.try_raw().is_none());
    assert!(TcpStream::connect(busy).is_err());
    assert!(client.pings());
}

#[test]
fn told_to_end_the_server_serves_those_who_are_there_and_told_again_sends_them_away() {
    for again in [false, true] {
        let mut node = Node::start();
        let mut client = node.client();
        assert!(client.pings());
        let server = node.server();
        process::signal(server, Signal::TERM);
        until("no more are accepted", || {
            TcpStream::connect(node.endpoint).is_err()
        });
        assert_eq!(client.text("SET k v"), "+OK\r\n");
        if again {
            process::signal(server, Signal::TERM);
            assert!(client.try_raw().is_none());
        } else {
            drop(client);
        }
        assert!(node.launcher_fails());
        assert!(!process::runs(server));
    }
}

#[test]
fn one_launcher_at_a_time() {
    let mut node = Node::start();
    let server = node.server();
    // The second one waits for the lock, and gets it when the first one ends.
    let first = node.take_launcher();
    node.launch();
    let second = node.launcher_pid();
    until("the second one waits", || process::runs(second));
    assert!(process::children(second).is_empty());
    process::signal(first, Signal::KILL);
    until("the second one's server has taken over", || {
        node.server() != server
    });
    assert!(node.client().pings());
    until("the first server ends", || !process::runs(server));
}

#[test]
fn a_launcher_dies_with_its_supervisor_and_the_server_goes_on() {
    let mut node = Node::prepare(VALKEY, |_| {});
    node.exec.publish(&node.config);
    // A shell plays the supervisor; it is killed.
    let mut supervisor = node.launch_under_shell();
    node.wait_served();
    let mut client = node.client();
    assert!(client.pings());
    let launchers = process::children(supervisor.id());
    assert_eq!(launchers.len(), 1);
    supervisor.kill().unwrap();
    supervisor.wait().unwrap();
    until("the launcher is gone", || !process::runs(launchers[0]));
    until("the server knows", || {
        node.log().contains("waits for a successor")
    });
    assert!(client.pings() && node.client().pings());
    let server = node.server();
    node.launch();
    until("the next one has taken over", || node.server() != server);
    client.send(&words("PING still"));
    assert_eq!(client.raw(), b"$5\r\nstill\r\n");
}
