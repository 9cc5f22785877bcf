//! From words to a command with its values.

use super::commands::COMMANDS;
use super::failure::Failure;
use super::grammar::{Arity, Command, DatabaseRef, Field, Kind, Verb, database, node};
use super::later;
use super::words::nearest;
use model::{NodeUid, units, validate};
use std::collections::BTreeMap;

/// Options that may stand anywhere between keywords.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Options {
    /// `-y`: yes to every question.
    pub yes: bool,
    /// `--json`.
    pub json: bool,
    /// `--help`.
    pub help: bool,
    /// `--version`.
    pub version: bool,
}

impl Options {
    /// Takes a word if it is an option.
    fn take(&mut self, word: &str) -> bool {
        match word {
            "-y" | "--yes" => self.yes = true,
            "--json" => self.json = true,
            "-h" | "--help" => self.help = true,
            "-V" | "--version" => self.version = true,
            _ => return false,
        }
        true
    }
}

/// A command as it was typed, values checked.
#[derive(Clone, Debug)]
pub struct Invocation {
    /// Which command.
    pub command: &'static Command,
    /// The value without a keyword.
    pub operand: Option<String>,
    /// The values that stand between the words of its name, in their order.
    pub places: Vec<String>,
    values: BTreeMap<&'static str, Vec<String>>,
}

/// What was typed.
#[derive(Clone, Debug)]
pub enum Typed {
    /// Nothing but options.
    Nothing,
    /// `--help` after these words, or `help` and these words.
    Help(Vec<String>),
    /// A command.
    Command(Box<Invocation>),
}

/// Reads the words of one command.
///
/// # Errors
/// [`Failure::Usage`], naming the word that is wrong.
pub fn parse(words: &[String]) -> Result<(Options, Typed), Failure> {
    let mut options = Options::default();
    let mut rest = words;
    while let Some(first) = rest.first()
        && options.take(first)
    {
        rest = &rest[1..];
    }
    if options.version || rest.is_empty() {
        let typed = if options.help {
            Typed::Help(Vec::new())
        } else {
            Typed::Nothing
        };
        return Ok((options, typed));
    }
    if rest[0] == "?" || rest[0] == "help" {
        let topic = rest[1..]
            .iter()
            .filter(|word| !options.take(word))
            .cloned()
            .collect();
        return Ok((options, Typed::Help(topic)));
    }
    if options.help || rest.iter().any(|word| word == "--help" || word == "-h") {
        // What stands before the option is what help is wanted of, finished or not.
        let topic = rest
            .iter()
            .take_while(|word| !word.starts_with('-'))
            .cloned()
            .collect();
        return Ok((options, Typed::Help(topic)));
    }
    let (command, values) = find(rest)?;
    let mut invocation = Reader {
        command,
        options: &mut options,
    }
    .read(values)?;
    let both = command.words.iter().zip(rest);
    invocation.places = both
        .filter(|(word, _)| word.starts_with('<'))
        .map(|(_, typed)| typed.clone())
        .collect();
    Ok((options, Typed::Command(Box::new(invocation))))
}

/// The command that words begin with, and the words after its name.
fn find(words: &[String]) -> Result<(&'static Command, &[String]), Failure> {
    if let Some(command) = COMMANDS.iter().find(|command| command.is_named(words)) {
        return Ok((command, &words[command.words.len()..]));
    }
    if let Some(answer) = later::command(words) {
        return Err(answer);
    }
    let known = COMMANDS.iter().map(|c| c.agrees(words)).max().unwrap_or(0);
    if known == 0 {
        let firsts = COMMANDS.iter().map(|command| command.words[0]);
        return Err(Failure::Usage {
            message: format!(
                "unknown command '{}'{}",
                validate::shown(&words[0]),
                perhaps(nearest(&words[0], firsts))
            ),
            usage: vec!["help".to_owned()],
        });
    }
    let group: Vec<&Command> = COMMANDS
        .iter()
        .filter(|command| command.agrees(words) == known)
        .collect();
    let next = group
        .iter()
        .filter_map(|command| command.words.get(known).copied());
    let before = validate::shown(&words[..known].join(" "));
    let message = match words.get(known) {
        Some(word) => format!(
            "unknown word '{}' after '{before}'{}",
            validate::shown(word),
            perhaps(nearest(word, next))
        ),
        None => format!("'{before}' needs one more word"),
    };
    Err(Failure::Usage {
        message,
        usage: group.iter().map(|command| command.usage()).collect(),
    })
}

fn perhaps(word: Option<&str>) -> String {
    word.map(|word| format!(" (did you mean '{word}'?)"))
        .unwrap_or_default()
}

/// Reads the values of one command.
struct Reader<'a> {
    command: &'static Command,
    options: &'a mut Options,
}

