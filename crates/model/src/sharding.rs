//! How a database is divided among its primary shards: slots and memory.

use crate::documents::SlotRange;
use crate::limits::SLOTS;

/// Slots of each primary shard, in order. They cover all slots; where these cannot be divided
/// evenly, the first ranges have one more.
///
/// `count` is from 1 to [`crate::limits::SHARDS_COUNT_MAX`].
#[must_use]
pub fn slot_ranges(count: u32) -> Vec<SlotRange> {
    let mut first = 0_u32;
    evenly(u64::from(SLOTS), count)
        .map(|width| {
            // A part of the slots is never more than all of them.
            let next = first + u32::try_from(width).unwrap_or(u32::from(SLOTS));
            let range = SlotRange {
                first: slot(first),
                last: slot(next.saturating_sub(1)),
            };
            first = next;
            range
        })
        .collect()
}

fn slot(number: u32) -> u16 {
    u16::try_from(number).unwrap_or(SLOTS - 1)
}

/// Memory limit of each primary shard, bytes, in the order of [`slot_ranges`]: together the
/// database's.
#[must_use]
pub fn memory_shares(memory_size: u64, count: u32) -> Vec<u64> {
    evenly(memory_size, count).collect()
}

/// `whole` in `count` parts that differ by at most one, the larger ones first.
fn evenly(whole: u64, count: u32) -> impl Iterator<Item = u64> {
    let count = u64::from(count.max(1));
    (0..count).map(move |index| whole / count + u64::from(index < whole % count))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::SHARDS_COUNT_MAX;

    fn range(first: u16, last: u16) -> SlotRange {
        SlotRange { first, last }
    }

    #[test]
    fn ranges_as_operators_know_them() {
        assert_eq!(slot_ranges(1), [range(0, 16_383)]);
        assert_eq!(
            slot_ranges(3),
            [range(0, 5_461), range(5_462, 10_922), range(10_923, 16_383)]
        );
        assert_eq!(
            slot_ranges(4),
            [
                range(0, 4_095),
                range(4_096, 8_191),
                range(8_192, 12_287),
                range(12_288, 16_383)
            ]
        );
    }

    #[test]
    fn every_slot_and_every_byte_belongs_to_one_shard() {
        for count in 1..=SHARDS_COUNT_MAX {
            let ranges = slot_ranges(count);
            assert_eq!(ranges.len(), count as usize);
            assert_eq!(
                (ranges[0].first, ranges[ranges.len() - 1].last),
                (0, 16_383)
            );
            let follow = |pair: &[SlotRange]| pair[1].first == pair[0].last + 1;
            assert!(ranges.windows(2).all(follow), "{count}");
            assert!(ranges.iter().all(|r| r.first <= r.last), "{count}");
            let memory = (1 << 30) + 7;
            let shares = memory_shares(memory, count);
            assert_eq!(shares.len(), count as usize);
            assert_eq!(shares.iter().sum::<u64>(), memory);
            assert!(shares[0] - shares[shares.len() - 1] <= 1);
        }
    }
}
