//! Help, and the page that is made from it.

use assert_cmd::Command;
use cli::rladmin::commands::COMMANDS;
use cli::rladmin::help::markdown;
use insta::assert_snapshot;
use std::path::Path;

fn rladmin(words: &[&str]) -> (i32, String) {
    let output = Command::cargo_bin("rladmin")
        .unwrap()
        .args(words)
        .output()
        .unwrap();
    (
        output.status.code().unwrap(),
        String::from_utf8(output.stdout).unwrap(),
    )
}

#[test]
fn overview() {
    let (code, text) = rladmin(&["help"]);
    assert_eq!(code, 0);
    assert_eq!(rladmin(&["--help"]), (0, text.clone()));
    assert_eq!(rladmin(&["?"]), (0, text.clone()));
    assert_snapshot!(text);
}

#[test]
fn every_command() {
    let mut all = String::new();
    for command in COMMANDS {
        let mut words = vec!["help"];
        words.extend(command.words);
        let (code, text) = rladmin(&words);
        assert_eq!(code, 0, "{words:?}");
        assert!(
            text.lines().all(|line| line.len() <= 100),
            "{words:?}: a line is too long"
        );
        all.push_str(&format!("$ rladmin {}\n{text}\n", words.join(" ")));
        let mut asked = command.words.to_vec();
        asked.push("--help");
        if command.words != ["help"] {
            assert_eq!(rladmin(&asked).1, text, "{asked:?}");
        }
    }
    assert_snapshot!(all);
}

#[test]
fn a_group_is_explained_whole() {
    let (code, text) = rladmin(&["help", "tune"]);
    assert!(
        code == 0 && text.contains("tune cluster") && text.contains("tune db"),
        "{text}"
    );
    assert_eq!(rladmin(&["help", "tune", "nothing"]).0, 2);
    assert_eq!(rladmin(&["help", "nothing"]).0, 2);
}

#[test]
fn version() {
    let (code, text) = rladmin(&["--version"]);
    assert!(code == 0 && text.starts_with("rladmin "), "{text}");
}

/// The table in `docs/rladmin.md` is the table of commands. `UPDATE_DOCS=1` writes it.
#[test]
fn page_shows_the_commands() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/rladmin.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = page.split_once("<!-- commands -->\n").unwrap();
    let (_, after) = rest.split_once("<!-- end of commands -->").unwrap();
    let wanted = format!(
        "{before}<!-- commands -->\n{}<!-- end of commands -->{after}",
        markdown()
    );
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, wanted).unwrap();
    } else {
        assert!(
            page == wanted,
            "docs/rladmin.md is old: UPDATE_DOCS=1 cargo test -p cli page"
        );
    }
}
