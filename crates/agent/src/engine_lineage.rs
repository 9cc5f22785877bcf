//! Which engine can take over the data of which other: a full sync goes upwards only.

use model::release::{EngineId, EngineName};

/// Whether an engine may follow a primary.
///
/// # Errors
/// Why not: at a full sync it would drop its data and could not read what it gets, and what a newer
/// primary sends later it may not know, and diverge without a word.
pub(crate) fn check_follows(replica: &EngineId, primary: &EngineId) -> Result<(), String> {
    let age = |engine: &EngineId| (engine.version.major, engine.version.minor);
    if age(replica) < age(primary) {
        return Err(format!(
            "{replica} is older than its primary's {primary}: start it with {primary} or a newer \
             engine first"
        ));
    }
    // From 7.4 on Redis writes its data in a form of its own.
    let parted = primary.name == EngineName::Redis && age(primary) >= (7, 4);
    if parted && replica.name == EngineName::Valkey {
        return Err(format!("{replica} cannot read the data of {primary}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upwards_only() {
        let oldest_first = [
            "redis-6.2.14",
            "redis-7.0.15",
            "valkey-8.0.1",
            "valkey-8.1.0",
            "valkey-9.1.2",
        ];
        let engine = |text: &str| text.parse::<EngineId>().unwrap();
        for (i, replica) in oldest_first.iter().enumerate() {
            for (j, primary) in oldest_first.iter().enumerate() {
                let checked = check_follows(&engine(replica), &engine(primary));
                assert_eq!(checked.is_ok(), i >= j, "{replica} of {primary}");
            }
        }
        for (replica, primary, good) in [
            ("redis-8.2.0", "valkey-8.0.1", true),
            ("valkey-9.1.2", "redis-8.2.0", false),
            ("valkey-8.0.1", "redis-7.2.0", true),
            ("valkey-9.1.1", "valkey-9.1.2", true),
        ] {
            let checked = check_follows(&engine(replica), &engine(primary));
            assert_eq!(checked.is_ok(), good, "{replica} of {primary}");
        }
    }
}
