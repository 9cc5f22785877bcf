//! What if processes are killed while shards are brought elsewhere? After each transaction that the primary node
//! writes of such an operation, from its request to its end, somebody is killed: the operation ends by itself (where a
//! move took too long and was undone, with an operator's `retry`) and as it would have, no engine is started again, clients see no error. What a move of a role writes in between has
//! lines of its own: `cut_moves`.

use crate::load::{Writer, go_on, stop, value, writer};
use crate::replicas::{create, masters};
use crate::story::{primary, seen, served, shards, shards_ok};
use model::documents::OperationStatus;
use model::rest::{Actions, LogEvent, NodeInfo, ShardInfo};
use std::collections::BTreeMap;
use std::time::Duration;
use testkit::cluster::Cluster;
use testkit::wait;

const PORT: u16 = 12_000;

/// Most steps of one operation: more of them are no progress.
const STEPS_MAX: usize = 40;

/// Who is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    /// `cnm_exec` of the node that wrote it.
    Primary,
    /// `cnm_exec` of the others.
    Others,
    /// `cnm_exec` of all.
    All,
    /// The proxies of all nodes but the first, which has the clients.
    Proxies,
    /// The engine of the primary, once, so many steps after the first one.
    Master(usize),
    /// The same of the replicas.
    Slaves(usize),
}

impl Victim {
    /// Of an engine: how many steps pass before it is killed.
    const fn engine(self) -> Option<usize> {
        match self {
            Self::Master(after) | Self::Slaves(after) => Some(after),
            Self::Primary | Self::Others | Self::All | Self::Proxies => None,
        }
    }
}

/// A cluster with clients, some of whose nodes may be away.
struct Story {
    cluster: Cluster,
    victim: Victim,
    alive: Vec<usize>,
    /// Whether a node leaves the cluster for good.
    leaves: bool,
    writers: Vec<Writer>,
    armed: BTreeMap<usize, Armed>,
}

/// Who was told to kill whom, last.
#[derive(Clone, Debug)]
struct Armed {
    killer: Option<u32>,
    victims: Vec<u32>,
}

impl Armed {
    /// Whether it is done, or whoever was to do it is gone.
    fn is_over(&self) -> bool {
        self.killer.is_none_or(has_ended) || self.victims.iter().copied().all(has_ended)
    }
}

fn has_ended(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(')').map(|(_, rest)| rest.trim_start());
    state.is_none_or(|state| state.starts_with(['Z', 'X']))
}

impl Story {
    fn begin(victim: Victim) -> Self {
        let cluster = Cluster::start(3).unwrap();
        create(&cluster, &[]);
        shards_ok(&cluster);
        let writers = (0..4)
            .map(|number| writer(&cluster, 0, PORT, format!("chain:{number}")))
            .collect();
        Self {
            cluster,
            victim,
            alive: vec![0, 1, 2],
            leaves: false,
            writers,
            armed: BTreeMap::new(),
        }
    }

    /// Who is killed when this node writes, after so many steps.
    fn victims(&self, writes: usize, steps: usize) -> Vec<u32> {
        let daemon = |node: &usize| self.cluster.nodes[*node].pid("cnm_exec");
        let alive = self.alive.iter();
        match self.victim {
            Victim::Primary => daemon(&writes).into_iter().collect(),
            Victim::Others => alive.filter(|n| **n != writes).filter_map(daemon).collect(),
            Victim::All => alive.filter_map(daemon).collect(),
            Victim::Proxies => alive
                .filter(|node| **node != 0)
                .filter_map(|node| self.cluster.nodes[*node].proxy_server())
                .collect(),
            Victim::Master(after) | Victim::Slaves(after) if after != steps => Vec::new(),
            Victim::Master(_) => engines(&self.cluster, "master"),
            Victim::Slaves(_) => engines(&self.cluster, "slave"),
        }
    }

    /// Has the next one who writes kill them. Whole at once: who reads it finds all of it.
    fn arm(&mut self, node: usize, steps: usize) {
        let victims = self.victims(node, steps);
        let killer = self.cluster.nodes[node].pid("cnm_exec");
        let pids: Vec<String> = victims.iter().map(u32::to_string).collect();
        let file = self.cluster.nodes[node].cut_file();
        let new = file.with_extension("new");
        std::fs::write(&new, format!("step {}", pids.join(" "))).unwrap();
        std::fs::rename(new, file).unwrap();
        self.armed.insert(node, Armed { killer, victims });
    }

