//! Where tests cut an operation short.
//!
//! Debug builds read, at each named line of a move, and at the line `step` after each other transaction of an operation,
//! the file that the environment names; if its first word is that line, they kill the processes whose numbers follow,
//! once. So whatever can die is killed at each line, and not by luck. Release builds have nothing of this.

/// The file with what is to be killed where.
const CUT_ENV: &str = "MAINSTAY_MOVE_CUT";

/// An operation has come to a line.
pub(crate) fn reached(line: &str) {
    if !cfg!(debug_assertions) {
        return;
    }
    let Some(path) = std::env::var_os(CUT_ENV) else {
        return;
    };
    let Ok(text) = std::fs::read_to_string(&path) else {
        return;
    };
    let mut words = text.split_whitespace();
    if words.next() != Some(line) {
        return;
    }
    // Removed first: this process may be one of them.
    if std::fs::remove_file(&path).is_err() {
        return;
    }
    tracing::warn!(line, "a test kills processes here: {text}");
    let killed = std::process::Command::new("sh")
        .args(["-c", "kill -KILL \"$@\"", "kill"])
        .args(words)
        .status();
    if let Err(error) = killed {
        tracing::error!(%error, "nothing was killed");
    }
}
