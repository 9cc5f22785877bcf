use super::*;
use crate::finder::tests::with_free_port;
use crate::view::View;
use resp::request::encode;
use std::time::Instant;
use tokio::sync::watch;

struct Server {
    address: SocketAddr,
    view: watch::Sender<Arc<View>>,
    listeners: Vec<TcpListener>,
    port: u16,
}

async fn server() -> Server {
    let (view, finder, listeners) = with_free_port(1).await;
    let port = finder.view().endpoints[0].port;
    let listener = bind("127.0.9.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(serve(finder.clone(), listener, 8_001));
    tokio::spawn(follow(finder));
    Server {
        address,
        view,
        listeners,
        port,
    }
}

struct Client {
    stream: TcpStream,
    bytes: Vec<u8>,
}

impl Client {
    async fn of(server: &Server) -> Self {
        Self {
            stream: TcpStream::connect(server.address).await.unwrap(),
            bytes: Vec::new(),
        }
    }

    async fn send(&mut self, line: &str) {
        let mut bytes = Vec::new();
        let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        encode(words, &mut bytes);
        self.stream.write_all(&bytes).await.unwrap();
    }

    /// `None`: the server has closed the connection.
    async fn receive(&mut self) -> Option<Value> {
        loop {
            if let Ok((value, length)) = Value::decode(&self.bytes) {
                self.bytes.drain(..length);
                return Some(value);
            }
            let read = timeout(
                Duration::from_secs(10),
                self.stream.read_buf(&mut self.bytes),
            );
            if read.await.expect("an answer").unwrap_or(0) == 0 {
                return None;
            }
        }
    }

    async fn ask(&mut self, line: &str) -> Value {
        self.send(line).await;
        self.receive().await.expect("an answer")
    }
}

fn simple(text: &str) -> Value {
    Value::Simple(text.as_bytes().to_vec())
}

fn field(value: &Value, name: &str) -> String {
    let pairs = value.pairs();
    let found = pairs
        .iter()
        .find(|(key, _)| key.text() == Some(name.as_bytes()));
    String::from_utf8(found.expect(name).1.text().unwrap().to_vec()).unwrap()
}

fn items(value: Value) -> Vec<Value> {
    match value {
        Value::Array(items) | Value::Push(items) => items,
        other => panic!("no list: {other:?}"),
    }
}

fn is_error(value: &Value, begins: &str) -> bool {
    matches!(value, Value::Error(text) if text.starts_with(begins.as_bytes()))
}

#[tokio::test]
async fn names_are_looked_up() {
    let server = server().await;
    let mut client = Client::of(&server).await;
    let pair =
        |ip: &str, port: u16| Value::Array(vec![Value::bulk(ip), Value::bulk(&port.to_string())]);
    let ask = "SENTINEL get-master-addr-by-name";
    let here = pair("127.0.9.1", server.port);
    assert_eq!(client.ask(&format!("{ask} demo")).await, here);
    assert_eq!(client.ask(&format!("{ask} demo@internal")).await, here);
    // Its proxy does not listen.
    assert_eq!(client.ask(&format!("{ask} single")).await, Value::Null);
    assert_eq!(client.ask(&format!("{ask} other")).await, Value::Null);

    let masters = items(client.ask("sentinel MASTERS").await);
    let names: Vec<String> = masters.iter().map(|m| field(m, "name")).collect();
    assert_eq!(
        names,
        ["demo", "single", "demo@internal", "single@internal"]
    );
    assert_eq!(field(&masters[0], "flags"), "master");
    assert_eq!(field(&masters[0], "num-other-sentinels"), "2");
    assert_eq!(field(&masters[1], "flags"), "s_down,o_down,master");
    let one = client.ask("SENTINEL master demo").await;
    assert_eq!(field(&one, "port"), server.port.to_string());
    assert_eq!(field(&one, "runid").len(), 40);

    let others = items(client.ask("SENTINEL sentinels demo").await);
    let ips: Vec<String> = others.iter().map(|o| field(o, "ip")).collect();
    assert_eq!(ips, ["127.0.9.2", "192.0.2.3"]);
    assert_eq!(field(&others[0], "port"), "8001");
    let inside = items(client.ask("SENTINEL sentinels demo@internal").await);
    assert_eq!(field(&inside[1], "ip"), "127.0.9.3");
    for word in ["slaves", "replicas"] {
        let list = client.ask(&format!("SENTINEL {word} demo")).await;
        assert_eq!(list, Value::Array(Vec::new()));
    }
    for word in ["master", "sentinels", "slaves", "ckquorum"] {
        let no = client.ask(&format!("SENTINEL {word} other")).await;
        assert!(is_error(&no, "ERR No such master"), "{no:?}");
    }
    let quorum = client.ask("SENTINEL ckquorum demo").await;
    assert!(matches!(quorum, Value::Simple(text) if text.starts_with(b"OK 3")));
    assert_eq!(client.ask("SENTINEL myid").await.text().unwrap().len(), 40);
    assert!(is_error(&client.ask("SENTINEL failover demo").await, "ERR"));
}

#[tokio::test]
async fn what_clients_say_first() {
    let server = server().await;
    let mut client = Client::of(&server).await;
    assert_eq!(client.ask("PING").await, simple("PONG"));
    for line in [
        "CLIENT SETNAME me",
        "CLIENT SETINFO LIB-NAME x",
        "AUTH default secret",
    ] {
        assert_eq!(client.ask(line).await, simple("OK"), "{line}");
    }
    assert_eq!(client.ask("CLIENT GETNAME").await, Value::bulk("me"));
    assert!(matches!(client.ask("CLIENT ID").await, Value::Integer(_)));
    assert!(is_error(
        &client.ask("AUTH secret").await,
        "ERR AUTH <password> called"
    ));
    assert!(is_error(&client.ask("AUTH me secret").await, "WRONGPASS"));
    assert!(is_error(
        &client.ask("GET key").await,
        "ERR unknown command 'get'"
    ));
    assert!(is_error(&client.ask("HELLO 4").await, "NOPROTO"));
    let flat = client.ask("HELLO 2").await;
    assert_eq!(field(&flat, "mode"), "sentinel");
    assert!(matches!(flat, Value::Array(_)));
    let map = client.ask("HELLO 3 AUTH default x SETNAME you").await;
    assert!(matches!(map, Value::Map(_)));
    let role = items(client.ask("ROLE").await);
    assert_eq!(role[0], Value::bulk("sentinel"));
    let info = client.ask("INFO").await;
    let info = String::from_utf8(info.text().unwrap().to_vec()).unwrap();
    assert!(info.contains("redis_mode:sentinel"), "{info}");
    assert!(info.contains(&format!(
        "master0:name=demo,status=ok,address=127.0.9.1:{}",
        server.port
    )));
    assert_eq!(client.ask("QUIT").await, simple("OK"));
    assert_eq!(client.receive().await, None);
}

#[tokio::test]
async fn a_move_is_told_to_subscribers_of_both_versions() {
    let mut server = server().await;
    let mut old = Client::of(&server).await;
    let mut new = Client::of(&server).await;
    old.ask("SENTINEL get-master-addr-by-name demo").await;
    let told = old.ask("SUBSCRIBE +switch-master").await;
    assert_eq!(
        told,
        Value::Array(vec![
            Value::bulk("subscribe"),
            Value::bulk("+switch-master"),
            Value::Integer(1)
        ])
    );
    assert!(is_error(
        &old.ask("SENTINEL masters").await,
        "ERR Can't execute"
    ));
    assert_eq!(
        old.ask("PING").await,
        Value::Array(vec![Value::bulk("pong"), Value::bulk("")])
    );
    new.ask("HELLO 3").await;
    assert!(matches!(new.ask("PSUBSCRIBE *").await, Value::Push(_)));
    assert!(matches!(new.ask("SENTINEL masters").await, Value::Array(_)));

    // The first node's proxy dies. Nobody asks: the subscribers are told all the same.
    server.listeners.remove(0);
    let text = format!("demo 127.0.9.1 {0} 127.0.9.2 {0}", server.port);
    let message = items(old.receive().await.unwrap());
    assert_eq!(message[0], Value::bulk("message"));
    assert_eq!(message[2], Value::bulk(&text));
    // Of the database that was never there, news may come first.
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let message = items(new.receive().await.unwrap());
        assert_eq!(message[0], Value::bulk("pmessage"));
        if message[3] == Value::bulk(&text) {
            assert_eq!(message[2], Value::bulk("+switch-master"));
            break;
        }
        assert!(Instant::now() < deadline);
    }
    // The endpoint is moved by the cluster.
    server.view.send_modify(|view| {
        let mut other = (**view).clone();
        other.endpoints[0].proxies.retain(|p| p.node.0 == 3);
        *view = Arc::new(other);
    });
    // The internal name, of the first move, comes first.
    loop {
        let message = items(old.receive().await.unwrap());
        let text = String::from_utf8(message[2].text().unwrap().to_vec()).unwrap();
        if text == format!("demo 127.0.9.2 {0} 192.0.2.3 {0}", server.port) {
            break;
        }
        assert!(Instant::now() < deadline);
    }
}

