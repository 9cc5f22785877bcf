//! `CLIENT`: connections are the proxy's, so it answers for them.

use super::Worker;
use super::asked;
use super::backend::{Effect, Rewrite};
use super::client::Wait;
use super::filter::Generation;
use super::lanes::{Flow, Sending};
use super::local::is_name;
use super::session::{ReplyMode, Transaction, Watch};
use crate::texts;
use resp::request::Args;
use std::fmt::Write as _;

impl Worker {
    /// `args` are those after `CLIENT`. The client has all its replies.
    pub(super) fn client_command(&mut self, index: usize, frame: &[u8], args: Args<'_>) -> Flow {
        if !self.barrier(index) {
            return Flow::Hold;
        }
        let args: Vec<&[u8]> = args.collect();
        let Some((sub, rest)) = args.split_first() else {
            return self.answer_in_order(index, &texts::arity("client"));
        };
        let typed = texts::shown(sub);
        let sub = typed.to_ascii_lowercase();
        let generation = self.generation_of(index);
        let me = self.clients[index].session.id;
        if generation < since(&sub) {
            self.answer(index, &wrong_words(&sub, &typed, rest.len(), generation));
            return Flow::Next;
        }
        let of_all = matches!(
            sub.as_str(),
            "list" | "kill" | "unblock" | "pause" | "unpause"
        );
        if of_all {
            if self.waits_for_all(index) {
                return Flow::Hold;
            }
            match asked::read(&sub, rest, generation, me) {
                Some(Ok(wanted)) => self.ask_for(index, wanted, &args),
                Some(Err(text)) => self.answer(index, &text),
                None => self.answer(index, &wrong_words(&sub, &typed, rest.len(), generation)),
            }
            return Flow::Next;
        }
        let answer = match (sub.as_str(), rest) {
            ("tracking", rest) => return self.tracking(index, frame, rest),
            ("caching", _) => return self.caching(index, frame),
            ("trackinginfo" | "getredir", _) => {
                return self.send_own(index, frame, Sending::plain());
            }
            ("no-touch", [word]) => {
                let on = word.eq_ignore_ascii_case(b"ON");
                return self.send_own(index, frame, Sending::effect(Effect::NoTouch(on)));
            }
            ("reply", [mode]) => return self.reply_mode(index, mode),
            ("help", _) => {
                let refusal = texts::refused("CLIENT HELP").into();
                return self.send(index, frame, Sending::rewritten(Rewrite::Guard(refusal)));
            }
            ("import-source", _) => texts::refused("CLIENT IMPORT-SOURCE"),
            (_, rest) => self
                .about_itself(index, &sub, rest)
                .unwrap_or_else(|| wrong_words(&sub, &typed, rest.len(), generation)),
        };
        self.answer(index, &answer);
        Flow::Next
    }

    /// `None`: there is no such subcommand, or it has other arguments.
    fn about_itself(&mut self, index: usize, sub: &str, rest: &[&[u8]]) -> Option<Vec<u8>> {
        let line = if sub == "info" {
            self.client_line(index, "client|info")
        } else {
            String::new()
        };
        let session = &mut self.clients[index].session;
        Some(match (sub, rest) {
            ("id", []) => format!(":{}\r\n", session.id).into_bytes(),
            ("info", []) => self.as_text(index, line.as_bytes()),
            ("getname", []) if session.name.is_empty() => {
                if session.resp == 3 {
                    b"_\r\n".to_vec()
                } else {
                    b"$-1\r\n".to_vec()
                }
            }
            ("getname", []) => bulk(&session.name),
            ("setname", [name]) if is_name(name) => {
                session.name = name.to_vec();
                texts::OK.to_vec()
            }
            ("setname", [_]) => texts::BAD_NAME.to_vec(),
            ("setinfo", [option, value]) => {
                let (place, shown) = match option.to_ascii_lowercase().as_slice() {
                    b"lib-name" => (&mut session.lib_name, "lib-name"),
                    b"lib-ver" => (&mut session.lib_ver, "lib-ver"),
                    _ => {
                        let option = texts::shown(option);
                        let text = format!("-ERR Unrecognized option '{option}'\r\n");
                        return Some(text.into_bytes());
                    }
                };
                if is_name(value) {
                    *place = value.to_vec();
                    texts::OK.to_vec()
                } else {
                    format!(
                        "-ERR {shown} cannot contain spaces, newlines or special characters.\r\n"
                    )
                    .into_bytes()
                }
            }
            ("no-evict", [word]) => match on_or_off(word) {
                Some(on) => {
                    session.no_evict = on;
                    texts::OK.to_vec()
                }
                None => texts::SYNTAX.to_vec(),
            },
            ("capa", [_, ..]) => {
                session.redirect |= rest
                    .iter()
                    .any(|word| word.eq_ignore_ascii_case(b"redirect"));
                texts::OK.to_vec()
            }
            _ => return None,
        })
    }