impl Reader<'_> {
    fn wrong(&self, message: impl Into<String>) -> Failure {
        Failure::usage(message, self.command.usage())
    }

    fn read(self, words: &[String]) -> Result<Invocation, Failure> {
        let mut operand = None;
        let mut values: BTreeMap<&'static str, Vec<String>> = BTreeMap::new();
        let mut rest = words;
        while let Some((word, after)) = rest.split_first() {
            rest = after;
            if let Some(field) = self.command.field(word) {
                let taken = self.values_of(field, &mut rest)?;
                if values.insert(field.word, taken).is_some() {
                    return Err(self.wrong(format!("'{}' stands twice", field.word)));
                }
            } else if !self.options.take(word) {
                let Some(expected) = self.command.operand.filter(|_| operand.is_none()) else {
                    return Err(self.unknown(word));
                };
                if let Err(why) = expected.kind.check(word) {
                    // A word that is no value at all was meant as a keyword.
                    let meant = nearest(word, self.command.fields.iter().map(|f| f.word));
                    let is_word = matches!(expected.kind, Kind::Choice(_)) || word.starts_with('-');
                    return Err(match meant {
                        Some(_) if !expected.required => self.unknown(word),
                        _ if is_word && !expected.required => {
                            self.wrong(format!("unknown word '{}': {why}", validate::shown(word)))
                        }
                        _ => self.wrong(why),
                    });
                }
                operand = Some(word.clone());
            }
        }
        self.complete(operand, values)
    }

    /// Values after a keyword.
    fn values_of(&self, field: &Field, rest: &mut &[String]) -> Result<Vec<String>, Failure> {
        let mut taken = Vec::new();
        while field.arity != Arity::Flag
            && let Some((word, after)) = rest.split_first()
        {
            if field.arity == Arity::One && !taken.is_empty() {
                break;
            }
            if !taken.is_empty() && self.ends_list(field, word) {
                break;
            }
            field
                .kind
                .check(word)
                .map_err(|why| self.wrong(format!("{}: {why}", field.word)))?;
            taken.push(word.clone());
            *rest = after;
        }
        if taken.is_empty() && field.arity != Arity::Flag {
            return Err(self.wrong(format!("'{}' needs a value", field.word)));
        }
        Ok(taken)
    }

    /// Whether `word` is no further value of a list.
    fn ends_list(&self, field: &Field, word: &str) -> bool {
        let operand = self
            .command
            .operand
            .is_some_and(|o| matches!(o.kind, Kind::Choice(_)) && o.kind.check(word).is_ok());
        self.command.field(word).is_some()
            || word.starts_with('-')
            || (operand && field.kind != Kind::Text && field.kind.check(word).is_err())
    }

    fn unknown(&self, word: &str) -> Failure {
        if let Some(answer) = later::keyword(self.command.words, word) {
            return answer;
        }
        let meant = nearest(word, self.command.fields.iter().map(|field| field.word));
        self.wrong(format!(
            "unknown word '{}'{}",
            validate::shown(word),
            perhaps(meant)
        ))
    }

    fn complete(
        self,
        operand: Option<String>,
        values: BTreeMap<&'static str, Vec<String>>,
    ) -> Result<Invocation, Failure> {
        if let Some(expected) = self
            .command
            .operand
            .filter(|o| o.required && operand.is_none())
        {
            let value = expected.kind.placeholder(expected.name);
            return Err(self.wrong(format!(
                "{value} is missing after '{}'",
                self.command.name()
            )));
        }
        let missing = |field: &&Field| field.required && !values.contains_key(field.word);
        if let Some(field) = self.command.fields.iter().find(missing) {
            return Err(self.wrong(format!("'{}' is missing", field.word)));
        }
        if self.command.some_field && values.is_empty() {
            return Err(self.wrong(format!(
                "'{}' needs something to change",
                self.command.name()
            )));
        }
        Ok(Invocation {
            command: self.command,
            operand,
            places: Vec::new(),
            values,
        })
    }
}

impl Invocation {
    /// What the command is.
    #[must_use]
    pub const fn verb(&self) -> Verb {
        self.command.verb
    }

    /// Whether a keyword was given.
    #[must_use]
    pub fn has(&self, word: &str) -> bool {
        self.values.contains_key(word)
    }

    /// The value of a keyword.
    #[must_use]
    pub fn text(&self, word: &str) -> Option<&str> {
        self.values
            .get(word)
            .and_then(|values| values.first())
            .map(String::as_str)
    }

    /// The value of a keyword, owned.
    #[must_use]
    pub fn owned(&self, word: &str) -> Option<String> {
        self.text(word).map(str::to_owned)
    }

    /// All values of a keyword.
    #[must_use]
    pub fn list(&self, word: &str) -> &[String] {
        self.values.get(word).map_or(&[], Vec::as_slice)
    }

    /// A size, bytes.
    #[must_use]
    pub fn size(&self, word: &str) -> Option<u64> {
        self.text(word)
            .and_then(|text| units::parse_size(text).ok())
    }

    /// A number (checked to be in the keyword's range).
    #[must_use]
    pub fn number<T: std::str::FromStr>(&self, word: &str) -> Option<T> {
        self.text(word).and_then(|text| text.parse().ok())
    }

    /// A word that an enum of the model spells the same.
    #[must_use]
    pub fn choice<T: serde::de::DeserializeOwned>(&self, word: &str) -> Option<T> {
        let text = self.text(word)?;
        serde_json::from_value(serde_json::Value::String(text.to_owned())).ok()
    }

    /// A node.
    #[must_use]
    pub fn node(&self, word: &str) -> Option<NodeUid> {
        self.text(word).and_then(|text| node(text).ok())
    }

    /// The node that stands in the command's name.
    #[must_use]
    pub fn named_node(&self) -> Option<NodeUid> {
        self.places.first().and_then(|text| node(text).ok())
    }

    /// The operand as a node; `None`: left out, or `all`.
    #[must_use]
    pub fn operand_node(&self) -> Option<NodeUid> {
        self.operand.as_deref().and_then(|text| node(text).ok())
    }

    /// A database.
    #[must_use]
    pub fn database(&self, word: &str) -> Option<DatabaseRef> {
        self.text(word).and_then(|text| database(text).ok())
    }

    /// The operand as a database.
    #[must_use]
    pub fn operand_database(&self) -> Option<DatabaseRef> {
        self.operand.as_deref().and_then(|text| database(text).ok())
    }

    /// Whether the line holds a password that was typed in clear.
    #[must_use]
    pub fn shows_password(&self) -> bool {
        self.text("password")
            .is_some_and(|password| password != "-")
    }
}

#[cfg(test)]
mod tests;
