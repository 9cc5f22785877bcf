//! What a command says and asks.

use super::failure::Failure;
use crate::terminal;
use serde::Serialize;
use std::io::{IsTerminal, Write};

/// Longest answer to a question that is read, bytes.
const ANSWER_MAX: usize = 4096;

/// Where a command writes and whom it asks.
#[derive(Clone, Copy, Debug)]
pub struct Screen {
    /// Whether standard output gets JSON and nothing else.
    pub json: bool,
    /// Whether every question is answered yes.
    pub yes: bool,
    /// Whether standard input holds further commands, so that no answer can be read from it.
    pub script: bool,
    /// Whether to colour.
    pub colours: bool,
}

impl Screen {
    /// A screen for a command line.
    #[must_use]
    pub fn new() -> Self {
        Self {
            json: false,
            yes: false,
            script: false,
            colours: terminal::wants_colours(),
        }
    }

    /// A line to standard output. A reader that went away ends nothing: the command goes on.
    pub fn line(&self, text: impl AsRef<str>) {
        write(&format!("{}\n", text.as_ref()));
    }

    /// Text that ends with its own line feed.
    pub fn text(&self, text: &str) {
        write(text);
    }

    /// A line for people that follow what happens.
    pub fn progress(&self, text: impl AsRef<str>) {
        if !self.json {
            self.line(text);
        }
    }

    /// The beginning of a line for people that follow what happens.
    pub fn begin(&self, text: &str) {
        if !self.json {
            write(text);
        }
    }

    /// A warning, to standard error.
    pub fn warn(&self, text: &str) {
        let _ = writeln!(std::io::stderr(), "warning: {text}");
    }

    /// An object, to standard output.
    ///
    /// # Errors
    /// When it is not JSON: a programming error.
    pub fn object(&self, object: &impl Serialize) -> Result<(), Failure> {
        let text = serde_json::to_string_pretty(object)
            .map_err(|e| Failure::Other(format!("cannot print JSON: {e}")))?;
        write(&format!("{text}\n"));
        Ok(())
    }

    /// Asks for a yes. `y` and `yes` are yes, all else is no.
    ///
    /// # Errors
    /// When nobody can answer.
    pub fn confirm(&self, question: &str) -> Result<bool, Failure> {
        if self.yes {
            return Ok(true);
        }
        if self.script {
            return Err(Failure::Other(format!(
                "{question} Nobody can answer here: add -y to say yes."
            )));
        }
        self.ask_yes(question)
    }

    /// As [`Self::confirm`], but `-y` is no answer.
    ///
    /// # Errors
    /// When standard input cannot be read.
    pub fn ask_yes(&self, question: &str) -> Result<bool, Failure> {
        let mut err = std::io::stderr();
        let _ = write!(err, "{question}\nPlease confirm [Y/N]: ");
        let _ = err.flush();
        let answer = read_line()?.unwrap_or_default();
        if !std::io::stdin().is_terminal() {
            let _ = writeln!(err);
        }
        Ok(matches!(
            answer.trim().to_ascii_lowercase().as_str(),
            "y" | "yes"
        ))
    }

    /// Whether a person can be asked.
    #[must_use]
    pub fn interactive(&self) -> bool {
        !self.script && std::io::stdin().is_terminal()
    }
}

impl Default for Screen {
    fn default() -> Self {
        Self::new()
    }
}

fn write(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes());
    let _ = out.flush();
}

/// A line from standard input, without its end; `None`: there is none. Nothing behind it is taken: a shell that has
/// its commands from there too goes on with the next line.
///
/// # Errors
/// When it cannot be read, is longer than 4 KiB or is not UTF-8.
pub fn read_line() -> Result<Option<String>, Failure> {
    let failed =
        |e: &dyn std::fmt::Display| Failure::Other(format!("cannot read standard input: {e}"));
    let (mut line, mut byte) = (Vec::new(), [0_u8]);
    let ended = loop {
        match rustix::io::read(rustix::stdio::stdin(), &mut byte) {
            Ok(0) => break false,
            Ok(_) if byte == *b"\n" => break true,
            Ok(_) if line.len() == ANSWER_MAX => {
                return Err(Failure::Other(format!(
                    "a line is longer than {ANSWER_MAX} bytes"
                )));
            }
            Ok(_) => line.extend(byte),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(failed(&error)),
        }
    };
    if !ended && line.is_empty() {
        return Ok(None);
    }
    let line = String::from_utf8(line).map_err(|error| failed(&error))?;
    Ok(Some(line.trim_end_matches(['\n', '\r']).to_owned()))
}
