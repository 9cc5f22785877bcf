//! `CLIENT LIST`, `KILL`, `UNBLOCK`, `PAUSE` and `UNPAUSE` where other proxies serve the database too: they are
//! asked, and answer, through `cnm_exec`.

use crate::lease::leased;
use crate::support::client::{Client, words};
use crate::support::exec::Policy;
use crate::support::node::{Node, VALKEY};
use crate::support::until;
use model::clients::{Answered, Gap, PIECE_MAX, Question, Word};
use model::{DatabaseUid, NodeUid};
use resp::value::Value;

/// A client of another node.
const ELSEWHERE: u64 = 2_000_000_000_007;

/// A node beside which others serve the database.
fn node(shards: u16) -> Node {
    let mut node = match shards {
        1 => Node::start(),
        shards => Node::sharded(VALKEY, shards),
    };
    node.reconfigure(|config| config.databases[0].elsewhere = vec![NodeUid(2), NodeUid(3)]);
    node.exec.has_others();
    node
}

fn id(client: &mut Client) -> u64 {
    match client.ask("CLIENT ID") {
        Value::Integer(id) => u64::try_from(id).unwrap(),
        other => panic!("{other:?}"),
    }
}

/// The ids in a list, in its order.
fn ids(list: &Value) -> Vec<u64> {
    let mut text = Vec::new();
    list.encode(&mut text);
    let text = String::from_utf8(text).unwrap().replace("txt:", "");
    let ids = text
        .split_whitespace()
        .filter_map(|field| field.strip_prefix("id="));
    ids.map(|id| id.parse().unwrap()).collect()
}

fn listed(clients: &[u64]) -> Answered {
    let line = |id: &u64| (*id, format!("id={id} addr=1.2.3.4:5\n"));
    Answered {
        clients: clients.iter().map(line).collect(),
        ..Answered::default()
    }
}

fn counted(count: u64) -> Answered {
    Answered {
        count,
        ..Answered::default()
    }
}

fn gap(node: u64) -> Answered {
    let gap = Gap {
        node: NodeUid(node),
        too_long: false,
    };
    Answered {
        gaps: vec![gap],
        ..Answered::default()
    }
}

fn too_long(node: u64) -> Answered {
    let mut answered = gap(node);
    answered.gaps[0].too_long = true;
    answered
}

/// Asks something that others answer too.
#[track_caller]
fn with_others(node: &Node, client: &mut Client, line: &str, answered: &[Answered]) -> String {
    let before = node.exec.questions().len();
    client.send(&words(line));
    let question = node.exec.asked(before + 1);
    let (last, first) = answered.split_last().unwrap();
    for piece in first {
        let more = true;
        let piece = Answered {
            more,
            ..piece.clone()
        };
        node.exec.tell(question.number, piece);
    }
    node.exec.tell(question.number, last.clone());
    String::from_utf8(client.raw()).unwrap()
}

#[test]
fn a_list_is_of_all_in_the_order_of_their_ids() {
    for shards in [1, 3] {
        let node = node(shards);
        let (mut client, mut other) = (node.client(), node.client());
        let (own, neighbour) = (id(&mut client), id(&mut other));
        let pieces = [
            listed(&[3_000_000_000_001, ELSEWHERE]),
            listed(&[ELSEWHERE - 1, 17, neighbour]),
        ];
        let list = with_others(&node, &mut client, "CLIENT LIST", &pieces);
        let list = Value::decode(list.as_bytes()).unwrap().0;
        let mut wanted = vec![17, own, neighbour, ELSEWHERE - 1, ELSEWHERE];
        wanted.push(3_000_000_000_001);
        assert_eq!(ids(&list), wanted);
        let question = node.exec.asked(1);
        assert_eq!(question.database, DatabaseUid(1));
        assert_eq!(question.words, [Word(b"LIST".to_vec())]);
        assert_eq!((question.engine, question.me, question.homes), (9, 0, None));
        // In a transaction it is one of the replies, in its place.
        for line in ["MULTI", "SET key value", "CLIENT LIST", "GET key"] {
            client.ask(line);
        }
        let replies = with_others(&node, &mut client, "EXEC", &[listed(&[ELSEWHERE])]);
        let Value::Array(replies) = Value::decode(replies.as_bytes()).unwrap().0 else {
            panic!("{replies}");
        };
        assert_eq!(ids(&replies[1]), [own, neighbour, ELSEWHERE]);
        assert_eq!(replies[2], Value::bulk("value"));
        // What comes behind waits.
        client.send(&words("HELLO 3"));
        client.reply();
        client.send(&words("CLIENT LIST"));
        client.send(&words("PING"));
        let question = node.exec.asked(3);
        assert_eq!(other.text("PING"), "+PONG\r\n");
        assert!(!client.is_told());
        node.exec.tell(question.number, listed(&[ELSEWHERE]));
        assert_eq!(ids(&client.reply()), [own, neighbour, ELSEWHERE]);
        assert_eq!(client.raw(), b"+PONG\r\n");
    }
}

