//! The commands: what the engines say about them, and which need more than being passed on.
//!
//! A command that is [`Class::Plain`] goes to its shard over the shared connection and has exactly
//! one reply.

mod entry;
mod fold;
mod kind;
mod table;

pub use entry::{Command, Engines, Flags, KeyRule, RequestPolicy, ResponsePolicy};
pub use fold::{all, find};
pub use kind::{Kind, kind, plain};
pub use table::ENGINES;

/// The channels that a subscription is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subscription {
    /// `SUBSCRIBE`.
    Channel,
    /// `PSUBSCRIBE`.
    Pattern,
    /// `SSUBSCRIBE`.
    Shard,
}

/// What is special about a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Nothing.
    Plain,
    /// Its reply may take as long as it likes, and it needs a connection of its own.
    Blocking,
    /// Waits for the copies of what its connection wrote.
    Wait,
    /// Blocking if it has the option `BLOCK` before `STREAMS`.
    BlockingOption,
    /// Opens a transaction.
    Multi,
    /// Runs it.
    Exec,
    /// Gives it up.
    Discard,
    /// Watches keys.
    Watch,
    /// Watches nothing any more.
    Unwatch,
    /// Subscribes.
    Subscribe(Subscription),
    /// Ends subscriptions.
    Unsubscribe(Subscription),
    /// Streams all commands of the engine.
    Monitor,
    /// Chooses a numbered database.
    Select,
    /// Greets, signs in, chooses the protocol.
    Hello,
    /// Signs in.
    Auth,
    /// About connections.
    Client,
    /// Ends the connection.
    Quit,
    /// Makes the connection as it was at its start.
    Reset,
    /// `COMMAND`: of the commands that it tells of, only those that are accepted are shown.
    Command,
    /// `CONFIG`: only reading.
    Config,
    /// `ACL`: only `WHOAMI`.
    Acl,
    /// `SCRIPT` or `FUNCTION`: `KILL` must not queue behind what it is to kill. `EVAL`, `FCALL` and their like: they
    /// run a script, which may take as long as it likes.
    Script,
    /// `SCAN`, `HSCAN`, `SSCAN`, `ZSCAN`: the cursor is a place in the tables of one process.
    Cursor,
    /// About the engine itself: it goes there, but some of it is not for clients, so the engine's
    /// refusal is replaced.
    Guarded,
    /// Would break the platform.
    Refused,
    /// First words of HTTP, as a browser sends them that was led here: the engine ends the
    /// connection on them.
    Foreign,
}

/// Finds what is special about a command; case is ignored.
#[inline]
#[must_use]
pub fn classify(name: &[u8]) -> Class {
    // Most commands differ in length or first letter from all that are special.
    let letters = SPECIAL.get(name.len()).copied().unwrap_or(0);
    let first = name.first().map_or(0, |first| first & 31);
    if letters & (1 << first) == 0 {
        return Class::Plain;
    }
    find(name).map_or(Class::Plain, |command| command.class)
}

/// First letters of the commands in [`CLASSES`] of each length; bit 1 is A.
static SPECIAL: [u32; 16] = special();

const fn special() -> [u32; 16] {
    let mut letters = [0; 16];
    let mut at = 0;
    while at < CLASSES.len() {
        let name = CLASSES[at].0.as_bytes();
        letters[name.len()] |= 1 << (name[0] & 31);
        at += 1;
    }
    letters
}

/// The class of a row of the table.
const fn class_of(name: &[u8]) -> Class {
    let mut at = 0;
    while at < CLASSES.len() {
        let (known, class) = CLASSES[at];
        if same(known.as_bytes(), name) {
            return class;
        }
        at += 1;
    }
    Class::Plain
}

const fn same(one: &[u8], other: &[u8]) -> bool {
    if one.len() != other.len() {
        return false;
    }
    let mut at = 0;
    while at < one.len() {
        if one[at] != other[at] {
            return false;
        }
        at += 1;
    }
    true
}

