//! Connections as `CLIENT` shows and changes them: over all workers, and true at the engine.

use crate::support::client::{Client, words};
use crate::support::node::{Node, VALKEY};
use crate::support::until;
use model::NodeUid;
use std::collections::BTreeSet;

const ENGINES: [&str; 4] = ["redis-6.2.", "redis-7.0.", "valkey-8.0.", VALKEY];

/// Its number.
pub fn id(client: &mut Client) -> String {
    let id = client.text("CLIENT ID");
    id.trim().trim_start_matches(':').to_owned()
}

fn block(client: &mut Client, other: &mut Client, command: &str) {
    client.send(&words(command));
    until("it is blocked", || {
        other.text("INFO clients").contains("blocked_clients:1")
    });
}

/// As soon as a client that blocked is gone from the list, nothing is handed out to it.
#[test]
fn a_client_that_left_gets_no_element() {
    for engine in ["redis-6.2.", VALKEY] {
        let node = Node::with(engine, |config| config.settings.threads = 2);
        let (mut one, mut two) = (node.client(), node.client());
        for round in 0..150 {
            let mut leaver = node.client();
            let number = id(&mut leaver);
            block(&mut leaver, &mut one, "BLPOP queue 0");
            if round % 2 == 0 {
                drop(leaver);
                until("it is gone", || {
                    !one.text("CLIENT LIST").contains(&format!("id={number} "))
                });
            } else {
                let killed = one.text(&format!("CLIENT KILL ID {number}"));
                assert_eq!(killed, ":1\r\n");
            }
            assert_eq!(two.text("RPUSH queue element"), ":1\r\n", "{round}");
            let got = one.text("BLPOP queue 1");
            assert!(got.contains("element"), "{engine}, round {round}: {got}");
        }
    }
}

#[test]
fn a_killed_subscriber_gets_no_message() {
    let node = Node::with(VALKEY, |config| config.settings.threads = 2);
    let mut one = node.client();
    for _ in 0..60 {
        let mut subscriber = node.client();
        let number = id(&mut subscriber);
        subscriber.text("SUBSCRIBE channel");
        assert_eq!(one.text(&format!("CLIENT KILL ID {number}")), ":1\r\n");
        assert_eq!(one.text("PUBLISH channel x"), ":0\r\n");
    }
}

/// Without an answer of the engine a client is gone too, after a while.
#[test]
fn a_frozen_engine_keeps_nobody() {
    let node = Node::start();
    let (mut one, mut leaver) = (node.client(), node.client());
    let number = id(&mut leaver);
    block(&mut leaver, &mut one, "BLPOP queue 0");
    node.engine.freeze(true);
    drop(leaver);
    until("it is gone", || {
        !one.text("CLIENT LIST").contains(&format!("id={number} "))
    });
    node.engine.freeze(false);
    assert!(one.pings());
}

#[test]
fn unblock() {
    for engine in ENGINES {
        let node = Node::with(engine, |config| config.settings.threads = 2);
        let mut other = node.client();
        let mut blocked: Vec<Client> = (0..2).map(|_| node.client()).collect();
        for client in &mut blocked {
            let number = id(client);
            assert_eq!(other.text(&format!("CLIENT UNBLOCK {number}")), ":0\r\n");
            block(client, &mut other, "BLPOP queue 0");
            assert_eq!(other.text(&format!("CLIENT UNBLOCK {number}")), ":1\r\n");
            client.send(&words("PING"));
            assert_eq!(client.raw(), b"*-1\r\n", "{engine}");
            assert_eq!(client.raw(), b"+PONG\r\n");
            block(client, &mut other, "BRPOP queue 0");
            let unblock = format!("client unblock {number} error");
            assert_eq!(other.text(&unblock), ":1\r\n");
            let error = "-UNBLOCKED client unblocked via CLIENT UNBLOCK\r\n";
            assert_eq!(client.text("PING"), error);
            assert_eq!(client.raw(), b"+PONG\r\n");
            assert_eq!(other.text(&unblock), ":0\r\n");
        }
        assert_eq!(other.text("CLIENT UNBLOCK 99999"), ":0\r\n");
    }
}