#[test]
fn ids_say_who_is_asked() {
    let node = node(1);
    let (mut client, mut other) = (node.client(), node.client());
    let (own, neighbour) = (id(&mut client), id(&mut other));
    other.send(&words("BLPOP none 0"));
    until("it waits", || {
        client
            .text(&format!("CLIENT LIST ID {neighbour}"))
            .contains("flags=b")
    });
    for line in ["CLIENT UNBLOCK", "CLIENT KILL ID"] {
        assert_eq!(client.text(&format!("{line} {neighbour}")), ":1\r\n");
    }
    let list = client.ask(&format!("CLIENT LIST ID {own} {neighbour}"));
    assert_eq!(ids(&list), [own]);
    assert_eq!(node.exec.questions().len(), 0, "all of them are here");
    for (line, homes) in [
        (format!("CLIENT KILL ID {ELSEWHERE}"), Some(vec![2])),
        (format!("CLIENT UNBLOCK {ELSEWHERE} ERROR"), Some(vec![2])),
        // Of a release that numbered otherwise.
        ("CLIENT KILL ID 17".to_owned(), None),
        (format!("CLIENT KILL NOT-ID {own}"), None),
    ] {
        let answer = with_others(&node, &mut client, &line, &[counted(1)]);
        assert_eq!(answer, ":1\r\n", "{line}");
        let question = node.exec.questions().pop().unwrap();
        assert_eq!(question.homes, homes, "{line}");
        let kills = line.contains("KILL");
        assert_eq!(question.me, if kills { own } else { 0 }, "{line}");
    }
    let line = format!("CLIENT LIST ID {own} {ELSEWHERE}");
    with_others(&node, &mut client, &line, &[Answered::default()]);
    let homes = node.exec.questions().pop().unwrap().homes;
    assert_eq!(homes, Some(vec![1, 2]));
    // The old way, by an address.
    for (found, answer) in [
        (counted(1), "+OK\r\n"),
        (counted(0), "-ERR No such client\r\n"),
    ] {
        let said = with_others(&node, &mut client, "CLIENT KILL 1.2.3.4:5", &[found]);
        assert_eq!(said, answer);
    }
    assert!(client.pings());
}

#[test]
fn each_engine_has_its_own_words() {
    for (engine, major) in [("redis-6.2.", 6), ("redis-7.0.", 7), ("valkey-8.0.", 8)] {
        let node = Node::with(engine, |_| {});
        let list = node.client().text("CLIENT LIST TYPE normal");
        assert!(list.contains("id=1000000000001 "), "{list}");
        assert_eq!(node.exec.asked(1).engine, major);
        // Wrong ones are nobody else's.
        node.client().text("CLIENT LIST ODD");
        node.client().text("CLIENT PAUSE x");
        assert_eq!(node.exec.questions().len(), 1);
    }
}

