//! A batch as bytes.

use super::{BoxedRecord, CLIENTS_MAX, ClientRecord, ScriptsRecord};
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::cell::RefCell;

/// Longest batch, bytes; a client of which there is more is not handed over.
pub(crate) const BATCH_MAX: usize = 256 * 1024 * 1024;

/// Bytes that are written behind the records.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Bytes(pub(crate) Vec<u8>);

impl Bytes {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl std::fmt::Debug for Bytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // They may be secrets.
        write!(f, "{} bytes", self.0.len())
    }
}

impl From<Vec<u8>> for Bytes {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

/// What is behind the records that this thread writes or reads, and how much of it may still be taken.
#[derive(Default)]
struct Behind {
    bytes: Vec<u8>,
    left: usize,
}

thread_local! {
    static BEHIND: RefCell<Behind> = RefCell::default();
}

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let at = BEHIND.with_borrow_mut(|behind| {
            let at = behind.bytes.len();
            behind.bytes.extend_from_slice(&self.0);
            at
        });
        (at, self.0.len()).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (at, length) = <(usize, usize)>::deserialize(deserializer)?;
        BEHIND
            .with_borrow_mut(|behind| {
                let found = behind.bytes.get(at..at.checked_add(length)?)?.to_vec();
                // None is there twice: what is kept is never more than what came.
                behind.left = behind.left.checked_sub(length)?;
                Some(Self(found))
            })
            .ok_or_else(|| D::Error::custom("bytes that are not there"))
    }
}

/// Writes a batch.
///
/// # Errors
/// It is too long.
pub(crate) fn encode(records: &[&ClientRecord]) -> Result<Vec<u8>, String> {
    write(records)
}

/// Reads a batch.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn decode(batch: &[u8]) -> Result<Vec<BoxedRecord>, String> {
    let records: Vec<BoxedRecord> = read(batch)?;
    if records.len() > CLIENTS_MAX {
        return Err("too many records".to_owned());
    }
    for record in &records {
        record.check()?;
    }
    Ok(records)
}

/// Writes bodies of scripts.
///
/// # Errors
/// They are too long.
pub(crate) fn encode_scripts(scripts: &[ScriptsRecord]) -> Result<Vec<u8>, String> {
    write(scripts)
}

/// Reads bodies of scripts.
///
/// # Errors
/// What is wrong with them.
pub(crate) fn decode_scripts(bytes: &[u8]) -> Result<Vec<ScriptsRecord>, String> {
    read(bytes)
}

fn write<T: Serialize + ?Sized>(records: &T) -> Result<Vec<u8>, String> {
    BEHIND.set(Behind::default());
    let text = serde_json::to_vec(records).map_err(|error| error.to_string());
    let behind = BEHIND.take().bytes;
    let text = text?;
    let length = u32::try_from(text.len()).map_err(|_| "the records are too long")?;
    let whole = 4 + text.len() + behind.len();
    if whole > BATCH_MAX {
        return Err(format!("{whole} bytes are too many to be handed over"));
    }
    let mut out = Vec::with_capacity(whole);
    out.extend(length.to_le_bytes());
    out.extend(text);
    out.extend(behind);
    Ok(out)
}

fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    let (length, rest) = bytes.split_first_chunk().ok_or("the batch is cut")?;
    let length = u32::from_le_bytes(*length) as usize;
    let (text, behind) = rest.split_at_checked(length).ok_or("the batch is cut")?;
    BEHIND.set(Behind {
        bytes: behind.to_vec(),
        left: behind.len(),
    });
    let records = serde_json::from_slice(text);
    BEHIND.set(Behind::default());
    // Its text could quote what a client has sent.
    records.map_err(|error| format!("a record cannot be read, column {}", error.column()))
}
