//! Leases and epochs: what is in flight under an earlier one is never answered later.

use crate::lease::{UNKNOWN, engine_answers, hears_nothing, in_flight, leased, run_out};
use crate::support::client::{shown, words};
use crate::support::exec::Policy;
use crate::support::node::{Node, VALKEY};
use crate::support::pair::{Load, Pair};
use crate::support::until;
use model::Epoch;
use std::sync::atomic::Ordering;

/// Changes the configuration and waits until a renewal says that it is applied.
fn reconfigure(node: &mut Node, change: impl FnOnce(&mut model::proxy::ProxyConfig)) {
    change(&mut node.config);
    node.config.revision = node.config.revision.next();
    node.exec.publish(&node.config);
    until("a renewal names it", || {
        node.exec.renewed() == node.config.revision.0
    });
}

#[test]
fn what_is_withheld_is_given_up_before_it_is_told() {
    for named in [true, false] {
        let mut node = leased();
        let shard = node.config.databases[0].shards[0].clone();
        let mut client = in_flight(&node, "INCR n");
        let mut waits = node.client();
        reconfigure(&mut node, |config| {
            let shards = &mut config.databases[0].shards;
            if named {
                shards[0].serving = false;
            } else {
                shards.clear();
            }
        });
        // The reply comes now, which is too late.
        engine_answers(&node);
        assert_eq!(shown(&client.reply()), UNKNOWN);
        waits.send(&words("INCR n"));
        node.reconfigure(|config| config.databases[0].shards = vec![shard]);
        assert_eq!(shown(&waits.reply()), ":2\r\n");
        assert_eq!(client.text("INCR n"), ":3\r\n");
    }
}

#[test]
fn another_epoch_ends_what_is_in_flight() {
    let mut node = leased();
    let rights = model::documents::PROXY_RIGHTS.join(" ");
    let user = format!("ACL SETUSER proxy@e2 on >other {rights}");
    assert_eq!(node.direct().text(&user), "+OK\r\n");
    let mut client = in_flight(&node, "INCR n");
    reconfigure(&mut node, |config| {
        let shard = &mut config.databases[0].shards[0];
        shard.epoch = Epoch(2);
        shard.user = "proxy@e2".to_owned();
        shard.password = model::Secret::new("other");
    });
    engine_answers(&node);
    assert_eq!(shown(&client.reply()), UNKNOWN);
    // The lease is the proxy's: the next epoch has it too.
    assert_eq!(client.text("INCR n"), ":2\r\n");
}

/// A database without a lease: what is in flight may come to its end.
#[test]
fn without_leases_it_is_as_ever() {
    let mut node = Node::start();
    let mut client = in_flight(&node, "INCR n");
    node.reconfigure(|config| {
        let shard = &mut config.databases[0].shards[0];
        shard.epoch = Epoch(2);
    });
    engine_answers(&node);
    assert_eq!(shown(&client.reply()), ":1\r\n");
}

fn pair() -> Pair {
    let mut pair = Pair::start(VALKEY);
    pair.node
        .reconfigure(|config| config.databases[0].lease = Some(Vec::new()));
    pair.node.wait_served();
    pair
}

#[test]
fn planned_moves_keep_the_lease() {
    let mut pair = pair();
    let (client, mut subscriber) = (pair.node.client(), pair.node.client());
    subscriber.text("SUBSCRIBE a");
    let load: Load<'_> = Box::new(move |stop| {
        let (mut client, mut count) = (client, 0);
        while !stop.load(Ordering::Relaxed) {
            count += 1;
            assert_eq!(client.text("INCR n"), format!(":{count}\r\n"));
        }
        assert!(count > 0);
    });
    pair.move_under(6, vec![load]);
    let mut client = pair.node.client();
    assert_eq!(client.text("PUBLISH a x"), ":1\r\n");
    assert!(shown(&subscriber.reply()).contains("message"));
}

#[test]
fn a_release_waits_for_the_lease() {
    let mut pair = pair();
    let mut client = pair.node.client();
    assert_eq!(client.text("INCR n"), ":1\r\n");
    let next = pair.shard(1, 2);
    assert_eq!(pair.prepare(&next).refusal, None);
    run_out(&pair.node);
    client.send(&words("INCR n"));
    assert_eq!(pair.hold(30_000).refusal, None);
    pair.fail_over();
    assert_eq!(pair.release(&next).refusal, None);
    hears_nothing(&mut client);
    assert_eq!(pair.direct[1].text("GET n"), "$1\r\n1\r\n");
    pair.node.exec.leases(Policy::Granted);
    assert_eq!(shown(&client.reply()), ":2\r\n");
    pair.publish();
    assert_eq!(client.text("INCR n"), ":3\r\n");
}

/// The order to go on was faster than the configuration that withholds the shard.
#[test]
fn a_released_shard_is_withheld_too() {
    let mut pair = pair();
    let mut client = pair.node.client();
    assert_eq!(client.text("INCR n"), ":1\r\n");
    let next = pair.shard(1, 2);
    assert_eq!(pair.hold(30_000).refusal, None);
    pair.fail_over();
    assert_eq!(pair.release(&next).refusal, None);
    assert_eq!(client.text("INCR n"), ":2\r\n");
    let old = pair.shard(0, 1);
    reconfigure(&mut pair.node, |config| {
        config.databases[0].shards[0] = old;
        config.databases[0].shards[0].serving = false;
    });
    client.send(&words("INCR n"));
    hears_nothing(&mut client);
    // There is no way back.
    reconfigure(&mut pair.node, |config| {
        config.databases[0].shards[0].serving = true;
    });
    hears_nothing(&mut client);
    pair.publish();
    assert_eq!(shown(&client.reply()), ":3\r\n");
}
