//! Programs send `SUBSCRIBE` without waiting for its reply, and rely on it from then on.

use crate::support::client::{Client, words};
use crate::support::engine::USER;
use crate::support::node::{Node, VALKEY};
use crate::support::until;
use model::observation::ProxyDatabaseObservation;

/// Connections that the proxy has to an engine.
fn connections(engine: std::net::SocketAddr) -> usize {
    let list = Client::connect(engine).text("CLIENT LIST");
    list.matches(&format!("user={USER} ")).count()
}

/// What the proxy has told last of its database.
fn told(node: &Node) -> Option<ProxyDatabaseObservation> {
    node.exec.last()?.databases.into_iter().next()
}

/// While the engines stand still, subscriptions of a new connection and a message of another one are sent.
/// All of them must be on their way at the same time, in this order.
#[test]
fn a_subscription_that_was_sent_is_in_force() {
    for shards in [1, 3] {
        let mut node = Node::sharded(VALKEY, shards);
        let engines = 0..usize::from(shards);
        for resp in [2, 3] {
            let (mut subscriber, mut publisher) = (node.client(), node.client());
            for client in [&mut subscriber, &mut publisher] {
                client.ask(&format!("HELLO {resp}"));
                // Both reach every shard: a shared connection is there.
                client.ask("DBSIZE");
            }
            for engine in engines.clone() {
                let direct = node.shard(engine).direct;
                until("spare connections are there", || connections(direct) > 4);
            }
            for engine in engines.clone() {
                node.shard(engine).freeze(true);
            }
            for channel in ["a", "b", "c"] {
                subscriber.send(&words(&format!("SUBSCRIBE {channel}")));
            }
            subscriber.send(&words("UNSUBSCRIBE b"));
            until("subscriptions wait for no reply", || {
                told(&node).is_some_and(|seen| seen.in_flight == 4 * u64::from(shards))
            });
            publisher.send(&words("PUBLISH c hello"));
            for engine in engines.clone() {
                node.shard(engine).freeze(false);
            }
            let published = String::from_utf8(publisher.raw()).unwrap();
            assert_eq!(published, ":1\r\n", "{shards} shards, RESP{resp}");
            let kinds = [
                "subscribe",
                "subscribe",
                "subscribe",
                "unsubscribe",
                "message",
            ];
            for (kind, number) in
                kinds
                    .iter()
                    .zip([":1\r\n", ":2\r\n", ":3\r\n", ":2\r\n", "hello\r\n"])
            {
                let text = String::from_utf8(subscriber.raw()).unwrap();
                assert!(text.contains(kind) && text.ends_with(number), "{text}");
            }
            drop((subscriber, publisher));
            until("the clients are gone", || {
                told(&node).is_some_and(|seen| seen.connections == 0)
            });
        }
    }
}