    fn arm_all(&mut self, steps: usize) {
        for node in self.alive.clone() {
            self.arm(node, steps);
        }
    }

    /// Nobody kills any more. Who has taken a file is about to: its victims end first.
    fn disarm(&self, armed: &[usize]) {
        for node in armed {
            let taken = std::fs::remove_file(self.cluster.nodes[*node].cut_file()).is_err();
            let Some(known) = self.armed.get(node).filter(|_| taken) else {
                continue;
            };
            wait::until(
                "who was to be killed has ended",
                Duration::from_secs(30),
                || match known.is_over() {
                    true => Ok(()),
                    false => Err(format!("{known:?}")),
                },
            )
            .unwrap();
        }
    }

    /// Kills after each step until it has ended. How many steps there were.
    fn cut_until(
        &mut self,
        what: &str,
        mut ended: impl FnMut(&Cluster) -> Result<(), String>,
    ) -> usize {
        let armed = self.alive.clone();
        let mut steps = 0;
        wait::until(what, Duration::from_secs(120), || {
            let cut: Vec<usize> = armed
                .iter()
                .copied()
                .filter(|node| !self.cluster.nodes[*node].cut_file().exists())
                .collect();
            steps += cut.len();
            assert!(steps <= STEPS_MAX, "{what}: {steps} steps, and no end");
            for node in &armed {
                let node = &mut self.cluster.nodes[*node];
                node.start_ended().map_err(|error| error.to_string())?;
            }
            // Who was killed has another process now, whoever wrote.
            if !cut.is_empty() {
                self.arm_all(steps);
            }
            ended(&self.cluster)
        })
        .unwrap();
        self.disarm(&armed);
        wait::until("everybody is there", Duration::from_secs(30), || {
            for node in &armed {
                let node = &mut self.cluster.nodes[*node];
                node.start_ended().map_err(|error| error.to_string())?;
                let answer = node.get::<serde_json::Value>("/v1/bootstrap");
                answer.map_err(|error| error.to_string())?;
            }
            Ok(())
        })
        .unwrap();
        println!("{what}: {steps} steps");
        steps
    }

    /// An operator's command, and kills until its operation has ended. Others are well all the while.
    fn command(&mut self, words: &[&str], kind: &str) {
        let before = completed(&self.cluster, kind).unwrap();
        let untouched = processes(&self.cluster);
        let what = words.join(" ");
        self.arm_all(0);
        let asked = primary(&self.cluster);
        let give = |cluster: &Cluster| cluster.nodes[asked].rladmin_started(words).unwrap();
        let mut command = give(&self.cluster);
        let steps = self.cut_until(&what, |cluster| {
            let ended = command.try_wait().ok().flatten();
            if completed(cluster, kind)? > before {
                return Ok(());
            }
            // Where the disk is slow, another primary node may have been elected without what the first one wrote: as
            // rladmin says then, look, and try again.
            if ended.is_some_and(|status| !status.success()) {
                command = give(cluster);
            }
            Err("it has not begun".to_owned())
        });
        // What it says depends on who lives.
        println!("{}", seen(&command.wait_with_output().unwrap()));
        let least = self.victim.engine().unwrap_or(3);
        assert!(steps > least, "{what}: only {steps} steps");
        self.well(&untouched);
    }

    /// Clients are served, and nobody was started again who was not killed.
    fn well(&self, untouched: &[(u64, u32)]) {
        if !self.leaves {
            self.cluster.settled().unwrap();
        }
        shards_ok(&self.cluster);
        assert_eq!(masters(&self.cluster).len(), 1);
        go_on(&self.writers, "they write");
        if self.victim.engine().is_some() {
            return;
        }
        let now = processes(&self.cluster);
        let again = |(uid, pid): &&(u64, u32)| {
            let mut same = now.iter().filter(|(other, _)| other == uid);
            same.any(|(_, other)| other != pid)
        };
        assert_eq!(untouched.iter().find(again), None, "{now:?}");
        let events: Vec<LogEvent> = self.cluster.nodes[0].get("/v1/logs").unwrap();
        for kind in ["shard_restarted", "shard_failover", "shard_withheld"] {
            let found = events.iter().find(|event| event.kind == kind);
            assert!(found.is_none(), "{found:?}");
        }
    }

