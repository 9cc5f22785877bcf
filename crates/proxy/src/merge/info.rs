//! `INFO`, field by field. Sections and fields keep the order in which they appear first.

mod fields;

use super::walk;
use fields::{Rule, merged_pairs, rule};
use std::collections::HashMap;
use std::fmt::Write;

/// The texts of the shards become one, as a bulk or verbatim string as they came.
pub(super) fn combine(parts: &[&[u8]], out: &mut Vec<u8>) -> Option<()> {
    let mut kind = b'$';
    let mut texts = Vec::with_capacity(parts.len());
    for part in parts {
        let (found, text) = walk::body(part)?;
        kind = found;
        texts.push(String::from_utf8_lossy(text));
    }
    let texts: Vec<&str> = texts.iter().map(AsRef::as_ref).collect();
    let merged = match texts[..] {
        [] => return None,
        [one] => one.to_owned(),
        _ => merged(&texts),
    };
    walk::text(kind, merged.as_bytes(), out);
    Some(())
}

/// A field's name and which of several of that name in the section it is (`module:` is repeated).
type Name<'a> = (&'a str, usize);

/// A section of all shards together.
struct Section<'a> {
    heading: &'a str,
    names: Vec<Name<'a>>,
    /// Of each field, the value that each shard has, if it has the field.
    values: HashMap<Name<'a>, Vec<Option<&'a str>>>,
}

fn merged(texts: &[&str]) -> String {
    let sections = sections(texts);
    let mut out = String::with_capacity(texts.iter().map(|text| text.len()).max().unwrap_or(0) * 2);
    for (number, section) in sections.iter().enumerate() {
        if number > 0 {
            out.push_str("\r\n");
        }
        if !section.heading.is_empty() {
            let _ = write!(out, "{}\r\n", section.heading);
        }
        for name in &section.names {
            if let Some(value) = section.value(*name) {
                let _ = write!(out, "{}:{value}\r\n", name.0);
            }
        }
    }
    out
}

fn sections<'a>(texts: &[&'a str]) -> Vec<Section<'a>> {
    let mut sections: Vec<Section<'a>> = Vec::new();
    for (shard, text) in texts.iter().enumerate() {
        let mut at = None;
        let mut repeated: HashMap<&str, usize> = HashMap::new();
        for line in text.lines() {
            if line.starts_with('#') {
                at = Some(place(&mut sections, line));
                repeated.clear();
                continue;
            }
            let Some((field, value)) = line.split_once(':') else {
                continue;
            };
            let at = *at.get_or_insert_with(|| place(&mut sections, ""));
            let times = repeated.entry(field).or_default();
            let name = (field, *times);
            *times += 1;
            let Section { names, values, .. } = &mut sections[at];
            let of_shards = values.entry(name).or_insert_with(|| {
                names.push(name);
                vec![None; texts.len()]
            });
            of_shards[shard] = Some(value);
        }
    }
    sections
}

/// Where a section is; a new one comes last.
fn place<'a>(sections: &mut Vec<Section<'a>>, heading: &'a str) -> usize {
    let found = sections
        .iter()
        .position(|section| section.heading == heading);
    found.unwrap_or_else(|| {
        sections.push(Section {
            heading,
            names: Vec::new(),
            values: HashMap::new(),
        });
        sections.len() - 1
    })
}

