//! `CLIENT LIST`, `KILL`, `UNBLOCK`, `PAUSE` and `UNPAUSE` mean the clients of every node that serves a database.

use crate::hangs::signal;
use crate::story::{get, primary, seen, served, set};
use redis::{Connection, FromRedisValue, RedisResult};
use rustix::process::Signal;
use std::time::Duration;
use testkit::cluster::Cluster;
use testkit::wait;

const PORT: u16 = 12_000;
const SOON: Duration = Duration::from_secs(30);

fn client<T: FromRedisValue>(connection: &mut Connection, line: &str) -> RedisResult<T> {
    let mut command = redis::cmd("CLIENT");
    for word in line.split_whitespace() {
        command.arg(word);
    }
    command.query(connection)
}

fn id(connection: &mut Connection) -> u64 {
    client(connection, "ID").unwrap()
}

/// A field of each line of a list.
fn fields<'a>(list: &'a str, name: &str) -> Vec<&'a str> {
    let lines = list.lines();
    let field = |line: &'a str| line.split(' ').find_map(|field| field.strip_prefix(name));
    lines.filter_map(field).collect()
}

/// Asks until the answer is what is wanted: a node may have been late.
fn until<T: FromRedisValue + PartialEq + std::fmt::Debug>(
    connection: &mut Connection,
    line: &str,
    wanted: impl Fn(&T) -> bool,
) -> T {
    wait::until(line, SOON, || match client::<T>(connection, line) {
        Ok(answer) if wanted(&answer) => Ok(answer),
        other => Err(format!("{other:?}")),
    })
    .unwrap()
}

/// The first answer that no node was too late for, and whether one was before: then what was asked may have been done by
/// the time it was asked again.
fn answered<T: FromRedisValue>(connection: &mut Connection, line: &str) -> (RedisResult<T>, bool) {
    let mut late = false;
    let answer = wait::until(line, SOON, || match client::<T>(connection, line) {
        Err(error) if error.code() == Some("TRYAGAIN") => {
            late = true;
            Err(error.to_string())
        }
        answer => Ok(answer),
    });
    (answer.unwrap(), late)
}

/// So many were there to be closed or freed.
fn counts(connection: &mut Connection, line: &str, wanted: u64) {
    let (answer, late) = answered::<u64>(connection, line);
    let answer = answer.unwrap();
    assert!(
        answer == wanted || (late && answer < wanted),
        "{line}: {answer}"
    );
}

fn all_are_listed(clients: &mut [Connection]) {
    let mut ids: Vec<u64> = clients.iter_mut().map(id).collect();
    ids.sort_unstable();
    for connection in clients {
        let list: String = until(connection, "LIST", |list: &String| {
            let known = fields(list, "id=");
            ids.iter()
                .all(|id| known.contains(&id.to_string().as_str()))
        });
        let known: Vec<u64> = fields(&list, "id=")
            .iter()
            .map(|id| id.parse().unwrap())
            .collect();
        assert!(known.is_sorted(), "{known:?}");
    }
}

fn closed(connection: &mut Connection) {
    let answer = redis::cmd("PING").query::<String>(connection);
    assert!(answer.is_err(), "{answer:?}");
}

/// Those that a client of another node names are closed, and nobody else.
fn killed_from_elsewhere(cluster: &Cluster, asker: &mut Connection) {
    let mut victims: Vec<Connection> = (0..3).map(|_| served(cluster, 2, PORT)).collect();
    let line = format!("KILL ID {}", id(&mut victims[0]));
    counts(asker, &line, 1);
    counts(asker, &line, 0);
    closed(&mut victims[0]);
    let info: String = client(&mut victims[1], "INFO").unwrap();
    let line = format!("KILL {}", fields(&info, "addr=")[0]);
    let (first, late) = answered::<String>(asker, &line);
    assert!(late || first.unwrap() == "OK");
    let error = answered::<String>(asker, &line).0.unwrap_err();
    assert!(error.to_string().contains("No such client"), "{error}");
    closed(&mut victims[1]);
    // Of two nodes at once; the one that asks is spared.
    let mut near = served(cluster, 0, PORT);
    for connection in [&mut near, &mut victims[2]] {
        client::<String>(connection, "SETNAME victim").unwrap();
    }
    counts(asker, "KILL NAME victim", 2);
    closed(&mut near);
    closed(&mut victims[2]);
    counts(asker, "KILL TYPE normal MAXAGE 100000", 0);
}

