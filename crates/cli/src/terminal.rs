//! What both tools need to write to a terminal.

pub mod table;

use std::io::IsTerminal;

/// How a word is meant, and so coloured.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Tone {
    /// As the terminal has it.
    #[default]
    Plain,
    /// Good news: green.
    Good,
    /// Look at it: yellow.
    Warn,
    /// Down or failed: red.
    Bad,
}

/// `text` in the colour of `tone`, or as it is.
#[must_use]
pub fn paint(text: &str, tone: Tone, colours: bool) -> String {
    let code = match tone {
        Tone::Plain => return text.to_owned(),
        Tone::Good => 32,
        Tone::Warn => 33,
        Tone::Bad => 31,
    };
    if colours {
        format!("\x1b[{code}m{text}\x1b[0m")
    } else {
        text.to_owned()
    }
}

/// Whether standard output is a terminal that wants colours (<https://no-color.org>).
#[must_use]
pub fn wants_colours() -> bool {
    std::io::stdout().is_terminal()
        && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
        && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// Seconds as an operator reads an age: `33s`, `12m`, `5h`, `3d`.
#[must_use]
pub fn age(seconds: f64) -> String {
    let seconds = seconds.max(0.0).round() as u64;
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7_200 => format!("{}m", seconds / 60),
        7_200..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages() {
        for (seconds, text) in [
            (-1.0, "0s"),
            (33.4, "33s"),
            (119.4, "119s"),
            (120.0, "2m"),
            (7_199.0, "119m"),
            (7_200.0, "2h"),
            (200_000.0, "2d"),
        ] {
            assert_eq!(age(seconds), text);
        }
    }

    #[test]
    fn colours_only_when_asked() {
        assert_eq!(paint("DOWN", Tone::Bad, false), "DOWN");
        assert_eq!(paint("DOWN", Tone::Bad, true), "\x1b[31mDOWN\x1b[0m");
        assert_eq!(paint("OK", Tone::Plain, true), "OK");
    }
}
