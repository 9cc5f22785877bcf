//! Programs send `SUBSCRIBE` without waiting for its reply, and rely on it from then on.

use crate::fault::{key_at, relayed};
use crate::loss_inside::in_flight;
use crate::support::client::{Client, command, words};
use crate::support::engine::USER;
use crate::support::node::{Node, VALKEY};
use crate::support::relay::Relay;
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

fn next(client: &mut Client) -> String {
    String::from_utf8(client.raw()).unwrap()
}

/// A shard is away: what needs it is refused, and the client is as it was before. No command goes where its
/// keys are not.
#[test]
fn what_is_refused_was_never_so() {
    let mut node = Node::sharded(VALKEY, 4);
    let (here, away) = (key_at(&node, 2, "c"), key_at(&node, 1, "c"));
    let keys: Vec<String> = (0..4).map(|shard| key_at(&node, shard, "k")).collect();
    for resp in [2, 3] {
        let (mut client, mut other, mut fresh) = (node.client(), node.client(), node.client());
        for client in [&mut client, &mut fresh] {
            client.ask(&format!("HELLO {resp}"));
        }
        client.send(&words(&format!("SSUBSCRIBE {here}")));
        assert!(next(&mut client).ends_with(":1\r\n"));
        node.shard(1).kill();
        fresh.send(&words(&format!("SSUBSCRIBE {away}")));
        let mut silent = node.client();
        let quiet = ["CLIENT REPLY OFF", "SUBSCRIBE news", "CLIENT REPLY ON"];
        silent.send(&quiet.map(words).concat());
        let lines = [
            &format!("SSUBSCRIBE {away} {here}"),
            "SUBSCRIBE news",
            "PSUBSCRIBE n*",
            "SUBSCRIBE news other",
            "UNSUBSCRIBE other",
        ];
        client.send(&lines.map(words).concat());
        for client in [&mut fresh, &mut silent] {
            assert!(next(client).starts_with("-TRYAGAIN"));
        }
        assert_eq!(next(&mut silent), "+OK\r\n");
        for line in lines {
            let got = next(&mut client);
            assert!(got.starts_with("-TRYAGAIN"), "{line}: {got}");
        }
        for shard in [0, 2, 3] {
            is_taken_back(node.shard(shard).direct);
        }
        // What was there is there, and nothing else.
        assert_eq!(other.text(&format!("SPUBLISH {here} x")), ":1\r\n");
        assert!(next(&mut client).contains("smessage"));
        let listed = other.text("CLIENT LIST");
        assert_eq!(listed.matches(" ssub=1 ").count(), 1, "{listed}");
        assert!(
            !listed.contains(" sub=1 ") && !listed.contains(" psub=1 "),
            "{listed}"
        );
        client.send(&words("SUNSUBSCRIBE"));
        assert!(next(&mut client).ends_with(":0\r\n"));
        for client in [&mut client, &mut fresh] {
            may_do_anything(client, &mut node, &keys);
        }
        node.shard(1).restart();
        until("the shard is back", || {
            other
                .text(&format!("GET {}", keys[1]))
                .starts_with(['$', '_'])
        });
        client.send(&words("SUBSCRIBE news"));
        assert!(next(&mut client).ends_with(":1\r\n"));
        assert_eq!(other.text("PUBLISH news x"), ":1\r\n");
        assert!(next(&mut client).contains("message"));
        drop((client, fresh, silent));
        until("the clients are gone", || {
            told(&node).is_some_and(|seen| seen.connections == 1)
        });
    }
}

/// Nobody is subscribed at a shard to what another one has refused.
fn is_taken_back(shard: std::net::SocketAddr) {
    let mut direct = Client::connect(shard);
    until("it is taken back", || {
        let counts = direct.text("PUBSUB NUMSUB news other");
        counts.matches("\r\n:0\r\n").count() == 2 && direct.text("PUBSUB NUMPAT") == ":0\r\n"
    });
}

