//! The filters of `CLIENT LIST` and `CLIENT KILL`, as each engine has them.

use super::client::Client;
use super::client_command::flags;
use super::session::Db;
use crate::texts;
use resp::number::strict_i64;

/// Which engine a database has, as far as its words about connections differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Generation {
    /// Redis 6.2.
    Six,
    /// Redis 7.
    Seven,
    /// Valkey 8.
    Eight,
    /// Valkey 9 and later.
    Nine,
}

impl Generation {
    /// From the version that the engine tells in its greeting.
    pub(super) fn of(version: &[u8]) -> Self {
        match version.first() {
            Some(b'6') => Self::Six,
            Some(b'7') => Self::Seven,
            Some(b'8') => Self::Eight,
            _ => Self::Nine,
        }
    }

    /// From the major version alone.
    pub(super) fn of_major(major: u8) -> Self {
        match major {
            6 => Self::Six,
            7 => Self::Seven,
            8 => Self::Eight,
            _ => Self::Nine,
        }
    }

    pub(super) fn major(self) -> u8 {
        match self {
            Self::Six => 6,
            Self::Seven => 7,
            Self::Eight => 8,
            Self::Nine => 9,
        }
    }
}

/// Which clients: those that pass all tests.
#[derive(Debug, Default)]
pub(super) struct Filter {
    tests: Vec<(bool, Test)>,
    /// This one is left out.
    pub(super) skip: Option<u64>,
}

#[derive(Debug)]
enum Test {
    Ids(Vec<u64>),
    Peer(Vec<u8>),
    Local(Vec<u8>),
    Ip(Vec<u8>),
    /// `normal` or `pubsub`; any other type is none of ours.
    Kind(Vec<u8>),
    User(Vec<u8>),
    Name(Vec<u8>),
    LibName(Vec<u8>),
    LibVer(Vec<u8>),
    Flags(Vec<u8>),
    Capa(Vec<u8>),
    Db(i64),
    /// Least age, seconds.
    Age(u64),
    /// Least time without a command, seconds.
    Idle(u64),
}

impl Test {
    fn passes(&self, client: &Client) -> bool {
        let session = &client.session;
        match self {
            Self::Ids(ids) => ids.contains(&session.id),
            Self::Peer(peer) => peer == session.peer.to_string().as_bytes(),
            Self::Local(local) => local == session.local.to_string().as_bytes(),
            Self::Ip(ip) => ip == session.peer.ip().to_string().as_bytes(),
            Self::Kind(kind) => {
                let own: &[u8] = if session.own.subscriptions.any() {
                    b"pubsub"
                } else {
                    b"normal"
                };
                kind == own
            }
            Self::User(user) => user == b"default",
            Self::Name(name) => *name == session.name,
            Self::LibName(name) => *name == session.lib_name,
            Self::LibVer(version) => *version == session.lib_ver,
            Self::Flags(wanted) => {
                let own = flags(client);
                wanted.iter().all(|flag| own.as_bytes().contains(flag))
            }
            Self::Capa(wanted) => wanted.is_empty() || session.redirect,
            Self::Db(db) => match session.own.db {
                Db::Number(own) => i64::from(own) == *db,
                Db::Unknown => false,
            },
            Self::Age(age) => session.created.elapsed().as_secs() >= *age,
            Self::Idle(idle) => session.active.elapsed().as_secs() >= *idle,
        }
    }
}

impl Filter {
    pub(super) fn takes(&self, client: &Client) -> bool {
        self.skip != Some(client.session.id)
            && self
                .tests
                .iter()
                .all(|(negated, test)| test.passes(client) != *negated)
    }

    /// The ids of which a client must have one; `None`: any will do.
    pub(super) fn ids(&self) -> Option<&[u64]> {
        self.tests.iter().find_map(|test| match test {
            (false, Test::Ids(ids)) => Some(ids.as_slice()),
            _ => None,
        })
    }

    /// The client at an address, as `CLIENT KILL <address>` names it.
    pub(super) fn address(address: &[u8]) -> Self {
        Self {
            tests: vec![(false, Test::Peer(address.to_vec()))],
            skip: None,
        }
    }

