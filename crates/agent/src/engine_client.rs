//! The agent's own connection to an engine, over its unix socket as user `cnm`. One command at a
//! time, every wait bounded. A reply that comes too late is still taken off the connection before
//! the next command, so that a hung engine is not flooded with new connections.

use bytes::{Buf, BytesMut};
use model::secret::Secret;
use std::io;
use std::path::Path;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::{Instant, timeout_at};

/// Largest reply, bytes: `INFO` and `ACL USERS` take a few thousand, `CLIENT LIST` up to 500 a client.
const REPLY_MAX: usize = 8 * 1024 * 1024;
/// Deepest array in an array.
const DEPTH_MAX: usize = 8;

/// An engine's answer.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Reply {
    /// `+OK`.
    Simple(String),
    /// `:1`.
    Integer(i64),
    /// `$3 abc`.
    Bulk(Vec<u8>),
    /// `*2 …`.
    Array(Vec<Reply>),
    /// `$-1`, `*-1`.
    Null,
}

/// Why a command has no good answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EngineError {
    /// The engine does not answer in time. The connection can still be used.
    #[error("the engine does not answer within {} ms", .0.as_millis())]
    Silent(Duration),
    /// The connection is of no use any more.
    #[error("connection to the engine: {0}")]
    Lost(#[from] io::Error),
    /// The engine answered with an error.
    #[error("{}", answered(.0))]
    Refused(String),
}

/// An engine's error in words. To one that is busy its own words advise `SHUTDOWN NOSAVE`, which loses data.
fn answered(text: &str) -> String {
    if text.starts_with("BUSY") {
        return "the engine is busy with a script or function that runs long".to_owned();
    }
    format!("the engine answered: {text}")
}

impl EngineError {
    /// Whether the engine is there but busy with a script or function.
    pub(crate) fn is_busy(&self) -> bool {
        matches!(self, Self::Refused(text) if text.starts_with("BUSY"))
    }

    /// Whether the engine only refuses because it has no role yet.
    pub(crate) fn is_for_want_of_a_role(&self) -> bool {
        matches!(self, Self::Refused(text) if text.starts_with("MASTERDOWN"))
    }
}

/// A connection.
#[derive(Debug)]
pub(crate) struct EngineClient {
    stream: UnixStream,
    input: BytesMut,
    /// Replies that have not come yet.
    owed: usize,
    /// Nothing more can be sent: a command was written in part, or the other end is gone.
    lost: bool,
}

impl EngineClient {
    /// Connects and signs in.
    pub(crate) async fn connect(
        socket: &Path,
        user: &str,
        password: &Secret,
        patience: Duration,
    ) -> Result<Self, EngineError> {
        let stream = tokio::time::timeout(patience, UnixStream::connect(socket))
            .await
            .map_err(|_| EngineError::Silent(patience))??;
        let mut client = Self {
            stream,
            input: BytesMut::new(),
            owed: 0,
            lost: false,
        };
        client
            .call(&["AUTH", user, password.expose()], patience)
            .await?;
        Ok(client)
    }

    /// Whether it is of no use any more.
    pub(crate) fn is_lost(&self) -> bool {
        self.lost
    }

    /// Sends a command and waits for its reply.
    pub(crate) async fn call<S: AsRef<str>>(
        &mut self,
        words: &[S],
        patience: Duration,
    ) -> Result<Reply, EngineError> {
        let deadline = Instant::now() + patience;
        let result = self.exchange(words, deadline).await;
        match result {
            Ok(Ok(Ok(reply))) => Ok(reply),
            Ok(Ok(Err(refusal))) => Err(EngineError::Refused(refusal)),
            Ok(Err(error)) => {
                self.lost = true;
                Err(EngineError::Lost(error))
            }
            Err(_) => Err(EngineError::Silent(patience)),
        }
    }

