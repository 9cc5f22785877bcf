//! When to ask for the lease, and when for promises.

use super::{LENGTH, Leases, State, Why, promises};
use crate::bounds;
use model::lease::{LeaseLength, Moment};
use std::time::{Duration, Instant};

/// How often the lease is asked for.
const PERIOD: Duration = Duration::from_nanos(LENGTH.holder / LeaseLength::RENEWALS);

impl Leases {
    /// Asks for the lease again and again while a database needs one. Never ends.
    pub(crate) async fn tend(self) {
        tokio::spawn(promises::keep(self.clone()));
        let mut next = Instant::now();
        // Until when the renewal of which moment is to be answered.
        let mut answer: Option<(Instant, Moment)> = None;
        loop {
            let (hurry, needed, runs_out) = self.state().seen_to();
            if !needed {
                self.0.changed.notified().await;
                next = Instant::now();
                continue;
            }
            if hurry {
                next = Instant::now();
            }
            tokio::select! {
                biased;
                () = at(Some(next)) => {
                    next = Instant::now() + PERIOD;
                    let sent = super::now();
                    if self.state().connection.is_there {
                        self.0.due.notify_one();
                        answer.get_or_insert((Instant::now() + bounds::RENEWAL_ANSWER, sent));
                    } else {
                        self.0.ask.notify_one();
                    }
                }
                () = at(answer.map(|(at, _)| at)) => {
                    if let Some((_, sent)) = answer.take() {
                        self.unanswered(sent);
                    }
                }
                () = self.0.changed.notified() => {}
                () = at(runs_out) => {}
            }
        }
    }

    /// The renewal of this moment has had its time: without an answer, promises are asked for.
    fn unanswered(&self, sent: Moment) {
        let mut state = self.state();
        if state.connection.heard >= sent {
            return;
        }
        if state.connection.is_there && matches!(state.why, Why::NotYet | Why::Away) {
            state.why = Why::Silent;
        }
        drop(state);
        self.0.ask.notify_one();
    }
}

impl State {
    /// Whether to ask at once, whether to ask at all, and when something runs out next.
    fn seen_to(&mut self) -> (bool, bool, Option<Instant>) {
        let next = self.look(false);
        let left = next.map(|next| next.0.saturating_sub(super::now().0));
        let hurry = std::mem::take(&mut self.hurry);
        let runs_out = left.map(|left| Instant::now() + Duration::from_nanos(left + 1));
        (hurry, self.sets.needed(), runs_out)
    }
}

async fn at(when: Option<Instant>) {
    match when {
        Some(when) => tokio::time::sleep_until(when.into()).await,
        None => std::future::pending().await,
    }
}
