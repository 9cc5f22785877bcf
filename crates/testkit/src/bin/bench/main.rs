//! `cargo xtask bench <start|proxy> …`: figures, never assertions.

mod proxy;
mod start;

use std::process::ExitCode;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let done = match words.split_first() {
        Some((name, rest)) if name == "start" => start::main(rest),
        Some((name, rest)) if name == "proxy" => proxy::main(rest),
        _ => Err(anyhow::anyhow!("there are two benchmarks: start, proxy")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
