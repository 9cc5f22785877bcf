//! A new server takes over connected clients: every kind of session goes on as it was.

use crate::support::client::{Client, words};
use crate::support::node::{Node, VALKEY};
use resp::value::Value;
use std::collections::BTreeMap;

fn set_up(shards: u16) -> Node {
    match shards {
        1 => Node::start(),
        shards => Node::sharded(VALKEY, shards),
    }
}

/// What `CLIENT LIST` says of every client but for what time changes: by id.
pub fn listed(client: &mut Client) -> BTreeMap<u64, BTreeMap<String, String>> {
    let changing = [
        "age",
        "idle",
        "fd",
        "qbuf",
        "qbuf-free",
        "cmd",
        "tot-net-in",
        "tot-net-out",
        "tot-cmds",
        "tot-mem",
        "argv-mem",
        "multi-mem",
        "rbs",
        "rbp",
        "obl",
        "oll",
        "omem",
    ];
    let text = client.text("CLIENT LIST");
    let mut all = BTreeMap::new();
    for line in text.lines().filter(|line| line.contains("id=")) {
        let fields: BTreeMap<String, String> = line
            .split(' ')
            .filter_map(|field| field.split_once('='))
            .filter(|(name, _)| !changing.contains(name))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        let id = fields["id"].parse().unwrap();
        assert!(all.insert(id, fields).is_none(), "{id} is listed twice");
    }
    all
}

/// Clients of every kind.
struct Sessions {
    other: Client,
    named: Client,
    resp3: Client,
    database: Option<Client>,
    partial: Client,
    transaction: Client,
    watching: Client,
    watching_changed: Client,
    blocked: Client,
    reading: Client,
    waiting: Client,
    subscriber: Client,
    patterns: Client,
    sharded: Client,
    tracking: Client,
    broadcast: Client,
    monitor: Client,
    silent: Client,
    skipping: Client,
    waiting_id: String,
}

impl Sessions {
    fn open(node: &Node, shards: u16) -> Self {
        let mut all = Self {
            other: node.client(),
            named: node.client(),
            resp3: node.client(),
            database: (shards == 1).then(|| node.client()),
            partial: node.client(),
            transaction: node.client(),
            watching: node.client(),
            watching_changed: node.client(),
            blocked: node.client(),
            reading: node.client(),
            waiting: node.client(),
            subscriber: node.client(),
            patterns: node.client(),
            sharded: node.client(),
            tracking: node.client(),
            broadcast: node.client(),
            monitor: node.client(),
            silent: node.client(),
            skipping: node.client(),
            waiting_id: String::new(),
        };
        all.named.text("CLIENT SETNAME somebody");
        all.named.text("CLIENT SETINFO lib-name library");
        all.named.text("CLIENT NO-EVICT ON");
        all.named.text("CLIENT NO-TOUCH ON");
        all.resp3.text("HELLO 3");
        if let Some(database) = &mut all.database {
            database.text("SELECT 3");
            database.text("SET in three");
        }
        all.partial.text("PING");
        all.partial
            .send(b"*3\r\n$3\r\nSET\r\n$7\r\npartial\r\n$5\r\nhel");
        all.transaction.text("MULTI");
        all.transaction.text("SET {t}key inside");
        all.transaction.text("CLIENT GETNAME");
        all.watching.text("WATCH {w}key");
        all.watching_changed.text("WATCH {x}key");
        all.waiting_id = all.waiting.text("CLIENT ID").trim()[1..].to_owned();
        all.blocked.send(&words("BLPOP {b}queue 0"));
        all.reading
            .send(&words("XREAD BLOCK 0 STREAMS {s}stream $"));
        // Over several shards `CLIENT UNBLOCK` ends it at one of them.
        let wait = if shards == 1 {
            "WAIT 1 0"
        } else {
            "WAIT 1 3000"
        };
        all.waiting.send(&words(wait));
        all.subscriber.text("SUBSCRIBE channel");
        all.patterns.text("PSUBSCRIBE chan*");
        all.sharded.text("SSUBSCRIBE sharded");
        all.tracking.text("HELLO 3");
        all.tracking.text("CLIENT TRACKING ON");
        all.tracking.text("GET {k}tracked");
        all.broadcast.text("HELLO 3");
        all.broadcast.text("CLIENT TRACKING ON BCAST PREFIX {p}");
        all.monitor.text("MONITOR");
        all.silent.send(&words("CLIENT REPLY OFF"));
        all.silent.send(&words("SET {silent}key 1"));
        all.skipping.send(&words("CLIENT REPLY SKIP"));
        // It is no more than seen by the proxy: what comes next is not answered.
        let mut direct = node.client();
        crate::support::until("all are blocked", || {
            direct.text("CLIENT LIST").matches("flags=b").count() >= 3
                || direct.text("INFO clients").contains("blocked_clients:3")
        });
        all
    }

