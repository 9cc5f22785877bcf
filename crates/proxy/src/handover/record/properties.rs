//! What must hold for any bytes that are said to be a batch. `fuzz/` includes this file and looks for bytes
//! for which it does not; the test beside it changes known ones by chance.

use crate::handover::record::{
    BackendRecord, Bytes, ClientRecord, DueRecord, EffectRecord, FanRecord, FlowRecord, HowRecord,
    KeepRecord, KindRecord, LaneRecord, LegRecord, MergeRecord, RewriteRecord, RunRecord, decode,
    encode,
};
use resp::reply::ReplyFramer;
use resp::request::{RequestFramer, RequestLimits};

/// Checks that what is read of a batch can be gone on with, and is what would be written again.
///
/// # Panics
/// Something does not hold.
pub(crate) fn check(data: &[u8]) {
    let Ok(records) = decode(data) else {
        return;
    };
    for record in &records {
        let sockets = record.sockets();
        assert!(sockets <= 1 + record.ends.len(), "{sockets} sockets");
        let legs = record.fan.iter().flat_map(|fan| &fan.legs);
        for flow in std::iter::once(&record.flow).chain(legs.map(|leg| &leg.flow)) {
            goes_on(flow, record.session.authenticated);
        }
    }
    let again: Vec<&ClientRecord> = records.iter().map(|record| &**record).collect();
    let Ok(written) = encode(&again) else {
        panic!("what was read cannot be written");
    };
    assert_eq!(decode(&written).as_ref(), Ok(&records));
}

/// The framers go on, whatever comes next.
fn goes_on(flow: &FlowRecord, authenticated: bool) {
    let Some(mut framer) = RequestFramer::load(flow.framer) else {
        panic!("a command at no place");
    };
    // It does not matter what they say to it.
    let _ = framer.advance(
        &flow.tail.0[flow.scanned..],
        RequestLimits { authenticated },
    );
    let _ = framer.advance(b"*1\r\n$4\r\nPING\r\n", RequestLimits { authenticated });
    if let Some(backend) = &flow.backend {
        let Some(mut framer) = ReplyFramer::load(&backend.framer.0) else {
            panic!("a reply at no place");
        };
        let _ = framer.advance(&backend.captured.0);
        let _ = framer.advance(b"1\r\n*2\r\n:1\r\n$3\r\nabc\r\n+OK\r\n.\r\n");
    }
}

/// A client with a connection of its own.
pub(crate) fn client() -> ClientRecord {
    ClientRecord {
        database: 1,
        ends: vec![16_383],
        left_at: 9_007_199_254_740_993,
        flow: FlowRecord {
            lane: LaneRecord::Own,
            backend: Some(Box::new(BackendRecord {
                framer: Bytes(ReplyFramer::default().save()),
                out: Bytes(b"\x00\xff out".to_vec()),
                book: vec![RunRecord {
                    count: 1,
                    effect: EffectRecord::Confirm(KindRecord::Shard, Some(3)),
                    rewrite: RewriteRecord::Text(Bytes(b"text".to_vec())),
                    ..RunRecord::default()
                }],
                ..BackendRecord::default()
            })),
            tail: Bytes(vec![7; 1_000]),
            keep: Some(Box::new(KeepRecord {
                names: [vec![Bytes(b"a".to_vec())], Vec::new(), Vec::new()],
                blocked: Some((Bytes(b"frame".to_vec()), 5)),
                ..KeepRecord::default()
            })),
            ..FlowRecord::default()
        },
        ..ClientRecord::default()
    }
}

/// A client of two shards, with a part at one of them.
pub(crate) fn several() -> ClientRecord {
    let leg = LegRecord {
        shard: 1,
        replies: vec![Bytes(b"+OK\r\n".to_vec())],
        ..LegRecord::default()
    };
    ClientRecord {
        ends: vec![8_191, 16_383],
        fan: Some(Box::new(FanRecord {
            order: vec![
                DueRecord::Replies { shard: 0, count: 2 },
                DueRecord::Merged {
                    shards: vec![0, 1],
                    how: HowRecord::Opening(MergeRecord::Same),
                },
            ],
            legs: vec![leg],
            ..FanRecord::default()
        })),
        ..ClientRecord::default()
    }
}

/// Batches to begin with.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let (one, two) = (client(), several());
    let batches: [&[&ClientRecord]; 4] = [&[], &[&one], &[&two], &[&one, &two]];
    batches
        .into_iter()
        .filter_map(|batch| encode(batch).ok())
        .collect()
}