#[test]
fn who_is_missing_is_named() {
    let node = node(1);
    let mut client = node.client();
    let own = id(&mut client);
    let list = with_others(
        &node,
        &mut client,
        "CLIENT LIST",
        &[listed(&[ELSEWHERE]), gap(3)],
    );
    let list = Value::decode(list.as_bytes()).unwrap().0;
    assert_eq!(ids(&list), [own, ELSEWHERE]);
    let warned = || {
        node.log()
            .matches("does not answer for its clients")
            .count()
    };
    until("the log is told", || warned() == 1);
    let mut found = gap(2);
    found.count = 1;
    for line in [
        "CLIENT KILL 1.2.3.4:5",
        "CLIENT KILL ID 17",
        "CLIENT UNBLOCK 17",
    ] {
        let answer = with_others(&node, &mut client, line, &[gap(2)]);
        assert!(
            answer.starts_with("-TRYAGAIN ") && answer.contains("node:2;"),
            "{answer}"
        );
        let answer = with_others(&node, &mut client, line, std::slice::from_ref(&found));
        assert!(answer == ":1\r\n" || answer == "+OK\r\n", "{answer}");
    }
    let killed = with_others(
        &node,
        &mut client,
        "CLIENT KILL TYPE pubsub",
        &[gap(3), found],
    );
    let wanted = "clients of node:2, node:3; 1 clients of the others were closed\r\n";
    assert!(
        killed.starts_with("-TRYAGAIN") && killed.ends_with(wanted),
        "{killed}"
    );
    let answer = with_others(
        &node,
        &mut client,
        "CLIENT LIST",
        &[listed(&[9]), too_long(3)],
    );
    assert!(
        answer.starts_with("-ERR the list of node:3 is longer"),
        "{answer}"
    );
    assert!(client.pings());
    assert_eq!(warned(), 1, "now and then");
}

/// Who is missing in a pause is named; here it is made.
#[test]
fn a_pause_is_made_here_whoever_is_missing() {
    let node = node(1);
    let mut client = node.client();
    for (line, here) in [
        ("CLIENT PAUSE 3600000 WRITE", false),
        ("CLIENT UNPAUSE", true),
    ] {
        let answer = with_others(&node, &mut client, line, &[gap(2)]);
        assert!(
            answer.starts_with("-TRYAGAIN") && answer.contains("node:2;"),
            "{answer}"
        );
        let mut writer = node.client();
        writer.send(&words("SET key value"));
        for _ in 0..20 {
            client.ask("CLIENT ID");
        }
        if here {
            assert_eq!(writer.raw(), b"+OK\r\n");
        } else {
            assert!(!writer.is_told());
        }
        let answer = with_others(&node, &mut client, line, &[Answered::default()]);
        assert_eq!(answer, "+OK\r\n");
    }
}

/// Nobody says anything; then it comes too late.
#[test]
fn it_ends_in_time_whatever_happens() {
    let mut node = node(1);
    let mut client = node.client();
    let own = id(&mut client);
    let kill = "CLIENT KILL TYPE pubsub";
    let answer = client.text(kill);
    assert!(answer.contains("of node:2, node:3; 0 clients"), "{answer}");
    assert_eq!(ids(&client.ask("CLIENT LIST")), [own]);
    let answer = client.text(&format!("CLIENT UNBLOCK {ELSEWHERE}"));
    assert!(answer.contains("of node:2; no others"), "{answer}");
    node.exec.tell(1, counted(1));
    node.exec.tell(2, listed(&[ELSEWHERE]));
    assert!(client.pings());
    assert!(!client.is_told());
    // It is gone: that is known at once.
    client.send(&words(kill));
    node.exec.asked(4);
    node.exec.go_away();
    assert!(client.text("PING").starts_with("-TRYAGAIN"));
    assert_eq!(client.raw(), b"+PONG\r\n");
    assert!(client.text(kill).starts_with("-TRYAGAIN"));
    node.exec.come_back();
    let seen = node.exec.count();
    until("it is back", || node.exec.count() > seen);
    assert_eq!(
        with_others(&node, &mut client, kill, &[counted(2)]),
        ":2\r\n"
    );
    // Of a database that nobody else serves all clients are here, as far as is known.
    node.reconfigure(|config| config.databases[0].elsewhere = Vec::new());
    assert_eq!(client.text(kill), ":0\r\n");
    // The release before is not asked.
    node.reconfigure(|config| config.takes_questions = false);
    let before = node.exec.questions().len();
    assert_eq!(client.text(kill), ":0\r\n");
    assert_eq!(ids(&client.ask("CLIENT LIST")), [own]);
    assert_eq!(client.text("CLIENT PAUSE 1"), "+OK\r\n");
    assert_eq!(node.exec.questions().len(), before);
}

