//! One client: what each of its commands is answered.
//!
//! There is no password: what is told here is what DNS tells too. `AUTH` is answered as by an engine
//! whose default user has none.

use crate::finder::Finder;
use crate::sentinel::channels::{Channels, Kind};
use crate::sentinel::masters;
use crate::view::View;
use resp::value::Value;
use std::sync::Arc;

/// Longest name that a client may give itself, bytes.
const NAME_MAX: usize = 256;

/// What is done after a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// The next command.
    Go,
    /// The connection is closed.
    Close,
}

/// A client.
#[derive(Debug)]
pub struct Session {
    finder: Finder,
    id: i64,
    port: u16,
    version: u8,
    name: Vec<u8>,
    /// What it subscribed to.
    pub channels: Channels,
}

type Args<'a> = &'a [&'a [u8]];

impl Session {
    /// A new client. `port`: of this service, on every node.
    #[must_use]
    pub fn new(finder: Finder, id: i64, port: u16) -> Self {
        Self {
            finder,
            id,
            port,
            version: 2,
            name: Vec::new(),
            channels: Channels::default(),
        }
    }

    /// The protocol's version that the client chose.
    #[must_use]
    pub fn version(&self) -> u8 {
        self.version
    }

    /// Carries a command out and appends its reply to `out`.
    pub async fn command(&mut self, args: &[&[u8]], out: &mut Vec<u8>) -> Next {
        let Some((name, args)) = args.split_first() else {
            return Next::Go;
        };
        let name = name.to_ascii_lowercase();
        let only_some = self.version < 3 && self.channels.count() > 0;
        let allowed: [&[u8]; 7] = [
            b"subscribe",
            b"unsubscribe",
            b"psubscribe",
            b"punsubscribe",
            b"ping",
            b"quit",
            b"reset",
        ];
        if only_some && !allowed.contains(&&name[..]) {
            let text = format!(
                "ERR Can't execute '{}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / \
                 RESET are allowed in this context",
                shown(&name)
            );
            error(&text).write(self.version, out);
            return Next::Go;
        }
        match &name[..] {
            b"subscribe" => self.subscribe(Kind::Channel, args, out),
            b"psubscribe" => self.subscribe(Kind::Pattern, args, out),
            b"unsubscribe" => self.unsubscribe(Kind::Channel, args, out),
            b"punsubscribe" => self.unsubscribe(Kind::Pattern, args, out),
            b"quit" => {
                ok().write(self.version, out);
                return Next::Close;
            }
            b"hello" => {
                let reply = self.hello(args);
                reply.write(self.version, out);
            }
            _ => {
                let reply = self.plain(&name, args).await;
                if reply == Value::Null && self.version < 3 && name == b"sentinel" {
                    // An address that is missing is an array that is missing.
                    out.extend_from_slice(b"*-1\r\n");
                } else {
                    reply.write(self.version, out);
                }
            }
        }
        Next::Go
    }

    fn subscribe(&mut self, kind: Kind, args: Args<'_>, out: &mut Vec<u8>) {
        if args.is_empty() {
            let word = match kind {
                Kind::Channel => "subscribe",
                Kind::Pattern => "psubscribe",
            };
            arity(word).write(self.version, out);
        }
        for name in args {
            self.channels.subscribe(kind, name).write(self.version, out);
        }
    }

    fn unsubscribe(&mut self, kind: Kind, args: Args<'_>, out: &mut Vec<u8>) {
        for told in self.channels.unsubscribe(kind, args) {
            told.write(self.version, out);
        }
    }

    async fn plain(&mut self, name: &[u8], args: Args<'_>) -> Value {
        match name {
            b"ping" => self.ping(args),
            b"echo" => match args {
                [text] => Value::Bulk(text.to_vec()),
                _ => arity("echo"),
            },
            b"auth" => auth(args),
            b"client" => self.client(args),
            b"command" => command_docs(args),
            b"info" => self.info(args).await,
            b"reset" => {
                self.channels = Channels::default();
                self.version = 2;
                self.name.clear();
                Value::Simple(b"RESET".to_vec())
            }
            b"role" => {
                let view = self.finder.view();
                let names = view.endpoints.iter().map(|e| Value::bulk(&e.name));
                Value::Array(vec![Value::bulk("sentinel"), Value::Array(names.collect())])
            }
            b"sentinel" => self.sentinel(args).await,
            _ => error(&format!(
                "ERR unknown command '{}': this port finds databases by name (SENTINEL masters); \
                 data is at the address that it tells",
                shown(name)
            )),
        }
    }

    fn ping(&self, args: Args<'_>) -> Value {
        let text = match args {
            [] => None,
            [text] => Some(text.to_vec()),
            _ => return arity("ping"),
        };
        if self.version < 3 && self.channels.count() > 0 {
            return Value::Array(vec![
                Value::bulk("pong"),
                Value::Bulk(text.unwrap_or_default()),
            ]);
        }
        text.map_or_else(|| Value::Simple(b"PONG".to_vec()), Value::Bulk)
    }

    fn hello(&mut self, args: Args<'_>) -> Value {
        let mut rest = args.iter();
        let mut version = self.version;
        if let Some(text) = rest.next() {
            version = match *text {
                b"2" => 2,
                b"3" => 3,
                _ => return error("NOPROTO unsupported protocol version"),
            };
        }
        let mut name = None;
        while let Some(option) = rest.next() {
            match &option.to_ascii_lowercase()[..] {
                b"auth" => match (rest.next(), rest.next()) {
                    (Some(user), Some(password)) => {
                        let answer = auth(&[user, password]);
                        if matches!(answer, Value::Error(_)) {
                            return answer;
                        }
                    }
                    _ => return error("ERR Syntax error in HELLO option 'auth'"),
                },
                b"setname" => match rest.next() {
                    Some(given) if is_name(given) => name = Some(given.to_vec()),
                    _ => return error("ERR Syntax error in HELLO option 'setname'"),
                },
                other => {
                    let text = format!("ERR Syntax error in HELLO option '{}'", shown(other));
                    return error(&text);
                }
            }
        }
        self.version = version;
        if let Some(name) = name {
            self.name = name;
        }
        let text = |key: &str, value: &str| (Value::bulk(key), Value::bulk(value));
        Value::Map(vec![
            text("server", "redis"),
            text("version", "7.0.0"),
            (Value::bulk("proto"), Value::Integer(version.into())),
            (Value::bulk("id"), Value::Integer(self.id)),
            text("mode", "sentinel"),
            (Value::bulk("modules"), Value::Array(Vec::new())),
        ])
    }

    fn client(&mut self, args: Args<'_>) -> Value {
        let Some((what, args)) = args.split_first() else {
            return arity("client");
        };
        match (&what.to_ascii_lowercase()[..], args) {
            (b"id", []) => Value::Integer(self.id),
            (b"getname", []) if self.name.is_empty() => Value::Null,
            (b"getname", []) => Value::Bulk(self.name.clone()),
            (b"setname", [name]) if is_name(name) => {
                self.name = name.to_vec();
                ok()
            }
            (b"setname", [_]) => error(
                "ERR Client names cannot contain spaces, newlines or special characters, and have \
                 at most 256 bytes.",
            ),
            (b"setinfo", [_, _]) | (b"no-evict" | b"no-touch", [_]) => ok(),
            (other, _) => error(&format!(
                "ERR unknown subcommand or wrong number of arguments for 'client|{}'",
                shown(other)
            )),
        }
    }

    async fn info(&self, args: Args<'_>) -> Value {
        let sections: Vec<String> = args
            .iter()
            .map(|arg| String::from_utf8_lossy(arg).to_lowercase())
            .collect();
        let view = self.finder.view();
        let found = self.finder.find_all(&view, false).await;
        let text = masters::info(&view, self.port, &found, &sections);
        let mut verbatim = b"txt:".to_vec();
        verbatim.extend_from_slice(text.as_bytes());
        Value::Verbatim(verbatim)
    }

    async fn sentinel(&self, args: Args<'_>) -> Value {
        let Some((what, args)) = args.split_first() else {
            return arity("sentinel");
        };
        let view = self.finder.view();
        match (&what.to_ascii_lowercase()[..], args) {
            (b"masters" | b"primaries", []) => self.masters(&view).await,
            (b"myid", []) => Value::Bulk(view.node_run_id(view.me).into_bytes()),
            (b"get-master-addr-by-name" | b"get-primary-addr-by-name", [name]) => {
                self.address(&view, name).await
            }
            (b"master" | b"primary", [name]) => match named(&view, name) {
                Some((endpoint, internal)) => {
                    let found = self.finder.find(&view, endpoint, internal).await;
                    masters::master(&view, &found)
                }
                None => no_such_master(),
            },
            (b"sentinels", [name]) => match named(&view, name) {
                Some((_, internal)) => masters::sentinels(&view, self.port, internal),
                None => no_such_master(),
            },
            (b"slaves" | b"replicas", [name]) => match named(&view, name) {
                Some(_) => Value::Array(Vec::new()),
                None => no_such_master(),
            },
            (b"ckquorum", [name]) => match named(&view, name) {
                Some(_) => masters::quorum(&view),
                None => no_such_master(),
            },
            (
                b"failover" | b"monitor" | b"remove" | b"set" | b"reset" | b"flushconfig"
                | b"config" | b"simulate-failure",
                _,
            ) => error(&format!(
                "ERR 'SENTINEL {}' is not possible: the cluster itself decides where a database \
                 is. See rladmin",
                shown(what)
            )),
            (other, _) => error(&format!(
                "ERR unknown subcommand or wrong number of arguments for 'sentinel|{}'",
                shown(other)
            )),
        }
    }

    async fn masters(&self, view: &Arc<View>) -> Value {
        let external = self.finder.find_all(view, false).await;
        let internal = self.finder.find_all(view, true).await;
        let both = external.iter().chain(&internal);
        Value::Array(both.map(|found| masters::master(view, found)).collect())
    }

    async fn address(&self, view: &View, name: &[u8]) -> Value {
        let Some((endpoint, internal)) = named(view, name) else {
            return Value::Null;
        };
        let found = self.finder.find(view, endpoint, internal).await;
        match found.address {
            Some(address) if found.live => Value::Array(vec![
                Value::bulk(&address.ip().to_string()),
                Value::bulk(&address.port().to_string()),
            ]),
            _ => Value::Null,
        }
    }
}

fn named<'a>(view: &'a View, name: &[u8]) -> Option<(&'a crate::view::Endpoint, bool)> {
    view.by_name(std::str::from_utf8(name).ok()?)
}

