//! What the proxy answers itself: greeting, signing in, leaving, choosing a database.

use super::Worker;
use super::backend::Effect;
use super::client::{Lane, Wait};
use super::fan::Part;
use super::filter::Generation;
use super::lanes::{Flow, Sending};
use super::session::{Db, ReplyMode, Transaction, Watch};
use crate::texts;
use resp::command::Class;
use resp::number::strict_i64;
use resp::request::Args;
use resp::value::Value;
use subtle::ConstantTimeEq;

/// Numbered databases of every engine: the agent sets it, and clients cannot.
const DATABASES: u32 = 16;
/// User that clients sign in as.
pub(super) const USER: &[u8] = b"default";

impl Worker {
    /// Answers a command. `args` are those after the name.
    pub(super) fn local(
        &mut self,
        index: usize,
        class: Class,
        frame: &[u8],
        args: Args<'_>,
    ) -> Flow {
        if class == Class::Select {
            return self.select(index, frame, args);
        }
        if class == Class::Client {
            return self.client_command(index, frame, args);
        }
        if !self.barrier(index) {
            return Flow::Hold;
        }
        match class {
            Class::Hello => self.hello(index, args),
            Class::Auth => {
                let answer = self.auth(index, args);
                self.answer(index, &answer);
            }
            Class::Quit => {
                self.answer(index, texts::OK);
                self.farewell(index);
            }
            Class::Reset => return self.reset(index),
            Class::Config => self.config_set(index, &args),
            Class::Acl if args.left() == 1 => self.answer(index, b"$7\r\ndefault\r\n"),
            Class::Acl => {
                let typed = texts::shown(args.clone().next().unwrap_or_default());
                let text = match self.generation_of(index) {
                    Generation::Six => format!(
                        "-ERR Unknown subcommand or wrong number of arguments for '{typed}'. Try ACL HELP.\r\n"
                    )
                    .into_bytes(),
                    _ => texts::arity("acl|whoami"),
                };
                self.answer(index, &text);
            }
            Class::Exec | Class::Discard => {
                let own = &mut self.clients[index].session.own;
                own.transaction = Transaction::No;
                own.watch = Watch::No;
                if let Some(keep) = &mut self.clients[index].keep {
                    keep.forget_transaction();
                }
                self.forget_later(index);
                let exec = class == Class::Exec;
                self.answer(index, if exec { texts::EXECABORT } else { texts::OK });
            }
            _ => self.answer(index, b"-ERR the command is not available\r\n"),
        }
        Flow::Next
    }

    fn signs_in(&self, index: usize, user: &[u8], password: &[u8]) -> bool {
        let database = &self.served[self.clients[index].served].database;
        let right = match &database.password {
            None => true,
            Some(wanted) => bool::from(wanted.expose().as_bytes().ct_eq(password)),
        };
        right & (user == USER)
    }

    fn auth(&mut self, index: usize, args: Args<'_>) -> Vec<u8> {
        let args: Vec<&[u8]> = args.take(3).collect();
        let (user, password) = match args[..] {
            [] => return texts::arity("auth"),
            [password] => {
                let served = self.clients[index].served;
                if self.served[served].database.password.is_none() {
                    return texts::NO_PASSWORD.to_vec();
                }
                (USER, password)
            }
            [user, password] => (user, password),
            _ => return texts::SYNTAX.to_vec(),
        };
        if !self.signs_in(index, user, password) {
            return texts::WRONGPASS.to_vec();
        }
        self.clients[index].session.authenticated = true;
        texts::OK.to_vec()
    }

    fn hello(&mut self, index: usize, args: Args<'_>) {
        let args: Vec<&[u8]> = args.take(64).collect();
        match self.read_hello(index, &args) {
            Ok(greeting) => {
                let client = &mut self.clients[index];
                let resp = greeting.resp.unwrap_or(client.session.resp);
                client.session.authenticated |= greeting.signed_in;
                if let Some(name) = greeting.name {
                    client.session.name = name;
                }
                if resp != client.session.resp {
                    self.change_version(index, resp);
                }
                if self.clients.contains(index) {
                    let facts = self.facts(index);
                    self.answer(index, &facts);
                }
            }
            Err(error) => self.answer(index, &error),
        }
    }

    fn read_hello(&self, index: usize, args: &[&[u8]]) -> Result<Greeting, Vec<u8>> {
        let mut greeting = Greeting::default();
        let mut rest = args;
        if let [version, tail @ ..] = rest {
            greeting.resp = match strict_i64(version) {
                Some(2) => Some(2),
                Some(3) => Some(3),
                Some(_) => return Err(texts::NOPROTO.to_vec()),
                None => return Err(texts::BAD_PROTO.to_vec()),
            };
            rest = tail;
        }
        loop {
            rest = match rest {
                [] => break,
                [word, user, password, tail @ ..] if word.eq_ignore_ascii_case(b"AUTH") => {
                    if !self.signs_in(index, user, password) {
                        return Err(texts::WRONGPASS.to_vec());
                    }
                    greeting.signed_in = true;
                    tail
                }
                [word, name, tail @ ..] if word.eq_ignore_ascii_case(b"SETNAME") => {
                    if !is_name(name) {
                        return Err(texts::BAD_NAME.to_vec());
                    }
                    greeting.name = Some(name.to_vec());
                    tail
                }
                [word, ..] => {
                    let text = format!(
                        "-ERR Syntax error in HELLO option '{}'\r\n",
                        texts::shown(word)
                    );
                    return Err(text.into_bytes());
                }
            };
        }
        if !(greeting.signed_in || self.clients[index].session.authenticated) {
            return Err(texts::NOAUTH_HELLO.to_vec());
        }
        Ok(greeting)
    }

