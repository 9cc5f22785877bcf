//! Lines of the shape `YYYY-MM-DD HH:MM:SS.mmm [mark] text`, on the terminal and in `install.log`.
//!
//! Until the install has a log folder the lines are kept, so that a run that is refused leaves
//! nothing on disk.

use anyhow::{Result, bail};
use jiff::ZonedDateTime;
use rustix::fs::OFlags;
use std::cell::RefCell;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, IsTerminal, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::path::Path;

/// Most bytes kept before there is a log file.
const KEPT_MAX: usize = 256 * 1024;

/// What a line is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Mark {
    /// `[!]`: something to know.
    Note,
    /// `[?]`: a question.
    Question,
    /// `[$]`: a command that is run.
    Command,
    /// `[x]`: an error.
    Error,
}

impl Mark {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Note => "[!]",
            Self::Question => "[?]",
            Self::Command => "[$]",
            Self::Error => "[x]",
        }
    }
}

/// Where the lines go.
#[derive(Debug, Default)]
pub struct Console {
    log: RefCell<Log>,
}

#[derive(Debug)]
enum Log {
    Kept(Vec<u8>),
    File(File),
}

impl Default for Log {
    fn default() -> Self {
        Self::Kept(Vec::new())
    }
}

impl Console {
    /// From now on, and for what was said before, `path` is the log too. It belongs to who owns the folder: logs are
    /// rotated with that user's rights. A link in its place, which that user could make, is not followed.
    ///
    /// # Errors
    /// When the file cannot be opened for appending.
    pub fn log_to(&self, path: &Path) -> std::io::Result<()> {
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o640)
            .custom_flags(i32::try_from(OFlags::NOFOLLOW.bits()).map_err(std::io::Error::other)?)
            .open(path)?;
        // One with another name elsewhere may be somebody else's.
        if file.metadata()?.nlink() == 1
            && let Some(folder) = path.parent()
        {
            let owner = std::fs::metadata(folder)?;
            let _ = fchown(&file, Some(owner.uid()), Some(owner.gid()));
        }
        let mut log = self.log.borrow_mut();
        if let Log::Kept(kept) = &*log {
            file.write_all(kept)?;
        }
        *log = Log::File(file);
        Ok(())
    }

    /// Ends the log: the folder is about to go.
    pub fn close_log(&self) {
        *self.log.borrow_mut() = Log::default();
    }

    /// A line to know.
    pub fn note(&self, text: impl AsRef<str>) {
        self.line(Mark::Note, text.as_ref());
    }

    /// A command that is about to run.
    pub fn command(&self, text: impl AsRef<str>) {
        self.line(Mark::Command, text.as_ref());
    }

    /// What went wrong.
    pub fn error(&self, text: impl AsRef<str>) {
        self.line(Mark::Error, &format!("Error: {}", text.as_ref()));
    }

    /// Text of another program, as it is.
    pub fn plain(&self, text: impl AsRef<str>) {
        self.write(text.as_ref().trim_end());
    }

    fn line(&self, mark: Mark, text: &str) {
        let now = ZonedDateTime::now()
            .strftime("%Y-%m-%d %H:%M:%S%.3f")
            .to_string();
        let mut lines = text.lines();
        let first = lines.next().unwrap_or_default();
        self.write(&format!("{now} {} {first}", mark.as_str()));
        for more in lines {
            self.write(&format!("{:width$} {more}", "", width = now.len() + 4));
        }
    }

    /// An operator whose terminal is gone still gets an install: failures to print are no errors.
    fn write(&self, line: &str) {
        let _ = writeln!(std::io::stdout(), "{line}");
        match &mut *self.log.borrow_mut() {
            Log::Kept(kept) => {
                if kept.len() + line.len() < KEPT_MAX {
                    kept.extend_from_slice(line.as_bytes());
                    kept.push(b'\n');
                }
            }
            Log::File(file) => {
                let _ = writeln!(file, "{line}");
            }
        }
    }

    /// Asks until it hears yes or no.
    ///
    /// # Errors
    /// When nobody can answer: standard input has ended.
    pub fn ask(&self, question: &str) -> Result<bool> {
        let mut input = std::io::stdin().lock();
        loop {
            self.line(Mark::Question, &format!("{question} [yes/no]"));
            let mut answer = String::new();
            if input.read_line(&mut answer)? == 0 {
                bail!(
                    "nobody answered '{question}': run install.sh in a terminal, or with -y, or \
                     with an answers file (-c)"
                );
            }
            if !std::io::stdin().is_terminal() {
                self.write(answer.trim());
            }
            match answer.trim().to_ascii_lowercase().as_str() {
                "y" | "yes" => return Ok(true),
                "n" | "no" => return Ok(false),
                _ => self.note("please write yes or no"),
            }
        }
    }
}
