//! What is measured: a proxy with engines of its own, or an engine alone.

use super::client::Client;
use super::cluster;
use super::engine::Engine;
use super::node::{self, Setting};
use super::options::{Kind, Options};
use super::peers;
use super::processes::{self, Guarded, Used};
use anyhow::Context as _;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use testkit::addresses::Network;

const BEGIN: Duration = Duration::from_secs(30);
/// Port of an endpoint, and of a target's first engine.
const ENDPOINT: u16 = 12_000;
const FIRST_ENGINE: u16 = 20_000;

pub(crate) struct Target {
    pub(crate) kind: Kind,
    pub(crate) address: SocketAddr,
    // In this order: the proxy is ended before its engines.
    proxy: Option<Guarded>,
    engines: Vec<Engine>,
    /// Worker threads of a proxy.
    pub(crate) threads: Option<u32>,
    /// Length of the values and number of the keys that it was filled with.
    filled: (u32, usize),
}

/// Where targets live.
pub(crate) struct Place {
    pub(crate) network: Network,
    pub(crate) folder: tempfile::TempDir,
    /// How many targets were started: each has a folder of its own.
    pub(crate) started: std::cell::Cell<u32>,
}

impl Target {
    /// Starts it with so many engines, and checks that it works.
    pub(crate) fn start(
        kind: Kind,
        shards: u16,
        place: &Place,
        options: &Options,
        under: Option<&Command>,
    ) -> anyhow::Result<Self> {
        let ip = place.network.address(10 + kind as u8);
        let number = place.started.replace(place.started.get() + 1);
        // Short, since unix sockets lie below it.
        let folder = place.folder.path().join(number.to_string());
        Self::start_in(kind, shards, ip, &folder, options, under)
            .with_context(|| format!("{} (shards: {shards})", kind.name()))
    }

    fn start_in(
        kind: Kind,
        shards: u16,
        ip: IpAddr,
        folder: &Path,
        options: &Options,
        under: Option<&Command>,
    ) -> anyhow::Result<Self> {
        let shards = match kind {
            Kind::Direct | Kind::OursOneShard => 1,
            _ => shards,
        };
        let engines = (0..shards)
            .map(|number| {
                let address = SocketAddr::new(ip, FIRST_ENGINE + number);
                let folder = folder.join(format!("e{number}"));
                Engine::start(&folder, address, kind == Kind::Cluster)
            })
            .collect::<anyhow::Result<Vec<_>>>()?;
        let endpoint = SocketAddr::new(ip, ENDPOINT);
        let mut target = Self {
            kind,
            address: endpoint,
            proxy: None,
            threads: None,
            filled: (0, 0),
            engines,
        };
        match kind {
            Kind::Direct => {
                target.address = SocketAddr::new(ip, FIRST_ENGINE);
            }
            Kind::Cluster => {
                target.address = SocketAddr::new(ip, FIRST_ENGINE);
                cluster::join(&target.engines)?;
                return Ok(target);
            }
            Kind::Ours | Kind::OursOneShard => {
                let setting = Setting {
                    folder: &folder.join("node"),
                    endpoint,
                    engines: &target.engines,
                    link: options.link,
                    threads: options.threads,
                };
                let (process, threads) = node::start(&setting, &options.dmcproxy, under)?;
                target.proxy = Some(process);
                target.threads = Some(threads);
            }
            Kind::Twemproxy => {
                let path = options
                    .nutcracker
                    .as_deref()
                    .context("nutcracker is not installed")?;
                let folder = folder.join("twemproxy");
                let process =
                    peers::twemproxy(path, &folder, endpoint, &target.engines, options.link)?;
                target.proxy = Some(process);
                target.threads = Some(1);
            }
            Kind::Envoy => {
                let path = options.envoy.as_deref().context("envoy was not fetched")?;
                let folder = folder.join("envoy");
                let process = peers::envoy(path, &folder, endpoint, &target.engines, options.link)?;
                target.proxy = Some(process);
                target.threads = Some(peers::ENVOY_THREADS);
            }
        }
        target.check()?;
        Ok(target)
    }

    fn check(&mut self) -> anyhow::Result<()> {
        let address = self.address;
        testkit::wait::until("values that were set come back", BEGIN, || {
            if self.proxy.as_mut().is_some_and(Guarded::ended) {
                return Err("the proxy has ended".to_owned());
            }
            Client::connect(address)
                .and_then(|mut client| client.check())
                .map_err(|error| format!("{error:#}"))
        })
    }

    /// Sets every key of a load if that is not done, and reads some back. In a cluster the load generator has names of
    /// its own, for each engine others: they come with its SETs.
    pub(crate) fn fill(&mut self, keys: u32, bytes: usize) -> anyhow::Result<()> {
        if self.filled == (keys, bytes) || self.kind == Kind::Cluster {
            return Ok(());
        }
        let mut client = Client::connect(self.address)?;
        client.fill(keys, bytes)?;
        for number in [0, keys / 2, keys - 1] {
            let value = client.get(&super::client::key(number))?;
            anyhow::ensure!(
                value.is_some_and(|value| value.len() == bytes),
                "{}: a value that was set does not come back",
                self.kind.name()
            );
        }
        self.filled = (keys, bytes);
        Ok(())
    }

    pub(crate) fn proxy_pid(&self) -> Option<u32> {
        self.proxy.as_ref().map(Guarded::pid)
    }

    pub(crate) fn proxy_used(&self) -> Used {
        self.proxy_pid().map(Used::of).unwrap_or_default()
    }

    pub(crate) fn engines_cpu_ns(&self) -> u64 {
        self.engines
            .iter()
            .map(|engine| processes::cpu_ns(engine.pid()))
            .sum()
    }

    /// Lets proxy and engines use these processors alone.
    pub(crate) fn pin(&self, to: &rustix::thread::CpuSet) -> anyhow::Result<()> {
        for process in self.engines.iter().map(Engine::pid).chain(self.proxy_pid()) {
            processes::pin(Some(process), to)?;
        }
        Ok(())
    }

    /// Ends the proxy as an operator would, and waits for it.
    pub(crate) fn stop_proxy(&mut self, within: Duration) -> anyhow::Result<()> {
        let Some(proxy) = &mut self.proxy else {
            return Ok(());
        };
        if let Some(pid) = processes::pid(proxy.pid()) {
            rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        }
        testkit::wait::until("the proxy ends", within, || {
            if proxy.ended() {
                Ok(())
            } else {
                Err("it runs".to_owned())
            }
        })
    }
}
