//! Choice of nodes and of ports. Pure.

use super::racks;
use super::refusal::{Lack, WhyNot, does_not_take, none_takes};
use super::replicas::place_replicas;
use crate::observed::Observations;
use crate::operation::request::describe;
use crate::state::{ClusterState, Stored};
use model::documents::{Database, Node, Operation, ProxyPolicy, Role, Shard, ShardsPlacement};
use model::limits::{ENDPOINT_PORTS, SHARD_MEMORY_MIN, SHARD_PORTS, SHARDS_PER_NODE_MAX};
use model::observation::NodeObservation;
use model::release::EngineId;
use model::units::format_size;
use model::{ApiError, DatabaseUid, ErrorCode, NodeUid};
use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// First port tried for a database without a wish.
const FIRST_ENDPOINT_PORT: u16 = 12_000;

/// What a node could take of a new database.
pub(super) struct Room {
    pub(super) node: NodeUid,
    /// Its rack, if told.
    pub(super) rack: Option<String>,
    /// Memory not promised to a shard yet, bytes.
    pub(super) left: u64,
    /// Shards on it.
    pub(super) shards: u32,
    /// Why it takes none at all, if so.
    closed: Option<WhyNot>,
}

impl Room {
    fn of(
        state: &ClusterState,
        seen: Option<&NodeObservation>,
        node: &Node,
        engine: &EngineId,
    ) -> Self {
        let shards = state.shards_on(node.uid);
        let closed = match seen {
            None => Some(WhyNot::new(Lack::Voice, "is not heard")),
            Some(_) if !node.accept_servers => Some(WhyNot::new(Lack::Will, "takes no shards")),
            Some(_) if node.maintenance.is_some() => {
                Some(WhyNot::new(Lack::Will, "is in maintenance mode"))
            }
            Some(_) if node.leaving => Some(WhyNot::new(Lack::Will, "leaves the cluster")),
            Some(seen) if !seen.engines.contains(engine) => {
                let words = format!("does not carry {engine}");
                Some(WhyNot::new(Lack::Engine, words))
            }
            Some(_) => None,
        };
        Self {
            node: node.uid,
            rack: node.rack_id.clone(),
            left: node
                .memory_bytes
                .saturating_sub(state.promised_memory(node.uid)),
            shards: u32::try_from(shards).unwrap_or(u32::MAX),
            closed,
        }
    }

    /// How many shards of this size fit, at most `most`.
    fn fits(&self, memory: u64, most: usize) -> usize {
        if self.closed.is_some() {
            return 0;
        }
        let by_number = SHARDS_PER_NODE_MAX.saturating_sub(self.shards) as usize;
        let by_memory = usize::try_from(self.left / memory.max(1)).unwrap_or(usize::MAX);
        most.min(by_number).min(by_memory)
    }

    pub(super) fn take(&mut self, memory: u64) {
        self.left = self.left.saturating_sub(memory);
        self.shards += 1;
    }

    pub(super) fn give_back(&mut self, memory: u64) {
        self.left = self.left.saturating_add(memory);
        self.shards = self.shards.saturating_sub(1);
    }

    /// Whether a replica of this size may be here whose primary is on that node, and must not be in that rack.
    pub(super) fn takes_beside(
        &self,
        (primary, rack): (NodeUid, Option<&str>),
        memory: u64,
    ) -> bool {
        let apart = rack.is_none() || self.rack.as_deref() != rack;
        self.node != primary && apart && self.fits(memory, 1) > 0
    }

    pub(super) fn why_not(&self) -> WhyNot {
        let words = match &self.closed {
            Some(why) => return why.clone(),
            None if self.shards >= SHARDS_PER_NODE_MAX => {
                format!("has {SHARDS_PER_NODE_MAX} shards already")
            }
            None => format!("has {} left", format_size(self.left)),
        };
        WhyNot::new(Lack::Room, words)
    }
}

