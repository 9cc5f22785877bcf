//! Errors that name the user that the proxy signs in to the engine with: for a client, that is the user
//! that it signed in as itself.
//!
//! An error is given to a client as a whole, also one inside an array (of `EXEC`, of a script): the name
//! could be cut in two otherwise.

use super::Worker;
use super::backend::Backend;
use super::local::USER;
use crate::bounds;
use memchr::{memchr, memmem};
use resp::reply::ReplyFramer;
use std::borrow::Cow;
use std::ops::Range;

/// The error is longer than what the proxy looks into.
const TOO_LONG: &str = "the shard sent too long an error";

impl Worker {
    /// Gives a part of a reply to a client; of an error only when it is whole, and without the user.
    ///
    /// # Errors
    /// The error is too long.
    #[inline]
    pub(super) fn deliver_part(
        &mut self,
        index: usize,
        client: usize,
        bytes: &[u8],
        range: Range<usize>,
        complete: bool,
    ) -> Result<(), &'static str> {
        let backend = &mut self.backends[index];
        if let Some(whole) = backend.framer.in_error() {
            let kept = !backend.error_line.is_empty();
            if kept || !whole || memchr(b'@', &bytes[range.clone()]).is_some() {
                return self.deliver_error(index, client, bytes, range, whole);
            }
        }
        backend.passed_on = !complete;
        self.deliver(client, bytes, range);
        Ok(())
    }

    fn deliver_error(
        &mut self,
        index: usize,
        client: usize,
        bytes: &[u8],
        range: Range<usize>,
        whole: bool,
    ) -> Result<(), &'static str> {
        let backend = &mut self.backends[index];
        if backend.error_line.len() + range.len() > bounds::REWRITTEN_REPLY_MAX {
            return Err(TOO_LONG);
        }
        backend.error_line.extend_from_slice(&bytes[range]);
        if !whole {
            return Ok(());
        }
        let error = std::mem::take(&mut backend.error_line);
        backend.passed_on = !backend.framer.at_start();
        let error = without(&error, backend.user.as_bytes()).into_owned();
        self.give(client, &error, bytes);
        Ok(())
    }
}

impl Backend {
    /// A whole reply of this connection, or several, without the user in their errors.
    pub(super) fn conceal<'a>(&self, replies: &'a [u8]) -> Cow<'a, [u8]> {
        let user = self.user.as_bytes();
        if user.is_empty() || memmem::find(replies, user).is_none() {
            return Cow::Borrowed(replies);
        }
        let mut framer = ReplyFramer::default();
        let (mut out, mut rest) = (Vec::with_capacity(replies.len()), replies);
        while !rest.is_empty() {
            let Ok(got) = framer.advance_to_error(rest) else {
                break;
            };
            let (now, later) = rest.split_at(got.consumed);
            match framer.in_error() {
                Some(_) => out.extend_from_slice(&without(now, user)),
                None => out.extend_from_slice(now),
            }
            rest = later;
        }
        out.extend_from_slice(rest);
        Cow::Owned(out)
    }
}

/// An error without the user.
fn without<'a>(error: &'a [u8], user: &[u8]) -> Cow<'a, [u8]> {
    if user.is_empty() || memmem::find(error, user).is_none() {
        return Cow::Borrowed(error);
    }
    let mut out = Vec::with_capacity(error.len());
    let mut start = 0;
    for at in memmem::find_iter(error, user) {
        out.extend_from_slice(&error[start..at]);
        out.extend_from_slice(USER);
        start = at + user.len();
    }
    out.extend_from_slice(&error[start..]);
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mention_goes() {
        let error = b"-NOPERM User proxy@e1 has no proxy@e1\r\n";
        assert_eq!(
            &*without(error, b"proxy@e1"),
            b"-NOPERM User default has no default\r\n"
        );
        assert!(matches!(
            without(b"-ERR x\r\n", b"proxy@e1"),
            Cow::Borrowed(_)
        ));
        assert!(matches!(without(b"-ERR x\r\n", b""), Cow::Borrowed(_)));
    }
}
