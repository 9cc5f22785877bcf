//! The messages between nodes. Each names sender and receiver, so that one that reaches the wrong
//! node (an address that was used before) is refused.

use crate::error::StoreError;
use crate::raft::{LogEntry, LogId, Vote};
use crate::record::{Reader, RecordError, SnapshotHeader, Writer};
use bytes::Bytes;
use model::NodeUid;

#[cfg(test)]
mod golden;

const PRE_VOTE: u8 = b'p';
const PRE_VOTE_ANSWER: u8 = b'q';
const VOTE: u8 = b'v';
const VOTE_ANSWER: u8 = b'w';
const APPEND: u8 = b'a';
const APPEND_ANSWER: u8 = b'b';
const SNAPSHOT: u8 = b's';
const SNAPSHOT_ANSWER: u8 = b't';
const TAKE_OVER: u8 = b'x';
const TAKE_OVER_ANSWER: u8 = b'y';

/// A message that can be written and read.
pub(crate) trait Message: Sized {
    const KIND: u8;
    fn write(&self, to: &mut Writer);
    fn read(from: &mut Reader<'_>) -> Result<Self, RecordError>;
}

/// A request with its sender and receiver.
pub(crate) fn request(from: NodeUid, to: NodeUid, message: &impl Message) -> Bytes {
    encode(message, Some((from, to)))
}

pub(crate) fn answer(message: &impl Message) -> Bytes {
    encode(message, None)
}

fn encode<M: Message>(message: &M, ends: Option<(NodeUid, NodeUid)>) -> Bytes {
    let mut writer = Writer::new(M::KIND);
    if let Some((from, to)) = ends {
        writer.u64(from.0);
        writer.u64(to.0);
    }
    message.write(&mut writer);
    writer.finish().into()
}

/// Reads a request that must be for `me`.
pub(crate) fn read_request<M: Message>(me: NodeUid, body: &[u8]) -> Result<M, StoreError> {
    let unreadable = |error: RecordError| StoreError::Invalid(format!("request: {error}"));
    let mut reader = Reader::new(M::KIND, body).map_err(unreadable)?;
    let from = NodeUid(reader.u64().map_err(unreadable)?);
    let to = NodeUid(reader.u64().map_err(unreadable)?);
    if to != me {
        return Err(StoreError::Invalid(format!(
            "node {from} sent this to node {to}, but here is node {me}: wrong address"
        )));
    }
    let message = M::read(&mut reader).map_err(unreadable)?;
    reader.end().map_err(unreadable)?;
    Ok(message)
}

pub(crate) fn read_answer<M: Message>(body: &[u8]) -> Result<M, RecordError> {
    Reader::whole(M::KIND, body, M::read)
}

/// Would you vote for me?
#[derive(Debug, Clone, Eq, PartialEq)]
pub(crate) struct PreVote {
    pub(crate) last_log: Option<LogId>,
}

#[derive(Debug, Clone, Eq, PartialEq)]
pub(crate) struct PreVoteAnswer {
    pub(crate) granted: bool,
}

#[derive(Debug, Clone, Eq, PartialEq)]
pub(crate) struct VoteRequest {
    pub(crate) vote: Vote,
    pub(crate) last_log: Option<LogId>,
}

#[derive(Debug, Clone, Eq, PartialEq)]
pub(crate) struct VoteAnswer {
    pub(crate) vote: Vote,
    pub(crate) granted: bool,
    pub(crate) last_log: Option<LogId>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Append {
    pub(crate) vote: Vote,
    pub(crate) previous: Option<LogId>,
    pub(crate) committed: Option<LogId>,
    pub(crate) entries: Vec<LogEntry>,
}

#[derive(Debug, Clone, Eq, PartialEq)]
pub(crate) enum AppendAnswer {
    Success,
    Partial(Option<LogId>),
    Conflict,
    HigherVote(Vote),
}

#[derive(Debug, Clone, Eq, PartialEq)]
pub(crate) struct InstallSnapshot {
    pub(crate) vote: Vote,
    pub(crate) header: SnapshotHeader,
    pub(crate) body: Vec<u8>,
}

#[derive(Debug, Clone, Eq, PartialEq)]
pub(crate) struct SnapshotAnswer {
    pub(crate) vote: Vote,
}

/// Take over: your log reaches at least as far as mine.
#[derive(Debug, Clone, Eq, PartialEq)]
pub(crate) struct TakeOver {
    pub(crate) last_log: Option<LogId>,
}

#[derive(Debug, Clone, Eq, PartialEq)]
pub(crate) struct TakeOverAnswer {
    pub(crate) accepted: bool,
}

impl Message for PreVote {
    const KIND: u8 = PRE_VOTE;
    fn write(&self, to: &mut Writer) {
        to.option(self.last_log.as_ref(), Writer::log_id);
    }
    fn read(from: &mut Reader<'_>) -> Result<Self, RecordError> {
        Ok(Self {
            last_log: from.option(Reader::log_id)?,
        })
    }
}

impl Message for PreVoteAnswer {
    const KIND: u8 = PRE_VOTE_ANSWER;
    fn write(&self, to: &mut Writer) {
        to.u8(u8::from(self.granted));
    }
    fn read(from: &mut Reader<'_>) -> Result<Self, RecordError> {
        Ok(Self {
            granted: from.flag()?,
        })
    }
}

impl Message for VoteRequest {
    const KIND: u8 = VOTE;
    fn write(&self, to: &mut Writer) {
        to.vote(&self.vote);
        to.option(self.last_log.as_ref(), Writer::log_id);
    }
    fn read(from: &mut Reader<'_>) -> Result<Self, RecordError> {
        Ok(Self {
            vote: from.vote()?,
            last_log: from.option(Reader::log_id)?,
        })
    }
}

impl Message for VoteAnswer {
    const KIND: u8 = VOTE_ANSWER;
    fn write(&self, to: &mut Writer) {
        to.vote(&self.vote);
        to.u8(u8::from(self.granted));
        to.option(self.last_log.as_ref(), Writer::log_id);
    }
    fn read(from: &mut Reader<'_>) -> Result<Self, RecordError> {
        let (vote, granted) = (from.vote()?, from.flag()?);
        Ok(Self {
            vote,
            granted,
            last_log: from.option(Reader::log_id)?,
        })
    }
}

impl Message for Append {
    const KIND: u8 = APPEND;
    fn write(&self, to: &mut Writer) {
        to.vote(&self.vote);
        to.option(self.previous.as_ref(), Writer::log_id);
        to.option(self.committed.as_ref(), Writer::log_id);
        to.count(self.entries.len());
        self.entries.iter().for_each(|entry| to.entry(entry));
    }
    fn read(from: &mut Reader<'_>) -> Result<Self, RecordError> {
        Ok(Self {
            vote: from.vote()?,
            previous: from.option(Reader::log_id)?,
            committed: from.option(Reader::log_id)?,
            entries: from.list(25, Reader::entry)?,
        })
    }
}

impl Message for AppendAnswer {
    const KIND: u8 = APPEND_ANSWER;
    fn write(&self, to: &mut Writer) {
        match self {
            Self::Success => to.u8(0),
            Self::Partial(matched) => {
                to.u8(1);
                to.option(matched.as_ref(), Writer::log_id);
            }
            Self::Conflict => to.u8(2),
            Self::HigherVote(vote) => {
                to.u8(3);
                to.vote(vote);
            }
        }
    }
    fn read(from: &mut Reader<'_>) -> Result<Self, RecordError> {
        match from.u8()? {
            0 => Ok(Self::Success),
            1 => Ok(Self::Partial(from.option(Reader::log_id)?)),
            2 => Ok(Self::Conflict),
            3 => Ok(Self::HigherVote(from.vote()?)),
            _ => Err(RecordError::Damaged("an answer of an unknown sort")),
        }
    }
}

impl Message for InstallSnapshot {
    const KIND: u8 = SNAPSHOT;
    fn write(&self, to: &mut Writer) {
        to.vote(&self.vote);
        to.snapshot_header(&self.header);
        to.rest(&self.body);
    }
    fn read(from: &mut Reader<'_>) -> Result<Self, RecordError> {
        let (vote, header) = (from.vote()?, from.snapshot_header()?);
        Ok(Self {
            vote,
            header,
            body: from.rest().to_vec(),
        })
    }
}

impl Message for SnapshotAnswer {
    const KIND: u8 = SNAPSHOT_ANSWER;
    fn write(&self, to: &mut Writer) {
        to.vote(&self.vote);
    }
    fn read(from: &mut Reader<'_>) -> Result<Self, RecordError> {
        Ok(Self { vote: from.vote()? })
    }
}

impl Message for TakeOver {
    const KIND: u8 = TAKE_OVER;
    fn write(&self, to: &mut Writer) {
        to.option(self.last_log.as_ref(), Writer::log_id);
    }
    fn read(from: &mut Reader<'_>) -> Result<Self, RecordError> {
        Ok(Self {
            last_log: from.option(Reader::log_id)?,
        })
    }
}

impl Message for TakeOverAnswer {
    const KIND: u8 = TAKE_OVER_ANSWER;
    fn write(&self, to: &mut Writer) {
        to.u8(u8::from(self.accepted));
    }
    fn read(from: &mut Reader<'_>) -> Result<Self, RecordError> {
        Ok(Self {
            accepted: from.flag()?,
        })
    }
}