/// The same of several clients is asked once; more than that, in turn.
#[test]
fn many_ask_at_once() {
    let mut node = node(1);
    node.threads(2);
    let mut clients: Vec<Client> = (0..40).map(|_| node.client()).collect();
    for client in &mut clients {
        // A worker takes its new clients in its own time: one that was answered is on its list.
        assert!(client.pings());
    }
    for client in &mut clients {
        client.send(&words("CLIENT LIST TYPE normal"));
    }
    let all = clients.len();
    std::thread::scope(|scope| {
        let answered = scope.spawn(move || {
            for client in &mut clients {
                assert_eq!(ids(&client.reply()).len(), all + 1);
            }
        });
        let mut told = 0;
        until("all are answered", || {
            for question in node.exec.questions().split_off(told) {
                node.exec.tell(question.number, listed(&[ELSEWHERE]));
                told += 1;
            }
            answered.is_finished()
        });
        answered.join().unwrap();
    });
}

#[test]
fn who_asked_may_leave_or_be_killed_meanwhile() {
    let node = node(1);
    let (mut client, mut killer) = (node.client(), node.client());
    let number = id(&mut client);
    let mut leaver = node.client();
    leaver.send(&words("CLIENT LIST"));
    node.exec.asked(1);
    drop(leaver);
    client.send(&words("CLIENT KILL TYPE pubsub SKIPME no"));
    node.exec.asked(2);
    assert_eq!(killer.text(&format!("CLIENT KILL ID {number}")), ":1\r\n");
    assert_eq!(client.try_raw(), None);
    for number in [1, 2] {
        node.exec.tell(number, counted(1));
    }
    assert!(killer.pings());
    let told = node.exec.count();
    until("the one that left is gone", || {
        let seen = node.exec.last();
        let alone = seen.is_some_and(|seen| seen.databases[0].connections == 1);
        node.exec.count() > told + 1 && alone
    });
    // One that is meant itself has its answer first.
    let answer = with_others(
        &node,
        &mut killer,
        "CLIENT KILL TYPE normal SKIPME no",
        &[counted(3)],
    );
    assert_eq!(answer, ":4\r\n");
    assert_eq!(killer.try_raw(), None);
}

/// A client that waits goes to the next process when it has its answer: one.
#[test]
fn a_handover_waits_for_the_answer() {
    let mut node = node(1);
    let mut client = node.client();
    client.send(&words("CLIENT KILL TYPE pubsub"));
    client.send(&words("SET key value"));
    node.exec.asked(1);
    node.replace_proxy();
    let answer = String::from_utf8(client.raw()).unwrap();
    assert!(answer.starts_with("-TRYAGAIN"), "{answer}");
    assert_eq!(client.raw(), b"+OK\r\n");
    assert!(client.pings());
    assert_eq!(
        with_others(&node, &mut client, "CLIENT KILL TYPE pubsub", &[counted(1)]),
        ":1\r\n"
    );
}

fn question(line: &str) -> Question {
    let words = resp::inline::split(line.as_bytes()).unwrap();
    Question {
        number: 77,
        database: DatabaseUid(1),
        me: 0,
        engine: 9,
        words: words.into_iter().map(Word).collect(),
        homes: None,
    }
}

