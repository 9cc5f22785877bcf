//! What has gone down or come back since it was told last. Pure.

use crate::observed::{self, Observations};
use crate::placement::plan::proxies;
use crate::replica_set;
use crate::state::{Change, ClusterState, Stored};
use jiff::{SignedDuration, Timestamp};
use model::documents::{
    DatabaseStatus, NodeOutage, Outages, PrimaryNode, ProxyOutage, ProxyRestart, Role, Severity,
    Shard, ShardOutage, keys,
};
use model::limits::HEARTBEAT_LOST;
use model::observation::{EngineState, NodeObservation, ShardObservation};
use model::{NodeUid, ShardUid};
use serde_json::{Map, Value, json};
use std::time::{Duration, Instant};
use store::Txn;

/// Most events that one transaction tells.
const AT_ONCE: usize = 32;
/// Most uids that one event names.
const NAMED: usize = 50;
/// How long a node that has never been heard may take, when everything was started again at once.
const START_WITHIN: Duration = Duration::from_secs(30);
/// For how long a node must be heard without a break until it counts as back: one that comes and goes is away.
const BACK_FOR: Duration = Duration::from_secs(5);
/// How long an engine may fail to start until that is told.
const FAILS_FOR: Duration = Duration::from_secs(5);
/// The same where another copy may take the role, and of replicas.
const REPLACED_WITHIN: Duration = Duration::from_secs(15);
/// How long an engine that has ended may wait for its start.
const STARTED_WITHIN: Duration = Duration::from_secs(30);
/// How long a proxy may be away: one that is replaced or started again is back sooner.
const PROXY_GONE: Duration = Duration::from_secs(10);
/// How long ago a proxy must have begun anew until that is told: by then it says what it took over.
const PROXY_SETTLES: Duration = Duration::from_secs(3);
/// How often it is told of one node that its proxy began anew.
const PROXY_TOLD_EVERY: SignedDuration = SignedDuration::from_secs(60);

/// What it is decided from.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    /// What is stored.
    pub state: &'a ClusterState,
    /// What was heard.
    pub observed: &'a Observations,
    /// This node, which is the primary node.
    pub me: NodeUid,
    /// Now, by the clock that goes on evenly.
    pub instant: Instant,
    /// Now, by the time of day.
    pub now: Timestamp,
}

/// What is to be told next: the events, and that they were told.
#[must_use]
pub fn next(known: Known<'_>) -> Option<(Txn, String)> {
    let mut telling = Telling {
        known,
        doc: known.state.outages.doc.clone(),
        told: Vec::new(),
    };
    telling.primary_node();
    telling.nodes();
    telling.disks();
    telling.proxies();
    telling.shards();
    let Telling { doc, told, .. } = telling;
    let before = &known.state.outages;
    if doc == before.doc {
        return None;
    }
    let kinds: Vec<&str> = told.iter().map(|event| event.kind).collect();
    let reason = format!("told: {}", kinds.join(", "));
    let mut change = Change::of(known.state, known.now);
    change.replace(keys::OUTAGES.to_owned(), before.revision, &doc);
    for event in told {
        change.event(event.severity, event.kind, &event.facts);
    }
    Some((change.into_txn(), reason))
}

struct Event {
    severity: Severity,
    kind: &'static str,
    facts: Vec<(&'static str, Value)>,
}

struct Telling<'a> {
    known: Known<'a>,
    /// What will have been told.
    doc: Outages,
    told: Vec<Event>,
}

/// How a shard is down.
struct Down {
    since: Timestamp,
    severity: Severity,
    cause: String,
    remedy: String,
}