    fn finish(self) {
        let mut connection = served(&self.cluster, 0, PORT);
        for written in stop(self.writers) {
            let there = value(&mut connection, &written.key);
            if self.victim.engine().is_some() {
                // What was in flight to it is not known to have been carried out.
                assert!(written.errors.len() <= 2, "{written:?}");
                let known = written.acknowledged..=written.sent;
                assert!(known.contains(&there), "{there} of {written:?}");
            } else {
                assert_eq!(written.errors, [""; 0], "{}", written.key);
                assert_eq!(there, written.acknowledged, "{}", written.key);
            }
            println!("{}: longest wait {:?}", written.key, written.worst);
        }
    }
}

/// How many operations of a kind have come to their end; an error while one has not.
fn completed(cluster: &Cluster, kind: &str) -> Result<usize, String> {
    let actions: Actions = cluster.nodes[0]
        .get("/v1/actions")
        .map_err(|error| error.to_string())?;
    let of_kind = actions.state_machines.iter().filter(|o| o.name == kind);
    let mut count = 0;
    for operation in of_kind {
        match operation.status {
            Some(OperationStatus::Completed) => count += 1,
            Some(OperationStatus::Pending | OperationStatus::Active) => {
                return Err(format!("{operation:?}"));
            }
            // A move that took so long that it was undone pauses its operation: on a busy machine that is meant.
            Some(OperationStatus::Paused) if operation.error.as_deref().is_some_and(is_undone) => {
                let retry = ["retry", &operation.action_uid];
                let said = cluster.nodes[0]
                    .rladmin(&retry)
                    .map_err(|e| e.to_string())?;
                return Err(format!("{operation:?}: {}", seen(&said)));
            }
            _ => panic!("{operation:?}"),
        }
    }
    Ok(count)
}

fn is_undone(why: &str) -> bool {
    why.contains("the primary node changed in the middle of the move")
}

/// The engines of a role.
fn engines(cluster: &Cluster, role: &str) -> Vec<u32> {
    let all = shards(cluster, 0).into_iter();
    let of_role = all.filter(|shard| shard.role == role);
    of_role.filter_map(|shard| shard.pid).collect()
}

/// Shards and their engines.
fn processes(cluster: &Cluster) -> Vec<(u64, u32)> {
    let all = shards(cluster, 0).into_iter();
    all.filter_map(|shard| Some((shard.uid.0, shard.pid?)))
        .collect()
}

fn free_node(cluster: &Cluster) -> u64 {
    let all = shards(cluster, 0);
    let free = (1..=3).find(|node| all.iter().all(|shard| shard.node_uid.0 != *node));
    free.expect("a node without a copy")
}

/// A shard is brought to another node, each node with the primary is emptied and filled again, the last one leaves.
fn operators_commands(victim: Victim) {
    let mut story = Story::begin(victim);
    let all = shards(&story.cluster, 0);
    let moved = all.iter().find(|shard| shard.node_uid.0 != 3).unwrap();
    let target = free_node(&story.cluster).to_string();
    let shard = moved.uid.to_string();
    let words = ["migrate", "shard", &shard, "target_node", &target];
    story.command(&words, "SMMigrateShards");
    let node = masters(&story.cluster)[0].node_uid.to_string();
    let words = ["node", &node, "maintenance_mode", "on"];
    story.command(&words, "maintenance_on");
    let words = ["node", &node, "maintenance_mode", "off"];
    story.command(&words, "maintenance_off");
    story.leaves = true;
    story.command(&["node", "3", "remove"], "remove");
    story.cut_until("node 3 has left", |cluster| {
        let nodes: Vec<NodeInfo> = cluster.nodes[0]
            .get("/v1/nodes")
            .map_err(|e| e.to_string())?;
        match nodes.len() {
            2 => Ok(()),
            count => Err(format!("{count} nodes")),
        }
    });
    story.finish();
}

