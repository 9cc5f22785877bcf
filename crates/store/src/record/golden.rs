//! The bytes of every record on disk, as version 1 wrote them. Never change one: a later version
//! gets new tests beside these, and must still read them.

use super::*;
use crate::raft::Types;

fn log_id(term: u64, node: u64, index: u64) -> LogId {
    LogId::new(CommittedLeaderId::new(term, node), index)
}

fn members() -> Membership {
    let nodes = [(1, "127.0.0.1:3342"), (2, "127.0.0.2:3342"), (7, "[::1]:9")];
    let nodes: BTreeMap<u64, Address> = nodes
        .into_iter()
        .map(|(uid, address)| (uid, Address(address.to_owned())))
        .collect();
    Membership::new(vec![BTreeSet::from([1]), BTreeSet::from([1, 2])], nodes)
}

/// Writes `value`, compares the bytes, reads them again.
fn golden<T: PartialEq + std::fmt::Debug>(
    kind: u8,
    value: &T,
    write_fields: impl FnOnce(&mut Writer, &T),
    read: impl FnOnce(&mut Reader<'_>) -> Read<T>,
    bytes: &str,
) {
    let written = write(kind, |to| write_fields(to, value));
    let bytes = bytes.replace(' ', "");
    assert_eq!(hex::encode(&written), bytes);
    assert_eq!(
        &Reader::whole(kind, &hex::decode(bytes).unwrap(), read).unwrap(),
        value
    );
}

#[test]
fn store() {
    golden(
        STORE,
        &3,
        |to, node| to.u64(*node),
        |from| from.u64(),
        "4e01 0300000000000000",
    );
}

#[test]
fn vote() {
    let bytes = "5601 0500000000000000 0200000000000000 01";
    let vote = Vote::new_committed(5, 2);
    golden(
        VOTE,
        &vote,
        |to, vote| to.vote(vote),
        |from| from.vote(),
        bytes,
    );
    let bytes = "5601 0600000000000000 0300000000000000 00";
    golden(
        VOTE,
        &Vote::new(6, 3),
        |to, vote| to.vote(vote),
        |from| from.vote(),
        bytes,
    );
}

#[test]
fn committed_and_purged() {
    let bytes = "4c01 0500000000000000 0200000000000000 ff01000000000000";
    golden(
        LOG_ID,
        &log_id(5, 2, 511),
        |to, id| to.log_id(id),
        |from| from.log_id(),
        bytes,
    );
}

#[test]
fn entry_blank() {
    let entry = LogEntry {
        log_id: log_id(5, 2, 8),
        payload: Payload::Blank,
    };
    let bytes = "4501 0500000000000000 0200000000000000 0800000000000000 00";
    golden(
        ENTRY,
        &entry,
        |to, entry| to.entry(entry),
        |from| from.entry(),
        bytes,
    );
}

#[test]
fn entry_command() {
    let command = Command {
        compare: vec![("a".to_owned(), 0), ("b".to_owned(), 9)],
        put: vec![("a".to_owned(), r#"{"x":1}"#.into())],
        delete: vec!["b".to_owned()],
    };
    let entry: openraft::Entry<Types> = LogEntry {
        log_id: log_id(5, 2, 9),
        payload: Payload::Normal(command),
    };
    let bytes = "4501 0500000000000000 0200000000000000 0900000000000000 01 \
        02000000 01000000 61 0000000000000000 01000000 62 0900000000000000 \
        01000000 01000000 61 07000000 7b2278223a317d 01000000 01000000 62";
    golden(
        ENTRY,
        &entry,
        |to, entry| to.entry(entry),
        |from| from.entry(),
        bytes,
    );
}

#[test]
fn entry_membership() {
    let entry = LogEntry {
        log_id: log_id(1, 1, 0),
        payload: Payload::Membership(members()),
    };
    let bytes = "4501 0100000000000000 0100000000000000 0000000000000000 02 \
        02000000 01000000 0100000000000000 02000000 0100000000000000 0200000000000000 \
        03000000 0100000000000000 0e000000 3132372e302e302e313a33333432 \
        0200000000000000 0e000000 3132372e302e302e323a33333432 \
        0700000000000000 07000000 5b3a3a315d3a39";
    golden(
        ENTRY,
        &entry,
        |to, entry| to.entry(entry),
        |from| from.entry(),
        bytes,
    );
}

#[test]
fn snapshot_header() {
    let one = Membership::new(
        vec![BTreeSet::from([1])],
        BTreeMap::from([(1, Address("127.0.0.1:1".to_owned()))]),
    );
    let header = SnapshotHeader {
        meta: SnapshotMeta {
            last_log_id: Some(log_id(5, 2, 9)),
            last_membership: StoredMembership::new(Some(log_id(1, 1, 0)), one),
            snapshot_id: "10-00ff".to_owned(),
        },
        body_len: 258,
        checksum: [0xab; 32],
    };
    let bytes = format!(
        "4801 07000000 31302d30306666 01 0500000000000000 0200000000000000 0900000000000000 \
         01 0100000000000000 0100000000000000 0000000000000000 \
         01000000 01000000 0100000000000000 01000000 0100000000000000 \
         0b000000 3132372e302e302e313a31 0201000000000000 {}",
        "ab".repeat(32)
    );
    let read = |from: &mut Reader<'_>| from.snapshot_header();
    golden(
        SNAPSHOT_HEADER,
        &header,
        |to, header| to.snapshot_header(header),
        read,
        &bytes,
    );
}

#[test]
fn snapshot_body() {
    let mut state = crate::State::default();
    let txn = crate::Txn::new()
        .put("k", &1)
        .unwrap()
        .put("l", &"é")
        .unwrap();
    state.apply(&txn).unwrap();
    state
        .apply(&crate::Txn::new().put("k", &[true]).unwrap())
        .unwrap();
    let (header, body) = crate::machine::encode(&state, SnapshotMeta::default());
    let bytes = "4201 0200000000000000 02000000 \
        01000000 6b 0200000000000000 06000000 5b747275655d \
        01000000 6c 0100000000000000 04000000 22c3a922";
    assert_eq!(hex::encode(&body), bytes.replace(' ', ""));
    assert_eq!(crate::machine::decode(&header, &body).unwrap(), state);
    assert_eq!(
        state.hash(),
        crate::machine::decode(&header, &body).unwrap().hash(),
        "the hash is carried on"
    );
}

#[test]
fn a_later_version_says_what_to_do() {
    let mut record = write(VOTE, |to| to.vote(&Vote::new(1, 1)));
    record[1] = VERSION + 1;
    let error = Reader::whole(VOTE, &record, Reader::vote).unwrap_err();
    assert_eq!(
        error,
        RecordError::Version {
            kind: 'V',
            found: 2
        }
    );
    assert!(
        error
            .to_string()
            .contains("later release, install that one"),
        "{error}"
    );
}

#[test]
fn every_cut_and_every_other_kind_is_refused() {
    let entry = LogEntry {
        log_id: log_id(1, 1, 0),
        payload: Payload::Membership(members()),
    };
    let record = write(ENTRY, |to| to.entry(&entry));
    for len in 0..record.len() {
        let error = Reader::whole(ENTRY, &record[..len], Reader::entry).unwrap_err();
        assert_eq!(error, RecordError::Truncated, "cut at {len}");
    }
    let mut longer = record.clone();
    longer.push(0);
    let error = Reader::whole(ENTRY, &longer, Reader::entry).unwrap_err();
    assert_eq!(error, RecordError::TooLong(1));
    let error = Reader::whole(VOTE, &record, Reader::vote).unwrap_err();
    assert_eq!(
        error,
        RecordError::Kind {
            wanted: 'V',
            found: 'E'
        }
    );
}

#[test]
fn a_huge_count_makes_no_room() {
    let record = write(ENTRY, |to| {
        to.log_id(&log_id(1, 1, 1));
        to.u8(1);
        to.count(usize::MAX);
    });
    let error = Reader::whole(ENTRY, &record, Reader::entry).unwrap_err();
    assert_eq!(error, RecordError::Truncated);
}
