//! What the proxy itself answers. Where the engines have a text for it, it is theirs.

/// A command before the password.
pub(crate) const NOAUTH: &[u8] = b"-NOAUTH Authentication required.\r\n";
/// `HELLO` before the password.
pub(crate) const NOAUTH_HELLO: &[u8] = b"-NOAUTH HELLO must be called with the client already \
    authenticated, otherwise the HELLO <proto> AUTH <user> <pass> option can be used to authenticate \
    the client and select the RESP protocol version at the same time\r\n";
/// A wrong password.
pub(crate) const WRONGPASS: &[u8] =
    b"-WRONGPASS invalid username-password pair or user is disabled.\r\n";
/// `AUTH` where no password is asked.
pub(crate) const NO_PASSWORD: &[u8] =
    b"-ERR AUTH <password> called without any password configured for \
    the default user. Are you sure your configuration is correct?\r\n";
/// `HELLO 4`.
pub(crate) const NOPROTO: &[u8] = b"-NOPROTO unsupported protocol version\r\n";
/// `HELLO x`.
pub(crate) const BAD_PROTO: &[u8] = b"-ERR Protocol version is not an integer or out of range\r\n";
/// A name with a blank.
pub(crate) const BAD_NAME: &[u8] =
    b"-ERR Client names cannot contain spaces, newlines or special characters.\r\n";
/// Too many connections.
pub(crate) const MAX_CLIENTS: &[u8] = b"-ERR max number of clients reached\r\n";
/// Done.
pub(crate) const OK: &[u8] = b"+OK\r\n";
/// A number was expected.
pub(crate) const NOT_AN_INTEGER: &[u8] = b"-ERR value is not an integer or out of range\r\n";
/// Wrong words.
pub(crate) const SYNTAX: &[u8] = b"-ERR syntax error\r\n";
/// In flight when the connection broke.
pub(crate) const OUTCOME_UNKNOWN: &[u8] =
    b"-ERR connection to the shard was lost, the outcome of this command is unknown\r\n";
/// Sent in part when the connection broke.
pub(crate) const NOT_RUN: &[u8] =
    b"-TRYAGAIN connection to the shard was lost before the command was whole, it did not run\r\n";
/// No shard, for longer than a command waits.
pub(crate) const UNAVAILABLE: &[u8] =
    b"-TRYAGAIN the shard of this database is not available; try again\r\n";
/// No lease, or a primary that is not replaced yet, for longer than a command waits: clients hear why, as the log does.
pub(crate) fn did_not_run(reason: &str) -> Vec<u8> {
    // A line of its own, whatever an engine or the system has said.
    let reason = reason.replace(['\r', '\n'], " ");
    format!("-TRYAGAIN {reason}; the command did not run; try again\r\n").into_bytes()
}

/// The primary moves, for longer than a command waits.
pub(crate) const MOVING: &[u8] =
    b"-TRYAGAIN the shard of this database is being moved, and the command has waited long enough; it \
    did not run; try again\r\n";
/// No descriptor for another connection to a shard.
pub(crate) const NO_CONNECTION: &[u8] =
    b"-TRYAGAIN the proxy has no connection to the shard left for this command; try again\r\n";
/// Commands of a transaction whose connection broke.
pub(crate) const TRANSACTION_LOST: &[u8] = b"-ERR connection to the shard was lost inside this \
    transaction, it will be discarded at EXEC\r\n";
/// `EXEC` of such a transaction.
pub(crate) const EXECABORT: &[u8] =
    b"-EXECABORT Transaction discarded because of previous errors.\r\n";
/// `MULTI` inside a transaction.
pub(crate) const NESTED: &[u8] = b"-ERR MULTI calls can not be nested\r\n";
/// `WATCH` inside a transaction, as engines before Valkey 8 have it.
pub(crate) const WATCH_INSIDE: &[u8] = b"-ERR WATCH inside MULTI is not allowed\r\n";
/// Keys of one command on several shards.
pub(crate) const CROSSSLOT: &[u8] =
    b"-CROSSSLOT Keys in request are on different shards of this database; give them the same {hash tag}\r\n";
/// Watched keys on several shards.
pub(crate) const CROSSSLOT_WATCH: &[u8] =
    b"-CROSSSLOT Watched keys are on different shards of this database; give them the same {hash tag}\r\n";
/// `SELECT 1`.
pub(crate) const SELECT_OVER_SHARDS: &[u8] = b"-ERR DB index is out of range\r\n";
/// A command while `MONITOR` streams.
pub(crate) const MONITORING: &[u8] =
    b"-ERR only RESET and QUIT are possible while MONITOR runs\r\n";
/// Commands inside a transaction that the proxy holds until `EXEC`.
pub(crate) const TOO_MUCH_INSIDE: &[u8] =
    b"-ERR too many commands in this transaction that are answered by the proxy\r\n";
/// A reply that is made of those of several shards.
pub(crate) const TOO_LARGE_TOGETHER: &[u8] =
    b"-ERR the replies of the shards are together larger than the 256 MiB that the proxy puts together; \
      the command has run\r\n";
/// Tracking for another connection.
pub(crate) const NO_REDIRECT: &[u8] =
    b"-ERR CLIENT TRACKING with REDIRECT is not available through the proxy: use RESP3\r\n";

/// `wrong number of arguments`.
#[must_use]
pub(crate) fn arity(command: &str) -> Vec<u8> {
    format!("-ERR wrong number of arguments for '{command}' command\r\n").into_bytes()
}

/// A command that would break the platform.
#[must_use]
pub(crate) fn refused(command: &str) -> Vec<u8> {
    format!(
        "-ERR {command} is not available: this database is managed by its cluster, use rladmin or \
         the REST API\r\n"
    )
    .into_bytes()
}

/// A command that is about one engine.
#[must_use]
pub(crate) fn refused_over_shards(command: &str) -> Vec<u8> {
    format!("-ERR {command} is not available on a database with several shards\r\n").into_bytes()
}

/// A command that has no meaning inside a transaction through a proxy.
#[must_use]
pub(crate) fn refused_in_transaction(command: &str) -> Vec<u8> {
    format!("-ERR Command '{command}' not allowed inside a transaction\r\n").into_bytes()
}

/// A name as it may stand in an error: short, printable.
#[must_use]
pub(crate) fn shown(name: &[u8]) -> String {
    name.iter()
        .take(64)
        .map(|byte| {
            if byte.is_ascii_graphic() {
                char::from(*byte)
            } else {
                '?'
            }
        })
        .collect()
}
