//! The shape of a command: words, at most one operand, then `keyword value` pairs in any order.
//! One table of such commands ([`super::commands`]) serves parser, help, completion and the
//! reference page.

use model::tuning::{ClientBuffer, keyspace_events};
use model::{DatabaseUid, NodeUid, ShardUid, units, validate};
use std::net::IpAddr;

/// A command of `rladmin`.
#[derive(Clone, Copy, Debug)]
pub struct Command {
    /// The words that name it: `cluster create`. `<node>` and `<name>` are places of values.
    pub words: &'static [&'static str],
    /// What it is in the program.
    pub verb: Verb,
    /// The one value without a keyword, if it has one.
    pub operand: Option<Operand>,
    /// Its keywords.
    pub fields: &'static [Field],
    /// Whether at least one keyword must be given.
    pub some_field: bool,
    /// One line: what it does.
    pub summary: &'static str,
    /// More to know, a paragraph each.
    pub notes: &'static [&'static str],
}

impl Command {
    /// The keyword of this name.
    #[must_use]
    pub fn field(&self, word: &str) -> Option<&'static Field> {
        self.fields.iter().find(|field| field.word == word)
    }

    /// Whether what was typed begins with the words that name it.
    #[must_use]
    pub fn is_named(&self, typed: &[String]) -> bool {
        typed.len() >= self.words.len() && self.agrees(typed) == self.words.len()
    }

    /// How many of its words were typed, from the first on.
    #[must_use]
    pub fn agrees(&self, typed: &[String]) -> usize {
        let both = self.words.iter().zip(typed);
        both.take_while(|(word, typed)| stands_for(word, typed))
            .count()
    }

    /// The words that name it, as one text.
    #[must_use]
    pub fn name(&self) -> String {
        self.words.join(" ")
    }

    /// `cluster master [set <node>]`.
    #[must_use]
    pub fn usage(&self) -> String {
        let mut parts = vec![self.name()];
        if let Some(operand) = &self.operand {
            let value = operand.kind.placeholder(operand.name);
            parts.push(if operand.required {
                value
            } else {
                optional(&value)
            });
        }
        for field in self.fields {
            let mut part = field.word.to_owned();
            if field.arity != Arity::Flag {
                part = format!("{part} {}", field.kind.placeholder(field.name));
            }
            if field.arity == Arity::Many {
                part.push_str("...");
            }
            parts.push(if field.required {
                part
            } else {
                optional(&part)
            });
        }
        parts.join(" ")
    }
}

/// Whether a typed word may stand where a command has this one.
fn stands_for(word: &str, typed: &str) -> bool {
    match word {
        "<node>" => typed == word || node(typed).is_ok(),
        "<name>" => !typed.starts_with('-'),
        _ => word == typed,
    }
}

fn optional(text: &str) -> String {
    format!("[{text}]")
}

/// What a command is in the program.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[expect(missing_docs, reason = "each is the command of its name")]
pub enum Verb {
    ClusterCreate,
    ClusterJoin,
    ClusterConfig,
    ClusterMaster,
    ClusterRunningActions,
    UpgradeStatus,
    UpgradePlan,
    UpgradePaths,
    UpgradeFinalize,
    UpgradeConfig,
    UpgradeStart,
    UpgradeWatch,
    UpgradePause,
    UpgradeResume,
    UpgradeRollback,
    UpgradeReport,
    Explain,
    TuneCluster,
    TuneDatabase,
    TuneProxy,
    CreateDatabase,
    DeleteDatabase,
    Failover,
    Migrate,
    NodeMaintenanceOn,
    NodeMaintenanceOff,
    NodeEnslave,
    NodeRack,
    NodeRemove,
    NodeSnapshotCreate,
    NodeSnapshotDelete,
    NodeSnapshotRestore,
    NodeSnapshotList,
    Retry,
    Abort,
    Status,
    InfoCluster,
    InfoDatabase,
    InfoNode,
    InfoProxy,
    VerifyBalance,
    VerifyRackAware,
    Help,
    Exit,
}

/// The value of a command that has no keyword.
#[derive(Clone, Copy, Debug)]
pub struct Operand {
    /// Its name in usage.
    pub name: &'static str,
    /// What it may be.
    pub kind: Kind,
    /// Whether it must be given.
    pub required: bool,
    /// One line.
    pub help: &'static str,
}

