//! Client of supervisord: XML-RPC over HTTP over its unix socket. One connection a call, every wait
//! and answer bounded.

mod xml_rpc;

use jiff::Timestamp;
use model::node_config::NodeConfig;
use model::observation::ServiceObservation;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use xml_rpc::{Answer, Argument, Value};

/// Largest answer, bytes.
const ANSWER_MAX: usize = 1024 * 1024;

/// supervisord's fault codes that callers tell apart.
const BAD_NAME: i64 = 10;
const ALREADY_STARTED: i64 = 60;
const NOT_RUNNING: i64 = 70;

/// Why supervisord did not do it.
#[derive(Debug, thiserror::Error)]
pub enum SupervisordError {
    /// It cannot be reached.
    #[error("supervisord does not listen on {path}: {error}; is mainstay-node running?", path = path.display())]
    Unreachable {
        /// Its socket.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// It did not answer in time.
    #[error("supervisord does not answer within {} s", .0.as_secs_f32())]
    Silent(Duration),
    /// Its answer cannot be understood.
    #[error("supervisord's answer cannot be read: {0}")]
    Garbled(String),
    /// There is no such process.
    #[error("supervisord knows no process '{0}'")]
    UnknownProcess(String),
    /// It refused.
    #[error("supervisord refused: {text} (fault {code})")]
    Refused {
        /// Its fault code.
        code: i64,
        /// Its words.
        text: String,
    },
}

/// A client. Holds no connection.
#[derive(Clone, Debug)]
pub struct Supervisord {
    socket: PathBuf,
    patience: Duration,
}

impl Supervisord {
    /// The supervisord of a node. `patience` bounds each call, waiting for a process to start or
    /// stop included.
    #[must_use]
    pub fn of(node: &NodeConfig, patience: Duration) -> Self {
        Self::at(&node.supervisor_socket(), patience)
    }

    /// The supervisord behind a socket.
    #[must_use]
    pub fn at(socket: &Path, patience: Duration) -> Self {
        Self {
            socket: socket.to_path_buf(),
            patience,
        }
    }

    /// All its processes, by name.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn processes(&self) -> Result<Vec<ServiceObservation>, SupervisordError> {
        let Value::Array(items) = self.call("supervisor.getAllProcessInfo", &[]).await? else {
            return Err(SupervisordError::Garbled("no list of processes".to_owned()));
        };
        let mut processes: Vec<_> = items.iter().filter_map(observation).collect();
        processes.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(processes)
    }

    /// Starts a process and waits until it runs. That it runs already is no error.
    ///
    /// # Errors
    /// When there is no such process or it does not start.
    pub async fn start(&self, name: &str) -> Result<(), SupervisordError> {
        let arguments = [Argument::Text(name), Argument::Bool(true)];
        accept(
            name,
            ALREADY_STARTED,
            self.call("supervisor.startProcess", &arguments).await,
        )
    }

    /// Starts a process and waits for nothing: whether it stays up is to be looked at. That it runs already is
    /// no error.
    ///
    /// # Errors
    /// When there is no such process, or no process can be made.
    pub async fn launch(&self, name: &str) -> Result<(), SupervisordError> {
        let arguments = [Argument::Text(name), Argument::Bool(false)];
        accept(
            name,
            ALREADY_STARTED,
            self.call("supervisor.startProcess", &arguments).await,
        )
    }

    /// Whether its configuration on disk is another than the one in force. Nothing is changed.
    ///
    /// # Errors
    /// When it does not answer, or cannot read its configuration.
    pub async fn has_changed(&self) -> Result<bool, SupervisordError> {
        let garbled = || SupervisordError::Garbled("no lists of groups".to_owned());
        let Value::Array(outer) = self.call("supervisor.reloadConfig", &[]).await? else {
            return Err(garbled());
        };
        let Some(Value::Array(lists)) = outer.first() else {
            return Err(garbled());
        };
        // Added, changed, removed.
        Ok(lists
            .iter()
            .any(|list| !matches!(list, Value::Array(names) if names.is_empty())))
    }

    /// Stops a process and waits until it has ended. That it does not run is no error.
    ///
    /// # Errors
    /// When there is no such process.
    pub async fn stop(&self, name: &str) -> Result<(), SupervisordError> {
        let arguments = [Argument::Text(name), Argument::Bool(true)];
        accept(
            name,
            NOT_RUNNING,
            self.call("supervisor.stopProcess", &arguments).await,
        )
    }

