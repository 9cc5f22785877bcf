//! Network namespaces, one a node, joined by a bridge: so that the way between two nodes can be cut
//! while clients still reach both. Needs root. Cut is what a node sends to another one, by a route that
//! drops it; nothing but this network is touched.

use anyhow::{Context as _, ensure};
use std::net::{IpAddr, Ipv4Addr};
use std::process::{Command, Stdio};

/// Namespaces of one cluster; gone when dropped.
#[derive(Debug)]
pub struct Apart {
    /// Second and third number of the addresses.
    net: (u8, u8),
    count: u8,
    cuts: Vec<(u8, u8)>,
}

impl Apart {
    /// Makes namespaces for nodes 1 to `count`; `net` is nobody else's.
    ///
    /// # Errors
    /// Without root, or when the kernel has no namespaces or bridges.
    pub fn make(net: (u8, u8), count: u8) -> anyhow::Result<Self> {
        ensure!(
            rustix::process::geteuid().is_root(),
            "network namespaces need root"
        );
        let apart = Self {
            net,
            count,
            cuts: Vec::new(),
        };
        // What an earlier run left when it was killed; the lock says that it is nobody's now.
        apart.remove();
        let bridge = apart.bridge();
        ip(&["link", "add", &bridge, "type", "bridge"])?;
        ip(&[
            "addr",
            "add",
            &format!("10.{}.{}.1/24", net.0, net.1),
            "dev",
            &bridge,
        ])?;
        ip(&["link", "set", &bridge, "up"])?;
        for node in 1..=count {
            let (name, outer) = (apart.namespace(node), apart.outer(node));
            let address = format!("{}/24", apart.address(node));
            ip(&["netns", "add", &name])?;
            ip(&[
                "link", "add", &outer, "type", "veth", "peer", "name", "eth0", "netns", &name,
            ])?;
            ip(&["link", "set", &outer, "master", &bridge, "up"])?;
            ip(&["-n", &name, "link", "set", "lo", "up"])?;
            ip(&["-n", &name, "addr", "add", &address, "dev", "eth0"])?;
            ip(&["-n", &name, "link", "set", "eth0", "up"])?;
        }
        Ok(apart)
    }

    fn bridge(&self) -> String {
        format!("msb{}-{}", self.net.0, self.net.1)
    }

    fn outer(&self, node: u8) -> String {
        format!("msv{}-{}-{node}", self.net.0, self.net.1)
    }

    /// The namespace of a node, counted from 1.
    #[must_use]
    pub fn namespace(&self, node: u8) -> String {
        format!("mst{}-{}-{node}", self.net.0, self.net.1)
    }

    /// The address of a node, counted from 1.
    #[must_use]
    pub fn address(&self, node: u8) -> IpAddr {
        IpAddr::V4(Ipv4Addr::new(10, self.net.0, self.net.1, 10 + node))
    }

    /// Drops what one node sends to another one, until [`heal`](Self::heal).
    ///
    /// # Errors
    /// When the route cannot be set.
    pub fn cut(&mut self, from: u8, to: u8) -> anyhow::Result<()> {
        if !self.cuts.contains(&(from, to)) {
            self.route("add", from, to)?;
            self.cuts.push((from, to));
        }
        Ok(())
    }

    /// Takes all cuts away.
    ///
    /// # Errors
    /// When a route cannot be taken away.
    pub fn heal(&mut self) -> anyhow::Result<()> {
        for (from, to) in std::mem::take(&mut self.cuts) {
            self.route("del", from, to)?;
        }
        Ok(())
    }

    fn route(&self, verb: &str, from: u8, to: u8) -> anyhow::Result<()> {
        let to = format!("{}/32", self.address(to));
        ip(&["-n", &self.namespace(from), "route", verb, "blackhole", &to])
    }

    fn remove(&self) {
        for node in 1..=self.count {
            let _ = ip(&["link", "del", &self.outer(node)]);
            let _ = ip(&["netns", "del", &self.namespace(node)]);
        }
        let _ = ip(&["link", "del", &self.bridge()]);
    }
}

impl Drop for Apart {
    fn drop(&mut self) {
        self.remove();
    }
}

fn ip(words: &[&str]) -> anyhow::Result<()> {
    let output = Command::new("ip")
        .args(words)
        .stdin(Stdio::null())
        .output()
        .context("run `ip` (Debian: iproute2)")?;
    ensure!(
        output.status.success(),
        "ip {}: {}",
        words.join(" "),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}