fn freed_from_elsewhere(cluster: &Cluster, asker: &mut Connection) {
    let mut waits = served(cluster, 1, PORT);
    let line = format!("UNBLOCK {}", id(&mut waits));
    counts(asker, &line, 0);
    std::thread::scope(|scope| {
        let freed = scope.spawn(|| redis::cmd("BLPOP").arg("none").arg(0).query(&mut waits));
        wait::until(&line, SOON, || {
            let (answer, late) = answered::<u64>(asker, &line);
            let freed = answer.unwrap() == 1 || (late && freed.is_finished());
            if freed {
                Ok(())
            } else {
                Err("it does not block yet".to_owned())
            }
        })
        .unwrap();
        let answer: Option<(String, String)> = freed.join().unwrap().unwrap();
        assert_eq!(answer, None);
    });
}

/// Writes wait at every node, until they are let go on from another one.
fn paused_from_elsewhere(cluster: &Cluster, [first, second]: [&mut Connection; 2]) {
    let mut writers: Vec<Connection> = (0..3).map(|node| served(cluster, node, PORT)).collect();
    let (paused, _) = answered::<String>(first, "PAUSE 3600000 WRITE");
    assert_eq!(paused.unwrap(), "OK");
    std::thread::scope(|scope| {
        let written: Vec<_> = writers
            .iter_mut()
            .map(|writer| scope.spawn(|| set(writer, "paused", "written")))
            .collect();
        until(second, "LIST", |list: &String| {
            let flags = fields(list, "flags=");
            flags.iter().filter(|flags| flags.contains('b')).count() == written.len()
        });
        assert_eq!(get(first, "paused"), None);
        assert_eq!(answered::<String>(second, "UNPAUSE").0.unwrap(), "OK");
        for written in written {
            written.join().unwrap();
        }
    });
    assert_eq!(get(first, "paused").as_deref(), Some("written"));
}

/// A node whose `cnm_exec` hangs is named, and is not waited for longer than a moment.
fn one_does_not_answer(cluster: &Cluster) {
    let hangs = (0..3).find(|node| *node != primary(cluster)).unwrap();
    let mut clients: Vec<Connection> = (0..3).map(|node| served(cluster, node, PORT)).collect();
    let asker = (hangs + 1) % 3;
    let ids: Vec<u64> = clients.iter_mut().map(id).collect();
    let pid = cluster.nodes[hangs].pid("cnm_exec");
    signal(pid, Signal::STOP);
    let node = format!("node:{}", hangs + 1);
    let connection = &mut clients[asker];
    for line in [
        "KILL TYPE pubsub".to_owned(),
        "PAUSE 1 WRITE".to_owned(),
        "UNPAUSE".to_owned(),
        format!("UNBLOCK {}", ids[hangs]),
    ] {
        let error = client::<redis::Value>(connection, &line).unwrap_err();
        assert_eq!(error.code(), Some("TRYAGAIN"), "{line}: {error}");
        assert!(error.to_string().contains(&node), "{line}: {error}");
    }
    // What concerns others alone is answered as ever.
    let other = ids[(hangs + 2) % 3];
    counts(connection, &format!("UNBLOCK {other}"), 0);
    let other = other.to_string();
    let list = until(connection, "LIST", |list: &String| {
        fields(list, "id=").contains(&other.as_str())
    });
    let known = fields(&list, "id=");
    assert!(!known.contains(&ids[hangs].to_string().as_str()), "{list}");
    signal(pid, Signal::CONT);
    until(connection, "KILL TYPE pubsub", |killed: &u64| *killed == 0);
    all_are_listed(&mut clients);
}

#[test]
fn every_node_answers_for_its_clients() {
    let cluster = Cluster::start(3).unwrap();
    let words = "create db demo memory_size 64MB port 12000 proxy_policy all-nodes";
    let words: Vec<&str> = words.split_whitespace().collect();
    let output = cluster.nodes[0].rladmin(&words).unwrap();
    assert!(output.status.success(), "{}", seen(&output));
    let mut clients: Vec<Connection> = (0..3).map(|node| served(&cluster, node, PORT)).collect();
    all_are_listed(&mut clients);
    let [first, second, _] = clients.as_mut_slice() else {
        panic!("three nodes");
    };
    killed_from_elsewhere(&cluster, first);
    freed_from_elsewhere(&cluster, first);
    paused_from_elsewhere(&cluster, [first, second]);
    one_does_not_answer(&cluster);
}
