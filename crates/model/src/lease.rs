//! Leases and promises: until when a proxy may answer clients of a replicated database, and what the
//! one who could take its primary away waits for. Pure; `docs/protocol.md` has the rules by number and
//! a model checker shows why each is needed.
//!
//! A **lease** is given by the primary node. A **promise** is given by the engine of a copy, while the
//! primary node is not heard: it answers a `PING` of the user that its agent has made for those who know
//! the list of copies. When every copy has answered, the proxy may go on. Before its agent promotes it,
//! it takes that user away and waits until what was answered before is over. Leases and promises are
//! counted by two clocks: the holder's from the moment at which it asked, the grantor's from its answer,
//! or from the end of the user, and a little longer. So the holder stops first.

use crate::ids::{Epoch, Revision};
use serde::{Deserialize, Serialize};

/// A moment on `CLOCK_BOOTTIME` of one host, ns. Never compared with one of another host or of another
/// start of the host.
#[derive(
    Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Moment(pub u64);

impl Moment {
    /// This moment and `ns` more.
    #[must_use]
    pub const fn after(self, ns: u64) -> Self {
        Self(self.0.saturating_add(ns))
    }
}

/// How long a lease lasts by the two clocks that count it, ns.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct LeaseLength {
    /// By the holder's clock, from the moment at which it sent its request.
    pub holder: u64,
    /// By the grantor's clock, from its answer.
    pub grantor: u64,
}

impl LeaseLength {
    /// 1.2 s, and 5 % more for the grantor: clocks of two hosts differ by less in that time.
    pub const PRODUCT: Self = Self {
        holder: 1_200_000_000,
        grantor: 1_260_000_000,
    };
    /// A holder asks again after this part of the length.
    pub const RENEWALS: u64 = 4;
}

/// What a proxy may rest on when it answers clients of a replica set.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Validity {
    /// The set has one copy: nothing can take the primary's place.
    NotNeeded,
    /// Until then, by the proxy's clock.
    Until(Moment),
}

impl Validity {
    /// Whether it holds now.
    #[must_use]
    pub fn holds(self, now: Moment) -> bool {
        match self {
            Self::NotNeeded => true,
            Self::Until(end) => now < end,
        }
    }
}

/// What a proxy's control thread holds of its lease.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct Holding {
    /// End of the lease or of the promises, whichever is later.
    pub until: Moment,
    /// The primary node refused the last renewal. Promises are not asked for until it grants one.
    pub refused: bool,
}

impl Holding {
    /// The primary node granted what was asked for at `sent`.
    pub fn granted(&mut self, sent: Moment, length: LeaseLength) {
        self.until = self.until.max(sent.after(length.holder));
        self.refused = false;
    }

    /// The primary node refused. What is held runs out by itself.
    pub const fn refused(&mut self) {
        self.refused = true;
    }

    /// Every holder of a copy promised what was asked for at `sent`.
    pub fn promised(&mut self, sent: Moment, length: LeaseLength) {
        if !self.refused {
            self.until = self.until.max(sent.after(length.holder));
        }
    }
}

/// Whether a command may leave for the primary now.
#[must_use]
pub fn may_send(now: Moment, validity: Validity, gated: bool) -> bool {
    !gated && validity.holds(now)
}

/// Whether a reply that was just read may go to its client as what it is; otherwise the client is told
/// that the outcome is unknown. `connection` is the epoch for which the connection was opened,
/// `current` the one that the proxy serves now, `abandoned` a gate that was answered without waiting for
/// what was in flight.
#[must_use]
pub fn may_answer(
    now: Moment,
    validity: Validity,
    connection: Epoch,
    current: Epoch,
    abandoned: bool,
) -> bool {
    !abandoned && connection == current && validity.holds(now)
}

/// Why a lease or a promise is not given.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// No quorum confirmed the leader's term after the request had arrived.
    NotConfirmed,
    /// The proxy has not applied a gate that was ordered.
    BehindGate,
}

/// Whether the primary node may give a lease. `applied` is the revision that every worker of the proxy
/// has applied, `ordered` the one of the last gate that it was sent.
pub fn may_grant(
    confirmed_since_arrival: bool,
    applied: Revision,
    ordered: Revision,
) -> Result<(), Refusal> {
    if !confirmed_since_arrival {
        return Err(Refusal::NotConfirmed);
    }
    if applied < ordered {
        return Err(Refusal::BehindGate);
    }
    Ok(())
}

/// Whether a lease of a proxy is over, as the primary node sees it. Whoever has just become primary node
/// does not know what was given before: until a whole length after its election every proxy counts as
/// holding one.
#[must_use]
pub fn lease_is_over(now: Moment, inherited_until: Moment, granted_until: Moment) -> bool {
    now >= inherited_until && now >= granted_until
}

#[cfg(test)]
mod tests {
    use super::*;

    const L: LeaseLength = LeaseLength::PRODUCT;

    #[test]
    fn the_holder_stops_before_the_grantor() {
        let mut holding = Holding::default();
        holding.granted(Moment(5), L);
        let end = holding.until;
        assert!(Validity::Until(end).holds(Moment(5 + L.holder - 1)));
        assert!(!Validity::Until(end).holds(Moment(5 + L.holder)));
        assert!(!lease_is_over(
            Moment(5 + L.holder),
            Moment(0),
            Moment(5).after(L.grantor)
        ));
        assert!(lease_is_over(
            Moment(5 + L.grantor),
            Moment(0),
            Moment(5).after(L.grantor)
        ));
        assert!(!lease_is_over(Moment(9), Moment(10), Moment(0)));
    }

    #[test]
    fn a_refused_proxy_gains_nothing_by_promises() {
        let mut holding = Holding::default();
        holding.granted(Moment(0), L);
        holding.refused();
        holding.promised(Moment(100), L);
        assert_eq!(holding.until, Moment(L.holder));
        holding.granted(Moment(200), L);
        holding.promised(Moment(300), L);
        assert_eq!(holding.until, Moment(300 + L.holder));
    }

    #[test]
    fn an_older_answer_does_not_shorten() {
        let mut holding = Holding::default();
        holding.granted(Moment(100), L);
        holding.granted(Moment(50), L);
        assert_eq!(holding.until, Moment(100 + L.holder));
    }

    #[test]
    fn replies_of_an_older_epoch_do_not_count() {
        let valid = Validity::Until(Moment(10));
        assert!(may_answer(Moment(9), valid, Epoch(3), Epoch(3), false));
        assert!(!may_answer(Moment(10), valid, Epoch(3), Epoch(3), false));
        assert!(!may_answer(Moment(9), valid, Epoch(2), Epoch(3), false));
        assert!(!may_answer(Moment(9), valid, Epoch(3), Epoch(3), true));
        assert!(!may_send(Moment(9), Validity::NotNeeded, true));
        assert!(may_send(Moment(9), Validity::NotNeeded, false));
    }

    #[test]
    fn leases_are_refused_by_name() {
        assert_eq!(
            may_grant(false, Revision(2), Revision(1)),
            Err(Refusal::NotConfirmed)
        );
        assert_eq!(
            may_grant(true, Revision(1), Revision(2)),
            Err(Refusal::BehindGate)
        );
        assert_eq!(may_grant(true, Revision(2), Revision(2)), Ok(()));
    }
}
