//! A small client: fills a target, and checks that it gives back what it was given.

use anyhow::{Context as _, bail, ensure};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(20);
/// Bytes of commands that are sent before their replies are read.
const BATCH: usize = 512 * 1024;
/// Longest line and longest value that is taken.
const LONGEST: usize = 1024 * 1024;

pub(crate) struct Client {
    reader: BufReader<TcpStream>,
}

/// The key that valkey-benchmark makes of a number.
pub(crate) fn key(number: u32) -> String {
    format!("key:{number:012}")
}

fn command(words: &[&[u8]], into: &mut Vec<u8>) {
    into.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
    for word in words {
        into.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        into.extend_from_slice(word);
        into.extend_from_slice(b"\r\n");
    }
}

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, TIMEOUT)
            .with_context(|| format!("connecting to {address}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        Ok(Self {
            // Small: there are 10,000 of these at once.
            reader: BufReader::with_capacity(4096, stream),
        })
    }

    fn line(&mut self) -> anyhow::Result<String> {
        let mut line = Vec::new();
        (&mut self.reader)
            .take(LONGEST as u64)
            .read_until(b'\n', &mut line)
            .context("reading a reply")?;
        ensure!(
            line.ends_with(b"\r\n"),
            "the connection ended within a reply"
        );
        line.truncate(line.len() - 2);
        Ok(String::from_utf8(line)?)
    }

    fn expect_ok(&mut self) -> anyhow::Result<()> {
        let line = self.line()?;
        ensure!(line == "+OK", "the answer is {line}");
        Ok(())
    }

    /// A bulk string; `None`: there is none.
    fn bulk(&mut self) -> anyhow::Result<Option<Vec<u8>>> {
        let line = self.line()?;
        if line == "$-1" {
            return Ok(None);
        }
        let Some(length) = line.strip_prefix('$').and_then(|n| n.parse::<usize>().ok()) else {
            bail!("the answer is {line}");
        };
        ensure!(length <= LONGEST, "a value of {length} bytes");
        let mut value = vec![0; length + 2];
        self.reader.read_exact(&mut value)?;
        value.truncate(length);
        Ok(Some(value))
    }

    pub(crate) fn get(&mut self, key: &str) -> anyhow::Result<Option<Vec<u8>>> {
        self.send(&["GET", key])?;
        self.bulk()
    }

    /// Has a command done whose answer is `OK`.
    pub(crate) fn order(&mut self, words: &[&str]) -> anyhow::Result<()> {
        self.send(words)?;
        self.expect_ok().with_context(|| words.join(" "))
    }

    /// The answer to a command, in one string.
    pub(crate) fn tell(&mut self, words: &[&str]) -> anyhow::Result<String> {
        self.send(words)?;
        let told = self.bulk().with_context(|| words.join(" "))?;
        Ok(String::from_utf8(told.unwrap_or_default())?)
    }

    fn send(&mut self, words: &[&str]) -> anyhow::Result<()> {
        let words: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
        let mut bytes = Vec::new();
        command(&words, &mut bytes);
        Ok(self.reader.get_mut().write_all(&bytes)?)
    }

    /// Sets every key of a load.
    pub(crate) fn fill(&mut self, keys: u32, bytes: usize) -> anyhow::Result<()> {
        let value = vec![b'x'; bytes];
        let (mut batch, mut waiting) = (Vec::new(), 0);
        for number in 0..keys {
            command(&[b"SET", key(number).as_bytes(), &value], &mut batch);
            waiting += 1;
            if batch.len() >= BATCH || number + 1 == keys {
                self.reader.get_mut().write_all(&batch)?;
                for _ in 0..waiting {
                    self.expect_ok()?;
                }
                (batch, waiting) = (Vec::new(), 0);
            }
        }
        Ok(())
    }

    /// Sets values of several lengths, and reads them back, all in one go.
    pub(crate) fn check(&mut self) -> anyhow::Result<()> {
        let values: Vec<(String, Vec<u8>)> = [0, 1, 64, 1024, 16 * 1024, 100 * 1024]
            .into_iter()
            .enumerate()
            .map(|(number, length)| {
                let value = (0..length).map(|at| (at * 7 + number) as u8).collect();
                (format!("check:{number}"), value)
            })
            .collect();
        let mut bytes = Vec::new();
        for (key, value) in &values {
            command(&[b"SET", key.as_bytes(), value], &mut bytes);
        }
        self.reader.get_mut().write_all(&bytes)?;
        for _ in &values {
            self.expect_ok()?;
        }
        bytes.clear();
        for (key, _) in &values {
            command(&[b"GET", key.as_bytes()], &mut bytes);
        }
        command(&[b"GET", b"check:absent"], &mut bytes);
        self.reader.get_mut().write_all(&bytes)?;
        for (key, value) in &values {
            let found = self.bulk()?;
            ensure!(
                found.as_deref() == Some(value),
                "{key}: {} bytes were set, and something else came back",
                value.len()
            );
        }
        ensure!(
            self.bulk()?.is_none(),
            "a key that was never set has a value"
        );
        self.check_several(&values)
    }
    /// Reads them back with one command, over however many shards they lie on.
    fn check_several(&mut self, values: &[(String, Vec<u8>)]) -> anyhow::Result<()> {
        let mut words: Vec<&[u8]> = vec![b"MGET"];
        words.extend(values.iter().map(|(key, _)| key.as_bytes()));
        let mut bytes = Vec::new();
        command(&words, &mut bytes);
        self.reader.get_mut().write_all(&bytes)?;
        let line = self.line()?;
        ensure!(
            line == format!("*{}", values.len()),
            "the answer to MGET is {line}"
        );
        for (key, value) in values {
            ensure!(
                self.bulk()?.as_deref() == Some(value),
                "{key}: something else comes back from MGET"
            );
        }
        Ok(())
    }
}
