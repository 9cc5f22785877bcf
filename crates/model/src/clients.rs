//! Questions about the clients of a database, wherever they are: `CLIENT LIST`, `KILL`, `UNBLOCK`, `PAUSE` and
//! `UNPAUSE` at one proxy are for the clients of all proxies that serve it.
//!
//! The proxy that is asked answers for its own clients and sends the others a [`Question`]: over its connection to
//! `cnm_exec` ([`crate::proxy`]), from there to the other nodes, and to every proxy there. Each reads the same words
//! and says what it has found, in pieces of at most [`PIECE_MAX`], so that nothing on the same connection waits long.

use crate::ids::{DatabaseUid, NodeUid};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// How long the client that asks waits for other proxies at most.
pub const QUESTION_WAIT: Duration = Duration::from_secs(1);
/// How long `cnm_exec` waits for other nodes; less, so that it can still say who has not answered.
pub const NODES_WAIT: Duration = Duration::from_millis(850);
/// The same for nodes that need not have any client of the database. They are most often idle.
pub const OTHERS_WAIT: Duration = Duration::from_millis(300);
/// How long a node waits for its own proxies.
pub const PROXIES_WAIT: Duration = Duration::from_millis(700);

/// Most questions of a proxy that are under way to other nodes.
pub const QUESTIONS_MAX: usize = 8;
/// Longest list of one proxy, bytes: some 20,000 clients.
pub const LIST_MAX: usize = 8 * 1024 * 1024;
/// Longest list of other proxies together, bytes.
pub const LISTS_MAX: usize = 4 * LIST_MAX;
/// Longest words of a question, with two bytes between them.
pub const WORDS_MAX: usize = 1024 * 1024;
/// Lines of clients in one piece of an answer; bytes.
pub const PIECE_MAX: usize = 256 * 1024;

/// How many numbers clients of a node have. See [`home_of`].
pub const IDS_OF_NODE: u64 = 1_000_000_000_000;
/// How many nodes have numbers of their own; the next ones share them with the first. The largest fits into a
/// JavaScript number, 2^53.
pub const NODES_WITH_IDS: u64 = (1 << 53) / IDS_OF_NODE - 1;

/// What stands before the twelve digits in the ids of a node's clients.
#[must_use]
pub const fn home(node: NodeUid) -> u64 {
    node.0.saturating_sub(1) % NODES_WITH_IDS + 1
}

/// The same, from an id. `None`: it was given before ids named their node; whoever has it may be anywhere.
#[must_use]
pub const fn home_of(id: u64) -> Option<u64> {
    match id / IDS_OF_NODE {
        0 => None,
        home => Some(home),
    }
}

/// A word of a command, any bytes; written as hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Word(pub Vec<u8>);

impl From<Word> for String {
    fn from(word: Word) -> Self {
        let digit = |half: u8| char::from_digit(u32::from(half), 16).unwrap_or('0');
        let halves = word.0.iter().flat_map(|byte| [byte >> 4, byte & 15]);
        halves.map(digit).collect()
    }
}

impl TryFrom<String> for Word {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let digit = |digit: &u8| {
            char::from(*digit)
                .to_digit(16)
                .ok_or("no hexadecimal digit")
        };
        let (pairs, rest) = text.as_bytes().as_chunks::<2>();
        if !rest.is_empty() {
            return Err("half a byte");
        }
        let byte = |[high, low]: &[u8; 2]| {
            let byte = digit(high)? << 4 | digit(low)?;
            u8::try_from(byte).map_err(|_| "no byte")
        };
        pairs.iter().map(byte).collect::<Result<_, _>>().map(Self)
    }
}

/// What other proxies are asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// Counts the questions of a connection.
    pub number: u64,
    /// The database: only its clients are meant.
    pub database: DatabaseUid,
    /// Id of the client that asks; 0: it makes no difference.
    pub me: u64,
    /// Whose words they are: the engine's major version, from 6 to 9.
    pub engine: u8,
    /// The words after `CLIENT`.
    pub words: Vec<Word>,
    /// The nodes that are meant, as [`home`] says; `None`: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub homes: Option<Vec<u64>>,
}

impl Question {
    /// Whether it is for a node.
    #[must_use]
    pub fn is_for(&self, node: NodeUid) -> bool {
        let homes = self.homes.as_ref();
        homes.is_none_or(|homes| homes.contains(&home(node)))
    }

    /// Whether it asks the same as another one.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        let number = self.number;
        *self
            == Self {
                number,
                ..other.clone()
            }
    }
}

