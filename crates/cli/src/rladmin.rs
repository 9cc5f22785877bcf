//! `rladmin`: looks at the cluster and changes it.
//!
//! | file | what |
//! |---|---|
//! | [`commands`], [`grammar`] | the commands, as a table |
//! | [`later`] | commands of later releases, answered by name |
//! | [`words`], [`parse`], [`complete`], [`help`] | what works on that table |
//! | [`session`], [`shell`], [`screen`], [`password`] | one run: where it reads, writes and asks |
//! | [`resources`], [`operation`] | what is read from REST, and operations that are followed |
//! | [`status`], [`info`], [`cluster`], [`join`], [`database`], [`failover`], [`migrate`], [`balance`], [`racks`], [`copies`] | the commands' work |
//! | [`node`], [`actions`] | actions on nodes; what runs, goes on, is given up |
//! | [`upgrade`] | how far an upgrade is, how one would go; what a code means |
//! | [`failure`] | how a command ends badly, and the exit codes |

pub mod actions;
pub mod balance;
pub mod cluster;
pub mod commands;
pub mod complete;
pub mod copies;
pub mod database;
pub mod failover;
pub mod failure;
pub mod grammar;
pub mod help;
pub mod info;
pub mod join;
pub mod later;
pub mod migrate;
pub mod node;
pub mod operation;
pub mod parse;
pub mod password;
pub mod proxy;
pub mod racks;
pub mod resources;
pub mod screen;
pub mod session;
pub mod shell;
pub mod status;
pub mod upgrade;
pub mod words;

use crate::installation::version_line;
use failure::{EXIT_OK, Failure};
use parse::{Options, Typed, parse};
use session::Session;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;

/// Runs the command of the process's arguments; without one, the shell.
#[must_use]
pub fn main() -> ExitCode {
    let words: Result<Vec<String>, _> = std::env::args_os()
        .skip(1)
        .map(std::ffi::OsString::into_string)
        .collect();
    let words = match words {
        Ok(words) => words,
        Err(word) => {
            let message = format!("'{}' is not UTF-8", word.to_string_lossy());
            return ended(Err(Failure::usage(message, "help")), None, false);
        }
    };
    // Before the words are understood, `--json` decides how to say that they are not.
    let json = words.iter().any(|word| word == "--json");
    match parse(&words) {
        Ok((options, typed)) => run(options, typed),
        Err(failure) => ended(Err(failure), None, json),
    }
}

fn run(options: Options, typed: Typed) -> ExitCode {
    let mut session = match Session::begin(options) {
        Ok(session) => session,
        Err(failure) => return ended(Err(failure), None, options.json),
    };
    if options.version {
        session.screen.line(version_line("rladmin"));
        return ExitCode::from(EXIT_OK);
    }
    let result = match typed {
        Typed::Nothing if std::io::stdin().is_terminal() => shell::prompt(&mut session),
        Typed::Nothing => session.script(),
        Typed::Help(topic) => help::help(&topic).map(|text| session.screen.text(&text)),
        Typed::Command(invocation) => session.command(&invocation),
    };
    ended(result, session.installation(), options.json)
}

/// Prints a failure and gives the exit code.
fn ended(
    result: Result<(), Failure>,
    installation: Option<&crate::installation::Installation>,
    json: bool,
) -> ExitCode {
    let Err(failure) = result else {
        return ExitCode::from(EXIT_OK);
    };
    let text = if json {
        format!("{}\n", failure.to_json())
    } else {
        failure.render(installation)
    };
    let _ = std::io::stderr().write_all(text.as_bytes());
    ExitCode::from(failure.exit_code())
}
