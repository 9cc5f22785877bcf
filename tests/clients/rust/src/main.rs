//! A program with redis-rs, for one version of the protocol. Runs every scenario on each target, directly first.
//!
//! usage: client-programs {2|3} GIVEN RESULTS

use crate::side::{Side, Target};
use anyhow::{Context as _, bail, ensure};
use serde::{Deserialize, Serialize};
use std::time::Instant;

mod asynchronous;
mod blocking;
mod caching;
mod messages;
mod pools;
mod side;

/// What `driver.py` wants.
#[derive(Debug, Deserialize)]
struct Given {
    program: String,
    targets: Vec<Target>,
    scenarios: Option<Vec<String>>,
    times: bool,
}

/// What it gets.
#[derive(Debug, Default, Serialize)]
struct Counts {
    passed: u32,
    failed: u32,
}

/// A scenario: what it is called, what it does, and where it makes sense.
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) run: fn(&Side) -> anyhow::Result<()>,
    pub(crate) on: On,
}

/// Where a scenario makes sense.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum On {
    /// With both versions of the protocol; both sides must see the same.
    Both,
    /// With version 3; both sides must see the same.
    Version3,
    /// The endpoint answers otherwise than an engine.
    Endpoint,
}

fn main() -> anyhow::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [protocol, given, results] = &words[..] else {
        bail!("usage: client-programs {{2|3}} GIVEN RESULTS");
    };
    let protocol: u8 = protocol.parse().context("the version of the protocol")?;
    let given: Given = serde_json::from_str(&std::fs::read_to_string(given)?)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let mut counts = Counts::default();
    for target in &given.targets {
        let began = Instant::now();
        let sides = ["direct", "endpoint"].map(|way| {
            let proxied = way == "endpoint";
            Side::new(
                runtime.handle().clone(),
                protocol,
                &given.program,
                target,
                proxied,
            )
        });
        let mut here = Counts::default();
        for scenario in wanted(&given, protocol) {
            let start = Instant::now();
            match on_both(scenario, &sides) {
                Ok(()) => here.passed += 1,
                Err(error) => {
                    here.failed += 1;
                    println!(
                        "FAIL {} {} {}: {:.600}",
                        given.program,
                        target.name,
                        scenario.name,
                        format!("{error:#}")
                    );
                }
            }
            if given.times {
                println!(
                    "    {:<32} {:.2} s",
                    scenario.name,
                    start.elapsed().as_secs_f64()
                );
            }
        }
        println!(
            "{:<18} {:<11} {:>3} passed {:>3} failed {:>6.1} s",
            given.program,
            target.name,
            here.passed,
            here.failed,
            began.elapsed().as_secs_f64()
        );
        counts.passed += here.passed;
        counts.failed += here.failed;
    }
    std::fs::write(results, serde_json::to_string(&counts)?)?;
    // Nothing that still waits keeps the program from ending.
    runtime.shutdown_background();
    std::process::exit(i32::from(counts.failed > 0));
}

fn wanted(given: &Given, protocol: u8) -> impl Iterator<Item = &'static Scenario> {
    let all = [
        blocking::SCENARIOS,
        asynchronous::SCENARIOS,
        messages::SCENARIOS,
        caching::SCENARIOS,
        pools::SCENARIOS,
    ];
    all.into_iter().flatten().filter(move |scenario| {
        let chosen = given.scenarios.as_ref();
        chosen.is_none_or(|names| names.iter().any(|name| name == scenario.name))
            && (protocol == 3 || scenario.on != On::Version3)
    })
}

/// Runs a scenario on both sides and compares what it saw.
fn on_both(scenario: &Scenario, [direct, endpoint]: &[Side; 2]) -> anyhow::Result<()> {
    let seen = |side: &Side| {
        side.begin(scenario.name);
        (scenario.run)(side)?;
        Ok::<_, anyhow::Error>(side.seen())
    };
    if scenario.on == On::Endpoint {
        return seen(endpoint).map(drop);
    }
    let wanted = seen(direct).context("directly on the engine")?;
    let got = seen(endpoint)?;
    for ((what, wanted), (_, got)) in wanted.iter().zip(&got) {
        ensure!(
            wanted == got,
            "{what}:\n    engine:   {wanted}\n    endpoint: {got}"
        );
    }
    ensure!(
        wanted.len() == got.len(),
        "{} answers directly, {} through the endpoint",
        wanted.len(),
        got.len()
    );
    Ok(())
}
