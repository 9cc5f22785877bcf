//! What a client's connection means, all in one place: a handover carries exactly this.

use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::time::Instant;

/// State of one client's connection that is not bytes.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    /// `CLIENT ID`.
    pub(crate) id: u64,
    /// Where it comes from.
    pub(crate) peer: SocketAddr,
    /// Where it came in.
    pub(crate) local: SocketAddr,
    /// Since when.
    pub(crate) created: Instant,
    /// When it sent something last.
    pub(crate) active: Instant,
    /// Bytes that it sent.
    pub(crate) received: u64,
    /// Commands that it sent.
    pub(crate) commands: u64,
    /// Protocol version, 2 or 3.
    pub(crate) resp: u8,
    /// Whether it may do anything.
    pub(crate) authenticated: bool,
    /// `CLIENT SETNAME`.
    pub(crate) name: Vec<u8>,
    /// `CLIENT SETINFO lib-name`.
    pub(crate) lib_name: Vec<u8>,
    /// `CLIENT SETINFO lib-ver`.
    pub(crate) lib_ver: Vec<u8>,
    /// `CLIENT REPLY`.
    pub(crate) reply: ReplyMode,
    /// `CLIENT NO-EVICT`.
    pub(crate) no_evict: bool,
    /// `CLIENT CAPA redirect`.
    pub(crate) redirect: bool,
    /// What only a connection of its own can hold.
    pub(crate) own: OwnState,
}

/// The part of a session that lives in the engine's connection.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct OwnState {
    /// Numbered database; `None`: not known, since a transaction may have changed it.
    pub(crate) db: Db,
    /// `MULTI`.
    pub(crate) transaction: Transaction,
    /// What the last `SELECT` that is queued in the transaction chooses.
    pub(crate) select_queued: Option<Db>,
    /// `WATCH`.
    pub(crate) watch: Watch,
    /// Number of subscriptions.
    pub(crate) subscriptions: Subscriptions,
    /// `CLIENT TRACKING`.
    pub(crate) tracking: bool,
    /// `MONITOR`.
    pub(crate) monitor: bool,
    /// `CLIENT NO-TOUCH`.
    pub(crate) no_touch: bool,
}

/// A numbered database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Db {
    /// This one.
    Number(u32),
    /// One that a transaction chose.
    Unknown,
}

impl std::fmt::Display for Db {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Unknown => f.write_str("-1"),
        }
    }
}

impl Default for Db {
    fn default() -> Self {
        Self::Number(0)
    }
}

/// Whether a transaction is open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Transaction {
    /// No.
    #[default]
    No,
    /// Its commands are queued in the engine.
    Open,
    /// It was open when the connection to the shard was lost: `EXEC` will refuse.
    Lost,
}

/// Whether keys are watched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Watch {
    /// No.
    #[default]
    No,
    /// Yes.
    Set,
    /// They were when the connection to the shard was lost: they may have changed, so `EXEC` will
    /// answer null.
    Lost,
}

/// Number of subscriptions by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Subscriptions {
    pub(crate) channels: u64,
    pub(crate) patterns: u64,
    pub(crate) shard_channels: u64,
}

impl Subscriptions {
    pub(crate) fn any(self) -> bool {
        self.channels + self.patterns + self.shard_channels > 0
    }
}

/// Which replies a client wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ReplyMode {
    /// All.
    #[default]
    On,
    /// All but the next one.
    SkipNext,
    /// None.
    Off,
}

impl Session {
    pub(crate) fn new(id: u64, peer: SocketAddr, local: SocketAddr, authenticated: bool) -> Self {
        let now = Instant::now();
        Self {
            id,
            peer,
            local,
            created: now,
            active: now,
            received: 0,
            commands: 0,
            resp: 2,
            authenticated,
            name: Vec::new(),
            lib_name: Vec::new(),
            lib_ver: Vec::new(),
            reply: ReplyMode::On,
            no_evict: false,
            redirect: false,
            own: OwnState::default(),
        }
    }

    /// `RESET`: as new, but the library's name stays.
    pub(crate) fn reset(&mut self, authenticated: bool) {
        self.resp = 2;
        self.authenticated = authenticated;
        self.name = Vec::new();
        self.reply = ReplyMode::On;
        self.no_evict = false;
        self.own = OwnState::default();
    }

    /// Whether the shared connection would do as well as one of its own.
    pub(crate) fn shareable(&self) -> bool {
        self.own == OwnState::default()
    }

    /// Whether only subscription commands are allowed, and messages come as ordinary arrays.
    pub(crate) fn subscribed_in_resp2(&self) -> bool {
        self.resp == 2 && self.own.subscriptions.any()
    }

    /// Whether the next reply is wanted; a skip is used up.
    pub(crate) fn takes_reply(&mut self) -> bool {
        match self.reply {
            ReplyMode::On => true,
            ReplyMode::Off => false,
            ReplyMode::SkipNext => {
                self.reply = ReplyMode::On;
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session() -> Session {
        let any = SocketAddr::from(([127, 0, 0, 1], 1));
        Session::new(7, any, any, true)
    }

    #[test]
    fn what_keeps_a_client_on_its_own_connection() {
        let plain = session();
        assert!(plain.shareable());
        let changes: [fn(&mut OwnState); 8] = [
            |own| own.db = Db::Number(3),
            |own| own.db = Db::Unknown,
            |own| own.transaction = Transaction::Open,
            |own| own.watch = Watch::Set,
            |own| own.subscriptions.patterns = 1,
            |own| own.tracking = true,
            |own| own.monitor = true,
            |own| own.no_touch = true,
        ];
        for change in changes {
            let mut session = plain.clone();
            change(&mut session.own);
            assert!(!session.shareable());
            session.reset(true);
            assert!(session.shareable());
        }
    }

    #[test]
    fn one_reply_is_skipped() {
        let mut session = session();
        session.reply = ReplyMode::SkipNext;
        assert!(!session.takes_reply());
        assert!(session.takes_reply());
        session.reply = ReplyMode::Off;
        assert!(!session.takes_reply() && !session.takes_reply());
    }
}
