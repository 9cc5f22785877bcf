//! Short runs with fixed seeds, one for each thing that can go wrong. `cargo xtask chaos` runs longer, with others, and
//! so does the soak.

use std::time::Duration;
use testkit::chaos::{Kind, Options, Story, run};

/// What these runs have in common; with a fixed seed and so many steps they always do the same.
fn options(seed: u64, kinds: &[Kind]) -> Options {
    Options {
        length: Duration::from_secs(15),
        steps: None,
        seed,
        kinds: kinds.to_vec(),
        database: Vec::new(),
        loud: true,
    }
}

fn holds(options: &Options) -> Story {
    let story = run(options).unwrap();
    println!("{:?}", story.verdict);
    assert!(story.verdict.holds(), "{:#?}", story.verdict.findings);
    assert!(story.verdict.acknowledged > 1_000, "{:?}", story.verdict);
    story
}

#[test]
fn nothing_breaks_a_rule_while_a_disk_is_slow_or_a_clock_is_set() {
    for kind in [Kind::SlowDisk, Kind::Clock] {
        let story = holds(&Options {
            length: Duration::from_secs(8),
            ..options(1, &[Kind::Move, kind])
        });
        assert!(!story.faults.is_empty(), "{:#?}", story.steps);
    }
}

#[test]
fn nothing_breaks_a_rule_while_processes_are_killed_and_stopped() {
    let story = holds(&options(1, &Kind::LOCAL));
    assert!(
        !story.faults.is_empty() && story.moves > 0,
        "{:#?}",
        story.steps
    );
}

/// A node is lost, one is paused, one is cut off, the disk of one is full, and a move comes between them.
#[test]
fn nothing_breaks_a_rule_while_nodes_are_lost_paused_cut_off_and_full() {
    let kinds = [Kind::Node, Kind::NodeStop, Kind::Partition, Kind::Disk];
    let story = holds(&Options {
        length: Duration::from_secs(300),
        steps: Some(5),
        ..options(5_266, &[&kinds[..], &[Kind::Move]].concat())
    });
    for kind in kinds {
        assert!(
            story.faults.contains(&kind),
            "no {kind}: {:#?}",
            story.steps
        );
    }
    assert!(story.moves > 0, "{:#?}", story.steps);
}

/// Two shards that keep what they have on disk: they come back with it, and must not be believed for it.
#[test]
fn nothing_breaks_a_rule_in_two_shards_that_keep_their_data() {
    let kinds = [Kind::Engine, Kind::Exec, Kind::Node];
    let words = ["shards_count", "2", "persistence", "aof"];
    let story = holds(&Options {
        length: Duration::from_secs(300),
        steps: Some(4),
        database: words.map(str::to_owned).to_vec(),
        ..options(42_434, &[&kinds[..], &[Kind::Move]].concat())
    });
    for kind in kinds {
        assert!(
            story.faults.contains(&kind),
            "no {kind}: {:#?}",
            story.steps
        );
    }
    assert!(story.moves > 0, "{:#?}", story.steps);
}
