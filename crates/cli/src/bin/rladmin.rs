//! `rladmin`: see [`cli::rladmin`].

fn main() -> std::process::ExitCode {
    cli::rladmin::main()
}
