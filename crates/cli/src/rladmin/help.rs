//! Help and the reference page, from the table of commands.

use super::commands::COMMANDS;
use super::failure::Failure;
use super::grammar::{Arity, Command};
use super::later;
use super::words::nearest;
use model::validate;
use std::fmt::Write;

/// Width of a line of help.
const WIDTH: usize = 96;

const OPTIONS: &[(&str, &str)] = &[
    (
        "-y, --yes",
        "Answers yes to every question (not to that about a CA's fingerprint).",
    ),
    ("--json", "Prints JSON."),
    ("-h, --help", "Explains the command instead of running it."),
    ("-V, --version", "Prints version and build id."),
];

const EXIT_CODES: &str = "Exit codes: 0 done, 1 failed, 2 not understood.";

/// Help on words: all commands, one group, or one command.
///
/// # Errors
/// [`Failure::Usage`] when no command begins with the words.
pub fn help(topic: &[String]) -> Result<String, Failure> {
    if topic.is_empty() {
        return Ok(overview());
    }
    if let Some(command) = COMMANDS.iter().find(|command| command.is_named(topic)) {
        return Ok(explain(command));
    }
    let group: Vec<&Command> = COMMANDS
        .iter()
        .filter(|command| command.agrees(topic) == topic.len())
        .collect();
    if group.is_empty()
        && let Some(answer) = later::command(topic)
    {
        return Err(answer);
    }
    if group.is_empty() {
        let known = COMMANDS
            .iter()
            .flat_map(|command| command.words.iter().copied());
        let word = topic
            .iter()
            .find(|word| !known.clone().any(|k| k == *word))
            .unwrap_or(&topic[0]);
        let meant = nearest(word, known)
            .map(|word| format!(" (did you mean '{word}'?)"))
            .unwrap_or_default();
        return Err(Failure::usage(
            format!(
                "there is no command '{}'{meant}",
                validate::shown(&topic.join(" "))
            ),
            "help [command]",
        ));
    }
    Ok(group
        .iter()
        .map(|command| explain(command))
        .collect::<Vec<_>>()
        .join("\n"))
}

fn overview() -> String {
    let mut out = String::from(
        "Usage: rladmin [options] [command]\n\nWithout a command: a shell, or commands line by line from standard input.\n\nCommands:\n",
    );
    let width = COMMANDS
        .iter()
        .map(|command| command.name().len())
        .max()
        .unwrap_or(0);
    for command in COMMANDS {
        let _ = writeln!(out, "  {:width$}  {}", command.name(), command.summary);
    }
    out.push_str("\nOptions:\n");
    for (option, help) in OPTIONS {
        let _ = writeln!(out, "  {option:width$}  {help}");
    }
    let _ = writeln!(
        out,
        "\nA database is written db:<id> or by its name, a node <id> or node:<id>.\n\
         `help <command>` explains a command. {EXIT_CODES}"
    );
    out
}

fn explain(command: &Command) -> String {
    let mut out = String::new();
    wrap(
        &mut out,
        &format!("Usage: rladmin {}", command.usage()),
        0,
        8,
    );
    let _ = writeln!(out, "\n{}", command.summary);
    for note in command.notes {
        out.push('\n');
        wrap(&mut out, note, 0, 0);
    }
    let mut rows: Vec<(String, String)> = Vec::new();
    if let Some(operand) = &command.operand {
        rows.push((
            operand.kind.placeholder(operand.name),
            operand.help.to_owned(),
        ));
    }
    for field in command.fields {
        let mut left = field.word.to_owned();
        if field.arity != Arity::Flag {
            let value = if field.name.is_empty() {
                "<word>"
            } else {
                &format!("<{}>", field.name)
            };
            left = format!("{left} {value}");
        }
        if field.arity == Arity::Many {
            left.push_str("...");
        }
        let mut right = field.help.to_owned();
        if let Some(words) = choices(field) {
            right = format!("{right} One of: {words}.");
        }
        if field.required {
            right.push_str(" Required.");
        }
        rows.push((left, right));
    }
    if rows.is_empty() {
        return out;
    }
    out.push('\n');
    let width = rows
        .iter()
        .map(|(left, _)| left.len())
        .max()
        .unwrap_or(0)
        .min(46);
    for (left, right) in rows {
        wrap(&mut out, &format!("  {left:width$}  {right}"), 0, width + 4);
    }
    out
}

fn choices(field: &super::grammar::Field) -> Option<String> {
    let words = field.kind.words();
    (matches!(field.kind, super::grammar::Kind::Choice(_)) && field.word != "extra")
        .then(|| words.join(", "))
}

/// Adds `text` in lines of at most [`WIDTH`], the first indented by `first`, others by `others`.
fn wrap(out: &mut String, text: &str, first: usize, others: usize) {
    let lead = text.len() - text.trim_start().len() + first;
    let mut line = " ".repeat(lead);
    let mut empty = true;
    // Runs of spaces inside (columns) are kept: only single spaces are places to break.
    for word in text.trim_start().split_inclusive(' ') {
        if !empty && line.len() + word.trim_end().len() > WIDTH {
            out.push_str(line.trim_end());
            out.push('\n');
            line = " ".repeat(others);
        }
        line.push_str(word);
        empty = false;
    }
    out.push_str(line.trim_end());
    out.push('\n');
}

/// The commands as Markdown, for `docs/rladmin.md`.
#[must_use]
pub fn markdown() -> String {
    let mut out = String::from("| command | what it does |\n|---|---|\n");
    for command in COMMANDS {
        let usage = command.usage().replace('|', "\\|");
        let _ = writeln!(out, "| `{usage}` | {} |", command.summary);
    }
    out
}