    /// Sends a command that has no reply.
    pub(crate) async fn tell<S: AsRef<str>>(
        &mut self,
        words: &[S],
        patience: Duration,
    ) -> Result<(), EngineError> {
        if self.lost {
            return Err(EngineError::Lost(io::ErrorKind::NotConnected.into()));
        }
        let deadline = Instant::now() + patience;
        match timeout_at(deadline, self.stream.write_all(&encode(words))).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => {
                self.lost = true;
                Err(EngineError::Lost(error))
            }
            Err(_) => {
                self.lost = true;
                Err(EngineError::Silent(patience))
            }
        }
    }

    /// A command whose reply is a text.
    pub(crate) async fn text<S: AsRef<str>>(
        &mut self,
        words: &[S],
        patience: Duration,
    ) -> Result<String, EngineError> {
        match self.call(words, patience).await? {
            Reply::Bulk(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
            Reply::Simple(text) => Ok(text),
            other => Err(EngineError::Refused(format!(
                "{other:?} where a text belongs"
            ))),
        }
    }

    /// A command whose reply is a list of texts.
    pub(crate) async fn list<S: AsRef<str>>(
        &mut self,
        words: &[S],
        patience: Duration,
    ) -> Result<Vec<String>, EngineError> {
        match self.call(words, patience).await? {
            Reply::Array(items) => Ok(items
                .into_iter()
                .filter_map(|item| match item {
                    Reply::Bulk(bytes) => Some(String::from_utf8_lossy(&bytes).into_owned()),
                    Reply::Simple(text) => Some(text),
                    _ => None,
                })
                .collect()),
            other => Err(EngineError::Refused(format!(
                "{other:?} where a list belongs"
            ))),
        }
    }

    async fn exchange<S: AsRef<str>>(
        &mut self,
        words: &[S],
        deadline: Instant,
    ) -> Result<io::Result<Result<Reply, String>>, tokio::time::error::Elapsed> {
        if self.lost {
            return Ok(Err(io::ErrorKind::NotConnected.into()));
        }
        while self.owed > 0 {
            if let Err(error) = timeout_at(deadline, self.read_reply()).await? {
                return Ok(Err(error));
            }
        }
        let bytes = encode(words);
        match timeout_at(deadline, self.stream.write_all(&bytes)).await {
            Ok(Ok(())) => self.owed += 1,
            Ok(Err(error)) => return Ok(Err(error)),
            Err(elapsed) => {
                self.lost = true;
                return Err(elapsed);
            }
        }
        timeout_at(deadline, self.read_reply()).await
    }

    /// Takes one reply. May be dropped at any await: what has come stays in `input`.
    async fn read_reply(&mut self) -> io::Result<Result<Reply, String>> {
        loop {
            if let Some((reply, used)) = parse(&self.input, 0)? {
                self.input.advance(used);
                self.owed = self.owed.saturating_sub(1);
                return Ok(reply);
            }
            if self.input.len() > REPLY_MAX {
                return Err(protocol_error("a reply is too long"));
            }
            if self.stream.read_buf(&mut self.input).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

fn encode<S: AsRef<str>>(words: &[S]) -> Vec<u8> {
    let mut out = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        let word = word.as_ref();
        out.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        out.extend_from_slice(word.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    out
}

fn protocol_error(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

/// One reply and its length; `None` while it is not whole.
type Parsed = Option<(Result<Reply, String>, usize)>;

fn parse(input: &[u8], depth: usize) -> io::Result<Parsed> {
    let Some(end) = input.windows(2).position(|pair| pair == b"\r\n") else {
        return Ok(None);
    };
    let (kind, line) = match input[..end].split_first() {
        Some((kind, line)) => (*kind, String::from_utf8_lossy(line)),
        None => return Err(protocol_error("an empty reply")),
    };
    let used = end + 2;
    let length = || {
        line.parse::<i64>()
            .map_err(|_| protocol_error("a reply without its length"))
    };
    match kind {
        b'+' => Ok(Some((Ok(Reply::Simple(line.into_owned())), used))),
        b'-' => Ok(Some((Err(line.into_owned()), used))),
        b':' => Ok(Some((Ok(Reply::Integer(length()?)), used))),
        b'$' => parse_bulk(input, used, length()?),
        b'*' => parse_array(input, used, length()?, depth),
        _ => Err(protocol_error("a reply of an unknown kind")),
    }
}

fn parse_bulk(input: &[u8], used: usize, length: i64) -> io::Result<Parsed> {
    let Ok(length) = usize::try_from(length) else {
        return Ok(Some((Ok(Reply::Null), used)));
    };
    if length > REPLY_MAX {
        return Err(protocol_error("a reply is too long"));
    }
    let end = used + length;
    if input.len() < end + 2 {
        return Ok(None);
    }
    Ok(Some((Ok(Reply::Bulk(input[used..end].to_vec())), end + 2)))
}

fn parse_array(input: &[u8], mut used: usize, length: i64, depth: usize) -> io::Result<Parsed> {
    if depth >= DEPTH_MAX {
        return Err(protocol_error("a reply is nested too deeply"));
    }
    let Ok(length) = usize::try_from(length) else {
        return Ok(Some((Ok(Reply::Null), used)));
    };
    let mut items = Vec::new();
    for _ in 0..length {
        let Some((item, more)) = parse(&input[used..], depth + 1)? else {
            return Ok(None);
        };
        items.push(item.unwrap_or_else(Reply::Simple));
        used += more;
    }
    Ok(Some((Ok(Reply::Array(items)), used)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_split_at_every_byte() {
        let input = b"*4\r\n$3\r\na\r\n\r\n:-7\r\n$-1\r\n*1\r\n+x\r\n";
        for end in 0..input.len() {
            assert_eq!(parse(&input[..end], 0).unwrap(), None, "{end}");
        }
        let expected = Reply::Array(vec![
            Reply::Bulk(b"a\r\n".to_vec()),
            Reply::Integer(-7),
            Reply::Null,
            Reply::Array(vec![Reply::Simple("x".to_owned())]),
        ]);
        assert_eq!(parse(input, 0).unwrap(), Some((Ok(expected), input.len())));
    }

    /// What a busy engine advises itself would lose data.
    #[test]
    fn a_busy_engine_is_named_without_its_own_advice() {
        let busy = "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.";
        let busy = EngineError::Refused(busy.to_owned());
        assert!(busy.is_busy());
        let text = busy.to_string();
        assert!(
            text.contains("busy with a script") && !text.contains("SHUTDOWN"),
            "{text}"
        );
        let other = EngineError::Refused("ERR no".to_owned()).to_string();
        assert_eq!(other, "the engine answered: ERR no");
    }

    #[test]
    fn bad_replies_are_errors() {
        assert!(parse(b"?x\r\n", 0).is_err());
        assert!(parse(b"\r\n", 0).is_err());
        assert!(parse(b"$99999999999\r\n", 0).is_err());
        assert!(parse("*1\r\n".repeat(9).as_bytes(), 0).is_err());
        assert_eq!(
            parse(b"-ERR no\r\n", 0).unwrap(),
            Some((Err("ERR no".to_owned()), 9))
        );
    }
}
