//! Which commands need more than being passed on.
//!
//! A command that is not listed here goes to its shard over the shared connection and has exactly
//! one reply.

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
    /// `CONFIG`: only reading.
    Config,
    /// `ACL`: only `WHOAMI`.
    Acl,
    /// `MODULE`: only `LIST`.
    Module,
    /// `SCRIPT` or `FUNCTION`: `KILL` must not queue behind what it is to kill.
    Script,
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
    let table: &[(&[u8], Class)] = match name.len() {
        3 => LENGTH_3,
        4 => LENGTH_4,
        5 => LENGTH_5,
        6 => LENGTH_6,
        7 => LENGTH_7,
        8 => LENGTH_8,
        9 => LENGTH_9,
        10 => LENGTH_10,
        11 => LENGTH_11,
        12 => LENGTH_12,
        14 => LENGTH_14,
        _ => &[],
    };
    table
        .iter()
        .find(|(known, _)| known[0] == (name[0] & 0xDF) && known.eq_ignore_ascii_case(name))
        .map_or(Class::Plain, |(_, class)| *class)
}

const LENGTH_3: &[(&[u8], Class)] = &[(b"ACL", Class::Acl)];
const LENGTH_4: &[(&[u8], Class)] = &[
    (b"EXEC", Class::Exec),
    (b"AUTH", Class::Auth),
    (b"WAIT", Class::Wait),
    (b"QUIT", Class::Quit),
    (b"SAVE", Class::Refused),
    (b"SYNC", Class::Refused),
    (b"POST", Class::Foreign),
];
const LENGTH_5: &[(&[u8], Class)] = &[
    (b"MULTI", Class::Multi),
    (b"WATCH", Class::Watch),
    (b"BLPOP", Class::Blocking),
    (b"BRPOP", Class::Blocking),
    (b"XREAD", Class::BlockingOption),
    (b"HELLO", Class::Hello),
    (b"RESET", Class::Reset),
    (b"DEBUG", Class::Refused),
    (b"PSYNC", Class::Refused),
    (b"HOST:", Class::Foreign),
];
const LENGTH_6: &[(&[u8], Class)] = &[
    (b"SELECT", Class::Select),
    (b"CLIENT", Class::Client),
    (b"CONFIG", Class::Config),
    (b"BLMOVE", Class::Blocking),
    (b"BLMPOP", Class::Blocking),
    (b"BZMPOP", Class::Blocking),
    (b"BGSAVE", Class::Refused),
    (b"MODULE", Class::Module),
    (b"SCRIPT", Class::Script),
];
const LENGTH_7: &[(&[u8], Class)] = &[
    (b"DISCARD", Class::Discard),
    (b"UNWATCH", Class::Unwatch),
    (b"MONITOR", Class::Monitor),
    (b"WAITAOF", Class::Wait),
    (b"CLUSTER", Class::Refused),
    (b"MIGRATE", Class::Refused),
    (b"SLAVEOF", Class::Refused),
    (b"SLOWLOG", Class::Guarded),
    (b"LATENCY", Class::Guarded),
    (b"PFDEBUG", Class::Guarded),
];
const LENGTH_8: &[(&[u8], Class)] = &[
    (b"BZPOPMIN", Class::Blocking),
    (b"BZPOPMAX", Class::Blocking),
    (b"SHUTDOWN", Class::Refused),
    (b"FAILOVER", Class::Refused),
    (b"REPLCONF", Class::Refused),
    (b"FUNCTION", Class::Script),
    (b"LASTSAVE", Class::Guarded),
];
const LENGTH_9: &[(&[u8], Class)] = &[
    (b"SUBSCRIBE", Class::Subscribe(Subscription::Channel)),
    (b"REPLICAOF", Class::Refused),
];
const LENGTH_10: &[(&[u8], Class)] = &[
    (b"PSUBSCRIBE", Class::Subscribe(Subscription::Pattern)),
    (b"SSUBSCRIBE", Class::Subscribe(Subscription::Shard)),
    (b"BRPOPLPUSH", Class::Blocking),
    (b"XREADGROUP", Class::BlockingOption),
    (b"COMMANDLOG", Class::Guarded),
    (b"PFSELFTEST", Class::Guarded),
];
const LENGTH_11: &[(&[u8], Class)] = &[(b"UNSUBSCRIBE", Class::Unsubscribe(Subscription::Channel))];
const LENGTH_12: &[(&[u8], Class)] = &[
    (b"PUNSUBSCRIBE", Class::Unsubscribe(Subscription::Pattern)),
    (b"SUNSUBSCRIBE", Class::Unsubscribe(Subscription::Shard)),
    (b"BGREWRITEAOF", Class::Refused),
];

const LENGTH_14: &[(&[u8], Class)] = &[(b"RESTORE-ASKING", Class::Guarded)];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_is_found_in_any_case() {
        for table in [
            LENGTH_3, LENGTH_4, LENGTH_5, LENGTH_6, LENGTH_7, LENGTH_8, LENGTH_9, LENGTH_10,
            LENGTH_11, LENGTH_12, LENGTH_14,
        ] {
            for (name, class) in table {
                assert_eq!(classify(name), *class);
                assert_eq!(classify(&name.to_ascii_lowercase()), *class);
                assert_ne!(*class, Class::Plain);
            }
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
}
