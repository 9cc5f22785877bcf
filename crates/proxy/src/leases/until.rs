//! Until when clients may be answered, as workers see it.

use model::lease::{Moment, Validity, may_send};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// This moment, by the clock that leases are counted by.
#[inline]
pub(crate) fn now() -> Moment {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let rest = u64::try_from(time.tv_nsec).unwrap_or(0);
    Moment(seconds.saturating_mul(1_000_000_000).saturating_add(rest))
}

/// Until when the clients of a replica set may be answered under one epoch. The control thread writes it,
/// workers look at it. It is never moved back.
#[derive(Debug, Default)]
pub(crate) struct Until {
    /// A moment by [`now`].
    end: AtomicU64,
    /// Why it has not been moved on.
    trouble: Mutex<Option<String>>,
    /// It is known that it will not be moved on soon.
    hopeless: AtomicBool,
}

impl Until {
    /// Moves the end on; returns what it was.
    pub(super) fn extend(&self, end: Moment) -> Moment {
        Moment(self.end.fetch_max(end.0, Ordering::AcqRel))
    }

    pub(super) fn end(&self) -> Moment {
        Moment(self.end.load(Ordering::Acquire))
    }

    /// Whether it holds at this moment.
    #[inline]
    pub(crate) fn holds(&self, now: Moment) -> bool {
        may_send(now, Validity::Until(self.end()), false)
    }

    /// Whether it holds now. What was read before this was asked may be passed on.
    #[inline]
    pub(crate) fn holds_now(&self) -> bool {
        self.holds(now())
    }

    pub(super) fn set_trouble(&self, trouble: Option<String>) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
    }

    pub(super) fn set_hopeless(&self, hopeless: bool) {
        self.hopeless.store(hopeless, Ordering::Release);
    }

    /// Whether nobody need wait for it: there is no quorum that could give a lease, and a copy does not promise.
    pub(crate) fn is_hopeless(&self) -> bool {
        self.hopeless.load(Ordering::Acquire)
    }

    /// Why there is no lease.
    pub(crate) fn trouble(&self) -> String {
        let trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        trouble
            .clone()
            .unwrap_or_else(|| super::NONE_YET.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_never_moved_back() {
        let until = Until::default();
        assert!(!until.holds(Moment(0)));
        assert_eq!(until.extend(Moment(10)), Moment(0));
        assert_eq!(until.extend(Moment(5)), Moment(10));
        assert!(until.holds(Moment(9)) && !until.holds(Moment(10)));
        let later = now().after(60_000_000_000);
        assert!(!until.holds_now());
        until.extend(later);
        assert!(until.holds_now());
    }
}
