use super::{Options, run};

/// The files in the repository are what the engines in `target/engines` say.
#[test]
fn no_drift() {
    run(&crate::repository(), &Options { check: true }).unwrap();
}
