//! Commands inside a transaction that the proxy answers itself, as `CLIENT`.
//!
//! The engine gets a `PING` for each, so that it queues something. What it says to that at `EXEC` is
//! replaced by the proxy's own answer, which is made then, in the order of the commands. Settings whose
//! reply is looked into, and what changes the session, go to the engine as they are and are noted.

use super::Worker;
use super::backend::{Effect, Rewrite};
use super::client::{Client, Wait};
use super::effects::settings_shown;
use super::fan::Part;
use super::filter::Generation;
use super::lanes::{Flow, Sending};
use super::session::{ReplyMode, Transaction, Watch};
use crate::accepted::{ALL, View};
use crate::cursor::Mark;
use crate::merge::items;
use crate::texts;
use resp::command::{self, Class, classify};
use resp::reply::Head;
use resp::request::Args;
use std::collections::VecDeque;
use std::ops::Range;

/// What the engine queues in place of a command that the proxy answers.
pub(super) const PLACEHOLDER: &[u8] = b"*1\r\n$4\r\npING\r\n";
/// Most bytes of such commands in one transaction.
const HELD_MAX: usize = 1024 * 1024;
/// Longest reply to an `EXEC` that the proxy looks into, bytes.
pub(super) const EXEC_REPLY_MAX: usize = 64 * 1024 * 1024;

/// What is done at `EXEC`.
#[derive(Debug)]
pub(crate) struct Later {
    /// With which element of the reply, the first being 0.
    pub(super) at: usize,
    pub(super) what: What,
}

/// What is done with an element of the reply to `EXEC`.
#[derive(Debug)]
pub(super) enum What {
    /// The proxy answers this command instead.
    Answer(Box<[u8]>),
    /// It changes the session, unless it is an error.
    Effect(Effect),
    /// Secrets are blanked.
    ConfigGet,
    /// What clients cannot use is left out.
    Commands(View),
    /// Its cursor is marked.
    Cursor,
}

impl Later {
    /// Whether its client stays with this process until `EXEC`.
    pub(super) fn stays(&self) -> bool {
        matches!(self.what, What::Commands(_))
    }
}

/// What becomes of a command inside a transaction.
pub(super) enum Inside {
    /// The engine gets it, and its reply at `EXEC` is looked at.
    Pass(Sending, Option<What>),
    /// The engine gets this instead, and its reply at `EXEC` is looked at.
    Instead(&'static [u8], What),
    /// The proxy answers it at `EXEC`.
    Answer,
    /// This error spoils the transaction.
    Refuse(Vec<u8>),
}

/// An `EXEC` whose reply is being made.
#[derive(Debug)]
pub(crate) struct Exec {
    later: VecDeque<Later>,
    /// The engine's reply; empty: it has not come.
    reply: Vec<u8>,
    /// Its elements that are not given yet.
    items: VecDeque<Range<usize>>,
    /// What cursors in it are marked with.
    mark: Option<Mark>,
    done: usize,
    out: Vec<u8>,
    /// What the engine sent behind its reply.
    behind: Vec<u8>,
    /// `None`: it is not known yet whether the client wants it.
    wanted: Option<bool>,
}

impl Client {
    /// See [`Worker::forget_later`].
    pub(super) fn forget_later(&mut self) {
        let later = std::mem::take(&mut self.later);
        let asks = |later: &&Later| matches!(later.what, What::Effect(Effect::Tracking(_)));
        if let Some(keep) = &mut self.keep {
            keep.asks_no_more(later.iter().filter(asks).count());
        }
    }

    /// Keeps what comes behind the engine's reply to an `EXEC` until the client has got that: an invalidation
    /// may be about what is in it. `false`: there is nothing to wait for.
    #[inline]
    pub(super) fn keeps_behind_exec(&mut self, bytes: &[u8]) -> bool {
        match &mut self.exec {
            Some(exec) if !exec.reply.is_empty() => {
                exec.behind.extend_from_slice(bytes);
                true
            }
            _ => false,
        }
    }

