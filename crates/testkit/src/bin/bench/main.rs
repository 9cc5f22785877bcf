//! `cargo xtask bench <start|proxy|moves> …`: figures, never assertions.

mod moves;
mod page;
mod proxy;
mod start;

use std::process::ExitCode;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let done = match words.split_first() {
        Some((name, rest)) if name == "start" => start::main(rest),
        Some((name, rest)) if name == "proxy" => proxy::main(rest),
        Some((name, rest)) if name == "moves" => moves::main(rest),
        _ => Err(anyhow::anyhow!(
            "there are three benchmarks: start, proxy, moves"
        )),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
