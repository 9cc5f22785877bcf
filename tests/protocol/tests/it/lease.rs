use protocol_model::explore::{heals, safe};
use protocol_model::lease::{Leases, Rules};

const WHOLE: Leases = Leases {
    rules: Rules::ALL,
    sends_matter: true,
};

#[test]
fn nothing_is_wrong() {
    let size = safe(WHOLE).unwrap_or_else(|text| panic!("{text}"));
    println!("leases: {size:?}");
}

#[test]
fn nothing_sticks() {
    let size = heals(&WHOLE).unwrap_or_else(|text| panic!("{text}"));
    println!("leases, ways back: {size:?}");
}

/// A command that leaves in vain is no violation: what is acknowledged is decided when its reply is read.
#[test]
fn safety_does_not_rest_on_the_look_before_sending() {
    let rules = Rules {
        check_before: false,
        ..Rules::ALL
    };
    let model = Leases {
        rules,
        sends_matter: false,
    };
    safe(model).unwrap_or_else(|text| panic!("{text}"));
    let model = Leases {
        rules,
        sends_matter: true,
    };
    let text = safe(model).expect_err("nothing was sent in vain");
    assert!(text.starts_with("nothing is sent"), "{text}");
}

macro_rules! needed {
    ($($rule:ident)*) => { $(
        #[test]
        fn $rule() {
            let rules = Rules { $rule: false, ..Rules::ALL };
            let text = safe(Leases { rules, sends_matter: false }).expect_err("nothing is wrong without it");
            println!("without {}:\n{text}", stringify!($rule));
        }
    )* };
}

mod without {
    use super::{Leases, Rules, safe};
    needed! {
        confirmed_after_arrival new_leader_waits from_sending margin failover_waits refuse_behind_gate
        no_lifting gate_abandons check_after check_epoch
    }
}