    /// Bytes that the client has not taken yet.
    pub(super) fn untaken(&self) -> usize {
        let behind = self.exec.as_ref().map_or(0, |exec| exec.behind.len());
        self.out.len() + behind
    }
}

impl Worker {
    /// What becomes of a command inside a transaction that cannot go to the engine as any other. `args`
    /// are those after the name.
    pub(super) fn inside(
        &self,
        index: usize,
        class: Class,
        name: &[u8],
        args: &Args<'_>,
    ) -> Inside {
        let sub = args.clone().next().unwrap_or_default();
        let is = |word: &[u8]| sub.eq_ignore_ascii_case(word);
        let seven = self.generation_of(index) >= Generation::Seven;
        let guarded = || Inside::Pass(super::route::guarded(name, args), None);
        match class {
            Class::Client => self.client_inside(index, args),
            Class::Command => match View::of(sub, args.left().saturating_sub(1)) {
                Some(View::Count) => Inside::Instead(ALL, What::Commands(View::Count)),
                view => Inside::Pass(Sending::plain(), view.map(What::Commands)),
            },
            Class::Config | Class::Acl if args.left() == 0 => {
                Inside::Refuse(texts::arity(&texts::shown(name).to_ascii_lowercase()))
            }
            Class::Config | Class::Acl if is(b"HELP") => guarded(),
            Class::Config if is(b"GET") && seven && args.left() < 2 => {
                Inside::Refuse(texts::arity("config|get"))
            }
            Class::Config if is(b"GET") => Inside::Pass(Sending::plain(), Some(What::ConfigGet)),
            Class::Cursor => Inside::Pass(Sending::plain(), Some(What::Cursor)),
            Class::Acl if is(b"WHOAMI") => {
                if seven && args.left() > 1 {
                    Inside::Refuse(texts::arity("acl|whoami"))
                } else {
                    Inside::Answer
                }
            }
            Class::Auth if args.left() == 0 => Inside::Refuse(texts::arity("auth")),
            Class::Auth => Inside::Answer,
            Class::Hello => {
                let known = self.clients[index].session.resp;
                // A change of the version in the middle of a reply is not possible.
                match resp::number::strict_i64(sub) {
                    Some(version @ 2..=3) if version != i64::from(known) => {
                        Inside::Refuse(texts::refused_in_transaction("hello"))
                    }
                    _ => Inside::Answer,
                }
            }
            Class::Config | Class::Acl => Inside::Refuse(texts::refused(&format!(
                "{} {}",
                texts::shown(name),
                texts::shown(sub)
            ))),
            Class::Refused => Inside::Refuse(texts::refused(&texts::shown(name))),
            _ => {
                let shown = texts::shown(name).to_ascii_lowercase();
                Inside::Refuse(texts::refused_in_transaction(&shown))
            }
        }
    }

    fn client_inside(&self, index: usize, args: &Args<'_>) -> Inside {
        let mut rest = args.clone();
        let Some(sub) = rest.next() else {
            return Inside::Refuse(texts::arity("client"));
        };
        let generation = self.generation_of(index);
        if let Some(text) = wrong_inside(sub, rest.left(), generation) {
            return Inside::Refuse(text);
        }
        let several = matches!(self.clients[index].part, Part::Front(_));
        let word = rest.clone().next().unwrap_or_default();
        let on = match word {
            word if word.eq_ignore_ascii_case(b"ON") => Some(true),
            word if word.eq_ignore_ascii_case(b"OFF") => Some(false),
            _ => None,
        };
        let redirect = rest.any(|word| word.eq_ignore_ascii_case(b"REDIRECT"));
        match sub.to_ascii_uppercase().as_slice() {
            // They are about all shards, and the transaction is at one.
            sub @ (b"TRACKING" | b"NO-TOUCH") if several => {
                Inside::Refuse(texts::refused_over_shards(&format!(
                    "CLIENT {} inside a transaction",
                    texts::shown(sub)
                )))
            }
            b"TRACKING" if !redirect => {
                let effect = on.map(|on| What::Effect(Effect::Tracking(on)));
                Inside::Pass(Sending::plain(), effect)
            }
            b"NO-TOUCH" if generation >= Generation::Eight => {
                let effect = on.map(|on| What::Effect(Effect::NoTouch(on)));
                Inside::Pass(Sending::plain(), effect)
            }
            b"CACHING" | b"TRACKINGINFO" | b"GETREDIR" => Inside::Pass(Sending::plain(), None),
            b"HELP" => {
                let refusal = texts::refused("CLIENT HELP").into();
                Inside::Pass(Sending::rewritten(Rewrite::Guard(refusal)), None)
            }
            _ => Inside::Answer,
        }
    }

