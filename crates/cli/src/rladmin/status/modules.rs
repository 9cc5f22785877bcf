//! `CLUSTER MODULES:` and `DATABASE MODULES:`. This release carries no modules: both are empty, with
//! the columns that scripts look for.

use super::Wanted;
use crate::terminal::table::Table;

/// Both tables.
#[must_use]
pub fn tables(wanted: Wanted<'_>) -> Vec<Table> {
    let mut columns = vec!["MODULE", "VERSION"];
    for (extra, column) in [
        ("min_redis_version", "MIN_REDIS_VERSION"),
        ("compatible_redis_version", "COMPATIBLE_REDIS_VERSION"),
        ("module_id", "ID"),
    ] {
        if wanted.extra(extra) {
            columns.push(column);
        }
    }
    vec![
        Table::new("CLUSTER MODULES:", columns),
        Table::new(
            "DATABASE MODULES:",
            vec!["DB:ID", "NAME", "MODULE", "VERSION", "ARGS", "STATUS"],
        ),
    ]
}
