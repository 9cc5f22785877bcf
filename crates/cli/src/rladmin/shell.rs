//! The shell: a prompt on a terminal, otherwise commands line by line from standard input.

use super::commands::COMMANDS;
use super::complete::complete;
use super::failure::Failure;
use super::parse::{Typed, parse};
use super::session::Session;
use super::words;
use rustyline::completion::Completer;
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::DefaultHistory;
use rustyline::validate::Validator;
use rustyline::{CompletionType, Config, Context, Editor, Helper};
use std::path::PathBuf;

/// Lines of history that are kept.
const HISTORY_MAX: usize = 500;

/// Completion for the line editor.
#[derive(Debug)]
struct Words;

impl Completer for Words {
    type Candidate = String;

    fn complete(
        &self,
        line: &str,
        pos: usize,
        _: &Context<'_>,
    ) -> rustyline::Result<(usize, Vec<String>)> {
        Ok(complete(line, pos))
    }
}

impl Hinter for Words {
    type Hint = String;
}
impl Highlighter for Words {}
impl Validator for Words {}
impl Helper for Words {}

/// Prompts until `exit` or Ctrl-D. Failures are printed and end nothing.
///
/// # Errors
/// When the terminal cannot be used.
pub fn prompt(session: &mut Session) -> Result<(), Failure> {
    let failed = |e: ReadlineError| Failure::Other(format!("cannot use the terminal: {e}"));
    let config = Config::builder()
        .completion_type(CompletionType::List)
        .max_history_size(HISTORY_MAX)
        .map_err(failed)?
        .build();
    let mut editor: Editor<Words, DefaultHistory> = Editor::with_config(config).map_err(failed)?;
    editor.set_helper(Some(Words));
    let history = history_path();
    if let Some(path) = &history {
        // No file yet is the ordinary first start.
        let _ = editor.load_history(path);
    }
    loop {
        match editor.readline("rladmin> ") {
            Ok(line) => {
                if may_be_kept(&line) {
                    let _ = editor.add_history_entry(line.trim());
                }
                if session.shell_line(&line).is_break() {
                    break;
                }
            }
            Err(ReadlineError::Interrupted) => {}
            Err(ReadlineError::Eof) => break,
            Err(error) => return Err(failed(error)),
        }
    }
    if let Some(path) = &history {
        let _ = editor.save_history(path);
    }
    Ok(())
}

/// History of the user's shells, readable by the user alone.
fn history_path() -> Option<PathBuf> {
    let home = std::env::var_os("HOME").filter(|home| !home.is_empty())?;
    Some(PathBuf::from(home).join(".rladmin_history"))
}

/// Whether a line may go into the history: not one that holds, or may hold, a password.
fn may_be_kept(line: &str) -> bool {
    let Ok(words) = words::split(line) else {
        return false;
    };
    match parse(&words) {
        Ok((_, Typed::Command(invocation))) => !invocation.shows_password(),
        Ok(_) => !words.is_empty(),
        // Mistyped lines are worth having back, but the mistake may be beside a password.
        Err(_) => words.len() <= 2 || words.first().is_some_and(|word| never_has_password(word)),
    }
}

/// Whether a first word is known and no command that begins with it takes a password.
fn never_has_password(first: &str) -> bool {
    let mut group = COMMANDS
        .iter()
        .filter(|command| command.words[0] == first)
        .peekable();
    group.peek().is_some() && group.all(|command| command.field("password").is_none())
}

#[cfg(test)]
mod tests {
    use super::may_be_kept;

    #[test]
    fn passwords_do_not_go_into_the_history() {
        for line in [
            "status",
            "statsu nodes",
            "status extra rack_id nodse",
            "cluster create name c username a@b.c password -",
            "help",
        ] {
            assert!(may_be_kept(line), "{line}");
        }
        for line in [
            "",
            "cluster create name c username a@b.c password secret",
            "cluster create name c username a@b.c pasword secret",
            "cluster create nme c username a@b.c password secret",
            "clustr create name c username a@b.c secret",
            "tune db x password 'open",
        ] {
            assert!(!may_be_kept(line), "{line}");
        }
    }
}
