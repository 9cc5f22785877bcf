//! Scripts, which may take as long as they like.
//!
//! While a script runs, an engine reads nothing more from the connection that it came over; after a while
//! (`busy-reply-threshold`) it answers `BUSY` on every other one. So what others send must not stand behind a script:
//! scripts have a shared connection of their own, a spare one from the first script on. What a client sends while
//! it waits for its script goes the same way, as it would without a proxy.
//!
//! When a script has kept that connection for [`bounds::SCRIPT_SILENT`], what comes next goes over another spare one,
//! so that new scripts hear of it too; what is in flight by then comes in its order. An engine that is only slow, or
//! stopped, looks the same: so this is not done again before the connection that was set aside has brought a reply.

use super::Worker;
use super::backend::Use;
use super::client::{ClientId, Wait};
use super::lanes::Flow;
use super::link::{Link, LinkId};
use super::timers::Timer;
use crate::bounds;
use std::time::Duration;

/// A connection that a script keeps.
#[derive(Clone, Copy, Debug)]
pub(super) struct Aside {
    place: usize,
    generation: u32,
    /// When it was set aside, by the worker's clock.
    since: u64,
}

impl Worker {
    /// The connection for a script of a link whose shared one is `shared`: that one if no other can be had.
    /// `None`: one is on its way.
    pub(super) fn script_lane(&mut self, id: LinkId, shared: usize) -> Option<usize> {
        let link = self.link(id)?;
        if link.scripts.is_some() {
            return link.scripts;
        }
        let opening = link.spares_opening > 0;
        // Scripts that are being loaded are known to what comes behind them.
        let mut book = self.backends[shared].book.iter();
        if book.any(|run| run.client == ClientId::NOBODY) {
            return Some(shared);
        }
        let spare = self.take_spare(id);
        if let Some(link) = self.link_mut(id) {
            link.scripts = spare;
        }
        spare.or_else(|| (!opening).then_some(shared))
    }

    /// A script waits for a spare connection that is on its way.
    #[cold]
    pub(super) fn wait_for_spare(&mut self, index: usize, id: LinkId) -> Flow {
        let name = self.client_id(index);
        if let Some(link) = self.link_mut(id) {
            link.waiters.push(name);
        }
        self.clients[index].wait = Wait::Link;
        Flow::Hold
    }

    /// A spare connection is there, or could not be had: scripts may wait for that.
    pub(super) fn spare_decided(&mut self, id: LinkId) {
        let waited = |link: &Link| link.scripts.is_none() && !link.waiters.is_empty();
        if self.link(id).is_some_and(waited) {
            self.timers.set(Duration::ZERO, Timer::Crowded(id));
        }
    }

    /// A connection that is greeted, for all to share.
    fn take_spare(&mut self, id: LinkId) -> Option<usize> {
        let spare = self.link_mut(id)?.idle.pop()?;
        self.backends[spare].usage = Use::Shared;
        self.keep_spares(id);
        Some(spare)
    }

    /// Scripts go over this connection no more.
    pub(super) fn no_script_lane(&mut self, id: LinkId, place: usize) {
        if let Some(link) = self.link_mut(id) {
            link.scripts = link.scripts.filter(|scripts| *scripts != place);
        }
    }

    /// A script was sent over a connection: it will be looked how long it takes.
    pub(super) fn watch_script(&mut self, place: usize) {
        let backend = &mut self.backends[place];
        if !std::mem::replace(&mut backend.script_watched, true) {
            let timer = Timer::Script(place, backend.generation);
            self.timers.set(bounds::SCRIPT_SILENT, timer);
        }
    }

    /// Looks whether a script keeps a connection that others share.
    pub(super) fn look_at_script(&mut self, place: usize) {
        let backend = &mut self.backends[place];
        let front = match backend.usage {
            Use::Shared => backend.book.front(),
            _ => None,
        };
        let Some(front) = front else {
            backend.script_watched = false;
            return;
        };
        let silent = self
            .clock
            .saturating_sub(backend.heard.max(front.seen.since));
        let (id, generation) = (backend.link, backend.generation);
        let left = bounds::SCRIPT_SILENT.saturating_sub(Duration::from_micros(silent));
        if left.is_zero() && self.may_set_aside(id) && self.set_aside(id, place) {
            return;
        }
        let after = match left {
            Duration::ZERO => bounds::SCRIPT_SILENT,
            left => left,
        };
        self.timers.set(after, Timer::Script(place, generation));
    }

    /// Whether another connection would be of use.
    fn may_set_aside(&mut self, id: LinkId) -> bool {
        if self.is_closed(id) || !self.link(id).is_some_and(|link| link.ready) {
            return false;
        }
        let Some(link) = self.link_mut(id) else {
            return false;
        };
        let mut aside = std::mem::take(&mut link.aside);
        aside.retain(|known| self.is_backend(known.place, known.generation));
        let answers = |known: &Aside| self.backends[known.place].heard > known.since;
        let may = aside.len() < bounds::SCRIPTS_ASIDE && aside.iter().all(answers);
        if let Some(link) = self.link_mut(id) {
            link.aside = aside;
        }
        may
    }

    /// Puts a spare connection in the place of one that a script keeps; `false`: there is none.
    fn set_aside(&mut self, id: LinkId, place: usize) -> bool {
        let Some(spare) = self.take_spare(id) else {
            self.keep_spares(id);
            return false;
        };
        let (uid, shard) = (self.served[id.served].database.uid, id.shard);
        tracing::info!(database = %uid, shard, "a script takes long: others go over another connection");
        let was_shared = self.link(id).is_some_and(|link| link.shared == Some(place));
        let (generation, since) = (self.backends[place].generation, self.clock);
        let stalled = std::mem::take(&mut self.backends[place].stalled);
        self.detach(place);
        if let Some(link) = self.link_mut(id) {
            link.aside.push(Aside {
                place,
                generation,
                since,
            });
            if was_shared {
                link.shared = Some(spare);
                link.ready = true;
            } else {
                link.scripts = Some(spare);
            }
        }
        for client in stalled {
            if let Some(client) = self.find(client)
                && self.clients[client].wait == Wait::Room
            {
                self.resume(client);
            }
        }
        true
    }
}