    /// Another version of the protocol means other connections to the shard.
    fn change_version(&mut self, index: usize, resp: u8) {
        let session = &self.clients[index].session;
        let own = &session.own;
        let several = matches!(self.clients[index].part, Part::Front(_));
        let watching = several && own.watch == Watch::Set;
        if own.subscriptions.any() || own.tracking || watching || own.db == Db::Unknown {
            // They live on the old connection, in the old version.
            tracing::info!(peer = %session.peer, "a client is closed: it changed the protocol while it was subscribed, tracked or watching, or its transaction chose no known database");
            self.close_client(index);
            return;
        }
        self.close_legs(index);
        if let Lane::Own(place) = self.clients[index].lane {
            self.leave_own(index, place);
            let session = &mut self.clients[index].session;
            if session.own.watch == Watch::Set {
                session.own.watch = Watch::Lost;
            }
            let shareable = session.shareable();
            self.clients[index].lane = if shareable { Lane::Shared } else { Lane::Gone };
        }
        self.clients[index].session.resp = resp;
        self.expect_own(self.clients[index].served, resp);
    }

    /// The answer to `HELLO`: what the engine says of itself, with this client's id.
    fn facts(&self, index: usize) -> Vec<u8> {
        let client = &self.clients[index];
        let engine = self.served[client.served].engine.clone();
        let (server, version, modules) = match engine {
            Some(engine) => (engine.server, engine.version, engine.modules),
            None => (
                Value::bulk("valkey"),
                Value::bulk("0.0.0"),
                Value::Array(Vec::new()),
            ),
        };
        let modules = if client.session.resp == 3 {
            as_maps(modules)
        } else {
            modules
        };
        let id = i64::try_from(client.session.id).unwrap_or(i64::MAX);
        let facts = Value::Map(vec![
            (Value::bulk("server"), server),
            (Value::bulk("version"), version),
            (
                Value::bulk("proto"),
                Value::Integer(i64::from(client.session.resp)),
            ),
            (Value::bulk("id"), Value::Integer(id)),
            (Value::bulk("mode"), Value::bulk("standalone")),
            (Value::bulk("role"), Value::bulk("master")),
            (Value::bulk("modules"), modules),
        ]);
        let mut out = Vec::new();
        facts.write(client.session.resp, &mut out);
        out
    }

    fn reset(&mut self, index: usize) -> Flow {
        if self.stop_listening(index) {
            return Flow::Hold;
        }
        self.close_legs(index);
        if let Lane::Own(place) = self.clients[index].lane {
            self.leave_own(index, place);
        }
        let open = self.served[self.clients[index].served]
            .database
            .password
            .is_none();
        let client = &mut self.clients[index];
        client.lane = Lane::Shared;
        client.later.clear();
        let skipped = client.session.reply == ReplyMode::SkipNext;
        client.session.reset(open);
        self.forget_keep(index);
        if !skipped {
            self.answer(index, b"+RESET\r\n");
        }
        Flow::Next
    }

    fn select(&mut self, index: usize, frame: &[u8], args: Args<'_>) -> Flow {
        if !self.barrier(index) {
            return Flow::Hold;
        }
        let words: Vec<&[u8]> = args.take(2).collect();
        let number = match words[..] {
            [word] => strict_i64(word).and_then(|db| u32::try_from(db).ok()),
            _ => None,
        };
        let session = &mut self.clients[index].session;
        if session.own.transaction == Transaction::Open {
            // Any other one will fail and change nothing.
            if let Some(db @ 0..DATABASES) = number {
                session.own.select_queued = Some(Db::Number(db));
            }
            return self.send_own(index, frame, Sending::plain());
        }
        match number {
            Some(0) if session.own.db == Db::Number(0) => {
                self.answer(index, texts::OK);
                Flow::Next
            }
            Some(db) => self.send_own(index, frame, Sending::effect(Effect::Select(db))),
            None => self.send(index, frame, Sending::plain()),
        }
    }
}

#[derive(Debug, Default)]
struct Greeting {
    resp: Option<u8>,
    signed_in: bool,
    name: Option<Vec<u8>>,
}

/// A client's or a library's name: printable, no blanks.
pub(super) fn is_name(name: &[u8]) -> bool {
    name.iter().all(u8::is_ascii_graphic)
}

/// Modules as RESP3 shows them, whatever version they were read in.
fn as_maps(modules: Value) -> Value {
    let Value::Array(modules) = modules else {
        return modules;
    };
    Value::Array(
        modules
            .into_iter()
            .map(|module| match module {
                flat @ Value::Array(_) => Value::Map(
                    flat.pairs()
                        .into_iter()
                        .map(|(k, v)| (k.clone(), v.clone()))
                        .collect(),
                ),
                other => other,
            })
            .collect(),
    )
}

impl Worker {
    /// Waits for what other workers say.
    pub(super) fn wait_for_gather(&mut self, index: usize) {
        self.clients[index].wait = Wait::Gather;
    }
}
