//! What a record must be, so that a worker can go on with it.

use super::{
    BackendRecord, ClientRecord, DueRecord, EffectRecord, FanRecord, FlowRecord, LaneRecord,
    QueueRecord, RewriteRecord, RunRecord, SessionRecord,
};
use resp::reply::ReplyFramer;
use resp::request::RequestFramer;

/// Most shards of a database.
const SHARDS_MAX: usize = 16_384;

impl ClientRecord {
    /// The connections to shards, with the shard's place.
    pub(crate) fn backends(&self) -> impl Iterator<Item = (usize, &BackendRecord)> {
        let own = self.flow.backend.as_deref().map(|backend| (0, backend));
        let legs = self.fan.iter().flat_map(|fan| &fan.legs);
        let legs = legs.filter_map(|leg| Some((leg.shard, leg.flow.backend.as_deref()?)));
        own.into_iter().chain(legs)
    }

    /// Sockets that belong to it.
    pub(crate) fn sockets(&self) -> usize {
        1 + self.backends().count()
    }

    pub(crate) fn check(&self) -> Result<(), String> {
        let shards = self.ends.len();
        let several = self.fan.is_some();
        let right = if several {
            (2..=SHARDS_MAX).contains(&shards) && self.flow.backend.is_none()
        } else {
            shards == 1
        };
        if !right {
            return Err("a client does not fit its shards".to_owned());
        }
        self.session.check()?;
        self.flow.check()?;
        match &self.fan {
            Some(fan) => fan.check(shards),
            None => Ok(()),
        }
    }
}

impl SessionRecord {
    fn check(&self) -> Result<(), String> {
        match self.resp {
            2 | 3 => Ok(()),
            other => Err(format!("a client speaks RESP{other}")),
        }
    }
}

impl FlowRecord {
    fn check(&self) -> Result<(), String> {
        let framer = RequestFramer::load(self.framer).ok_or("a command is at no place")?;
        let whole = self.scanned <= self.tail.0.len() && (self.scanned == 0 || !framer.at_start());
        let own = (self.lane != LaneRecord::Own || self.backend.is_some())
            && (self.lane != LaneRecord::Gone || self.backend.is_none());
        if !(whole && own) {
            return Err("a client is at no place".to_owned());
        }
        match &self.backend {
            Some(backend) => backend.check(),
            None => Ok(()),
        }
    }
}

impl BackendRecord {
    fn check(&self) -> Result<(), String> {
        ReplyFramer::load(&self.framer.0).ok_or("a reply is at no place")?;
        let counts = self
            .book
            .iter()
            .map(|run| u64::from(run.count))
            .sum::<u64>();
        let counted = |run: &RunRecord| {
            let left: u64 = run.left.iter().map(|count| u64::from(*count)).sum();
            let several = run.effect != EffectRecord::None || run.rewrite != RewriteRecord::None;
            run.count > 0 && left <= counts && (run.count == 1 || !several)
        };
        if counts > u64::from(u32::MAX) || !self.book.iter().all(counted) {
            return Err("a shard owes no such replies".to_owned());
        }
        Ok(())
    }
}

impl FanRecord {
    fn check(&self, shards: usize) -> Result<(), String> {
        let mut seen = vec![false; shards];
        for leg in &self.legs {
            let seen = seen.get_mut(leg.shard);
            if seen.is_none_or(|seen| std::mem::replace(seen, true)) {
                return Err("a client has a part twice, or at no shard".to_owned());
            }
            leg.session.check()?;
            leg.flow.check()?;
        }
        let there = |shard: &usize| *shard < shards;
        let has = |shard: &usize| seen.get(*shard).copied().unwrap_or(false);
        let due = |due: &DueRecord| match due {
            DueRecord::Replies { shard, count } => there(shard) && *count > 0,
            DueRecord::Merged { shards, .. } => {
                !shards.is_empty() && shards.is_sorted_by(|a, b| a < b) && shards.iter().all(there)
            }
            DueRecord::Text(_) => true,
        };
        let right = self.order.iter().all(due)
            && self.unsent.iter().all(|(shard, _)| there(shard))
            && self.streaming.as_ref().is_none_or(has)
            && self.watched.as_ref().is_none_or(there)
            && !matches!(&self.transaction, QueueRecord::At(shard) if !there(shard));
        if right {
            Ok(())
        } else {
            Err("a client is due something of no shard".to_owned())
        }
    }
}
