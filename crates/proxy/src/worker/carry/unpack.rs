//! A record and sockets become a client.

use super::runs::{read_later, read_run};
use super::{Carried, read_session};
use crate::buffer::OutBuffer;
use crate::handover::record::{
    BackendRecord, ClientRecord, FlowRecord, LaneRecord, LegRecord, SessionRecord,
};
use crate::worker::backend::{Backend, Effect, Phase, Run, ShardStream, Use};
use crate::worker::client::{Client, ClientId, Lane, Streaming, Wait};
use crate::worker::fan::{Fan, Leg, Part};
use crate::worker::gate::{Keep, Moving};
use crate::worker::link::LinkId;
use crate::worker::{Worker, backend_token};
use resp::reply::ReplyFramer;
use resp::request::RequestFramer;
use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

impl Worker {
    /// Serves a client that comes from another process, or comes back. Nothing of it is sent or received
    /// before the next turn.
    pub(in crate::worker) fn take_carried(&mut self, carried: Carried) {
        let Carried {
            record,
            sockets,
            database,
        } = carried;
        let served = self.by_uid.get(&database.uid).copied();
        let served = served.filter(|served| self.served[*served].ends == record.ends);
        let shards = sockets.len().saturating_sub(1);
        let mut sockets = sockets.into_iter();
        if let (Some(served), Some(stream)) = (served, sockets.next()) {
            self.unpack(served, *record, stream, sockets);
        } else {
            // Its database was removed, or changed its shards, as for any client: it is closed.
            self.stats.sockets.fetch_sub(shards, Ordering::Relaxed);
            self.not_admitted(&database);
        }
        self.stats.carried.fetch_sub(1, Ordering::AcqRel);
    }

    fn unpack(
        &mut self,
        served: usize,
        record: ClientRecord,
        stream: OwnedFd,
        mut sockets: impl Iterator<Item = OwnedFd>,
    ) {
        let ClientRecord {
            database: _,
            ends: _,
            left_at: _,
            session,
            flow,
            fan,
        } = record;
        let (part, legs) = match fan {
            Some(fan) => {
                let (fan, legs) = Fan::read(*fan);
                (Part::Front(Box::new(fan)), legs)
            }
            None => (Part::Whole, Vec::new()),
        };
        let session = read_session(session, self.now);
        let Some(index) = self.insert(served, stream.into(), session, part) else {
            // It is closed, and so are those to shards.
            let closed = sockets.count();
            self.stats.sockets.fetch_sub(closed, Ordering::Relaxed);
            return;
        };
        let mut backends = Vec::new();
        backends.extend(self.unpack_flow(index, 0, flow, &mut sockets));
        for leg in legs {
            backends.extend(self.unpack_leg(index, leg, &mut sockets));
        }
        self.go_on(index, backends);
    }

    fn unpack_leg(
        &mut self,
        front: usize,
        record: LegRecord,
        sockets: &mut impl Iterator<Item = OwnedFd>,
    ) -> Option<usize> {
        let LegRecord {
            shard,
            session,
            flow,
            replies,
            part,
            message,
            cached,
        } = record;
        let (leg, holds) = Leg::read(front, shard, replies, (part, message), cached);
        let place = self.put_leg(front, shard, session, leg, holds);
        self.unpack_flow(place, shard, flow, sockets)
    }

    fn put_leg(
        &mut self,
        front: usize,
        shard: usize,
        session: SessionRecord,
        leg: Leg,
        holds: usize,
    ) -> usize {
        self.generation = self.generation.wrapping_add(1);
        let known = &self.clients[front];
        let client = Client::new(
            self.generation,
            None,
            known.served,
            Arc::clone(&known.stats),
            read_session(session, self.now),
            Part::Leg(Box::new(leg)),
        );
        let place = self.clients.insert(Box::new(client));
        if let Part::Front(fan) = &mut self.clients[front].part {
            fan.put_leg(shard, place, holds);
        }
        place
    }

    /// Gives a client, or a leg, what it had. Returns its connection to the shard.
    fn unpack_flow(
        &mut self,
        index: usize,
        shard: usize,
        record: FlowRecord,
        sockets: &mut impl Iterator<Item = OwnedFd>,
    ) -> Option<usize> {
        let clock = self.clock;
        let FlowRecord {
            lane,
            barrier,
            backend,
            tail,
            framer,
            scanned,
            streaming,
            held,
            keep,
            owed,
            out,
            in_transaction,
            writes,
            streams_write,
            later,
            refused_own,
            heavy,
            ended,
        } = record;
        let client = &mut *self.clients[index];
        client.wait = if barrier {
            Wait::Barrier
        } else {
            Wait::Nothing
        };
        client.tail = tail.0;
        // It was looked at when the record came.
        client.framer = RequestFramer::load(framer).unwrap_or_default();
        client.scanned = scanned;
        client.streaming = streaming.map(|to_shard| match to_shard {
            true => Streaming::ToShard,
            false => Streaming::Skip,
        });
        client.held = held.map_or(0, |age| clock.saturating_sub(age).max(1));
        client.keep = keep.map(|keep| Box::new(Keep::read(*keep, clock)));
        client.owed = owed.map(|owed| owed.0);
        client.out.push(&out.0);
        client.in_transaction = in_transaction;
        client.writes = writes;
        client.streams_write = streams_write;
        client.later = later.into_iter().map(read_later).collect();
        client.refused_own = refused_own;
        client.heavy = heavy;
        client.ended = ended;
        // What it sent before its end may still be in the socket.
        client.readable = ended;
        if self.departing.is_some() {
            let rest = crate::bounds::DEPART_REST.as_micros() as u64;
            client.departs.not_before = clock + rest;
        }
        client.lane = match lane {
            LaneRecord::Gone => Lane::Gone,
            LaneRecord::Shared | LaneRecord::Own => Lane::Shared,
        };
        self.unpack_own(index, shard, (lane, *backend?), sockets.next()?)
    }

