//! A relay in front of a shard, which can hold what passes, cut it, or let it drip.
//!
//! The proxy opens connections when it likes, and greets the shard on them: greetings are not counted, and cut
//! only when that is asked for.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

/// What happens to the bytes that pass.
#[derive(Default)]
struct State {
    /// Replies wait.
    held: bool,
    /// The connection is cut after so many more bytes of replies.
    replies_left: Option<usize>,
    /// The connection is cut after so many more bytes of commands.
    commands_left: Option<usize>,
    /// Connections are cut that are greeted.
    greetings_cut: bool,
    /// Most bytes that pass at once.
    piece: Option<usize>,
    streams: Vec<TcpStream>,
    /// Connections that were cut.
    cuts: u64,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    /// Bytes of commands that have come.
    commands: AtomicU64,
    ended: AtomicBool,
}

/// A relay to one shard.
pub struct Relay {
    shared: Arc<Shared>,
    pub address: SocketAddr,
    target: SocketAddr,
}

impl Relay {
    pub fn start(address: SocketAddr, target: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            changed: Condvar::new(),
            commands: AtomicU64::new(0),
            ended: AtomicBool::new(false),
        });
        let relay = Self {
            shared: Arc::clone(&shared),
            address: listener.local_addr().unwrap(),
            target,
        };
        std::thread::spawn(move || {
            for proxy in listener.incoming() {
                if shared.ended.load(Ordering::Acquire) {
                    return;
                }
                let (Ok(proxy), Ok(shard)) = (proxy, TcpStream::connect(target)) else {
                    continue;
                };
                shared.pair(&proxy, &shard);
            }
        });
        relay
    }

    /// Where it leads.
    pub fn target(&self) -> SocketAddr {
        self.target
    }

    /// Replies wait, until one of the other orders comes.
    pub fn hold(&self) {
        self.shared.change(|state| state.held = true);
    }

    /// Everything passes.
    pub fn pass(&self) {
        self.shared.change(|state| {
            state.held = false;
            state.replies_left = None;
            state.commands_left = None;
            state.greetings_cut = false;
            state.piece = None;
        });
    }

    /// The connection that so many more bytes of replies have passed over is cut; after that everything
    /// passes.
    pub fn cut_replies_after(&self, count: usize) {
        self.shared.change(|state| {
            state.held = false;
            state.replies_left = Some(count);
        });
    }

    /// The same, for bytes of commands.
    pub fn cut_commands_after(&self, count: usize) {
        self.shared
            .change(|state| state.commands_left = Some(count));
    }

    /// No more connections get through.
    pub fn cut_greetings(&self) {
        self.shared.change(|state| state.greetings_cut = true);
    }

    /// Both ways pass in pieces of so many bytes, with a pause between them.
    pub fn dribble(&self, piece: usize) {
        self.shared.change(|state| state.piece = Some(piece));
    }

    /// Cuts all connections.
    pub fn cut(&self) {
        self.shared.change(|state| {
            for stream in state.streams.drain(..) {
                let _ = stream.shutdown(Shutdown::Both);
            }
        });
    }

    pub fn commands(&self) -> u64 {
        self.shared.commands.load(Ordering::Acquire)
    }

    pub fn cuts(&self) -> u64 {
        self.shared.state.lock().unwrap().cuts
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Release);
        self.pass();
        self.cut();
        let _ = TcpStream::connect(self.address);
    }
}

impl Shared {
    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap());
        self.changed.notify_all();
    }

    fn pair(self: &Arc<Self>, proxy: &TcpStream, shard: &TcpStream) {
        for stream in [proxy, shard] {
            stream.set_nodelay(true).unwrap();
            let stream = stream.try_clone().unwrap();
            self.change(|state| state.streams.push(stream));
        }
        let sent = Arc::new(AtomicU64::new(0));
        for replies in [false, true] {
            let sent = Arc::clone(&sent);
            let (from, to) = if replies {
                (shard, proxy)
            } else {
                (proxy, shard)
            };
            let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
            let shared = Arc::clone(self);
            std::thread::spawn(move || {
                shared.carry(&from, &to, replies, &sent);
                let _ = from.shutdown(Shutdown::Both);
                let _ = to.shutdown(Shutdown::Both);
            });
        }
    }

    /// Carries one way, to its end. `sent`: how often the proxy has sent something over this connection; the
    /// first time it greets.
    fn carry(&self, mut from: &TcpStream, mut to: &TcpStream, replies: bool, sent: &AtomicU64) {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let Ok(count @ 1..) = from.read(&mut buffer) else {
                return;
            };
            let greets = if replies {
                sent.load(Ordering::Acquire) == 1
            } else {
                sent.fetch_add(1, Ordering::AcqRel) == 0
            };
            if !replies && !greets {
                self.commands.fetch_add(count as u64, Ordering::AcqRel);
            }
            let mut rest = &buffer[..count];
            loop {
                let (now, cut, pause) = self.allowed(rest.len(), replies, greets);
                if to.write_all(&rest[..now]).is_err() {
                    return;
                }
                rest = &rest[now..];
                if cut {
                    return;
                }
                if rest.is_empty() {
                    break;
                }
                if pause {
                    std::thread::sleep(Duration::from_micros(150));
                }
            }
        }
    }

    /// How many of `count` bytes may pass now, and whether the connection is cut then.
    fn allowed(&self, count: usize, replies: bool, greets: bool) -> (usize, bool, bool) {
        let mut state = self.state.lock().unwrap();
        while replies && state.held && !self.ended.load(Ordering::Acquire) {
            state = self.changed.wait(state).unwrap();
        }
        let now = state.piece.map_or(count, |piece| piece.min(count));
        let pause = state.piece.is_some();
        let mut whole = (replies && state.greetings_cut).then_some(0);
        let left = if greets {
            &mut whole
        } else if replies {
            &mut state.replies_left
        } else {
            &mut state.commands_left
        };
        match left {
            Some(most) if *most <= now => {
                let now = *most;
                *left = None;
                state.cuts += 1;
                (now, true, pause)
            }
            Some(most) => {
                *most -= now;
                (now, false, pause)
            }
            None => (now, false, pause),
        }
    }
}
