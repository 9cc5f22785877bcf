//! `CONFIG SET notify-keyspace-events`: a client may set it, as at an engine, but for the whole database and
//! for good. The wish goes to the cluster; the client hears of it when it is in force on every shard.

use super::Worker;
use super::client::{ClientId, Wait};
use super::filter::Generation;
use crate::texts;
use crate::wishes::Wished;
use model::tuning::keyspace_events;
use resp::request::Args;
use std::time::Instant;

const NAME: &[u8] = b"notify-keyspace-events";

/// The flags that are wished, if a `CONFIG` is such a wish. `args` are those after the name.
pub(super) fn wish<'a>(args: &Args<'a>) -> Option<&'a [u8]> {
    let mut args = args.clone();
    let is = args.left() == 3
        && args.next()?.eq_ignore_ascii_case(b"SET")
        && args.next()?.eq_ignore_ascii_case(NAME);
    if is { args.next() } else { None }
}

impl Worker {
    /// Passes a wish on. All replies of the client are in.
    pub(super) fn config_set(&mut self, index: usize, args: &Args<'_>) {
        let Some(flags) = wish(args) else {
            self.answer(index, texts::SYNTAX);
            return;
        };
        let checked = std::str::from_utf8(flags)
            .map_err(|_| ())
            .and_then(|flags| {
                keyspace_events(flags)
                    .map_err(|_| ())
                    .map(|_| flags.to_owned())
            });
        let Ok(flags) = checked else {
            let text = self.bad_flags(index, flags);
            self.answer(index, &text);
            return;
        };
        let me = self
            .others
            .iter()
            .find(|worker| worker.number() == self.number);
        let Some(me) = me.cloned() else {
            self.answer(index, BUSY);
            return;
        };
        let wished = Wished {
            database: self.served[self.clients[index].served].database.uid,
            flags,
            client: self.clients[index].session.peer,
            worker: me,
            asker: self.client_id(index),
            at: Instant::now(),
        };
        match self.stats.wishes.try_send(wished) {
            Ok(()) => self.wait_for_gather(index),
            Err(_) => self.answer(index, BUSY),
        }
    }

    /// What a client wished is in force, or why not.
    pub(super) fn wished(&mut self, client: ClientId, refusal: Option<&str>) {
        let Some(index) = self.find(client) else {
            return;
        };
        if self.clients[index].wait != Wait::Gather {
            return;
        }
        self.clients[index].wait = Wait::Nothing;
        self.clients[index].owed = Some(match refusal {
            None => texts::OK.to_vec(),
            Some(reason) => line(reason),
        });
        self.queue_client(index);
    }

    /// The engine's words for letters that it does not know.
    fn bad_flags(&self, index: usize, flags: &[u8]) -> Vec<u8> {
        let shown = texts::shown(flags);
        let text = match self.generation_of(index) {
            Generation::Six => {
                format!(
                    "-ERR Invalid argument '{shown}' for CONFIG SET 'notify-keyspace-events'\r\n"
                )
            }
            _ => {
                "-ERR CONFIG SET failed (possibly related to argument 'notify-keyspace-events') - \
                  Invalid event class character. Use 'Ag$lshzxeKEtmdn'.\r\n"
                    .to_owned()
            }
        };
        text.into_bytes()
    }
}

/// Too many wishes at a time.
const BUSY: &[u8] = b"-TRYAGAIN too many CONFIG SET are under way at this proxy; try again\r\n";

/// An error in one line.
fn line(reason: &str) -> Vec<u8> {
    let reason: String = reason
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    format!("-{reason}\r\n").into_bytes()
}
