//! Ctrl-C, and load generators that take too long. A thread watches both, so that the measuring one
//! can sleep in `waitid` and disturb nothing.

use super::processes;
use anyhow::{Context as _, bail};
use rustix::process::{Signal, kill_process};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};

#[derive(Default)]
struct State {
    asked: bool,
    /// Process that is waited for, and until when.
    running: Option<(u32, Instant)>,
    late: bool,
}

#[derive(Clone, Default)]
pub(crate) struct Interrupt(Arc<Mutex<State>>);

impl Interrupt {
    /// Begins to watch.
    pub(crate) fn watch() -> anyhow::Result<Self> {
        let interrupt = Self::default();
        let watched = interrupt.clone();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (mut first, mut second) = {
            let _context = runtime.enter();
            (
                signal(SignalKind::interrupt())?,
                signal(SignalKind::terminate())?,
            )
        };
        std::thread::Builder::new()
            .name("interrupt".to_owned())
            .spawn(move || {
                runtime.block_on(async {
                    let mut clock = tokio::time::interval(Duration::from_millis(250));
                    loop {
                        tokio::select! {
                            _ = first.recv() => watched.ask(),
                            _ = second.recv() => watched.ask(),
                            _ = clock.tick() => watched.look(),
                        }
                    }
                })
            })
            .context("starting a thread")?;
        Ok(interrupt)
    }

    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn ask(&self) {
        self.with(|state| {
            state.asked = true;
            kill(state.running);
        });
    }

    fn look(&self) {
        self.with(|state| {
            if state
                .running
                .is_some_and(|(_, until)| Instant::now() > until)
            {
                state.late = true;
                kill(state.running);
            }
        });
    }

    /// Fails if the user wants to end.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        if self.with(|state| state.asked) {
            bail!("interrupted");
        }
        Ok(())
    }

    /// Notes a process to be killed when it is late, or when the user wants to end.
    pub(crate) fn begin(&self, pid: u32, within: Duration) {
        self.with(|state| {
            state.late = false;
            state.running = Some((pid, Instant::now() + within));
            if state.asked {
                kill(state.running);
            }
        });
    }

    /// The process has ended; call it before its number can be anybody else's. Says whether it was late.
    pub(crate) fn end(&self) -> bool {
        self.with(|state| {
            state.running = None;
            state.late
        })
    }
}

fn kill(running: Option<(u32, Instant)>) {
    if let Some(pid) = running.and_then(|(pid, _)| processes::pid(pid)) {
        let _ = kill_process(pid, Signal::KILL);
    }
}
