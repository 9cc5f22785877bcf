//! What a node knows of the cluster's endpoints. Made by `cnm_exec` from the configuration store and from
//! what was heard of the nodes; replaced whole.

use model::NodeUid;
use std::net::{IpAddr, SocketAddr};

/// Suffix of a name that asks for the addresses within the cluster's own network.
pub const INTERNAL_SUFFIX: &str = "@internal";

/// The cluster as one node sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// The cluster's name: the zone. Empty: this node has no configuration yet.
    pub cluster_name: String,
    /// The cluster's id, from which run ids are made.
    pub cluster_id: String,
    /// Revision of the configuration.
    pub revision: u64,
    /// The node that answers.
    pub me: NodeUid,
    /// Whether most voters are heard.
    pub has_quorum: bool,
    /// Nodes, by uid.
    pub nodes: Vec<Node>,
    /// Databases that are served, by uid.
    pub endpoints: Vec<Endpoint>,
}

/// A node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its id.
    pub uid: NodeUid,
    /// The address that its sockets bind.
    pub address: IpAddr,
    /// Its address as seen from outside, if another.
    pub external: Option<IpAddr>,
    /// Whether it is heard, as far as this node knows.
    pub heard: bool,
}

/// The endpoint of a database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Id of the database.
    pub database: u64,
    /// Its name.
    pub name: String,
    /// Its port.
    pub port: u16,
    /// Nodes whose proxies should serve it, by uid.
    pub proxies: Vec<Proxy>,
}

/// A proxy that should serve an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proxy {
    /// Its node.
    pub node: NodeUid,
    /// Something speaks against it: it was not heard lately, or says that it does not listen. It is
    /// given out only when no other is left.
    pub doubtful: bool,
}

/// Where an endpoint may be found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The proxy's socket: what is connected to.
    pub socket: SocketAddr,
    /// The same as seen from outside the cluster's network.
    pub external: SocketAddr,
    /// As [`Proxy::doubtful`].
    pub doubtful: bool,
}

impl Place {
    /// The address for a client within the cluster's network, or outside of it.
    #[must_use]
    pub fn address(&self, internal: bool) -> SocketAddr {
        if internal { self.socket } else { self.external }
    }
}

impl View {
    /// A node.
    #[must_use]
    pub fn node(&self, uid: NodeUid) -> Option<&Node> {
        self.nodes.iter().find(|node| node.uid == uid)
    }

    /// The endpoint on a port.
    #[must_use]
    pub fn by_port(&self, port: u16) -> Option<&Endpoint> {
        self.endpoints.iter().find(|e| e.port == port)
    }

    /// The endpoint of a database's name, and whether the name asks for internal addresses.
    #[must_use]
    pub fn by_name(&self, name: &str) -> Option<(&Endpoint, bool)> {
        let find = |name: &str| self.endpoints.iter().find(|e| e.name == name);
        match name.strip_suffix(INTERNAL_SUFFIX) {
            Some(name) => find(name).map(|e| (e, true)),
            None => find(name).map(|e| (e, false)),
        }
    }

    /// Where an endpoint may be found, in the order in which it is given out: this node's own proxy,
    /// then the others by uid; those that something speaks against come last.
    #[must_use]
    pub fn places(&self, endpoint: &Endpoint) -> Vec<Place> {
        let mut proxies = endpoint.proxies.clone();
        proxies.sort_by_key(|proxy| (proxy.doubtful, proxy.node != self.me, proxy.node));
        let place = |proxy: Proxy| {
            let node = self.node(proxy.node)?;
            Some(Place {
                socket: SocketAddr::new(node.address, endpoint.port),
                external: SocketAddr::new(node.external.unwrap_or(node.address), endpoint.port),
                doubtful: proxy.doubtful,
            })
        };
        proxies.into_iter().filter_map(place).collect()
    }

    /// Forty letters that name a node: the cluster's id and the node's.
    #[must_use]
    pub fn node_run_id(&self, node: NodeUid) -> String {
        self.run_id(node.0)
    }

