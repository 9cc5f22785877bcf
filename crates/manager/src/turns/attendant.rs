//! Asking root's attendant of this install. Whoever holds its name must be root.

use model::attendant::{ANSWER_MAX, socket};
use model::node_config::NodeConfig;
use model::upgrade::run::{AttendantAnswer, AttendantCall};
use rustix::net::sockopt::socket_peercred;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// How long it may take to answer: it works in processes of their own.
const ANSWERS_WITHIN: Duration = Duration::from_secs(5);

/// Asks it.
///
/// # Errors
/// In words, why there is no answer.
pub(super) async fn ask(
    config: &NodeConfig,
    call: AttendantCall,
) -> Result<AttendantAnswer, String> {
    let install = config.install_id.clone();
    tokio::task::spawn_blocking(move || asked(&install, &call))
        .await
        .map_err(|error| error.to_string())?
        .map_err(|error| format!("{error:#}"))
}

fn asked(install: &str, call: &AttendantCall) -> anyhow::Result<AttendantAnswer> {
    let stream = UnixStream::connect_addr(&socket(install)?)?;
    let peer = socket_peercred(&stream)?;
    anyhow::ensure!(peer.uid.is_root(), "it is not root who answers there");
    stream.set_read_timeout(Some(ANSWERS_WITHIN))?;
    stream.set_write_timeout(Some(ANSWERS_WITHIN))?;
    let mut text = serde_json::to_vec(call)?;
    text.push(b'\n');
    (&stream).write_all(&text)?;
    let mut line = String::new();
    BufReader::new(stream.take(ANSWER_MAX)).read_line(&mut line)?;
    Ok(serde_json::from_str(&line)?)
}