    /// The arguments of `CLIENT LIST`.
    ///
    /// # Errors
    /// What the engine says.
    pub(super) fn of_list(
        args: &[&[u8]],
        generation: Generation,
        me: u64,
    ) -> Result<Self, Vec<u8>> {
        if generation >= Generation::Nine {
            return Self::read(args, generation, me, None);
        }
        let mut filter = Self::default();
        match args {
            [] => {}
            [word, kind] if word.eq_ignore_ascii_case(b"TYPE") => {
                let kind = Test::Kind(known_type(kind, generation)?);
                filter.tests.push((false, kind));
            }
            [word, ids @ ..] if word.eq_ignore_ascii_case(b"ID") && !ids.is_empty() => {
                let id = |word: &&[u8]| strict_i64(word).map(|id| u64::try_from(id).unwrap_or(0));
                let ids = ids.iter().map(id).collect::<Option<Vec<u64>>>();
                let ids = ids.ok_or_else(|| b"-ERR Invalid client ID\r\n".to_vec())?;
                filter.tests.push((false, Test::Ids(ids)));
            }
            _ => return Err(texts::SYNTAX.to_vec()),
        }
        Ok(filter)
    }

    /// The filters of `CLIENT KILL`; the asker is left out if they do not say otherwise.
    ///
    /// # Errors
    /// What the engine says.
    pub(super) fn of_kill(
        args: &[&[u8]],
        generation: Generation,
        me: u64,
    ) -> Result<Self, Vec<u8>> {
        Self::read(args, generation, me, Some(me))
    }

    fn read(
        args: &[&[u8]],
        generation: Generation,
        me: u64,
        skip: Option<u64>,
    ) -> Result<Self, Vec<u8>> {
        let mut filter = Self {
            tests: Vec::new(),
            skip,
        };
        let mut rest = args;
        while let [option, tail @ ..] = rest {
            let ([value, after @ ..], option) = (tail, option.to_ascii_lowercase()) else {
                return Err(texts::SYNTAX.to_vec());
            };
            rest = after;
            if option == b"skipme" {
                filter.skip = match value.to_ascii_lowercase().as_slice() {
                    b"yes" => Some(me),
                    b"no" => None,
                    _ => return Err(texts::SYNTAX.to_vec()),
                };
                continue;
            }
            let (negated, name) = match option.strip_prefix(b"not-") {
                Some(name) if generation >= Generation::Nine => (true, name),
                _ => (false, option.as_slice()),
            };
            let test = match name {
                b"id" => {
                    let (ids, after) = ids(tail, generation)?;
                    rest = after;
                    Test::Ids(ids)
                }
                _ => test(name, value, generation)?,
            };
            // The last one of its kind counts.
            filter.tests.retain(|(other, known)| {
                *other != negated || std::mem::discriminant(known) != std::mem::discriminant(&test)
            });
            filter.tests.push((negated, test));
        }
        Ok(filter)
    }
}

/// What follows the ids.
type Rest<'a, 'b> = &'a [&'b [u8]];

/// Ids, and what follows them: up to Valkey 9 there is one.
fn ids<'a, 'b>(
    words: Rest<'a, 'b>,
    generation: Generation,
) -> Result<(Vec<u64>, Rest<'a, 'b>), Vec<u8>> {
    let positive = b"-ERR client-id should be greater than 0\r\n";
    let many = generation >= Generation::Nine;
    let mut found = Vec::new();
    let mut rest = words;
    while let [word, after @ ..] = rest {
        let Some(id) = strict_i64(word) else {
            break;
        };
        match u64::try_from(id) {
            Ok(0) | Err(_) if generation > Generation::Six => return Err(positive.to_vec()),
            id => found.push(id.unwrap_or(0)),
        }
        rest = after;
        if !many {
            break;
        }
    }
    if found.is_empty() {
        return Err(match generation {
            Generation::Six => texts::NOT_AN_INTEGER.to_vec(),
            Generation::Seven | Generation::Eight => positive.to_vec(),
            Generation::Nine => texts::SYNTAX.to_vec(),
        });
    }
    Ok((found, rest))
}