    /// Does with a command of a one-shard database, or of the leg that has the transaction, what was found.
    pub(super) fn queue_inside(&mut self, index: usize, inside: Inside, frame: &[u8]) -> Flow {
        let at = self.clients[index].in_transaction;
        let (flow, what) = match inside {
            Inside::Refuse(text) => return self.refuse(index, &text),
            Inside::Pass(_, Some(What::Effect(Effect::Tracking(_))))
                if self.holds_too_much(index, frame) =>
            {
                return self.refuse(index, texts::TOO_MUCH_INSIDE);
            }
            Inside::Pass(sending, what) => (self.send_own(index, frame, sending), what),
            Inside::Instead(other, what) => {
                (self.send_own(index, other, Sending::plain()), Some(what))
            }
            Inside::Answer if self.holds_too_much(index, frame) => {
                return self.refuse(index, texts::TOO_MUCH_INSIDE);
            }
            Inside::Answer => {
                let flow = self.send_own(index, PLACEHOLDER, Sending::plain());
                (flow, Some(What::Answer(frame.into())))
            }
        };
        if flow == Flow::Next {
            if let Some(What::Effect(Effect::Tracking(_))) = what {
                self.tracking_queued(index, frame);
            }
            self.note_later(self.front_of(index), at, what);
        }
        flow
    }

    /// Whether a transaction would hold more commands than it may.
    pub(super) fn holds_too_much(&self, index: usize, frame: &[u8]) -> bool {
        let client = &self.clients[index];
        let held = client.later.iter().map(|later| match &later.what {
            What::Answer(frame) => frame.len(),
            _ => 0,
        });
        let asked = client.keep.as_ref().map_or(0, |keep| keep.asked());
        held.sum::<usize>() + asked + frame.len() > HELD_MAX
    }

    /// Notes what is to be done with an element of the reply to `EXEC`.
    pub(super) fn note_later(&mut self, index: usize, at: usize, what: Option<What>) {
        if let (Some(what), Some(client)) = (what, self.clients.get_mut(index)) {
            client.later.push_back(Later { at, what });
        }
    }

    /// Whether the reply to an `EXEC` of this client, or by this leg of it, is to be looked into.
    pub(super) fn looks_into_exec(&self, index: usize, carrier: usize) -> bool {
        let own = &self.clients[carrier].session.own;
        !self.clients[index].later.is_empty()
            // The reply to a leg's `MULTI` may be under way.
            && own.transaction != Transaction::Lost
            && own.watch != Watch::Lost
    }

    /// What `CLIENT LIST` says about a client's transaction: how many commands it has; -1: there is none.
    pub(super) fn queued_commands(&self, index: usize) -> i64 {
        let client = &self.clients[index];
        let count = match (&client.part, &client.exec) {
            (_, Some(exec)) => exec.done + exec.items.len(),
            _ if client.session.own.transaction == Transaction::No => return -1,
            (Part::Front(fan), None) => match fan.queued_here() {
                Some(count) => count,
                None => self
                    .legs_of(index)
                    .map(|leg| self.clients[leg].in_transaction)
                    .max()
                    .unwrap_or(0),
            },
            (Part::Whole | Part::Leg(_), None) => client.in_transaction,
        };
        i64::try_from(count).unwrap_or(i64::MAX)
    }

    /// The transaction is over, and nothing of it is to be done.
    pub(super) fn forget_later(&mut self, index: usize) {
        if let Some(client) = self.clients.get_mut(index) {
            client.forget_later();
        }
    }

    /// How such an `EXEC` is sent: nobody hears the engine's reply as it is.
    pub(super) fn exec_sending() -> Sending {
        let mut sending = Sending::effect(Effect::Exec);
        sending.rewrite = Rewrite::Exec;
        sending
    }

    /// It is sent. The client waits for its reply.
    pub(super) fn exec_sent(&mut self, index: usize) {
        let client = &mut self.clients[index];
        client.exec = Some(Box::new(Exec {
            later: std::mem::take(&mut client.later),
            reply: Vec::new(),
            items: VecDeque::new(),
            mark: None,
            done: 0,
            out: Vec::new(),
            behind: Vec::new(),
            wanted: None,
        }));
        self.barrier(index);
    }

    /// The engine's reply to an `EXEC` has come, over a connection of this client or leg.
    pub(super) fn exec_came(&mut self, carrier: usize, reply: Vec<u8>, head: &Head) {
        let index = self.front_of(carrier);
        let mark = self.mark_of(carrier);
        let Some(exec) = &mut self.clients[index].exec else {
            return;
        };
        // An error, or null: nothing ran.
        let found = items(&reply).unwrap_or_default();
        let header = reply.len() - found.iter().map(|item| item.len()).sum::<usize>();
        let mut end = header;
        exec.items = found
            .iter()
            .map(|item| {
                let start = end;
                end += item.len();
                start..end
            })
            .collect();
        let mut effects = Vec::new();
        for later in &exec.later {
            if let What::Effect(effect) = &later.what {
                let item = found.get(later.at);
                effects.push((*effect, item.is_some_and(|item| !item.starts_with(b"-"))));
            }
        }
        exec.out = reply[..header].to_vec();
        exec.mark = Some(mark);
        exec.reply = reply;
        for (effect, good) in effects {
            match effect {
                effect if good => self.take_effect(carrier, effect, head),
                Effect::Tracking(on) => self.keep_tracking(carrier, on, false),
                _ => {}
            }
        }
    }

