//! What all engines say, in one table: each command as the newest engine that has it describes it.

use super::engine::Engine;
use anyhow::{Context as _, Result, bail, ensure};
use model::release::EngineId;
use resp::value::Value;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

/// All commands, by name in small letters; a subcommand's is `container|name`.
pub(super) struct Table {
    /// The engines, oldest first.
    pub(super) engines: Vec<String>,
    pub(super) commands: BTreeMap<String, Entry>,
}

/// A command or a subcommand.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Entry {
    /// Of the most lenient engine.
    pub(super) arity: i16,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) flags: Vec<String>,
    /// First key, last key, step, as far as that tells it.
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) keys: [i64; 3],
    /// Key specs, see [`spec`].
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) specs: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) tips: Vec<String>,
    /// The engines that lack it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) lacking: Vec<String>,
}

fn is_zero(keys: &[i64; 3]) -> bool {
    *keys == [0; 3]
}

/// What one engine says.
struct Answer {
    engine: Engine,
    name: String,
    commands: BTreeMap<String, Entry>,
    /// The subcommands that a container's `HELP` names, for an engine that does not list them: those
    /// before redis 7.0.
    help: BTreeMap<String, BTreeSet<String>>,
}

impl Table {
    /// Asks the engines, oldest first.
    pub(super) fn read(root: &Path, ids: &[EngineId]) -> Result<Self> {
        let mut answers = Vec::new();
        for id in ids {
            let answer = Answer::of(root, id);
            answers.push(answer.with_context(|| format!("read the commands of {id}"))?);
        }
        let names: BTreeSet<String> = answers
            .iter()
            .flat_map(|answer| answer.commands.keys().cloned())
            .collect();
        let mut table = Self {
            engines: answers.iter().map(|answer| answer.name.clone()).collect(),
            commands: BTreeMap::new(),
        };
        for name in names {
            let mut whole: Option<Entry> = None;
            let mut lacking = Vec::new();
            for answer in &mut answers {
                if let Some(entry) = answer.commands.get(&name) {
                    let mut entry = entry.clone();
                    entry.arity = whole.map_or(entry.arity, |old| lenient(old.arity, entry.arity));
                    whole = Some(entry);
                } else if !answer.takes(&name)? {
                    lacking.push(answer.name.clone());
                }
            }
            if let Some(entry) = whole {
                table.commands.insert(name, Entry { lacking, ..entry });
            }
        }
        Ok(table)
    }

    /// One command a line.
    pub(super) fn json(&self) -> Result<String> {
        let mut text = String::from("{\n\"engines\": ");
        text.push_str(&serde_json::to_string(&self.engines)?);
        text.push_str(",\n\"commands\": {\n");
        for (at, (name, entry)) in self.commands.iter().enumerate() {
            let comma = if at + 1 == self.commands.len() {
                ""
            } else {
                ","
            };
            let entry = serde_json::to_string(entry)?;
            writeln!(text, "{}: {entry}{comma}", serde_json::to_string(name)?)?;
        }
        text.push_str("}\n}\n");
        Ok(text)
    }
}

impl Answer {
    fn of(root: &Path, id: &EngineId) -> Result<Self> {
        let mut engine = Engine::start(root, id)?;
        let mut commands = BTreeMap::new();
        for command in items(&engine.ask(&["COMMAND"])?)? {
            add(command, &mut commands)?;
        }
        ensure!(commands.len() > 100, "COMMAND lists too few commands");
        let mut help = BTreeMap::new();
        if !commands.keys().any(|name| name.contains('|')) {
            let names: Vec<String> = commands.keys().cloned().collect();
            for name in names {
                help.insert(name.clone(), helped(&mut engine, &name)?);
            }
        }
        Ok(Self {
            engine,
            name: id.to_string(),
            commands,
            help,
        })
    }

    /// Whether the engine takes a command that it does not list.
    fn takes(&mut self, name: &str) -> Result<bool> {
        if let Some((container, sub)) = name.split_once('|') {
            return Ok(self
                .help
                .get(container)
                .is_some_and(|subs| subs.contains(sub)));
        }
        Ok(match self.engine.ask_apart(&[name])? {
            Some(Value::Error(text)) => !text.starts_with(b"ERR unknown command"),
            Some(_) => true,
            // So they answer what looks like HTTP.
            None => false,
        })
    }
}

