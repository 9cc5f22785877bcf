//! Commands typed as a line of words, with quotes as the engines read them.

use crate::request::RequestError;

/// The words of a line. Words in double quotes know `\n \r \t \b \a \xHH`, words in single quotes
/// only `\'`.
///
/// # Errors
/// A quote has no partner, or something follows it at once.
pub fn split(line: &[u8]) -> Result<Vec<Vec<u8>>, RequestError> {
    let mut words = Vec::new();
    let mut rest = line;
    loop {
        while let [first, tail @ ..] = rest
            && is_blank(*first)
        {
            rest = tail;
        }
        if rest.is_empty() {
            return Ok(words);
        }
        let (word, tail) = word(rest)?;
        words.push(word);
        rest = tail;
    }
}

fn word(mut rest: &[u8]) -> Result<(Vec<u8>, &[u8]), RequestError> {
    let mut word = Vec::new();
    loop {
        match rest {
            [] => return Ok((word, rest)),
            // The engines end a word at fewer bytes than they skip before one.
            [b' ' | b'\n' | b'\r' | b'\t' | 0, tail @ ..] => return Ok((word, tail)),
            [b'"', tail @ ..] => return finish(double_quoted(tail, &mut word)?, word),
            [b'\'', tail @ ..] => return finish(single_quoted(tail, &mut word)?, word),
            [first, tail @ ..] => {
                word.push(*first);
                rest = tail;
            }
        }
    }
}

/// As C's `isspace`.
fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t'..=b'\r')
}

/// A closing quote ends its word: a blank or nothing must follow.
fn finish(rest: &[u8], word: Vec<u8>) -> Result<(Vec<u8>, &[u8]), RequestError> {
    match rest.first() {
        Some(next) if !is_blank(*next) => Err(RequestError::UnbalancedQuotes),
        _ => Ok((word, rest)),
    }
}

fn double_quoted<'a>(mut rest: &'a [u8], word: &mut Vec<u8>) -> Result<&'a [u8], RequestError> {
    loop {
        match rest {
            [] => return Err(RequestError::UnbalancedQuotes),
            [b'"', tail @ ..] => return Ok(tail),
            [b'\\', b'x', high, low, tail @ ..]
                if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                word.push(hex(*high) << 4 | hex(*low));
                rest = tail;
            }
            [b'\\', escaped, tail @ ..] => {
                word.push(match escaped {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 8,
                    b'a' => 7,
                    other => *other,
                });
                rest = tail;
            }
            [first, tail @ ..] => {
                word.push(*first);
                rest = tail;
            }
        }
    }
}

fn single_quoted<'a>(mut rest: &'a [u8], word: &mut Vec<u8>) -> Result<&'a [u8], RequestError> {
    loop {
        match rest {
            [] => return Err(RequestError::UnbalancedQuotes),
            [b'\'', tail @ ..] => return Ok(tail),
            [b'\\', b'\'', tail @ ..] => {
                word.push(b'\'');
                rest = tail;
            }
            [first, tail @ ..] => {
                word.push(*first);
                rest = tail;
            }
        }
    }
}

fn hex(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        _ => digit.wrapping_sub(b'A').wrapping_add(10),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn words() {
        for (line, words) in [
            (&b"PING\r"[..], &[&b"PING"[..]][..]),
            (b"  SET  k v ", &[b"SET", b"k", b"v"]),
            (b"SET k \"a b\\x41\\n\"", &[b"SET", b"k", b"a bA\n"]),
            (b"SET k 'a\\'b\\n'", &[b"SET", b"k", b"a'b\\n"]),
            (b"SET k \"\"", &[b"SET", b"k", b""]),
            (b"a\"b c\"", &[b"ab c"]),
        ] {
            assert_eq!(split(line).unwrap(), words);
        }
        for wrong in [&b"SET \"a"[..], b"SET 'a", b"SET \"a\"b", b"\"a\\"] {
            assert_eq!(split(wrong), Err(RequestError::UnbalancedQuotes));
        }
    }

    proptest! {
        #[test]
        fn never_panics(line in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = split(&line);
        }
    }
}
