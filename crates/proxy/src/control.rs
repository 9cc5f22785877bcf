//! The connection to `cnm_exec`: configurations and orders come in, observations, answers and wishes go
//! out, and questions about clients both ways; the lease is asked for here. Off the hot path.

use crate::bounds;
use crate::gates::Asked;
use crate::leases::Leases;
use crate::listeners::Acceptor;
use crate::questions::{Answering, Questions};
use crate::wishes::{Heard, Wishes};
use model::clients::Answered;
use model::gate::Answer;
use model::observation::ProxyObservation;
use model::proxy::{FromProxy, LINE_MAX, ProxyConfig, ToProxy, WISHES_MAX};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, watch};

/// How long `cnm_exec` may take to read an observation.
const WRITE_WAIT: Duration = Duration::from_secs(5);

/// What `cnm_exec` has said.
#[derive(Debug)]
pub(crate) enum Told {
    /// What is to be served.
    Config(Box<ProxyConfig>),
    /// What is to be done about a gate.
    Order(Asked),
}

/// Keeps a connection for ever. `observations` holds what is told next; `None`: nothing is.
pub(crate) async fn keep_connected(
    path: PathBuf,
    told: mpsc::Sender<Told>,
    observations: watch::Receiver<Option<ProxyObservation>>,
    mut wishes: Wishes,
    (leases, questions, acceptor): (Leases, Questions, Arc<Acceptor>),
) {
    let mut pause = *bounds::RETRY.start();
    let mut silent = false;
    loop {
        match UnixStream::connect(&path).await {
            Ok(stream) => {
                tracing::info!("connected to cnm_exec");
                pause = *bounds::RETRY.start();
                silent = false;
                let (reader, writer) = stream.into_split();
                let (tell, heard) = mpsc::channel(WISHES_MAX);
                let (answers, answered) = mpsc::channel(bounds::GATE_ORDERS);
                // One piece at a time: it is not to wait before a lease.
                let (pieces, found) = mpsc::channel(1);
                let heard = From {
                    heard,
                    answers: answered,
                    leases: &leases,
                    questions: &questions,
                    found,
                };
                let to = To {
                    told: &told,
                    tell,
                    answers,
                    leases: &leases,
                    questions: &questions,
                    answering: Answering::new(Arc::clone(&acceptor), pieces),
                };
                leases.connected(true);
                questions.connected(true);
                let ended = tokio::select! {
                    ended = read(reader, to) => ended,
                    ended = write(writer, observations.clone(), &mut wishes, heard) => ended,
                };
                leases.connected(false);
                questions.connected(false);
                wishes.lost();
                tracing::warn!(
                    reason = ended,
                    "disconnected from cnm_exec; serving goes on"
                );
            }
            Err(error) if !silent => {
                silent = true;
                tracing::warn!(path = %path.display(), %error, "cnm_exec does not answer; serving goes on");
            }
            Err(_) => {}
        }
        if told.is_closed() {
            return;
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = wishes.refuse() => {}
        }
        pause = (pause * 2).min(*bounds::RETRY.end());
    }
}

/// Who hears what is read.
struct To<'a> {
    told: &'a mpsc::Sender<Told>,
    tell: mpsc::Sender<Heard>,
    answers: mpsc::Sender<Answer>,
    leases: &'a Leases,
    questions: &'a Questions,
    answering: Answering,
}

impl To<'_> {
    /// `false`: the server is ending.
    async fn hear(&mut self, said: ToProxy) -> bool {
        match said {
            ToProxy::Config(config) => {
                self.questions.takes(config.takes_questions);
                let heard = Heard::Takes {
                    wishes: config.takes_wishes,
                    questions: config.takes_questions,
                };
                self.tell.send(heard).await.is_ok()
                    && self.told.send(Told::Config(config)).await.is_ok()
            }
            ToProxy::Order { order } => {
                let answers = self.answers.clone();
                let order = Told::Order(Asked { order, answers });
                self.told.send(order).await.is_ok()
            }
            ToProxy::Lease { lease } => {
                self.leases.answered(lease);
                true
            }
            ToProxy::Granted { granted } => self.tell.send(Heard::Granted(granted)).await.is_ok(),
            ToProxy::Question { question } => {
                self.answering.take(question);
                true
            }
            ToProxy::Answered { answered } => {
                self.questions.answered(&answered);
                true
            }
        }
    }
}

async fn read(reader: OwnedReadHalf, mut to: To<'_>) -> String {
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
            Ok(said) => {
                if !to.hear(said).await {
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

/// What is to be written beside observations and wishes.
struct From<'a> {
    heard: mpsc::Receiver<Heard>,
    answers: mpsc::Receiver<Answer>,
    leases: &'a Leases,
    questions: &'a Questions,
    found: mpsc::Receiver<Answered>,
}

async fn write(
    mut writer: OwnedWriteHalf,
    mut observations: watch::Receiver<Option<ProxyObservation>>,
    wishes: &mut Wishes,
    mut from: From<'_>,
) -> String {
    observations.mark_changed();
    // That it takes questions.
    let mut told = false;
    loop {
        let line = tokio::select! {
            biased;
            Some(answer) = from.answers.recv() => Some(serde_json::to_vec(&FromProxy::Answer { answer })),
            () = from.leases.due() => {
                let renewal = from.leases.renewal();
                Some(serde_json::to_vec(&FromProxy::Renewal { renewal }))
            }
            changed = observations.changed() => {
                if changed.is_err() {
                    return "the server is ending".to_owned();
                }
                let observation = observations.borrow_and_update();
                observation.as_ref().map(serde_json::to_vec)
            }
            Some(heard) = from.heard.recv() => {
                let asks = matches!(heard, Heard::Takes { questions: true, .. });
                wishes.heard(heard);
                let takes = FromProxy::Asks { takes_questions: true };
                (asks && !std::mem::replace(&mut told, true)).then(|| serde_json::to_vec(&takes))
            }
            () = wishes.changed() => None,
            question = from.questions.next() => {
                Some(serde_json::to_vec(&FromProxy::Question { question }))
            }
            Some(answered) = from.found.recv() => {
                Some(serde_json::to_vec(&FromProxy::Answered { answered }))
            }
        };
        if let Some(line) = line
            && let Err(reason) = write_line(&mut writer, line).await
        {
            return reason;
        }
        while let Some(wish) = wishes.next() {
            let line = serde_json::to_vec(&FromProxy::Wish { wish });
            if let Err(reason) = write_line(&mut writer, line).await {
                return reason;
            }
        }
    }
}

async fn write_line(
    writer: &mut OwnedWriteHalf,
    line: serde_json::Result<Vec<u8>>,
) -> Result<(), String> {
    let mut line = line.map_err(|error| error.to_string())?;
    line.push(b'\n');
    match tokio::time::timeout(WRITE_WAIT, writer.write_all(&line)).await {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(_) => Err("it does not read".to_owned()),
    }
}
