use super::*;
use crate::certificates::{Authority, NodeNames, signing_request};
use crate::internode;
use crate::proxy_feed::tests::{database, shard, state};
use client::internode::{CallError, InternodeClient, NodeCertificates};
use model::DatabaseUid;
use model::clients::Word;
use std::net::{IpAddr, Ipv4Addr};

fn question(homes: Option<Vec<u64>>) -> Question {
    Question {
        number: 40,
        database: DatabaseUid(1),
        me: 0,
        engine: 9,
        words: vec![Word(b"list".to_vec())],
        homes,
    }
}

fn found(number: u64, clients: &[u64], more: bool) -> Answered {
    Answered {
        number,
        clients: clients
            .iter()
            .map(|id| (*id, "line\n".to_owned()))
            .collect(),
        count: 1,
        more,
        ..Answered::default()
    }
}

#[test]
fn who_is_asked_and_who_has_to_answer() {
    let asked = |policy, me, homes| {
        let shards = [shard(1, 2, (0, 16_383), 2)];
        let state = state(database(1, policy), &shards);
        let targets = targets(&state, NodeUid(me), &question(homes));
        let targets = targets.iter().map(|target| (target.node.0, target.counts));
        targets.collect::<Vec<_>>()
    };
    assert_eq!(asked("all-nodes", 1, None), [(2, true)]);
    assert_eq!(asked("single", 1, None), [(2, true)]);
    // Clients may have stayed where it was served before.
    assert_eq!(asked("single", 2, None), [(1, false)]);
    assert_eq!(asked("single", 2, Some(vec![1])), [(1, true)]);
    assert_eq!(asked("all-nodes", 1, Some(vec![1])), []);
    assert_eq!(asked("all-nodes", 1, Some(vec![9])), []);
}

/// The next question that a proxy is sent.
async fn heard(conversation: &mut Conversation) -> Question {
    match conversation.next().await {
        ToProxy::Question { question } => question,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn every_proxy_that_takes_questions_is_asked_but_the_one_that_asks() {
    let (questions, proxies) = (Arc::new(Questions::default()), Arc::new(Proxies::default()));
    let me = std::process::id();
    proxies.came(me);
    let [mut one, mut two, _three] = [1, 2, 3].map(|connection| questions.open(connection, me));
    questions.says(1, false);
    questions.says(1, true);
    // What it says in its observations comes first, and does not take that back.
    questions.says(1, false);
    questions.says(2, true);
    let ask = |asker| {
        let (questions, proxies) = (Arc::clone(&questions), Arc::clone(&proxies));
        tokio::spawn(async move { questions.ask(&proxies, &question(None), asker).await })
    };
    let all = ask(None);
    let (first, second) = (heard(&mut one).await, heard(&mut two).await);
    assert_eq!((first.number, second.number), (1, 1));
    one.answered(found(1, &[7], true));
    one.answered(found(1, &[8], false));
    one.answered(found(1, &[9], false));
    two.answered(found(1, &[5], false));
    let (whole, complete) = all.await.unwrap();
    assert_eq!(whole.number, 40);
    let ids: Vec<u64> = whole.clients.iter().map(|(id, _)| *id).collect();
    assert_eq!((ids, whole.count), (vec![7, 8, 5], 3));
    assert!(
        !complete,
        "the third one has not said yet whether it takes any"
    );
    // It is of the release before.
    questions.says(3, false);
    let others = ask(Some(2));
    assert_eq!(heard(&mut one).await.number, 2);
    one.answered(Answered {
        number: 2,
        ..Answered::default()
    });
    let nobody = Answered {
        number: 40,
        ..Answered::default()
    };
    assert_eq!(others.await.unwrap(), (nobody, true));
    // One is gone while it is asked, but its process runs.
    let all = ask(None);
    heard(&mut one).await;
    heard(&mut two).await;
    two.answered(found(2, &[5], false));
    questions.close(1);
    questions.close(3);
    drop(one);
    let (whole, _) = all.await.unwrap();
    assert_eq!(whole.clients.len(), 1);
    questions.close(2);
    proxies.left(me);
    let (whole, complete) = ask(None).await.unwrap();
    assert!(whole.clients.is_empty() && !complete, "it may have clients");
}

#[tokio::test]
async fn one_that_hangs_is_not_waited_for_long() {
    let (questions, proxies) = (Questions::default(), Proxies::default());
    let me = std::process::id();
    proxies.came(me);
    let mut hangs = questions.open(1, me);
    questions.says(1, true);
    let question = question(None);
    let (answer, _) = tokio::join!(questions.ask(&proxies, &question, None), heard(&mut hangs));
    assert!(answer.0.clients.is_empty() && !answer.1);
    // Late.
    hangs.answered(found(1, &[7], false));
}

/// A node of the release before does not know the call: that is told apart from one that does not answer.
#[tokio::test]
async fn a_node_of_the_release_before() {
    let ip = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 1));
    let ca = Authority::create("c.local").unwrap();
    let names = NodeNames {
        common_name: "node:1".to_owned(),
        address: ip.to_string(),
        dns: Vec::new(),
    };
    let (key, request) = signing_request(&names).unwrap();
    let certificates = NodeCertificates {
        certificate: ca.sign(&request, &names).unwrap(),
        ca: ca.certificate,
        key,
    };
    let listener = tokio::net::TcpListener::bind((ip, 0)).await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let acceptor = internode::acceptor(&certificates).unwrap();
    let server = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let calls = axum::Router::new().route("/lease", axum::routing::post(async || "null"));
        internode::connection(stream, acceptor, calls).await
    });
    let client = InternodeClient::new(ip, &certificates).unwrap();
    let (question, patience) = (question(None), Duration::from_secs(20));
    let asked = || client.clients(&address, &question, patience);
    let error = asked().await.unwrap_err();
    assert!(matches!(error, CallError::NoSuchCall { .. }), "{error}");
    server.abort();
    let _ = server.await;
    let error = asked().await.unwrap_err();
    assert!(matches!(error, CallError::Unreachable { .. }), "{error}");
}
