//! `status`: cluster, nodes, databases, endpoints, shards, as tables.

pub mod cluster;
pub mod databases;
pub mod endpoints;
pub mod modules;
pub mod nodes;
pub mod shards;
pub mod snapshot;

use super::copies::together;
use super::failure::Failure;
use super::parse::Invocation;
use super::session::Context;
use crate::terminal::table::Table;
use crate::terminal::{Tone, paint};
use snapshot::Snapshot;

/// Which columns and rows are wanted.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    extras: &'a [String],
    /// Only rows that are not well.
    pub issues_only: bool,
}

impl Wanted<'_> {
    /// Whether the columns of an `extra` word are wanted.
    #[must_use]
    pub fn extra(&self, word: &str) -> bool {
        self.extras.iter().any(|extra| {
            extra == word || (extra == "all" && !["shardstats", "traffic"].contains(&word))
        })
    }
}

/// `status`.
///
/// # Errors
/// As REST answers; a filter or a column that does not exist.
pub async fn status(context: &Context, invocation: &Invocation) -> Result<(), Failure> {
    let section = invocation.operand.as_deref();
    let whole = section.is_none();
    let wanted = Wanted {
        extras: invocation.list("extra"),
        issues_only: false,
    };
    let mut snapshot = Snapshot::read(context, whole, wanted.extra("traffic")).await?;
    if !snapshot.cluster.removed {
        snapshot.narrow(invocation)?;
    }
    let has_quorum = snapshot.cluster.has_quorum;
    if context.screen.json {
        context.screen.object(&snapshot.to_json(section))?;
    } else {
        let text = render(context, invocation, &snapshot)?;
        context.screen.text(&text);
    }
    if snapshot.cluster.removed {
        return Ok(());
    }
    if !has_quorum {
        let local = snapshot.cluster.local_node;
        context.screen.warn(&format!(
            "no quorum: what is shown is what node:{local} knew last"
        ));
        return Ok(());
    }
    let notes = match section {
        Some("nodes") => cluster::notes(&snapshot),
        Some("shards") => together(&snapshot.shards),
        _ => Vec::new(),
    };
    for note in notes {
        context.screen.warn(&note);
    }
    Ok(())
}

fn render(
    context: &Context,
    invocation: &Invocation,
    snapshot: &Snapshot,
) -> Result<String, Failure> {
    let section = invocation.operand.as_deref();
    let wanted = Wanted {
        extras: invocation.list("extra"),
        issues_only: invocation.has("issues_only"),
    };
    let mut tables = tables(section, snapshot, wanted);
    sort(&mut tables, invocation)?;
    if snapshot.cluster.removed {
        tables.clear();
    }
    let colours = context.screen.colours;
    let mut parts = Vec::new();
    if section.is_none() || snapshot.cluster.removed {
        let mut part = String::from("CLUSTER:\n");
        for (line, tone) in cluster::lines(snapshot) {
            part.push_str(&paint(&line, tone, colours));
            part.push('\n');
        }
        parts.push(part);
    } else if !snapshot.cluster.has_quorum {
        let (line, _) = cluster::state(snapshot);
        parts.push(format!("CLUSTER:\n{}\n", paint(&line, Tone::Bad, colours)));
    }
    parts.extend(tables.iter().map(|table| table.render(colours)));
    Ok(parts.join("\n"))
}

fn tables(section: Option<&str>, snapshot: &Snapshot, wanted: Wanted<'_>) -> Vec<Table> {
    match section {
        None => vec![
            nodes::table(snapshot, wanted),
            databases::table(snapshot, wanted),
            endpoints::table(snapshot, wanted),
            shards::table(snapshot, wanted),
        ],
        Some("nodes") => vec![nodes::table(snapshot, wanted)],
        Some("databases") => vec![databases::table(snapshot, wanted)],
        Some("endpoints") => vec![endpoints::table(snapshot, wanted)],
        Some("shards") => vec![shards::table(snapshot, wanted)],
        Some(_) => modules::tables(wanted),
    }
}

/// Sorts every table by the columns that it has of those that were named.
fn sort(tables: &mut [Table], invocation: &Invocation) -> Result<(), Failure> {
    let columns = invocation.list("sort");
    for column in columns {
        let known = |table: &Table| {
            table
                .columns()
                .iter()
                .any(|c| c.eq_ignore_ascii_case(column))
        };
        if !tables.iter().any(known) {
            let mut names: Vec<&str> = tables
                .iter()
                .flat_map(|table| table.columns())
                .copied()
                .collect();
            names.sort_unstable();
            names.dedup();
            return Err(Failure::usage(
                format!(
                    "sort: there is no column '{}' here, only {}",
                    model::validate::shown(column),
                    names.join(", ")
                ),
                invocation.command.usage(),
            ));
        }
    }
    // Stable sorts: the last that is done counts most.
    for column in columns.iter().rev() {
        for table in tables.iter_mut() {
            table.sort_by(column);
        }
    }
    Ok(())
}
