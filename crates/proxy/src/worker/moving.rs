//! Clients that go to another worker, when the number of workers changes. Only a client goes that has
//! nothing under way and nothing that lives in a connection of its own: then its socket and its session
//! are all there is of it, and it notices nothing.

use super::client::{Client, Lane, Wait};
use super::fan::Part;
use super::session::Session;
use super::{Message, Worker, WorkerHandle};
use crate::bounds;
use crate::topology::Database;
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// A client between two workers.
#[derive(Debug)]
pub(crate) struct Moved {
    stream: TcpStream,
    session: Session,
    database: Arc<Database>,
}

impl Worker {
    /// Gives clients to other workers, to the one with the fewest first, as long as there are more than
    /// `keep`. What cannot go now is asked for again.
    pub(super) fn share(&mut self, with: &[WorkerHandle], keep: u64) {
        let candidates = self.fronts(|_| true);
        let mut moved = 0;
        for index in candidates {
            if self.state.clients.load(Ordering::Relaxed) <= keep || moved == bounds::MOVED_AT_ONCE
            {
                return;
            }
            let others = with.iter().filter(|worker| worker.number() != self.number);
            let Some(other) = others.min_by_key(|worker| worker.clients()) else {
                return;
            };
            // Otherwise both would only change places.
            if keep > 0 && other.clients() >= keep {
                return;
            }
            if self.movable(index) {
                moved += 1;
                let other = other.clone();
                if !self.send_to(index, &other) {
                    return;
                }
            }
        }
    }

    fn movable(&self, index: usize) -> bool {
        let client = &self.clients[index];
        let at_rest = client.wait == Wait::Nothing
            && client.tail.is_empty()
            && client.framer.at_start()
            && client.scanned == 0
            && client.streaming.is_none()
            && client.owed.is_none()
            && client.out.is_empty()
            && client.in_flight == 0
            && client.blocking == 0
            && client.paused.is_empty()
            && !(client.refused_own
                || client.heavy
                || client.ended
                || client.queued
                || client.dirty);
        let id = self.client_id(index);
        at_rest
            && client.lane == Lane::Shared
            && client.session.shareable()
            && self.fan_is_bare(index)
            && !self.doomed.contains(&id)
    }

    /// Gives a client to another worker. `false`: that one takes no more.
    fn send_to(&mut self, index: usize, other: &WorkerHandle) -> bool {
        self.close_legs(index);
        let mut client = self.clients.remove(index);
        let database = Arc::clone(&self.served[client.served].database);
        let Client {
            stream, session, ..
        } = &mut *client;
        let Some(mut stream) = stream.take() else {
            return true;
        };
        let _ = self.poll.registry().deregister(&mut stream);
        let moved = Moved {
            stream: TcpStream::from(OwnedFd::from(stream)),
            session: session.clone(),
            database,
        };
        self.state.clients.fetch_sub(1, Ordering::Relaxed);
        match other.give(Message::Moved(Box::new(moved))) {
            Err(Message::Moved(back)) => {
                self.state.clients.fetch_add(1, Ordering::Relaxed);
                self.take_in(*back);
                false
            }
            _ => true,
        }
    }

    /// Serves a client that another worker has served.
    pub(super) fn take_in(&mut self, moved: Moved) {
        let Moved {
            stream,
            session,
            database,
        } = moved;
        match self.by_uid.get(&database.uid) {
            Some(&served) => self.admit(served, stream, session),
            None => self.not_admitted(&database),
        }
    }

    /// Whether nothing but its number of shards tells a client from one of a one-shard database.
    fn fan_is_bare(&self, index: usize) -> bool {
        let at_rest = |leg: usize| {
            let leg = &self.clients[leg];
            leg.wait == Wait::Nothing
                && leg.lane == Lane::Shared
                && leg.in_flight == 0
                && leg.streaming.is_none()
                && leg.paused.is_empty()
                && leg.session.shareable()
                && !(leg.heavy || leg.refused_own)
        };
        match &self.clients[index].part {
            Part::Whole => true,
            Part::Front(fan) => fan.is_bare() && self.legs_of(index).all(at_rest),
            Part::Leg(_) => false,
        }
    }
}