    /// The same for a database.
    #[must_use]
    pub fn database_run_id(&self, database: u64) -> String {
        self.run_id(database | 1 << 31)
    }

    fn run_id(&self, number: u64) -> String {
        let id: String = self
            .cluster_id
            .chars()
            .filter(char::is_ascii_hexdigit)
            .take(32)
            .collect();
        format!("{id:0<32}{:08x}", number & 0xffff_ffff)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Three nodes on 127.0.9.1 to .3, one database on all of them and one on the second.
    pub(crate) fn three_nodes(me: u64) -> View {
        let node = |uid: u64| Node {
            uid: NodeUid(uid),
            address: IpAddr::from([127, 0, 9, u8::try_from(uid).unwrap()]),
            external: (uid == 3).then(|| IpAddr::from([192, 0, 2, 3])),
            heard: true,
        };
        let proxy = |uid: u64| Proxy {
            node: NodeUid(uid),
            doubtful: false,
        };
        View {
            cluster_name: "Cluster.Example".to_owned(),
            cluster_id: "0123abcd-0000-4000-8000-000000000000".to_owned(),
            revision: 7,
            me: NodeUid(me),
            has_quorum: true,
            nodes: (1..=3).map(node).collect(),
            endpoints: vec![
                Endpoint {
                    database: 1,
                    name: "demo".to_owned(),
                    port: 12_000,
                    proxies: (1..=3).map(proxy).collect(),
                },
                Endpoint {
                    database: 2,
                    name: "single".to_owned(),
                    port: 12_001,
                    proxies: vec![proxy(2)],
                },
            ],
        }
    }

    fn sockets(view: &View, name: &str) -> Vec<String> {
        let (endpoint, _) = view.by_name(name).unwrap();
        let places = view.places(endpoint);
        places.iter().map(|p| p.socket.to_string()).collect()
    }

    #[test]
    fn the_node_that_is_asked_comes_first_then_by_uid() {
        let all = |order: [u8; 3]| order.map(|last| format!("127.0.9.{last}:12000"));
        assert_eq!(sockets(&three_nodes(1), "demo"), all([1, 2, 3]));
        assert_eq!(sockets(&three_nodes(3), "demo"), all([3, 1, 2]));
        assert_eq!(sockets(&three_nodes(1), "single"), ["127.0.9.2:12001"]);
    }

    #[test]
    fn a_doubtful_one_comes_last_even_on_the_node_that_is_asked() {
        let mut view = three_nodes(1);
        view.endpoints[0].proxies[0].doubtful = true;
        assert_eq!(
            sockets(&view, "demo"),
            ["127.0.9.2:12000", "127.0.9.3:12000", "127.0.9.1:12000"]
        );
    }

    #[test]
    fn names_with_and_without_internal() {
        let view = three_nodes(1);
        let (endpoint, internal) = view.by_name("demo@internal").unwrap();
        assert!(internal && endpoint.name == "demo");
        assert!(!view.by_name("demo").unwrap().1);
        for unknown in [
            "",
            "@internal",
            "Demo",
            "demo@external",
            "demo@internal@internal",
        ] {
            assert!(view.by_name(unknown).is_none(), "{unknown}");
        }
        let third = view.places(endpoint)[2];
        assert_eq!(third.address(true).to_string(), "127.0.9.3:12000");
        assert_eq!(third.address(false).to_string(), "192.0.2.3:12000");
    }

    #[test]
    fn run_ids_are_forty_letters_and_differ() {
        let view = three_nodes(1);
        let ids = [
            view.node_run_id(NodeUid(1)),
            view.node_run_id(NodeUid(2)),
            view.database_run_id(1),
        ];
        for id in &ids {
            assert_eq!(id.len(), 40);
            assert!(id.bytes().all(|b| b.is_ascii_hexdigit()));
        }
        assert!(ids[0] != ids[1] && ids[0] != ids[2]);
        assert_eq!(View::default().node_run_id(NodeUid(1)).len(), 40);
    }
}
