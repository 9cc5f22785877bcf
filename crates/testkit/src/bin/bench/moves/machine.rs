//! Whether the machine itself was there: what a worst case is held against.
//!
//! A thread of real-time priority on each core sleeps for a millisecond, again and again. Nothing that is measured can
//! keep it from its core but the kernel; when it wakes late, so did everybody. On a virtual machine whose host is busy
//! that happens several times a minute, for up to ten milliseconds and more, which no database can be blamed for.

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use testkit::history::Micros;
use testkit::load::Clock;
use thread_priority::{
    RealtimeThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy,
    set_thread_priority_and_policy, thread_native_id,
};

const SLEEP: Duration = Duration::from_millis(1);
/// From here on it is late. Without load it is by 0.1 ms, with all cores busy by less than 1.
pub(crate) const LATE: Duration = Duration::from_millis(2);
/// Above everything that runs as usual, below the kernel's own.
const PRIORITY: u8 = 10;

/// Watches the machine until it is dropped.
pub(crate) struct Machine {
    stops: Arc<AtomicBool>,
    late: Arc<Mutex<Vec<Late>>>,
    threads: Vec<JoinHandle<()>>,
}

/// A core was not there.
#[derive(Clone, Copy, Debug)]
struct Late {
    from: Micros,
    to: Micros,
}

impl Machine {
    /// `None`, with a word about it, where threads may not have real-time priority.
    pub(crate) fn watch(clock: Clock) -> Option<Self> {
        let cores = sched_getaffinity(None).ok()?;
        let mut machine = Self {
            stops: Arc::default(),
            late: Arc::default(),
            threads: Vec::new(),
        };
        let mut ready = Vec::new();
        for core in (0..CpuSet::MAX_CPU).filter(|core| cores.is_set(*core)) {
            let (stops, late) = (Arc::clone(&machine.stops), Arc::clone(&machine.late));
            let (tell, told) = std::sync::mpsc::sync_channel(1);
            machine.threads.push(std::thread::spawn(move || {
                let begun = begin(core);
                let goes_on = begun.is_ok();
                let _ = tell.send(begun);
                while goes_on && !stops.load(Ordering::Relaxed) {
                    look(clock, &late);
                }
            }));
            ready.push(told);
        }
        for told in ready {
            if let Err(error) = told.recv().ok()? {
                println!("whether the machine is late is not measured: {error}");
                return None;
            }
        }
        Some(machine)
    }

    /// The longest time, ms, for which a core was not there between two moments; 0 when none was late.
    pub(crate) fn late_ms(&self, (from, to): (Micros, Micros)) -> f64 {
        let all = self.late.lock().unwrap_or_else(PoisonError::into_inner);
        let within = all.iter().filter(|l| l.from <= to && l.to >= from);
        within
            .map(|l| (l.to - l.from) as f64 / 1e3)
            .fold(0.0, f64::max)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.stops.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Gives the calling thread one core, and priority there.
fn begin(core: usize) -> Result<(), String> {
    let mut set = CpuSet::new();
    set.set(core);
    sched_setaffinity(None, &set).map_err(|error| error.to_string())?;
    let first = ThreadSchedulePolicy::Realtime(RealtimeThreadSchedulePolicy::Fifo);
    let priority = PRIORITY.try_into().map(ThreadPriority::Crossplatform);
    let priority = priority.map_err(|error| format!("{error:?}"))?;
    set_thread_priority_and_policy(thread_native_id(), priority, first)
        .map_err(|error| format!("{error:?}"))
}

fn look(clock: Clock, late: &Mutex<Vec<Late>>) {
    let (from, began) = (clock.now(), Instant::now());
    std::thread::sleep(SLEEP);
    if began.elapsed() >= SLEEP + LATE {
        let sleep = u64::try_from(SLEEP.as_micros()).unwrap_or(0);
        let mut all = late.lock().unwrap_or_else(PoisonError::into_inner);
        all.push(Late {
            from: from + sleep,
            to: clock.now(),
        });
    }
}
