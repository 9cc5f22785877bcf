//! A line of the shell as words, and the nearest word to a mistyped one.

/// Splits a line: words are separated by white space; `'…'` and `"…"` hold white space together;
/// a backslash outside of `'…'` takes the next character as it is. `#` at the start of a word
/// begins a comment.
///
/// # Errors
/// A sentence when a quote is not closed.
pub fn split(line: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote: Option<char> = None;
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match (c, quote) {
            ('\\', None | Some('"')) => match chars.next() {
                Some(next) => word.get_or_insert_default().push(next),
                None => return Err("nothing follows the last backslash".to_owned()),
            },
            ('\'' | '"', None) => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (_, Some(open)) if c == open => quote = None,
            ('#', None) if word.is_none() => break,
            (_, None) if c.is_whitespace() => words.extend(word.take()),
            _ => word.get_or_insert_default().push(c),
        }
    }
    if let Some(open) = quote {
        return Err(format!("a {open} is not closed"));
    }
    words.extend(word);
    Ok(words)
}

/// The candidate that was most likely meant, if one is near.
#[must_use]
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word: Vec<char> = word.to_lowercase().chars().take(64).collect();
    let allowed = 1 + word.len() / 4;
    candidates
        .into_iter()
        .map(|candidate| (distance(&word, candidate), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Edits (insert, delete, replace, swap of neighbours) from one word to the other.
fn distance(a: &[char], b: &str) -> usize {
    let b: Vec<char> = b.to_lowercase().chars().collect();
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let mut best = (last[j] + usize::from(x != y))
                .min(last[j + 1] + 1)
                .min(row[j] + 1);
            if i > 0 && j > 0 && *x == b[j - 1] && a[i - 1] == *y {
                best = best.min(before[j - 1] + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_as_a_shell() {
        for (line, words) in [
            ("", vec![]),
            ("  status  nodes ", vec!["status", "nodes"]),
            (
                r#"password 'a b' "c 'd'" e\ f"#,
                vec!["password", "a b", "c 'd'", "e f"],
            ),
            (r#"a"b"'c' ''"#, vec!["abc", ""]),
            ("status # all of it", vec!["status"]),
            ("password a#b", vec!["password", "a#b"]),
            (r#""\"" '\'"#, vec!["\"", "\\"]),
        ] {
            assert_eq!(split(line).unwrap(), words, "{line}");
        }
        for line in ["'a", "\"a", "a\\"] {
            assert!(split(line).is_err(), "{line}");
        }
    }

    #[test]
    fn nearest_word() {
        let words = ["status", "cluster", "info", "memory_size"];
        assert_eq!(nearest("statsu", words), Some("status"));
        assert_eq!(nearest("STATUS", words), Some("status"));
        assert_eq!(nearest("memorysize", words), Some("memory_size"));
        assert_eq!(nearest("upgrade", words), None);
        assert_eq!(nearest("", words), None);
    }
}
