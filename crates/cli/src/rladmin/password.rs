//! Passwords that are not on the command line.

use super::failure::Failure;
use super::screen::{Screen, read_line};
use model::{Secret, validate};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use std::io::{BufRead, Write};

/// A new password, as [`password`]; where it is asked for, it is asked for twice.
///
/// # Errors
/// As [`password`]; that the two differ.
pub fn new_password(screen: &Screen, typed: Option<&str>, prompt: &str) -> Result<Secret, Failure> {
    let first = password(screen, typed, prompt)?;
    if typed.is_none() && password(screen, None, &format!("{prompt}, again"))? != first {
        return Err(Failure::Other(
            "the two passwords differ: nothing was done".to_owned(),
        ));
    }
    Ok(first)
}

/// The password: as typed; `-`: the next line of standard input; left out: asked for, without echo.
///
/// # Errors
/// When nobody can be asked, or it breaks the rules for passwords.
pub fn password(screen: &Screen, typed: Option<&str>, prompt: &str) -> Result<Secret, Failure> {
    let text = match typed {
        Some("-") => read_line()?
            .ok_or_else(|| Failure::Other("standard input holds no password".to_owned()))?,
        Some(text) => return Ok(Secret::new(text)),
        None if screen.interactive() => ask(prompt)?,
        None => {
            return Err(Failure::Other(
                "a password is needed: add `password -` and write it to standard input".to_owned(),
            ));
        }
    };
    validate::password(&text)?;
    Ok(Secret::new(text))
}

/// The terminal without echo; as it was when this is dropped.
struct Silent {
    before: Termios,
}

impl Silent {
    fn begin() -> std::io::Result<Self> {
        let stdin = rustix::stdio::stdin();
        let before = tcgetattr(stdin)?;
        let mut silent = before.clone();
        // Keys come one by one and none is a signal: an interrupt must not leave the echo off.
        silent.local_modes -= LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG;
        tcsetattr(stdin, OptionalActions::Flush, &silent)?;
        Ok(Self { before })
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        let _ = tcsetattr(rustix::stdio::stdin(), OptionalActions::Flush, &self.before);
        let _ = writeln!(std::io::stderr());
    }
}

fn ask(prompt: &str) -> Result<String, Failure> {
    let mut err = std::io::stderr();
    let _ = write!(err, "{prompt}: ");
    let _ = err.flush();
    let failed = |e: std::io::Error| Failure::Other(format!("cannot ask for a password: {e}"));
    let _silent = Silent::begin().map_err(failed)?;
    keys(std::io::stdin().lock())
}

/// Bytes of keys until Enter; Backspace and Ctrl-U work, Ctrl-C and Ctrl-D give up.
fn keys(input: impl BufRead) -> Result<String, Failure> {
    let mut typed: Vec<u8> = Vec::new();
    for byte in input.bytes() {
        match byte.map_err(|e| Failure::Other(format!("cannot read the terminal: {e}")))? {
            b'\n' | b'\r' => {
                return String::from_utf8(typed)
                    .map_err(|_| Failure::Other("the password is not UTF-8".to_owned()));
            }
            0x03 | 0x04 => break,
            0x15 => typed.clear(),
            0x08 | 0x7f => {
                // A character of several bytes goes as one.
                while typed.pop().is_some_and(|b| (b & 0xc0) == 0x80) {}
            }
            byte if typed.len() < 1024 => typed.push(byte),
            _ => {}
        }
    }
    Err(Failure::Other(
        "no password was given: nothing was done".to_owned(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_a_line() {
        for (typed, password) in [
            (&b"secret\nrest"[..], "secret"),
            (b"secrez\x7ft\r", "secret"),
            (b"wrong\x15right\n", "right"),
            ("aü\x7fb\n".as_bytes(), "ab"),
            (b"\x7fa\n", "a"),
        ] {
            assert_eq!(keys(typed).unwrap(), password);
        }
        for given_up in [&b"abc\x03"[..], b"\x04", b"abc"] {
            assert!(keys(given_up).is_err());
        }
    }
}
