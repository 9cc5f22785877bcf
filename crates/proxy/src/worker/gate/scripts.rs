//! Bodies of scripts, so that a new primary knows them: engines from 7.0 on do not give them to their copies,
//! and `EVALSHA` would say that there is none.
//!
//! A worker keeps what it has seen in `EVAL` and `SCRIPT LOAD`, for each shard. All workers and all proxies
//! load theirs, so the new primary gets what any of them has seen since it began.

use crate::bounds;
use crate::handover::record::{Bytes, ScriptsRecord};
use crate::worker::backend::Phase;
use crate::worker::link::LinkId;
use crate::worker::own_words::encode_own;
use crate::worker::{Message, Worker};
use model::DatabaseUid;
use resp::request::Args;
use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

/// Bodies of a shard's scripts, up to a bound; the oldest go first.
#[derive(Debug, Default)]
pub(crate) struct Scripts {
    known: HashSet<Arc<[u8]>>,
    order: VecDeque<Arc<[u8]>>,
    bytes: usize,
}

impl Scripts {
    /// Notes a script; `true`: it is new.
    fn learn(&mut self, body: &[u8]) -> bool {
        if self.known.contains(body) || body.len() > bounds::SCRIPTS_KEPT {
            return false;
        }
        let body: Arc<[u8]> = body.into();
        self.bytes += body.len();
        self.known.insert(Arc::clone(&body));
        self.order.push_back(body);
        while self.bytes > bounds::SCRIPTS_KEPT
            && let Some(oldest) = self.order.pop_front()
        {
            self.bytes -= oldest.len();
            self.known.remove(&oldest);
        }
        true
    }

    fn bodies(&self) -> Vec<Bytes> {
        self.order.iter().map(|body| Bytes(body.to_vec())).collect()
    }

    fn load(&self, out: &mut Vec<Vec<u8>>) {
        out.extend(self.order.iter().map(|body| load(body)));
    }
}

fn load(body: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    encode_own([&b"SCRIPT"[..], b"LOAD", body], &mut frame);
    frame
}

/// Whether a command brings the body of a script as its first argument.
#[inline]
fn is_eval(name: &[u8]) -> bool {
    matches!(name.len(), 4 | 7)
        && (name.eq_ignore_ascii_case(b"EVAL") || name.eq_ignore_ascii_case(b"EVAL_RO"))
}

impl Worker {
    /// Notes the script that a command brings, or that all are forgotten. `args` are those after its name.
    pub(in crate::worker) fn learn_script(&mut self, index: usize, name: &[u8], args: &Args<'_>) {
        let mut args = args.clone();
        let first = args.next().unwrap_or_default();
        let id = self.link_of(index);
        if is_eval(name) {
            self.learn(id, first);
        } else if !name.eq_ignore_ascii_case(b"SCRIPT") {
        } else if first.eq_ignore_ascii_case(b"LOAD") {
            if let Some(body) = args.next() {
                self.learn(id, body);
            }
        } else if first.eq_ignore_ascii_case(b"FLUSH") {
            let uid = self.served[id.served].database.uid;
            self.forget_scripts(uid);
            for number in (0..self.others.len()).filter(|number| *number != self.number) {
                // One that has no room keeps scripts that nobody misses.
                let _ = self.others[number].tell(Message::ForgetScripts(uid));
            }
        }
    }

    fn learn(&mut self, id: LinkId, body: &[u8]) {
        let links = &mut self.served[id.served].shards[id.shard];
        if !links.scripts.learn(body) {
            return;
        }
        // The next primary may have got the others already.
        let prepared = links.gate.as_ref().and_then(|gate| gate.prepared.as_ref());
        let place = prepared.and_then(|prepared| prepared.shared[0]);
        if let Some(place) = place
            && self.backends[place].phase == Phase::Ready
        {
            self.send_for_nobody(place, &load(body));
        }
    }

    /// A client has had the scripts of a database forgotten.
    pub(in crate::worker) fn forget_scripts(&mut self, uid: DatabaseUid) {
        if let Some(served) = self.by_uid.get(&uid) {
            for links in &mut self.served[*served].shards {
                links.scripts = Scripts::default();
            }
        }
    }

    /// All that is known, for another process.
    pub(in crate::worker) fn known_scripts(&self) -> Vec<ScriptsRecord> {
        let mut all = Vec::new();
        for (_, known) in &self.served {
            for (shard, links) in known.shards.iter().enumerate() {
                let bodies = links.scripts.bodies();
                if !bodies.is_empty() {
                    all.push(ScriptsRecord {
                        database: known.database.uid.0,
                        shard,
                        bodies,
                    });
                }
            }
        }
        all
    }

    /// What another process has seen.
    pub(in crate::worker) fn take_scripts(&mut self, scripts: &[ScriptsRecord]) {
        for known in scripts {
            let served = self.by_uid.get(&DatabaseUid(known.database)).copied();
            let links = served.and_then(|served| self.served[served].shards.get_mut(known.shard));
            if let Some(links) = links {
                for body in &known.bodies {
                    links.scripts.learn(&body.0);
                }
            }
        }
    }

    /// Loads a shard's scripts over a connection; `false`: there are none.
    pub(in crate::worker) fn load_scripts(&mut self, place: usize) -> bool {
        let LinkId { served, shard, .. } = self.backends[place].link;
        let mut frames = Vec::new();
        self.served[served].shards[shard].scripts.load(&mut frames);
        for frame in &frames {
            self.send_for_nobody(place, frame);
        }
        !frames.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_scripts_go_first() {
        let mut scripts = Scripts::default();
        assert!(scripts.learn(b"return 1"));
        assert!(!scripts.learn(b"return 1"));
        let large = vec![b'x'; bounds::SCRIPTS_KEPT - 10];
        assert!(scripts.learn(&large));
        assert!(scripts.learn(b"return 3"));
        let mut frames = Vec::new();
        scripts.load(&mut frames);
        assert_eq!(frames, [load(&large), load(b"return 3")]);
        assert!(scripts.learn(b"return 1"));
        assert!(!scripts.learn(&vec![b'x'; bounds::SCRIPTS_KEPT + 1]));
        frames.clear();
        scripts.load(&mut frames);
        assert_eq!(frames, [load(b"return 3"), load(b"return 1")]);
    }

    #[test]
    fn commands_that_bring_a_script() {
        for name in [&b"eval"[..], b"EVAL", b"Eval_Ro"] {
            assert!(is_eval(name));
        }
        for name in [&b"EVALSHA"[..], b"ECHO", b"EVAL_RW", b""] {
            assert!(!is_eval(name));
        }
    }
}