/// A node with a replica is lost, and comes back when the replica was made anew.
fn a_lost_replica(victim: Victim) {
    let mut story = Story::begin(victim);
    let words = ["tune", "cluster", "slave_ha", "enabled"];
    let words = [&words[..], &["slave_ha_grace_period", "1"]].concat();
    let output = story.cluster.nodes[0].rladmin(&words).unwrap();
    assert!(output.status.success(), "{}", seen(&output));
    let replica = |cluster: &Cluster| -> ShardInfo {
        let mut all = shards(cluster, 0).into_iter();
        all.find(|shard| shard.role == "slave").unwrap()
    };
    if replica(&story.cluster).node_uid.0 == 1 {
        // The first node has the clients.
        let master = masters(&story.cluster)[0].uid.to_string();
        let words = ["failover", "shard", &master];
        story.cluster.nodes[0].rladmin_until(&words).unwrap();
        shards_ok(&story.cluster);
    }
    let lost = replica(&story.cluster);
    let place = usize::try_from(lost.node_uid.0).unwrap() - 1;
    let untouched = processes(&story.cluster);
    story.alive.retain(|node| *node != place);
    story.arm_all(0);
    story.cluster.nodes[place].kill_everything().unwrap();
    let steps = story.cut_until("the replica is made anew", |cluster| {
        match completed(cluster, "SMMigrateShards")? {
            1 => Ok(()),
            _ => Err("it has not begun".to_owned()),
        }
    });
    assert!(steps > 3, "only {steps} steps");
    story.arm_all(0);
    story.cluster.nodes[place].start().unwrap();
    story.cluster.nodes[place].ready().unwrap();
    story.alive.push(place);
    story.cut_until("the lost one goes", |cluster| {
        let all: Vec<ShardInfo> = cluster.nodes[0]
            .get("/v1/shards")
            .map_err(|e| e.to_string())?;
        let there = |shard: &&ShardInfo| shard.uid == lost.uid;
        match (all.len(), all.iter().find(there)) {
            (2, None) => Ok(()),
            _ => Err(format!("{all:?}")),
        }
    });
    story.well(&untouched);
    story.finish();
}

/// A shard goes round while an engine is killed.
fn a_migration(victim: Victim) {
    let mut story = Story::begin(victim);
    let moved = shards(&story.cluster, 0)[0].uid.to_string();
    let target = free_node(&story.cluster).to_string();
    let words = ["migrate", "shard", &moved, "target_node", &target];
    story.command(&words, "SMMigrateShards");
    story.finish();
}

#[test]
fn the_primary_node_is_killed_at_each_step_of_operators_commands() {
    operators_commands(Victim::Primary);
}

#[test]
fn the_primary_node_is_killed_at_each_step_while_a_lost_replica_is_made_anew() {
    a_lost_replica(Victim::Primary);
}

/// Minutes: the soak runs them, and so does whoever changes what brings shards elsewhere.
macro_rules! somebody_else {
    ($($name:ident: $what:ident($victim:expr);)*) => {
        mod somebody_else_at_each_step {
            use super::Victim;

            $(
                #[test]
                #[ignore = "minutes: `cargo nextest run -p cluster-tests --run-ignored only somebody_else_at_each_step`"]
                fn $name() {
                    super::$what($victim);
                }
            )*
        }
    };
}
somebody_else! {
    others_and_commands: operators_commands(Victim::Others);
    others_and_a_lost_replica: a_lost_replica(Victim::Others);
    all_and_commands: operators_commands(Victim::All);
    all_and_a_lost_replica: a_lost_replica(Victim::All);
    proxies_and_commands: operators_commands(Victim::Proxies);
    proxies_and_a_lost_replica: a_lost_replica(Victim::Proxies);
    master_after_0: a_migration(Victim::Master(0));
    master_after_1: a_migration(Victim::Master(1));
    master_after_2: a_migration(Victim::Master(2));
    master_after_3: a_migration(Victim::Master(3));
    slaves_after_0: a_migration(Victim::Slaves(0));
    slaves_after_1: a_migration(Victim::Slaves(1));
    slaves_after_2: a_migration(Victim::Slaves(2));
    slaves_after_3: a_migration(Victim::Slaves(3));
}
