//! A connection of a client's own that breaks while it is greeted.

use crate::fault::{key_at, relayed};
use crate::support::client::{Client, words};
use crate::support::node::Node;
use crate::support::relay::Relay;

/// From now on no connection to a shard gets through, and those that waited are in use.
fn without_spares(node: &Node, relay: &Relay, key: &str) -> Vec<Client> {
    relay.cut_greetings();
    let mut holders = Vec::new();
    for _ in 0..40 {
        let mut client = node.client();
        if client
            .text(&format!("WATCH {key}"))
            .starts_with("-TRYAGAIN")
        {
            return holders;
        }
        holders.push(client);
    }
    panic!("there is no end of connections");
}

#[test]
fn a_connection_of_ones_own_that_is_not_greeted_is_told() {
    for shards in [1, 4] {
        let (node, relays) = relayed(shards);
        let relay = relays.last().unwrap();
        let key = key_at(&node, relays.len() - 1, "x");
        for line in [format!("BLPOP {key} 0"), format!("WATCH {key}")] {
            let mut client = node.client();
            client.text(&format!("DEL {key}"));
            let _holders = without_spares(&node, relay, &key);
            assert!(client.text(&line).starts_with("-TRYAGAIN"), "{line}");
            relay.pass();
            assert_eq!(client.text(&format!("SET {key} v")), "+OK\r\n");
        }
    }
}

#[test]
fn a_multi_that_is_refused_lets_nothing_run() {
    for shards in [1, 4] {
        let (node, relays) = relayed(shards);
        let relay = relays.last().unwrap();
        let key = key_at(&node, relays.len() - 1, "x");
        let mut client = node.client();
        client.text(&format!("DEL {key}"));
        let _holders = without_spares(&node, relay, &key);
        let lines = [
            "MULTI".to_owned(),
            format!("SET {key} v"),
            "EXEC".to_owned(),
        ];
        client.send(
            &lines
                .iter()
                .flat_map(|line| words(line))
                .collect::<Vec<u8>>(),
        );
        let got: Vec<_> = lines.iter().map_while(|_| client.try_raw()).collect();
        relay.pass();
        let mut other = node.client();
        let exists = other.text(&format!("EXISTS {key}"));
        let ran = got.last().is_some_and(|last| last.starts_with(b"*"));
        assert_eq!(exists == ":1\r\n", ran, "{got:?}");
    }
}