/// The subcommands that `<container> HELP` names, in small letters. Their lines begin with them, what
/// is said about them is indented.
fn helped(engine: &mut Engine, container: &str) -> Result<BTreeSet<String>> {
    if !CONTAINERS.contains(&container) {
        return Ok(BTreeSet::new());
    }
    let help = engine.ask(&[container, "HELP"])?;
    let mut subs = BTreeSet::new();
    // The first line is about the container.
    for line in items(&help)?.iter().skip(1) {
        let line = text(line)?;
        if let Some(word) = line.split(' ').next().filter(|word| !word.is_empty()) {
            subs.insert(word.to_ascii_lowercase());
        }
    }
    Ok(subs)
}

/// The commands of engines before redis 7.0 that have subcommands. Others would take `HELP` for
/// something else.
const CONTAINERS: &[&str] = &[
    "acl", "client", "cluster", "command", "config", "latency", "memory", "module", "object",
    "pubsub", "script", "slowlog", "xgroup", "xinfo",
];

/// Adds what `COMMAND` says of one command, and its subcommands.
fn add(command: &Value, commands: &mut BTreeMap<String, Entry>) -> Result<()> {
    let parts = items(command)?;
    let part = |at: usize| {
        parts
            .get(at)
            .context("COMMAND: a command has too few parts")
    };
    let list = |at: usize| parts.get(at).map_or(Ok(&[][..]), items);
    let mut flags: Vec<String> = list(2)?.iter().map(text).collect::<Result<_>>()?;
    flags.sort();
    let mut tips: Vec<String> = list(7)?.iter().map(text).collect::<Result<_>>()?;
    tips.sort();
    let entry = Entry {
        arity: i16::try_from(number(part(1)?)?)?,
        flags,
        keys: [number(part(3)?)?, number(part(4)?)?, number(part(5)?)?],
        specs: list(8)?.iter().map(spec).collect::<Result<_>>()?,
        tips,
        lacking: Vec::new(),
    };
    commands.insert(text(part(0)?)?.to_ascii_lowercase(), entry);
    for sub in list(9)? {
        add(sub, commands)?;
    }
    Ok(())
}

/// A key spec in a line: `index 1 / range -1 1 0`, and `not_key` or `incomplete` if it is that.
fn spec(spec: &Value) -> Result<String> {
    let mut line = String::new();
    let mut notes = String::new();
    for (name, value) in spec.pairs() {
        match text(name)?.as_str() {
            "flags" => {
                for flag in items(value)? {
                    let flag = text(flag)?;
                    if flag == "not_key" || flag == "incomplete" {
                        write!(notes, " / {flag}")?;
                    }
                }
            }
            "begin_search" => line.push_str(&search(value)?),
            "find_keys" => write!(line, " / {}", search(value)?)?,
            _ => {}
        }
    }
    Ok(line + &notes)
}

fn search(value: &Value) -> Result<String> {
    let mut line = String::new();
    for (name, value) in value.pairs() {
        if text(name)? == "type" {
            line.push_str(&text(value)?);
            continue;
        }
        for (_, part) in value.pairs() {
            match part {
                Value::Integer(number) => write!(line, " {number}")?,
                other => write!(line, " {}", text(other)?)?,
            }
        }
    }
    Ok(line)
}

/// The arity that takes what either does.
fn lenient(one: i16, other: i16) -> i16 {
    if one == other {
        return one;
    }
    -one.abs().min(other.abs())
}

fn items(value: &Value) -> Result<&[Value]> {
    match value {
        Value::Array(items) | Value::Set(items) => Ok(items),
        other => bail!("an array is expected, not {other:?}"),
    }
}

fn number(value: &Value) -> Result<i64> {
    match value {
        Value::Integer(number) => Ok(*number),
        other => bail!("a number is expected, not {other:?}"),
    }
}

fn text(value: &Value) -> Result<String> {
    let text = value
        .text()
        .with_context(|| format!("a text is expected, not {value:?}"))?;
    Ok(String::from_utf8(text.to_vec())?)
}