/// What a shard needs of a node.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted<'a> {
    /// Memory limit of each shard, bytes.
    pub(super) shares: &'a [u64],
    pub(super) placement: ShardsPlacement,
}

/// Nodes for the shards of a database.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Places {
    /// Of the primary shards, by slots.
    pub primaries: Vec<NodeUid>,
    /// Of their replicas, in the same order; empty without replication.
    pub replicas: Vec<NodeUid>,
}

/// The nodes of a new database's shards, one for each share of its memory. A node must be heard, take
/// shards, carry the engine and have room.
///
/// Dense: primaries on as few nodes as hold them, neighbours together; a node that can hold the most
/// comes first, then the next. Sparse: in turn over all nodes with room. Of nodes that are equal by
/// that, the one with the most memory left comes first, then the one with the fewest shards, then the
/// one with the lowest uid. Replicas go by [`nodes_for_replicas`].
///
/// # Errors
/// `insufficient_resources` with the reason for each node; `node_down`, `node_takes_no_shards` or `invalid_version`
/// where it is not room that is missing.
pub fn nodes_for_shards(
    state: &ClusterState,
    observed: &Observations,
    engine: &EngineId,
    shares: &[u64],
    (placement, replication, rack_aware): (ShardsPlacement, bool, bool),
    now: Instant,
) -> Result<Places, ApiError> {
    let mut rooms = rooms(state, observed, engine, (state.node_silent(), now));
    let wanted = Wanted { shares, placement };
    let primaries = place_primaries(&mut rooms, wanted)?;
    let replicas = if replication {
        place_replicas(&mut rooms, wanted, (&primaries, rack_aware))?
    } else {
        Vec::new()
    };
    Ok(Places {
        primaries,
        replicas,
    })
}

/// The nodes of new replicas of primaries that exist: never the primary's own, nor one of its rack if
/// the database is rack-aware; sparse: the one with the fewest of the database's copies; then the one with the most
/// memory left, then with the fewest shards, then the lowest uid. `primaries`: node of each, and the memory
/// limit that it has and will have, bytes: what counts is what is left once they have that.
///
/// # Errors
/// `insufficient_resources` with the reason for each node; `node_down`, `node_takes_no_shards` or `invalid_version`
/// where it is not room that is missing.
pub fn nodes_for_replicas(
    state: &ClusterState,
    observed: &Observations,
    engine: &EngineId,
    (primaries, placement, rack_aware): (&[(NodeUid, u64, u64)], ShardsPlacement, bool),
    now: Instant,
) -> Result<Vec<NodeUid>, ApiError> {
    let mut rooms = rooms(state, observed, engine, (state.node_silent(), now));
    for room in &mut rooms {
        room.left = left_with(state, room.node, primaries);
    }
    let nodes: Vec<NodeUid> = primaries.iter().map(|(node, _, _)| *node).collect();
    let shares: Vec<u64> = primaries.iter().map(|(_, _, wanted)| *wanted).collect();
    let wanted = Wanted {
        shares: &shares,
        placement,
    };
    place_replicas(&mut rooms, wanted, (&nodes, rack_aware))
}

/// Memory of a node that is promised to nobody when shards there have other limits: where each is, what it has
/// and what it will have, bytes.
fn left_with(state: &ClusterState, node: NodeUid, changed: &[(NodeUid, u64, u64)]) -> u64 {
    let memory = state.node(node).map_or(0, |node| node.memory_bytes);
    let here = changed.iter().filter(|(there, _, _)| *there == node);
    let (has, will) = here.fold((0_u64, 0_u64), |(has, will), (_, one, other)| {
        (has.saturating_add(*one), will.saturating_add(*other))
    });
    let others = state.promised_memory(node).saturating_sub(has);
    memory.saturating_sub(others.saturating_add(will))
}

/// What was promised to a copy.
#[derive(Clone, Copy, Debug)]
struct Taken {
    node: NodeUid,
    database: DatabaseUid,
    memory: u64,
}

