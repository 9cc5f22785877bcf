//! Where a command goes.

use super::Worker;
use super::backend::{Confirm, Effect, Rewrite};
use super::client::{Lane, Streaming};
use super::config_set::wish;
use super::fan::Part;
use super::filter::Generation;
use super::lanes::{Flow, Sending};
use super::queued::Inside;
use super::session::{Transaction, Watch};
use crate::accepted::{ALL, View};
use crate::bounds;
use crate::cursor;
use crate::stats::ErrorKind;
use crate::texts;
use resp::command::{Class, Subscription, classify};
use resp::inline;
use resp::request::{Args, Shape, encode};

/// A command that the engine does not know: inside a transaction it makes `EXEC` refuse, and its
/// error is replaced by ours.
pub(super) const UNKNOWN_COMMAND: &[u8] = b"*1\r\n$16\r\nMAINSTAY.REFUSED\r\n";

const TOO_LONG: &[u8] = b"-ERR the command is too long\r\n";
/// See [`bounds::OWN_COMMAND_MAX`].
const CURSOR_TOO_LONG: &[u8] = b"-ERR a command with a cursor is at most 64 KiB long\r\n";

/// What is to be done with a command.
enum Route {
    /// Any connection.
    Any(Sending),
    /// A connection of the client's own.
    Own(Sending),
    /// This instead, over any connection.
    Other(&'static [u8], Sending),
    /// This instead, over the client's own connection.
    Instead(&'static [u8], Sending),
    /// Nothing; this is the answer.
    Refuse(Vec<u8>),
    /// The proxy answers.
    Local(Class),
    /// It is queued in the transaction that is open.
    Inside(Inside),
    /// Later: the client waits for something.
    Hold,
}

impl Worker {
    /// Does what a whole command asks for.
    #[inline]
    pub(super) fn dispatch(&mut self, index: usize, frame: &[u8], shape: Shape) -> Flow {
        match shape {
            Shape::Array => self.command(index, frame),
            Shape::Empty => Flow::Next,
            Shape::Inline => match inline::split(frame.trim_ascii_end()) {
                Ok(words) if words.is_empty() => Flow::Next,
                Ok(words) => {
                    let mut whole = Vec::new();
                    encode(words.iter().map(Vec::as_slice), &mut whole);
                    self.command(index, &whole)
                }
                Err(error) => {
                    if self.barrier(index) {
                        self.protocol_error(index, error);
                    }
                    Flow::Hold
                }
            },
        }
    }

    #[inline]
    pub(super) fn command(&mut self, index: usize, frame: &[u8]) -> Flow {
        let mut args = Args::of(frame);
        let Some(name) = args.next() else {
            return Flow::Next;
        };
        let class = classify(name);
        let class = self.as_known(index, class);
        if self.waits_for_pause(index, class, frame) {
            return Flow::Hold;
        }
        let client = &self.clients[index];
        if matches!(client.part, Part::Front(_)) {
            return self.fan_command(index, class, name, frame, &args);
        }
        if class == Class::Script && client.session.authenticated {
            self.learn_script(index, name, &args);
        }
        let held = class == Class::Cursor && self.clients[index].session.authenticated;
        if held && frame.len() > bounds::OWN_COMMAND_MAX {
            // However its bytes came.
            return self.refuse(index, CURSOR_TOO_LONG);
        }
        if class == Class::Cursor
            && let Some(frame) = cursor::to_engine(frame, self.mark_of(index))
        {
            return self.at_lane(index, class, (name, args), &frame);
        }
        self.at_lane(index, class, (name, args), frame)
    }

    /// Sends a command of a client of one shard, or of a leg, or answers it.
    #[inline]
    fn at_lane(
        &mut self,
        index: usize,
        class: Class,
        (name, args): (&[u8], Args<'_>),
        frame: &[u8],
    ) -> Flow {
        let client = &self.clients[index];
        if class == Class::Plain
            && client.session.authenticated
            && client.lane == Lane::Shared
            && !client.heavy
        {
            return self.send(index, frame, Sending::plain());
        }
        if class == Class::Foreign {
            return self.foreign(index);
        }
        if client.lane != Lane::Shared || class == Class::Multi {
            self.note_write(index, class, frame);
        }
        match self.route(index, class, name, &args, true) {
            Route::Any(sending) => self.send(index, frame, sending),
            Route::Other(other, sending) => self.send(index, other, sending),
            Route::Own(_) if class == Class::Exec && self.looks_into_exec(index, index) => {
                self.send_exec(index, frame)
            }
            Route::Own(sending) => {
                if class == Class::Wait
                    && let Err(flow) = self.write_before_wait(index)
                {
                    return flow;
                }
                let before = self.clients[index].in_flight;
                let flow = self.send_own(index, frame, sending);
                if class == Class::Multi && flow == Flow::Next {
                    self.multi_was_sent(index, before);
                }
                if self.blocks_now(index, class, flow) {
                    // The engine looks at nothing more of a client that is blocked.
                    self.barrier(index);
                }
                if class == Class::Monitor && flow == Flow::Next {
                    // Afterwards replies cannot be told from what is streamed.
                    self.barrier(index);
                }
                if class == Class::Discard && flow == Flow::Next {
                    self.forget_later(index);
                }
                flow
            }
            Route::Instead(other, sending) => {
                let flow = self.send_own(index, other, sending);
                if flow == Flow::Next {
                    self.forget_later(index);
                }
                flow
            }
            Route::Refuse(text) => self.refuse(index, &text),
            Route::Inside(inside) => self.queue_inside(index, inside, frame),
            Route::Local(class) => self.local(index, class, frame, args),
            Route::Hold => Flow::Hold,
        }
    }

    fn send_exec(&mut self, index: usize, frame: &[u8]) -> Flow {
        let before = self.clients[index].in_flight;
        let flow = self.send_own(index, frame, Self::exec_sending());
        if flow == Flow::Next && self.was_sent(index, before) {
            self.exec_sent(index);
        }
        flow
    }

    /// Whether a command is on its way to the shard, and was not answered with an error instead.
    pub(super) fn was_sent(&self, index: usize, before: u32) -> bool {
        let client = self.clients.get(index);
        client.is_some_and(|client| client.in_flight > before)
    }

    /// A command that the engine does not know is nothing special.
    #[inline]
    fn as_known(&self, index: usize, class: Class) -> Class {
        match class {
            Class::Subscribe(Subscription::Shard) | Class::Unsubscribe(Subscription::Shard)
                if self.generation_of(index) == Generation::Six =>
            {
                Class::Plain
            }
            known => known,
        }
    }

    /// Whether a command of a client with one shard may block now. What comes behind it waits here, so that
    /// the command can be taken back when the primary moves.
    fn blocks_now(&self, index: usize, class: Class, flow: Flow) -> bool {
        matches!(class, Class::Blocking | Class::BlockingOption | Class::Wait)
            && flow == Flow::Next
            && self.clients.get(index).is_some_and(|client| {
                client.blocking > 0
                    && client.session.own.transaction == Transaction::No
                    && matches!(client.part, Part::Whole)
            })
    }

    /// Ends a connection that speaks HTTP, without a word, as the engine does: passed on, it would
    /// end the connection that all clients share.
    pub(super) fn foreign(&mut self, index: usize) -> Flow {
        if !self.barrier(index) {
            return Flow::Hold;
        }
        let peer = self.clients[index].session.peer;
        self.count_error(index, ErrorKind::Protocol);
        tracing::warn!(%peer, "a client speaks HTTP: it is closed");
        self.farewell(index);
        Flow::Next
    }

    /// A `MULTI` that got an error instead of being sent: what the client sent behind it, before it knew,
    /// is not to run alone.
    fn multi_was_sent(&mut self, index: usize, before: u32) {
        if self.behind
            && let Some(client) = self.clients.get_mut(index)
            && client.in_flight == before
        {
            client.session.own.transaction = Transaction::Lost;
            client.lane = Lane::Gone;
        }
    }

    /// Begins to pass on a command that is too long to be held. `part` is what is known of it.
    pub(super) fn begin_stream(&mut self, index: usize, part: &[u8]) -> Flow {
        let mut args = Args::of(part);
        let name = args.next().unwrap_or_default();
        let class = classify(name);
        if class == Class::Foreign {
            return self.foreign(index);
        }
        if self.waits_for_pause(index, class, part) {
            return Flow::Hold;
        }
        self.note_stream(index, part);
        if matches!(self.clients[index].part, Part::Front(_)) {
            return self.begin_fan_stream(index, class, part);
        }
        self.note_write(index, class, part);
        let subscribing = matches!(class, Class::Subscribe(_) | Class::Unsubscribe(_));
        if subscribing && part.len() <= bounds::HELD_COMMAND_MAX {
            // All its names must be known: they are subscribed to again at another primary.
            return Flow::More;
        }
        // Its cursor may be still to come.
        let held = class == Class::Cursor;
        if held && part.len() <= bounds::OWN_COMMAND_MAX {
            return Flow::More;
        }
        let flow = match self.route(index, class, name, &args, false) {
            Route::Any(_) | Route::Inside(_) if held => self.refuse(index, CURSOR_TOO_LONG),
            Route::Own(_) if subscribing => self.refuse(index, TOO_LONG),
            Route::Any(sending)
            | Route::Own(sending)
            | Route::Inside(Inside::Pass(sending, None)) => {
                let flow = self.send_own(index, part, sending);
                if flow == Flow::Next
                    && let Lane::Own(place) = self.clients[index].lane
                {
                    self.backends[place].half_sent = true;
                    self.keep_part(index);
                    self.clients[index].streaming = Some(Streaming::ToShard);
                    return Flow::Next;
                }
                flow
            }
            Route::Other(other, sending) | Route::Instead(other, sending) => {
                self.send_own(index, other, sending)
            }
            Route::Refuse(text) => self.refuse(index, &text),
            Route::Inside(Inside::Refuse(text)) => self.refuse(index, &text),
            Route::Local(_) | Route::Inside(_) if part.len() <= bounds::OWN_COMMAND_MAX => {
                return Flow::More;
            }
            Route::Local(_) | Route::Inside(_) => self.refuse(index, TOO_LONG),
            Route::Hold => Flow::Hold,
        };
        if flow == Flow::Next {
            self.clients[index].streaming = Some(Streaming::Skip);
        }
        flow
    }

    /// `args` are those after the name; not all of them if the command is not `whole`.
    fn route(
        &mut self,
        index: usize,
        class: Class,
        name: &[u8],
        args: &Args<'_>,
        whole: bool,
    ) -> Route {
        let session = &self.clients[index].session;
        let greeting = matches!(
            class,
            Class::Auth | Class::Hello | Class::Quit | Class::Reset
        );
        if !session.authenticated && !greeting {
            return Route::Refuse(texts::NOAUTH.to_vec());
        }
        let leaving = matches!(class, Class::Quit | Class::Reset);
        if session.own.monitor && !leaving {
            return Route::Refuse(texts::MONITORING.to_vec());
        }
        let ending = matches!(class, Class::Exec | Class::Discard) && whole;
        if session.own.transaction == Transaction::Lost && !leaving && !ending {
            return Route::Refuse(texts::TRANSACTION_LOST.to_vec());
        }
        match class {
            Class::Plain => Route::Any(Sending::plain()),
            Class::Blocking | Class::Wait => Route::Own(Sending::effect(Effect::Blocking)),
            Class::BlockingOption if has_block(args.clone()) => {
                Route::Own(Sending::effect(Effect::Blocking))
            }
            Class::BlockingOption => Route::Any(Sending::plain()),
            Class::Multi if args.left() == 0 => Route::Own(Sending::effect(Effect::Multi)),
            Class::Multi => Route::Any(Sending::plain()),
            Class::Exec | Class::Discard => self.end_transaction(index, class, args),
            Class::Watch if args.left() > 0 => Route::Own(Sending::effect(Effect::Watch)),
            Class::Watch => Route::Any(Sending::plain()),
            Class::Unwatch => Route::Any(Sending::effect(Effect::Unwatch)),
            Class::Script => script(name, args.clone()),
            Class::Cursor if self.clients[index].lane == Lane::Shared => {
                Route::Any(self.cursor_sending(index))
            }
            Class::Guarded => Route::Any(guarded(name, args)),
            // The engine says that the arguments are too many.
            Class::Reset if args.left() > 0 && self.clients[index].session.authenticated => {
                Route::Any(Sending::plain())
            }
            Class::Quit | Class::Reset if whole => Route::Local(class),
            Class::Subscribe(kind) | Class::Unsubscribe(kind) if self.is_subscribing(index) => {
                Route::Own(confirmed(kind, args))
            }
            _ => self.route_settled(index, class, name, args),
        }
    }

    /// Whether the last thing that the client is due is a confirmation. It was settled before the first one,
    /// and confirmations change the way of no subscription: the next one need not wait for them.
    fn is_subscribing(&self, index: usize) -> bool {
        let Lane::Own(place) = self.clients[index].lane else {
            return false;
        };
        let last = self.backends[place].book.back();
        last.is_some_and(|run| matches!(run.effect, Effect::Confirm(..)))
    }

    /// Commands whose way depends on whether a transaction or subscriptions are open: that must
    /// be known first.
    fn route_settled(&mut self, index: usize, class: Class, name: &[u8], args: &Args<'_>) -> Route {
        if !self.barrier(index) {
            return Route::Hold;
        }
        let session = &self.clients[index].session;
        let subscribing = matches!(class, Class::Subscribe(_) | Class::Unsubscribe(_));
        if session.subscribed_in_resp2() && !subscribing {
            // The engine has the right words for what is not allowed now, unless it looks at the rights of
            // the proxy's user first.
            let text = not_while_subscribed(name, args, self.generation_of(index));
            return Route::Own(Sending::rewritten(Rewrite::Guard(text.into())));
        }
        let open = session.own.transaction == Transaction::Open;
        if open && class != Class::Select {
            return Route::Inside(self.inside(index, class, name, args));
        }
        let sub = args.clone().next().unwrap_or_default();
        match class {
            Class::Subscribe(kind) | Class::Unsubscribe(kind) => Route::Own(confirmed(kind, args)),
            Class::Monitor => Route::Own(Sending::effect(Effect::Monitor)),
            Class::Cursor => Route::Any(self.cursor_sending(index)),
            Class::Command => match View::of(sub, args.left().saturating_sub(1)) {
                Some(View::Count) => {
                    Route::Other(ALL, Sending::rewritten(Rewrite::Commands(View::Count)))
                }
                Some(view) => Route::Any(Sending::rewritten(Rewrite::Commands(view))),
                None => Route::Any(Sending::plain()),
            },
            Class::Config if wish(args).is_some() => Route::Local(class),
            Class::Config if sub.eq_ignore_ascii_case(b"GET") => {
                Route::Any(Sending::rewritten(Rewrite::ConfigGet))
            }
            Class::Config | Class::Acl if sub.eq_ignore_ascii_case(b"HELP") => {
                Route::Any(guarded(name, args))
            }
            // The engine says that a word is missing.
            Class::Config | Class::Acl if sub.is_empty() => Route::Any(Sending::plain()),
            Class::Config => Route::Refuse(texts::refused(&format!(
                "{} {}",
                texts::shown(name),
                texts::shown(sub)
            ))),
            Class::Acl if sub.eq_ignore_ascii_case(b"WHOAMI") => Route::Local(class),
            Class::Acl | Class::Refused => Route::Refuse(texts::refused(&texts::shown(name))),
            _ => Route::Local(class),
        }
    }

    fn end_transaction(&mut self, index: usize, class: Class, args: &Args<'_>) -> Route {
        // `EXEC` with arguments ends a transaction too, with an error.
        if args.left() > 0 && class == Class::Discard {
            return Route::Any(Sending::plain());
        }
        // Subscriptions may just end: only what is settled tells whether the engine refuses it.
        let subscribed = self.clients[index].session.subscribed_in_resp2();
        if subscribed && class == Class::Exec && !self.barrier(index) {
            return Route::Hold;
        }
        let session = &self.clients[index].session;
        let lane = self.clients[index].lane;
        let refused = args.left() > 0 || session.subscribed_in_resp2();
        if session.own.transaction == Transaction::Lost {
            return Route::Local(class);
        }
        if session.own.watch == Watch::Lost && class == Class::Exec && args.left() == 0 {
            if !self.barrier(index) {
                return Route::Hold;
            }
            let session = &self.clients[index].session;
            if session.own.transaction == Transaction::Open {
                let null: &[u8] = if session.resp == 3 {
                    b"_\r\n"
                } else {
                    b"*-1\r\n"
                };
                let mut sending = Sending::effect(Effect::Discard);
                sending.rewrite = Rewrite::Text(null.into());
                return Route::Instead(b"*1\r\n$7\r\nDISCARD\r\n", sending);
            }
        }
        match (lane, class) {
            (Lane::Shared, _) => Route::Any(Sending::plain()),
            (_, Class::Discard) => Route::Own(Sending::effect(Effect::Discard)),
            _ if refused => Route::Own(Sending::effect(Effect::ExecRefused)),
            _ => Route::Own(Sending::effect(Effect::Exec)),
        }
    }

    /// Answers with an error. Inside a transaction the engine hears of it, so that `EXEC` refuses.
    pub(super) fn refuse(&mut self, index: usize, text: &[u8]) -> Flow {
        if !self.barrier(index) {
            return Flow::Hold;
        }
        if self.clients[index].session.own.transaction == Transaction::Open {
            let sending = Sending::rewritten(Rewrite::Text(text.into()));
            return self.send_own(index, UNKNOWN_COMMAND, sending);
        }
        self.answer(index, text);
        Flow::Next
    }
}

/// A command that the engine may refuse to the proxy's user: then the client hears the proxy's words,
/// without that user's name.
pub(super) fn guarded(name: &[u8], args: &Args<'_>) -> Sending {
    let mut command = texts::shown(name);
    if let Some(sub) = args.clone().next() {
        command.push(' ');
        command.push_str(&texts::shown(sub));
    }
    Sending::rewritten(Rewrite::Guard(texts::refused(&command).into()))
}

/// What the engine says to a command that is not possible while messages may come.
fn not_while_subscribed(name: &[u8], args: &Args<'_>, generation: Generation) -> Vec<u8> {
    let mut shown = texts::shown(name).to_ascii_lowercase();
    let known = resp::command::find(name).map_or(&[][..], |command| command.subcommands);
    if generation >= Generation::Seven
        && !known.is_empty()
        && let Some(sub) = args.clone().next()
    {
        shown.push('|');
        shown.push_str(&texts::shown(sub).to_ascii_lowercase());
    }
    let kinds = if generation >= Generation::Seven {
        "P|S"
    } else {
        "P"
    };
    format!(
        "-ERR Can't execute '{shown}': only ({kinds})SUBSCRIBE / ({kinds})UNSUBSCRIBE / PING / QUIT / \
         RESET are allowed in this context\r\n"
    )
    .into_bytes()
}

fn confirmed(kind: Subscription, args: &Args<'_>) -> Sending {
    let count = match args.left() {
        0 => Confirm::All,
        count => Confirm::Count(count),
    };
    let mut sending = Sending::effect(Effect::Confirm(kind, count));
    sending.always = true;
    sending
}

/// `SCRIPT KILL` and `FUNCTION KILL` must not wait behind the script that they are to end, and nothing of others
/// behind a script.
fn script(name: &[u8], mut args: Args<'_>) -> Route {
    let about = [&b"SCRIPT"[..], b"FUNCTION"];
    if !about.iter().any(|known| known.eq_ignore_ascii_case(name)) {
        return Route::Any(Sending::script());
    }
    let sub = args.next().unwrap_or_default();
    if sub.eq_ignore_ascii_case(b"KILL") {
        return Route::Own(Sending::plain());
    }
    if sub.eq_ignore_ascii_case(b"DEBUG") {
        return Route::Refuse(texts::refused(&format!("{} DEBUG", texts::shown(name))));
    }
    Route::Any(Sending::plain())
}

/// Whether `XREAD` or `XREADGROUP` may have the option `BLOCK`. A group, a consumer or a stream may
/// have the name of an option: then a command that does not block goes a way of its own, which does
/// no harm, while one that blocks on the shared connection would hold up everybody.
fn has_block(mut args: Args<'_>) -> bool {
    args.any(|arg| arg.eq_ignore_ascii_case(b"BLOCK"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blocks(words: &[&str]) -> bool {
        let mut frame = Vec::new();
        encode(words.iter().map(|word| word.as_bytes()), &mut frame);
        let mut args = Args::of(&frame);
        args.next();
        has_block(args)
    }

    #[test]
    fn blocking_reads() {
        assert!(blocks(&["XREAD", "BLOCK", "0", "STREAMS", "s", "$"]));
        assert!(blocks(&[
            "XREADGROUP",
            "GROUP",
            "g",
            "c",
            "COUNT",
            "1",
            "block",
            "5",
            "STREAMS",
            "s",
            ">"
        ]));
        assert!(blocks(&[
            "XREADGROUP",
            "GROUP",
            "STREAMS",
            "c",
            "BLOCK",
            "0",
            "STREAMS",
            "s",
            ">"
        ]));
        assert!(!blocks(&["XREAD", "COUNT", "1", "STREAMS", "s", "0"]));
    }
}
