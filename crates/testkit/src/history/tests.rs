//! A good history, and one bad history for each rule.

use super::{Allowed, Append, History, Outcome, Rule, Span, Value};
use std::collections::BTreeMap;

const MS: u64 = 1_000;

fn value(client: u16, number: u64) -> Value {
    Value { client, number }
}

fn append(value: Value, sent_ms: u64, outcome: Outcome) -> Append {
    Append {
        list: 0,
        value,
        node: usize::from(value.client),
        sent: sent_ms * MS,
        answered: (sent_ms + 1) * MS,
        outcome,
    }
}

/// Two clients in turn, a fault with a failover at 100 ms that loses the last acknowledged write.
fn good() -> History {
    let mut appends = Vec::new();
    let mut list = Vec::new();
    for number in 1..=10 {
        for client in 0..2 {
            let at = number * 10 + u64::from(client) * 5;
            list.push(value(client, number));
            let position = u64::try_from(list.len()).unwrap();
            appends.push(append(
                value(client, number),
                at,
                Outcome::Acknowledged(position),
            ));
        }
    }
    // Lost: acknowledged at 21 shortly before the failover; then the next lineage takes that place.
    appends.push(append(value(0, 11), 107, Outcome::Acknowledged(21)));
    appends.push(append(
        value(1, 11),
        108,
        Outcome::Unknown("lost".to_owned()),
    ));
    appends.push(append(
        value(0, 12),
        120,
        Outcome::NotRun("TRYAGAIN".to_owned()),
    ));
    appends.push(append(value(0, 13), 130, Outcome::Acknowledged(21)));
    list.push(value(0, 13));
    History {
        appends,
        lists: BTreeMap::from([(0, list)]),
        faults: vec![Span {
            what: "kill".to_owned(),
            closes: None,
            from: 100 * MS,
            to: 200 * MS,
        }],
        failovers: vec![110 * MS],
        allowed: Allowed {
            before: 20 * MS,
            after: 5 * MS,
        },
        not_healed: None,
    }
}

fn broken(change: impl FnOnce(&mut History)) -> Vec<Rule> {
    let mut history = good();
    change(&mut history);
    history.check().broken()
}

fn list(history: &mut History) -> &mut Vec<Value> {
    history.lists.get_mut(&0).unwrap()
}

#[test]
fn a_good_history_holds() {
    let verdict = good().check();
    assert!(verdict.holds(), "{:?}", verdict.findings);
    assert_eq!((verdict.acknowledged, verdict.lost_to_failovers), (22, 1));
    assert_eq!(
        (verdict.unknown, verdict.not_run, verdict.closed),
        (1, 1, 0)
    );
}

#[test]
fn a_write_that_is_gone_is_found() {
    // The last one: no failover is near.
    assert_eq!(broken(|h| list(h).truncate(20)), [Rule::Lost]);
    // Without the failover the loss is not explained.
    assert_eq!(broken(|h| h.failovers.clear()), [Rule::Lost]);
    // A whole list.
    assert!(broken(|h| h.lists.clear()).contains(&Rule::Lost));
}

#[test]
fn a_hole_is_found_though_a_failover_is_near() {
    // The last write before the one that may be lost: what follows it is not where it was.
    let found = broken(|h| {
        list(h).remove(19);
    });
    assert!(found.contains(&Rule::Position), "{found:?}");
}

#[test]
fn a_write_that_ran_twice_is_found() {
    let found = broken(|h| {
        let last = *list(h).last().unwrap();
        list(h).push(last);
    });
    assert!(found.contains(&Rule::Doubled), "{found:?}");
}

#[test]
fn a_value_that_nobody_sent_is_found() {
    assert_eq!(broken(|h| list(h).push(value(7, 1))), [Rule::NeverSent]);
}

#[test]
fn a_refused_write_that_ran_is_found() {
    let found = broken(|h| list(h).push(value(0, 12)));
    assert!(found.contains(&Rule::RanAfterAll), "{found:?}");
}

#[test]
fn values_in_another_order_are_found() {
    let found = broken(|h| list(h).swap(0, 2));
    assert!(found.contains(&Rule::Order), "{found:?}");
    // Acknowledged at 3 after somebody was told 21: time ran backwards.
    let found = broken(|h| {
        h.appends
            .push(append(value(1, 12), 140, Outcome::Acknowledged(3)));
        list(h)[2] = value(1, 12);
    });
    assert!(found.contains(&Rule::Order), "{found:?}");
}

#[test]
fn two_lineages_are_found() {
    // The old primary still acknowledges when the new one has answered, though a failover is near.
    let found = broken(|h| {
        h.allowed.after = 1_000 * MS;
        h.appends
            .push(append(value(1, 12), 140, Outcome::Acknowledged(22)));
    });
    assert_eq!(found, [Rule::Lineages]);
}

#[test]
fn errors_are_found_where_none_may_be() {
    let error =
        |at, outcome| move |h: &mut History| h.appends.push(append(value(1, 12), at, outcome));
    let unknown = || Outcome::Unknown("lost".to_owned());
    assert_eq!(broken(error(300, unknown())), [Rule::Error]);
    assert_eq!(broken(error(150, unknown())), []);
    assert_eq!(
        broken(error(300, Outcome::NotRun("TRYAGAIN".to_owned()))),
        [Rule::Error]
    );
    assert_eq!(
        broken(error(150, Outcome::Odd("READONLY".to_owned()))),
        [Rule::OddError]
    );
    assert_eq!(broken(error(150, Outcome::Silent)), [Rule::Silent]);
    assert_eq!(
        broken(error(150, Outcome::Stray("+OK".to_owned()))),
        [Rule::Stray]
    );
}

#[test]
fn a_connection_ends_only_with_its_proxy() {
    let closed = |h: &mut History| {
        h.appends.push(append(
            value(1, 12),
            150,
            Outcome::Closed("reset".to_owned()),
        ));
    };
    assert_eq!(broken(closed), [Rule::Closed]);
    let with_its_proxy = |node| {
        broken(|h| {
            closed(h);
            h.faults[0].closes = Some(node);
        })
    };
    assert_eq!(with_its_proxy(1), []);
    assert_eq!(with_its_proxy(0), [Rule::Closed]);
}

#[test]
fn what_does_not_heal_is_found() {
    let found = broken(|h| h.not_healed = Some("redis:1 is down".to_owned()));
    assert_eq!(found, [Rule::NotHealed]);
}