/// A keyword of a command.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// The keyword.
    pub word: &'static str,
    /// Name of its value in usage.
    pub name: &'static str,
    /// What its value may be.
    pub kind: Kind,
    /// How many values.
    pub arity: Arity,
    /// Whether it must be given.
    pub required: bool,
    /// One line.
    pub help: &'static str,
}

impl Field {
    /// An optional keyword with one value.
    #[must_use]
    pub const fn one(
        word: &'static str,
        name: &'static str,
        kind: Kind,
        help: &'static str,
    ) -> Self {
        Self {
            word,
            name,
            kind,
            arity: Arity::One,
            required: false,
            help,
        }
    }

    /// An optional keyword with one or more values.
    #[must_use]
    pub const fn many(
        word: &'static str,
        name: &'static str,
        kind: Kind,
        help: &'static str,
    ) -> Self {
        Self {
            word,
            name,
            kind,
            arity: Arity::Many,
            required: false,
            help,
        }
    }

    /// A keyword without a value.
    #[must_use]
    pub const fn flag(word: &'static str, help: &'static str) -> Self {
        Self {
            word,
            name: "",
            kind: Kind::Text,
            arity: Arity::Flag,
            required: false,
            help,
        }
    }

    /// The same keyword, required.
    #[must_use]
    pub const fn required(mut self) -> Self {
        self.required = true;
        self
    }
}

/// How many values a keyword takes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Arity {
    /// None.
    Flag,
    /// One.
    One,
    /// One or more, up to the next keyword.
    Many,
}

/// What a value may be.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// Anything.
    Text,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A number in this range, ends included.
    Number(u64, u64),
    /// A size such as `512MB`.
    Size,
    /// What is kept for a slow client: `16MB:1MB:10`.
    ClientBuffer,
    /// Keyspace events as the engines spell them, or `none`.
    KeyspaceEvents,
    /// A cluster's name.
    ClusterName,
    /// The name of a new database.
    DatabaseName,
    /// A user's e-mail.
    Email,
    /// A password, or `-`: read from standard input.
    Password,
    /// A rack id.
    Rack,
    /// An IP address.
    Address,
    /// An IP address, with or without a port.
    AddressOfNode,
    /// SHA-256 in hex, with or without colons.
    Fingerprint,
    /// A node: `1` or `node:1`.
    Node,
    /// A node, or `all`.
    NodeOrAll,
    /// A database: `db:1` or its name.
    Database,
    /// A shard: `1` or `redis:1`.
    Shard,
}

impl Kind {
    /// How the value stands in usage: `<name>`, or the words that it may be.
    #[must_use]
    pub fn placeholder(self, name: &str) -> String {
        match self {
            Self::Choice(words) if name.is_empty() => format!("{{{}}}", words.join("|")),
            _ => format!("<{name}>"),
        }
    }

    /// Words that the value may be, for completion.
    #[must_use]
    pub fn words(self) -> &'static [&'static str] {
        match self {
            Self::Choice(words) => words,
            Self::NodeOrAll => &["all"],
            Self::KeyspaceEvents => &["none"],
            Self::Database => &["db:"],
            Self::Shard => &["redis:"],
            Self::Node => &["node:"],
            _ => &[],
        }
    }

    /// Checks a value.
    ///
    /// # Errors
    /// A sentence that says what is accepted.
    pub fn check(self, text: &str) -> Result<(), String> {
        let shown = validate::shown(text);
        let of_model = |result: Result<(), model::ApiError>| result.map_err(|e| e.description);
        match self {
            Self::Text if text.is_empty() => Err("the value is empty".to_owned()),
            Self::Text => Ok(()),
            Self::Choice(words) if words.contains(&text) => Ok(()),
            Self::Choice(words) => Err(format!("'{shown}' is not one of {}", words.join(", "))),
            Self::Number(min, max) => match text.parse::<u64>() {
                Ok(number) if (min..=max).contains(&number) => Ok(()),
                _ => Err(format!(
                    "'{shown}' is not a whole number from {min} to {max}"
                )),
            },
            Self::Size => units::parse_size(text).map(|_| ()),
            Self::ClientBuffer => of_model(text.parse::<ClientBuffer>().map(|_| ())),
            Self::KeyspaceEvents if text == "none" => Ok(()),
            Self::KeyspaceEvents => keyspace_events(text).map(|_| ()),
            Self::ClusterName => of_model(validate::cluster_name(text)),
            Self::DatabaseName => of_model(validate::database_name(text)),
            Self::Email => of_model(validate::email(text)),
            Self::Password => of_model(validate::password(text)),
            Self::Rack => of_model(validate::rack_id(text)),
            Self::Address => address(text),
            Self::AddressOfNode if text.parse::<std::net::SocketAddr>().is_ok() => Ok(()),
            Self::AddressOfNode => address(text),
            Self::Fingerprint => fingerprint(text).map(|_| ()),
            Self::Node => node(text).map(|_| ()),
            Self::NodeOrAll if text == "all" => Ok(()),
            Self::NodeOrAll => node(text).map(|_| ()),
            Self::Database => database(text).map(|_| ()),
            Self::Shard => shard(text).map(|_| ()),
        }
    }
}

