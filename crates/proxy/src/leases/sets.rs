//! The replica sets whose clients are answered only with a lease, and what each rests on.

use super::LENGTH;
use super::until::{Until, now};
use model::lease::{Holding, Moment};
use model::proxy::{Copies, ProxyConfig};
use model::{DatabaseUid, Epoch, ShardUid};
use std::collections::HashMap;
use std::sync::Arc;

/// Names a set: its database and its primary.
pub(super) type Key = (DatabaseUid, ShardUid);

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Sets {
    /// What the proxy holds itself.
    lease: Holding,
    /// The same, for workers.
    proxy: Arc<Until>,
    /// Whether workers have been told that it holds.
    proxy_holds: bool,
    /// Whether a database needs a lease, even if it has no primary now.
    needed: bool,
    sets: HashMap<Key, Set>,
}

#[derive(Debug)]
struct Set {
    epoch: Epoch,
    /// What it holds: the proxy's lease, and its own promises.
    holding: Holding,
    until: Arc<Until>,
    /// Who may promise, if its primary serves under the same epoch.
    copies: Option<Copies>,
    rests: Rests,
    /// Why its copies have not promised.
    trouble: Option<String>,
}

/// What the answers of a set's clients rest on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Rests {
    /// Nothing yet.
    #[default]
    NotYet,
    /// Nothing: they wait.
    Nothing,
    Lease,
    Promises,
}

impl Set {
    /// Whether no promises stand in for the lease, as far as is known.
    fn lacks_promises(&self) -> bool {
        self.trouble.is_some() || self.holding.refused || self.copies.is_none()
    }
}

impl Sets {
    /// Whether a lease is needed.
    pub(super) fn needed(&self) -> bool {
        self.needed
    }

    /// The lease of the proxy.
    pub(super) fn proxy(&self) -> &Arc<Until> {
        &self.proxy
    }

    /// Until when a set may be answered for.
    pub(super) fn until(&self, key: Key) -> Arc<Until> {
        let set = self.sets.get(&key);
        set.map_or_else(|| Arc::clone(&self.proxy), |set| Arc::clone(&set.until))
    }

    /// Follows a configuration. A set of another epoch begins with the proxy's lease alone.
    pub(super) fn follow(&mut self, config: &ProxyConfig) {
        let mut before = std::mem::take(&mut self.sets);
        let mut databases = config.databases.iter();
        self.needed = databases.any(|database| database.lease.is_some());
        for database in &config.databases {
            let Some(copies) = &database.lease else {
                continue;
            };
            for shard in &database.shards {
                let key = (database.uid, shard.uid);
                let named = copies.iter().find(|copies| {
                    copies.shard == shard.uid
                        && copies.epoch == shard.epoch
                        && !copies.addresses.is_empty()
                });
                let copies = named.filter(|_| shard.serving).cloned();
                let known = before.remove(&key);
                let known = known.filter(|known| known.epoch == shard.epoch);
                let set = match known {
                    Some(known) => Set { copies, ..known },
                    None => self.fresh(shard.epoch, copies),
                };
                self.sets.insert(key, set);
            }
        }
    }

    fn fresh(&self, epoch: Epoch, copies: Option<Copies>) -> Set {
        let until = Arc::new(Until::default());
        until.extend(self.lease.until);
        Set {
            epoch,
            holding: self.lease,
            until,
            copies,
            rests: Rests::NotYet,
            trouble: None,
        }
    }

    /// The primary node granted what was asked for at `sent`. Whether something had run out meanwhile.
    pub(super) fn granted(&mut self, sent: Moment) -> bool {
        self.lease.granted(sent, LENGTH);
        let mut ran_out = extend(&self.proxy, self.lease);
        for set in self.sets.values_mut() {
            set.holding.granted(sent, LENGTH);
            set.trouble = None;
            ran_out |= extend(&set.until, set.holding);
        }
        ran_out
    }

