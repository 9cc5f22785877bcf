//! A client and its connections become a record and sockets.

use super::runs::{may_go, write_later, write_run};
use super::{Carried, write_session};
use crate::bounds;
use crate::handover::record::{
    BackendRecord, Bytes, ClientRecord, FlowRecord, LaneRecord, LegRecord,
};
use crate::stats::Answered;
use crate::worker::Worker;
use crate::worker::backend::{Backend, Phase, ShardStream, Use};
use crate::worker::client::{Client, Lane, Streaming, Wait};
use crate::worker::fan::Part;
use crate::worker::queued::Later;
use crate::worker::session::Session;
use mio::net::TcpStream;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Whether a client can be handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::worker) enum Going {
    Now,
    /// When its replies have come: if no more of its commands are taken, soon.
    Soon,
    /// Something else is under way.
    Later,
}

impl Worker {
    /// Whether a client, which has a socket, can be handed over as it is.
    pub(in crate::worker) fn may_go(&self, index: usize) -> Going {
        let client = &self.clients[index];
        let served = &self.served[client.served];
        let id = self.client_id(index);
        if self.doomed.contains(&id)
            || client.stream.is_none()
            || served.pause.begins()
            || self.is_moving(client.served)
            || self.too_large(index)
        {
            return Going::Later;
        }
        if let Part::Front(fan) = &client.part
            && !fan.may_go()
        {
            return Going::Soon;
        }
        let parts = std::iter::once(index).chain(self.legs_of(index));
        parts
            .map(|part| self.part_may_go(part))
            .max()
            .unwrap_or(Going::Later)
    }

    /// Whether more waits for a client than is carried to another process.
    fn too_large(&self, index: usize) -> bool {
        let of_part = |part: usize| {
            let client = &self.clients[part];
            let backend = match client.lane {
                Lane::Own(place) => {
                    let backend = &self.backends[place];
                    backend.out.len() + backend.captured.len()
                }
                Lane::Shared | Lane::Gone => 0,
            };
            client.tail.len() + client.out.len() + self.holds(part) + backend
        };
        let fan = match &self.clients[index].part {
            Part::Front(fan) => fan.holds(),
            Part::Whole | Part::Leg(_) => 0,
        };
        let parts: usize = self.legs_of(index).map(of_part).sum();
        of_part(index) + parts + fan > bounds::CARRIED_MAX
    }

    /// The same of a client without its legs, or of a leg.
    fn part_may_go(&self, part: usize) -> Going {
        let client = &self.clients[part];
        let id = self.client_id(part);
        let busy = client.exec.is_some()
            || client.later.iter().any(Later::stays)
            || client.leaving > 0
            || matches!(client.wait, Wait::Farewell | Wait::Leaving | Wait::Gather)
            || client.keep.as_ref().is_some_and(|keep| !keep.is_still())
            || self.promised.iter().any(|(promised, _)| *promised == id);
        if busy {
            return Going::Later;
        }
        // A record has no place for this, and it ends soon; nor for a message behind a reply.
        if let Some(Streaming::Broken(_)) = client.streaming {
            return Going::Soon;
        }
        if let Part::Leg(leg) = &client.part
            && leg.has_messages()
        {
            return Going::Soon;
        }
        let place = match client.lane {
            Lane::Own(place) => Some(place),
            Lane::Shared if client.in_flight > 0 => self.last_of(part),
            Lane::Shared | Lane::Gone => None,
        };
        let place = place.filter(|_| !matches!(client.part, Part::Front(_)));
        let Some(place) = place else {
            return if client.in_flight == 0 {
                Going::Now
            } else {
                Going::Soon
            };
        };
        let backend = &self.backends[place];
        let links = &self.served[backend.link.served].shards[backend.link.shard];
        let usable = backend.phase == Phase::Ready
            && links.target.is_some()
            && links.number == backend.target
            && backend.is_still()
            && !(backend.muted || backend.ended);
        if !usable {
            return Going::Later;
        }
        let due: u32 = backend.book.iter().map(|run| run.count).sum();
        let own = backend
            .book
            .iter()
            .all(|run| run.client == id && may_go(run));
        if own && due == client.in_flight {
            Going::Now
        } else {
            Going::Soon
        }
    }

    /// A connection that was shared and that only brings the last replies of this client.
    fn last_of(&self, part: usize) -> Option<usize> {
        let client = &self.clients[part];
        let id = self.client_id(part);
        let backend = self.backends.get(client.via)?;
        let only = backend.usage == Use::Leaving
            && !backend.book.is_empty()
            && backend.book.iter().all(|run| run.client == id);
        only.then_some(client.via)
    }