fn address(text: &str) -> Result<(), String> {
    text.parse::<IpAddr>()
        .map(|_| ())
        .map_err(|_| format!("'{}' is not an IP address", validate::shown(text)))
}

/// A node as it is written: `1` or `node:1`.
///
/// # Errors
/// A sentence that says what is accepted.
pub fn node(text: &str) -> Result<NodeUid, String> {
    match text.strip_prefix("node:").unwrap_or(text).parse() {
        Ok(NodeUid(uid)) if uid > 0 => Ok(NodeUid(uid)),
        _ => Err(format!(
            "'{}' is not a node: write 1 or node:1",
            validate::shown(text)
        )),
    }
}

/// A shard as it is written: `1` or `redis:1`.
///
/// # Errors
/// A sentence that says what is accepted.
pub fn shard(text: &str) -> Result<ShardUid, String> {
    match text.strip_prefix("redis:").unwrap_or(text).parse() {
        Ok(ShardUid(uid)) if uid > 0 => Ok(ShardUid(uid)),
        _ => Err(format!(
            "'{}' is not a shard: write 1 or redis:1",
            validate::shown(text)
        )),
    }
}

/// A database as it is written.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum DatabaseRef {
    /// `db:1`.
    Uid(DatabaseUid),
    /// Its name.
    Name(String),
}

/// A database as it is written: `db:1` or its name.
///
/// # Errors
/// A sentence that says what is accepted.
pub fn database(text: &str) -> Result<DatabaseRef, String> {
    let wrong = || {
        format!(
            "'{}' is not a database: write db:<id> or its name",
            validate::shown(text)
        )
    };
    if let Some(number) = text.strip_prefix("db:") {
        return match number.parse() {
            Ok(DatabaseUid(uid)) if uid > 0 => Ok(DatabaseRef::Uid(DatabaseUid(uid))),
            _ => Err(wrong()),
        };
    }
    validate::database_name(text).map_err(|_| wrong())?;
    Ok(DatabaseRef::Name(text.to_owned()))
}

/// A SHA-256 as it is written, to upper-case hex with colons.
///
/// # Errors
/// A sentence that says what is accepted.
pub fn fingerprint(text: &str) -> Result<String, String> {
    let digits: Vec<char> = text.chars().filter(|c| *c != ':').collect();
    if digits.len() != 64 || !digits.iter().all(char::is_ascii_hexdigit) {
        return Err(format!(
            "'{}' is not a SHA-256 fingerprint: 64 hex digits, colons allowed",
            validate::shown(text)
        ));
    }
    let pairs: Vec<String> = digits
        .chunks(2)
        .map(|pair| pair.iter().collect::<String>().to_ascii_uppercase())
        .collect();
    Ok(pairs.join(":"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_and_databases() {
        assert_eq!(node("3"), Ok(NodeUid(3)));
        assert_eq!(node("node:3"), Ok(NodeUid(3)));
        for wrong in ["", "0", "node:", "node:x", "-1", "db:1"] {
            assert!(node(wrong).is_err(), "{wrong}");
        }
        assert_eq!(database("db:7"), Ok(DatabaseRef::Uid(DatabaseUid(7))));
        assert_eq!(database("demo"), Ok(DatabaseRef::Name("demo".to_owned())));
        for wrong in ["", "db:", "db:0", "db:x", "a b"] {
            assert!(database(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn fingerprints() {
        let hex = "ab".repeat(32);
        let colons = vec!["AB"; 32].join(":");
        assert_eq!(fingerprint(&hex), Ok(colons.clone()));
        assert_eq!(fingerprint(&colons), Ok(colons.clone()));
        for wrong in ["", "ab", &colons[3..], &format!("{hex}0"), &"zz".repeat(32)] {
            assert!(fingerprint(wrong).is_err(), "{wrong}");
        }
    }
}
