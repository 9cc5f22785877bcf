//! A network of its own on 127.0.0.0/8 for each run, held by a lock, so that runs side by side do
//! not meet.

use anyhow::Context as _;
use rustix::fs::{FlockOperation, flock};
use std::fs::{File, OpenOptions};
use std::net::{IpAddr, Ipv4Addr};

/// A network `127.x.y.0/24`; free again when dropped.
#[derive(Debug)]
pub struct Network {
    x: u8,
    y: u8,
    _lock: File,
}

impl Network {
    /// Takes a free one.
    ///
    /// # Errors
    /// When none is free.
    pub fn take() -> anyhow::Result<Self> {
        let folder = std::env::temp_dir().join("mainstay-test-networks");
        std::fs::create_dir_all(&folder)?;
        for number in 0..1_000_u16 {
            let (x, y) = (
                100 + u8::try_from(number / 250)?,
                1 + u8::try_from(number % 250)?,
            );
            let path = folder.join(format!("127.{x}.{y}"));
            let lock = OpenOptions::new()
                .create(true)
                .truncate(false)
                .write(true)
                .open(&path)
                .with_context(|| path.display().to_string())?;
            if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok() {
                return Ok(Self { x, y, _lock: lock });
            }
        }
        anyhow::bail!("every test network is taken")
    }

    /// The two numbers that are its own.
    #[must_use]
    pub const fn numbers(&self) -> (u8, u8) {
        (self.x, self.y)
    }

    /// The address with this last number.
    #[must_use]
    pub fn address(&self, last: u8) -> IpAddr {
        IpAddr::V4(Ipv4Addr::new(127, self.x, self.y, last))
    }
}