impl<'a> Telling<'a> {
    fn tell(&mut self, severity: Severity, kind: &'static str, facts: Vec<(&'static str, Value)>) {
        self.told.push(Event {
            severity,
            kind,
            facts,
        });
    }

    fn has_room(&self) -> bool {
        self.told.len() < AT_ONCE
    }

    fn before(&self, ago: Duration) -> Timestamp {
        let ago = SignedDuration::try_from(ago).unwrap_or_default();
        self.known.now.checked_sub(ago).unwrap_or(self.known.now)
    }

    fn fresh(&self, node: NodeUid) -> Option<&'a NodeObservation> {
        self.known.observed.fresh(node, self.known.instant)
    }

    fn seen(&self, shard: &Shard) -> Option<&'a ShardObservation> {
        observed::shard(self.fresh(shard.node)?, shard.uid)
    }

    fn primary_node(&mut self) {
        let Known { me, now, .. } = self.known;
        let before = self.doc.primary_node.take();
        let is_news = before.as_ref().is_none_or(|before| before.node != me);
        let leads = self.known.observed.leases.since();
        let leads = leads.map_or(Duration::ZERO, |since| {
            self.known.instant.saturating_duration_since(since)
        });
        let since = if is_news { self.before(leads) } else { now };
        if let Some(before) = before.as_ref().filter(|_| is_news) {
            self.tell(
                Severity::Info,
                "primary_node_changed",
                vec![
                    ("node_uid", json!(me)),
                    ("since", json!(since)),
                    ("old_node_uid", json!(before.node)),
                    ("old_since", json!(before.since)),
                ],
            );
        }
        let new = || Some(PrimaryNode { node: me, since });
        self.doc.primary_node = before.filter(|_| !is_news).or_else(new);
    }

    /// Why a node may be away without being a failure, if it may.
    fn excuse(&self, node: NodeUid) -> Option<&'static str> {
        let state = self.known.state;
        let stored = state.node(node)?;
        let mut upgrades = state.upgrade.nodes.iter();
        if upgrades.any(|one| one.node == node && one.under_way.is_some()) {
            return Some("while it is upgraded");
        }
        if stored.leaving {
            return Some("while it is removed");
        }
        stored.maintenance.as_ref().map(|_| "in maintenance mode")
    }

    fn is_down(&self, node: NodeUid) -> Option<Duration> {
        let Known {
            state,
            observed,
            instant,
            ..
        } = self.known;
        let limit = HEARTBEAT_LOST.max(state.node_silent());
        let limit = if observed.has_spoken(node) {
            limit
        } else {
            limit.max(START_WITHIN)
        };
        let silence = observed.silence(node, instant)?;
        let away = node != self.known.me && self.fresh(node).is_none() && silence >= limit;
        away.then_some(silence)
    }

    fn nodes(&mut self) {
        let state = self.known.state;
        self.doc.nodes.retain(|uid, _| state.node(*uid).is_some());
        for node in state.nodes.iter().map(|node| node.uid) {
            if !self.has_room() {
                return;
            }
            match self.doc.nodes.get(&node).cloned() {
                None => {
                    if let Some(silence) = self.is_down(node) {
                        self.node_down(node, self.before(silence));
                    }
                }
                Some(outage) => self.node_up(node, &outage),
            }
        }
    }

    fn node_down(&mut self, node: NodeUid, since: Timestamp) {
        let Known {
            state, observed, ..
        } = self.known;
        let stopped = observed.last(node).is_some_and(|seen| seen.stopping);
        let excuse = self.excuse(node);
        let cause = match excuse {
            _ if stopped => "it was stopped in order".to_owned(),
            Some(excuse) => format!("it is not heard, {excuse}"),
            None => "it is not heard: its host, its network or its cnm_exec is down".to_owned(),
        };
        let (severity, kind) = match excuse {
            _ if stopped => (Severity::Info, "node_stopped"),
            Some(_) => (Severity::Warning, "node_down"),
            None => (Severity::Error, "node_down"),
        };
        let shards = state.shards.iter().filter(|shard| shard.node == node);
        let shards: Vec<ShardUid> = shards.map(|shard| shard.uid).take(NAMED).collect();
        let remedy = format!(
            "start node:{node} (`mainstay-install start` on its host), or see what has become of its host and network; \
             one that does not come back: `rladmin node {node} remove`"
        );
        self.tell(
            severity,
            kind,
            vec![
                ("node_uid", json!(node)),
                ("since", json!(since)),
                ("cause", json!(cause)),
                ("shards", json!(shards)),
                ("remedy", json!(remedy)),
            ],
        );
        let outage = NodeOutage {
            since,
            stopped,
            extra: Map::new(),
        };
        self.doc.nodes.insert(node, outage);
    }

    fn node_up(&mut self, node: NodeUid, outage: &NodeOutage) {
        let Known {
            observed, instant, ..
        } = self.known;
        let heard = observed.outages.heard_for(node, instant);
        let Some((_, began)) = heard.filter(|(span, _)| *span >= BACK_FOR) else {
            return;
        };
        if self.fresh(node).is_none() {
            return;
        }
        self.doc.nodes.remove(&node);
        let facts = vec![
            ("node_uid", json!(node)),
            ("since", json!(self.before(began))),
            ("down_since", json!(outage.since)),
        ];
        self.tell(Severity::Info, "node_up", facts);
    }

    /// Nodes whose configuration store waits for room.
    fn disks(&mut self) {
        let Known { state, now, .. } = self.known;
        self.doc.full.retain(|uid, _| state.node(*uid).is_some());
        for node in state.nodes.iter().map(|node| node.uid) {
            let Some(seen) = self.fresh(node).filter(|_| self.has_room()) else {
                continue;
            };
            let told = self.doc.full.get(&node).copied();
            let about = ("node_uid", json!(node));
            match (seen.disk_full, told) {
                (true, None) => {
                    self.doc.full.insert(node, now);
                    let cause = "its disk is full: its configuration store writes nothing, and it does not vote; what it \
                                 tells of the configuration is what it knew before";
                    let remedy = format!(
                        "make room on the file system of node:{node} under its data folder: it goes on by itself then"
                    );
                    let facts = vec![
                        about,
                        ("since", json!(now)),
                        ("cause", json!(cause)),
                        ("remedy", json!(remedy)),
                    ];
                    self.tell(Severity::Error, "node_disk_full", facts);
                }
                (false, Some(since)) => {
                    self.doc.full.remove(&node);
                    let facts = vec![about, ("down_since", json!(since))];
                    self.tell(Severity::Info, "node_disk_has_room", facts);
                }
                _ => {}
            }
        }
    }

    fn proxies(&mut self) {
        let state = self.known.state;
        let exists = |uid: &NodeUid| state.node(*uid).is_some();
        self.doc.proxies.retain(|uid, _| exists(uid));
        self.doc.restarted.retain(|uid, _| exists(uid));
        for node in state.nodes.iter().map(|node| node.uid) {
            let Some(seen) = self.fresh(node).filter(|_| self.has_room()) else {
                continue;
            };
            let outage = self.doc.proxies.get(&node).cloned();
            match (&seen.proxy, outage) {
                (None, None) if !seen.stopping => self.proxy_down(node),
                (Some(_), Some(outage)) => {
                    self.doc.proxies.remove(&node);
                    let facts = vec![
                        ("node_uid", json!(node)),
                        ("down_since", json!(outage.since)),
                    ];
                    self.tell(Severity::Info, "proxy_up", facts);
                    self.note_restart(node);
                }
                (Some(proxy), None) if proxy.handover.is_none() => self.proxy_restarted(node),
                _ => {}
            }
        }
    }

    /// Databases of which a node has an endpoint.
    fn endpoints(&self, node: NodeUid) -> Vec<model::DatabaseUid> {
        let state = self.known.state;
        let here = state.databases.iter();
        let here = here.filter(|database| proxies(state, database).contains(&node));
        here.map(|database| database.uid).take(NAMED).collect()
    }

    fn proxy_down(&mut self, node: NodeUid) {
        let watched = &self.known.observed.outages;
        let absent = watched.proxy_absent_for(node, self.known.instant);
        let Some(absent) = absent.filter(|absent| *absent >= PROXY_GONE) else {
            return;
        };
        let since = self.before(absent);
        let databases = self.endpoints(node);
        let severity = if databases.is_empty() || self.excuse(node).is_some() {
            Severity::Warning
        } else {
            Severity::Error
        };
        let remedy = format!(
            "see dmcproxy.log on node:{node}, and `rlcheck` there; clients reach these databases by the endpoints of other \
             nodes, if they have any: `rladmin status endpoints`"
        );
        self.tell(
            severity,
            "proxy_down",
            vec![
                ("node_uid", json!(node)),
                ("since", json!(since)),
                (
                    "cause",
                    json!("no proxy is heard on this node, which is heard itself"),
                ),
                ("bdbs", json!(databases)),
                ("remedy", json!(remedy)),
            ],
        );
        let extra = Map::new();
        self.doc.proxies.insert(node, ProxyOutage { since, extra });
    }

    fn proxy_restarted(&mut self, node: NodeUid) {
        let Known {
            observed,
            instant,
            now,
            ..
        } = self.known;
        let restarted = observed.outages.proxy_restarted(node, instant);
        let Some((pid, ago)) = restarted.filter(|(_, ago)| *ago >= PROXY_SETTLES) else {
            return;
        };
        let told = self.doc.restarted.get(&node);
        if told
            .is_some_and(|told| told.pid == pid || now.duration_since(told.told) < PROXY_TOLD_EVERY)
        {
            return;
        }
        self.note_restart(node);
        let databases = self.endpoints(node);
        self.tell(
            Severity::Warning,
            "proxy_restarted",
            vec![
                ("node_uid", json!(node)),
                ("since", json!(self.before(ago))),
                ("cause", json!("its server ended, or hung and was ended by its launcher: its clients were closed")),
                ("bdbs", json!(databases)),
                ("remedy", json!(format!("none is needed; why it ended is in dmcproxy.log on node:{node}"))),
            ],
        );
    }

    /// That a proxy began anew is told, or said by what else is told.
    fn note_restart(&mut self, node: NodeUid) {
        let watched = &self.known.observed.outages;
        if let Some((pid, _)) = watched.proxy_restarted(node, self.known.instant) {
            let told = self.known.now;
            self.doc.restarted.insert(node, ProxyRestart { pid, told });
        }
    }

    fn shards(&mut self) {
        let state = self.known.state;
        let known: Vec<_> = self.doc.shards.clone().into_iter().collect();
        for (uid, outage) in known {
            match state.shard(uid) {
                // Nobody waits for it any more.
                None => drop(self.doc.shards.remove(&uid)),
                Some(shard) if self.is_over(shard, &outage) => self.serves_again(shard, &outage),
                // Another one has its role: that was told.
                Some(shard) if outage.primary && shard.role == Role::Replica => {
                    self.doc.shards.remove(&uid);
                }
                Some(_) => {}
            }
        }
        for shard in state.shards.iter().filter(|s| s.removed_by.is_none()) {
            if self.doc.shards.contains_key(&shard.uid) || !self.has_room() {
                continue;
            }
            if let Some(down) = self.down(shard) {
                self.shard_down(shard, down);
            }
        }
    }

    fn is_over(&self, shard: &Shard, outage: &ShardOutage) -> bool {
        let Some(seen) = self.seen(shard) else {
            return false;
        };
        let runs = seen.state == EngineState::Running;
        runs && match shard.role {
            Role::Primary => observed::is_primary_of(seen, shard.epoch) && shard.is_usable(),
            Role::Replica => !outage.primary && seen.role == Some(Role::Replica),
        }
    }

    fn serves_again(&mut self, shard: &Shard, outage: &ShardOutage) {
        if !self.has_room() {
            return;
        }
        self.doc.shards.remove(&shard.uid);
        let mut facts = self.of_shard(shard);
        facts.push(("down_since", json!(outage.since)));
        self.tell(Severity::Info, "shard_serves_again", facts);
    }

    fn of_shard(&self, shard: &Shard) -> Vec<(&'static str, Value)> {
        let database = self.known.state.database(shard.database);
        let role = match shard.role {
            Role::Primary => "master",
            Role::Replica => "slave",
        };
        vec![
            ("bdb_uid", json!(shard.database)),
            ("bdb_name", json!(database.map(|d| d.name.clone()))),
            ("shard_uid", json!(shard.uid)),
            ("node_uid", json!(shard.node)),
            ("role", json!(role)),
        ]
    }

    fn shard_down(&mut self, shard: &Shard, down: Down) {
        let mut facts = self.of_shard(shard);
        facts.extend([
            ("since", json!(down.since)),
            ("cause", json!(down.cause)),
            ("remedy", json!(down.remedy)),
        ]);
        self.tell(down.severity, "shard_down", facts);
        let outage = ShardOutage {
            since: down.since,
            primary: shard.role == Role::Primary,
            extra: Map::new(),
        };
        self.doc.shards.insert(shard.uid, outage);
    }

    fn down(&self, shard: &Stored<Shard>) -> Option<Down> {
        let database = self.known.state.database(shard.database)?;
        let serves = matches!(
            database.status,
            DatabaseStatus::Active | DatabaseStatus::ActiveChangePending
        );
        let is_primary = shard.role == Role::Primary;
        if !serves || is_primary && shard.serving.is_none() {
            return None;
        }
        if let Some(outage) = self.doc.nodes.get(&shard.node) {
            return is_primary
                .then(|| self.with_its_node(shard, outage))
                .flatten();
        }
        self.fails(shard)
    }

    /// A primary on a node that is down, whose place nobody takes.
    fn with_its_node(&self, shard: &Stored<Shard>, outage: &NodeOutage) -> Option<Down> {
        let silence = self.is_down(shard.node)?;
        if self.is_served(shard) {
            return None;
        }
        let replicas = self.replicas(shard);
        if replicas.iter().any(|replica| replica.synced.is_some()) && silence < REPLACED_WITHIN {
            return None;
        }
        let planned = outage.stopped || self.excuse(shard.node).is_some();
        let node = shard.node;
        let cause = if outage.stopped {
            format!("node:{node} was stopped")
        } else {
            format!("node:{node} is not heard")
        };
        let others = if replicas.is_empty() {
            "it has no replica"
        } else {
            "no replica can take its place"
        };
        Some(Down {
            since: outage.since,
            severity: if planned {
                Severity::Warning
            } else {
                Severity::Critical
            },
            cause: format!("{cause}, and {others}"),
            remedy: format!(
                "bring node:{node} back: if its host or the engine is down, the shard serves then with what is on its disk; \
                 if its cnm_exec alone hangs or is cut off, it may have served all the while"
            ),
        })
    }

    /// Whether others reach a primary whose node does not reach this one: it serves on. Its replicas hear it, or a proxy on
    /// another node has connections to it, which end within seconds when nobody answers there.
    fn is_served(&self, shard: &Shard) -> bool {
        let Known {
            state,
            observed,
            instant,
            ..
        } = self.known;
        if !shard.is_usable() {
            return false;
        }
        let Some(database) = state.database(shard.database) else {
            return false;
        };
        let mut sets = replica_set::of_database(state, database).into_iter();
        let set = sets.find(|set| set.primary.uid == shard.uid);
        if set.is_some_and(|set| replica_set::is_heard_by_a_replica(observed, &set, instant)) {
            return true;
        }
        let mut others = state.nodes.iter().filter(|node| node.uid != shard.node);
        others.any(|node| {
            let seen = self.fresh(node.uid).and_then(|seen| seen.proxy.as_ref());
            let mut served = seen.into_iter().flat_map(|proxy| &proxy.databases);
            served.any(|one| one.database == shard.database && one.shards_connected)
        })
    }

    /// The copies of a primary.
    fn replicas(&self, primary: &Stored<Shard>) -> Vec<&'a Stored<Shard>> {
        let Some(database) = self.known.state.database(primary.database) else {
            return Vec::new();
        };
        let sets = replica_set::of_database(self.known.state, database).into_iter();
        let mut sets = sets.filter(|set| set.primary.uid == primary.uid);
        sets.next().map_or_else(Vec::new, |set| set.replicas)
    }

    /// An engine that has ended and does not come back, or that refuses writes, on a node that is heard.
    fn fails(&self, shard: &Stored<Shard>) -> Option<Down> {
        let Known {
            observed, instant, ..
        } = self.known;
        let failing = observed.outages.failing_for(shard.uid, instant)?;
        let node = self.fresh(shard.node).filter(|node| !node.stopping)?;
        let seen = observed::shard(node, shard.uid)?;
        let is_primary = shard.role == Role::Primary;
        let replaced = || {
            let mut replicas = self.replicas(shard).into_iter();
            replicas.any(|replica| replica.synced.is_some())
        };
        let patience = match seen.state {
            EngineState::Stopped => STARTED_WITHIN,
            EngineState::Failed if !is_primary || replaced() => REPLACED_WITHIN,
            EngineState::Failed => FAILS_FOR,
            EngineState::Running if seen.refuses_writes.is_some() => FAILS_FOR,
            _ => return None,
        };
        if failing < patience {
            return None;
        }
        let served = observed.served_ago(shard.uid, instant);
        let since = served.filter(|_| is_primary).unwrap_or(failing);
        let (uid, node) = (shard.uid, shard.node);
        let why = seen.error.as_deref().unwrap_or("no reason known");
        let (cause, remedy) = match &seen.refuses_writes {
            Some(why) => (
                format!("redis:{uid}: {why}"),
                format!(
                    "make room on the disk of node:{node}, or mend what redis-{uid}.log says there: it takes writes by itself \
                     then"
                ),
            ),
            None => (
                format!("redis:{uid} does not start: {why}"),
                format!(
                    "see redis-{uid}.log on node:{node}. Its start is tried again and again: it serves as soon as what keeps it \
                     from starting is mended"
                ),
            ),
        };
        Some(Down {
            since: self.before(since.max(failing)),
            severity: if is_primary {
                Severity::Critical
            } else {
                Severity::Warning
            },
            cause,
            remedy,
        })
    }
}