#[tokio::test]
async fn pieces_inline_commands_and_many_at_once() {
    let server = server().await;
    let mut client = Client::of(&server).await;
    let mut bytes = Vec::new();
    encode([&b"PING"[..], b"x"], &mut bytes);
    for byte in &bytes {
        client.stream.write_all(&[*byte]).await.unwrap();
    }
    assert_eq!(client.receive().await, Some(Value::bulk("x")));
    client.stream.write_all(b"\r\nping\r\n").await.unwrap();
    assert_eq!(client.receive().await, Some(simple("PONG")));
    let many = bytes.repeat(3_000);
    let mut stream = std::mem::replace(&mut client, Client::of(&server).await).stream;
    let (mut read, mut write) = stream.split();
    let mut answers = Vec::new();
    let expected = b"$1\r\nx\r\n".len() * 3_000;
    tokio::join!(async { write.write_all(&many).await.unwrap() }, async {
        while answers.len() < expected {
            assert!(read.read_buf(&mut answers).await.unwrap() > 0);
        }
    });
}

#[tokio::test]
async fn hostile_bytes_close_their_connection_and_no_other() {
    let server = server().await;
    let mut good = Client::of(&server).await;
    let long = format!("*1\r\n${}\r\n{}", 1 << 20, "x".repeat(100_000));
    let many = format!("*1000\r\n{}", "$1\r\nx\r\n".repeat(1_000));
    let endless = "x".repeat(100_000);
    for bad in [
        "*1\r\n$-5\r\n",
        "*9999999999999\r\n",
        "*1\r\n+x\r\n",
        "*1\r\n$3\r\nabcd\r\n",
        "\"open\r\n",
        &long,
        &many,
        &endless,
    ] {
        let mut client = Client::of(&server).await;
        // The server may close before everything is written.
        let _ = client.stream.write_all(bad.as_bytes()).await;
        while let Some(answer) = client.receive().await {
            assert!(is_error(&answer, "ERR"), "{answer:?}");
        }
    }
    // Without an end: it stays, and harms nobody.
    let mut waits = Client::of(&server).await;
    waits
        .stream
        .write_all(b"*2147483647\r\n$1\r\n")
        .await
        .unwrap();
    assert_eq!(good.ask("PING").await, simple("PONG"));
}
