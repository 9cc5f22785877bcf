use super::properties::{check, client, seeds, several};
use super::*;

#[test]
fn what_is_written_is_read() {
    let (one, two) = (client(), several());
    let bytes = encode(&[&one, &two]).unwrap();
    assert_eq!(decode(&bytes).unwrap(), [one, two].map(Box::new));
}

#[test]
fn what_is_cut_or_wrong_is_refused() {
    let bytes = encode(&[&client(), &several()]).unwrap();
    for length in (0..2_000).chain([bytes.len() - 1]) {
        assert!(decode(&bytes[..length]).is_err(), "{length}");
    }
    let wrong: [fn(&mut ClientRecord); 9] = [
        |record| record.ends = Vec::new(),
        |record| record.ends = vec![1, 2],
        |record| record.session.resp = 4,
        |record| record.flow.backend = None,
        |record| record.flow.framer = [9, 0, 0],
        |record| record.flow.scanned = 1,
        |record| record.flow.backend.as_mut().unwrap().framer = Bytes::default(),
        |record| record.flow.backend.as_mut().unwrap().book[0].count = 0,
        |record| record.flow.backend.as_mut().unwrap().book[0].count = 2,
    ];
    for change in wrong {
        let mut record = client();
        change(&mut record);
        assert!(decode(&encode(&[&record]).unwrap()).is_err(), "{record:?}");
    }
    let wrong: [fn(&mut FanRecord); 6] = [
        |fan| fan.legs[0].shard = 2,
        |fan| {
            fan.legs.push(LegRecord {
                shard: 1,
                ..LegRecord::default()
            })
        },
        |fan| fan.order[0] = DueRecord::Replies { shard: 2, count: 1 },
        |fan| fan.order[0] = DueRecord::Replies { shard: 0, count: 0 },
        |fan| fan.streaming = Some(0),
        |fan| fan.transaction = QueueRecord::At(2),
    ];
    for change in wrong {
        let mut record = several();
        change(record.fan.as_mut().unwrap());
        assert!(decode(&encode(&[&record]).unwrap()).is_err(), "{record:?}");
    }
}

/// Bytes are never there more often than they came.
#[test]
fn bytes_are_not_multiplied() {
    let mut bytes = encode(&[&client()]).unwrap();
    let text = String::from_utf8_lossy(&bytes[4..]).into_owned();
    let end = text.rfind("}]").unwrap() + 2;
    let more = text[..end].replace("\"tail\":", "\"owed\":[0,900],\"tail\":");
    let rest = bytes.split_off(4 + end);
    let mut changed = u32::try_from(more.len()).unwrap().to_le_bytes().to_vec();
    changed.extend(more.as_bytes());
    changed.extend(rest);
    assert!(decode(&changed).unwrap_err().contains("column"));
}

/// A release that knows more writes fields that this one does not.
#[test]
fn fields_of_another_release_are_let_be() {
    let bytes = encode(&[&several()]).unwrap();
    let length = u32::from_le_bytes(*bytes.first_chunk().unwrap()) as usize;
    let text = std::str::from_utf8(&bytes[4..4 + length]).unwrap();
    let more = text.replacen("{\"database\"", "{\"later\":{\"a\":[1,2]},\"database\"", 1);
    let mut changed = u32::try_from(more.len()).unwrap().to_le_bytes().to_vec();
    changed.extend(more.as_bytes());
    changed.extend(&bytes[4 + length..]);
    assert_eq!(decode(&changed).unwrap(), [Box::new(several())]);
}

/// Known batches, changed by chance, and cut.
#[test]
fn whatever_comes_is_refused_or_understood() {
    let mut random = 11_u64;
    let mut next = |below: usize| {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) as usize % below
    };
    for seed in seeds() {
        check(&seed);
        for _ in 0..4_000 {
            let mut bytes = seed.clone();
            for _ in 0..=next(4) {
                let at = next(bytes.len());
                bytes[at] = match next(3) {
                    0 => b'0' + next(10) as u8,
                    1 => b"[]{},:\"-"[next(8)],
                    _ => next(256) as u8,
                };
            }
            check(&bytes);
        }
    }
}
