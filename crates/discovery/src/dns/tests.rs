use super::*;
use crate::finder::tests::with_free_port;
use crate::view::View;
use hickory_proto::op::{Edns, Query};
use hickory_proto::rr::{DNSClass, Name, RData, RecordType};
use tokio::sync::watch;

/// A name server, its view, and what listens for its first endpoint.
struct Server {
    address: SocketAddr,
    view: watch::Sender<Arc<View>>,
    listeners: Vec<TcpListener>,
    port: u16,
}

async fn server() -> Server {
    let (view, finder, listeners) = with_free_port(1).await;
    let port = finder.view().endpoints[0].port;
    let sockets = Sockets::bind("127.0.9.1:0".parse().unwrap()).await.unwrap();
    let address = sockets.address().unwrap();
    tokio::spawn(serve(finder, sockets));
    Server {
        address,
        view,
        listeners,
        port,
    }
}

fn ask(name: &str, kind: RecordType) -> Message {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message
}

async fn udp(server: &Server, bytes: &[u8]) -> Option<Vec<u8>> {
    let socket = UdpSocket::bind("127.0.9.8:0").await.unwrap();
    socket.send_to(bytes, server.address).await.unwrap();
    let mut answer = vec![0; 65_535];
    let (length, _) = timeout(Duration::from_secs(5), socket.recv_from(&mut answer))
        .await
        .ok()?
        .unwrap();
    answer.truncate(length);
    Some(answer)
}

async fn tcp(server: &Server, bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server.address).await?;
    let length = u16::try_from(bytes.len()).unwrap();
    stream.write_all(&length.to_be_bytes()).await?;
    stream.write_all(bytes).await?;
    let length = usize::from(stream.read_u16().await?);
    let mut answer = vec![0; length];
    stream.read_exact(&mut answer).await?;
    Ok(answer)
}

async fn answered(server: &Server, message: &Message) -> Message {
    let bytes = message.to_vec().unwrap();
    let answer = udp(server, &bytes).await.expect("an answer over UDP");
    let answer = Message::from_vec(&answer).unwrap();
    assert_eq!(answer.metadata.id, message.metadata.id);
    assert_eq!(answer.metadata.message_type, MessageType::Response);
    assert!(!answer.metadata.recursion_available);
    let over_tcp = Message::from_vec(&tcp(server, &bytes).await.unwrap()).unwrap();
    // Where it is may have changed in between; what kind of an answer it is has not.
    assert_eq!(answer.metadata, over_tcp.metadata);
    assert_eq!(answer.edns, over_tcp.edns);
    answer
}

fn addresses(message: &Message) -> Vec<String> {
    let ip = |data: &RData| match data {
        RData::A(a) => Some(a.0.to_string()),
        _ => None,
    };
    message.answers.iter().filter_map(|r| ip(&r.data)).collect()
}

