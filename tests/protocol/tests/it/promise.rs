use protocol_model::explore::{heals, safe};
use protocol_model::promise::{Promises, Rules};

/// A copy list that stays, and agents that do not.
const LOSSES: Promises = Promises {
    rules: Rules::ALL,
    proxies: 1,
    third: false,
    restarts: 2,
};
/// A copy list that grows.
const NEW_COPY: Promises = Promises {
    third: true,
    restarts: 0,
    ..LOSSES
};
const TWO_PROXIES: Promises = Promises {
    proxies: 2,
    restarts: 1,
    ..LOSSES
};

#[test]
fn nothing_is_wrong_after_losses() {
    let size = safe(LOSSES).unwrap_or_else(|text| panic!("{text}"));
    println!("promises, losses: {size:?}");
}

#[test]
fn nothing_is_wrong_with_a_new_copy() {
    let size = safe(NEW_COPY).unwrap_or_else(|text| panic!("{text}"));
    println!("promises, new copy: {size:?}");
}

#[test]
fn nothing_sticks() {
    let size = heals(&LOSSES).unwrap_or_else(|text| panic!("{text}"));
    println!("promises, ways back: {size:?}");
}

#[test]
#[ignore = "minutes"]
fn nothing_is_wrong_with_two_proxies() {
    let size = safe(TWO_PROXIES).unwrap_or_else(|text| panic!("{text}"));
    println!("promises, two proxies: {size:?}");
}

macro_rules! needed {
    ($model:expr; $($rule:ident)*) => { $(
        #[test]
        fn $rule() {
            let rules = Rules { $rule: false, ..Rules::ALL };
            let text = safe(Promises { rules, ..$model }).expect_err("nothing is wrong without it");
            println!("without {}:\n{text}", stringify!($rule));
        }
    )* };
}

mod without {
    use super::{LOSSES, NEW_COPY, Promises, Rules, safe};
    needed! { LOSSES;
        every_copy withdrawn_first promises_waited start_counts one_step from_sending margin
    }
    needed! { NEW_COPY; one_list new_copy_waits }
}
