//! The cluster's zone: which names there are, and the records for them. No I/O: who is live is asked
//! first, by [`Wanted`].
//!
//! | name | records |
//! |---|---|
//! | `<cluster>` | SOA, NS, addresses of the nodes that are heard |
//! | `node<uid>.<cluster>` | the node's address |
//! | `redis-<port>.<cluster>` | the live proxies of the endpoint |
//! | `redis-<port>.internal.<cluster>` | the same, addresses within the cluster's own network |

use crate::view::{Node, Place, View};
use hickory_proto::op::{Edns, Message, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, NS, SOA};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use model::NodeUid;
use std::net::IpAddr;

/// How long an answer may be kept, seconds.
pub const TTL: u32 = 1;
/// Largest answer over UDP, bytes: what passes everywhere in one piece.
pub const UDP_MAX: u16 = 1_232;
/// Largest answer over UDP to one who does not say how much it takes.
const UDP_PLAIN: u16 = 512;
/// Label of internal names.
const INTERNAL: &[u8] = b"internal";

/// What a question is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// The zone itself.
    Zone,
    /// A node.
    Node(NodeUid),
    /// The endpoint on a port; `internal`: addresses within the cluster's network.
    Endpoint {
        /// Its port.
        port: u16,
        /// Whose addresses.
        internal: bool,
    },
    /// `internal.<cluster>`, below which there are names.
    Between,
    /// A name of the zone that does not exist.
    Nothing,
    /// Not ours.
    Elsewhere,
}

/// The zone's name; `None` before this node has a configuration.
#[must_use]
pub fn origin(view: &View) -> Option<Name> {
    let mut name = Name::from_ascii(&view.cluster_name).ok()?;
    name.set_fqdn(true);
    (!name.is_root()).then(|| name.to_lowercase())
}

/// What a name is.
#[must_use]
pub fn wanted(view: &View, name: &Name) -> Wanted {
    let Some(origin) = origin(view) else {
        return Wanted::Elsewhere;
    };
    let name = name.to_lowercase();
    if !origin.zone_of_case(&name) {
        return Wanted::Elsewhere;
    }
    let own = usize::from(name.num_labels()) - usize::from(origin.num_labels());
    let labels: Vec<&[u8]> = name.iter().take(own).collect();
    let found = match labels[..] {
        [] => Some(Wanted::Zone),
        [INTERNAL] => Some(Wanted::Between),
        [label] => node(view, label).or_else(|| endpoint(view, label, false)),
        [label, INTERNAL] => endpoint(view, label, true),
        _ => None,
    };
    found.unwrap_or(Wanted::Nothing)
}

/// The number behind a prefix, as we would write it: no sign, no leading zero.
fn number<T: std::str::FromStr + ToString>(label: &[u8], prefix: &[u8]) -> Option<T> {
    let text = std::str::from_utf8(label.strip_prefix(prefix)?).ok()?;
    let number: T = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}

fn node(view: &View, label: &[u8]) -> Option<Wanted> {
    let uid = NodeUid(number(label, b"node")?);
    view.node(uid).map(|node| Wanted::Node(node.uid))
}

fn endpoint(view: &View, label: &[u8], internal: bool) -> Option<Wanted> {
    let port = number(label, b"redis-")?;
    view.by_port(port)
        .map(|_| Wanted::Endpoint { port, internal })
}

/// What a message asks: its one question.
///
/// # Errors
/// The code of the answer that says why not.
pub fn question(message: &Message) -> Result<&Query, ResponseCode> {
    if message.metadata.op_code != OpCode::Query {
        return Err(ResponseCode::NotImp);
    }
    let [query] = &message.queries[..] else {
        return Err(ResponseCode::FormErr);
    };
    if message.version() > 0 {
        return Err(ResponseCode::BADVERS);
    }
    let transfer = matches!(
        query.query_type(),
        RecordType::AXFR | RecordType::IXFR | RecordType::OPT
    );
    if transfer || query.query_class() != DNSClass::IN {
        return Err(ResponseCode::Refused);
    }
    Ok(query)
}