/// As an engine without a password for its default user: a user and any password are taken, a password
/// alone is a mistake of the client's configuration.
fn auth(args: Args<'_>) -> Value {
    match args {
        [_] => error(
            "ERR AUTH <password> called without any password configured for the default user. Are \
             you sure your configuration is correct?",
        ),
        [b"default", _] => ok(),
        [_, _] => error("WRONGPASS invalid username-password pair or user is disabled."),
        _ => arity("auth"),
    }
}

fn command_docs(args: Args<'_>) -> Value {
    let what = args.first().map(|arg| arg.to_ascii_lowercase());
    match what.as_deref() {
        Some(b"count") => Value::Integer(0),
        Some(b"docs") => Value::Map(Vec::new()),
        _ => Value::Array(Vec::new()),
    }
}

fn is_name(name: &[u8]) -> bool {
    name.len() <= NAME_MAX && name.iter().all(|byte| (b'!'..=b'~').contains(byte))
}

fn ok() -> Value {
    Value::Simple(b"OK".to_vec())
}

fn error(text: &str) -> Value {
    Value::Error(text.as_bytes().to_vec())
}

fn arity(name: &str) -> Value {
    error(&format!(
        "ERR wrong number of arguments for '{name}' command"
    ))
}

fn no_such_master() -> Value {
    error("ERR No such master with that name")
}

/// A client's word in an error: short, and printable.
fn shown(word: &[u8]) -> String {
    word.iter()
        .take(32)
        .map(|byte| match byte {
            b' '..=b'~' => char::from(*byte),
            _ => '?',
        })
        .collect()
}
