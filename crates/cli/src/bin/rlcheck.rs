//! `rlcheck`: see [`cli::rlcheck`].

fn main() -> std::process::ExitCode {
    cli::rlcheck::main()
}