/// Chooses nodes for copies of many shards, one after the other: what was promised to the one before is
/// taken.
#[derive(Debug)]
pub struct Planner<'a> {
    state: &'a ClusterState,
    observed: &'a Observations,
    now: Instant,
    taken: Vec<Taken>,
}

impl<'a> Planner<'a> {
    /// With nothing promised.
    #[must_use]
    pub fn new(state: &'a ClusterState, observed: &'a Observations, now: Instant) -> Self {
        Self {
            state,
            observed,
            now,
            taken: Vec::new(),
        }
    }

    /// A node for a copy of a shard: none of those that have one of its slots already, and not this one. Sparse: one
    /// with the fewest of the database's copies.
    ///
    /// # Errors
    /// As [`nodes_for_shards`].
    pub fn place(
        &mut self,
        shard: &Shard,
        copies: &[NodeUid],
        not: NodeUid,
    ) -> Result<NodeUid, ApiError> {
        let within = self.state.node_silent();
        let mut rooms = rooms(self.state, self.observed, &shard.engine, (within, self.now));
        let database = self.state.database(shard.database);
        let racks: Vec<&str> = copies
            .iter()
            .filter(|node| **node != not && database.is_some_and(|d| d.rack_aware))
            .filter_map(|node| racks::of(self.state, *node))
            .collect();
        for room in &mut rooms {
            let here = room.node;
            for taken in self.taken.iter().filter(|taken| taken.node == here) {
                room.take(taken.memory);
            }
            if room.node == not {
                room.closed = Some(WhyNot::new(Lack::Nothing, "is the one that it leaves"));
            } else if copies.contains(&room.node) {
                let words = self.has_a_copy(shard, here);
                room.closed = Some(WhyNot::new(Lack::Nothing, words));
            } else if let Some(rack) = room.rack.as_deref().filter(|rack| racks.contains(rack)) {
                let words = format!("is in rack '{rack}', as another copy");
                room.closed = Some(WhyNot::new(Lack::Nothing, words));
            }
        }
        let sparse = database.is_some_and(|d| d.shards_placement == ShardsPlacement::Sparse);
        let fewest = |room: &Room| {
            if sparse {
                self.copies(shard, room.node)
            } else {
                0
            }
        };
        let best = rooms
            .iter()
            .filter(|room| room.fits(shard.memory_bytes, 1) > 0)
            .max_by_key(|room| {
                let first = Reverse(fewest(room));
                (first, room.left, Reverse(room.shards), Reverse(room.node))
            });
        match best {
            Some(room) => {
                self.taken.push(Taken {
                    node: room.node,
                    database: shard.database,
                    memory: shard.memory_bytes,
                });
                Ok(room.node)
            }
            None => {
                let what = format!("redis:{} ({})", shard.uid, format_size(shard.memory_bytes));
                Err(none_takes("no node", &what, &reasons(&rooms)))
            }
        }
    }

    /// In words, that a node is none for a copy of a shard: it has one, or one is on its way there.
    fn has_a_copy(&self, shard: &Shard, node: NodeUid) -> String {
        let of_these = |other: &&Stored<Shard>| other.slots == shard.slots;
        let mut others = self.state.shards_of(shard.database).filter(of_these);
        let has = others.any(|other| other.node == node && other.removed_by.is_none());
        let mut running = self.state.operations.iter().filter(|o| o.ended.is_none());
        let brings = |operation: &&Stored<Operation>| {
            let mut moves = operation.migrations.iter().filter(|m| m.node == node);
            operation.database == shard.database
                && moves.any(|m| {
                    let moved = self.state.shard(m.shard);
                    moved.is_some_and(|moved| moved.slots == shard.slots)
                })
        };
        match running.find(brings) {
            Some(operation) => {
                let waits = operation.waiting_on.as_ref();
                let waits = waits.map_or_else(String::new, |on| format!(", which waits ({on})"));
                format!("is to get a copy by {}{waits}", describe(operation))
            }
            None if has => "has a copy already".to_owned(),
            None => "is to get another copy".to_owned(),
        }
    }

