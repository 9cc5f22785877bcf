//! Connections to the engine that is to be primary: opened and greeted before the gate closes.

use super::{Gate, Outcome, Prepared, refuse, tell};
use crate::bounds;
use crate::worker::Worker;
use crate::worker::backend::{Next, Phase, Use};
use crate::worker::client::{ClientId, Lane};
use crate::worker::link::{Engine, LinkId};
use model::Epoch;
use model::proxy::ProxyShard;
use tokio::sync::mpsc::Sender;

/// Whether two descriptions lead to the same connections.
pub(in crate::worker) fn same_place(one: &ProxyShard, other: &ProxyShard) -> bool {
    (one.epoch, &one.address, &one.user, &one.password)
        == (other.epoch, &other.address, &other.user, &other.password)
}

impl Worker {
    pub(super) fn prepare(
        &mut self,
        served: usize,
        shard: usize,
        epoch: Epoch,
        next: ProxyShard,
        answer: Sender<Outcome>,
    ) {
        let known = self.epoch_of(served, shard);
        if known != Some(epoch) {
            let known = known.map_or_else(|| "none".to_owned(), |epoch| epoch.to_string());
            refuse(
                Some(answer),
                format!("the epoch is {known} here, not {epoch}"),
            );
            return;
        }
        if next.epoch <= epoch {
            let text = format!("epoch {} does not follow epoch {epoch}", next.epoch);
            refuse(Some(answer), text);
            return;
        }
        self.forget_prepared(served, shard, "another one is prepared");
        let number = self.next_number();
        let target = self.new_target(served, shard);
        let links = &mut self.served[served].shards[shard];
        let gate = links.gate.get_or_insert_with(Box::<Gate>::default);
        gate.prepared = Some(Prepared {
            shard: next,
            target,
            shared: [None; 2],
            spare: Vec::new(),
            opening: 0,
            loading: false,
            engine: None,
            answer: Some(answer),
            number,
        });
        self.set_gate_timer(bounds::PREPARED_TIME, served, shard, number);
        self.open_prepared(served, shard);
    }

    /// Opens what the next primary needs to take over at once.
    fn open_prepared(&mut self, served: usize, shard: usize) {
        for id in self.links_of(served, shard) {
            let used = |worker: &Self| {
                let link = worker.link(id);
                link.is_some_and(|link| link.shared.is_some() || !link.waiters.is_empty())
            };
            if id.resp == 3 && !used(self) {
                continue;
            }
            match self.open_next(id, Next::Shared) {
                Ok(index) => {
                    if let Some(prepared) = self.prepared_mut(served, shard) {
                        prepared.shared[usize::from(id.resp - 2)] = Some(index);
                        prepared.opening += 1;
                    }
                }
                Err(reason) => {
                    let reason = format!("the next primary: {reason}");
                    self.forget_prepared(served, shard, &reason);
                    return;
                }
            }
        }
        self.open_spares(served, shard, bounds::PREPARED_MAX);
    }

    /// Opens a connection for each client that has one of its own, up to `most` in all.
    pub(super) fn open_spares(&mut self, served: usize, shard: usize, most: usize) {
        for id in self.links_of(served, shard) {
            let wanted = self.clients.iter().filter(|(index, client)| {
                client.served == served
                    && !matches!(client.lane, Lane::Shared)
                    && self.link_of(*index) == id
            });
            let wanted = wanted.count();
            let have = |worker: &Self| {
                let gate = worker.gate(id).and_then(|gate| gate.prepared.as_ref());
                gate.map_or((0, 0), |prepared| {
                    let same = |spare: &&usize| worker.backends[**spare].link == id;
                    let of_link = prepared.spare.iter().filter(same).count();
                    (of_link, prepared.spare.len())
                })
            };
            loop {
                let (of_link, all) = have(self);
                if of_link >= wanted || all >= most {
                    break;
                }
                // What is missing is opened when it is needed.
                let Ok(index) = self.open_next(id, Next::Spare) else {
                    break;
                };
                if let Some(prepared) = self.prepared_mut(served, shard) {
                    prepared.spare.push(index);
                    prepared.opening += 1;
                }
            }
        }
    }

    /// The connection that was set up for a client is none.
    pub(super) fn forget_next(&mut self, name: ClientId) {
        if let Some(client) = self.find(name)
            && let Some(keep) = &mut self.clients[client].keep
        {
            keep.next = None;
        }
    }

    /// What the next primary says of itself.
    pub(in crate::worker) fn next_greeted(&mut self, id: LinkId, engine: Option<Engine>) {
        if let Some(prepared) = self.prepared_mut(id.served, id.shard) {
            prepared.engine = engine;
        }
    }