    /// Stops and starts a process.
    ///
    /// # Errors
    /// When there is no such process or it does not start.
    pub async fn restart(&self, name: &str) -> Result<(), SupervisordError> {
        self.stop(name).await?;
        self.start(name).await
    }

    async fn call(
        &self,
        method: &str,
        arguments: &[Argument<'_>],
    ) -> Result<Value, SupervisordError> {
        let body = xml_rpc::call(method, arguments);
        let answer = tokio::time::timeout(self.patience, self.post(&body))
            .await
            .map_err(|_| SupervisordError::Silent(self.patience))??;
        match xml_rpc::answer(&answer).map_err(SupervisordError::Garbled)? {
            Answer::Value(value) => Ok(value),
            Answer::Fault { code, text } => Err(SupervisordError::Refused { code, text }),
        }
    }

    async fn post(&self, body: &str) -> Result<String, SupervisordError> {
        let unreachable = |error| SupervisordError::Unreachable {
            path: self.socket.clone(),
            error,
        };
        let mut stream = UnixStream::connect(&self.socket)
            .await
            .map_err(unreachable)?;
        let request = format!(
            "POST /RPC2 HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/xml\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
        stream
            .write_all(request.as_bytes())
            .await
            .map_err(unreachable)?;
        let mut input = Vec::new();
        loop {
            if let Some(body) = whole_body(&input).map_err(SupervisordError::Garbled)? {
                return Ok(body);
            }
            if input.len() > ANSWER_MAX {
                return Err(SupervisordError::Garbled("it is too long".to_owned()));
            }
            if stream.read_buf(&mut input).await.map_err(unreachable)? == 0 {
                return Err(SupervisordError::Garbled("it breaks off".to_owned()));
            }
        }
    }
}

/// The body of an HTTP answer, once all of it is there.
fn whole_body(input: &[u8]) -> Result<Option<String>, String> {
    let Some(end) = input.windows(4).position(|four| four == b"\r\n\r\n") else {
        return Ok(None);
    };
    let head = String::from_utf8_lossy(&input[..end]);
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap_or_default();
    if status.split(' ').nth(1) != Some("200") {
        return Err(format!("'{status}'"));
    }
    let length = lines
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .and_then(|(_, value)| value.trim().parse::<usize>().ok())
        .ok_or_else(|| "it has no length".to_owned())?;
    if length > ANSWER_MAX {
        return Err("it is too long".to_owned());
    }
    let body = &input[end + 4..];
    Ok((body.len() >= length).then(|| String::from_utf8_lossy(&body[..length]).into_owned()))
}

fn accept(
    name: &str,
    fine: i64,
    result: Result<Value, SupervisordError>,
) -> Result<(), SupervisordError> {
    match result {
        Ok(_) => Ok(()),
        Err(SupervisordError::Refused { code, .. }) if code == fine => Ok(()),
        Err(SupervisordError::Refused { code: BAD_NAME, .. }) => {
            Err(SupervisordError::UnknownProcess(name.to_owned()))
        }
        Err(error) => Err(error),
    }
}

/// One process as it is shown: supervisord's eight states are four for operators.
fn observation(info: &Value) -> Option<ServiceObservation> {
    let name = info.member("name")?.to_owned();
    let status = match info.member("statename")? {
        "RUNNING" => "RUNNING",
        "STARTING" => "STARTING",
        "BACKOFF" => "RESTARTING",
        _ => "STOPPED",
    };
    let number = |member| {
        info.member(member)
            .and_then(|text| text.parse::<i64>().ok())
    };
    let alive = status == "RUNNING" || status == "STARTING";
    Some(ServiceObservation {
        name,
        status: status.to_owned(),
        pid: number("pid")
            .and_then(|pid| u32::try_from(pid).ok())
            .filter(|pid| *pid != 0),
        start_time: number("start")
            .filter(|start| alive && *start > 0)
            .and_then(|start| Timestamp::from_second(start).ok()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_split_at_every_byte() {
        let input = b"HTTP/1.1 200 OK\r\nContent-length:  3\r\n\r\nabc";
        for end in 0..input.len() {
            assert_eq!(whole_body(&input[..end]), Ok(None), "{end}");
        }
        assert_eq!(whole_body(input), Ok(Some("abc".to_owned())));
        assert!(whole_body(b"HTTP/1.1 500 No\r\n\r\n").is_err());
        assert!(whole_body(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
    }
}
