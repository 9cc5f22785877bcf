//! A network that drops what is sent, and tells nobody: no connection breaks by itself.

use crate::story::{served, set, shards};
use std::time::Duration;
use testkit::cluster::{Cluster, Surroundings};
use testkit::wait;

/// Clients of a node that does not reach a master's node any more are told so, and nothing that they were told of is
/// carried out later.
#[test]
fn clients_hear_that_a_master_is_out_of_reach() {
    let surroundings = Surroundings {
        apart: true,
        ..Surroundings::default()
    };
    let mut cluster = Cluster::start_with(3, surroundings).unwrap();
    let words = "demo memory_size 64MB port 12000 proxy_policy all-nodes";
    let words: Vec<&str> = words.split(' ').collect();
    cluster.create_db(&words).unwrap();
    let master = shards(&cluster, 0)[0].node_uid.0;
    let master = u8::try_from(master).unwrap();
    let here = usize::from(master % 3);
    let node = u8::try_from(here + 1).unwrap();
    for both_ways in [false, true] {
        let mut clients: Vec<_> = (0..2).map(|_| served(&cluster, here, 12000)).collect();
        for client in &mut clients {
            client
                .set_read_timeout(Some(Duration::from_secs(60)))
                .unwrap();
            set(client, "key", "before");
        }
        let apart = cluster.apart().unwrap();
        apart.cut(master, node).unwrap();
        if both_ways {
            apart.cut(node, master).unwrap();
        }
        for client in &mut clients {
            let answer = redis::cmd("SET").arg(&["key", "cut"]).query::<()>(client);
            let error = answer.unwrap_err();
            assert!(error.code().is_some(), "an answer of the proxy: {error}");
            // The connection stays.
            redis::cmd("CLIENT").arg("ID").query::<u64>(client).unwrap();
        }
        cluster.apart().unwrap().heal().unwrap();
        wait::until(
            "the master is reached again",
            Duration::from_secs(60),
            || {
                let answer = redis::cmd("SET")
                    .arg(&["key", "after"])
                    .query::<()>(&mut clients[0]);
                answer.map_err(|error| error.to_string())
            },
        )
        .unwrap();
        // Whatever was sent into the cut has been thrown away by its sender.
        for client in &mut clients {
            let value = redis::cmd("GET")
                .arg("key")
                .query::<String>(client)
                .unwrap();
            assert_eq!(value, "after");
        }
    }
}
