//! What plays `cnm_exec`: hands out a configuration and keeps what the proxy says.

use model::observation::ProxyObservation;
use model::proxy::ProxyConfig;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Mutex};

#[derive(Default)]
struct State {
    config: Option<ProxyConfig>,
    proxies: Vec<UnixStream>,
    observed: Vec<ProxyObservation>,
}

/// The local interface of a node, as far as a proxy uses it.
#[derive(Clone)]
pub struct Exec {
    state: Arc<Mutex<State>>,
}

impl Exec {
    pub fn start(socket: &Path) -> Self {
        let listener = UnixListener::bind(socket).unwrap();
        let state: Arc<Mutex<State>> = Arc::default();
        let exec = Self {
            state: Arc::clone(&state),
        };
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { return };
                {
                    let mut known = state.lock().unwrap();
                    if let Some(config) = &known.config {
                        send(&stream, config);
                    }
                    known.proxies.push(stream.try_clone().unwrap());
                }
                let state = Arc::clone(&state);
                std::thread::spawn(move || {
                    for line in BufReader::new(stream).lines() {
                        let Ok(line) = line else { return };
                        let observation = serde_json::from_str(&line).unwrap();
                        state.lock().unwrap().observed.push(observation);
                    }
                });
            }
        });
        exec
    }

    /// Hands out a configuration, now and to every proxy that comes.
    pub fn publish(&self, config: &ProxyConfig) {
        let mut state = self.state.lock().unwrap();
        state.config = Some(config.clone());
        state.proxies.retain(|proxy| send(proxy, config));
    }

    /// The last thing that a proxy said.
    pub fn last(&self) -> Option<ProxyObservation> {
        self.state.lock().unwrap().observed.last().cloned()
    }

    /// How often proxies have said something.
    pub fn count(&self) -> usize {
        self.state.lock().unwrap().observed.len()
    }

    /// Every server process that has said something.
    pub fn servers(&self) -> Vec<u32> {
        let mut pids: Vec<u32> = self
            .state
            .lock()
            .unwrap()
            .observed
            .iter()
            .map(|observed| observed.pid)
            .collect();
        pids.sort_unstable();
        pids.dedup();
        pids
    }
}

fn send(mut proxy: &UnixStream, config: &ProxyConfig) -> bool {
    let mut line = serde_json::to_vec(config).unwrap();
    line.push(b'\n');
    proxy.write_all(&line).is_ok()
}
