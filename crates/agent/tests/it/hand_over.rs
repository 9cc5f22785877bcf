//! A primary hands its role over: under load, and with everything that can happen in the middle.

use crate::bench::*;
use crate::load::{Held, Load};
use crate::replica_set::*;
use model::Epoch;
use model::command::AgentCommand;
use model::documents::Role;
use model::observation::{EngineState, ShardObservation};
use rustix::process::Signal;
use std::time::Instant;

/// How long a move may take here, ms: the machine may be busy.
const TIME: u32 = 10_000;

/// Moves the role under load, as the controller does, and returns how long clients were held.
pub(crate) async fn move_under_load(
    load: &Load,
    old: &Member,
    new: &Member,
    epoch: u64,
    to: usize,
) -> Held {
    old.order(old.prepare(epoch)).await.unwrap();
    new.order(new.prepare(epoch)).await.unwrap();
    // Long enough for every writer to have its connection to the target.
    load.goes_on(1_000).await;
    let begun = load.hold();
    let drained = Instant::now();
    let (handed, pressed) = hand_over(old, new, epoch, TIME).await;
    let (handed, pressed) = (handed.unwrap().unwrap(), pressed.unwrap().unwrap());
    load.release(to);
    let whole = load.first_reply().await - begun;
    let (old_seen, new_seen) = (handed.replication.unwrap(), pressed.replication.unwrap());
    assert!(!old_seen.is_primary && old_seen.link_up && new_seen.is_primary);
    assert_eq!(old_seen.failover_state, "no-failover");
    assert_eq!(old_seen.replication_id, new_seen.replication_id);
    let taken = new.order(new.take_over(epoch)).await.unwrap().unwrap();
    assert!(is(&taken, Role::Primary, epoch), "{taken:?}");
    Held {
        drain: drained - begun,
        whole,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_under_load() {
    for (engine, newer) in pairs() {
        let pair = format!("{engine} -> {newer}");
        let old = Member::primary(&engine, 1).await;
        let new = Member::replica(&newer, 1, &old).await;
        let sibling = Member::replica(&newer, 1, &old).await;
        let load = Load::start(&[&old, &new], 1);
        load.goes_on(5_000).await;
        let mut past = old.node.as_proxy(1).unwrap();
        let held = move_under_load(&load, &old, &new, 2, 1).await;

        // The ledger of the old one learns of it after the answer.
        old.looks(|shard| is(shard, Role::Replica, 2)).await;
        let refused = say::<redis::Value>(&mut past, "SET stray x").unwrap_err();
        assert!(
            matches!(refused.code(), Some("NOPERM" | "READONLY")),
            "{pair}: {refused}"
        );
        let again = old.order(old.follow(2, &new)).await.unwrap().unwrap();
        assert!(is(&again, Role::Replica, 2));
        sibling.order(sibling.follow(2, &new)).await.unwrap();
        sibling.is_synced(2, &new).await;
        load.goes_on(5_000).await;
        let written = load.end();
        old.has_all_of(&new).await;
        sibling.has_all_of(&new).await;
        for member in [&old, &new, &sibling] {
            written.is_all_in(member, &pair);
        }
        let syncs = |member: &Member| (member.info("sync_full"), member.info("sync_partial_ok"));
        assert_eq!(old.info("sync_full"), "2", "{pair}: the first syncs alone");
        assert_eq!(syncs(&new), ("0".to_owned(), "2".to_owned()), "{pair}");
        println!("{pair}: {held:?}, {} writes", written.count());

        // Whoever still has the old user can write nowhere, and is cut off in the end.
        assert!(say::<()>(&mut past, "SET stray x").is_err());
        drop(past);
        eventually("users of the past are gone", || {
            // The one in which it would have gone on if the move had been undone is used by nobody.
            old.users() == ["cnm", "default", "proxy@e3", "repl"]
                && new.users() == ["cnm", "default", "proxy@e2", "repl"]
        })
        .await;
        assert!(old.node.as_proxy(1).is_err() && new.node.as_proxy(1).is_err());
    }
}

/// There and back, with the same engines.
#[tokio::test(flavor = "multi_thread")]
async fn the_role_goes_to_and_fro() {
    let engine = newest();
    let a = Member::primary(&engine, 1).await;
    let b = Member::replica(&engine, 1, &a).await;
    let load = Load::start(&[&a, &b, &a, &b, &a], 1);
    for round in 1..=4 {
        let (old, new) = if round % 2 == 1 { (&a, &b) } else { (&b, &a) };
        let epoch = round + 1;
        let held = move_under_load(&load, old, new, epoch, usize::try_from(round).unwrap()).await;
        old.looks(|shard| is(shard, Role::Replica, epoch)).await;
        println!("to epoch {epoch}: {held:?}");
    }
    load.goes_on(1_000).await;
    let written = load.end();
    b.has_all_of(&a).await;
    written.is_all_in(&a, "a");
    written.is_all_in(&b, "b");
    assert_eq!(
        (a.info("sync_full"), b.info("sync_full")),
        ("1".to_owned(), "0".to_owned())
    );
}

/// A client that blocks is told when its primary stops being one.
#[tokio::test(flavor = "multi_thread")]
async fn blocked_clients_of_the_past_get_nothing_later() {
    for engine in engines() {
        let old = Member::primary(&engine, 1).await;
        let new = Member::replica(&engine, 1, &old).await;
        let mut blocked = old.node.as_proxy(1).unwrap();
        let waits = std::thread::spawn(move || say::<redis::Value>(&mut blocked, "BLPOP list 0"));
        eventually("it blocks", || old.info("blocked_clients") == "1").await;
        old.order(old.prepare(2)).await.unwrap();
        new.order(new.prepare(2)).await.unwrap();
        let (handed, pressed) = hand_over(&old, &new, 2, TIME).await;
        handed.unwrap();
        pressed.unwrap();
        new.order(new.take_over(2)).await.unwrap();
        let told = waits.join().unwrap().unwrap_err();
        assert_eq!(told.code(), Some("UNBLOCKED"), "{engine}: {told}");
        say::<()>(&mut new.node.as_proxy(2).unwrap(), "RPUSH list x").unwrap();
        old.has_all_of(&new).await;
        let left: u64 = say(&mut old.node.as_cnm(), "LLEN list").unwrap();
        assert_eq!(left, 1, "{engine}");
    }
}

/// A pair at the point where a move begins.
async fn pair() -> (Member, Member) {
    pair_of(&newest()).await
}

async fn pair_of(engine: &model::release::EngineId) -> (Member, Member) {
    let old = Member::primary(engine, 1).await;
    let new = Member::replica(engine, 1, &old).await;
    old.order(old.prepare(2)).await.unwrap();
    new.order(new.prepare(2)).await.unwrap();
    (old, new)
}

/// The old primary is what it was.
fn is_undone(old: &Member) {
    let seen = old.seen();
    assert!(is(&seen, Role::Primary, 1), "{seen:?}");
    let replication = seen.replication.unwrap();
    assert!(replication.is_primary && replication.failover_state == "no-failover");
    set(&mut old.node.as_proxy(1).unwrap(), "k", "undone");
}

/// Makes the target refuse its old primary, so that a move stays in the middle.
async fn stuck(old: &Member, new: &Member) {
    say::<()>(&mut new.node.as_cnm(), "ACL DELUSER repl").unwrap();
    let (handed, pressed) = hand_over(old, new, 2, 1_000).await;
    let why = failed(handed);
    assert!(why.contains("failover-in-progress"), "{why}");
    let pressed = pressed.unwrap().unwrap().replication.unwrap();
    assert!(!pressed.is_primary);
    let seen = old.seen();
    let replication = seen.replication.unwrap();
    assert_eq!(seen.role, None, "it is nothing until it is known");
    assert!(!replication.is_primary);
    assert_eq!(replication.failover_state, "failover-in-progress");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_hangs_leaves_the_primary_as_it_was() {
    for engine in engines() {
        let old = Member::primary(&engine, 1).await;
        let new = Member::replica(&engine, 1, &old).await;
        old.order(old.prepare(2)).await.unwrap();
        new.order(new.prepare(2)).await.unwrap();
        kill(new.pid, Signal::STOP);
        // It is still in the primary's list, and behind.
        set(&mut old.node.as_proxy(1).unwrap(), "k", "behind");
        let why = failed(old.order(old.hand_over(2, &new, 600)).await);
        assert!(why.contains("gave up"), "{engine}: {why}");
        is_undone(&old);
        kill(new.pid, Signal::CONT);
        new.is_synced(1, &old).await;
        assert_eq!(old.info("sync_full"), "1", "{engine}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_dies_before_it_has_everything() {
    let (old, new) = pair().await;
    kill(new.pid, Signal::STOP);
    set(&mut old.node.as_proxy(1).unwrap(), "k", "behind");
    let dies = async {
        let mut cnm = old.node.as_cnm();
        eventually("it waits", || {
            info(&mut cnm, "master_failover_state") == "waiting-for-sync"
        })
        .await;
        kill_hard(new.pid);
    };
    let (handed, ()) = tokio::join!(old.order(old.hand_over(2, &new, TIME)), dies);
    assert!(failed(handed).contains("gave up"));
    is_undone(&old);
    // Nobody is there any more.
    let why = failed(old.order(old.hand_over(2, &new, TIME)).await);
    assert!(why.contains("none of its replicas"), "{why}");
    is_undone(&old);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_dies_in_the_middle() {
    let (old, new) = pair().await;
    say::<()>(&mut new.node.as_cnm(), "ACL DELUSER repl").unwrap();
    let dies = async {
        let mut cnm = old.node.as_cnm();
        eventually("it is in progress", || {
            info(&mut cnm, "master_failover_state") == "failover-in-progress"
        })
        .await;
        kill_hard(new.pid);
    };
    let press = async {
        // It dies under it.
        let _ = new.order(new.press(TIME)).await;
    };
    let (handed, (), ()) = tokio::join!(old.order(old.hand_over(2, &new, TIME)), dies, press);
    assert!(failed(handed).contains("gave up"));
    is_undone(&old);
}

/// Recovery: its time is over, the engine is still at it; the target is ended by order, and the next
/// look at the old one finds it as it was.
#[tokio::test(flavor = "multi_thread")]
async fn a_stuck_move_is_undone_when_its_target_is_ended() {
    for engine in engines() {
        let old = Member::primary(&engine, 1).await;
        let new = Member::replica(&engine, 1, &old).await;
        old.order(old.prepare(2)).await.unwrap();
        new.order(new.prepare(2)).await.unwrap();
        stuck(&old, &new).await;
        let at_it = old.order(old.settle(2)).await.unwrap().unwrap();
        let replication = at_it.replication.unwrap();
        assert_eq!(
            replication.failover_state, "failover-in-progress",
            "{engine}"
        );
        new.order(new.kill()).await.unwrap();
        let settled = old.order(old.settle(2)).await.unwrap().unwrap();
        assert!(settled.replication.unwrap().is_primary, "{engine}");
        is_undone(&old);
        // What belongs to the move is refused from here on; a later one is not.
        stale(old.order(old.hand_over(2, &new, TIME)).await);
        stale(old.order(old.prepare(2)).await);
        old.order(make_primary(&old.run_id, 3)).await.unwrap();
        old.order(old.prepare(4)).await.unwrap();
    }
}

/// The target was started again in the middle: its address answers, and it is nobody's replica.
#[tokio::test(flavor = "multi_thread")]
async fn a_stuck_move_is_undone_by_order() {
    let (old, new) = pair().await;
    stuck(&old, &new).await;
    new.order(new.kill()).await.unwrap();
    // While its address is silent, a look at the old one would undo it.
    let again = run(&new.agent, &spec(new.engine.clone())).await;
    let aborted = old.order(old.abort()).await.unwrap().unwrap();
    assert!(aborted.replication.unwrap().is_primary);
    is_undone(&old);
    assert!(is(
        &old.order(old.abort()).await.unwrap().unwrap(),
        Role::Primary,
        1
    ));
    let new = Member {
        run_id: again.run_id.unwrap(),
        ..new
    };
    old.order(make_primary(&old.run_id, 3)).await.unwrap();
    new.order(new.follow(3, &old)).await.unwrap();
    new.is_synced(3, &old).await;
}

/// An order to stop while the replica catches up.
#[tokio::test(flavor = "multi_thread")]
async fn a_move_is_called_off_while_the_target_catches_up() {
    let (old, new) = pair().await;
    kill(new.pid, Signal::STOP);
    set(&mut old.node.as_proxy(1).unwrap(), "k", "behind");
    // Somebody else's agent began it, and died.
    let old = old
        .crash_agent(|node| {
            failover(node, &new, 60_000);
        })
        .await;
    let waiting = old.order(old.settle(2)).await.unwrap().unwrap();
    let replication = waiting.replication.unwrap();
    assert_eq!(replication.failover_state, "waiting-for-sync");
    let aborted = old.order(old.abort()).await.unwrap().unwrap();
    assert!(aborted.replication.unwrap().is_primary);
    is_undone(&old);
    kill(new.pid, Signal::CONT);
}

/// The old primary hangs in the middle: nobody knows how it stands until it goes on or is ended.
#[tokio::test(flavor = "multi_thread")]
async fn the_old_primary_hangs_in_the_middle() {
    let (old, new) = pair().await;
    say::<()>(&mut new.node.as_cnm(), "ACL DELUSER repl").unwrap();
    let hangs = async {
        let mut cnm = old.node.as_cnm();
        eventually("it is in progress", || {
            info(&mut cnm, "master_failover_state") == "failover-in-progress"
        })
        .await;
        kill(old.pid, Signal::STOP);
    };
    let ((handed, _), ()) = tokio::join!(hand_over(&old, &new, 2, 1_000), hangs);
    assert!(failed(handed).contains("does not say how"));
    failed(old.order(old.settle(2)).await);
    assert_eq!(
        ledger(&old.node).settled,
        Epoch(2),
        "it is written down all the same"
    );
    new.order(new.kill()).await.unwrap();
    kill(old.pid, Signal::CONT);
    // Asked of the engine: what the agent last heard may be older than the move.
    eventually("the engine has given up", || {
        old.info("master_failover_state") == "no-failover" && old.info("role") == "master"
    })
    .await;
    old.looks(|shard| {
        let at_rest = shard.replication.as_ref();
        let at_rest = at_rest.is_some_and(|seen| seen.failover_state == "no-failover");
        is(shard, Role::Primary, 1) && shard.state == EngineState::Running && at_rest
    })
    .await;
    is_undone(&old);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_old_primary_dies_in_the_middle() {
    let (old, new) = pair().await;
    let record = new.record(1);
    say::<()>(&mut new.node.as_cnm(), "ACL DELUSER repl").unwrap();
    let dies = async {
        let mut cnm = old.node.as_cnm();
        eventually("it is in progress", || {
            info(&mut cnm, "master_failover_state") == "failover-in-progress"
        })
        .await;
        kill_hard(old.pid);
    };
    let ((handed, _), ()) = tokio::join!(hand_over(&old, &new, 2, 2_000), dies);
    failed(handed);
    let dead = old.looks(|shard| shard.state == EngineState::Stopped).await;
    assert_eq!(dead.role, None);
    let settled = old.order(old.settle(2)).await.unwrap().unwrap();
    assert_eq!(
        (settled.state, settled.replication),
        (EngineState::Stopped, None)
    );
    // As a failover, in the epoch that the move would have had.
    new.order(new.settle(2)).await.unwrap();
    let promoted = new.order(new.promote(2, &record)).await.unwrap().unwrap();
    assert!(is(&promoted, Role::Primary, 2));
}

fn failover(node: &Node, new: &Member, milliseconds: u32) {
    let (ip, port) = (new.address().ip(), new.address().port());
    let words = format!("FAILOVER TO {ip} {port} TIMEOUT {milliseconds}");
    say::<()>(&mut node.as_cnm(), &words).unwrap();
}

/// The agent died before it told the engine: nothing has happened, and the same order does it.
#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_died_before_the_engine_was_told() {
    let (old, new) = pair().await;
    let old = old.crash_agent(|_| ()).await;
    old.looks(|shard| is(shard, Role::Primary, 1)).await;
    is_undone(&old);
    let (handed, pressed) = hand_over(&old, &new, 2, TIME).await;
    handed.unwrap();
    assert!(pressed.unwrap().unwrap().replication.unwrap().is_primary);
}

/// The agent died while the engine was at it: the same order goes on from there.
#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_died_while_the_engine_was_at_it() {
    let (old, new) = pair().await;
    kill(new.pid, Signal::STOP);
    set(&mut old.node.as_proxy(1).unwrap(), "k", "behind");
    let old = old
        .crash_agent(|node| {
            failover(node, &new, TIME);
        })
        .await;
    let goes_on = async {
        old.looks(|shard| {
            let replication = shard.replication.clone().unwrap();
            replication.failover_state == "waiting-for-sync"
        })
        .await;
        kill(new.pid, Signal::CONT);
        new.order(new.press(TIME)).await
    };
    let (handed, pressed) = tokio::join!(old.order(old.hand_over(2, &new, TIME)), goes_on);
    handed.unwrap();
    pressed.unwrap();
    new.order(new.take_over(2)).await.unwrap();
    old.looks(|shard| is(shard, Role::Replica, 2)).await;
    let mut cnm = new.node.as_cnm();
    assert_eq!(get(&mut cnm, "k").as_deref(), Some("behind"));
}

/// The agents died when the engines were done: the old one's ledger learns it from the engine, the new
/// one has no role until it is told.
#[tokio::test(flavor = "multi_thread")]
async fn agents_that_died_before_they_knew_the_end() {
    let (old, new) = pair().await;
    let old = old
        .crash_agent(|node| {
            failover(node, &new, TIME);
            let mut cnm = new.node.as_cnm();
            until_blocking("it is primary", || {
                // Its error is the engine's that loads; there is none otherwise.
                let _ = redis::cmd("REPLCONF")
                    .arg(&["GETACK", "*"])
                    .set_no_response(true)
                    .exec(&mut cnm);
                info(&mut cnm, "role") == "master"
            });
            let mut cnm = node.as_cnm();
            until_blocking("it is a replica", || {
                info(&mut cnm, "master_link_status") == "up"
            });
        })
        .await;
    old.looks(|shard| is(shard, Role::Replica, 2)).await;
    let again = old.order(old.hand_over(2, &new, TIME)).await;
    assert!(
        is(&again.unwrap().unwrap(), Role::Replica, 2),
        "it is answered again"
    );

    let new = new.crash_agent(|_| ()).await;
    let seen: ShardObservation = new.seen();
    assert_eq!((seen.role, ledger(&new.node).prepared), (None, Epoch(2)));
    assert!(seen.replication.unwrap().is_primary);
    // The move was settled meanwhile: what is done stays done.
    new.order(new.settle(2)).await.unwrap();
    new.order(new.take_over(2)).await.unwrap();
    // Its ledger knows the role, its users were not put in order.
    let new = new
        .crash_agent(|node| say::<()>(&mut node.as_cnm(), "ACL DELUSER proxy@e2").unwrap())
        .await;
    assert_eq!(new.seen().role, None);
    new.order(new.take_over(2)).await.unwrap();
    set(&mut new.node.as_proxy(2).unwrap(), "k", "v");
}

/// A move was undone, and the target had made itself primary all the same: it follows again.
#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_made_itself_primary_is_demoted() {
    let (old, new) = pair().await;
    say::<()>(&mut new.node.as_cnm(), "REPLICAOF NO ONE").unwrap();
    set(&mut new.node.as_cnm(), "stray", "x");
    old.order(old.settle(2)).await.unwrap();
    new.order(new.settle(2)).await.unwrap();
    old.order(make_primary(&old.run_id, 3)).await.unwrap();
    let seen = new.looks(|shard| shard.role.is_none()).await;
    assert!(seen.replication.unwrap().is_primary);
    new.order(new.follow(3, &old)).await.unwrap();
    new.is_synced(3, &old).await;
    assert_eq!(get(&mut new.node.as_cnm(), "stray"), None);
    eventually("users of the move are gone", || {
        new.users() == ["cnm", "default", "repl"]
    })
    .await;
    stale(new.order(new.take_over(2)).await);
}

/// A move was undone without a word of the old primary's agent, and clients write in the epoch after; then its order to
/// hand over arrives. The agent, heard again, is given the role of that epoch: nothing is lost, and a second such order
/// is refused.
#[tokio::test(flavor = "multi_thread")]
async fn a_late_order_to_hand_over_is_taken_back() {
    for engine in engines() {
        let (old, new) = pair_of(&engine).await;
        // It was prepared with the password of the move.
        let mut client = old.node.connect("proxy@e3", "proxy-password-2").unwrap();
        set(&mut client, "k", "undone");
        let (handed, _) = hand_over(&old, &new, 2, TIME).await;
        handed.unwrap();
        assert!(!old.replication().is_primary, "{engine}");

        old.order(make_primary(&old.run_id, 3)).await.unwrap();
        let mut client = old.node.as_proxy(3).unwrap();
        assert_eq!(get(&mut client, "k").as_deref(), Some("undone"), "{engine}");
        set(&mut client, "k", "goes on");
        new.order(new.follow(3, &old)).await.unwrap();
        new.is_synced(3, &old).await;
        let seen = get(&mut new.node.as_cnm(), "k");
        assert_eq!(seen.as_deref(), Some("goes on"), "{engine}");
        stale(old.order(old.hand_over(2, &new, TIME)).await);
        assert!(is(&old.seen(), Role::Primary, 3));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_that_are_refused_change_nothing() {
    let (old, new) = pair().await;
    assert!(stale(old.order(old.hand_over(2, &new, 0)).await).contains("its time was over"));
    let unprepared = old.order(old.hand_over(3, &new, TIME)).await;
    assert!(not_yet(unprepared).contains("were not made"));
    stale(old.order(old.hand_over(1, &new, TIME)).await);
    let why = stale(new.order(new.hand_over(2, &old, TIME)).await);
    assert!(why.contains("a replica"), "{why}");
    let mut nobody = old.hand_over(2, &new, TIME);
    if let AgentCommand::HandOver { target, .. } = &mut nobody {
        target.address.set_port(9);
    }
    assert!(failed(old.order(nobody).await).contains("none of its replicas"));
    not_yet(new.order(new.take_over(2)).await);
    stale(old.order(old.prepare(1)).await);
    old.order(old.settle(2)).await.unwrap();
    assert!(stale(old.order(old.hand_over(2, &new, TIME)).await).contains("settled"));
    // An older settling does not open what a newer one closed.
    old.order(old.settle(1)).await.unwrap();
    stale(old.order(old.hand_over(2, &new, TIME)).await);
    is_undone(&old);
    assert!(is(&new.seen(), Role::Replica, 1));
    assert_eq!(old.info("sync_full"), "1");

    // Nobody else is kept waiting while it acknowledges, and at the end it says how it stands.
    let (pressed, seen) = tokio::join!(new.order(new.press(500)), new.order(new.settle(2)));
    assert!(is(&pressed.unwrap().unwrap(), Role::Replica, 1));
    seen.unwrap();
    let mut other = new.press(500);
    if let AgentCommand::PressAcks { run_id, .. } = &mut other {
        *run_id = "another".to_owned();
    }
    stale(new.order(other).await);
}