    /// The primary node refused.
    pub(super) fn refused(&mut self) {
        self.lease.refused();
        for set in self.sets.values_mut() {
            set.holding.refused();
            set.trouble = None;
        }
    }

    /// Every copy of a set promised what was asked for at `sent`, or why one did not. Whether something had
    /// run out meanwhile.
    pub(super) fn promised(
        &mut self,
        key: Key,
        epoch: Epoch,
        sent: Moment,
        outcome: Result<(), String>,
    ) -> bool {
        let Some(set) = self.sets.get_mut(&key).filter(|set| set.epoch == epoch) else {
            return false;
        };
        set.trouble = outcome.as_ref().err().cloned();
        if outcome.is_err() {
            return false;
        }
        set.holding.promised(sent, LENGTH);
        extend(&set.until, set.holding)
    }

    /// Who is to be asked for promises.
    pub(super) fn to_ask(&self) -> Vec<(Key, Copies)> {
        let asked = self.sets.iter().filter(|(_, set)| !set.holding.refused);
        asked
            .filter_map(|(key, set)| Some((*key, set.copies.clone()?)))
            .collect()
    }

    /// Sees what each rests on now. `why` there is no lease, and whether that is since there is no quorum. Returns whether
    /// what workers may do has changed, and the next moment at which it may change by itself.
    pub(super) fn look(
        &mut self,
        now: Moment,
        (why, no_quorum): (&str, bool),
    ) -> (bool, Option<Moment>) {
        let holds = self.proxy.holds(now);
        let mut changed = std::mem::replace(&mut self.proxy_holds, holds) != holds;
        if !holds {
            self.proxy.set_trouble(Some(why.to_owned()));
        }
        self.proxy.set_hopeless(no_quorum);
        let mut next = holds.then(|| self.proxy.end());
        let mut news = News::default();
        for (key, set) in &mut self.sets {
            let rests = match (holds, set.until.holds(now)) {
                (true, true) => Rests::Lease,
                (_, true) => Rests::Promises,
                (_, false) if set.rests == Rests::NotYet => Rests::NotYet,
                (_, false) => Rests::Nothing,
            };
            if matches!(rests, Rests::Lease | Rests::Promises) {
                let end = set.until.end();
                next = Some(next.map_or(end, |next| next.min(end)));
            } else {
                let reason = match &set.trouble {
                    Some(trouble) => format!("{why} and {trouble}"),
                    None => why.to_owned(),
                };
                set.until.set_trouble(Some(reason));
            }
            set.until.set_hopeless(no_quorum && set.lacks_promises());
            let before = std::mem::replace(&mut set.rests, rests);
            if before != rests {
                changed = true;
                news.add(before, rests, *key, set);
            }
        }
        news.tell(why);
        (changed, next)
    }
}

/// Whether it had run out before it was moved on. The clock is looked at afterwards: who saw the old end
/// had seen an earlier time.
fn extend(until: &Until, holding: Holding) -> bool {
    let before = until.extend(holding.until);
    before < holding.until && before <= now()
}

/// What the log is told, a line for all sets that have the same to tell.
#[derive(Debug, Default)]
struct News {
    waiting: Vec<(Key, String)>,
    leased: usize,
    promised: usize,
}

impl News {
    fn add(&mut self, before: Rests, rests: Rests, key: Key, set: &Set) {
        match rests {
            Rests::NotYet => {}
            Rests::Nothing => self.waiting.push((key, set.until.trouble())),
            Rests::Lease if before == Rests::NotYet => {}
            Rests::Lease => self.leased += 1,
            Rests::Promises => self.promised += 1,
        }
    }

