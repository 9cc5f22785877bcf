//! Where is the database now? Asked of every node, by DNS and by the Sentinel commands.

use crate::story::{served, set};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;
use testkit::cluster::{Cluster, DAEMONS, Node};
use testkit::wait;

const PATIENCE: Duration = Duration::from_secs(20);

/// The addresses that a node's name service tells for a name.
fn resolve(node: &Node, name: &str) -> Result<Vec<IpAddr>, String> {
    let mut question = vec![0x12, 0x34, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        question.push(u8::try_from(label.len()).unwrap());
        question.extend_from_slice(label.as_bytes());
    }
    question.extend_from_slice(&[0, 0, 1, 0, 1]);
    let work = || {
        let socket = UdpSocket::bind((node.config.address, 0))?;
        socket.set_read_timeout(Some(Duration::from_secs(2)))?;
        socket.send_to(&question, node.config.dns_address())?;
        let mut answer = vec![0; 4_096];
        let length = socket.recv(&mut answer)?;
        answer.truncate(length);
        Ok::<_, std::io::Error>(answer)
    };
    let answer = work().map_err(|e| format!("{}: {e}", node.config.dns_address()))?;
    let count = usize::from(u16::from_be_bytes([answer[6], answer[7]]));
    // Each answer: a pointer to the name, type, class, time, length 4, address.
    let records = answer[question.len()..].chunks(16).take(count);
    let ip = |record: &[u8]| IpAddr::from(<[u8; 4]>::try_from(&record[12..16]).unwrap());
    Ok(records.map(ip).collect())
}

fn sentinel(node: &Node) -> Result<redis::Connection, String> {
    let address = node.config.discovery_address();
    let client = redis::Client::open(format!("redis://{address}/")).unwrap();
    let connection = client
        .get_connection_with_timeout(Duration::from_secs(2))
        .map_err(|e| format!("{address}: {e}"))?;
    connection.set_read_timeout(Some(PATIENCE)).unwrap();
    Ok(connection)
}

/// What a node's Sentinel commands tell for a name.
fn look_up(node: &Node, name: &str) -> Result<Option<SocketAddr>, String> {
    let found: Option<(Ipv4Addr, u16)> = redis::cmd("SENTINEL")
        .arg("get-master-addr-by-name")
        .arg(name)
        .query::<Option<(String, u16)>>(&mut sentinel(node)?)
        .map_err(|e| e.to_string())?
        .map(|(ip, port)| (ip.parse().unwrap(), port));
    Ok(found.map(SocketAddr::from))
}

fn addresses(cluster: &Cluster, nodes: &[usize]) -> Vec<IpAddr> {
    let address = |index: &usize| cluster.nodes[*index].config.address;
    nodes.iter().map(address).collect()
}

/// Waits until a node tells exactly these nodes' addresses, in this order, by both ways.
pub(crate) fn tells(cluster: &Cluster, asked: usize, name: &str, port: u16, nodes: &[usize]) {
    let wanted = addresses(cluster, nodes);
    let first = wanted.first().map(|ip| SocketAddr::new(*ip, port));
    wait::until("the answer", PATIENCE, || {
        let node = &cluster.nodes[asked];
        let by_dns = resolve(node, &format!("redis-{port}.test.local"))?;
        for ip in &by_dns {
            TcpStream::connect((*ip, port)).map_err(|e| format!("{ip} is given out: {e}"))?;
        }
        let by_name = look_up(node, name)?;
        if by_dns == wanted && by_name == first {
            return Ok(());
        }
        Err(format!("node {}: {by_dns:?} {by_name:?}", asked + 1))
    })
    .unwrap();
}

fn create(cluster: &Cluster, name: &str, port: &str, policy: &str) {
    let words = [
        name,
        "memory_size",
        "64MB",
        "port",
        port,
        "proxy_policy",
        policy,
    ];
    cluster.create_db(&words).unwrap();
}

fn lose(cluster: &mut Cluster, node: usize) {
    for daemon in DAEMONS {
        cluster.nodes[node].kill(daemon).unwrap();
    }
    // The engines and the proxy's server.
    cluster.nodes[node].stop();
}

#[test]
fn the_addresses_of_a_lost_node_are_told_no_more() {
    let mut cluster = Cluster::start(3).unwrap();
    create(&cluster, "demo", "12000", "all-nodes");
    // The node that is asked comes first, the others by uid.
    tells(&cluster, 0, "demo", 12000, &[0, 1, 2]);
    tells(&cluster, 2, "demo", 12000, &[2, 0, 1]);
    tells(&cluster, 1, "demo@internal", 12000, &[1, 0, 2]);

    lose(&mut cluster, 2);
    tells(&cluster, 0, "demo", 12000, &[0, 1]);
    tells(&cluster, 1, "demo", 12000, &[1, 0]);
    // No quorum any more: the last node answers what it knows, and of that what works.
    lose(&mut cluster, 1);
    tells(&cluster, 0, "demo", 12000, &[0]);
    let quorum: redis::RedisResult<String> = wait::until("no quorum", PATIENCE, || {
        let answer = redis::cmd("SENTINEL")
            .arg("ckquorum")
            .arg("demo")
            .query::<String>(&mut sentinel(&cluster.nodes[0])?);
        match answer {
            Ok(text) => Err(text),
            error => Ok(error),
        }
    })
    .unwrap();
    assert!(quorum.unwrap_err().to_string().contains("NOQUORUM"));
    // They come back by themselves.
    cluster.nodes[1].start().unwrap();
    cluster.nodes[2].start().unwrap();
    tells(&cluster, 0, "demo", 12000, &[0, 1, 2]);
}

#[test]
fn an_endpoint_that_moves_is_told_to_subscribers_at_every_node() {
    let cluster = Cluster::start(3).unwrap();
    create(&cluster, "one", "12001", "single");
    let proxies = |node: usize| resolve(&cluster.nodes[node], "redis-12001.test.local");
    let from = wait::until("one address", PATIENCE, || match &proxies(0)?[..] {
        [ip] => Ok(cluster.nodes.iter().position(|n| n.config.address == *ip)),
        other => Err(format!("{other:?}")),
    })
    .unwrap()
    .unwrap();
    let to = (from + 1) % 3;
    for node in 0..3 {
        tells(&cluster, node, "one", 12001, &[from]);
    }
    set(&mut served(&cluster, from, 12001), "key", "value");
    let mut listening: Vec<redis::Connection> = cluster
        .nodes
        .iter()
        .map(|node| sentinel(node).unwrap())
        .collect();
    let mut listening: Vec<redis::PubSub<'_>> = listening
        .iter_mut()
        .map(|connection| {
            let mut pubsub = connection.as_pubsub();
            pubsub.subscribe("+switch-master").unwrap();
            pubsub
        })
        .collect();

    let target = (to + 1).to_string();
    cluster.nodes[0]
        .rladmin_until(&["migrate", "db", "one", "all_shards", "target_node", &target])
        .unwrap();
    for pubsub in &mut listening {
        let message = pubsub.get_message().unwrap();
        let text: String = message.get_payload().unwrap();
        let ips = addresses(&cluster, &[from, to]);
        assert_eq!(text, format!("one {} 12001 {} 12001", ips[0], ips[1]));
    }
    drop(listening);
    for node in 0..3 {
        tells(&cluster, node, "one", 12001, &[to]);
    }
    let no = resolve(&cluster.nodes[0], "redis-12999.test.local").unwrap();
    assert!(no.is_empty() && look_up(&cluster.nodes[0], "none").unwrap().is_none());
}