/// `WAIT` blocks at every shard: one call frees all of them.
#[test]
fn unblock_of_what_blocks_at_several_shards() {
    for engine in ENGINES {
        let node = Node::sharded(engine, 4);
        let (mut client, mut other) = (node.client(), node.client());
        let number = id(&mut client);
        for how in ["", " TIMEOUT", " ERROR"] {
            client.send(&words("WAIT 9 0"));
            let unblock = format!("CLIENT UNBLOCK {number}{how}");
            until("it is blocked", || {
                other.text("INFO clients").contains("blocked_clients:4")
            });
            assert_eq!(other.text(&unblock), ":1\r\n", "{engine}");
            let answer = String::from_utf8(client.raw()).unwrap();
            match how {
                " ERROR" => assert!(answer.starts_with("-UNBLOCKED"), "{engine}: {answer}"),
                _ => assert_eq!(answer, ":0\r\n", "{engine}"),
            }
            assert!(client.pings());
            assert_eq!(other.text(&unblock), ":0\r\n");
        }
    }
}

/// Two proxies of a cluster: what one of them calls a client means nobody at the other, before and after both were
/// replaced.
#[test]
fn ids_are_of_one_proxy_alone() {
    let of = |node| Node::with(VALKEY, |config| config.node = NodeUid(node));
    let mut nodes = [of(3), of(4)];
    let mut clients: Vec<Vec<Client>> = nodes
        .iter()
        .map(|node| (0..5).map(|_| node.client()).collect())
        .collect();
    let mut seen: Vec<(usize, String)> = Vec::new();
    for round in 0..2 {
        for (number, clients) in clients.iter_mut().enumerate() {
            let mut ids: Vec<String> = clients.iter_mut().map(id).collect();
            let first = if number == 0 { '3' } else { '4' };
            assert!(ids.iter().all(|id| id.starts_with(first) && id.len() == 13));
            // Those that were there before have kept theirs.
            let kept = seen.iter().filter(|(of, _)| *of == number);
            assert!(kept.zip(&ids).all(|((_, kept), id)| kept == id));
            seen.extend(ids.drain(round * 5..).map(|id| (number, id)));
        }
        let (one, other) = clients.split_at_mut(1);
        for (asker, asked) in [(&mut one[0], 1), (&mut other[0], 0)] {
            for (_, id) in seen.iter().filter(|(of, _)| *of == asked) {
                for line in ["CLIENT KILL ID", "CLIENT UNBLOCK"] {
                    assert_eq!(asker[0].text(&format!("{line} {id}")), ":0\r\n");
                }
            }
        }
        for (node, clients) in nodes.iter_mut().zip(&mut clients) {
            if round == 0 {
                node.replace_proxy();
                clients.extend((0..5).map(|_| node.client()));
            }
        }
    }
    let different: BTreeSet<&String> = seen.iter().map(|(_, id)| id).collect();
    assert_eq!((seen.len(), different.len()), (20, 20));
}

/// Names of the fields of a line.
fn fields(line: &str) -> Vec<String> {
    let line = line.lines().find(|line| line.starts_with("id=")).unwrap();
    line.split(' ')
        .map(|field| field.split('=').next().unwrap().to_owned())
        .collect()
}

#[test]
fn lines_have_the_engines_fields() {
    for engine in ENGINES {
        let node = Node::with(engine, |_| {});
        let (mut client, mut direct) = (node.client(), node.direct());
        for line in ["CLIENT INFO", "CLIENT LIST"] {
            let (got, wanted) = (client.text(line), direct.text(line));
            assert_eq!(fields(&got), fields(&wanted), "{engine}: {line}");
            if line == "CLIENT INFO" {
                assert!(got.contains(" cmd=client") && wanted.contains(" cmd=client"));
            }
        }
    }
}

