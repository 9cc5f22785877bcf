//! Starting and ending workers while the process serves.
//!
//! A new worker gets clients when it reaches the shards: those that come then, and its part of those that
//! are there. One that is too many gets no new clients, gives those that have nothing under way to the
//! others, and ends when it has none left.

use crate::scaling::Load;
use crate::stats::ServerStats;
use crate::worker::{Message, Prepared, WorkerHandle};
use anyhow::Context;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

/// The workers of this process.
#[derive(Debug)]
pub(crate) struct Workers {
    source: IpAddr,
    stats: Arc<ServerStats>,
    running: Vec<Running>,
    /// When it was looked last how busy they are, and what each had done by then: time of a core in ns, looks at
    /// commands of a client, commands taken.
    looked: Option<(Instant, HashMap<usize, [u64; 3]>)>,
}

#[derive(Debug)]
struct Running {
    handle: WorkerHandle,
    thread: JoinHandle<()>,
    /// It is one too many.
    retiring: bool,
}

impl Workers {
    /// None yet. `source`: the address that connections to other nodes come from.
    pub(crate) fn new(source: IpAddr, stats: Arc<ServerStats>) -> Self {
        Self {
            source,
            stats,
            running: Vec::new(),
            looked: None,
        }
    }

    /// Those that get new clients.
    pub(crate) fn serving(&self) -> Arc<[WorkerHandle]> {
        let serving = self.running.iter().filter(|worker| !worker.retiring);
        serving.map(|worker| worker.handle.clone()).collect()
    }

    /// All that have or may have clients.
    pub(crate) fn all(&self) -> Arc<[WorkerHandle]> {
        let all = self.running.iter().map(|worker| worker.handle.clone());
        all.collect()
    }

    /// How many get new clients.
    pub(crate) fn count(&self) -> usize {
        let serving = self.running.iter().filter(|worker| !worker.retiring);
        serving.count()
    }

    /// Whether one of them has clients but gets no new ones.
    pub(crate) fn any_retires(&self) -> bool {
        self.running.iter().any(|worker| worker.retiring)
    }

    /// Sees to it that so many get clients. Those that had been too many before come first, then new ones
    /// are started.
    ///
    /// # Errors
    /// The system has no thread or poller left; there are as many as could be started.
    pub(crate) fn resize(&mut self, wanted: usize) -> anyhow::Result<()> {
        for worker in self.running.iter_mut().skip(wanted) {
            worker.retiring = true;
        }
        for worker in self.running.iter_mut().take(wanted) {
            worker.retiring = false;
        }
        while self.running.len() < wanted {
            self.start()?;
        }
        Ok(())
    }

    fn start(&mut self) -> anyhow::Result<()> {
        let taken = |number: &usize| {
            let mut running = self.running.iter();
            running.any(|worker| worker.handle.number() == *number)
        };
        let number = (0..).find(|number| !taken(number)).unwrap_or(0);
        let prepared = Prepared::new(number).context("making a worker")?;
        let handle = prepared.handle();
        let worker = prepared.into_worker(Arc::clone(&self.stats), self.source);
        let thread = std::thread::Builder::new()
            .name(format!("worker-{number}"))
            .spawn(move || {
                let _end_together = EndTogether;
                schedule_in_batches();
                if let Err(error) = worker.run() {
                    tracing::error!(%error, "a worker has failed; the server ends");
                    std::process::abort();
                }
            })
            .context("starting a worker")?;
        self.running.push(Running {
            handle,
            thread,
            retiring: false,
        });
        Ok(())
    }

    /// Takes a worker out that is too many and has no clients. The others must know of it before it is
    /// told to stop: what they ask it until then it answers.
    pub(crate) fn take_empty(&mut self) -> Option<Leaving> {
        let empty = |worker: &Running| worker.retiring && worker.handle.clients() == 0;
        let place = self.running.iter().position(empty)?;
        Some(Leaving(self.running.remove(place)))
    }

