//! `CLIENT`: connections are the proxy's, so it answers for them.

use super::Worker;
use super::backend::Effect;
use super::gather::{Filter, KillStyle, Question};
use super::lanes::{Flow, Sending};
use super::local::is_name;
use super::session::{Db, ReplyMode, Transaction, Watch};
use crate::texts;
use resp::number::strict_i64;
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
        let answer = match (sub.as_str(), rest) {
            ("tracking", rest) => return self.tracking(index, frame, rest),
            ("caching" | "trackinginfo" | "getredir", _) => {
                return self.send_own(index, frame, Sending::plain());
            }
            ("no-touch", [word]) => {
                let on = word.eq_ignore_ascii_case(b"ON");
                return self.send_own(index, frame, Sending::effect(Effect::NoTouch(on)));
            }
            ("reply", [mode]) => return self.reply_mode(index, mode),
            ("list", rest) => match list_filter(rest) {
                Ok(filter) => {
                    self.ask(index, Question::List(filter));
                    return Flow::Next;
                }
                Err(text) => text,
            },
            ("kill", rest) if !rest.is_empty() => {
                let me = self.clients[index].session.id;
                match kill_filter(rest, me) {
                    Ok((filter, style)) => {
                        self.ask(index, Question::Kill(filter, style));
                        return Flow::Next;
                    }
                    Err(text) => text,
                }
            }
            ("help", _) => return self.send(index, frame, Sending::plain()),
            ("pause" | "unpause" | "unblock" | "import-source", _) => {
                texts::refused(&format!("CLIENT {}", sub.to_ascii_uppercase()))
            }
            (_, rest) => self.about_itself(index, &sub, &typed, rest),
        };
        self.answer(index, &answer);
        Flow::Next
    }

    fn about_itself(&mut self, index: usize, sub: &str, typed: &str, rest: &[&[u8]]) -> Vec<u8> {
        let line = if sub == "info" {
            self.client_line(index)
        } else {
            String::new()
        };
        let session = &mut self.clients[index].session;
        match (sub, rest) {
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
                        return format!("-ERR Unrecognized option '{option}'\r\n").into_bytes();
                    }
                };
                if !is_name(value) {
                    return format!(
                        "-ERR {shown} cannot contain spaces, newlines or special characters.\r\n"
                    )
                    .into_bytes();
                }
                *place = value.to_vec();
                texts::OK.to_vec()
            }
            ("no-evict", [word]) => match on_or_off(word) {
                Some(on) => {
                    session.no_evict = on;
                    texts::OK.to_vec()
                }
                None => texts::SYNTAX.to_vec(),
            },
            ("capa", [_, ..]) => texts::OK.to_vec(),
            (
                "id" | "info" | "getname" | "setname" | "setinfo" | "no-evict" | "no-touch"
                | "reply" | "kill" | "capa",
                _,
            ) => texts::arity(&format!("client|{sub}")),
            _ => format!("-ERR unknown subcommand '{typed}'. Try CLIENT HELP.\r\n").into_bytes(),
        }
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

    /// One line of `CLIENT LIST`.
    pub(super) fn client_line(&self, index: usize) -> String {
        let client = &self.clients[index];
        let session = &client.session;
        let own = &session.own;
        let mut flags = String::new();
        for (set, letter) in [
            (own.monitor, 'O'),
            (own.subscriptions.any(), 'P'),
            (own.transaction != Transaction::No, 'x'),
            (client.blocking > 0, 'b'),
            (own.tracking, 't'),
            (session.no_evict, 'e'),
            (own.no_touch, 'T'),
        ] {
            if set {
                flags.push(letter);
            }
        }
        if flags.is_empty() {
            flags.push('N');
        }
        let db = match own.db {
            Db::Number(db) => i64::from(db),
            Db::Unknown => -1,
        };
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let mut line = String::new();
        let _ = writeln!(
            line,
            "id={} addr={} laddr={} fd={} name={} age={} idle={} flags={flags} db={db} sub={} psub={} \
             ssub={} multi={} watch={} qbuf={} qbuf-free={} omem={} user=default redir=-1 resp={} \
             lib-name={} lib-ver={} tot-net-out={} tot-cmds={}",
            session.id,
            session.peer,
            session.local,
            client
                .stream
                .as_ref()
                .map_or(-1, std::os::fd::AsRawFd::as_raw_fd),
            text(&session.name),
            session.created.elapsed().as_secs(),
            session.active.elapsed().as_secs(),
            own.subscriptions.channels,
            own.subscriptions.patterns,
            own.subscriptions.shard_channels,
            if own.transaction == Transaction::No {
                -1
            } else {
                0
            },
            i32::from(own.watch != Watch::No),
            client.tail.len(),
            client.tail.capacity() - client.tail.len(),
            client.out.len(),
            session.resp,
            text(&session.lib_name),
            text(&session.lib_ver),
            client.written,
            session.commands,
        );
        line
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

fn client_ids(words: &[&[u8]]) -> Result<Vec<u64>, Vec<u8>> {
    words
        .iter()
        .map(|word| {
            strict_i64(word)
                .and_then(|id| u64::try_from(id).ok())
                .filter(|id| *id > 0)
                .ok_or_else(|| b"-ERR Invalid client ID\r\n".to_vec())
        })
        .collect()
}

/// The arguments of `CLIENT LIST`.
fn list_filter(args: &[&[u8]]) -> Result<Filter, Vec<u8>> {
    let mut filter = Filter::default();
    match args {
        [] => {}
        [word, kind] if word.eq_ignore_ascii_case(b"TYPE") => filter.kind = Some(known_type(kind)?),
        [word, ids @ ..] if word.eq_ignore_ascii_case(b"ID") && !ids.is_empty() => {
            filter.ids = Some(client_ids(ids)?);
        }
        _ => return Err(texts::SYNTAX.to_vec()),
    }
    Ok(filter)
}

fn known_type(kind: &[u8]) -> Result<Vec<u8>, Vec<u8>> {
    let lower = kind.to_ascii_lowercase();
    match lower.as_slice() {
        b"normal" | b"pubsub" | b"master" | b"primary" | b"replica" | b"slave" => Ok(lower),
        _ => Err(format!("-ERR Unknown client type '{}'\r\n", texts::shown(kind)).into_bytes()),
    }
}

/// The arguments of `CLIENT KILL`.
fn kill_filter(args: &[&[u8]], me: u64) -> Result<(Filter, KillStyle), Vec<u8>> {
    let address = |word: &[u8]| {
        std::str::from_utf8(word)
            .ok()
            .and_then(|text| text.parse().ok())
    };
    let syntax = || texts::SYNTAX.to_vec();
    if let [word] = args {
        let peer = address(word).ok_or_else(|| b"-ERR No such client\r\n".to_vec())?;
        let filter = Filter {
            peer: Some(peer),
            ..Filter::default()
        };
        return Ok((filter, KillStyle::Address));
    }
    let mut filter = Filter {
        skip: Some(me),
        ..Filter::default()
    };
    let (pairs, odd) = args.as_chunks::<2>();
    if !odd.is_empty() {
        return Err(syntax());
    }
    for [option, value] in pairs {
        match option.to_ascii_lowercase().as_slice() {
            b"id" => {
                filter.ids = Some(client_ids(&[value]).map_err(|_| syntax())?);
            }
            b"addr" => filter.peer = Some(address(value).ok_or_else(syntax)?),
            b"laddr" => filter.local = Some(address(value).ok_or_else(syntax)?),
            b"type" => filter.kind = Some(known_type(value)?),
            b"user" => filter.user = Some(value.to_vec()),
            b"skipme" if value.eq_ignore_ascii_case(b"yes") => filter.skip = Some(me),
            b"skipme" if value.eq_ignore_ascii_case(b"no") => filter.skip = None,
            b"maxage" => {
                let age = strict_i64(value).and_then(|age| u64::try_from(age).ok());
                filter.max_age = Some(age.ok_or_else(syntax)?);
            }
            _ => return Err(syntax()),
        }
    }
    Ok((filter, KillStyle::Filters))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_as_they_are_written() {
        assert!(list_filter(&[]).is_ok());
        assert_eq!(
            list_filter(&[b"ID", b"7", b"9"]).unwrap().ids,
            Some(vec![7, 9])
        );
        assert!(list_filter(&[b"ID"]).is_err() && list_filter(&[b"ID", b"0"]).is_err());
        assert!(list_filter(&[b"TYPE", b"odd"]).is_err());
        let (filter, style) = kill_filter(&[b"127.0.0.1:5"], 1).unwrap();
        assert_eq!(
            (filter.peer, style),
            ("127.0.0.1:5".parse().ok(), KillStyle::Address)
        );
        let (filter, style) = kill_filter(&[b"ID", b"3", b"SKIPME", b"no"], 1).unwrap();
        assert_eq!(
            (filter.ids, filter.skip, style),
            (Some(vec![3]), None, KillStyle::Filters)
        );
        assert!(kill_filter(&[b"ID", b"3", b"TYPE"], 1).is_err());
    }
}
