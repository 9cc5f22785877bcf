//! What differs, on purpose, from an engine that clients talk to directly. `docs/compatibility.md` is
//! made from this table, and the tests take nothing else for a difference that is meant.

use std::fmt::Write as _;

/// How a command differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It is refused by name.
    Refused,
    /// It is refused by name, but for some arguments.
    Partly,
    /// It works, and something about it is different.
    Different,
}

/// One difference.
#[derive(Clone, Copy, Debug)]
pub struct Difference {
    /// The command, with its subcommand if it is about that: `CLIENT PAUSE`.
    pub command: &'static str,
    /// How it differs.
    pub kind: Kind,
    /// What is different.
    pub what: &'static str,
    /// The reason.
    pub why: &'static str,
}

const fn refused(command: &'static str, why: &'static str) -> Difference {
    let (kind, what) = (Kind::Refused, "refused by name");
    Difference {
        command,
        kind,
        what,
        why,
    }
}

const fn partly(command: &'static str, what: &'static str, why: &'static str) -> Difference {
    let kind = Kind::Partly;
    Difference {
        command,
        kind,
        what,
        why,
    }
}

const fn different(command: &'static str, what: &'static str, why: &'static str) -> Difference {
    let kind = Kind::Different;
    Difference {
        command,
        kind,
        what,
        why,
    }
}

const ROLES: &str = "the cluster decides which copy is the primary";
const SAVING: &str = "the cluster saves the database as its settings say";
const SETTINGS: &str = "settings belong to the database: `rladmin tune db` or the REST API";
const HELPS: &str = "what it tells of is refused; on Redis 6.2 it is refused too";
const ONLY_TEXT: &str = "it is only text";
const USERS: &str = "users belong to the cluster";
const INSIDE: &str = "it is about the engine itself, which is the cluster's";
const CONNECTIONS: &str = "connections are the proxy's, those to the engine are shared";