    /// Which engine a client's database has.
    pub(super) fn generation_of(&self, index: usize) -> Generation {
        let engine = self.served[self.clients[index].served].engine.as_ref();
        let version = engine.and_then(|engine| engine.version.text());
        Generation::of(version.unwrap_or_default())
    }

    fn tracking(&mut self, index: usize, frame: &[u8], args: &[&[u8]]) -> Flow {
        if args
            .iter()
            .any(|word| word.eq_ignore_ascii_case(b"REDIRECT"))
        {
            return self.answer_in_order(index, texts::NO_REDIRECT);
        }
        match args.first().and_then(|word| on_or_off(word)) {
            Some(on) => self.send_own(index, frame, Sending::effect(Effect::Tracking(on))),
            None => self.send_own(index, frame, Sending::plain()),
        }
    }

    fn reply_mode(&mut self, index: usize, mode: &[u8]) -> Flow {
        let session = &mut self.clients[index].session;
        match mode.to_ascii_lowercase().as_slice() {
            b"on" => {
                session.reply = ReplyMode::On;
                self.answer(index, texts::OK);
            }
            b"off" => session.reply = ReplyMode::Off,
            b"skip" if session.reply == ReplyMode::Off => {}
            b"skip" => session.reply = ReplyMode::SkipNext,
            _ => self.answer(index, texts::SYNTAX),
        }
        Flow::Next
    }

    /// Text as the client's version of the protocol writes it.
    pub(super) fn as_text(&self, index: usize, text: &[u8]) -> Vec<u8> {
        if self.clients[index].session.resp == 3 {
            let mut out = format!("={}\r\ntxt:", text.len() + 4).into_bytes();
            out.extend_from_slice(text);
            out.extend_from_slice(b"\r\n");
            out
        } else {
            bulk(text)
        }
    }

    /// One line of `CLIENT LIST`, with the fields of the database's engine in its order. `last` is
    /// the last command.
    pub(super) fn client_line(&self, index: usize, last: &str) -> String {
        let client = &self.clients[index];
        let session = &client.session;
        let own = &session.own;
        let generation = self.generation_of(index);
        let mut line = String::new();
        let mut put = |since: Generation, name: &str, value: &dyn std::fmt::Display| {
            if generation >= since {
                let space = if line.is_empty() { "" } else { " " };
                let _ = write!(line, "{space}{name}={value}");
            }
        };
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let multi = self.queued_commands(index);
        let total = size_of_val(client) + client.tail.capacity() + client.out.len();
        // Redis 6.2 names no subcommand.
        let short = last.split('|').next().unwrap_or_default();
        let last = if generation == Generation::Six {
            short
        } else {
            last
        };
        let stream = client.stream.as_ref();
        let fd = stream.map_or(-1, std::os::fd::AsRawFd::as_raw_fd);
        use Generation::{Eight, Nine, Seven, Six};
        put(Six, "id", &session.id);
        put(Six, "addr", &session.peer);
        put(Six, "laddr", &session.local);
        put(Six, "fd", &fd);
        put(Six, "name", &text(&session.name));
        put(Six, "age", &session.created.elapsed().as_secs());
        put(Six, "idle", &session.active.elapsed().as_secs());
        put(Six, "flags", &flags(client));
        put(Nine, "capa", &if session.redirect { "r" } else { "" });
        put(Six, "db", &own.db);
        put(Six, "sub", &own.subscriptions.channels);
        put(Six, "psub", &own.subscriptions.patterns);
        put(Seven, "ssub", &own.subscriptions.shard_channels);
        put(Six, "multi", &multi);
        put(Eight, "watch", &u8::from(own.watch != Watch::No));
        put(Six, "qbuf", &client.tail.len());
        put(
            Six,
            "qbuf-free",
            &(client.tail.capacity() - client.tail.len()),
        );
        put(Six, "argv-mem", &0);
        put(Seven, "multi-mem", &0);
        put(Seven, "rbs", &0);
        put(Seven, "rbp", &0);
        put(Six, "obl", &0);
        put(Six, "oll", &u8::from(!client.out.is_empty()));
        put(Six, "omem", &client.out.len());
        put(Six, "tot-mem", &total);
        put(Six, "events", &if client.writable { "r" } else { "rw" });
        put(Six, "cmd", &last);
        put(Six, "user", &"default");
        put(Six, "redir", &-1);
        put(Seven, "resp", &session.resp);
        put(Eight, "lib-name", &text(&session.lib_name));
        put(Eight, "lib-ver", &text(&session.lib_ver));
        put(Eight, "tot-net-in", &session.received);
        put(Eight, "tot-net-out", &client.written);
        put(Eight, "tot-cmds", &session.commands);
        line.push('\n');
        line
    }
}