    /// How many copies of a shard's database a node has or will have.
    fn copies(&self, shard: &Shard, node: NodeUid) -> usize {
        let there = |copy: &&Stored<Shard>| copy.node == node && copy.removed_by.is_none();
        let coming = |taken: &&Taken| taken.node == node && taken.database == shard.database;
        let there = self.state.shards_of(shard.database).filter(there).count();
        there + self.taken.iter().filter(coming).count()
    }
}

/// What is on its way to a node and has no engine there yet.
#[derive(Clone, Copy, Debug, Default)]
pub struct Coming {
    shards: u32,
    memory: u64,
}

impl Coming {
    /// What operations that are under way still bring to a node.
    #[must_use]
    pub fn to(state: &ClusterState, node: NodeUid) -> Self {
        let mut coming = Self::default();
        let running = state.operations.iter().filter(|o| o.ended.is_none());
        let moves = running.flat_map(|operation| &operation.migrations);
        for migration in moves.filter(|m| m.node == node && m.copy.is_none()) {
            if let Some(shard) = state.shard(migration.shard) {
                coming.add(shard.memory_bytes);
            }
        }
        coming
    }

    /// One more shard.
    pub fn add(&mut self, memory: u64) {
        self.shards += 1;
        self.memory = self.memory.saturating_add(memory);
    }
}

/// Whether one node has room for a shard of this size, besides what comes to it before.
///
/// # Errors
/// As [`nodes_for_shards`].
pub fn room_on(
    state: &ClusterState,
    observed: &Observations,
    engine: &EngineId,
    (node, memory, coming): (NodeUid, u64, Coming),
    now: Instant,
) -> Result<(), ApiError> {
    let mut rooms = rooms(state, observed, engine, (state.node_silent(), now));
    let room = rooms.iter_mut().find(|room| room.node == node);
    let room = room.ok_or(ErrorCode::NodeNotFound)?;
    room.left = room.left.saturating_sub(coming.memory);
    room.shards = room.shards.saturating_add(coming.shards);
    if room.fits(memory, 1) > 0 {
        return Ok(());
    }
    let besides = match coming.shards {
        0 => String::new(),
        count => format!(" besides the {count} that come before it"),
    };
    let what = format!("a shard of {}", format_size(memory));
    Err(does_not_take(node, &what, &besides, &room.why_not()))
}

fn reasons(rooms: &[Room]) -> Vec<(NodeUid, WhyNot)> {
    let rooms = rooms.iter();
    rooms.map(|room| (room.node, room.why_not())).collect()
}

/// What the nodes could take that were heard within a time.
fn rooms(
    state: &ClusterState,
    observed: &Observations,
    engine: &EngineId,
    (within, now): (Duration, Instant),
) -> Vec<Room> {
    state
        .nodes
        .iter()
        .map(|node| {
            let seen = observed.heard(node.uid, within, now);
            Room::of(state, seen, node, engine)
        })
        .collect()
}

fn place_primaries(rooms: &mut [Room], wanted: Wanted<'_>) -> Result<Vec<NodeUid>, ApiError> {
    let Wanted { shares, placement } = wanted;
    let mut chosen: Vec<NodeUid> = Vec::new();
    while let Some(memory) = shares.get(chosen.len()).copied() {
        let left = shares.len() - chosen.len();
        let mine = |room: &Room| chosen.iter().filter(|node| **node == room.node).count();
        let best = rooms
            .iter_mut()
            .filter(|room| room.fits(memory, 1) > 0)
            .max_by_key(|room| {
                let first = match placement {
                    ShardsPlacement::Dense => room.fits(memory, left),
                    ShardsPlacement::Sparse => usize::MAX - mine(room),
                };
                (first, room.left, Reverse(room.shards), Reverse(room.node))
            });
        let Some(room) = best else {
            return Err(no_room(shares, chosen.len(), rooms));
        };
        let together = match placement {
            ShardsPlacement::Dense => room.fits(memory, left),
            ShardsPlacement::Sparse => 1,
        };
        for _ in 0..together {
            room.take(memory);
            chosen.push(room.node);
        }
    }
    Ok(chosen)
}

