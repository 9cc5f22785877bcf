//! What is expected on a connection, as a record and back.

use super::AGE_MAX;
use crate::handover::record::{
    Bytes, EffectRecord, KindRecord, LaterRecord, RewriteRecord, RunRecord, WhatRecord,
};
use crate::stats::Tally;
use crate::stats::slow::Head;
use crate::worker::ClientId;
use crate::worker::backend::{Confirm, Effect, Rewrite, Run, Seen};
use crate::worker::queued::{Later, What};
use resp::command::Subscription;

/// `None`: it belongs to a command of the proxy's own, which is answered soon.
pub(super) fn write_effect(effect: Effect) -> Option<EffectRecord> {
    Some(match effect {
        Effect::None => EffectRecord::None,
        Effect::Blocking => EffectRecord::Blocking,
        Effect::Multi => EffectRecord::Multi,
        Effect::Exec | Effect::ExecRefused => EffectRecord::Exec,
        Effect::Discard => EffectRecord::Discard,
        Effect::Watch => EffectRecord::Watch,
        Effect::Unwatch => EffectRecord::Unwatch,
        Effect::Select(db) => EffectRecord::Select(db),
        Effect::Tracking(on) => EffectRecord::Tracking(on),
        Effect::Monitor => EffectRecord::Monitor,
        Effect::NoTouch(on) => EffectRecord::NoTouch(on),
        Effect::Confirm(kind, count) => {
            let kind = match kind {
                Subscription::Channel => KindRecord::Channel,
                Subscription::Pattern => KindRecord::Pattern,
                Subscription::Shard => KindRecord::Shard,
            };
            let count = match count {
                Confirm::Count(count) => Some(count),
                Confirm::All => None,
            };
            EffectRecord::Confirm(kind, count)
        }
        Effect::Freed | Effect::Unblocked | Effect::LetGo | Effect::Asked | Effect::Replayed => {
            return None;
        }
    })
}

fn read_effect(record: EffectRecord) -> Effect {
    match record {
        EffectRecord::None => Effect::None,
        EffectRecord::Blocking => Effect::Blocking,
        EffectRecord::Multi => Effect::Multi,
        EffectRecord::Exec => Effect::Exec,
        EffectRecord::Discard => Effect::Discard,
        EffectRecord::Watch => Effect::Watch,
        EffectRecord::Unwatch => Effect::Unwatch,
        EffectRecord::Select(db) => Effect::Select(db),
        EffectRecord::Tracking(on) => Effect::Tracking(on),
        EffectRecord::Monitor => Effect::Monitor,
        EffectRecord::NoTouch(on) => Effect::NoTouch(on),
        EffectRecord::Confirm(kind, count) => {
            let kind = match kind {
                KindRecord::Channel => Subscription::Channel,
                KindRecord::Pattern => Subscription::Pattern,
                KindRecord::Shard => Subscription::Shard,
            };
            Effect::Confirm(kind, count.map_or(Confirm::All, Confirm::Count))
        }
    }
}

/// `None`: its reply is looked into, which is over soon.
pub(super) fn write_rewrite(rewrite: Rewrite) -> Option<RewriteRecord> {
    Some(match rewrite {
        Rewrite::None => RewriteRecord::None,
        Rewrite::ConfigGet => RewriteRecord::ConfigGet,
        Rewrite::Guard(text) => RewriteRecord::Guard(Bytes(text.into())),
        Rewrite::Text(text) => RewriteRecord::Text(Bytes(text.into())),
        Rewrite::Commands(_) | Rewrite::Exec | Rewrite::LastId(_) | Rewrite::Cursor(_) => {
            return None;
        }
    })
}

/// Whether it can be written.
pub(super) fn may_go(run: &Run) -> bool {
    // 1.1.0 takes every confirmation for one that the client is due.
    let unheard = run.discard && matches!(run.effect, Effect::Confirm(..));
    write_effect(run.effect).is_some()
        && !unheard
        && !matches!(
            run.rewrite,
            Rewrite::Commands(_) | Rewrite::Exec | Rewrite::LastId(_) | Rewrite::Cursor(_)
        )
}

pub(super) fn write_run(run: Run, clock: u64) -> RunRecord {
    let Run {
        client: _,
        count,
        discard,
        effect,
        rewrite,
        seen:
            Seen {
                since,
                waited,
                left,
                count: sent,
                head,
            },
    } = run;
    RunRecord {
        count,
        discard,
        // It was looked at before.
        effect: write_effect(effect).unwrap_or_default(),
        rewrite: write_rewrite(rewrite).unwrap_or_default(),
        since: clock.saturating_sub(since),
        waited,
        left: left.parts().to_vec(),
        sent,
        head: Bytes(head.bytes().to_vec()),
    }
}

pub(super) fn read_run(record: RunRecord, client: ClientId, clock: u64) -> Run {
    let RunRecord {
        count,
        discard,
        effect,
        rewrite,
        since,
        waited,
        left,
        sent,
        head,
    } = record;
    Run {
        client,
        count,
        discard,
        effect: read_effect(effect),
        rewrite: match rewrite {
            RewriteRecord::None => Rewrite::None,
            RewriteRecord::ConfigGet => Rewrite::ConfigGet,
            RewriteRecord::Guard(text) => Rewrite::Guard(text.0.into()),
            RewriteRecord::Text(text) => Rewrite::Text(text.0.into()),
        },
        seen: Seen {
            since: clock.saturating_sub(since),
            waited: waited.min(AGE_MAX),
            left: Tally::of_parts(&left),
            count: sent,
            head: Head::of(&head.0),
        },
    }
}

pub(super) fn write_later(later: Later) -> LaterRecord {
    let Later { at, what } = later;
    LaterRecord {
        at,
        what: match what {
            What::Answer(frame) => WhatRecord::Answer(Bytes(frame.into())),
            What::Effect(effect) => WhatRecord::Effect(write_effect(effect).unwrap_or_default()),
            What::ConfigGet => WhatRecord::ConfigGet,
            // Who has one does not go: an older release would not know what that is.
            What::Commands(_) => WhatRecord::Effect(EffectRecord::None),
            // Nor would it know this; without a mark the scan begins anew.
            What::Cursor => WhatRecord::Effect(EffectRecord::None),
        },
    }
}

pub(super) fn read_later(record: LaterRecord) -> Later {
    let LaterRecord { at, what } = record;
    Later {
        at,
        what: match what {
            WhatRecord::Answer(frame) => What::Answer(frame.0.into()),
            WhatRecord::Effect(effect) => What::Effect(read_effect(effect)),
            WhatRecord::ConfigGet => What::ConfigGet,
        },
    }
}
