//! Configuration writes all the time, by a node that stays as it is: for how long are they not taken?

use crate::demo::node::Node;
use anyhow::{Result, bail};
use serde::Serialize;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Between two writes.
const PACE: Duration = Duration::from_millis(100);

/// What became of the writes.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct Written {
    pub(super) taken: u32,
    pub(super) refused: u32,
    /// From the first time that a write was refused until one was taken, at most; s.
    pub(super) refused_for: f64,
    /// Longest time that a write that was taken took; s.
    pub(super) longest: f64,
}

/// Writes that go on.
pub(super) struct Writes {
    end: Arc<AtomicBool>,
    thread: JoinHandle<Written>,
}

impl Writes {
    pub(super) fn start(node: &Node) -> Self {
        let end = Arc::new(AtomicBool::new(false));
        let ends = Arc::clone(&end);
        let rladmin = node.program("rladmin");
        Self {
            end,
            thread: std::thread::spawn(move || write(&rladmin, &ends)),
        }
    }

    pub(super) fn end(self) -> Result<Written> {
        self.end.store(true, Ordering::Relaxed);
        match self.thread.join() {
            Ok(written) => Ok(written),
            Err(_) => bail!("the thread of the configuration writes broke down"),
        }
    }
}

fn write(rladmin: &PathBuf, end: &AtomicBool) -> Written {
    let mut written = Written::default();
    let mut refused_since: Option<Instant> = None;
    let mut soak = 0_u32;
    while !end.load(Ordering::Relaxed) {
        soak = (soak + 1) % 60;
        let began = Instant::now();
        let status = Command::new(rladmin)
            .args([
                "cluster",
                "upgrade",
                "config",
                "soak_seconds",
                &soak.to_string(),
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        if status.is_ok_and(|status| status.success()) {
            written.taken += 1;
            written.longest = written.longest.max(began.elapsed().as_secs_f64());
            if let Some(since) = refused_since.take() {
                written.refused_for = written.refused_for.max(since.elapsed().as_secs_f64());
            }
        } else {
            written.refused += 1;
            refused_since.get_or_insert(began);
        }
        std::thread::sleep(PACE);
    }
    if let Some(since) = refused_since {
        written.refused_for = written.refused_for.max(since.elapsed().as_secs_f64());
    }
    written
}
