//! `docs/benchmarks.md`: a whole run writes its tables there, between two comments.

use anyhow::{Context as _, ensure};
use std::path::{Path, PathBuf};

/// The page of this tree.
pub(crate) fn page() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = here.ancestors().nth(2).unwrap_or(here);
    root.join("docs/benchmarks.md")
}

/// Writes a benchmark's tables into a page, in place of those that are there.
pub(crate) fn write(page: &Path, name: &str, tables: &str) -> anyhow::Result<()> {
    let shown = page.display();
    let before = std::fs::read_to_string(page).with_context(|| format!("{shown}"))?;
    let after = replaced(&before, name, tables).with_context(|| format!("{shown}"))?;
    std::fs::write(page, after).with_context(|| format!("{shown}"))?;
    println!("written to {shown}");
    Ok(())
}

/// A page with these tables of a benchmark; all that is not between its two comments stays as it is.
fn replaced(page: &str, name: &str, tables: &str) -> anyhow::Result<String> {
    let (begin, end) = (begin(name), end(name));
    let once = |comment: &str| page.matches(comment).count() == 1;
    ensure!(once(&begin), "the page has not one comment {begin}");
    ensure!(once(&end), "the page has not one comment {end}");
    let (head, rest) = page.split_once(&begin).unwrap_or_default();
    let (_, tail) = rest
        .split_once(&end)
        .with_context(|| format!("{end} is not behind {begin}"))?;
    Ok(format!("{head}{begin}\n{}\n{end}{tail}", tables.trim_end()))
}

fn begin(name: &str) -> String {
    format!("<!-- bench {name}: written by a whole run -->")
}

fn end(name: &str) -> String {
    format!("<!-- end of bench {name} -->")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn a_page() -> String {
        let (begin, end) = (begin("proxy"), end("proxy"));
        format!("before\n{begin}\n| old |\n| 1 |\n{end}\nbehind, with | a bar |\n")
    }

    #[test]
    fn only_what_is_between_changes() {
        let after = replaced(&a_page(), "proxy", "| new |\n| 2 |\n\n").unwrap();
        assert_eq!(after, a_page().replace("| old |\n| 1 |", "| new |\n| 2 |"));
        // Once more is the same.
        assert_eq!(replaced(&after, "proxy", "| new |\n| 2 |").unwrap(), after);
    }

    #[test]
    fn a_page_without_both_comments_is_left_alone() {
        let whole = a_page();
        for page in [
            whole.replace(&begin("proxy"), ""),
            whole.replace(&end("proxy"), ""),
            whole.repeat(2),
            format!("{}\n{}\n", end("proxy"), begin("proxy")),
        ] {
            assert!(replaced(&page, "proxy", "| new |").is_err(), "{page}");
        }
        assert!(replaced(&whole, "moves", "| new |").is_err());
    }

    #[test]
    fn this_trees_page_has_a_place_for_each() {
        let text = std::fs::read_to_string(page()).unwrap();
        for name in ["proxy", "moves"] {
            assert!(
                replaced(&text, name, "| new |")
                    .unwrap()
                    .contains("| new |")
            );
        }
    }
}
