//! Leases: what a proxy of this node asks for is passed on to the primary node. See [`model::lease`].

use crate::member::Member;
use crate::primary::{self, Primary};
use controller::leases::ProxyId;
use model::Revision;
use model::proxy::{Lease, LeaseCall, LeaseOutcome, Renewal};
use std::sync::Arc;
use tokio::task::JoinSet;

/// Most renewals of a proxy that are under way; the next one is not passed on.
const UNDER_WAY_MAX: usize = 8;

/// Renewals of one proxy that are under way.
#[derive(Debug)]
pub struct Leases {
    process: u32,
    under_way: JoinSet<Lease>,
}

impl Leases {
    /// For the proxy with this process id.
    #[must_use]
    pub fn of(process: u32) -> Self {
        Self {
            process,
            under_way: JoinSet::new(),
        }
    }

    /// Passes a renewal on; `applied`: of which revision the proxy has applied everything that concerns it.
    /// `None`: that is not known yet, and nobody is asked: what it has in flight may come back by promises. The
    /// answer at once, if it is not passed on.
    pub fn renew(
        &mut self,
        member: &Arc<Member>,
        renewal: Renewal,
        applied: Option<Revision>,
    ) -> Option<Lease> {
        let number = renewal.number;
        let Some(applied) = applied.filter(|_| self.under_way.len() < UNDER_WAY_MAX) else {
            return Some(answer(member, number, LeaseOutcome::Unknown));
        };
        let call = LeaseCall {
            node: member.identity.node,
            process: self.process,
            applied,
        };
        let member = Arc::clone(member);
        self.under_way.spawn(async move {
            let outcome = ask(&member, call).await;
            answer(&member, number, outcome)
        });
        None
    }

    /// The next answer; for ever while none is awaited.
    pub async fn next(&mut self) -> Lease {
        loop {
            match self.under_way.join_next().await {
                Some(Ok(lease)) => return lease,
                Some(Err(error)) => tracing::error!(%error, "a renewal ended without an answer"),
                None => std::future::pending().await,
            }
        }
    }
}

/// With an answer that is none it is told whether one will come: during an election it will.
fn answer(member: &Member, number: u64, outcome: LeaseOutcome) -> Lease {
    let no_quorum = outcome == LeaseOutcome::Unknown && member.store.status().no_quorum;
    Lease {
        number,
        outcome,
        no_quorum,
    }
}

async fn ask(member: &Member, call: LeaseCall) -> LeaseOutcome {
    match primary::known(member) {
        Some(Primary::Me) => here(member, call).await,
        Some(Primary::Other(node, address)) => {
            let asked = member.internode.lease(&address, &call).await;
            asked.unwrap_or_else(|error| {
                tracing::debug!(%node, %error, "no lease: the primary node is not reached");
                LeaseOutcome::Unknown
            })
        }
        None => LeaseOutcome::Unknown,
    }
}

/// Gives a lease, if this is the primary node.
pub async fn here(member: &Member, call: LeaseCall) -> LeaseOutcome {
    if !member.store.status().is_leader {
        return LeaseOutcome::Unknown;
    }
    let proxy = ProxyId {
        node: call.node,
        process: call.process,
    };
    member.controller.lease(proxy, call.applied).await
}
