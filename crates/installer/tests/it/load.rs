//! Clients that write and read through every node, each its own key, and count what is not as it should be.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Runs until it is told to end.
pub(crate) struct Load {
    enough: Arc<AtomicBool>,
    served: Arc<AtomicU64>,
    clients: Vec<JoinHandle<Result<(), String>>>,
}

impl Load {
    /// Two clients a node: one stays connected, one connects for each write.
    pub(crate) fn start(addresses: impl Iterator<Item = Ipv4Addr>) -> Self {
        let enough = Arc::new(AtomicBool::new(false));
        let served = Arc::new(AtomicU64::new(0));
        let mut clients = Vec::new();
        for (number, address) in addresses.enumerate() {
            for stays in [true, false] {
                let (enough, served) = (Arc::clone(&enough), Arc::clone(&served));
                let key = format!("key-{number}-{stays}");
                clients.push(std::thread::spawn(move || {
                    client(address, &key, stays, &enough, &served)
                        .map_err(|error| format!("{key} at {address}: {error}"))
                }));
            }
        }
        Self {
            enough,
            served,
            clients,
        }
    }

    /// Waits until more has been served.
    pub(crate) fn goes_on(&self) {
        let before = self.served.load(Ordering::Relaxed);
        crate::bench::wait_until("clients are served", || {
            self.served.load(Ordering::Relaxed) > before + 100
        });
    }

    /// Ends it; not one error is allowed.
    pub(crate) fn ends_well(self) {
        self.enough.store(true, Ordering::Relaxed);
        let errors: Vec<String> = self
            .clients
            .into_iter()
            .filter_map(|client| client.join().unwrap().err())
            .collect();
        assert!(errors.is_empty(), "{}", errors.join("\n"));
        println!("{} commands", self.served.load(Ordering::Relaxed));
    }
}

fn connect(address: Ipv4Addr) -> std::io::Result<BufReader<TcpStream>> {
    let stream = TcpStream::connect((address, 12000))?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    Ok(BufReader::new(stream))
}

fn command(connection: &mut BufReader<TcpStream>, words: &[&str]) -> std::io::Result<String> {
    let mut text = format!("*{}\r\n", words.len());
    for word in words {
        text += &format!("${}\r\n{word}\r\n", word.len());
    }
    connection.get_mut().write_all(text.as_bytes())?;
    let mut line = String::new();
    connection.read_line(&mut line)?;
    if line.starts_with('$') {
        line.clear();
        connection.read_line(&mut line)?;
    }
    if line.is_empty() {
        return Err(std::io::Error::other("the connection was closed"));
    }
    Ok(line.trim_end().to_owned())
}

fn client(
    address: Ipv4Addr,
    key: &str,
    stays: bool,
    enough: &AtomicBool,
    served: &AtomicU64,
) -> std::io::Result<()> {
    let mut connection = connect(address)?;
    for count in 0_u64.. {
        if enough.load(Ordering::Relaxed) {
            break;
        }
        if !stays {
            connection = connect(address)?;
        }
        let value = count.to_string();
        let answer = command(&mut connection, &["SET", key, &value])?;
        let found = command(&mut connection, &["GET", key])?;
        if answer != "+OK" || found != value {
            return Err(std::io::Error::other(format!(
                "SET {value}: {answer}; GET: {found}"
            )));
        }
        served.fetch_add(2, Ordering::Relaxed);
        // A small load: the machine has other work.
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}