/// All of them, by name.
pub const DIFFERENCES: &[Difference] = &[
    refused("ACL", USERS),
    different("ACL HELP", HELPS, ONLY_TEXT),
    different("ACL WHOAMI", "always `default`", USERS),
    different(
        "AUTH",
        "a command that the proxy answers itself is at most 64 KiB long; so with `HELLO` and `CLIENT`",
        "only so much of a command is held",
    ),
    refused("BGREWRITEAOF", SAVING),
    refused("BGSAVE", SAVING),
    different(
        "CLIENT CACHING",
        "is for the next command that the engine gets: one that the proxy answers, as `HELLO`, does not use it up",
        CONNECTIONS,
    ),
    different(
        "CLIENT ID",
        "the proxy's number, no other client of the cluster's has it: that of the node with twelve digits behind; also in `HELLO`, `CLIENT LIST` and `CLIENT INFO`",
        CONNECTIONS,
    ),
    refused("CLIENT IMPORT-SOURCE", INSIDE),
    different(
        "CLIENT INFO",
        "fields that only an engine knows are 0",
        CONNECTIONS,
    ),
    different(
        "CLIENT KILL",
        "among the clients of all proxies that serve the endpoint; so with `UNBLOCK`. `TRYAGAIN` names a node that has not answered within a second, if that could make a difference. `ID 0` is nobody; Redis 6.2 takes it for everybody",
        CONNECTIONS,
    ),
    different(
        "CLIENT LIST",
        "the clients of all proxies that serve the endpoint, but those of a node that does not answer within a second; an error if one node has more than 8 MiB of them; fields that only an engine knows are 0, and `cmd` is that of the client that asks alone",
        CONNECTIONS,
    ),
    different(
        "CLIENT PAUSE",
        "holds up the clients of this database at all proxies that serve it; so with `UNPAUSE`. `TRYAGAIN` names a node that has not answered within a second; the others obey. `EVALSHA` and `FCALL` wait for `WRITE` whatever their script says of itself. Keys expire meanwhile, `INFO` shows no pause, and it ends when the proxy is replaced",
        "in the engine it would hold up the cluster's own work and the clients of other proxies",
    ),
    different(
        "CLIENT TRACKING",
        "`REDIRECT` is refused: RESP3 does without. After `OFF` nothing is told any more of what was read before; an engine does once tracking is on again",
        CONNECTIONS,
    ),
    refused(
        "CLUSTER",
        "an endpoint is one server for its clients, however many shards there are",
    ),
    different(
        "COMMAND",
        "tells of what is accepted here: what is refused by name has no place in it, in `COUNT`, `LIST` and `DOCS`, and is null in `INFO`; over several shards that is more. Inside a script it is the engine's. A reply of more than 4 MiB, as many names ask for, is an error",
        "a client that chooses by it chooses right",
    ),
    refused("COMMANDLOG", INSIDE),
    different("COMMANDLOG HELP", HELPS, ONLY_TEXT),
    different("CONFIG GET", "passwords are empty", SETTINGS),
    refused("CONFIG RESETSTAT", SETTINGS),
    refused("CONFIG REWRITE", SETTINGS),
    partly(
        "CONFIG SET",
        "refused by name; but `notify-keyspace-events`, alone and outside of `MULTI`, is taken: for the whole database and for good, with `OK` when it is in force on every shard",
        SETTINGS,
    ),
    refused("DEBUG", INSIDE),
    different(
        "EVAL",
        "a script that returns an error's text as a value returns the name of the engine's user with it; so with all scripts. Behind one that does not end, other clients hear `BUSY` when the engine says so; scripts that were sent in its first second get theirs when it has ended",
        "what is no error is not looked into; clients' scripts share a connection to the engine",
    ),
    different(
        "EXEC",
        "null or `EXECABORT` if the connection to the shard was lost since `WATCH` or `MULTI`; at most 64 MiB long if the transaction has a command in it that the proxy answers or looks into",
        "what was watched or queued is gone with it; such a reply is put together in the proxy",
    ),
    refused("FAILOVER", ROLES),
    different(
        "GET",
        "any command may be answered `TRYAGAIN` while no shard is there, and `ERR … outcome of this command is unknown` if it was lost meanwhile",
        "a command that may have run is never sent again",
    ),
    different(
        "HELLO",
        "closes a client that changes the version while it is subscribed or tracked, or over several shards watches keys; on one shard, `EXEC` is null then, or `EXECABORT` as at the engine",
        CONNECTIONS,
    ),
    different(
        "INFO",
        "the engine's own facts: its clients are the proxy's connections",
        CONNECTIONS,
    ),
    refused("LASTSAVE", SAVING),
    refused("LATENCY DOCTOR", INSIDE),
    refused("LATENCY GRAPH", INSIDE),
    refused("LATENCY HISTOGRAM", INSIDE),
    refused(
        "MIGRATE",
        "keys leave the database by its own means: replication, backup, import",
    ),
    refused("MODULE", INSIDE),
    different(
        "MONITOR",
        "shows what the engines run for clients of all proxies, but without what the proxy answers (`CLIENT`, `AUTH`, …), and with addresses of the proxies' connections: an engine names a socket's path or a proxy's port, and many clients share a connection. What the proxy and the cluster ask themselves is left out: it is spelled like `pING` or `iNFO`, so a client that spells a command so does not see it either; what a release before 1.2 asks is not, but for `HELLO` and `AUTH`. A blocked command is shown once more when its primary has moved. Afterwards only `RESET` and `QUIT` are possible",
        "it is the engine's; replies could not be told from the stream",
    ),
    different(
        "MULTI",
        "inside a transaction `HELLO` with another version, `MONITOR` and the (un)subscribing commands are refused; what is refused outside is refused at once, so that `EXEC` answers `EXECABORT`",
        "a reply cannot change its version in the middle, or become a stream",
    ),
    different(
        "OBJECT REFCOUNT",
        "Valkey 9.1 counts replies with the value that have not left it, and through an endpoint they leave at other times",
        "it is about the engine's memory at that moment",
    ),
    refused("PFDEBUG", INSIDE),
    refused("PFSELFTEST", INSIDE),
    refused("PSYNC", ROLES),
    different(
        "PUNSUBSCRIBE",
        "an error is answered even after `CLIENT REPLY OFF`; so with all of its kind",
        "confirmations are, and they cannot be told from errors beforehand",
    ),
    refused("REPLCONF", ROLES),
    refused("REPLICAOF", ROLES),
    refused("RESTORE-ASKING", INSIDE),
    refused("SAVE", SAVING),
    different(
        "SCAN",
        "the cursor is another number than the engine's: it carries a mark, by which a scan begins anew when the primary has moved since, so that it misses nothing; keys may come twice then, as they may at any time. So with `HSCAN`, `SSCAN` and `ZSCAN`. A cursor that the endpoint did not give out begins anew. The command is at most 64 KiB long. Over several shards a blank or a sign before the number is an error, with every engine. Inside a script the cursors are the engine's",
        "another process has its tables in another order: a cursor of the last one would skip keys",
    ),
    refused("SCRIPT DEBUG", INSIDE),
    refused("SHUTDOWN", ROLES),
    refused("SLAVEOF", ROLES),
    different("SLOWLOG GET", "addresses are the proxy's", CONNECTIONS),
    refused("SYNC", ROLES),
];