fn no_room(shares: &[u64], placed: usize, rooms: &[Room]) -> ApiError {
    let size = format_size(shares.first().copied().unwrap_or_default());
    let reasons = reasons(rooms);
    match shares.len() {
        1 => none_takes("no node", &size, &reasons),
        count => {
            let who = format!("{placed} of {count} shards of {size} have a place, no node");
            none_takes(&who, "one more", &reasons)
        }
    }
}

/// Whether shards may get the limits that are meant for them. `grown`: where each shard is, what it
/// has and what it should have, bytes.
///
/// # Errors
/// `insufficient_resources` with the first node that has too little.
pub fn room_to_grow(state: &ClusterState, grown: &[(NodeUid, u64, u64)]) -> Result<(), ApiError> {
    for node in &state.nodes {
        let mut here = grown
            .iter()
            .filter(|(uid, _, _)| *uid == node.uid)
            .peekable();
        if here.peek().is_none() {
            continue;
        }
        let (count, now, wanted) = here
            .fold((0_u32, 0_u64, 0_u64), |(count, a, b), (_, now, wanted)| {
                (count + 1, a + now, b.saturating_add(*wanted))
            });
        let others = state.promised_memory(node.uid).saturating_sub(now);
        let left = node.memory_bytes.saturating_sub(others);
        if wanted > left {
            let whom = match count {
                1 => "this shard".to_owned(),
                _ => format!("its {count} shards"),
            };
            return Err(ApiError::new(
                ErrorCode::InsufficientResources,
                format!(
                    "node:{} has {} for {whom}, less than {}",
                    node.uid,
                    format_size(left),
                    format_size(wanted)
                ),
            ));
        }
    }
    Ok(())
}

/// Ports of new engines: the lowest that no other shard has anywhere, so that a shard can move without
/// changing it.
///
/// # Errors
/// `insufficient_resources` when there are not as many.
pub fn shard_ports(state: &ClusterState, count: usize) -> Result<Vec<u16>, ApiError> {
    let taken: BTreeSet<u16> = state.shards.iter().map(|s| s.port).collect();
    let free: Vec<u16> = SHARD_PORTS
        .filter(|port| !taken.contains(port))
        .take(count)
        .collect();
    if free.len() < count {
        return Err(ApiError::new(
            ErrorCode::InsufficientResources,
            "every shard port is taken: delete a database".to_owned(),
        ));
    }
    Ok(free)
}

/// The port of a database: the wish if it is free, else the lowest free one.
///
/// # Errors
/// `port_unavailable`.
pub fn endpoint_port(state: &ClusterState, wish: Option<u16>) -> Result<u16, ApiError> {
    let taken = |port: u16| state.databases.iter().find(|d| d.port == port);
    if let Some(port) = wish {
        if !ENDPOINT_PORTS.contains(&port) {
            return Err(ApiError::new(
                ErrorCode::PortUnavailable,
                format!(
                    "port {port} is outside {}-{}: choose one inside, or leave it out",
                    ENDPOINT_PORTS.start(),
                    ENDPOINT_PORTS.end()
                ),
            ));
        }
        return match taken(port) {
            None => Ok(port),
            Some(other) => Err(ApiError::new(
                ErrorCode::PortUnavailable,
                format!(
                    "port {port} is taken by database '{}' (db:{}): choose another, or leave it out",
                    other.name, other.uid
                ),
            )),
        };
    }
    (FIRST_ENDPOINT_PORT..=*ENDPOINT_PORTS.end())
        .chain(*ENDPOINT_PORTS.start()..FIRST_ENDPOINT_PORT)
        .find(|port| taken(*port).is_none())
        .ok_or_else(|| ApiError::from(ErrorCode::PortUnavailable))
}

