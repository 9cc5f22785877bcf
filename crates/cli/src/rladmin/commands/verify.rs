//! The commands that check.

use crate::rladmin::grammar::{Command, Field, Kind, Verb};

/// Shards beside endpoints.
pub(super) const BALANCE: Command = Command {
    words: &["verify", "balance"],
    verb: Verb::VerifyBalance,
    operand: None,
    fields: &[Field::one("node", "node", Kind::Node, "Only this node.")],
    some_field: false,
    summary: "Shows how many of a database's shards are on the nodes of its endpoint.",
    notes: &[],
};

/// Copies in different racks.
pub(super) const RACK_AWARE: Command = Command {
    words: &["verify", "rack_aware"],
    verb: Verb::VerifyRackAware,
    operand: None,
    fields: &[],
    some_field: false,
    summary: "Shows in which racks the copies of each slot are.",
    notes: &["Fails if two copies of a rack-aware database are in one rack."],
};
