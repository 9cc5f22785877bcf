use protocol_model::explore::{heals, safe};
use protocol_model::planned_move::{Bounds, PlannedMove, Rules};

const WHOLE: PlannedMove = PlannedMove {
    rules: Rules::ALL,
    bounds: Bounds {
        crashes: 1,
        restarts: 1,
        writes: 1,
        proxies: 1,
    },
};
/// One proxy in each of two lineages is where a rule that is missing shows.
const TWO_PROXIES: PlannedMove = PlannedMove {
    bounds: Bounds {
        crashes: 1,
        restarts: 0,
        writes: 1,
        proxies: 2,
    },
    ..WHOLE
};

#[test]
fn nothing_is_wrong() {
    let size = safe(WHOLE).unwrap_or_else(|text| panic!("{text}"));
    println!("planned move: {size:?}");
}

#[test]
fn nothing_sticks() {
    let size = heals(&WHOLE).unwrap_or_else(|text| panic!("{text}"));
    println!("planned move, ways back: {size:?}");
}

#[test]
#[ignore = "minutes"]
fn nothing_is_wrong_with_two_proxies() {
    let size = safe(TWO_PROXIES).unwrap_or_else(|text| panic!("{text}"));
    println!("planned move, two proxies: {size:?}");
}

macro_rules! needed {
    ($model:expr; $($rule:ident)*) => { $(
        #[test]
        fn $rule() {
            let rules = Rules { $rule: false, ..Rules::ALL };
            let model = PlannedMove { rules, ..$model };
            let text = safe(model).expect_err("nothing is wrong without it");
            println!("without {}:\n{text}", stringify!($rule));
        }
    )* };
}

mod without {
    use super::{PlannedMove, Rules, TWO_PROXIES, WHOLE, heals, safe};
    needed! { TWO_PROXIES; gates_answered }
    needed! { WHOLE;
        promises_waited gate_drains refuse_behind_gate applied_is_drained no_lifting both_complete
        unseen_committed_first generations old_decides undo_committed_first unheard_fenced failover_waits
    }

    #[test]
    fn demote_stray() {
        let rules = Rules {
            demote_stray: false,
            ..Rules::ALL
        };
        let text = heals(&PlannedMove { rules, ..WHOLE }).expect_err("nothing sticks without it");
        println!("without demote_stray:\n{text}");
    }
}