/// The difference that is meant for a command; that of its subcommand comes first.
#[must_use]
pub fn difference(name: &str, sub: &str) -> Option<&'static Difference> {
    let full = format!("{name} {sub}");
    let find = |wanted: &str| {
        DIFFERENCES
            .iter()
            .find(|known| known.command.eq_ignore_ascii_case(wanted))
    };
    find(&full).or_else(|| find(name))
}

/// Whether a command is refused by name, whatever its arguments are: `sub` is that of a container. Of a container
/// without one, whether all of it is.
#[must_use]
pub fn is_refused(name: &str, sub: Option<&str>) -> bool {
    let mut all = None;
    let mut taken = false;
    for known in DIFFERENCES {
        let (container, of) = match known.command.split_once(' ') {
            Some((container, of)) => (container, Some(of)),
            None => (known.command, None),
        };
        if !container.eq_ignore_ascii_case(name) {
            continue;
        }
        let refused = known.kind == Kind::Refused;
        match (of, sub) {
            (None, _) => all = Some(refused),
            (Some(of), Some(sub)) if of.eq_ignore_ascii_case(sub) => return refused,
            (Some(_), _) => taken |= !refused,
        }
    }
    all == Some(true) && (sub.is_some() || !taken)
}

/// What is not about single commands.
const WIRE: &str = "\n## Requests\n\nHow a request is written is read in the same way in front of every engine: up to \
     2147483647 arguments are announced (Redis 6.2: 1048576); behind an argument there must be CR LF (Redis and Valkey 8.0 do \
     not look); an inline command has 64 KiB at most, in however many pieces it comes; nothing but a blank follows a closing \
     quote in it (Valkey 9.1: anything may), and a NUL does not end it. Before `AUTH` everything but `AUTH`, `HELLO`, `QUIT` \
     and `RESET` is `NOAUTH`, commands that there are not, too.\n\nA client with more than a megabyte of replies \
     that it has not taken (*soft* of `client_buffer`) is not read. One that writes a pipeline of some ten megabytes whose replies are as \
     large, and reads nothing before it has written everything, gets no further, and is closed after a minute; an engine keeps all its replies in \
     memory. Such a client sends shorter pipelines, or reads meanwhile, or its database gets a larger `client_buffer`.\n";

/// `docs/compatibility.md`.
#[must_use]
pub fn page() -> String {
    let mut page = String::from(
        "# Compatibility\n\nGenerated from `crates/proxy/src/compatibility.rs`: `MAINSTAY_FIX=1 cargo test -p proxy \
         compatibility` writes it again.\n\nThrough an endpoint a database with one shard behaves as its engine does, byte \
         for byte. The intended differences are these. Errors that name the engine's user name `default`.\n\n\
         | command | what | why |\n|---|---|---|\n",
    );
    for Difference {
        command, what, why, ..
    } in DIFFERENCES
    {
        let command = if *command == "GET" { "any" } else { command };
        let _ = writeln!(page, "| `{command}` | {what} | {why} |");
    }
    page.push_str(WIRE);
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sorted_and_found() {
        assert!(DIFFERENCES.is_sorted_by_key(|known| known.command));
        assert_eq!(
            difference("client", "pause").map(|d| d.kind),
            Some(Kind::Different)
        );
        assert_eq!(
            difference("ACL", "WHOAMI").map(|d| d.kind),
            Some(Kind::Different)
        );
        assert_eq!(
            difference("acl", "list").map(|d| d.kind),
            Some(Kind::Refused)
        );
        assert!(difference("SET", "k").is_none());
    }

    #[test]
    fn what_the_proxy_refuses_itself_is_there() {
        for command in resp::command::all() {
            let here = command.class == resp::command::Class::Refused;
            assert!(!here || is_refused(command.name, None), "{}", command.name);
        }
    }

    #[test]
    fn what_is_refused_as_a_whole() {
        for (name, sub, wanted) in [
            ("shutdown", None, true),
            ("get", None, false),
            // Some of it is taken.
            ("acl", None, false),
            ("acl", Some("whoami"), false),
            ("acl", Some("list"), true),
            ("config", None, false),
            ("config", Some("get"), false),
            ("config", Some("set"), false),
            ("config", Some("rewrite"), true),
            ("cluster", Some("info"), true),
            ("client", Some("kill"), false),
            ("client", Some("import-source"), true),
            ("swapdb", None, false),
        ] {
            assert_eq!(is_refused(name, sub), wanted, "{name} {sub:?}");
        }
    }

    #[test]
    fn the_page_is_up_to_date() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/compatibility.md");
        if std::env::var_os("MAINSTAY_FIX").is_some() {
            std::fs::write(path, page()).unwrap();
        }
        let there = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            there == page(),
            "docs/compatibility.md is out of date: run MAINSTAY_FIX=1 cargo test -p proxy compatibility"
        );
    }
}
