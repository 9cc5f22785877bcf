//! mainstay-node: see [`installer::node`].

use clap::{Parser, Subcommand};
use std::process::ExitCode;

#[derive(Debug, Parser)]
#[command(name = "mainstay-node", about = "Runs the daemons of a Mainstay node")]
struct Arguments {
    /// Leave the terminal's session.
    #[arg(long)]
    detached: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Stop the node: engines save and stop, then the daemons.
    Stop,
    #[command(hide = true)]
    ExecSupervisord,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = match arguments.command {
        None => installer::node::run(arguments.detached),
        Some(Command::Stop) => installer::node::stop(),
        Some(Command::ExecSupervisord) => installer::node::exec_supervisord(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mainstay-node: {error:#}");
            ExitCode::FAILURE
        }
    }
}
