//! Either server is killed at every step of a handover: each client has one owner, or died with it.

use crate::support::client::{Client, words};
use crate::support::node::{Node, VALKEY};
use crate::support::{process, until};
use resp::value::Value;

const HOOK: &str = "MAINSTAY_HANDOVER_TEST";

/// With the others: one batch; three, which are on the way at a time; and more.
const FEW: usize = 20;
const SOME: usize = 350;
const MANY: usize = 620;

/// Clients of different kinds.
struct Clients {
    named: Vec<Client>,
    blocked: Client,
    transaction: Client,
    subscriber: Client,
    partial: Client,
}

impl Clients {
    fn open(node: &Node, named: usize) -> Self {
        let mut all = Self {
            named: (0..named).map(|_| node.client()).collect(),
            blocked: node.client(),
            transaction: node.client(),
            subscriber: node.client(),
            partial: node.client(),
        };
        for (number, client) in all.named.iter_mut().enumerate() {
            client.text(&format!("CLIENT SETNAME name{number}"));
        }
        all.transaction.text("MULTI");
        all.transaction.text("INCR counter");
        all.subscriber.text("SUBSCRIBE channel");
        all.partial.text("PING");
        all.partial.send(b"*2\r\n$4\r\nINCR\r\n$7\r\npart");
        all.blocked.send(&words("BLPOP queue 0"));
        let mut direct = node.direct();
        until("one is blocked", || {
            direct.text("INFO clients").contains("blocked_clients:1")
        });
        all
    }

    /// All go on as they were.
    fn check(mut self, node: &Node) {
        for (number, client) in self.named.iter_mut().enumerate() {
            let name = format!("name{number}");
            assert_eq!(client.ask("CLIENT GETNAME"), Value::bulk(name.as_str()));
        }
        let other = &mut self.named[0];
        assert_eq!(other.text("RPUSH queue element"), ":1\r\n");
        assert!(String::from_utf8_lossy(&self.blocked.raw()).contains("element"));
        let ran = self.transaction.ask("EXEC");
        assert_eq!(ran, Value::Array(vec![Value::Integer(1)]));
        assert_eq!(other.text("PUBLISH channel text"), ":1\r\n");
        assert!(String::from_utf8_lossy(&self.subscriber.raw()).contains("text"));
        self.partial.send(b"ial\r\n");
        assert_eq!(self.partial.raw(), b":1\r\n");
        let list = other.text("CLIENT LIST");
        assert_eq!(list.matches("id=").count(), self.named.len() + 4);
        drop(node.client());
    }
}

/// The old server dies in the middle of a batch, or of the third of three: the new one goes on with all.
#[test]
fn the_old_server_is_killed() {
    let places = ["old-prepared", "old-adopted", "old-committed", "old-taken"];
    let third = places.map(|place| (format!("{place}:3"), SOME));
    let first = places.map(|place| (place.to_owned(), FEW));
    for (place, named) in first.into_iter().chain(third) {
        let mut node = Node::prepare(VALKEY, |_| {});
        node.environment = vec![(HOOK, format!("dies={place}"))];
        node.exec.publish(&node.config);
        node.launch();
        node.wait_served();
        let clients = Clients::open(&node, named);
        node.environment.clear();
        let old = node.server();
        node.restart_proxy();
        until("the old server is dead", || !process::runs(old));
        assert!(
            !node.log().contains("all clients are handed over"),
            "{place}"
        );
        clients.check(&node);
    }
}

/// The new server dies before it has taken anybody: the old one goes on, and the next one takes all.
#[test]
fn the_new_server_is_killed() {
    for place in ["new-ready", "new-prepared", "new-adopted", "new-committed"] {
        let mut node = Node::start();
        let mut clients = Clients::open(&node, MANY);
        let old = node.server();
        node.stop_launcher();
        node.environment = vec![(HOOK, format!("dies={place}"))];
        node.launch();
        assert!(node.launcher_fails());
        assert!(process::runs(old), "{place}");
        for client in &mut clients.named {
            assert!(client.pings(), "{place}: the old server goes on");
        }
        // Nobody is refused meanwhile.
        assert!(node.client().pings(), "{place}: it accepts again");
        node.environment.clear();
        node.launch();
        until("the old server has ended", || !process::runs(old));
        node.wait_served();
        clients.check(&node);
    }
}

/// It dies as the owner of the first batch: those clients are closed, not served by two, and no others are.
#[test]
fn clients_die_with_their_owner() {
    let mut node = Node::start();
    let mut clients: Vec<Client> = (0..MANY).map(|_| node.client()).collect();
    for client in &mut clients {
        assert!(client.pings());
    }
    node.stop_launcher();
    node.environment = vec![(HOOK, "dies=new-taken".to_owned())];
    node.launch();
    assert!(node.launcher_fails());
    let alive: Vec<usize> = (0..MANY).filter(|at| clients[*at].pings()).collect();
    assert_eq!(alive.len(), MANY - 150, "{alive:?}");
    node.environment.clear();
    node.launch();
    until("it serves again", || {
        Client::try_connect(node.endpoint).is_some_and(|mut client| client.pings())
    });
    for at in alive {
        assert!(clients[at].pings(), "{at}");
    }
}