impl Section<'_> {
    fn value(&self, name: Name<'_>) -> Option<String> {
        let all = self.values.get(&name)?;
        let known: Vec<&str> = all.iter().filter_map(|value| *value).collect();
        let first = (*known.first()?).to_owned();
        let title = self.heading.trim_start_matches(['#', ' ']);
        let merged = match rule(title, name.0) {
            Rule::First => Some(first.clone()),
            Rule::Primary => Some("master".to_owned()),
            Rule::Sum => sum(&known),
            Rule::Maximum => extreme(&known, |one, other| one > other),
            Rule::Minimum => extreme(&known, |one, other| one < other),
            Rule::Limit if known.contains(&"0") => Some("0".to_owned()),
            Rule::Limit => sum(&known),
            Rule::Unlike(usual) => known
                .iter()
                .find(|value| **value != usual)
                .map(|value| (*value).to_owned()),
            Rule::Human(field) => self.whole(field).map(human),
            Rule::Quotient { of, by, unit } => self.quotient(of, by, unit),
            Rule::Weighted(field) => self.weighted(all, field, &first),
            Rule::Dataset => self.dataset(),
            Rule::Pairs => Some(merged_pairs(title, &known)),
        };
        Some(merged.unwrap_or(first))
    }

    /// A field's value after merging, if that is a whole number.
    fn whole(&self, field: &str) -> Option<i128> {
        self.value((field, 0))?.parse().ok()
    }

    fn quotient(&self, of: &str, by: &str, unit: fields::Unit) -> Option<String> {
        let (of, by) = (self.whole(of)?, self.whole(by)?);
        quotient(of as f64, by as f64, unit)
    }

    fn dataset(&self) -> Option<String> {
        let started = self.whole("used_memory_startup")?;
        let net = self.whole("used_memory")?.saturating_sub(started);
        let dataset = self.whole("used_memory_dataset")?;
        quotient(dataset as f64, net as f64, fields::Unit::Percent)
    }

    /// The mean of what the shards have, weighted with another field of theirs.
    fn weighted(&self, all: &[Option<&str>], field: &str, like: &str) -> Option<String> {
        let weights = self.values.get(&(field, 0))?;
        let (mut sum, mut weight) = (0.0, 0.0);
        for (value, its) in all.iter().zip(weights) {
            if let (Some(value), Some(its)) = (value, its) {
                let its: f64 = its.parse().ok()?;
                sum += value.parse::<f64>().ok()? * its;
                weight += its;
            }
        }
        let mean: f64 = sum / weight;
        mean.is_finite().then(|| shown(mean, decimals(like)))
    }
}

fn quotient(of: f64, by: f64, unit: fields::Unit) -> Option<String> {
    let value = of / by;
    match unit {
        _ if !value.is_finite() => None,
        fields::Unit::Plain => Some(format!("{value:.2}")),
        fields::Unit::Percent => Some(format!("{:.2}%", value * 100.0)),
    }
}

/// Digits after the point.
fn decimals(text: &str) -> usize {
    // No field of an engine has more than 6; a bound for what is none.
    text.split_once('.')
        .map_or(0, |(_, digits)| digits.len().min(17))
}

fn shown(value: f64, decimals: usize) -> String {
    format!("{value:.decimals$}")
}

/// The sum of numbers, with as many digits after the point as they have. `None`: one is no number.
fn sum(values: &[&str]) -> Option<String> {
    let whole: Option<Vec<i128>> = values.iter().map(|value| value.parse().ok()).collect();
    if let Some(whole) = whole {
        let sum = whole.into_iter().fold(0, i128::saturating_add);
        return Some(sum.to_string());
    }
    let fractions: Option<Vec<f64>> = values.iter().map(|value| value.parse().ok()).collect();
    let sum: f64 = fractions?.into_iter().sum();
    if !sum.is_finite() {
        return None;
    }
    let digits = values.iter().map(|value| decimals(value)).max()?;
    Some(shown(sum, digits))
}

/// A finite number; a percent sign is allowed.
fn number(text: &str) -> Option<f64> {
    let number: f64 = text.strip_suffix('%').unwrap_or(text).parse().ok()?;
    number.is_finite().then_some(number)
}

/// The value that is further than all others, as it is written.
fn extreme(values: &[&str], further: fn(f64, f64) -> bool) -> Option<String> {
    let mut best: Option<(f64, &str)> = None;
    for value in values {
        let found = number(value)?;
        if best.is_none_or(|(best, _)| further(found, best)) {
            best = Some((found, value));
        }
    }
    best.map(|(_, text)| text.to_owned())
}

/// Bytes as the engines write them for people.
fn human(bytes: i128) -> String {
    const KIB: f64 = 1024.0;
    let mut value = bytes as f64;
    if value < KIB {
        return format!("{bytes}B");
    }
    for unit in ["K", "M", "G", "T"] {
        value /= KIB;
        if value < KIB {
            return format!("{value:.2}{unit}");
        }
    }
    format!("{:.2}P", value / KIB)
}