/// Commands of every kind go where their keys are, while the second shard is away.
fn may_do_anything(client: &mut Client, node: &mut Node, keys: &[String]) {
    let [a, _, b, c] = keys else {
        panic!("four shards")
    };
    assert_eq!(client.text(&format!("MSET {a} 1 {b} 2 {c} 3")), "+OK\r\n");
    for (shard, key, value) in [(0, a, 1), (2, b, 2), (3, c, 3)] {
        let wanted = format!("$1\r\n{value}\r\n");
        assert_eq!(client.text(&format!("GET {key}")), wanted);
        let mut direct = Client::connect(node.shard(shard).direct);
        assert_eq!(
            direct.text(&format!("GET {key}")),
            wanted,
            "it is where it belongs"
        );
        let script = format!("EVAL \"return redis.call('INCR',KEYS[1])\" 1 {key}");
        assert_eq!(client.text(&script), format!(":{}\r\n", value + 1));
        client.text(&format!("RPUSH {{{key}}}list x"));
        assert!(
            client
                .text(&format!("BLPOP {{{key}}}list 1"))
                .ends_with("$1\r\nx\r\n")
        );
        assert_eq!(client.text(&format!("DEL {key}")), ":1\r\n");
        assert_eq!(direct.text("DBSIZE"), ":0\r\n");
    }
}

/// With RESP2, who listens to a shard channel may do nothing else, on whichever shard.
#[test]
fn who_listens_in_resp2_does_nothing_else() {
    let node = Node::sharded(VALKEY, 4);
    let (mut client, mut other) = (node.client(), node.client());
    let channel = key_at(&node, 1, "c");
    client.text("DBSIZE");
    for shard in 0..4 {
        let key = key_at(&node, shard, "k");
        let all: Vec<u8> = [
            words(&format!("SSUBSCRIBE {channel}")),
            words(&format!("SET {key} x")),
            words(&format!("GET {key}")),
            command(&[b"SET", key.as_bytes(), &vec![b'x'; 200_000]]),
            words(&format!(
                "EVAL \"return redis.call('SET',KEYS[1],'x')\" 1 {key}"
            )),
            words("PING x"),
            words("SUNSUBSCRIBE"),
            words(&format!("GET {key}")),
        ]
        .concat();
        client.send(&all);
        assert!(next(&mut client).ends_with(":1\r\n"));
        for _ in 0..4 {
            let got = next(&mut client);
            assert!(got.starts_with("-ERR Can't execute"), "{got}");
        }
        assert!(next(&mut client).starts_with("*2\r\n$4\r\npong"));
        assert!(next(&mut client).ends_with(":0\r\n"));
        assert_eq!(next(&mut client), "$-1\r\n");
        assert_eq!(other.text(&format!("EXISTS {key}")), ":0\r\n");
    }
}

/// Another process takes over while a shard has not confirmed.
#[test]
fn a_subscription_goes_on_in_another_process() {
    let mut node = Node::sharded(VALKEY, 4);
    for resp in [2, 3] {
        let (mut client, mut other) = (node.client(), node.client());
        client.ask(&format!("HELLO {resp}"));
        client.ask("DBSIZE");
        let direct = node.shard(1).direct;
        until("spare connections are there", || connections(direct) > 1);
        node.shard(1).freeze(true);
        let lines = ["SUBSCRIBE a b", "PSUBSCRIBE p*", "UNSUBSCRIBE a"];
        client.send(&lines.map(words).concat());
        until("they are on their way", || {
            told(&node).is_some_and(|seen| seen.in_flight == 3)
        });
        node.restart_proxy();
        node.shard(1).freeze(false);
        for number in [1, 2, 3, 2] {
            assert!(next(&mut client).ends_with(&format!(":{number}\r\n")));
        }
        client.send(&words("SUBSCRIBE c"));
        assert!(next(&mut client).ends_with(":3\r\n"));
        assert_eq!(other.text("PUBLISH a x"), ":0\r\n");
        assert_eq!(other.text("PUBLISH b x"), ":1\r\n");
        assert!(next(&mut client).contains("message"));
        drop((client, other));
        until("the clients are gone", || {
            told(&node).is_some_and(|seen| seen.connections == 0)
        });
    }
}

