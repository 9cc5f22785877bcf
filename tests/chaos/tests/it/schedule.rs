//! Short runs with a fixed seed: of the faults that need no word of another node, and of what slows or misleads
//! one. `cargo xtask chaos` runs longer, with others.

use std::time::Duration;
use testkit::chaos::{Kind, Options, run};

#[test]
fn nothing_breaks_a_rule_while_a_disk_is_slow_or_a_clock_is_set() {
    for kind in [Kind::SlowDisk, Kind::Clock] {
        let story = run(&Options {
            length: Duration::from_secs(8),
            seed: 1,
            kinds: vec![Kind::Move, kind],
            loud: true,
        })
        .unwrap();
        assert!(story.verdict.holds(), "{:#?}", story.verdict.findings);
        assert!(story.faults > 0, "{:#?}", story.steps);
    }
}

#[test]
fn nothing_breaks_a_rule_while_processes_are_killed_and_stopped() {
    let story = run(&Options {
        length: Duration::from_secs(15),
        seed: 1,
        kinds: Kind::LOCAL.to_vec(),
        loud: true,
    })
    .unwrap();
    println!("{:?}", story.verdict);
    assert!(story.verdict.holds(), "{:#?}", story.verdict.findings);
    assert!(story.verdict.acknowledged > 1_000, "{:?}", story.verdict);
    assert!(story.faults > 0 && story.moves > 0, "{:#?}", story.steps);
}
