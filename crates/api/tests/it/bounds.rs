//! What is too much, cut short, or no HTTP at all.

use crate::fixture::{self, PASSWORD};
use crate::http::{Trust, basic, connect, request, send};
use crate::served::{PATIENCE, Served};
use hyper::Method;
use model::limits::BODY_MAX;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

/// What comes back until the server closes.
async fn answer(mut stream: impl AsyncReadExt + AsyncWriteExt + Unpin, sent: &str) -> String {
    stream.write_all(sent.as_bytes()).await.unwrap();
    all_of(stream, sent).await
}

/// The same for a caller that says no more after what it sent.
async fn answer_to_the_end(
    mut stream: impl AsyncReadExt + AsyncWriteExt + Unpin,
    sent: &str,
) -> String {
    stream.write_all(sent.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    all_of(stream, sent).await
}

async fn all_of(mut stream: impl AsyncReadExt + Unpin, sent: &str) -> String {
    let mut text = Vec::new();
    // A connection that is closed without more ado has answered enough.
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut text)).await;
    assert!(read.is_ok(), "neither answered nor closed: {sent:.60}");
    String::from_utf8_lossy(&text).into_owned()
}

#[tokio::test]
async fn a_body_that_is_too_large() {
    let served = Served::start(Some(fixture::view())).await;
    let body = format!(r#"{{"name":"{}"}}"#, "x".repeat(BODY_MAX));
    let (status, said) = served.post("/v1/bdbs", &body).await;
    assert_eq!(
        (status, &said["error_code"]),
        (413, &json!("body_too_large"))
    );

    let address = served.config.https_address();
    let admin = basic("admin@example.com", PASSWORD);
    let reply = send(
        address,
        request("POST", address, "/v1/bdbs", Some(&admin), &body),
    )
    .await;
    assert_eq!(reply.status, 413);

    // Without a length: in pieces.
    let stream = UnixStream::connect(served.config.http_socket())
        .await
        .unwrap();
    let piece = format!("{:x}\r\n{}\r\n", 1 << 18, "x".repeat(1 << 18));
    let sent = format!(
        "POST /v1/bdbs HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\
         connection: close\r\n\r\n{}0\r\n\r\n",
        piece.repeat(5)
    );
    assert!(answer(stream, &sent).await.starts_with("HTTP/1.1 413"));

    // A caller that asks first sends nothing.
    let stream = UnixStream::connect(served.config.http_socket())
        .await
        .unwrap();
    let head = format!(
        "POST /v1/bdbs HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\n\
         connection: close\r\ncontent-length: {}\r\n\r\n",
        BODY_MAX + 1
    );
    assert!(answer(stream, &head).await.starts_with("HTTP/1.1 413"));

    // Just at the bound it is read, and refused for what it says.
    let room = BODY_MAX - r#"{"name":""}"#.len();
    let body = format!(r#"{{"name":"{}"}}"#, "x".repeat(room));
    assert_eq!(body.len(), BODY_MAX);
    assert_eq!(served.post("/v1/bdbs", &body).await.0, 406);
    assert!(served.exec.said().intents.is_empty());
    served.stop().await;
}

#[tokio::test]
async fn a_body_that_is_cut_short_changes_nothing() {
    let served = Served::start(Some(fixture::view())).await;
    let body = r#"{"name":"demo","memory_size":1073741824}"#;
    for end in [0, 1, body.len() / 2, body.len() - 1] {
        let stream = UnixStream::connect(served.config.http_socket())
            .await
            .unwrap();
        let sent = format!(
            "POST /v1/bdbs HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{}",
            body.len(),
            &body[..end]
        );
        let text = answer_to_the_end(stream, &sent).await;
        assert!(
            text.is_empty() || text.starts_with("HTTP/1.1 400"),
            "cut at {end}: {text}"
        );
    }
    assert!(served.exec.said().intents.is_empty());
    served.stop().await;
}

#[tokio::test]
async fn headers_that_are_too_large_or_no_http() {
    let served = Served::start(Some(fixture::view())).await;
    let long = "x".repeat(100_000);
    for sent in [
        format!("GET /v1/cluster HTTP/1.1\r\nhost: x\r\nlong: {long}\r\n\r\n"),
        format!("GET /{long} HTTP/1.1\r\nhost: x\r\n\r\n"),
        "PING\r\n\r\n".to_owned(),
        "\u{16}\u{3}\u{1}".to_owned(),
    ] {
        let stream = UnixStream::connect(served.config.http_socket())
            .await
            .unwrap();
        let text = answer_to_the_end(stream, &sent).await;
        assert!(
            text.is_empty() || text.starts_with("HTTP/1.1 4"),
            "{text:.80}"
        );
    }
    // No TLS where TLS is spoken.
    let plain = tokio::net::TcpStream::connect(served.config.https_address())
        .await
        .unwrap();
    let text = answer(plain, "GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert!(!text.contains("HTTP/1.1 200"), "{text:.80}");
    assert_eq!(served.get("/v1/cluster").await.0, 200, "it goes on serving");
    served.stop().await;
}

#[tokio::test]
async fn bodies_without_a_content_type_or_with_a_wrong_one_are_read() {
    let served = Served::start(Some(fixture::view())).await;
    for header in ["", "content-type: text/plain\r\n"] {
        let stream = UnixStream::connect(served.config.http_socket())
            .await
            .unwrap();
        let sent = format!(
            "PUT /v1/cluster HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{header}content-length: \
             2\r\n\r\n{{}}"
        );
        let text = answer(stream, &sent).await;
        assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    }
    served.stop().await;
}

#[tokio::test]
async fn unknown_fields_and_wrong_types_by_name() {
    let served = Served::start(Some(fixture::view())).await;
    for (method, path, body, code, named) in [
        (
            Method::POST,
            "/v1/bdbs",
            r#"{"nmae":"x"}"#,
            "invalid_schema",
            "nmae",
        ),
        (
            Method::POST,
            "/v1/bdbs",
            r#"{"memory_size":"1"}"#,
            "invalid_schema",
            "memory_size",
        ),
        (
            Method::PUT,
            "/v1/cluster",
            r#"{"name":"x"}"#,
            "invalid_schema",
            "name",
        ),
        (
            Method::PUT,
            "/v1/cluster/policy",
            "x",
            "bad_request",
            "JSON",
        ),
        (
            Method::POST,
            "/v1/bootstrap/join_cluster",
            r#"{"node":{"uid":1}}"#,
            "invalid_schema",
            "uid",
        ),
        (
            Method::POST,
            "/v1/cluster/actions/change_master",
            "",
            "bad_request",
            "JSON",
        ),
        (
            Method::POST,
            "/v1/internal/admit",
            r#"{"address":1}"#,
            "invalid_schema",
            "address",
        ),
    ] {
        let (status, said) = served.send(method, path, body).await;
        assert_eq!(
            (status, &said["error_code"]),
            (400, &json!(code)),
            "{path} {body}: {said}"
        );
        assert!(
            said["description"].as_str().unwrap().contains(named),
            "{said}"
        );
    }
    served.stop().await;
}

#[tokio::test]
async fn more_connections_than_there_is_room_for_are_closed() {
    let served = Served::start(Some(fixture::view())).await;
    let path = served.config.http_socket();
    let mut held = Vec::new();
    // Fill every slot with a connection that was answered once.
    for _ in 0..64 {
        let mut stream = UnixStream::connect(&path).await.unwrap();
        stream
            .write_all(b"GET /x HTTP/1.1\r\nhost: x\r\n\r\n")
            .await
            .unwrap();
        assert!(stream.read(&mut [0; 512]).await.unwrap() > 0);
        held.push(stream);
    }
    let mut refused = UnixStream::connect(&path).await.unwrap();
    let read = tokio::time::timeout(PATIENCE, refused.read(&mut [0; 1]))
        .await
        .unwrap();
    assert!(matches!(read, Ok(0) | Err(_)), "the 65th is closed");
    drop(held);
    crate::served::until("there is room again", async || {
        served.get("/v1/cluster").await.0 == 200
    })
    .await;
    served.stop().await;
}

#[tokio::test]
async fn a_shutdown_lets_an_open_connection_go() {
    let served = Served::start(Some(fixture::view())).await;
    let address = served.config.https_address();
    let mut idle = connect(address, Trust::Anyone, b"http/1.1").await.unwrap();
    served.stop().await;
    let read = tokio::time::timeout(PATIENCE, idle.read(&mut [0; 1]))
        .await
        .unwrap();
    assert!(matches!(read, Ok(0) | Err(_)));
}
