//! What an operator asks of a replicated database, and what its engines say themselves.

use crate::cluster::{Cluster, Node, runtime};
use crate::history::{Micros, Value};
use crate::load::{Clock, key};
use crate::wait;
use anyhow::{Context as _, ensure};
use client::rest::RestClient;
use model::documents::OperationStatus;
use model::rest::{ActionStarted, ActionsStarted, LogEvent, ShardInfo, StateMachine};
use model::{NodeUid, ShardUid};
use serde_json::json;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// The port of the database under test.
pub const PORT: u16 = 12_000;
/// An action is followed for so long.
const ACTION: Duration = Duration::from_secs(120);
/// Times in a row that a cluster must be seen whole.
const STAYS: u32 = 10;
/// Values that are read at once.
const PAGE: isize = 20_000;

/// A shard's role that was handed over.
#[derive(Clone, Copy, Debug)]
pub struct Move {
    /// How long proxies held commands, µs.
    pub held_us: u64,
}

impl Cluster {
    /// Creates the replicated database of these tests: one shard unless `more` says otherwise.
    ///
    /// # Errors
    /// When it is refused.
    pub fn create_replicated(&self, more: &[&str]) -> anyhow::Result<()> {
        let words = [
            "demo",
            "memory_size",
            "512MB",
            "port",
            "12000",
            "replication",
            "enabled",
            "proxy_policy",
            "all-nodes",
        ];
        self.create_db(&[&words[..], more].concat())
    }

    /// Its endpoints, by node.
    #[must_use]
    pub fn endpoints(&self) -> Vec<SocketAddr> {
        let address = |node: &Node| SocketAddr::new(node.config.address, PORT);
        self.nodes.iter().map(address).collect()
    }

