//! Waiting for a condition with a deadline: tests never wait for a time.

use std::time::{Duration, Instant};

/// Asks until the answer is `Some`, or fails with what was waited for and what was seen last.
///
/// # Errors
/// When the deadline passes.
pub fn until<T>(
    what: &str,
    within: Duration,
    mut ask: impl FnMut() -> Result<T, String>,
) -> anyhow::Result<T> {
    let deadline = Instant::now() + within;
    loop {
        match ask() {
            Ok(value) => return Ok(value),
            Err(seen) if Instant::now() > deadline => {
                anyhow::bail!(
                    "{what}: not within {} s; last seen: {seen}",
                    within.as_secs()
                )
            }
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}
