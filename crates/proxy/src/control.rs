//! The connection to `cnm_exec`: configurations come in, observations go out. Off the hot path.

use crate::bounds;
use model::observation::ProxyObservation;
use model::proxy::{LINE_MAX, ProxyConfig};
use std::path::PathBuf;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, watch};

/// How long `cnm_exec` may take to read an observation.
const WRITE_WAIT: Duration = Duration::from_secs(5);

/// Keeps a connection for ever. `observations` holds what is told next; `None`: nothing is.
pub(crate) async fn keep_connected(
    path: PathBuf,
    configs: mpsc::Sender<ProxyConfig>,
    observations: watch::Receiver<Option<ProxyObservation>>,
) {
    let mut pause = *bounds::RETRY.start();
    let mut told = false;
    loop {
        match UnixStream::connect(&path).await {
            Ok(stream) => {
                tracing::info!("connected to cnm_exec");
                pause = *bounds::RETRY.start();
                told = false;
                let (reader, writer) = stream.into_split();
                let ended = tokio::select! {
                    ended = read(reader, &configs) => ended,
                    ended = write(writer, observations.clone()) => ended,
                };
                tracing::warn!(
                    reason = ended,
                    "disconnected from cnm_exec; serving goes on"
                );
            }
            Err(error) if !told => {
                told = true;
                tracing::warn!(path = %path.display(), %error, "cnm_exec does not answer; serving goes on");
            }
            Err(_) => {}
        }
        if configs.is_closed() {
            return;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(*bounds::RETRY.end());
    }
}

async fn read(reader: OwnedReadHalf, configs: &mpsc::Sender<ProxyConfig>) -> String {
    let mut reader = BufReader::new(reader);
    let mut line = Vec::new();
    loop {
        line.clear();
        let most = LINE_MAX as u64 + 1;
        match (&mut reader).take(most).read_until(b'\n', &mut line).await {
            Ok(0) => return "it closed the connection".to_owned(),
            Ok(_) if line.len() > LINE_MAX => return "its message is too long".to_owned(),
            Ok(_) => {}
            Err(error) => return error.to_string(),
        }
        match serde_json::from_slice(&line) {
            Ok(config) => {
                if configs.send(config).await.is_err() {
                    return "the server is ending".to_owned();
                }
            }
            // Its text could quote a password.
            Err(error) => {
                return format!("its message cannot be read, column {}", error.column());
            }
        }
        line.shrink_to(64 * 1024);
    }
}

async fn write(
    mut writer: OwnedWriteHalf,
    mut observations: watch::Receiver<Option<ProxyObservation>>,
) -> String {
    observations.mark_changed();
    loop {
        if observations.changed().await.is_err() {
            return "the server is ending".to_owned();
        }
        let line = match &*observations.borrow_and_update() {
            Some(observation) => serde_json::to_vec(observation),
            None => continue,
        };
        let mut line = match line {
            Ok(line) => line,
            Err(error) => return error.to_string(),
        };
        line.push(b'\n');
        match tokio::time::timeout(WRITE_WAIT, writer.write_all(&line)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return error.to_string(),
            Err(_) => return "it does not read".to_owned(),
        }
    }
}