    fn tell(self, why: &str) {
        if let Some(((database, shard), reason)) = self.waiting.first() {
            let sets = self.waiting.len();
            tracing::warn!(sets, %database, %shard, reason, "the lease has run out: clients of replicated databases wait");
        }
        if self.promised > 0 {
            let (sets, reason) = (self.promised, why);
            tracing::warn!(
                sets,
                reason,
                "the lease has run out: the promises of all copies carry"
            );
        }
        if self.leased > 0 {
            let sets = self.leased;
            tracing::info!(sets, "the lease is there again");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::documents::SlotRange;
    use model::proxy::{ProxyDatabase, ProxyShard, ShardAddress};
    use model::{NodeUid, Revision, Secret};

    const KEY: Key = (DatabaseUid(1), ShardUid(1));

    /// A shard of an epoch; `copies`: of which epoch those are that may promise.
    fn config(epoch: u64, copies: u64) -> ProxyConfig {
        let address = ShardAddress::Unix("/run/engine.sock".into());
        ProxyConfig {
            revision: Revision(1),
            cluster_id: "cluster".to_owned(),
            node: NodeUid(1),
            databases: vec![ProxyDatabase {
                drains: false,
                elsewhere: Vec::new(),
                uid: KEY.0,
                name: "demo".to_owned(),
                listen: Vec::new(),
                password: None,
                max_connections: 0,
                tuning: model::tuning::DatabaseTuning::default(),
                shards: vec![ProxyShard {
                    uid: KEY.1,
                    slots: SlotRange {
                        first: 0,
                        last: 16_383,
                    },
                    epoch: Epoch(epoch),
                    address: address.clone(),
                    user: "proxy".to_owned(),
                    password: Secret::new("p"),
                    serving: true,
                    trouble: None,
                }],
                lease: Some(vec![Copies {
                    shard: KEY.1,
                    epoch: Epoch(copies),
                    user: "keeper".to_owned(),
                    password: Secret::new("p"),
                    addresses: vec![address],
                }]),
            }],
            settings: model::tuning::ProxySettings::default(),
            takes_wishes: false,
            takes_questions: false,
        }
    }

    fn end(sets: &Sets) -> Moment {
        sets.until(KEY).end()
    }

    #[test]
    fn a_set_keeps_its_promise_only_under_its_epoch() {
        let mut sets = Sets::default();
        sets.follow(&config(1, 1));
        assert!(sets.needed());
        sets.granted(Moment(10));
        let lease = Moment(10).after(LENGTH.holder);
        assert_eq!(end(&sets), lease);
        sets.promised(KEY, Epoch(1), Moment(20), Ok(()));
        assert_eq!(end(&sets), Moment(20).after(LENGTH.holder));
        assert_eq!(sets.proxy().end(), lease);
        let same = sets.until(KEY);
        sets.follow(&config(1, 1));
        assert!(Arc::ptr_eq(&same, &sets.until(KEY)));
        // The next epoch has the lease alone, and no use for a promise that was asked for before.
        sets.follow(&config(2, 2));
        assert_eq!(end(&sets), lease);
        sets.promised(KEY, Epoch(1), Moment(30), Ok(()));
        assert_eq!(end(&sets), lease);
        assert_eq!(same.end(), Moment(20).after(LENGTH.holder));
    }

    #[test]
    fn only_copies_of_the_present_epoch_are_asked() {
        let mut sets = Sets::default();
        sets.follow(&config(1, 1));
        assert_eq!(sets.to_ask().len(), 1);
        sets.follow(&config(2, 1));
        assert!(sets.to_ask().is_empty());
        let mut withheld = config(2, 2);
        withheld.databases[0].shards[0].serving = false;
        sets.follow(&withheld);
        assert!(sets.to_ask().is_empty());
        let mut nobody = config(2, 2);
        for copies in nobody.databases[0].lease.iter_mut().flatten() {
            copies.addresses.clear();
        }
        sets.follow(&nobody);
        assert!(sets.to_ask().is_empty(), "nobody is not everybody");
        sets.follow(&config(2, 2));
        sets.refused();
        assert!(sets.to_ask().is_empty());
        sets.granted(Moment(5));
        assert_eq!(sets.to_ask().len(), 1);
        sets.follow(&config(3, 3));
        assert_eq!(end(&sets), Moment(5).after(LENGTH.holder));
    }
}