    /// Asks nodes in turn until one answers.
    ///
    /// # Errors
    /// What the last one answers.
    pub fn ask<T: serde::de::DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        let mut last = None;
        for node in &self.nodes {
            match node.get(path) {
                Ok(answer) => return Ok(answer),
                Err(error) => last = Some(error),
            }
        }
        Err(last.context("no nodes")?.into())
    }

    /// All shards.
    ///
    /// # Errors
    /// When no node answers.
    pub fn shards(&self) -> anyhow::Result<Vec<ShardInfo>> {
        self.ask("/v1/shards")
    }

    /// The first primary.
    ///
    /// # Errors
    /// When there is none.
    pub fn primary_shard(&self) -> anyhow::Result<ShardInfo> {
        self.role("master")
    }

    /// The first shard of a role.
    ///
    /// # Errors
    /// When there is none.
    pub fn role(&self, role: &str) -> anyhow::Result<ShardInfo> {
        let mut all = self.shards()?.into_iter();
        all.find(|shard| shard.role == role)
            .with_context(|| format!("no {role}"))
    }

    /// Where a node of the API is in `nodes`.
    ///
    /// # Errors
    /// When there is no such node.
    pub fn index(&self, node: NodeUid) -> anyhow::Result<usize> {
        let index = usize::try_from(node.0)?.checked_sub(1);
        index
            .filter(|index| *index < self.nodes.len())
            .with_context(|| format!("no node {node}"))
    }

    /// The index of the primary node.
    ///
    /// # Errors
    /// When no node knows one.
    pub fn primary_node(&self) -> anyhow::Result<usize> {
        for node in &self.nodes {
            let info: Result<model::rest::ClusterInfo, _> = node.get("/v1/cluster");
            if let Some(uid) = info
                .ok()
                .filter(|i| i.has_quorum)
                .and_then(|i| i.primary_node)
            {
                return self.index(uid);
            }
        }
        anyhow::bail!("no node knows a primary node")
    }

    /// Why not every shard is up, with a synced replica for each primary; `None` if they are.
    #[must_use]
    pub fn not_whole(&self) -> Option<String> {
        let all = match self.shards() {
            Ok(all) => all,
            Err(error) => return Some(error.to_string()),
        };
        if !all.iter().any(|shard| shard.role == "master") {
            return Some("there is no primary".to_owned());
        }
        let bad = |shard: &&ShardInfo| {
            let synced = shard.sync.as_ref().is_none_or(|sync| sync.status == "idle");
            shard.detailed_status != "ok" || !synced
        };
        let shard = all.iter().find(bad)?;
        let sync = shard.sync.as_ref().map_or("primary", |sync| &sync.status);
        let (status, error) = (&shard.detailed_status, &shard.error);
        Some(format!(
            "redis:{} is {status}, {sync}: {error:?}",
            shard.uid
        ))
    }

    /// Waits until every shard is up, and each primary has a synced replica.
    ///
    /// # Errors
    /// When they are not in time.
    pub fn whole(&self, within: Duration) -> anyhow::Result<()> {
        self.whole_without(None, within)
    }

    /// As [`whole`](Self::whole), and a process that was killed is nobody's any more.
    ///
    /// # Errors
    /// When they are not in time.
    pub fn whole_without(&self, killed: Option<u32>, within: Duration) -> anyhow::Result<()> {
        // Reports are a moment old: only what stays whole is.
        let mut in_a_row = 0;
        wait::until("every shard is whole", within, || {
            let old = |shard: &ShardInfo| killed.is_some() && shard.pid == killed;
            let why = self.not_whole().or_else(|| {
                let shards = self.shards().ok()?;
                let shard = shards.iter().find(|shard| old(shard))?;
                Some(format!("redis:{} still has its old process", shard.uid))
            });
            in_a_row = if why.is_none() { in_a_row + 1 } else { 0 };
            match why {
                None if in_a_row >= STAYS => Ok(()),
                None => Err("whole, for a moment".to_owned()),
                Some(why) => Err(why),
            }
        })
    }

    /// Has a primary hand its role to its replica.
    ///
    /// # Errors
    /// When it is refused or given up.
    pub fn move_shard(&self, shard: ShardUid) -> anyhow::Result<Move> {
        let action = order_move(self.nodes[0].config.http_socket(), shard)?;
        self.moved(&action)
    }

    /// Follows a move to its end.
    ///
    /// # Errors
    /// When it is given up.
    pub fn moved(&self, action: &str) -> anyhow::Result<Move> {
        let done = self.follow(action)?;
        let moved = done.moved.first().context("the action moved nothing")?;
        Ok(Move {
            held_us: moved.held_us,
        })
    }

    /// Turns a node's maintenance mode on or off, and waits until that is done.
    ///
    /// # Errors
    /// When it is refused or given up.
    pub fn maintenance(&self, node: usize, action: &str) -> anyhow::Result<()> {
        let path = format!("/v1/nodes/{}/actions/{action}", node + 1);
        let started: ActionsStarted = self.nodes[0].send("POST", &path, &json!({}))?;
        for uid in &started.action_uids {
            self.follow(&uid.0)?;
        }
        Ok(())
    }

    fn follow(&self, uid: &str) -> anyhow::Result<StateMachine> {
        let path = format!("/v1/actions/{uid}");
        let done = wait::until("the action ends", ACTION, || {
            let action: StateMachine = self.ask(&path).map_err(|e| e.to_string())?;
            match action.status {
                Some(OperationStatus::Completed | OperationStatus::Failed) => Ok(action),
                _ => Err(action.state),
            }
        })?;
        ensure!(
            done.status == Some(OperationStatus::Completed),
            "{} was given up: {:?}",
            done.name,
            done.error
        );
        Ok(done)
    }

    /// The events of a kind, the oldest first.
    ///
    /// # Errors
    /// When no node tells its events.
    pub fn events(&self, kind: &str) -> anyhow::Result<Vec<LogEvent>> {
        let mut events: Vec<LogEvent> = self.ask("/v1/logs")?;
        events.retain(|event| event.kind == kind);
        events.sort_by(|a, b| a.time.cmp(&b.time));
        Ok(events)
    }

    /// When the platform says that a replica took the place of a lost primary.
    ///
    /// # Errors
    /// When no node tells its events.
    pub fn failovers(&self, clock: &Clock) -> anyhow::Result<Vec<Micros>> {
        let events = self.events("shard_failover")?;
        let times = events.iter().map(|event| clock.of_event(&event.time));
        Ok(times.flatten().collect())
    }

    /// Everything in these lists, read through the first endpoint that serves.
    ///
    /// # Errors
    /// When none does within 20 s.
    pub fn lists(&self, count: u16) -> anyhow::Result<BTreeMap<u16, Vec<Value>>> {
        let node = std::cell::Cell::new(0);
        wait::until("the lists are read", Duration::from_secs(20), || {
            node.set((node.get() + 1) % self.nodes.len());
            self.read_lists(node.get(), count)
                .map_err(|e| format!("{e:#}"))
        })
    }

    fn read_lists(&self, node: usize, count: u16) -> anyhow::Result<BTreeMap<u16, Vec<Value>>> {
        let mut connection = self.connect(node, PORT)?;
        let mut lists = BTreeMap::new();
        for list in 0..count {
            let mut values = Vec::new();
            loop {
                let from = isize::try_from(values.len())?;
                let page: Vec<String> = redis::cmd("LRANGE")
                    .arg(key(list))
                    .arg(from)
                    .arg(from + PAGE - 1)
                    .query(&mut connection)?;
                let read = page.len();
                for text in page {
                    let value = Value::parse(&text);
                    values.push(value.with_context(|| format!("list {list} holds {text}"))?);
                }
                if read < PAGE.unsigned_abs() {
                    break;
                }
            }
            lists.insert(list, values);
        }
        Ok(lists)
    }

    /// A field of `INFO` that an engine itself answers, asked as the agent asks.
    ///
    /// # Errors
    /// When the engine does not answer.
    pub fn engine_info(&self, shard: &ShardInfo, field: &str) -> anyhow::Result<u64> {
        let node = &self.nodes[self.index(shard.node_uid)?].config;
        let ledger = node
            .shards_dir()
            .join(shard.uid.to_string())
            .join("ledger.json");
        let text = std::fs::read(&ledger).with_context(|| ledger.display().to_string())?;
        let ledger: serde_json::Value = serde_json::from_slice(&text)?;
        let password = ledger["spec"]["users"]["cnm"]
            .as_str()
            .context("no password")?;
        let (address, port) = (node.address, shard.port);
        let client = redis::Client::open(format!("redis://cnm:{password}@{address}:{port}/"))?;
        let mut connection = client.get_connection_with_timeout(Duration::from_secs(5))?;
        let info: String = redis::cmd("INFO").arg("all").query(&mut connection)?;
        let line = info
            .lines()
            .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        Ok(line
            .with_context(|| format!("no {field} in INFO"))?
            .trim()
            .parse()?)
    }

    /// Full syncs that engines gave, all together.
    ///
    /// # Errors
    /// When an engine does not answer.
    pub fn full_syncs(&self) -> anyhow::Result<u64> {
        let shards = self.shards()?;
        let each = shards
            .iter()
            .map(|shard| self.engine_info(shard, "sync_full"));
        each.sum()
    }
}

/// Orders a move by the node with this REST socket, and does not wait for it: the action to follow.
///
/// # Errors
/// When it is refused.
pub fn order_move(socket: PathBuf, shard: ShardUid) -> anyhow::Result<String> {
    let client = RestClient::new(socket);
    // At once: what is measured is the move, not the time for which its replica has to have followed.
    let body = json!({"shard_uids": [shard], "immediate": true});
    let path = "/v1/shards/actions/failover";
    let started: ActionStarted = runtime().block_on(client.post(path, &body))?;
    Ok(started.action_uid.context("no action")?.0)
}
