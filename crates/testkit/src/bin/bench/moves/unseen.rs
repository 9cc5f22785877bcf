//! An engine without persistence ends and is there again, empty, before anybody has missed it: whoever takes it for
//! the one that it was has lost everything.

use super::Options;
use super::losses::{Also, Loss, Told, Whole, measure, signal};
use anyhow::Context as _;
use model::rest::ShardInfo;
use rustix::process::Signal;
use std::cell::RefCell;
use testkit::cluster::Cluster;
use testkit::report::Report;

#[derive(Default)]
struct Unseen {
    /// The shard whose engine it was.
    lost: RefCell<Option<ShardInfo>>,
}

impl Loss for Unseen {
    fn name(&self) -> &'static str {
        "an engine without persistence is back, empty, before anybody missed it"
    }
    fn goal(&self) -> f64 {
        5_000.0
    }
    /// Its node is not the primary node: that one goes on, and must see by itself what is there.
    fn make(&self) -> anyhow::Result<Cluster> {
        let elsewhere = Whole {
            primary_node: false,
        };
        elsewhere.make()
    }
    /// The agent does not see it end; it finds none when it starts, and starts one.
    fn happen(&self, cluster: &mut Cluster) -> anyhow::Result<()> {
        let shard = cluster.primary_shard()?;
        let node = cluster.index(shard.node_uid)?;
        cluster.nodes[node].kill("cnm_exec")?;
        signal(&shard, Signal::KILL)?;
        self.lost.replace(Some(shard));
        cluster.nodes[node].start_daemon("cnm_exec")
    }
    fn undo(&self, _: &mut Cluster) -> anyhow::Result<()> {
        Ok(())
    }
    fn counted(&self, _: &Cluster) -> anyhow::Result<Vec<usize>> {
        Ok(vec![0, 1, 2])
    }
    fn also(&self, cluster: &Cluster, _: &Told<'_>) -> anyhow::Result<Vec<Also>> {
        let lost = self.lost.take().context("nothing has happened")?;
        let all = cluster.shards()?;
        let now = all.iter().find(|shard| shard.uid == lost.uid);
        let now = now.context("the shard is gone")?;
        let still = u32::from(now.role == "master");
        let gave =
            cluster.engine_info(now, "sync_full")? + cluster.engine_info(now, "sync_partial_ok")?;
        Ok(vec![
            Also {
                name: "its replica was not promoted",
                value: f64::from(still),
                unit: "",
                goal: 0.0,
            },
            Also {
                name: "copies that synced from the empty one",
                value: gave as f64,
                unit: "",
                goal: 0.0,
            },
        ])
    }
}

pub(crate) fn run(options: &Options, report: &mut Report) -> anyhow::Result<()> {
    measure(&Unseen::default(), options.rounds(1), report)
}
