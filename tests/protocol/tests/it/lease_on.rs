use protocol_model::explore::{heals, safe};
use protocol_model::lease_on::{LeaseOn, Rules};

const WHOLE: LeaseOn = LeaseOn {
    rules: Rules::ALL,
    writes: 3,
};

#[test]
fn nothing_is_wrong() {
    let size = safe(WHOLE).unwrap_or_else(|text| panic!("{text}"));
    println!("leases turned on: {size:?}");
}

#[test]
fn nothing_sticks() {
    let size = heals(&WHOLE).unwrap_or_else(|text| panic!("{text}"));
    println!("leases turned on, ways back: {size:?}");
}

macro_rules! needed {
    ($($rule:ident)*) => { $(
        #[test]
        fn $rule() {
            let rules = Rules { $rule: false, ..Rules::ALL };
            let text = safe(LeaseOn { rules, ..WHOLE }).expect_err("nothing is wrong without it");
            println!("without {}:\n{text}", stringify!($rule));
        }
    )* };
}

mod without {
    use super::{LeaseOn, Rules, WHOLE, safe};
    needed! { revoked_first reads_revoked record_covers failover_waits }
}
