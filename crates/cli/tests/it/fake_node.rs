//! A node's folders with a REST server behind its socket that answers what a test wants.

use assert_cmd::Command;
use model::node_config::{CONFIG_ENV, NodeConfig, Ports};
use serde::Serialize;
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Mutex};
use tempfile::TempDir;

/// A request that came.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Request {
    /// `GET /v1/nodes`, without the query.
    pub(crate) call: String,
    /// Its body.
    pub(crate) body: String,
}

/// Answers of one call: each is given once, the last for ever.
type Answers = Vec<(u16, String)>;

#[derive(Debug, Default)]
struct Rest {
    answers: HashMap<String, Answers>,
    requests: Vec<Request>,
}

/// The node.
pub(crate) struct FakeNode {
    /// Its folders.
    pub(crate) folder: TempDir,
    /// Its configuration.
    pub(crate) config: NodeConfig,
    rest: Arc<Mutex<Rest>>,
}

impl FakeNode {
    /// A node whose `cnm_http` does not run.
    pub(crate) fn without_rest() -> Self {
        let folder = tempfile::Builder::new()
            .prefix("cli-")
            .tempdir_in("/tmp")
            .unwrap();
        let root = folder.path();
        let config = NodeConfig {
            install_id: "test0001".to_owned(),
            address: "127.0.0.11".parse().unwrap(),
            install_dir: root.join("opt"),
            config_dir: root.join("etc"),
            var_dir: root.join("var"),
            socket_dir: root.join("var/run"),
            os_user: "mainstay".to_owned(),
            os_group: "mainstay".to_owned(),
            memory_bytes: None,
            ports: Ports::default(),
        };
        for folder in [
            config.config_dir.clone(),
            config.log_dir(),
            config.socket_dir.clone(),
        ] {
            std::fs::create_dir_all(folder).unwrap();
        }
        let node = Self {
            folder,
            config,
            rest: Arc::default(),
        };
        node.write_config();
        node
    }

    /// A node whose `cnm_http` answers what [`Self::answer`] says.
    pub(crate) fn new() -> Self {
        let node = Self::without_rest();
        node.serve();
        node
    }

    /// Begins to answer.
    pub(crate) fn serve(&self) {
        let listener = UnixListener::bind(self.config.http_socket()).unwrap();
        let rest = Arc::clone(&self.rest);
        // Ends with the test's process.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let rest = Arc::clone(&rest);
                std::thread::spawn(move || serve(stream, &rest));
            }
        });
    }

    /// Writes `node.toml` as `config` is now.
    pub(crate) fn write_config(&self) {
        let text = self.config.to_toml().unwrap();
        std::fs::write(self.config.config_dir.join("node.toml"), text).unwrap();
    }

    /// From now on `call` is answered with this object.
    pub(crate) fn answer(&self, call: &str, object: &impl Serialize) -> &Self {
        self.answers(call, vec![(200, serde_json::to_string(object).unwrap())])
    }

    /// From now on `call` is answered with an error.
    pub(crate) fn refuse(&self, call: &str, code: model::ErrorCode, description: &str) -> &Self {
        let error = model::ApiError::new(code, description);
        self.answers(
            call,
            vec![(code.status(), serde_json::to_string(&error).unwrap())],
        )
    }

    /// From now on `call` is answered with each of these once, then with the last for ever.
    pub(crate) fn answers(&self, call: &str, answers: Answers) -> &Self {
        self.rest
            .lock()
            .unwrap()
            .answers
            .insert(call.to_owned(), answers);
        self
    }

    /// The requests that change something, in their order.
    pub(crate) fn changes(&self) -> Vec<Request> {
        let rest = self.rest.lock().unwrap();
        rest.requests
            .iter()
            .filter(|r| !r.call.starts_with("GET "))
            .cloned()
            .collect()
    }

    /// `rladmin` of this node.
    pub(crate) fn rladmin(&self, line: &str) -> Command {
        let mut command = self.program("rladmin");
        command.args(line.split_whitespace());
        command
    }

    /// A program of this node.
    pub(crate) fn program(&self, name: &str) -> Command {
        let mut command = Command::cargo_bin(name).unwrap();
        command
            .env(CONFIG_ENV, self.config.config_dir.join("node.toml"))
            .env("HOME", self.folder.path())
            .timeout(std::time::Duration::from_secs(100));
        command
    }

    /// Standard output of a `rladmin` that succeeds, with the test's folder blotted out.
    pub(crate) fn output(&self, line: &str) -> String {
        let output = self.rladmin(line).output().unwrap();
        let errors = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{line}: {errors}");
        self.clean(&String::from_utf8(output.stdout).unwrap())
    }

    /// Exit code and standard error of a `rladmin`, with the test's folder blotted out.
    pub(crate) fn failure(&self, line: &str) -> (i32, String) {
        let output = self.rladmin(line).output().unwrap();
        let errors = String::from_utf8(output.stderr).unwrap();
        (output.status.code().unwrap(), self.clean(&errors))
    }

    /// A text without the test's folder.
    pub(crate) fn clean(&self, text: &str) -> String {
        text.replace(self.folder.path().to_str().unwrap(), "[FOLDER]")
    }
}

fn serve(stream: UnixStream, rest: &Mutex<Rest>) {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    if reader.read_line(&mut line).unwrap_or(0) == 0 {
        return;
    }
    let mut words = line.split_whitespace();
    let method = words.next().unwrap_or_default().to_owned();
    let path = words
        .next()
        .unwrap_or_default()
        .split('?')
        .next()
        .unwrap_or_default()
        .to_owned();
    let mut length = 0;
    loop {
        let mut header = String::new();
        if reader.read_line(&mut header).unwrap_or(0) == 0 || header == "\r\n" {
            break;
        }
        if let Some(value) = header.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    let call = format!("{method} {path}");
    let (status, text) = {
        let mut rest = rest.lock().unwrap();
        rest.requests.push(Request {
            call: call.clone(),
            body: String::from_utf8(body).unwrap(),
        });
        match rest.answers.get_mut(&call) {
            Some(answers) if answers.len() > 1 => answers.remove(0),
            Some(answers) => answers[0].clone(),
            None => (
                404,
                format!(r#"{{"error_code":"not_found","description":"no answer for {call}"}}"#),
            ),
        }
    };
    let answer = format!(
        "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{text}",
        text.len()
    );
    let _ = reader.into_inner().write_all(answer.as_bytes());
}