    /// Gives a client, or a leg, its connection to the shard.
    fn unpack_own(
        &mut self,
        index: usize,
        shard: usize,
        (lane, backend): (LaneRecord, BackendRecord),
        socket: OwnedFd,
    ) -> Option<usize> {
        let owner = self.client_id(index);
        let client = &self.clients[index];
        let link = LinkId {
            served: client.served,
            shard,
            resp: client.session.resp,
        };
        let usage = match lane {
            LaneRecord::Own => Use::Own(owner),
            LaneRecord::Shared | LaneRecord::Gone => Use::Leaving,
        };
        let place = self.unpack_backend(link, usage, owner, backend, socket)?;
        let book = &self.backends[place].book;
        let in_flight = book.iter().map(|run| run.count).sum();
        let blocking = book.iter().filter(|run| run.effect == Effect::Blocking);
        let blocking = u32::try_from(blocking.count()).unwrap_or(0);
        let client = &mut self.clients[index];
        client.in_flight = in_flight;
        client.blocking = blocking;
        match usage {
            Use::Own(_) => client.lane = Lane::Own(place),
            _ => client.via = place,
        }
        for _ in 0..blocking {
            self.front_blocks(index, true);
        }
        Some(place)
    }

    fn unpack_backend(
        &mut self,
        link: LinkId,
        usage: Use,
        owner: ClientId,
        record: BackendRecord,
        socket: OwnedFd,
    ) -> Option<usize> {
        let BackendRecord {
            shard,
            epoch,
            unix,
            heard,
            engine_client,
            user,
            framer,
            set_up,
            hides,
            out,
            book,
            captured,
            error_line,
            passed_on,
            half_sent,
        } = record;
        let links = &self.served[link.served].shards[link.shard];
        let current = links.target.as_ref();
        let current = current.is_some_and(|now| (now.uid.0, now.epoch.0) == (shard, epoch));
        let (target, lease) = (links.number, links.lease.clone());
        let mut stream = ShardStream::adopt(socket, unix);
        self.generation = self.generation.wrapping_add(1);
        let entry = self.backends.vacant_entry();
        let place = entry.key();
        if let Err(error) = stream.register(self.poll.registry(), backend_token(place)) {
            // Its client is closed with what was expected here.
            tracing::warn!(%error, "a connection to a shard cannot be watched");
            self.stats.sockets.fetch_sub(1, Ordering::Relaxed);
            self.doomed.push(owner);
            return None;
        }
        let mut waiting = OutBuffer::default();
        waiting.push(&out.0);
        let stats = Arc::clone(&self.served[link.served].stats);
        let book = book.into_iter().map(|run| read_run(run, owner, self.clock));
        let book: VecDeque<Run> = book.collect();
        stats.count_sent(book.iter().map(|run| run.count).sum());
        entry.insert(Backend {
            generation: self.generation,
            stream,
            link,
            stats,
            heard: self.clock.saturating_sub(heard),
            lease: lease.filter(|_| current),
            // Of none that is used: it is taken out of use.
            target: if current { target } else { u64::MAX },
            phase: Phase::Ready,
            engine_client,
            usage,
            set_up,
            muted: false,
            moving: hides.map(|part| Box::new(Moving::hiding(part.0))),
            framer: ReplyFramer::load(&framer.0).unwrap_or_default(),
            out: waiting,
            book,
            captured: captured.0,
            error_line: error_line.0,
            user: user.into(),
            passed_on,
            half_sent,
            held_up: None,
            script_watched: false,
            stalled: Vec::new(),
            ended: false,
            readable: false,
            writable: true,
            watched: true,
            dirty: false,
            queued: false,
        });
        Some(place)
    }

    /// A client that has come goes on where it was.
    fn go_on(&mut self, index: usize, backends: Vec<usize>) {
        let id = self.client_id(index);
        for place in backends {
            let Some(backend) = self.backends.get(place) else {
                continue;
            };
            if backend.target == u64::MAX {
                // The shard has another epoch since: as for any other connection.
                self.retire(place);
            } else {
                self.mark_backend(place);
                self.queue_backend(place);
            }
        }
        let Some(index) = self.find(id) else {
            return;
        };
        self.check_barrier(index);
        let legs: Vec<usize> = self.legs_of(index).collect();
        for leg in legs {
            self.check_barrier(leg);
        }
        let client = &self.clients[index];
        if !client.out.is_empty() {
            self.mark_client(index);
        }
        let client = &self.clients[index];
        if !client.tail.is_empty() || client.owed.is_some() || client.ended {
            self.queue_if_open(index);
        }
    }
}