#[tokio::test]
async fn an_endpoint_has_the_addresses_of_its_live_proxies() {
    let mut server = server().await;
    let name = format!("redis-{}.cluster.example.", server.port);
    let answer = answered(&server, &ask(&name, RecordType::A)).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::NoError);
    assert!(answer.metadata.authoritative && answer.metadata.recursion_desired);
    // The third node has an address of its own for clients from outside.
    assert_eq!(addresses(&answer), ["127.0.9.1", "127.0.9.2", "192.0.2.3"]);
    assert!(answer.answers.iter().all(|record| record.ttl == 1));

    let inside = format!("REDIS-{}.Internal.CLUSTER.example.", server.port);
    let answer = answered(&server, &ask(&inside, RecordType::A)).await;
    assert_eq!(addresses(&answer), ["127.0.9.1", "127.0.9.2", "127.0.9.3"]);
    assert_eq!(answer.queries[0].name().to_string(), inside);

    server.listeners.remove(0);
    let deadline = Instant::now() + Duration::from_secs(10);
    while addresses(&answered(&server, &ask(&name, RecordType::A)).await).len() != 2 {
        assert!(
            Instant::now() < deadline,
            "a dead proxy's address is given out"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // Nowhere at all: the name exists, without addresses.
    server.listeners.clear();
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let answer = answered(&server, &ask(&name, RecordType::A)).await;
        assert_eq!(answer.metadata.response_code, ResponseCode::NoError);
        if addresses(&answer).is_empty() {
            assert_eq!(answer.authorities[0].record_type(), RecordType::SOA);
            break;
        }
        assert!(Instant::now() < deadline, "dead addresses are given out");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn the_zone_and_its_nodes() {
    let server = server().await;
    let zone = "cluster.example.";
    let soa = answered(&server, &ask(zone, RecordType::SOA)).await;
    assert!(matches!(&soa.answers[0].data, RData::SOA(soa) if soa.serial == 7));
    let ns = answered(&server, &ask(zone, RecordType::NS)).await;
    assert_eq!((ns.answers.len(), ns.additionals.len()), (3, 3));
    let a = answered(&server, &ask("node2.cluster.example.", RecordType::A)).await;
    assert_eq!(addresses(&a), ["127.0.9.2"]);
    server.view.send_modify(|view| {
        let mut other = (**view).clone();
        other.nodes[1].heard = false;
        *view = Arc::new(other);
    });
    let a = answered(&server, &ask(zone, RecordType::A)).await;
    assert_eq!(addresses(&a), ["127.0.9.1", "192.0.2.3"]);
}

#[tokio::test]
async fn what_is_not_there_is_said_to_be_so() {
    let server = server().await;
    let endpoint = format!("redis-{}.cluster.example.", server.port);
    for (name, kind, code) in [
        (
            "redis-9.cluster.example.",
            RecordType::A,
            ResponseCode::NXDomain,
        ),
        (
            "redis-012.cluster.example.",
            RecordType::A,
            ResponseCode::NXDomain,
        ),
        (
            "node9.cluster.example.",
            RecordType::A,
            ResponseCode::NXDomain,
        ),
        (
            "a.b.c.cluster.example.",
            RecordType::A,
            ResponseCode::NXDomain,
        ),
        (
            "internal.cluster.example.",
            RecordType::A,
            ResponseCode::NoError,
        ),
        (&endpoint, RecordType::AAAA, ResponseCode::NoError),
        (&endpoint, RecordType::TXT, ResponseCode::NoError),
    ] {
        let answer = answered(&server, &ask(name, kind)).await;
        assert_eq!(answer.metadata.response_code, code, "{name}");
        assert!(answer.answers.is_empty() && answer.metadata.authoritative);
        assert_eq!(
            answer.authorities[0].record_type(),
            RecordType::SOA,
            "{name}"
        );
    }
    for name in ["example.", ".", "example.com.", "xcluster.example."] {
        let answer = answered(&server, &ask(name, RecordType::A)).await;
        assert_eq!(
            answer.metadata.response_code,
            ResponseCode::Refused,
            "{name}"
        );
        assert!(!answer.metadata.authoritative);
    }
}

#[tokio::test]
async fn what_is_no_plain_question_is_refused() {
    let server = server().await;
    let answer = answered(&server, &ask("cluster.example.", RecordType::AXFR)).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::Refused);
    let mut chaos = ask("cluster.example.", RecordType::TXT);
    chaos.queries[0].set_query_class(DNSClass::CH);
    let answer = answered(&server, &chaos).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::Refused);
    let mut update = ask("cluster.example.", RecordType::SOA);
    update.metadata.op_code = OpCode::Update;
    let answer = answered(&server, &update).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::NotImp);
    let mut two = ask("cluster.example.", RecordType::A);
    two.add_query(two.queries[0].clone());
    let answer = answered(&server, &two).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::FormErr);
    let mut newer = ask("cluster.example.", RecordType::A);
    newer
        .set_edns(Edns::new())
        .edns
        .as_mut()
        .unwrap()
        .set_version(1);
    let answer = answered(&server, &newer).await;
    // The number has two names.
    let code = |code: ResponseCode| u16::from(code);
    assert_eq!(
        code(answer.metadata.response_code),
        code(ResponseCode::BADVERS)
    );
}

#[tokio::test]
async fn before_the_configuration_has_arrived_everything_is_refused() {
    let server = server().await;
    server.view.send_replace(Arc::default());
    let answer = answered(&server, &ask("cluster.example.", RecordType::A)).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::Refused);
}

