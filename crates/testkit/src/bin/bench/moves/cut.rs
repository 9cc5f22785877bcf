//! The node with the primary is cut off by the network, with clients on it. The other side's clients are counted; what
//! those on the cut node were told is held against what is there in the end, and against the event.

use super::Options;
use super::losses::{Also, Loss, Told, Whole, measure};
use anyhow::Context as _;
use model::rest::LogEvent;
use std::collections::HashSet;
use std::ops::RangeInclusive;
use testkit::cluster::{Cluster, Surroundings};
use testkit::history::{Append, History, Micros, Value};
use testkit::report::Report;

/// Lists that clients of both sides append to.
const LISTS: u16 = 10;
/// From the cut to the end of a lease that was given just before it, ms.
const LEASE: f64 = 1_300.0;

/// It hears no other node and is not heard; clients reach all.
struct Cut;

impl Loss for Cut {
    fn name(&self) -> &'static str {
        "the node with the primary is cut off from the others, with clients on it"
    }
    fn goal(&self) -> f64 {
        3_000.0
    }
    fn make(&self) -> anyhow::Result<Cluster> {
        let cluster = Cluster::start_with(
            3,
            Surroundings {
                apart: true,
                ..Surroundings::default()
            },
        )?;
        cluster.create_replicated(&[])?;
        Ok(cluster)
    }
    fn happen(&self, cluster: &mut Cluster) -> anyhow::Result<()> {
        let node = u8::try_from(Whole::node(cluster)?)? + 1;
        let apart = cluster
            .apart()
            .ok_or_else(|| anyhow::anyhow!("no namespaces"))?;
        for other in (1..=3).filter(|other| *other != node) {
            apart.cut(node, other)?;
            apart.cut(other, node)?;
        }
        Ok(())
    }
    fn undo(&self, cluster: &mut Cluster) -> anyhow::Result<()> {
        cluster.apart().map_or(Ok(()), |apart| apart.heal())
    }
    fn counted(&self, cluster: &Cluster) -> anyhow::Result<Vec<usize>> {
        let others = Whole {
            primary_node: false,
        };
        others.counted(cluster)
    }
    fn on(&self, _: &Cluster) -> anyhow::Result<Vec<usize>> {
        Ok(vec![0, 1, 2])
    }
    fn lists(&self) -> u16 {
        LISTS
    }
    fn also(&self, cluster: &Cluster, told: &Told<'_>) -> anyhow::Result<Vec<Also>> {
        let events = cluster.events("shard_failover")?;
        let event = events.last().context("no failover was told")?;
        let at = told.clock.of_event(&event.time);
        let at = at.context("the event has no time")?;
        let time = |name: &str| {
            let text = event.facts.get(name).and_then(|fact| fact.as_str());
            let time = text.and_then(|text| told.clock.of_event(text));
            time.with_context(|| format!("the event names no {name}"))
        };
        let named = time("unproven_from")?..=time("unproven_to")?;
        let lost = Lost::of(told.history, at, &named);
        let until = lost.until.saturating_sub(told.moment);
        let offset = event.facts.get("offset").and_then(|fact| fact.as_u64());
        let offset = offset.context("no offset is named")?;
        println!(
            "    {} acknowledged writes were lost; the event says from {offset} on, within {} ms",
            lost.count,
            named.end().saturating_sub(*named.start()) / 1_000
        );
        let elsewhere = u64::from(offset != engine(cluster, event)?);
        let row = |name, value: u64| Also {
            name,
            value: value as f64,
            unit: "",
            goal: 0.0,
        };
        Ok(vec![
            row(
                "acknowledged, and sent after the other side's promotion",
                lost.after,
            ),
            row("lost, and a later one was kept", lost.holes),
            row(
                "the event's range begins elsewhere than the engine says",
                elsewhere,
            ),
            row(
                "acknowledged and lost at another time than the event names",
                lost.outside,
            ),
            Also {
                name: "last write that was acknowledged and lost, after the cut",
                value: until as f64 / 1e3,
                unit: "ms",
                goal: LEASE,
            },
        ])
    }
}