    fn check(mut self, node: &Node) {
        let other = &mut self.other;
        assert_eq!(self.named.ask("CLIENT GETNAME"), Value::bulk("somebody"));
        assert!(self.named.text("CLIENT INFO").contains("lib-name=library"));
        other.text("HSET hash field value");
        let map = self.resp3.ask("HGETALL hash");
        assert!(matches!(map, Value::Map(_)), "{map:?}");
        if let Some(database) = &mut self.database {
            assert_eq!(database.ask("GET in"), Value::bulk("three"));
        }
        self.partial.send(b"lo\r\n");
        assert_eq!(self.partial.raw(), b"+OK\r\n");
        assert_eq!(other.ask("GET partial"), Value::bulk("hello"));
        self.transaction.text("CLIENT ID");
        let Value::Array(replies) = self.transaction.ask("EXEC") else {
            panic!("the transaction ran");
        };
        assert_eq!(replies.len(), 3);
        assert_eq!(replies[0], Value::Simple(b"OK".to_vec()));
        assert!(matches!(replies[2], Value::Integer(_)));
        other.text("SET {x}key other");
        for (client, runs) in [
            (&mut self.watching, true),
            (&mut self.watching_changed, false),
        ] {
            client.text("MULTI");
            client.text("PING");
            assert_eq!(client.ask("EXEC") != Value::Null, runs);
        }
        self.check_blocked();
        self.check_messages();
        self.silent.send(&words("SET {silent}key 2"));
        self.silent.send(&words("CLIENT REPLY ON"));
        assert_eq!(self.silent.raw(), b"+OK\r\n");
        assert_eq!(self.silent.ask("GET {silent}key"), Value::bulk("2"));
        self.skipping.send(&words("ECHO skipped"));
        assert_eq!(self.skipping.ask("ECHO shown"), Value::bulk("shown"));
        drop(node.client());
    }

    fn check_blocked(&mut self) {
        let other = &mut self.other;
        other.text("RPUSH {b}queue element");
        assert!(String::from_utf8_lossy(&self.blocked.raw()).contains("element"));
        other.text("XADD {s}stream * field entry");
        assert!(String::from_utf8_lossy(&self.reading.raw()).contains("entry"));
        if self.database.is_some() {
            let unblock = format!("CLIENT UNBLOCK {}", self.waiting_id);
            assert_eq!(other.text(&unblock), ":1\r\n");
        }
        assert_eq!(self.waiting.raw(), b":0\r\n");
        assert!(self.blocked.pings() && self.reading.pings() && self.waiting.pings());
    }

    fn check_messages(&mut self) {
        let other = &mut self.other;
        assert_eq!(other.text("PUBLISH channel text"), ":2\r\n");
        assert_eq!(other.text("SPUBLISH sharded more"), ":1\r\n");
        for (client, text) in [
            (&mut self.subscriber, "text"),
            (&mut self.patterns, "text"),
            (&mut self.sharded, "more"),
        ] {
            assert!(String::from_utf8_lossy(&client.raw()).contains(text));
        }
        assert!(
            String::from_utf8_lossy(&{
                self.subscriber.send(&words("UNSUBSCRIBE"));
                self.subscriber.raw()
            })
            .contains("unsubscribe")
        );
        assert!(self.subscriber.pings());
        other.text("SET {k}tracked changed");
        assert!(String::from_utf8_lossy(&self.tracking.raw()).contains("{k}tracked"));
        other.text("SET {p}any changed");
        assert!(String::from_utf8_lossy(&self.broadcast.raw()).contains("{p}any"));
        other.text("ECHO seen-by-monitor");
        let mut lines = String::new();
        while !lines.contains("seen-by-monitor") {
            lines = String::from_utf8_lossy(&self.monitor.raw()).into_owned();
        }
    }
}

#[test]
fn every_kind_of_session_goes_on() {
    for shards in [1, 3] {
        let mut node = set_up(shards);
        let mut sessions = Sessions::open(&node, shards);
        let before = listed(&mut sessions.other);
        let tracked = sessions.tracking.text("CLIENT TRACKINGINFO");
        node.replace_proxy();
        node.replace_proxy();
        assert_eq!(listed(&mut sessions.other), before);
        assert_eq!(sessions.tracking.text("CLIENT TRACKINGINFO"), tracked);
        sessions.check(&node);
    }
}
