//! The real server on a loopback address of its own, with the stand-in behind it.

use crate::exec_stand_in::StandIn;
use crate::fixture;
use api::process::Release;
use client::local::{Answer, call};
use hyper::Method;
use model::node_config::NodeConfig;
use model::view::ClusterView;
use serde_json::Value;
use std::fs;
use std::future::Future;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Served {
    pub(crate) config: NodeConfig,
    pub(crate) exec: StandIn,
    stop: oneshot::Sender<()>,
    server: JoinHandle<anyhow::Result<()>>,
    _folder: TempDir,
}

impl Served {
    /// Without a view the node is no member of a cluster.
    pub(crate) async fn start(view: Option<ClusterView>) -> Self {
        let folder = tempfile::Builder::new()
            .prefix("api-")
            .tempdir_in("/tmp")
            .unwrap();
        let [a, b, c]: [u8; 3] = rand::random();
        // Own addresses keep tests apart; 1..=254 keeps clear of 127.0.0.0 and broadcasts.
        let address = format!("127.{}.{}.{}", a % 254 + 1, b, c % 254 + 1);
        let config = fixture::config(folder.path(), &address);
        for path in [
            &config.socket_dir,
            &config.config_dir,
            &config.certificates_dir(),
        ] {
            fs::create_dir_all(path).unwrap();
        }
        let exec = StandIn::new(view);
        exec.listen(&config.exec_socket());
        let (stop, stopped) = oneshot::channel();
        let shutdown = async {
            let _ = stopped.await;
        };
        let server = tokio::spawn(api::run(config.clone(), Release::default(), shutdown));
        let served = Self {
            config,
            exec,
            stop,
            server,
            _folder: folder,
        };
        until("the socket answers", async || {
            served.get("/v1/bootstrap").await.0 != 0
        })
        .await;
        served
    }

    /// Ends it as SIGTERM does.
    pub(crate) async fn stop(self) {
        self.stop.send(()).unwrap();
        tokio::time::timeout(PATIENCE, self.server)
            .await
            .unwrap()
            .unwrap()
            .unwrap();
        assert!(
            !self.config.http_socket().exists(),
            "the socket file stayed"
        );
    }

    /// Over the unix socket; status 0 when nobody answers.
    pub(crate) async fn send(&self, method: Method, path: &str, body: &str) -> (u16, Value) {
        match self.raw(method, path, body).await {
            Some(answer) => (answer.status, json(&answer.body)),
            None => (0, Value::Null),
        }
    }

    pub(crate) async fn raw(&self, method: Method, path: &str, body: &str) -> Option<Answer> {
        let body = body.to_owned().into();
        call(
            &self.config.http_socket(),
            method,
            path,
            body,
            PATIENCE.as_secs(),
        )
        .await
        .ok()
    }

    pub(crate) async fn get(&self, path: &str) -> (u16, Value) {
        self.send(Method::GET, path, "").await
    }

    pub(crate) async fn post(&self, path: &str, body: &str) -> (u16, Value) {
        self.send(Method::POST, path, body).await
    }
}

pub(crate) fn json(body: &[u8]) -> Value {
    serde_json::from_slice(body)
        .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(body).into_owned()))
}

/// Waits for a condition.
pub(crate) async fn until<F: Future<Output = bool>>(what: &str, condition: impl Fn() -> F) {
    let deadline = Instant::now() + PATIENCE;
    while !condition().await {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