/// An empty answer to a message.
#[must_use]
pub fn reply(message: &Message, code: ResponseCode) -> Message {
    let mut reply = Message::response(message.metadata.id, message.metadata.op_code);
    reply.metadata.recursion_desired = message.metadata.recursion_desired;
    reply.metadata.response_code = code;
    reply.add_queries(message.queries.iter().take(1).cloned());
    if message.edns.is_some() {
        let mut edns = Edns::new();
        edns.set_max_payload(UDP_MAX);
        edns.set_rcode_high(code.high());
        reply.set_edns(edns);
    }
    reply
}

/// How many bytes over UDP who sent a message takes.
#[must_use]
pub fn payload(message: &Message) -> u16 {
    match &message.edns {
        Some(edns) => edns.max_payload().clamp(UDP_PLAIN, UDP_MAX),
        None => UDP_PLAIN,
    }
}

/// The answer to a question. `live`: where the endpoint that is [`wanted`] is now, empty for others.
#[must_use]
pub fn answer(view: &View, message: &Message, query: &Query, live: &[Place]) -> Message {
    let wanted = wanted(view, query.name());
    let Some(origin) = origin(view).filter(|_| wanted != Wanted::Elsewhere) else {
        return reply(message, ResponseCode::Refused);
    };
    let code = match wanted {
        Wanted::Nothing => ResponseCode::NXDomain,
        _ => ResponseCode::NoError,
    };
    let mut reply = reply(message, code);
    reply.metadata.authoritative = true;
    let addresses: Vec<IpAddr> = match wanted {
        Wanted::Zone => heard(view).map(seen).collect(),
        Wanted::Node(uid) => view.node(uid).map(seen).into_iter().collect(),
        Wanted::Endpoint { internal, .. } => live
            .iter()
            .map(|place| place.address(internal).ip())
            .collect(),
        _ => Vec::new(),
    };
    let name = query.name();
    let asked = |kind| query.query_type() == kind || query.query_type() == RecordType::ANY;
    for address in addresses {
        let record = address_record(name.clone(), address);
        if asked(record.record_type()) {
            reply.add_answer(record);
        }
    }
    if wanted == Wanted::Zone {
        if asked(RecordType::SOA) {
            reply.add_answer(soa(view, &origin));
        }
        if asked(RecordType::NS) {
            for (server, address) in servers(view, &origin) {
                let record = Record::from_rdata(name.clone(), TTL, RData::NS(NS(server.clone())));
                reply.add_answer(record);
                reply.add_additional(address_record(server, address));
            }
        }
    }
    if reply.answers.is_empty() {
        // Who keeps the answer that there is nothing keeps it for as long as this record says.
        reply.add_authority(soa(view, &origin));
    }
    reply
}

fn heard(view: &View) -> impl Iterator<Item = &Node> {
    let any = view.nodes.iter().any(|node| node.heard);
    view.nodes
        .iter()
        .filter(move |node| node.heard || !any || node.uid == view.me)
}

fn seen(node: &Node) -> IpAddr {
    node.external.unwrap_or(node.address)
}

/// Name servers: every node; those that are heard.
fn servers(view: &View, origin: &Name) -> Vec<(Name, IpAddr)> {
    heard(view)
        .filter_map(|node| Some((server(node.uid, origin)?, seen(node))))
        .collect()
}

fn server(uid: NodeUid, origin: &Name) -> Option<Name> {
    origin.prepend_label(format!("node{uid}")).ok()
}

fn address_record(name: Name, address: IpAddr) -> Record {
    let data = match address {
        IpAddr::V4(ip) => RData::A(A(ip)),
        IpAddr::V6(ip) => RData::AAAA(AAAA(ip)),
    };
    Record::from_rdata(name, TTL, data)
}

fn soa(view: &View, origin: &Name) -> Record {
    let primary = server(view.me, origin).unwrap_or_else(|| origin.clone());
    let mailbox = origin
        .prepend_label("hostmaster")
        .unwrap_or_else(|_| origin.clone());
    // Serial numbers wrap.
    let serial = (view.revision & u64::from(u32::MAX)) as u32;
    let seconds = i32::try_from(TTL).unwrap_or(1);
    let soa = SOA::new(primary, mailbox, serial, 60, seconds, 3_600, TTL);
    Record::from_rdata(origin.clone(), TTL, RData::SOA(soa))
}
