//! Tests that need a whole cluster of real processes: see `tests/it`.
