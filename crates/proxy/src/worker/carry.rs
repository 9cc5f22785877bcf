//! A client as a record, and back: the way of a client to another process, and back if it did not come to
//! be. What is a client's is taken apart field by field, so that a new one cannot be forgotten.
//!
//! | file | what |
//! |---|---|
//! | [`pack`] | a client and its connections become a record and sockets |
//! | [`unpack`] | a record and sockets become a client |
//! | [`runs`] | what is expected on a connection |

mod pack;
mod runs;
mod unpack;

pub(super) use pack::Going;

use super::session::Session;
use crate::handover::record::{BoxedRecord, Bytes, SessionRecord};
use crate::topology::Database;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// No client has waited longer, µs: what is said of times is bounded.
const AGE_MAX: u64 = 1 << 50;

/// A client between two processes, or back from there.
#[derive(Debug)]
pub(crate) struct Carried {
    pub(crate) record: BoxedRecord,
    /// Its own, then those to shards, in the order of the record.
    pub(crate) sockets: Vec<OwnedFd>,
    pub(crate) database: Arc<Database>,
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(AGE_MAX)
}

fn ago(now: Instant, age: u64) -> Instant {
    let age = Duration::from_micros(age.min(AGE_MAX));
    now.checked_sub(age).unwrap_or(now)
}

fn write_session(session: Session, now: Instant) -> SessionRecord {
    let Session {
        id,
        peer,
        local,
        created,
        active,
        received,
        commands,
        resp,
        authenticated,
        name,
        lib_name,
        lib_ver,
        reply,
        no_evict,
        redirect,
        own,
    } = session;
    SessionRecord {
        id,
        peer,
        local,
        created: micros(now.saturating_duration_since(created)),
        active: micros(now.saturating_duration_since(active)),
        received,
        commands,
        resp,
        authenticated,
        name: Bytes(name),
        lib_name: Bytes(lib_name),
        lib_ver: Bytes(lib_ver),
        reply,
        no_evict,
        redirect,
        own,
    }
}

fn read_session(record: SessionRecord, now: Instant) -> Session {
    let SessionRecord {
        id,
        peer,
        local,
        created,
        active,
        received,
        commands,
        resp,
        authenticated,
        name,
        lib_name,
        lib_ver,
        reply,
        no_evict,
        redirect,
        own,
    } = record;
    Session {
        id,
        peer,
        local,
        created: ago(now, created),
        active: ago(now, active),
        received,
        commands,
        resp,
        authenticated,
        name: name.0,
        lib_name: lib_name.0,
        lib_ver: lib_ver.0,
        reply,
        no_evict,
        redirect,
        own,
    }
}