/// The letters that say what a client is.
pub(super) fn flags(client: &super::client::Client) -> String {
    let (session, own) = (&client.session, &client.session.own);
    let flags: String = [
        (own.monitor, 'O'),
        (own.subscriptions.any(), 'P'),
        (
            own.transaction != Transaction::No || client.exec.is_some(),
            'x',
        ),
        (client.blocking > 0 || client.wait == Wait::Paused, 'b'),
        (own.tracking, 't'),
        (session.no_evict, 'e'),
        (own.no_touch, 'T'),
    ]
    .into_iter()
    .filter_map(|(set, letter)| set.then_some(letter))
    .collect();
    if flags.is_empty() {
        "N".to_owned()
    } else {
        flags
    }
}

/// The first engine that has a subcommand.
pub(super) fn since(sub: &str) -> Generation {
    match sub {
        "no-evict" => Generation::Seven,
        "setinfo" | "no-touch" | "capa" => Generation::Eight,
        "import-source" => Generation::Nine,
        _ => Generation::Six,
    }
}

/// What the engine says to a subcommand that it does not have, or not with such arguments.
fn wrong_words(sub: &str, typed: &str, arguments: usize, generation: Generation) -> Vec<u8> {
    let known = matches!(
        sub,
        "id" | "info"
            | "getname"
            | "setname"
            | "setinfo"
            | "no-evict"
            | "no-touch"
            | "reply"
            | "kill"
            | "capa"
            | "unblock"
            | "pause"
            | "unpause"
    ) && generation >= since(sub);
    if generation == Generation::Six && sub == "kill" {
        texts::SYNTAX.to_vec()
    } else if generation == Generation::Six {
        format!(
            "-ERR Unknown subcommand or wrong number of arguments for '{typed}'. Try CLIENT HELP.\r\n"
        )
        .into_bytes()
    } else if matches!(sub, "unblock" | "pause") && arguments > 0 && generation < Generation::Nine {
        format!(
            "-ERR unknown subcommand or wrong number of arguments for '{typed}'. Try CLIENT HELP.\r\n"
        )
        .into_bytes()
    } else if known {
        texts::arity(&format!("client|{sub}"))
    } else {
        format!("-ERR unknown subcommand '{typed}'. Try CLIENT HELP.\r\n").into_bytes()
    }
}

fn bulk(text: &[u8]) -> Vec<u8> {
    let mut out = format!("${}\r\n", text.len()).into_bytes();
    out.extend_from_slice(text);
    out.extend_from_slice(b"\r\n");
    out
}

fn on_or_off(word: &[u8]) -> Option<bool> {
    match word.to_ascii_lowercase().as_slice() {
        b"on" => Some(true),
        b"off" => Some(false),
        _ => None,
    }
}