/// The offset at which the new primary's own history began, as its engine says: the old one's ended just before it.
fn engine(cluster: &Cluster, event: &LogEvent) -> anyhow::Result<u64> {
    let new = &event.facts["new_shard_uid"];
    let all = cluster.shards()?;
    let shard = all.iter().find(|shard| *new == shard.uid.0);
    let shard = shard.with_context(|| format!("there is no redis:{new}"))?;
    let second = cluster.engine_info(shard, "second_repl_offset")?;
    second.checked_sub(1).context("it was never promoted")
}

/// What was acknowledged and is not there.
#[derive(Debug, Default, PartialEq)]
struct Lost {
    count: u64,
    /// Of it, what cannot have run within the time that the event names.
    outside: u64,
    /// Of it, sent when the other side had been promoted already.
    after: u64,
    /// Of it, acknowledged before something was sent that the old primary acknowledged and that is there: a
    /// replica had it, since it has no holes.
    holes: u64,
    /// When the last one was acknowledged.
    until: Micros,
}

impl Lost {
    fn of(history: &History, promoted: Micros, named: &RangeInclusive<Micros>) -> Self {
        let there: HashSet<Value> = history.lists.values().flatten().copied().collect();
        let acknowledged = history.appends.iter().filter(|a| a.position().is_some());
        let (kept, lost): (Vec<&Append>, Vec<&Append>) =
            acknowledged.partition(|append| there.contains(&append.value));
        let of_old = kept.iter().filter(|append| append.answered < promoted);
        let newest = of_old.map(|append| append.sent).max().unwrap_or(0);
        let all = |what: &dyn Fn(&Append) -> bool| lost.iter().filter(|a| what(a)).count() as u64;
        Self {
            count: lost.len() as u64,
            outside: all(&|append| append.answered < *named.start() || append.sent > *named.end()),
            after: all(&|append| append.sent >= promoted),
            holes: all(&|append| append.answered < newest),
            until: lost.iter().map(|append| append.answered).max().unwrap_or(0),
        }
    }
}

pub(crate) fn run(options: &Options, report: &mut Report) -> anyhow::Result<()> {
    measure(&Cut, options.rounds(1), report)
}

#[cfg(test)]
mod tests {
    use super::Lost;
    use std::collections::BTreeMap;
    use testkit::history::{Allowed, Append, History, Outcome, Value};

    /// Appends of one client to one list, each answered 10 after it was sent; what is there by its number.
    fn history(sent: &[u64], there: &[u64]) -> History {
        let value = |number| Value { client: 0, number };
        let appends = sent.iter().map(|sent| Append {
            list: 0,
            value: value(*sent),
            node: 0,
            sent: *sent,
            answered: sent + 10,
            outcome: Outcome::Acknowledged(1),
        });
        History {
            appends: appends.collect(),
            lists: BTreeMap::from([(0, there.iter().map(|number| value(*number)).collect())]),
            faults: Vec::new(),
            failovers: Vec::new(),
            allowed: Allowed {
                before: 0,
                after: 0,
            },
            not_healed: None,
        }
    }

    #[test]
    fn what_no_replica_had_is_lost_and_nothing_else() {
        let lost = Lost::of(&history(&[10, 20, 30, 200], &[10, 200]), 100, &(25..=60));
        let expected = Lost {
            count: 2,
            until: 40,
            ..Lost::default()
        };
        assert_eq!(lost, expected);
        let outside = |named| Lost::of(&history(&[20, 30], &[]), 100, &named).outside;
        assert_eq!(
            (outside(20..=60), outside(31..=60), outside(20..=29)),
            (0, 1, 1)
        );
    }

    #[test]
    fn a_hole_and_a_late_acknowledgement_are_seen() {
        let lost = Lost::of(&history(&[10, 20, 50, 150], &[10, 50]), 100, &(0..=200));
        assert_eq!((lost.count, lost.holes, lost.after), (2, 1, 1));
    }
}