    /// Sets up a connection to the next primary for a client that would miss something without it; `true`:
    /// it is there, or there will be none.
    pub(super) fn set_up_early(&mut self, client: usize) -> bool {
        let (id, name) = (self.link_of(client), self.client_id(client));
        let next = self.clients[client]
            .keep
            .as_ref()
            .and_then(|keep| keep.next);
        if let Some(next) = next {
            return self.backends[next].phase == Phase::Ready;
        }
        let Some(prepared) = self.prepared_mut(id.served, id.shard) else {
            return true;
        };
        let spares = prepared.spare.clone();
        let fits = |index: &&usize| {
            let backend = &self.backends[**index];
            backend.link == id && backend.phase == Phase::Ready
        };
        if let Some(index) = spares.iter().find(fits).copied() {
            if let Some(prepared) = self.prepared_mut(id.served, id.shard) {
                prepared.spare.retain(|spare| *spare != index);
            }
            self.backends[index].usage = Use::Next(Next::Client(name));
            self.kept(client).next = Some(index);
            self.set_up_own(index);
            return self.backends[index].phase == Phase::Ready;
        }
        match self.open_next(id, Next::Client(name)) {
            Ok(index) => {
                self.kept(client).next = Some(index);
                false
            }
            Err(reason) => {
                tracing::warn!(%reason, "a client's connection cannot be set up before the move");
                true
            }
        }
    }

    pub(super) fn open_next(
        &mut self,
        id: LinkId,
        what: Next,
    ) -> Result<usize, crate::worker::link::NotOpened> {
        let prepared = self.gate(id).and_then(|gate| gate.prepared.as_ref());
        let known = prepared.map(|prepared| {
            let shard = &prepared.shard;
            (shard.address.clone(), shard.user.clone(), prepared.target)
        });
        let (address, user, target) = known.ok_or(crate::worker::link::NotOpened::Crowded)?;
        self.open_to(id, Use::Next(what), (&address, &user), target)
    }

    pub(super) fn prepared_mut(&mut self, served: usize, shard: usize) -> Option<&mut Prepared> {
        self.gate_mut(served, shard)?.prepared.as_mut()
    }

    /// A connection to the next primary is ready, or there will be none.
    pub(in crate::worker) fn one_prepared(&mut self, served: usize, shard: usize) {
        let Some(prepared) = self.prepared_mut(served, shard) else {
            return;
        };
        prepared.opening = prepared.opening.saturating_sub(1);
        self.tell_if_prepared(served, shard);
    }

    /// A client whose subscriptions still move after the last move is not ready for the next one.
    pub(super) fn tell_if_prepared(&mut self, served: usize, shard: usize) {
        if self.moves_late(served, shard) {
            return;
        }
        if let Some(prepared) = self.prepared_mut(served, shard)
            && prepared.opening == 0
        {
            tell(prepared.answer.take(), Outcome::default());
        }
    }

    /// All replies have come over the connection that all will share: the scripts are loaded.
    pub(in crate::worker) fn next_loaded(&mut self, id: LinkId) {
        if let Some(prepared) = self.prepared_mut(id.served, id.shard)
            && std::mem::take(&mut prepared.loading)
        {
            self.one_prepared(id.served, id.shard);
        }
    }

    /// Closes the connections to an engine that will not be the next primary.
    pub(in crate::worker) fn forget_prepared(&mut self, served: usize, shard: usize, reason: &str) {
        let gate = self.gate_mut(served, shard);
        let Some(prepared) = gate.and_then(|gate| gate.prepared.take()) else {
            return;
        };
        refuse(prepared.answer, reason);
        let indices: Vec<usize> = self
            .backends
            .iter()
            .filter(|(index, backend)| {
                backend.link.served == served
                    && backend.link.shard == shard
                    && backend.target == prepared.target
                    && self.is_prepared(*index)
            })
            .map(|(index, _)| index)
            .collect();
        for index in indices {
            if let Use::Next(Next::Client(name)) = self.backends[index].usage {
                self.forget_next(name);
            }
            self.drop_backend(index);
        }
        self.drop_open_gate(served, shard);
    }

    /// A gate that is open, and for which nothing is prepared, is none.
    pub(super) fn drop_open_gate(&mut self, served: usize, shard: usize) {
        let links = &mut self.served[served].shards[shard];
        let idle = |gate: &Gate| gate.closed.is_none() && gate.prepared.is_none();
        if links.gate.as_deref().is_some_and(idle) {
            links.gate = None;
        }
    }
}