/// The connection breaks before a shard has confirmed: nothing of it is left, on a later connection either.
#[test]
fn a_subscription_that_was_lost_does_not_come_back() {
    let (user, version) = (format!("user={USER} "), |resp| format!("resp={resp} "));
    for shards in [1, 4] {
        let (node, relays) = relayed(shards);
        let last = relays.len() - 1;
        let list = key_at(&node, last, "list");
        for resp in [2, 3] {
            let mut client = node.client();
            client.ask(&format!("HELLO {resp}"));
            client.ask("DBSIZE");
            let direct = relays[last].target();
            until("spare connections are there", || {
                let list = Client::connect(direct).text("CLIENT LIST");
                let of_proxy = list.lines().filter(|line| line.contains(&user));
                of_proxy
                    .filter(|line| line.contains(&version(resp)))
                    .count()
                    > 1
            });
            // What the engine told the last one has come, too.
            client.ask("DBSIZE");
            relays[last].hold();
            client.send(&words("SUBSCRIBE a"));
            until("it is on its way", || {
                told(&node).is_some_and(|seen| seen.in_flight == 1)
            });
            relays[last].cut();
            relays[last].pass();
            let got = next(&mut client);
            assert!(
                got.contains("the outcome of this command is unknown"),
                "{got}"
            );
            until("the shard is there again", || {
                node.client().text(&format!("LLEN {list}")) == ":0\r\n"
            });
            // Over a connection of its own.
            client.send(&words(&format!("BLPOP {list} 0.01")));
            assert!(["*-1\r\n", "_\r\n"].contains(&next(&mut client).as_str()));
            for relay in &relays {
                let mut direct = Client::connect(relay.target());
                until("nobody is subscribed", || {
                    direct.text("PUBSUB NUMSUB a") == "*2\r\n$1\r\na\r\n:0\r\n"
                });
            }
            client.send(&words("SUBSCRIBE a"));
            assert!(next(&mut client).ends_with(":1\r\n"));
            drop(client);
            until("the client is gone", || {
                told(&node).is_some_and(|seen| seen.connections == 0)
            });
        }
    }
}

/// Who is told that a client has been reset can rely on it: no engine sends that client anything more.
#[test]
fn a_reset_is_told_when_the_engines_have_done_it() {
    for (shards, resp) in [(1, 2), (1, 3), (4, 2), (4, 3)] {
        let (node, relays) = relayed(shards);
        let mut client = node.client();
        client.ask(&format!("HELLO {resp}"));
        client.ask("SUBSCRIBE a");
        relays.iter().for_each(Relay::hold);
        client.send(&words("RESET"));
        in_flight(&node, 1);
        assert!(!client.is_told(), "it is told too early");
        relays.iter().for_each(Relay::pass);
        assert_eq!(client.raw(), b"+RESET\r\n");
        assert_eq!(client.text("PUBLISH a m"), ":0\r\n");
        assert!(client.pings());
    }
}

/// Redis 6.2 and 7.0 put such a message into what `EXEC` replies, Valkey behind it. The last command is of the same shard:
/// the reply of another one may come before the message.
#[test]
fn a_message_of_ones_own_transaction() {
    for name in ["redis-6.2.", "redis-7.0.", VALKEY] {
        for shards in [1, 4] {
            let node = match shards {
                1 => Node::with(name, |_| {}),
                _ => Node::sharded(name, shards),
            };
            let told = |client: &mut Client| -> Vec<Vec<u8>> {
                client.ask("HELLO 3");
                let lines = [
                    "SUBSCRIBE a",
                    "MULTI",
                    "PUBLISH a m",
                    "EXEC",
                    "PUBLISH end m",
                ];
                client.send(&lines.map(words).concat());
                let mut told = Vec::new();
                while told.last().is_none_or(|last| last != b":0\r\n") {
                    told.push(client.raw());
                }
                told
            };
            let wanted = told(&mut node.direct());
            assert_eq!(told(&mut node.client()), wanted, "{name}, {shards}");
        }
    }
}
