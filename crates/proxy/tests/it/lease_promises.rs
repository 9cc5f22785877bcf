//! Promises: while the primary node is away, the copies of a replica set stand in for the lease.

use crate::lease::{WAITS, hears_nothing, run_out};
use crate::support::client::{Client, shown, words};
use crate::support::exec::Policy;
use crate::support::node::VALKEY;
use crate::support::pair::{Pair, uid};
use crate::support::until;
use model::lease::LeaseLength;
use model::proxy::{Copies, ShardAddress};
use model::{Epoch, Secret};
use std::time::{Duration, Instant};

const CARRY: &str = "the promises of all copies carry";
const PASSWORD: &str = "keeper-secret";

/// The user by which an engine promises.
fn keep(engine: &mut Client) {
    let user = user();
    let line = format!("ACL SETUSER {user} reset on >{PASSWORD} +ping");
    assert_eq!(engine.text(&line), "+OK\r\n");
}

fn user() -> String {
    model::documents::keeper_user(Epoch(1), [0, 1].map(uid))
}

/// A primary and a replica, both of which promise, for copies of an epoch.
fn pair(epoch: u64) -> Pair {
    let mut pair = Pair::start(VALKEY);
    for engine in &mut pair.direct {
        keep(engine);
    }
    let addresses = vec![
        ShardAddress::Unix(pair.node.engine.socket.clone()),
        ShardAddress::Tcp(pair.address(1)),
    ];
    pair.node.reconfigure(|config| {
        config.databases[0].lease = Some(vec![Copies {
            shard: uid(0),
            epoch: Epoch(epoch),
            user: user(),
            password: Secret::new(PASSWORD),
            addresses,
        }]);
    });
    pair.node.wait_served();
    pair
}

/// Commands are answered one after the other for longer than a lease lasts.
#[track_caller]
fn goes_on(pair: &Pair, client: &mut Client, count: &mut u64) {
    let since = Instant::now();
    while since.elapsed() < 2 * Duration::from_nanos(LeaseLength::PRODUCT.holder) {
        *count += 1;
        assert_eq!(client.text("INCR n"), format!(":{count}\r\n"));
    }
    assert!(!pair.node.log().contains(WAITS));
}

fn waits(pair: &Pair) {
    until("the lease runs out", || pair.node.log().contains(WAITS));
}

#[test]
fn promises_carry_while_the_primary_node_is_away() {
    for policy in [
        None,
        Some(Policy::Unknown),
        Some(Policy::NoQuorum),
        Some(Policy::Silent),
    ] {
        let pair = pair(1);
        let (mut client, mut count) = (pair.node.client(), 0);
        match policy {
            Some(policy) => pair.node.exec.leases(policy),
            None => pair.node.exec.go_away(),
        }
        until("promises carry", || pair.node.log().contains(CARRY));
        goes_on(&pair, &mut client, &mut count);
        if policy.is_none() {
            pair.node.exec.come_back();
        }
        pair.node.exec.leases(Policy::Granted);
        until("the lease is back", || {
            pair.node.log().contains("the lease is there again")
        });
        goes_on(&pair, &mut client, &mut count);
        assert!(!pair.node.log().contains(PASSWORD));
    }
}

/// After promises have carried, something happens to a copy: commands wait until it promises again.
fn one_copy(happens: impl Fn(&mut Pair), passes: impl Fn(&mut Pair)) {
    let mut pair = pair(1);
    let mut client = pair.node.client();
    assert_eq!(client.text("INCR n"), ":1\r\n");
    pair.node.exec.go_away();
    until("promises carry", || pair.node.log().contains(CARRY));
    happens(&mut pair);
    waits(&pair);
    client.send(&words("INCR n"));
    hears_nothing(&mut client);
    assert_eq!(pair.direct[0].text("GET n"), "$1\r\n1\r\n");
    let place = format!("the copy at {} does not promise", pair.address(1));
    until("it is told", || pair.node.log().contains(&place));
    passes(&mut pair);
    assert_eq!(shown(&client.reply()), ":2\r\n");
}

#[test]
fn a_copy_that_does_not_answer_is_waited_for() {
    one_copy(
        |pair| pair.second.freeze(true),
        |pair| pair.second.freeze(false),
    );
}

/// But not where there is no quorum either: the copy that does not promise is named at once.
#[test]
fn without_a_quorum_a_copy_that_does_not_answer_is_named() {
    let pair = pair(1);
    let mut client = pair.node.client();
    pair.node.exec.leases(Policy::NoQuorum);
    until("promises carry", || pair.node.log().contains(CARRY));
    assert_eq!(client.text("INCR n"), ":1\r\n");
    pair.second.freeze(true);
    waits(&pair);
    let before = pair.node.exec.renewals();
    client.send(&words("INCR n"));
    let told = shown(&client.reply());
    let asked = pair.node.exec.renewals() - before;
    assert!(asked < 12, "{asked} renewals");
    let place = pair.address(1);
    let named = format!(
        "-TRYAGAIN no lease: there is no quorum, most voters of the configuration do not answer and the copy at {place} \
         does not promise: it does not answer; the command did not run; try again\r\n"
    );
    assert_eq!(told, named);
    pair.second.freeze(false);
    until("it promises again", || client.text("INCR n") == ":2\r\n");
}

#[test]
fn a_copy_that_takes_its_promise_back_is_waited_for() {
    one_copy(
        |pair| {
            let line = format!("ACL DELUSER {}", user());
            assert_eq!(pair.direct[1].text(&line), ":1\r\n");
        },
        |pair| keep(&mut pair.direct[1]),
    );
}

#[test]
fn promises_of_another_epoch_are_worth_nothing() {
    let pair = pair(2);
    let mut client = pair.node.client();
    assert_eq!(client.text("INCR n"), ":1\r\n");
    run_out(&pair.node);
    client.send(&words("INCR n"));
    hears_nothing(&mut client);
    assert!(!pair.node.log().contains(CARRY));
    pair.node.exec.leases(Policy::Granted);
    assert_eq!(shown(&client.reply()), ":2\r\n");
}

#[test]
fn who_was_refused_asks_for_no_promises() {
    let pair = pair(1);
    let mut client = pair.node.client();
    assert_eq!(client.text("INCR n"), ":1\r\n");
    pair.node.exec.leases(Policy::Refused);
    waits(&pair);
    // Not even when the primary node is away afterwards.
    pair.node.exec.go_away();
    client.send(&words("INCR n"));
    hears_nothing(&mut client);
    assert!(!pair.node.log().contains(CARRY));
    pair.node.exec.come_back();
    pair.node.exec.leases(Policy::Granted);
    assert_eq!(shown(&client.reply()), ":2\r\n");
}