/// The engine of a new database: the newest that every heard node carries and that fits the wish.
///
/// # Errors
/// `invalid_version` with those that there are.
pub fn engine(
    state: &ClusterState,
    observed: &Observations,
    wish: Option<&str>,
    now: Instant,
) -> Result<EngineId, ApiError> {
    let mut common: Option<Vec<EngineId>> = None;
    for seen in state
        .nodes
        .iter()
        .filter_map(|n| observed.fresh(n.uid, now))
    {
        common = Some(match common {
            None => seen.engines.clone(),
            Some(engines) => engines
                .into_iter()
                .filter(|e| seen.engines.contains(e))
                .collect(),
        });
    }
    let Some(common) = common else {
        return Err(ApiError::new(
            ErrorCode::NotReady,
            "the primary node has heard no node yet: try again in a moment".to_owned(),
        ));
    };
    let fits = common
        .iter()
        .filter(|e| wish.is_none_or(|wish| e.matches(wish)));
    fits.max_by_key(|e| e.age_key()).cloned().ok_or_else(|| {
        let known: Vec<String> = common.iter().map(ToString::to_string).collect();
        let known = if known.is_empty() {
            "none".to_owned()
        } else {
            known.join(", ")
        };
        let wish = model::validate::shown(wish.unwrap_or("the newest"));
        ApiError::new(
            ErrorCode::InvalidVersion,
            format!("engine version '{wish}' is not available; every node carries: {known}"),
        )
    })
}

/// The memory limits of a database's primary shards; their replicas have the same. `memory_size` is
/// what all of them have together.
///
/// # Errors
/// `missing_memory_size`, or `invalid_param` when a share is too small to be of use.
pub fn shares(memory_size: u64, count: u32, replication: bool) -> Result<Vec<u64>, ApiError> {
    if memory_size == 0 {
        return Err(ErrorCode::MissingMemorySize.into());
    }
    let copies = if replication { 2 } else { 1 };
    let engines = count * copies;
    let least = SHARD_MEMORY_MIN.saturating_mul(u64::from(engines));
    if memory_size < least {
        let for_shards = match engines {
            1 => String::new(),
            _ => format!(
                " for {engines} shards ({} each{})",
                format_size(SHARD_MEMORY_MIN),
                if replication { ", replicas too" } else { "" }
            ),
        };
        return Err(ApiError::new(
            ErrorCode::InvalidParam,
            format!(
                "memory_size {memory_size} is too small: at least {}{for_shards}",
                format_size(least)
            ),
        ));
    }
    Ok(model::sharding::memory_shares(
        memory_size / u64::from(copies),
        count,
    ))
}

/// The primary shards of a database, by slots.
#[must_use]
pub fn primaries(state: &ClusterState, database: DatabaseUid) -> Vec<&Stored<Shard>> {
    let mut primaries: Vec<&Stored<Shard>> = state
        .shards_of(database)
        .filter(|shard| shard.role == Role::Primary)
        .collect();
    primaries.sort_by_key(|shard| (shard.slots.first, shard.uid));
    primaries
}

/// Nodes whose proxies serve a database.
#[must_use]
pub fn proxies(state: &ClusterState, database: &Database) -> Vec<NodeUid> {
    let primaries = primaries(state, database.uid)
        .into_iter()
        .map(|shard| shard.node);
    let nodes: BTreeSet<NodeUid> = match database.proxy_policy {
        ProxyPolicy::Single => primaries.take(1).collect(),
        ProxyPolicy::AllMasterShards => primaries.collect(),
        ProxyPolicy::AllNodes => state.nodes.iter().map(|n| n.uid).collect(),
    };
    nodes.into_iter().collect()
}