    /// Takes a client out of this worker, sockets and all. It must be able to go.
    pub(in crate::worker) fn pack(&mut self, index: usize) -> Option<Carried> {
        let mut sockets = Vec::with_capacity(2);
        let legs: Vec<usize> = self.legs_of(index).collect();
        let ends = {
            let served = &self.served[self.clients[index].served];
            served.ends.clone()
        };
        let mut taken = self.pack_part(index)?;
        let mut stream = taken.stream.take()?;
        let _ = self.poll.registry().deregister(&mut stream);
        sockets.push(OwnedFd::from(stream));
        sockets.extend(taken.socket.take());
        let fan = match taken.part {
            Part::Front(fan) => {
                let (mut fan, subscriptions) = fan.write(taken.session.resp);
                taken.session.own.subscriptions = subscriptions;
                for leg in legs {
                    let Some(packed) = self.pack_part(leg) else {
                        continue;
                    };
                    if let Part::Leg(leg) = packed.part {
                        fan.legs.push(LegRecord {
                            session: write_session(packed.session, self.now),
                            flow: packed.flow,
                            ..leg.write()
                        });
                        sockets.extend(packed.socket);
                    }
                }
                Some(Box::new(fan))
            }
            Part::Whole | Part::Leg(_) => None,
        };
        let database = Arc::clone(&self.served[taken.served].database);
        self.state.clients.fetch_sub(1, Ordering::Relaxed);
        self.stats.carried.fetch_add(1, Ordering::AcqRel);
        Some(Carried {
            record: Box::new(ClientRecord {
                database: database.uid.0,
                ends,
                session: write_session(taken.session, self.now),
                flow: taken.flow,
                left_at: crate::leases::now().0,
                fan,
            }),
            sockets,
            database,
        })
    }

    /// Takes apart a client without its legs, or a leg.
    fn pack_part(&mut self, index: usize) -> Option<Packed> {
        let place = match self.clients[index].lane {
            Lane::Own(place) => Some(place),
            Lane::Shared if self.clients[index].in_flight > 0 => self.last_of(index),
            Lane::Shared | Lane::Gone => None,
        };
        let backend = place.and_then(|place| self.pack_backend(place));
        let mut packed = take_apart(*self.clients.remove(index), self.clock);
        if let Some((backend, socket)) = backend {
            packed.flow.backend = Some(Box::new(backend));
            packed.socket = Some(socket);
        }
        Some(packed)
    }

    fn pack_backend(&mut self, place: usize) -> Option<(BackendRecord, OwnedFd)> {
        let link = self.backends.get(place)?.link;
        let target = self.served[link.served].shards[link.shard]
            .target
            .as_ref()?;
        let (shard, epoch) = (target.uid.0, target.epoch.0);
        let clock = self.clock;
        let Backend {
            generation: _,
            mut stream,
            link: _,
            stats,
            heard,
            lease: _,
            target: _,
            phase: _,
            engine_client,
            usage: _,
            set_up,
            muted: _,
            moving,
            framer,
            out,
            book,
            captured,
            error_line,
            user,
            passed_on,
            half_sent,
            // Nobody waits behind a client that goes.
            held_up: _,
            script_watched: _,
            stalled: _,
            ended: _,
            readable: _,
            writable: _,
            watched: _,
            dirty: _,
            queued: _,
        } = self.backends.remove(place);
        let _ = self.poll.registry().deregister(stream.source());
        for run in &book {
            stats.count_answered(run.seen.left, run.count, Answered::Untimed);
        }
        let unix = matches!(stream, ShardStream::Unix(_));
        let record = BackendRecord {
            shard,
            epoch,
            unix,
            heard: clock.saturating_sub(heard),
            engine_client,
            user: user.into(),
            framer: Bytes(framer.save()),
            set_up,
            hides: moving.map(|moving| Bytes(moving.into_part())),
            out: Bytes(out.into_bytes()),
            book: book.into_iter().map(|run| write_run(run, clock)).collect(),
            captured: Bytes(captured),
            error_line: Bytes(error_line),
            passed_on,
            half_sent,
        };
        let socket = match stream {
            ShardStream::Unix(stream) => OwnedFd::from(stream),
            ShardStream::Tcp(stream) => OwnedFd::from(stream),
        };
        Some((record, socket))
    }
}

/// A client, or a leg, that is taken apart.
struct Packed {
    session: Session,
    flow: FlowRecord,
    part: Part,
    served: usize,
    stream: Option<TcpStream>,
    /// Of its connection to a shard.
    socket: Option<OwnedFd>,
}

fn take_apart(client: Client, clock: u64) -> Packed {
    let Client {
        stream,
        part,
        served,
        session,
        lane,
        wait,
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
        // The new worker's own, or seen there again.
        generation: _,
        stats: _,
        slice: _,
        paused: _,
        written: _,
        unread: _,
        readable: _,
        writable: _,
        dirty: _,
        queued: _,
        departs: _,
        // Counted anew from what is expected.
        in_flight: _,
        via: _,
        blocking: _,
        // A client with one of these does not go.
        exec: _,
        leaving: _,
    } = client;
    let flow = FlowRecord {
        lane: write_lane(lane),
        barrier: wait == Wait::Barrier,
        tail: Bytes(tail),
        framer: framer.save(),
        scanned,
        streaming: streaming.map(|streaming| matches!(streaming, Streaming::ToShard)),
        held: (held > 0).then(|| clock.saturating_sub(held)),
        keep: keep.map(|keep| Box::new(keep.write(clock))),
        owed: owed.map(Bytes),
        out: Bytes(out.into_bytes()),
        in_transaction,
        writes,
        streams_write,
        later: later.into_iter().map(write_later).collect(),
        refused_own,
        heavy,
        ended,
        backend: None,
    };
    Packed::new((session, flow, part), served, stream)
}

const fn write_lane(lane: Lane) -> LaneRecord {
    match lane {
        Lane::Shared => LaneRecord::Shared,
        Lane::Own(_) => LaneRecord::Own,
        Lane::Gone => LaneRecord::Gone,
    }
}

impl Packed {
    fn new(
        (session, flow, part): (Session, FlowRecord, Part),
        served: usize,
        stream: Option<TcpStream>,
    ) -> Self {
        Self {
            session,
            flow,
            part,
            served,
            stream,
            socket: None,
        }
    }
}
