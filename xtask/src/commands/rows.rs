//! The table as Rust: one row a command.

use super::merge::{Entry, Table};
use anyhow::{Context as _, Result, bail, ensure};
use std::fmt::Write as _;

/// Commands whose keys no key spec tells: the rules are in `crates/resp/src/keys/rules.rs`.
const BY_HAND: &[(&str, &str)] = &[
    ("migrate", "Migrate"),
    ("sort", "Sort"),
    ("sort_ro", "SortReadOnly"),
    ("stralgo", "Stralgo"),
    // Their options may be named like the keyword that the key spec looks for.
    ("xread", "Streams"),
    ("xreadgroup", "Streams"),
];

/// The file.
pub(super) fn source(table: &Table) -> Result<String> {
    ensure!(table.engines.len() <= 8, "a row has room for 8 engines");
    let mut containers = String::new();
    let mut commands = String::new();
    let mut count = 0;
    for (name, entry) in &table.commands {
        if name.contains('|') {
            continue;
        }
        count += 1;
        let prefix = format!("{name}|");
        let subs: Vec<_> = table
            .commands
            .iter()
            .filter_map(|(sub, entry)| Some((sub.strip_prefix(&prefix)?, entry)))
            .collect();
        let mut line = row(table, "command", name, name, entry)?;
        if !subs.is_empty() {
            let constant = constant(name);
            write!(line, ".subs({constant})")?;
            writeln!(
                containers,
                "\n#[rustfmt::skip]\nconst {constant}: &[Command] = &["
            )?;
            for (sub, entry) in subs {
                let line = row(table, "sub", &format!("{prefix}{sub}"), sub, entry)?;
                writeln!(containers, "    {line},")?;
            }
            containers.push_str("];\n");
        }
        writeln!(commands, "    {line},")?;
    }
    let engines: Vec<String> = table.engines.iter().map(|id| format!("{id:?}")).collect();
    Ok(format!(
        "//! The rows of the table. Written by `cargo xtask commands` from what the engines say: do not edit.\n\n\
         use super::entry::flag::*;\n\
         use super::entry::{{command, sub}};\n\
         use super::{{Command, KeyRule, RequestPolicy, ResponsePolicy}};\n\
         use KeyRule::*;\n\n\
         /// The engines that were asked, oldest first.\n\
         #[rustfmt::skip]\n\
         pub const ENGINES: [&str; {}] = [{}];\n\n\
         #[rustfmt::skip]\n\
         pub(super) static COMMANDS: [Command; {count}] = [\n{commands}];\n{containers}",
        engines.len(),
        engines.join(", "),
    ))
}

fn constant(name: &str) -> String {
    format!("SUBS_{}", name.to_ascii_uppercase())
}

/// `full` is the name in the list, `name` what the row says.
fn row(table: &Table, kind: &str, full: &str, name: &str, entry: &Entry) -> Result<String> {
    let flags: Vec<String> = entry
        .flags
        .iter()
        .map(|flag| flag.to_ascii_uppercase())
        .collect();
    let flags = if flags.is_empty() {
        "0".to_owned()
    } else {
        flags.join(" | ")
    };
    let name = name.to_ascii_uppercase();
    let mut line = format!("{kind}({name:?}, {}, {flags})", entry.arity);
    if let Some(rule) = rule(full, entry).with_context(|| format!("the key specs of {full}"))? {
        write!(line, ".keys({rule})")?;
    }
    if !entry.lacking.is_empty() {
        let mut known = 0_u8;
        for (at, engine) in table.engines.iter().enumerate() {
            known |= u8::from(!entry.lacking.contains(engine)) << at;
        }
        write!(line, ".known({known:#06b})")?;
    }
    for tip in &entry.tips {
        if let Some(policy) = tip.strip_prefix("request_policy:") {
            write!(line, ".to(RequestPolicy::{})", camel(policy))?;
        } else if let Some(policy) = tip.strip_prefix("response_policy:") {
            write!(line, ".reply(ResponsePolicy::{})", camel(policy))?;
        }
    }
    Ok(line)
}

/// `all_shards` is `AllShards`.
fn camel(text: &str) -> String {
    text.split('_')
        .map(|word| word[..1].to_ascii_uppercase() + &word[1..])
        .collect()
}

/// The rule that finds what the key specs describe. `None`: no keys.
fn rule(name: &str, entry: &Entry) -> Result<Option<String>> {
    if let Some((_, rule)) = BY_HAND.iter().find(|(known, _)| *known == name) {
        return Ok(Some((*rule).to_owned()));
    }
    let specs: Vec<Vec<&str>> = entry
        .specs
        .iter()
        .map(|spec| spec.split(' ').collect())
        .collect();
    let shapes: Vec<&[&str]> = specs.iter().map(Vec::as_slice).collect();
    let [first, last, step] = entry.keys;
    Ok(match shapes.as_slice() {
        [] if entry.keys == [0; 3] && !entry.flags.iter().any(|flag| flag == "movablekeys") => None,
        [["index", _, "/", "range", _, "1", "0", "/", "not_key"]] => {
            Some(format!("Channels({first}, {last})"))
        }
        [["index", at, "/", "keynum", "0", "1", step]] => Some(format!("Counted({at}, {step})")),
        [
            ["index", "1", "/", "range", "0", "1", "0"],
            ["index", at, "/", "keynum", "0", "1", step],
        ] => Some(format!("StoredCounted({at}, {step})")),
        [
            ["index", "1", "/", "range", "0", "1", "0"],
            ["keyword", "STORE", from, "/", "range", "0", "1", "0"],
            ["keyword", "STOREDIST", again, "/", "range", "0", "1", "0"],
        ] if from == again => Some(format!("Geo({from})")),
        // Neighbours, which first, last and step describe together.
        ranges if ranges.iter().all(|spec| is_range(spec)) && first > 0 => {
            Some(format!("Range({first}, {last}, {step})"))
        }
        _ => bail!(
            "{:?} are of a kind that is not known: add a rule to crates/resp/src/keys/rules.rs, \
             and name it in xtask/src/commands/rows.rs",
            entry.specs
        ),
    })
}

fn is_range(spec: &[&str]) -> bool {
    matches!(spec, ["index", _, "/", "range", _, _, "0"])
}