#[tokio::test]
async fn an_answer_that_is_too_large_is_cut_and_whole_over_tcp() {
    let server = server().await;
    server.view.send_modify(|view| {
        let mut other = (**view).clone();
        for uid in 4..=200 {
            let mut node = other.nodes[0].clone();
            node.uid = model::NodeUid(uid);
            node.address = IpAddr::from([127, 0, 8, u8::try_from(uid).unwrap()]);
            other.nodes.push(node);
        }
        *view = Arc::new(other);
    });
    let mut message = ask("cluster.example.", RecordType::A);
    for sized in [false, true] {
        if sized {
            let mut edns = Edns::new();
            edns.set_max_payload(4_096);
            message.set_edns(edns);
        }
        let bytes = message.to_vec().unwrap();
        let cut = udp(&server, &bytes).await.unwrap();
        assert!(cut.len() <= usize::from(zone::UDP_MAX));
        let cut = Message::from_vec(&cut).unwrap();
        assert!(cut.metadata.truncation && cut.answers.is_empty());
        let whole = Message::from_vec(&tcp(&server, &bytes).await.unwrap()).unwrap();
        assert_eq!(whole.answers.len(), 200);
        assert!(!whole.metadata.truncation);
    }
}

#[tokio::test]
async fn bytes_that_are_no_question_do_no_harm() {
    let server = server().await;
    let good = ask("cluster.example.", RecordType::A).to_vec().unwrap();
    // Cut everywhere, every byte flipped, and noise.
    let mut bad: Vec<Vec<u8>> = (0..good.len()).map(|end| good[..end].to_vec()).collect();
    for at in 2..good.len() {
        for bit in 0..8 {
            let mut other = good.clone();
            other[at] ^= 1 << bit;
            bad.push(other);
        }
    }
    let mut noise: u32 = 1;
    for length in 0..200 {
        let byte = |_| {
            noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            noise.to_be_bytes()[0]
        };
        bad.push((0..length).map(byte).collect());
    }
    // A name that points to itself.
    let mut around = good[..HEADER].to_vec();
    around.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1]);
    bad.push(around);
    bad.push(vec![0xff; 3_000]);
    let socket = UdpSocket::bind("127.0.9.8:0").await.unwrap();
    for (index, bytes) in bad.iter().enumerate() {
        socket.send_to(bytes, server.address).await.unwrap();
        if let Ok(mut stream) = TcpStream::connect(server.address).await
            && index % 16 == 0
        {
            // The length lies about what follows.
            let _ = stream.write_all(&[0xff, 0xff]).await;
            let _ = stream.write_all(bytes).await;
        }
    }
    let header_only = udp(&server, &good[..HEADER]).await.unwrap();
    let answer = Message::from_vec(&header_only).unwrap();
    assert_eq!(answer.metadata.response_code, ResponseCode::FormErr);
    let mut an_answer = good.clone();
    an_answer[2] |= 0x80;
    assert_eq!(
        tcp(&server, &an_answer).await.unwrap_err().kind(),
        io::ErrorKind::UnexpectedEof
    );
    let answer = answered(&server, &ask("cluster.example.", RecordType::A)).await;
    assert_eq!(addresses(&answer).len(), 3);
}

#[test]
fn one_address_cannot_ask_without_end_nor_take_anothers_share() {
    let mut rates = Rates::default();
    let start = Instant::now();
    let ip = |last: u8| IpAddr::from([10, 0, 0, last]);
    let allowed = (0..10 * RATE)
        .filter(|_| rates.allows(ip(1), start))
        .count();
    assert_eq!(allowed, RATE as usize);
    assert!(rates.allows(ip(2), start));
    let later = start + Duration::from_millis(500);
    let allowed = (0..10 * RATE)
        .filter(|_| rates.allows(ip(1), later))
        .count();
    assert_eq!(allowed, RATE as usize / 2);
    for number in 0..100_000_u32 {
        let [_, a, b, c] = number.to_be_bytes();
        rates.allows(IpAddr::from([11, a, b, c]), later);
    }
    assert!(rates.sources.len() <= SOURCES_MAX);
}
