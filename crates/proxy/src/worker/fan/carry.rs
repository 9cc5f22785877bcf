//! Clients of several shards go to another process.

use super::early::Early;
use super::{Due, Fan, How, Leg, Queue, Unsent, Waiting, subscriptions};
use crate::handover::record::{
    Bytes, DueRecord, FanRecord, HowRecord, LegRecord, MergeRecord, QueueRecord,
};
use crate::merge::Merge;
use crate::worker::session::Subscriptions;
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

/// A record tells what will be said, and what the client is subscribed to then.
fn write_due(due: Due, subscribed: &mut subscriptions::Names, resp: u8) -> DueRecord {
    // What cannot be written has been looked for before.
    let merge = |merge: Merge| write_merge(&merge).unwrap_or(MergeRecord::Same);
    match due {
        Due::Replies { shard, count } => DueRecord::Replies { shard, count },
        Due::Merged { shards, merge: how } => DueRecord::Merged {
            shards: shards.into_vec(),
            how: match how {
                How::Merge(how) => HowRecord::Merge(merge(how)),
                How::Opening(how) => HowRecord::Opening(merge(how)),
                How::Confirmed(change) => {
                    HowRecord::Confirmed(Bytes(subscribed.change(change, resp)))
                }
                How::Told(text) => HowRecord::Confirmed(Bytes(text)),
                How::TooLarge => HowRecord::Merge(MergeRecord::Same),
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
                HowRecord::Confirmed(text) => How::Told(text.0),
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
            Due::Merged {
                merge: How::TooLarge,
                ..
            } => false,
            Due::Merged { .. } | Due::Replies { .. } | Due::Text(_) => true,
        })
    }

    /// Bytes that it holds.
    pub(in crate::worker) fn holds(&self) -> usize {
        self.held
    }

    /// Its record, but for the legs; and what the client is subscribed to.
    pub(in crate::worker) fn write(self, resp: u8) -> (FanRecord, Subscriptions) {
        let Self {
            order,
            // Those are written by themselves.
            legs: _,
            // These are counted anew.
            held: _,
            opening: _,
            looked: _,
            unsent,
            streaming,
            transaction,
            watched,
            mut subscribed,
            optin,
            optin_asked,
            caching,
            mid,
            messages,
        } = self;
        let write = |due| write_due(due, &mut subscribed, resp);
        let order = order.into_iter().map(write).collect();
        let counts = subscribed.counts();
        let record = FanRecord {
            order,
            legs: Vec::new(),
            unsent: unsent
                .into_iter()
                .map(|Unsent { shard, frame }| (shard, frame.map(Bytes)))
                .collect(),
            streaming,
            transaction: match transaction {
                Queue::No => QueueRecord::No,
                // With a question that is under way it does not go.
                Queue::Here(early) => {
                    QueueRecord::Here(early.into_frames().into_iter().map(Bytes).collect())
                }
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
        };
        (record, counts)
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
        let mut order: VecDeque<Due> = order.into_iter().map(read_due).collect();
        let opens =
            |due: &Due| matches!(due, Due::Merged { merge, .. } if !matches!(merge, How::Merge(_)));
        let opening = order.iter().filter(|due| opens(due)).count();
        let mut messages: VecDeque<Vec<u8>> =
            messages.into_iter().map(|message| message.0).collect();
        // In 1.1.0 they waited for confirmations, too, as which they may come from.
        if let Some(last) = order.iter().rposition(opens)
            && !messages.is_empty()
        {
            let text = messages.drain(..).collect::<Vec<_>>().concat();
            order.insert(last + 1, Due::Text(text.into()));
        }
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
            looked: 0,
            transaction: match transaction {
                QueueRecord::No => Queue::No,
                QueueRecord::Here(frames) => Queue::Here(Early::of_frames(
                    frames.into_iter().map(|frame| frame.0).collect(),
                )),
                QueueRecord::At(shard) => Queue::At(shard),
                QueueRecord::Lost => Queue::Lost,
            },
            watched,
            subscribed: subscriptions::Names::read(names),
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
    pub(in crate::worker) fn write(mut self) -> LegRecord {
        let mut replies = Vec::new();
        while let Some(reply) = self.pop_reply() {
            replies.push(Bytes(reply));
        }
        let Self {
            front: _,
            shard,
            // A leg with messages does not go.
            waiting: _,
            part,
            // Only while it is due that is too large.
            drops: _,
            message,
            cached,
        } = self;
        LegRecord {
            shard,
            replies,
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
            waiting: replies
                .into_iter()
                .map(|reply| Waiting::Reply(reply.0))
                .collect(),
            part: part.0,
            drops: false,
            message: message.0,
            cached,
        };
        let holds = leg.holds();
        (leg, holds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use resp::command::Subscription;

    fn confirmation(what: &str, name: &str, count: u8) -> String {
        let (long, length) = (what.len(), name.len());
        format!("*3\r\n${long}\r\n{what}\r\n${length}\r\n{name}\r\n:{count}\r\n")
    }

    fn text(bytes: &Bytes) -> String {
        String::from_utf8(bytes.0.clone()).unwrap()
    }

    /// A record says how it will be when the shards have confirmed, as in 1.1.0.
    #[test]
    fn what_is_not_confirmed_is_written_as_if_it_were() {
        let mut fan = Fan::default();
        let mut due = |on, names: &[&str]| {
            let names = names.iter().map(|name| name.as_bytes().to_vec()).collect();
            let change = subscriptions::Change::new(Subscription::Channel, on, names);
            fan.order.push_back(Due::Merged {
                shards: [0, 1].into(),
                merge: How::Confirmed(change),
            });
        };
        due(true, &["a", "b"]);
        due(false, &["a"]);
        fan.opening = 2;
        let (record, counts) = fan.write(2);
        let said: Vec<String> = record
            .order
            .iter()
            .map(|due| match due {
                DueRecord::Merged {
                    how: HowRecord::Confirmed(said),
                    ..
                } => text(said),
                other => panic!("{other:?}"),
            })
            .collect();
        let both = confirmation("subscribe", "a", 1) + &confirmation("subscribe", "b", 2);
        assert_eq!(said, [both, confirmation("unsubscribe", "a", 1)]);
        assert_eq!(counts.channels, 1);
        assert_eq!(record.names[0], [Bytes(b"b".to_vec())]);
        let (fan, _) = Fan::read(record);
        assert_eq!(fan.opening, 2);
        let told = |due: &Due| {
            matches!(
                due,
                Due::Merged {
                    merge: How::Told(_),
                    ..
                }
            )
        };
        assert!(fan.order.iter().all(told));
    }

    /// In 1.1.0 messages waited for all confirmations that were due.
    #[test]
    fn messages_of_the_release_before_come_behind_the_confirmations() {
        let merged = |how| DueRecord::Merged {
            shards: vec![0, 1],
            how,
        };
        let record = |order, mid| FanRecord {
            order,
            mid,
            messages: vec![Bytes(b"one".to_vec()), Bytes(b"two".to_vec())],
            ..FanRecord::default()
        };
        let confirmed = merged(HowRecord::Confirmed(Bytes(b"so".to_vec())));
        let later = DueRecord::Replies { shard: 0, count: 1 };
        let (fan, _) = Fan::read(record(vec![confirmed, later], false));
        assert!(fan.messages.is_empty() && fan.held == 0);
        let texts: Vec<&[u8]> = fan
            .order
            .iter()
            .map(|due| match due {
                Due::Merged { .. } => &b"merged"[..],
                Due::Text(text) => text,
                Due::Replies { .. } => b"replies",
            })
            .collect();
        assert_eq!(texts, [&b"merged"[..], b"onetwo", b"replies"]);
        let part = DueRecord::Replies { shard: 0, count: 1 };
        let (fan, _) = Fan::read(record(vec![part], true));
        assert_eq!((fan.messages.len(), fan.held), (2, 6));
    }
}
