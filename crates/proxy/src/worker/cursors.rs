//! Commands and replies with a cursor: it is marked for the client and unmarked for the engine ([`crate::cursor`]).

use super::Worker;
use super::backend::Rewrite;
use super::lanes::Sending;
use crate::cursor::{self, Beginning, Mark};
use std::ops::Range;

impl Worker {
    /// The mark of the cursors that the shard of a client or leg gives now.
    pub(super) fn mark_of(&self, index: usize) -> Mark {
        let id = self.link_of(index);
        Mark::of(self.epoch_of(id.served, id.shard).unwrap_or_default())
    }

    /// How a command with a cursor is sent outside of a transaction.
    pub(super) fn cursor_sending(&self, index: usize) -> Sending {
        Sending::rewritten(Rewrite::Cursor(self.mark_of(index)))
    }

    /// Gives a client a reply that begins with a cursor, or the part of one that has come. Only the cursor is waited
    /// for: a reply may be as long as it likes.
    pub(super) fn deliver_cursor(
        &mut self,
        index: usize,
        client: usize,
        mark: Mark,
        bytes: &[u8],
        range: Range<usize>,
        complete: bool,
    ) -> Result<(), &'static str> {
        let backend = &mut self.backends[index];
        if backend.passed_on || backend.framer.head().kind != b'*' {
            return self.deliver_part(index, client, bytes, range, complete);
        }
        backend.captured.extend_from_slice(&bytes[range]);
        let beginning = Beginning::of(&backend.captured, mark);
        if beginning == Beginning::Short && !complete {
            return Ok(());
        }
        let mut reply = std::mem::take(&mut backend.captured);
        backend.passed_on = !complete;
        if let Beginning::Marked(length, head) = beginning {
            reply.splice(..length, head);
        }
        self.give(client, &reply, bytes);
        Ok(())
    }

    /// The reply to a command with a cursor that ran inside a transaction.
    pub(super) fn marked(reply: &[u8], mark: Mark) -> Vec<u8> {
        let mut reply = reply.to_vec();
        if let Beginning::Marked(length, head) = Beginning::of(&reply, mark) {
            reply.splice(..length, head);
        }
        reply
    }
}

/// A command as it is said again to another process, inside a transaction.
pub(super) fn said_again(frame: &[u8]) -> Option<Vec<u8>> {
    let name = resp::request::Args::of(frame).next()?;
    let scans = resp::command::classify(name) == resp::command::Class::Cursor;
    scans.then(|| cursor::begun_anew(frame)).flatten()
}