/// What was found, or a piece of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Answered {
    /// The question's number.
    pub number: u64,
    /// Clients: their id and their line.
    pub clients: Vec<(u64, String)>,
    /// How many were closed or freed.
    pub count: u64,
    /// Who is missing in it.
    pub gaps: Vec<Gap>,
    /// More is to come.
    pub more: bool,
}

/// A node that has not answered, or not for all of its clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// Which.
    pub node: NodeUid,
    /// Its list is longer than [`LIST_MAX`].
    #[serde(default)]
    pub too_long: bool,
}

impl Answered {
    /// Takes another one in; the numbers stay.
    pub fn add(&mut self, other: Self) {
        self.clients.extend(other.clients);
        self.count += other.count;
        for gap in other.gaps {
            if !self.gaps.contains(&gap) {
                self.gaps.push(gap);
            }
        }
    }

    /// How long its lines are when they are sent.
    #[must_use]
    pub fn length(&self) -> usize {
        self.clients.iter().map(|(_, line)| sent(line)).sum()
    }

    /// The same in pieces; `more`: behind the last of them more is to come.
    #[must_use]
    pub fn pieces(mut self, more: bool) -> Vec<Self> {
        let number = self.number;
        let mut pieces = Vec::new();
        let (mut piece, mut length) = (Vec::new(), 0);
        for client in std::mem::take(&mut self.clients) {
            let more = sent(&client.1);
            if length > 0 && length + more > PIECE_MAX {
                pieces.push(Self {
                    number,
                    clients: std::mem::take(&mut piece),
                    more: true,
                    ..Self::default()
                });
                length = 0;
            }
            length += more;
            piece.push(client);
        }
        self.clients = piece;
        self.more = more;
        pieces.push(self);
        pieces
    }
}

/// How long a line is in JSON: names may be full of what is written as two bytes there.
fn sent(line: &str) -> usize {
    let written = |byte: u8| match byte {
        b'"' | b'\\' | b'\n' => 2,
        0..0x20 => 6,
        _ => 1,
    };
    line.bytes().map(written).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_any_bytes() {
        let all: Vec<u8> = (0..=255).collect();
        let text = serde_json::to_string(&Word(all.clone())).unwrap();
        assert_eq!(text.len(), 514);
        assert_eq!(serde_json::from_str::<Word>(&text).unwrap().0, all);
        for wrong in [r#""0""#, r#""0g""#, r#""é""#, "1"] {
            serde_json::from_str::<Word>(wrong).unwrap_err();
        }
    }

    #[test]
    fn ids_name_their_node() {
        assert_eq!(home_of(3_000_000_000_017), Some(home(NodeUid(3))));
        assert_eq!(home_of(17), None);
        assert_eq!(home(NodeUid(NODES_WITH_IDS + 1)), home(NodeUid(1)));
        let question = |homes| Question {
            number: 1,
            database: DatabaseUid(1),
            me: 0,
            engine: 8,
            words: vec![Word(b"list".to_vec())],
            homes,
        };
        assert!(question(None).is_for(NodeUid(2)));
        assert!(!question(Some(vec![1])).is_for(NodeUid(2)));
        let mut later = question(None);
        later.number = 2;
        assert!(later.is_same(&question(None)));
        assert!(!later.is_same(&question(Some(vec![1]))));
    }

    #[test]
    fn pieces_are_bounded_and_make_the_whole() {
        let clients: Vec<(u64, String)> = (0..5_000).map(|id| (id, "x".repeat(300))).collect();
        let gaps = vec![Gap {
            node: NodeUid(2),
            too_long: false,
        }];
        let whole = Answered {
            number: 7,
            clients,
            count: 3,
            gaps,
            more: false,
        };
        let pieces = whole.clone().pieces(false);
        assert!(pieces.len() > 5);
        assert!(pieces.iter().all(|piece| piece.length() <= PIECE_MAX));
        let (last, first) = pieces.split_last().unwrap();
        assert!(first.iter().all(|piece| piece.more) && !last.more);
        let mut again = Answered {
            number: 7,
            ..Answered::default()
        };
        for piece in pieces {
            again.add(piece);
        }
        assert_eq!(again, whole);
        assert_eq!(Answered::default().pieces(true).len(), 1);
        let odd = "\"\\\n\u{1}é";
        assert_eq!(sent(odd) + 2, serde_json::to_string(odd).unwrap().len());
        // Of a release that says less, and of one that says more.
        let read: Answered =
            serde_json::from_str(r#"{"number":7,"gaps":[{"node":2,"why":"x"}],"new":1}"#).unwrap();
        assert_eq!(read.gaps, whole.gaps);
    }
}