/// Words about connections, right and wrong; none of them takes a client that is there.
const WORDS: &str = "
CLIENT
CLIENT LIST FOO
CLIENT LIST FOO x
CLIENT LIST ID
CLIENT LIST ID 0
CLIENT LIST ID x
CLIENT LIST ID 99999
CLIENT LIST TYPE odd
CLIENT LIST TYPE replica
CLIENT LIST TYPE pubsub
CLIENT LIST USER nosuch
CLIENT LIST NAME nosuch
CLIENT LIST NOT-TYPE normal
CLIENT LIST MAXAGE 10000
CLIENT LIST MAXAGE 0
CLIENT LIST SKIPME maybe
CLIENT LIST FLAGS Q
CLIENT LIST FLAGS O
CLIENT LIST DB 99
CLIENT LIST DB x
CLIENT LIST DB 9
CLIENT LIST CAPA q
CLIENT LIST IDLE x
CLIENT LIST IDLE 0
CLIENT LIST IDLE 10000
CLIENT LIST LIB-NAME q
CLIENT LIST LIB-VER q
CLIENT LIST IP 1.2.3.4
CLIENT LIST ADDR 1.2.3.4:5
CLIENT LIST LADDR 1.2.3.4:5
CLIENT KILL
CLIENT KILL ID
CLIENT KILL ID 0
CLIENT KILL ID x
CLIENT KILL ID 99998 99999
CLIENT KILL ID 99999
CLIENT KILL ID 99999 TYPE
CLIENT KILL FOO x
CLIENT KILL USER nosuch
CLIENT KILL ADDR x
CLIENT KILL LADDR x
CLIENT KILL TYPE odd
CLIENT KILL TYPE replica
CLIENT KILL TYPE primary
CLIENT KILL SKIPME maybe
CLIENT KILL MAXAGE x
CLIENT KILL MAXAGE 0
CLIENT KILL MAXAGE 10000
CLIENT KILL 1.2.3.4:5
CLIENT KILL nonsense
CLIENT UNBLOCK
CLIENT UNBLOCK x
CLIENT UNBLOCK 99999
CLIENT UNBLOCK 99999 TIMEOUT
CLIENT UNBLOCK 99999 maybe
CLIENT UNBLOCK 99999 ERROR x
CLIENT ID x
CLIENT INFO x
CLIENT GETNAME
CLIENT GETNAME x
CLIENT SETNAME
CLIENT SETNAME \"a b\"
CLIENT SETNAME me
CLIENT GETNAME
CLIENT SETINFO
CLIENT SETINFO lib-name \"a b\"
CLIENT SETINFO lib-name me
CLIENT SETINFO lib-none x
CLIENT NO-EVICT
CLIENT NO-EVICT maybe
CLIENT NO-EVICT on
CLIENT NO-EVICT off
CLIENT NO-TOUCH
CLIENT NO-TOUCH maybe
CLIENT NO-TOUCH on
CLIENT NO-TOUCH off
CLIENT REPLY
CLIENT REPLY maybe
CLIENT CAPA
CLIENT CAPA x
CLIENT TRACKING
CLIENT TRACKING maybe
CLIENT TRACKING on
CLIENT TRACKING off
CLIENT TRACKING on BCAST OPTIN
CLIENT TRACKINGINFO
CLIENT TRACKINGINFO x
CLIENT GETREDIR
CLIENT GETREDIR x
CLIENT CACHING yes
CLIENT CACHING
CLIENT NOSUCH
CLIENT NOSUCH x y
ACL WHOAMI
ACL WHOAMI x
ACL
HELLO 4
HELLO x
HELLO 3 x
AUTH
AUTH x
AUTH a b c
RESET x
SLOWLOG
SLOWLOG NOSUCH
SLOWLOG LEN x
LATENCY
LATENCY NOSUCH
LATENCY LATEST
CONFIG
CONFIG GET
PING
";

#[test]
fn words_about_connections() {
    let mut different = Vec::new();
    for engine in ENGINES {
        let node = Node::with(engine, |_| {});
        for hello in ["HELLO 2", "HELLO 3"] {
            let (mut client, mut direct) = (node.client(), node.direct());
            client.text(hello);
            direct.text(hello);
            for line in WORDS.lines().filter(|line| !line.is_empty()) {
                // There, 0 is everybody; and what the proxy's user may not do has no other error.
                let odd = ["CLIENT KILL ID 0", "SLOWLOG NOSUCH", "LATENCY NOSUCH"];
                if engine == "redis-6.2." && odd.contains(&line) {
                    continue;
                }
                let (got, wanted) = (client.text(line), direct.text(line));
                if got != wanted {
                    different.push(format!("{engine} {hello} {line}: {got:?}, not {wanted:?}"));
                }
            }
        }
    }
    assert!(different.is_empty(), "{different:#?}");
}
