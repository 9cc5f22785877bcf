//! Completion in the shell: what may stand where the cursor is.

use super::commands::COMMANDS;
use super::grammar::{Arity, Command};
use super::words;

/// Where the word under the cursor begins in `line[..pos]`, and what it may become. Values that
/// only the cluster knows are not completed.
#[must_use]
pub fn complete(line: &str, pos: usize) -> (usize, Vec<String>) {
    let before = &line[..pos];
    let start = before.rfind(char::is_whitespace).map_or(0, |i| {
        i + before[i..].chars().next().map_or(1, char::len_utf8)
    });
    let Ok(mut typed) = words::split(&before[..start]) else {
        return (pos, Vec::new());
    };
    if typed
        .first()
        .is_some_and(|word| word == "help" || word == "?")
    {
        typed.remove(0);
        return (start, matching(names_after(&typed), &before[start..]));
    }
    let candidates = match COMMANDS.iter().find(|command| command.is_named(&typed)) {
        Some(command) => after_command(command, &typed[command.words.len()..]),
        None => names_after(&typed),
    };
    (start, matching(candidates, &before[start..]))
}

fn matching(candidates: Vec<&'static str>, prefix: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for candidate in candidates {
        if candidate.starts_with(prefix) && !found.iter().any(|word| word.trim_end() == candidate) {
            let open = candidate.ends_with(':');
            found.push(if open {
                candidate.to_owned()
            } else {
                format!("{candidate} ")
            });
        }
    }
    found
}

/// Next words of the commands' names.
fn names_after(typed: &[String]) -> Vec<&'static str> {
    COMMANDS
        .iter()
        .filter(|c| c.words.len() > typed.len() && c.agrees(typed) == typed.len())
        .map(|command| match command.words[typed.len()] {
            "<node>" => "node:",
            word => word,
        })
        // A name that nobody has chosen yet cannot be completed.
        .filter(|word| !word.starts_with('<'))
        .collect()
}

/// What may follow in a command: values of the last keyword, else its other keywords.
fn after_command(command: &'static Command, typed: &[String]) -> Vec<&'static str> {
    let last = typed
        .iter()
        .enumerate()
        .rev()
        .find_map(|(i, word)| Some((i, command.field(word)?)));
    let mut candidates = Vec::new();
    if let Some((index, field)) = last {
        let values = typed.len() - index - 1;
        match field.arity {
            Arity::One if values == 0 => return field.kind.words().to_vec(),
            Arity::Many => candidates.extend(field.kind.words()),
            _ => {}
        }
        if field.arity == Arity::Many && values == 0 {
            return candidates;
        }
    }
    if let Some(operand) = &command.operand
        && typed.is_empty()
    {
        candidates.extend(operand.kind.words());
    }
    let given = |word: &str| typed.iter().any(|t| t == word);
    candidates.extend(
        command
            .fields
            .iter()
            .map(|field| field.word)
            .filter(|word| !given(word)),
    );
    candidates
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at_end(line: &str) -> Vec<String> {
        complete(line, line.len()).1
    }

    #[test]
    fn words_in_their_places() {
        assert_eq!(at_end("clus"), ["cluster "]);
        assert_eq!(at_end("cluster c"), ["create ", "config "]);
        assert_eq!(at_end("help tu"), ["tune "]);
        assert_eq!(at_end("status n"), ["nodes ", "node "]);
        assert_eq!(at_end("status issues_only n"), ["node "]);
        assert_eq!(at_end("status extra wat"), ["watchdog "]);
        assert_eq!(
            at_end("create db x memory_size 1GB proxy_policy "),
            ["single ", "all-master-shards ", "all-nodes "]
        );
        assert_eq!(at_end("create db x mem"), ["memory_size "]);
        assert_eq!(
            at_end("create db x memory_size 1GB mem"),
            Vec::<String>::new()
        );
        assert_eq!(at_end("delete db d"), ["db:"]);
        assert_eq!(at_end("node "), ["node:"]);
        assert_eq!(at_end("node 1 maintenance_mode o"), ["on ", "off "]);
        assert_eq!(at_end("node node:1 enslave de"), ["demote_node "]);
        assert_eq!(at_end("node 1 snapshot create "), Vec::<String>::new());
        assert_eq!(at_end("'open"), Vec::<String>::new());
    }

    #[test]
    fn replaces_the_word_under_the_cursor() {
        assert_eq!(
            complete("status nod issues_only", 10),
            (7, vec!["nodes ".into(), "node ".into()])
        );
        assert_eq!(complete("ä ü", 3).0, 3);
    }
}