/// The commands that are not plain.
const CLASSES: &[(&str, Class)] = &[
    ("ACL", Class::Acl),
    ("AUTH", Class::Auth),
    ("BGREWRITEAOF", Class::Refused),
    ("BGSAVE", Class::Refused),
    ("BLMOVE", Class::Blocking),
    ("BLMPOP", Class::Blocking),
    ("BLPOP", Class::Blocking),
    ("BRPOP", Class::Blocking),
    ("BRPOPLPUSH", Class::Blocking),
    ("BZMPOP", Class::Blocking),
    ("BZPOPMAX", Class::Blocking),
    ("BZPOPMIN", Class::Blocking),
    ("CLIENT", Class::Client),
    ("CLUSTER", Class::Refused),
    ("COMMAND", Class::Command),
    ("COMMANDLOG", Class::Guarded),
    ("CONFIG", Class::Config),
    ("DEBUG", Class::Refused),
    ("DISCARD", Class::Discard),
    ("EVAL", Class::Script),
    ("EVALSHA", Class::Script),
    ("EVALSHA_RO", Class::Script),
    ("EVAL_RO", Class::Script),
    ("EXEC", Class::Exec),
    ("FAILOVER", Class::Refused),
    ("FCALL", Class::Script),
    ("FCALL_RO", Class::Script),
    ("FUNCTION", Class::Script),
    ("HELLO", Class::Hello),
    ("HSCAN", Class::Cursor),
    ("HOST:", Class::Foreign),
    ("LASTSAVE", Class::Guarded),
    ("LATENCY", Class::Guarded),
    ("MIGRATE", Class::Refused),
    ("MODULE", Class::Refused),
    ("MONITOR", Class::Monitor),
    ("MULTI", Class::Multi),
    ("PFDEBUG", Class::Guarded),
    ("PFSELFTEST", Class::Guarded),
    ("POST", Class::Foreign),
    ("PSUBSCRIBE", Class::Subscribe(Subscription::Pattern)),
    ("PSYNC", Class::Refused),
    ("PUNSUBSCRIBE", Class::Unsubscribe(Subscription::Pattern)),
    ("QUIT", Class::Quit),
    ("REPLCONF", Class::Refused),
    ("REPLICAOF", Class::Refused),
    ("RESET", Class::Reset),
    ("RESTORE-ASKING", Class::Guarded),
    ("SAVE", Class::Refused),
    ("SCAN", Class::Cursor),
    ("SCRIPT", Class::Script),
    ("SELECT", Class::Select),
    ("SHUTDOWN", Class::Refused),
    ("SLAVEOF", Class::Refused),
    ("SLOWLOG", Class::Guarded),
    ("SSCAN", Class::Cursor),
    ("SSUBSCRIBE", Class::Subscribe(Subscription::Shard)),
    ("SUBSCRIBE", Class::Subscribe(Subscription::Channel)),
    ("SUNSUBSCRIBE", Class::Unsubscribe(Subscription::Shard)),
    ("SYNC", Class::Refused),
    ("UNSUBSCRIBE", Class::Unsubscribe(Subscription::Channel)),
    ("UNWATCH", Class::Unwatch),
    ("WAIT", Class::Wait),
    ("WAITAOF", Class::Wait),
    ("WATCH", Class::Watch),
    ("XREAD", Class::BlockingOption),
    ("XREADGROUP", Class::BlockingOption),
    ("ZSCAN", Class::Cursor),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_is_that_of_a_command() {
        for (name, class) in CLASSES {
            assert_eq!(classify(name.as_bytes()), *class, "{name}");
            assert_eq!(classify(name.to_ascii_lowercase().as_bytes()), *class);
            assert_ne!(*class, Class::Plain);
        }
        for plain in [
            &b"GET"[..],
            b"",
            b"set",
            b"GETEX",
            b"EXEX",
            b"MULTIPLY",
            b"\xAECL",
        ] {
            assert_eq!(classify(plain), Class::Plain);
        }
    }

    #[test]
    fn what_the_table_says() {
        let get = find(b"get").unwrap();
        assert!(get.flags.has(Flags::READONLY) && !get.flags.has(Flags::WRITE));
        assert!(get.takes(2) && !get.takes(1) && !get.takes(3));
        let xread = find(b"XREAD").unwrap();
        assert!(xread.takes(4) && xread.takes(400) && !xread.takes(3));
        let usage = find(b"MEMORY").unwrap().subcommand(b"usage").unwrap();
        assert_eq!(usage.keys, KeyRule::Range(2, 2, 1));
        assert!(find(b"MEMORY").unwrap().subcommand(b"use").is_none());
    }

    #[test]
    fn who_knows_what() {
        let has = |name: &[u8], engine| find(name).unwrap().known.has(engine);
        assert_eq!(has(b"GET", "redis-6.2.14"), Some(true));
        assert_eq!(has(b"HGETEX", "valkey-8.0.1"), Some(false));
        assert_eq!(has(b"HGETEX", "valkey-9.1.2"), Some(true));
        // Another patch of a known minor version has the same commands.
        assert_eq!(has(b"HGETEX", "valkey-9.1.7"), Some(true));
        assert_eq!(has(b"STRALGO", "redis-6.2.14"), Some(true));
        assert_eq!(has(b"STRALGO", "redis-7.0.15"), Some(false));
        assert_eq!(has(b"GET", "valkey-10.0.0"), None);
        // The engine takes it although its own list lacks it.
        assert_eq!(has(b"QUIT", "redis-6.2.14"), Some(true));
        let loadex = find(b"MODULE").unwrap().subcommand(b"LOADEX").unwrap();
        assert_eq!(loadex.known.has("redis-6.2.14"), Some(false));
        let list = find(b"MODULE").unwrap().subcommand(b"LIST").unwrap();
        assert_eq!(list.known.has("redis-6.2.14"), Some(true));
    }
}
