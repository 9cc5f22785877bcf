//! A plain client: bytes out, replies in.

use super::PATIENCE;
use resp::reply::ReplyFramer;
use resp::value::Value;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

pub struct Client {
    pub stream: TcpStream,
    pub kept: Vec<u8>,
}

/// A command as an array of bulk strings.
pub fn command(words: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::new();
    resp::request::encode(words.iter().copied(), &mut out);
    out
}

/// A command written as words with blanks between them; `''` is an empty word.
pub fn words(line: &str) -> Vec<u8> {
    let words = resp::inline::split(line.as_bytes()).unwrap();
    command(&words.iter().map(Vec::as_slice).collect::<Vec<_>>())
}

impl Client {
    pub fn try_connect(address: SocketAddr) -> Option<Self> {
        let stream = TcpStream::connect(address).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Some(Self {
            stream,
            kept: Vec::new(),
        })
    }

    #[track_caller]
    pub fn connect(address: SocketAddr) -> Self {
        Self::try_connect(address).unwrap_or_else(|| panic!("{address} refuses"))
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// The next reply as it came, or `None` at the end of the stream.
    pub fn try_raw(&mut self) -> Option<Vec<u8>> {
        let mut framer = ReplyFramer::default();
        let mut seen = 0;
        let mut buffer = vec![0; 64 * 1024];
        loop {
            if seen < self.kept.len() {
                let got = framer.advance(&self.kept[seen..]).unwrap();
                seen += got.consumed;
                if got.complete {
                    let rest = self.kept.split_off(seen);
                    return Some(std::mem::replace(&mut self.kept, rest));
                }
            }
            match self.stream.read(&mut buffer) {
                Ok(0) => return None,
                Ok(count) => self.kept.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("no reply came: {error}"),
            }
        }
    }

    #[track_caller]
    pub fn raw(&mut self) -> Vec<u8> {
        self.try_raw().expect("the connection was closed")
    }

    #[track_caller]
    pub fn reply(&mut self) -> Value {
        let raw = self.raw();
        Value::decode(&raw).unwrap().0
    }

    /// Sends a command written as a line and returns its reply.
    #[track_caller]
    pub fn ask(&mut self, line: &str) -> Value {
        self.send(&words(line));
        self.reply()
    }

    /// The same, as text for comparing.
    #[track_caller]
    pub fn text(&mut self, line: &str) -> String {
        shown(&self.ask(line))
    }

    /// Whether something has come that was not read.
    pub fn is_told(&self) -> bool {
        self.stream.set_nonblocking(true).unwrap();
        let seen = self.stream.peek(&mut [0]);
        self.stream.set_nonblocking(false).unwrap();
        !self.kept.is_empty() || seen.is_ok_and(|count| count > 0)
    }

    /// Bytes that were received and not looked at.
    pub fn waiting(&self) -> usize {
        self.kept.len()
    }

    pub fn pings(&mut self) -> bool {
        let sent = self.stream.write_all(b"PING\r\n").is_ok();
        sent && self.try_raw().is_some_and(|raw| raw == b"+PONG\r\n")
    }
}

/// A reply as text.
pub fn shown(value: &Value) -> String {
    let mut out = Vec::new();
    value.encode(&mut out);
    String::from_utf8_lossy(&out).into_owned()
}