/// What the clients of other proxies ask of those of this one.
#[test]
fn others_are_answered() {
    for shards in [1, 3] {
        let mut node = node(shards);
        node.threads(2);
        assert!(node.exec.taking() > 0);
        let mut clients: Vec<Client> = (0..4).map(|_| node.client()).collect();
        let all: Vec<u64> = clients.iter_mut().map(id).collect();
        let found = |line: &str| {
            let mut found = node.exec.asks(&question(line));
            found.clients.sort();
            assert_eq!(found.gaps, []);
            let ids: Vec<u64> = found.clients.iter().map(|(id, _)| *id).collect();
            for (id, line) in &found.clients {
                assert!(
                    line.starts_with(&format!("id={id} ")) && line.ends_with('\n'),
                    "{line}"
                );
            }
            (ids, found.count)
        };
        assert_eq!(found("list"), (all.clone(), 0));
        assert_eq!(found("LIST TYPE pubsub"), (vec![], 0));
        clients[0].send(&words("BLPOP none 0"));
        until("it waits", || found("LIST FLAGS b").0 == all[..1]);
        assert_eq!(found(&format!("UNBLOCK {} ERROR", all[0])), (vec![], 1));
        assert!(clients[0].raw().starts_with(b"-UNBLOCKED"));
        let address = clients[1].stream.local_addr().unwrap();
        assert_eq!(found(&format!("KILL {address}")), (vec![], 1));
        assert_eq!(clients[1].try_raw(), None);
        // Who asks is spared, if it does not say otherwise.
        let mut kill = question(&format!("KILL ID {} {}", all[2], all[3]));
        kill.me = all[3];
        assert_eq!(node.exec.asks(&kill).count, 1);
        assert_eq!(clients[2].try_raw(), None);
        assert!(clients[3].pings());
        // Words that it does not know, and those of another database.
        for odd in ["NOSUCH", "LIST ODD", "SETNAME x", ""] {
            assert_eq!(found(odd), (vec![], 0), "{odd}");
        }
        for line in ["LIST", "KILL TYPE normal", "PAUSE 3600000"] {
            let mut other = question(line);
            other.database = DatabaseUid(2);
            assert_eq!(node.exec.asks(&other).clients, []);
        }
        assert_eq!(clients[3].text("SET key value"), "+OK\r\n");
        let mut writer = node.client();
        found("PAUSE 3600000 WRITE");
        writer.send(&words("SET key value"));
        for _ in 0..20 {
            clients[3].ask("GET key");
        }
        assert!(!writer.is_told());
        found("UNPAUSE");
        assert_eq!(writer.raw(), b"+OK\r\n");
    }
}

/// A long list comes in pieces, and the lease is renewed meanwhile; one that is too long is not sent.
#[test]
fn long_lists() {
    let node = leased();
    node.exec.has_others();
    node.exec.leases(Policy::Granted);
    // Twice as long when it is sent.
    let name = "\\".repeat(60_000);
    let named = |_| {
        let mut client = node.client();
        assert_eq!(client.text(&format!("CLIENT SETNAME {name}")), "+OK\r\n");
        client
    };
    let mut clients: Vec<Client> = (0..8).map(named).collect();
    let before = node.exec.renewals();
    let found = node.exec.asks(&question("LIST"));
    assert_eq!((found.clients.len(), found.gaps.len()), (8, 0));
    assert!(found.length() > PIECE_MAX);
    until("the lease is renewed", || node.exec.renewals() > before);
    clients.extend((0..64).map(named));
    let found = node.exec.asks(&question("LIST"));
    assert!(found.clients.is_empty());
    let gap = Gap {
        node: NodeUid(1),
        too_long: true,
    };
    assert_eq!(found.gaps, [gap]);
    let some = format!("LIST ID {} {}", id(&mut clients[0]), id(&mut clients[1]));
    assert_eq!(node.exec.asks(&question(&some)).clients.len(), 2);
    assert!(clients.iter_mut().all(Client::pings));
}
