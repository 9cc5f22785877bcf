//! Words of the command line.

use super::loads::{self, Load};
use anyhow::{Context as _, bail, ensure};
use std::path::PathBuf;

pub(crate) const USAGE: &str = "cargo xtask bench proxy [--quick] [--rounds N] [--only LOAD,…] [--targets direct,ours,twemproxy,envoy]
    [--link unix|tcp] [--threads N] [--json FILE] [--markdown FILE] [--page FILE] [--profile] [--callgrind] [--fast]
  --quick      2 short rounds instead of 5
  --only       only these loads (see below)
  --markdown   the tables alone. Those of a whole run, with all loads, targets and rounds, go to docs/benchmarks.md, in place of
               the last ones; --page FILE: those of this run into that page
  --link       how every proxy reaches its engines (default: unix, as on one node)
  --threads    worker threads of dmcproxy (default: its own choice)
  --profile    perf for each chosen load, callgrind where perf does not work; beside the JSON file
  --callgrind  instruction counts for each chosen load
  --fast       the dev build of dmcproxy instead of the one that is shipped";

const FULL_ROUNDS: usize = 5;
/// How the task runner calls the build that is shipped.
const SHIPPED: &str = "dist";
const ALL_TARGETS: [Kind; 4] = [Kind::Direct, Kind::Ours, Kind::Twemproxy, Kind::Envoy];

/// What can be measured. The order is that of the tables.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Kind {
    Direct,
    Ours,
    /// With one shard, beside the one with several.
    OursOneShard,
    /// As many engines without a proxy; see `cluster`.
    Cluster,
    Twemproxy,
    Envoy,
}

impl Kind {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Ours => "ours",
            Self::OursOneShard => "ours, 1 shard",
            Self::Cluster => "cluster, no proxy",
            Self::Twemproxy => "twemproxy",
            Self::Envoy => "envoy",
        }
    }

    pub(crate) const fn is_peer(self) -> bool {
        matches!(self, Self::Twemproxy | Self::Envoy)
    }

    /// Whether it can be asked for keys of several slots at once.
    pub(crate) const fn takes_any_keys(self) -> bool {
        !matches!(self, Self::Cluster)
    }

    fn parse(word: &str) -> anyhow::Result<Self> {
        ALL_TARGETS
            .into_iter()
            .find(|kind| kind.name() == word)
            .with_context(|| format!("unknown target {word}: direct, ours, twemproxy, envoy"))
    }
}

/// How a proxy reaches its engines.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Link {
    Unix,
    Tcp,
}

pub(crate) struct Options {
    pub(crate) quick: bool,
    pub(crate) rounds: usize,
    pub(crate) loads: Vec<Load>,
    /// Whether the idle connections are measured.
    pub(crate) idle: bool,
    pub(crate) targets: Vec<Kind>,
    pub(crate) link: Link,
    /// 0: the proxy's own choice.
    pub(crate) threads: u32,
    pub(crate) json: Option<PathBuf>,
    pub(crate) markdown: Option<PathBuf>,
    /// Where the tables are put in place of the last ones, whatever run it was.
    pub(crate) page: Option<PathBuf>,
    /// Everything is measured, as the page says it: then the tables go to `docs/benchmarks.md`.
    pub(crate) whole: bool,
    pub(crate) profile: bool,
    pub(crate) callgrind: bool,
    /// The program, and how it was built. The task runner gives both.
    pub(crate) dmcproxy: PathBuf,
    pub(crate) build: String,
    pub(crate) nutcracker: Option<PathBuf>,
    pub(crate) envoy: Option<PathBuf>,
    /// Where profiles go if no JSON file is named.
    pub(crate) folder: PathBuf,
}

impl Options {
    pub(crate) fn parse(words: &[String]) -> anyhow::Result<Self> {
        let mut options = Self {
            quick: false,
            rounds: 0,
            loads: Vec::new(),
            idle: true,
            targets: ALL_TARGETS.to_vec(),
            link: Link::Unix,
            threads: 0,
            json: None,
            markdown: None,
            page: None,
            whole: false,
            profile: false,
            callgrind: false,
            dmcproxy: PathBuf::new(),
            build: String::new(),
            nutcracker: None,
            envoy: None,
            folder: PathBuf::from("target/bench"),
        };
        let mut only = None;
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let mut next = || {
                words
                    .next()
                    .with_context(|| format!("{word} wants a value\n{USAGE}"))
            };
            match word.as_str() {
                "--quick" => options.quick = true,
                "--rounds" => {
                    options.rounds = next()?.parse().context("--rounds wants a number")?
                }
                "--only" => only = Some(next()?.clone()),
                "--targets" => {
                    options.targets = next()?
                        .split(',')
                        .map(Kind::parse)
                        .collect::<Result<_, _>>()?;
                }
                "--link" => options.link = link(next()?)?,
                "--threads" => {
                    options.threads = next()?.parse().context("--threads wants a number")?
                }
                "--json" => options.json = Some(next()?.into()),
                "--markdown" => options.markdown = Some(next()?.into()),
                "--page" => options.page = Some(next()?.into()),
                "--profile" => options.profile = true,
                "--callgrind" => options.callgrind = true,
                "--dmcproxy" => options.dmcproxy = next()?.into(),
                "--build" => options.build.clone_from(next()?),
                "--nutcracker" => options.nutcracker = Some(next()?.into()),
                "--envoy" => options.envoy = Some(next()?.into()),
                other => bail!("unknown option {other}\n{USAGE}\nloads: {}", loads::names()),
            }
        }
        options.settle(only.as_deref())?;
        Ok(options)
    }

    fn settle(&mut self, only: Option<&str>) -> anyhow::Result<()> {
        if self.rounds == 0 {
            self.rounds = if self.quick { 2 } else { FULL_ROUNDS };
        }
        ensure!(self.rounds <= 100, "--rounds: at most 100");
        self.whole = !self.quick
            && only.is_none()
            && self.rounds >= FULL_ROUNDS
            && self.targets == ALL_TARGETS
            && (self.link, self.threads) == (Link::Unix, 0)
            && self.build.starts_with(SHIPPED);
        ensure!(
            self.dmcproxy.is_file(),
            "{}: dmcproxy is not built; start this with `cargo xtask bench proxy`",
            self.dmcproxy.display()
        );
        let all = loads::all(self.quick);
        let Some(only) = only else {
            self.loads = all;
            return Ok(());
        };
        let wanted: Vec<&str> = only.split(',').collect();
        for name in &wanted {
            ensure!(
                *name == loads::IDLE || all.iter().any(|load| load.name == *name),
                "no load is called {name}: {}",
                loads::names()
            );
        }
        self.idle = wanted.contains(&loads::IDLE);
        self.loads = all;
        self.loads.retain(|load| wanted.contains(&load.name));
        Ok(())
    }
}

fn link(word: &str) -> anyhow::Result<Link> {
    match word {
        "unix" => Ok(Link::Unix),
        "tcp" => Ok(Link::Tcp),
        other => bail!("--link is unix or tcp, not {other}"),
    }
}
