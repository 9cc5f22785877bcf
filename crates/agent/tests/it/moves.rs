//! How long a move holds clients, by three ways. Prints; asserts only that nothing is lost.
//!
//! `cargo test -p agent --test it -- --ignored --nocapture moves::`

use crate::bench::*;
use crate::hand_over::move_under_load;
use crate::load::Load;
use crate::replica_set::*;
use model::documents::Role;
use std::time::Duration;

/// Moves by each way.
const MOVES: u64 = 12;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures"]
async fn how_long_clients_are_held() {
    for engine in engines() {
        let (all, syncs) = by_order(&engine).await;
        report(&format!("{engine}: FAILOVER by the agents"), all, syncs);
        let (all, syncs) = by_hand(&engine, failover).await;
        report(&format!("{engine}: FAILOVER by hand"), all, syncs);
        let (all, syncs) = by_hand(&engine, swap).await;
        report(&format!("{engine}: PAUSE, equal offsets, swap"), all, syncs);
    }
}

fn report(what: &str, mut all: Vec<Duration>, syncs: String) {
    all.sort();
    let at = |part: usize| all[(all.len() - 1) * part / 100].as_secs_f64() * 1e3;
    println!(
        "{what}: held ms min {:.2} median {:.2} p90 {:.2} max {:.2}; full syncs {syncs}",
        at(0),
        at(50),
        at(90),
        at(100)
    );
}

/// As the platform does it.
async fn by_order(engine: &model::release::EngineId) -> (Vec<Duration>, String) {
    let a = Member::primary(engine, 1).await;
    let b = Member::replica(engine, 1, &a).await;
    let order: Vec<&Member> = (0..=MOVES)
        .map(|i| if i % 2 == 0 { &a } else { &b })
        .collect();
    let load = Load::start(&order, 1);
    let mut all = Vec::new();
    for round in 1..=MOVES {
        let (old, new) = (order[round as usize - 1], order[round as usize]);
        let held = move_under_load(&load, old, new, round + 1, round as usize).await;
        old.looks(|shard| is(shard, Role::Replica, round + 1)).await;
        all.push(held.whole - held.drain);
    }
    (all, ended(load, &a, &b).await)
}

/// By commands alone, without ledger and users of epochs: what the engines need.
async fn by_hand(
    engine: &model::release::EngineId,
    way: fn(&Member, &Member),
) -> (Vec<Duration>, String) {
    let a = Member::primary(engine, 1).await;
    let b = Member::replica(engine, 1, &a).await;
    for member in [&a, &b] {
        // Users of all rounds beforehand.
        let mut cnm = member.node.as_cnm();
        say::<()>(&mut cnm, "CONFIG SET replica-serve-stale-data yes").unwrap();
        let repl = users(1).repl;
        redis::cmd("ACL")
            .arg(&["SETUSER", "repl", "on", "+psync", "+replconf", "+ping"])
            .arg(format!(">{}", repl.expose()))
            .exec(&mut cnm)
            .unwrap();
        for epoch in 2..=MOVES + 1 {
            let rule = format!("ACL SETUSER proxy@e{epoch} on >proxy-password-{epoch} ~* +@all");
            say::<()>(&mut cnm, &rule).unwrap();
        }
    }
    let order: Vec<&Member> = (0..=MOVES)
        .map(|i| if i % 2 == 0 { &a } else { &b })
        .collect();
    let load = Load::start(&order, 1);
    let mut all = Vec::new();
    for round in 1..=MOVES {
        load.goes_on(1_000).await;
        let (old, new) = (order[round as usize - 1], order[round as usize]);
        load.hold();
        let drained = std::time::Instant::now();
        tokio::task::block_in_place(|| way(old, new));
        load.release(round as usize);
        all.push(load.first_reply().await - drained);
        let mut cnm = old.node.as_cnm();
        eventually("the old one follows", || {
            info(&mut cnm, "role") == "slave" && info(&mut cnm, "master_link_status") == "up"
        })
        .await;
    }
    (all, ended(load, &a, &b).await)
}

async fn ended(load: Load, a: &Member, b: &Member) -> String {
    load.goes_on(1_000).await;
    let written = load.end();
    let (primary, replica) = if a.info("role") == "master" {
        (a, b)
    } else {
        (b, a)
    };
    replica.has_all_of(primary).await;
    written.is_all_in(a, "a");
    written.is_all_in(b, "b");
    format!("{} + {}", a.info("sync_full"), b.info("sync_full"))
}

fn failover(old: &Member, new: &Member) {
    let (ip, port) = (new.address().ip(), new.address().port());
    let (mut at_old, mut at_new) = (old.node.as_cnm(), new.node.as_cnm());
    let words = format!("FAILOVER TO {ip} {port} TIMEOUT 5000");
    say::<()>(&mut at_old, &words).unwrap();
    until_blocking("the target is primary", || {
        let _ = redis::cmd("REPLCONF")
            .arg(&["GETACK", "*"])
            .set_no_response(true)
            .exec(&mut at_new);
        info(&mut at_new, "role") == "master"
    });
    until_blocking("the old one is its replica", || {
        let text: String = say(&mut at_old, "INFO replication").unwrap();
        text.contains("master_link_status:up") && text.contains("master_failover_state:no-failover")
    });
}

fn swap(old: &Member, new: &Member) {
    let (mut at_old, mut at_new) = (old.node.as_cnm(), new.node.as_cnm());
    say::<()>(&mut at_old, "CLIENT PAUSE 5000 WRITE").unwrap();
    let all = info(&mut at_old, "master_repl_offset");
    until_blocking("the offsets are equal", || {
        info(&mut at_new, "slave_repl_offset") == all
    });
    say::<()>(&mut at_new, "REPLICAOF NO ONE").unwrap();
    let (ip, port) = (new.address().ip(), new.address().port());
    say::<()>(&mut at_old, &format!("REPLICAOF {ip} {port}")).unwrap();
    say::<()>(&mut at_old, "CLIENT UNPAUSE").unwrap();
}
