//! Clients of several shards go to another process.

use super::{Due, Fan, How, Leg, Queue, Unsent, messages};
use crate::handover::record::{
    Bytes, DueRecord, FanRecord, HowRecord, LegRecord, MergeRecord, QueueRecord,
};
use crate::merge::Merge;
use std::collections::VecDeque;

/// `None`: it is made of commands that are answered soon.
const fn write_merge(merge: &Merge) -> Option<MergeRecord> {
    match merge {
        Merge::Same => Some(MergeRecord::Same),
        Merge::AnySuccess => Some(MergeRecord::AnySuccess),
        Merge::Sum => Some(MergeRecord::Sum),
        Merge::Minimum => Some(MergeRecord::Minimum),
        Merge::Minima => Some(MergeRecord::Minima),
        _ => None,
    }
}

const fn read_merge(record: MergeRecord) -> Merge {
    match record {
        MergeRecord::Same => Merge::Same,
        MergeRecord::AnySuccess => Merge::AnySuccess,
        MergeRecord::Sum => Merge::Sum,
        MergeRecord::Minimum => Merge::Minimum,
        MergeRecord::Minima => Merge::Minima,
    }
}

fn write_due(due: Due) -> DueRecord {
    // What cannot be written has been looked for before.
    let merge = |merge: Merge| write_merge(&merge).unwrap_or(MergeRecord::Same);
    match due {
        Due::Replies { shard, count } => DueRecord::Replies { shard, count },
        Due::Merged { shards, merge: how } => DueRecord::Merged {
            shards: shards.into_vec(),
            how: match how {
                How::Merge(how) => HowRecord::Merge(merge(how)),
                How::Opening(how) => HowRecord::Opening(merge(how)),
                How::Confirmed(text) => HowRecord::Confirmed(Bytes(text)),
            },
        },
        Due::Text(text) => DueRecord::Text(Bytes(text.into_vec())),
    }
}

fn read_due(record: DueRecord) -> Due {
    match record {
        DueRecord::Replies { shard, count } => Due::Replies { shard, count },
        DueRecord::Merged { shards, how } => Due::Merged {
            shards: shards.into(),
            merge: match how {
                HowRecord::Merge(how) => How::Merge(read_merge(how)),
                HowRecord::Opening(how) => How::Opening(read_merge(how)),
                HowRecord::Confirmed(text) => How::Confirmed(text.0),
            },
        },
        DueRecord::Text(text) => Due::Text(text.0.into()),
    }
}

impl Fan {
    /// Whether all that the client is due can be written.
    pub(in crate::worker) fn may_go(&self) -> bool {
        self.order.iter().all(|due| match due {
            Due::Merged {
                merge: How::Merge(merge) | How::Opening(merge),
                ..
            } => write_merge(merge).is_some(),
            Due::Merged { .. } | Due::Replies { .. } | Due::Text(_) => true,
        })
    }

    /// Bytes that it holds.
    pub(in crate::worker) fn holds(&self) -> usize {
        self.held
    }

    /// Its record, but for the legs.
    pub(in crate::worker) fn write(self) -> FanRecord {
        let Self {
            order,
            // Those are written by themselves.
            legs: _,
            // These are counted anew.
            held: _,
            opening: _,
            unsent,
            streaming,
            transaction,
            watched,
            subscribed,
            optin,
            optin_asked,
            caching,
            mid,
            messages,
        } = self;
        FanRecord {
            order: order.into_iter().map(write_due).collect(),
            legs: Vec::new(),
            unsent: unsent
                .into_iter()
                .map(|Unsent { shard, frame }| (shard, frame.map(Bytes)))
                .collect(),
            streaming,
            transaction: match transaction {
                Queue::No => QueueRecord::No,
                Queue::Here(frames) => QueueRecord::Here(frames.into_iter().map(Bytes).collect()),
                Queue::At(shard) => QueueRecord::At(shard),
                Queue::Lost => QueueRecord::Lost,
            },
            watched,
            names: subscribed.write(),
            optin,
            optin_asked,
            caching: caching.map(Bytes),
            mid,
            messages: messages.into_iter().map(Bytes).collect(),
        }
    }

    /// From a record, without legs.
    pub(in crate::worker) fn read(record: FanRecord) -> (Self, Vec<LegRecord>) {
        let FanRecord {
            order,
            legs,
            unsent,
            streaming,
            transaction,
            watched,
            names,
            optin,
            optin_asked,
            caching,
            mid,
            messages,
        } = record;
        let order: VecDeque<Due> = order.into_iter().map(read_due).collect();
        let opens = |due: &&Due| matches!(due, Due::Merged { merge, .. } if !matches!(merge, How::Merge(_)));
        let opening = order.iter().filter(opens).count();
        let messages: VecDeque<Vec<u8>> = messages.into_iter().map(|message| message.0).collect();
        let fan = Self {
            order,
            legs: Vec::new(),
            held: messages.iter().map(Vec::len).sum(),
            unsent: unsent
                .into_iter()
                .map(|(shard, frame)| Unsent {
                    shard,
                    frame: frame.map(|frame| frame.0),
                })
                .collect(),
            streaming,
            transaction: match transaction {
                QueueRecord::No => Queue::No,
                QueueRecord::Here(frames) => {
                    Queue::Here(frames.into_iter().map(|frame| frame.0).collect())
                }
                QueueRecord::At(shard) => Queue::At(shard),
                QueueRecord::Lost => Queue::Lost,
            },
            watched,
            subscribed: messages::Names::read(names),
            optin,
            optin_asked,
            caching: caching.map(|frame| frame.0),
            mid,
            messages,
            opening,
        };
        (fan, legs)
    }

    /// Puts a leg where it belongs.
    pub(in crate::worker) fn put_leg(&mut self, shard: usize, leg: usize, holds: usize) {
        if self.legs.len() <= shard {
            self.legs.resize(shard + 1, None);
        }
        self.legs[shard] = Some(leg);
        self.held += holds;
    }
}

impl Leg {
    /// Its record, but for what every client has.
    pub(in crate::worker) fn write(self) -> LegRecord {
        let Self {
            front: _,
            shard,
            replies,
            part,
            message,
            cached,
        } = self;
        LegRecord {
            shard,
            replies: replies.into_iter().map(Bytes).collect(),
            part: Bytes(part),
            message: Bytes(message),
            cached,
            ..LegRecord::default()
        }
    }

    /// From a record, and how many bytes it holds.
    pub(in crate::worker) fn read(
        front: usize,
        shard: usize,
        replies: Vec<Bytes>,
        (part, message): (Bytes, Bytes),
        cached: bool,
    ) -> (Self, usize) {
        let leg = Self {
            front,
            shard,
            replies: replies.into_iter().map(|reply| reply.0).collect(),
            part: part.0,
            message: message.0,
            cached,
        };
        let holds = leg.part.len() + leg.replies.iter().map(Vec::len).sum::<usize>();
        (leg, holds)
    }
}
