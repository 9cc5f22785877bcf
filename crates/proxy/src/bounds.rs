//! Bounds of the data path. All sizes are bytes.

use std::time::Duration;

/// What a worker receives from clients in one call.
pub const RECEIVE: usize = 64 * 1024;
/// What a worker receives from a shard in one call.
pub const REPLY_RECEIVE: usize = 256 * 1024;
/// A command that is longer than this and not whole yet is passed on as it comes, over a connection of its own. Less
/// than [`RECEIVE`]: of a value of 100 KiB the first receive is not kept until the rest has come, and behind those of
/// others (docs/benchmarks.md).
pub const STREAM_ABOVE: usize = 32 * 1024;
/// Longest command that the proxy answers itself, or whose cursor it changes.
pub const OWN_COMMAND_MAX: usize = 64 * 1024;
/// Unsent replies of a client that are never too many. Above, it is looked up what its database says:
/// `client_buffer`, which is 16 MiB and 1 MiB unless an operator changed it.
pub const CLIENT_OUT_SMALL: usize = 64 * 1024;
/// What a worker keeps beyond that for clients behind whose replies others wait, all of them together.
pub const RELIEF: usize = 64 * 1024 * 1024;
/// How long such a client may keep others waiting when that is used up.
pub const IN_THE_WAY: Duration = Duration::from_secs(1);
/// How often a client that takes nothing is looked at, each time after `client_buffer`'s seconds, before it is closed
/// though nobody waits behind its replies.
pub const UNREAD_LOOKS: u8 = 6;
/// What replies of several shards to one client may take that wait for an earlier one; then it is closed.
pub const HELD_MAX: usize = 256 * 1024 * 1024;
/// Replies of several shards that a client may be due before its commands are not read.
pub const DUE_MAX: usize = 8192;
/// Longest command that is held as a whole because its keys are on several shards, or because it subscribes.
pub const HELD_COMMAND_MAX: usize = 64 * 1024 * 1024;
/// Unsent commands to a shard above which the clients that send there are not read.
pub const SHARD_OUT_MAX: usize = 1024 * 1024;
/// A reply that must be looked into as a whole.
pub const REWRITTEN_REPLY_MAX: usize = 4 * 1024 * 1024;
/// How long the engine may take to end the connection of a client that leaves.
pub const LEAVING: Duration = Duration::from_secs(2);
/// How long commands wait for a shard that is not reachable, counted from its loss.
pub const HOLD: Duration = Duration::from_secs(5);
/// How long connecting and greeting a shard may take.
pub const CONNECT: Duration = Duration::from_secs(5);
/// Shortest and longest pause before connecting again.
pub const RETRY: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(50)..=Duration::from_secs(1);
/// Pause before a connection is tried again that the shard's queue had no place for.
pub const CROWDED: Duration = Duration::from_millis(5);
/// How long connections of an earlier epoch may finish what is in flight.
pub const RETIRE: Duration = Duration::from_secs(2);
/// After how long without a reply the scripts that come next go over another connection than the one that runs.
pub const SCRIPT_SILENT: Duration = Duration::from_secs(1);
/// Connections of a link that scripts keep, above which there is no other one.
pub const SCRIPTS_ASIDE: usize = 4;
/// Unused connections for single clients that are there for the next ones, per shard, worker and version of
/// the protocol.
pub const SPARES: usize = 4;
/// Unused connections for single clients that are kept per shard, and for how long.
pub const IDLE_KEPT: usize = 32;
/// See [`IDLE_KEPT`].
pub const IDLE_TIME: Duration = Duration::from_secs(10);
/// Shortest pause of a client whose database is at its rate; those that wait longer are woken together.
pub const RATE_PAUSE: Duration = Duration::from_millis(1);
/// Clients that are woken at a time when a rate allows for more commands.
pub const RATE_WAKES: usize = 256;
/// Clients that a worker gives to others at a time: meanwhile it serves nobody.
pub const MOVED_AT_ONCE: usize = 256;
/// Slow commands that a worker tells of within [`SLOW_WITHIN_US`]; the others are counted. When a shard
/// stops for a moment, all that wait behind are slow, and would push out of the log what made them so.
pub const SLOW_TOLD_AT_ONCE: u32 = 16;
/// µs; replies of those that waited come in several turns.
pub const SLOW_WITHIN_US: u64 = 250_000;
/// Reads of one socket in one turn, so that none keeps the others waiting.
pub const READS_PER_TURN: usize = 4;
/// How often a worker looks for more before it writes to the shards: each time costs a system call, and
/// a write that carries more saves one of its own and one of the shard's.
pub const REPOLLS: usize = 4;
/// Orders about gates that are under way.
pub const GATE_ORDERS: usize = 64;
/// Connections for single clients that a worker opens before a primary moves; more are opened after.
pub const PREPARED_MAX: usize = 256;
/// How long connections to the next primary stay open while nothing comes of it.
pub const PREPARED_TIME: Duration = Duration::from_secs(60);
/// Commands of an open transaction that are kept, so that it can be opened again at another primary.
pub const TRANSACTION_KEPT: usize = 1024 * 1024;
/// Bodies of scripts that a worker keeps of each shard, to load them into a new primary.
pub const SCRIPTS_KEPT: usize = 4 * 1024 * 1024;
/// Pause before an engine is asked again to let a blocking command go.
pub const ASK_AGAIN: Duration = Duration::from_millis(1);
/// After how long without a byte a long command is ended that is not whole when a gate closes.
pub const HALF_SENT: Duration = Duration::from_millis(10);
/// How long `cnm_exec` may take to answer a renewal of the lease before copies are asked for promises.
pub const RENEWAL_ANSWER: Duration = Duration::from_millis(200);
/// Renewals without an answer that are remembered.
pub const RENEWALS: usize = 16;
/// How long all copies of a replica set may take to promise; less than the time between two rounds.
pub const PROMISES: Duration = Duration::from_millis(250);
/// Copies that are asked at a time.
pub const KEEPERS: usize = 1024;
/// How long connections to them are kept after promises were needed last.
pub const KEEPER_IDLE: Duration = Duration::from_secs(10);
/// How often a worker that waits for a lease looks by itself whether it is there.
pub const LEASE_LOOK: Duration = Duration::from_millis(100);
/// Messages to a worker that wait.
pub const INBOX: usize = 1024;
/// What is carried of one client to another process; one of which there is more stays.
pub const CARRIED_MAX: usize = 64 * 1024 * 1024;
/// Clients that a worker gives away at a time: meanwhile it serves nobody.
pub const DEPART_AT_ONCE: usize = 150;
/// How long a client is not read so that its replies come in and it can be given away, at the first try; and
/// how long it is let be after that was in vain.
pub const DEPART_PATIENCE: Duration = Duration::from_millis(20);
/// See [`DEPART_PATIENCE`].
pub const DEPART_REST: Duration = Duration::from_millis(50);
/// How often it is looked whether clients can be given away that could not.
pub const DEPART_LOOK: Duration = Duration::from_millis(2);
/// How long questions about all clients wait at most while clients go to another process.
pub const DIVIDED_WAIT: Duration = Duration::from_secs(1);
/// How often it is looked whether they have gone.
pub const DIVIDED_LOOK: Duration = Duration::from_millis(2);
/// How long connected clients of a server that is replaced or stopped may go on.
pub const DRAIN: Duration = Duration::from_secs(60);
/// Another drain time, in seconds.
pub const DRAIN_ENV: &str = "MAINSTAY_DRAIN_SECONDS";

/// The drain time of this process: [`DRAIN`], unless [`DRAIN_ENV`] says otherwise.
#[must_use]
pub fn drain() -> Duration {
    let set = std::env::var(DRAIN_ENV).ok();
    let set = set.and_then(|text| text.parse().ok());
    set.map_or(DRAIN, Duration::from_secs)
}

/// How long a server without a launcher waits for a successor.
pub const SUCCESSOR: Duration = Duration::from_secs(60);
/// Longest replies that are written together with those of other shards that come in the same turn, instead of from
/// where they were received: they are copied once for that.
pub const GATHERED_MAX: usize = 4 * 1024;