fn test(name: &[u8], value: &[u8], generation: Generation) -> Result<Test, Vec<u8>> {
    let text = || value.to_vec();
    let number = |what: &str| {
        strict_i64(value).ok_or_else(|| {
            format!("-ERR {what} is not an integer or out of range\r\n").into_bytes()
        })
    };
    Ok(match name {
        b"addr" => Test::Peer(text()),
        b"laddr" => Test::Local(text()),
        b"type" => Test::Kind(known_type(value, generation)?),
        b"user" if value == b"default" => Test::User(text()),
        b"user" => {
            let user = texts::shown(value);
            return Err(format!("-ERR No such user '{user}'\r\n").into_bytes());
        }
        b"maxage" if generation >= Generation::Eight => match number("maxage")? {
            age @ 1.. => Test::Age(age.unsigned_abs()),
            _ => return Err(b"-ERR maxage should be greater than 0\r\n".to_vec()),
        },
        _ if generation < Generation::Nine => return Err(texts::SYNTAX.to_vec()),
        b"name" => Test::Name(text()),
        b"lib-name" => Test::LibName(text()),
        b"lib-ver" => Test::LibVer(text()),
        b"ip" => Test::Ip(text()),
        b"idle" => match number("idle")? {
            idle @ 1.. => Test::Idle(idle.unsigned_abs()),
            _ => return Err(b"-ERR idle should be greater than 0\r\n".to_vec()),
        },
        b"db" => match number("DB")? {
            db @ 0..16 => Test::Db(db),
            _ => return Err(b"-ERR DB number should be between 0 and 15\r\n".to_vec()),
        },
        b"flags" if value.iter().all(|flag| FLAGS.contains(flag)) => Test::Flags(text()),
        b"capa" if value.iter().all(|capa| *capa == b'r') => Test::Capa(text()),
        b"flags" | b"capa" => {
            let (kind, value) = (texts::shown(name), texts::shown(value));
            let text = format!("-ERR Unknown {kind} found in the provided filter: {value}\r\n");
            return Err(text.into_bytes());
        }
        _ => return Err(texts::SYNTAX.to_vec()),
    })
}

/// The flags that the newest engine knows.
const FLAGS: &[u8] = b"OSMPxbtRBcurUAeTIgjiEN";

fn known_type(kind: &[u8], generation: Generation) -> Result<Vec<u8>, Vec<u8>> {
    let lower = kind.to_ascii_lowercase();
    match lower.as_slice() {
        b"primary" if generation < Generation::Eight => {}
        b"normal" | b"pubsub" | b"master" | b"primary" | b"replica" | b"slave" => return Ok(lower),
        _ => {}
    }
    Err(format!("-ERR Unknown client type '{}'\r\n", texts::shown(kind)).into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kill(words: &[&str], generation: Generation) -> Result<Filter, String> {
        let words: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
        Filter::of_kill(&words, generation, 7)
            .map_err(|text| String::from_utf8(text).unwrap().trim().to_owned())
    }

    #[test]
    fn generations_are_told_and_read() {
        for version in ["6.2.7", "7.0.15", "8.0.1", "9.0.0", "10.1.1"] {
            let generation = Generation::of(version.as_bytes());
            assert_eq!(Generation::of_major(generation.major()), generation);
        }
    }

    #[test]
    fn filters_of_each_engine() {
        use Generation::{Eight, Nine, Seven, Six};
        for (words, generation, wanted) in [
            (
                &["ID", "0"][..],
                Nine,
                "-ERR client-id should be greater than 0",
            ),
            (&["ID", "x"], Nine, "-ERR syntax error"),
            (
                &["ID", "x"],
                Seven,
                "-ERR client-id should be greater than 0",
            ),
            (
                &["ID", "x"],
                Six,
                "-ERR value is not an integer or out of range",
            ),
            (&["ID", "1", "2"], Eight, "-ERR syntax error"),
            (
                &["MAXAGE", "0"],
                Nine,
                "-ERR maxage should be greater than 0",
            ),
            (&["MAXAGE", "1"], Seven, "-ERR syntax error"),
            (&["NAME", "x"], Eight, "-ERR syntax error"),
            (&["USER", "x"], Six, "-ERR No such user 'x'"),
            (&["TYPE", "odd"], Six, "-ERR Unknown client type 'odd'"),
            (&["SKIPME", "maybe"], Nine, "-ERR syntax error"),
        ] {
            assert_eq!(kill(words, generation).unwrap_err(), wanted, "{words:?}");
        }
        let filter = kill(&["ID", "1", "2", "NOT-NAME", "x", "SKIPME", "no"], Nine).unwrap();
        assert_eq!((filter.tests.len(), filter.skip), (2, None));
        let filter = kill(&["ADDR", "1.2.3.4:5", "ADDR", "1.2.3.4:6"], Six).unwrap();
        assert_eq!((filter.tests.len(), filter.skip), (1, Some(7)));
    }
}