    /// Takes a worker back that got a client at the last moment.
    pub(crate) fn take_back(&mut self, worker: Leaving) {
        self.running.push(worker.0);
    }

    /// Has clients move to where there are fewer: from workers that are too many, and from those that
    /// have more than their part.
    pub(crate) fn share_clients(&self) {
        let serving = self.serving();
        let clients: u64 = self
            .running
            .iter()
            .map(|worker| worker.handle.clients())
            .sum();
        let part = clients.div_ceil(serving.len().max(1) as u64);
        for worker in &self.running {
            let keep = if worker.retiring { 0 } else { part };
            if worker.handle.clients() > keep {
                let with = Arc::clone(&serving);
                // Its inbox is full: the next second will do.
                let _ = worker.handle.tell(Message::Share { with, keep });
            }
        }
    }

    /// What those that serve have done since it was looked last; `None`: not known.
    pub(crate) fn load(&mut self, now: Instant) -> Option<Load> {
        let mut known = HashMap::new();
        for worker in self.running.iter().filter(|worker| !worker.retiring) {
            let (looks, taken) = worker.handle.asked();
            let done = [worker.handle.processor_time()?, looks, taken];
            known.insert(worker.handle.number(), done);
        }
        let (at, before) = self.looked.replace((now, known.clone()))?;
        let passed = now.saturating_duration_since(at).as_nanos();
        let mut sums = [0_u128; 3];
        for (number, done) in &known {
            let before = before.get(number)?;
            for (sum, (now, then)) in sums.iter_mut().zip(done.iter().zip(before)) {
                *sum += u128::from(now.saturating_sub(*then));
            }
        }
        let [used, looks, taken] = sums;
        let whole = passed * known.len() as u128;
        let usage = u32::try_from((used * 100).checked_div(whole)?).ok()?;
        let depth = taken.checked_div(looks).unwrap_or(0);
        let depth = u32::try_from(depth).unwrap_or(u32::MAX);
        Some(Load { usage, depth })
    }

    /// Ends all of them.
    pub(crate) fn stop(self) {
        for worker in &self.running {
            // A full inbox means that it will not hear of it; the process ends all the same.
            let _ = worker.handle.tell(Message::Stop);
        }
        for worker in self.running {
            let _ = worker.thread.join();
        }
    }
}

/// A worker that is about to end.
#[derive(Debug)]
pub(crate) struct Leaving(Running);

impl Leaving {
    /// Ends it. `Err`: it has a client, or does not hear; it goes on.
    pub(crate) fn stop(self) -> Result<(), Self> {
        if self.0.handle.clients() > 0 || self.0.handle.tell(Message::Stop).is_err() {
            return Err(self);
        }
        let _ = self.0.thread.join();
        Ok(())
    }
}

/// Makes this thread one that does not push others from their core when it wakes (`SCHED_BATCH`): what
/// they are about to send comes with the same wake-up. Measured with 50 clients and pipelines of 16 on
/// two cores: a third less CPU a command, 1.16 times the rate (docs/benchmarks.md).
fn schedule_in_batches() {
    use thread_priority::{
        NormalThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy,
        set_thread_priority_and_policy, thread_native_id,
    };
    let batch = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Batch);
    // The crate knows niceness as a share of a hundred: 48 is a niceness of 0, as everybody has it.
    let Ok(usual) = 48.try_into().map(ThreadPriority::Crossplatform) else {
        return;
    };
    if let Err(error) = set_thread_priority_and_policy(thread_native_id(), usual, batch) {
        tracing::warn!(?error, "this thread is scheduled as any other");
    }
}

/// A worker that panics takes the process with it: its launcher starts a whole one.
struct EndTogether;

impl Drop for EndTogether {
    fn drop(&mut self) {
        if std::thread::panicking() {
            std::process::abort();
        }
    }
}
