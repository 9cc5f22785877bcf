//! Questions about all clients, while some of them are with another process: `CLIENT LIST`, `KILL`, `UNBLOCK`,
//! `PAUSE` and `UNPAUSE` during a handover.
//!
//! Such a command stays in its client's buffer, and goes along if the client goes. It is carried out when all
//! clients are in one process again. Where that takes long, since the other process keeps some of them, it is
//! carried out for those that are here.

use super::Worker;
use super::client::{ClientId, Wait};
use super::timers::Timer;
use crate::{bounds, handover};
use std::time::Duration;

/// What a worker has held back.
#[derive(Debug, Default)]
pub(super) struct Divided {
    waiting: Vec<ClientId>,
    /// When the first one was held back in this handover, by the worker's clock. Until the handover is over, a
    /// timer is set.
    since: Option<u64>,
}

impl Worker {
    /// Whether a question about all clients has to wait; then its client does. The client has all its replies.
    pub(super) fn waits_for_all(&mut self, index: usize) -> bool {
        let inside = self.clients[index].exec.is_some();
        if inside || !self.stats.is_divided() || self.has_waited_for_all() {
            return false;
        }
        if self.divided.since.is_none() {
            self.divided.since = Some(self.clock);
            self.timers.set(bounds::DIVIDED_LOOK, Timer::Divided);
        }
        self.clients[index].wait = Wait::Divided;
        let id = self.client_id(index);
        self.divided.waiting.push(id);
        true
    }

    fn has_waited_for_all(&self) -> bool {
        let passed = |since| Duration::from_micros(self.clock.saturating_sub(since));
        let since = self.divided.since;
        since.is_some_and(|since| passed(since) >= handover::patience())
    }

    /// Looks whether the questions that wait can be asked.
    pub(super) fn look_at_divided(&mut self) {
        if !self.stats.is_divided() {
            self.divided.since = None;
        } else if self.has_waited_for_all() {
            self.timers.set(bounds::DIVIDED_WAIT, Timer::Divided);
        } else {
            self.timers.set(bounds::DIVIDED_LOOK, Timer::Divided);
            return;
        }
        for id in std::mem::take(&mut self.divided.waiting) {
            if let Some(index) = self.find(id)
                && self.clients[index].wait == Wait::Divided
            {
                self.resume(index);
            }
        }
    }
}