    /// Goes on with the reply to an `EXEC`; `false`: it waits for something, or the client is gone.
    pub(super) fn go_on_with_exec(&mut self, index: usize) -> bool {
        loop {
            if self.clients[index].exec.is_none() {
                return true;
            }
            if self.clients[index].wait != Wait::Nothing || !self.barrier(index) {
                return false;
            }
            // An answer of all workers may be there at once.
            if let Some(owed) = self.clients[index].owed.take() {
                self.answer(index, &owed);
            }
            let client = &mut self.clients[index];
            let Some(exec) = &mut client.exec else {
                return true;
            };
            if exec.wanted.is_none() {
                exec.wanted = Some(client.session.takes_reply());
            }
            let Some(item) = exec.items.pop_front() else {
                self.give_exec(index);
                return true;
            };
            let at = exec.done;
            exec.done += 1;
            let later = exec.later.pop_front_if(|later| later.at == at);
            let heard = client.session.reply != ReplyMode::Off;
            match later.map(|later| later.what) {
                Some(What::Answer(frame)) => {
                    let there = self.answer_inside(index, &frame);
                    if !there {
                        return false;
                    }
                }
                Some(What::Commands(view)) if heard => {
                    let item = exec.reply[item].to_vec();
                    let shown = self.commands_shown(index, view, &item);
                    self.keep_for_exec(index, &shown);
                }
                Some(What::ConfigGet) if heard => {
                    let (item, resp) = (exec.reply[item].to_vec(), client.session.resp);
                    let shown = settings_shown(&item, resp, self.has_several_shards(index));
                    self.keep_for_exec(index, &shown);
                }
                Some(What::Cursor) if heard => {
                    let reply = &exec.reply[item];
                    let marked = exec.mark.map(|mark| Self::marked(reply, mark));
                    let marked = marked.unwrap_or_else(|| reply.to_vec());
                    exec.out.extend_from_slice(&marked);
                }
                _ if heard => exec.out.extend_from_slice(&exec.reply[item]),
                _ => {}
            }
        }
    }

    /// Runs a command of a transaction that the proxy answers; `false`: the client is gone.
    fn answer_inside(&mut self, index: usize, frame: &[u8]) -> bool {
        let id = self.client_id(index);
        let mut args = Args::of(frame);
        let class = args.next().map_or(Class::Plain, classify);
        self.local(index, class, frame, args);
        self.find(id).is_some()
    }

    /// Keeps an answer for the reply to an `EXEC` that is being made; `false`: none is.
    pub(super) fn keep_for_exec(&mut self, index: usize, bytes: &[u8]) -> bool {
        let client = &mut self.clients[index];
        let Some(exec) = &mut client.exec else {
            return false;
        };
        if client.session.reply != ReplyMode::Off {
            exec.out.extend_from_slice(bytes);
        }
        true
    }

    /// Gives the client the reply to an `EXEC`, as far as it is made.
    pub(super) fn give_exec(&mut self, index: usize) {
        let Some(exec) = self.clients[index].exec.take() else {
            return;
        };
        if exec.wanted == Some(true) {
            self.give(index, &exec.out, &[]);
        }
        if !exec.behind.is_empty() {
            self.give(index, &exec.behind, &[]);
        }
    }
}

/// What the engine says to a `CLIENT` subcommand when it is to be queued, if it is wrong: older engines
/// look at it only at `EXEC`.
fn wrong_inside(sub: &[u8], arguments: u64, generation: Generation) -> Option<Vec<u8>> {
    if generation == Generation::Six {
        return None;
    }
    let typed = texts::shown(sub);
    let lower = typed.to_ascii_lowercase();
    let known = command::find(b"CLIENT")
        .and_then(|client| client.subcommand(sub))
        .filter(|_| super::client_command::since(&lower) <= generation);
    match known {
        None => {
            Some(format!("-ERR unknown subcommand '{typed}'. Try CLIENT HELP.\r\n").into_bytes())
        }
        Some(known) if !known.takes(arguments + 2) => {
            Some(texts::arity(&format!("client|{lower}")))
        }
        Some(_) if lower == "import-source" => Some(texts::refused("CLIENT IMPORT-SOURCE")),
        Some(_) if lower == "reply" && generation >= Generation::Nine => {
            Some(texts::refused_in_transaction("client|reply"))
        }
        Some(_) => None,
    }
}
