//! What clients wish of the whole database, on its way to `cnm_exec` and back. One wish of a database is
//! under way at a time; the same one of several clients is sent once.

use crate::worker::{ClientId, Message, WorkerHandle};
use model::DatabaseUid;
use model::proxy::{Granted, WISH_WAIT, WISHES_MAX, Wish};
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// How long a worker may take to make room for an answer.
const TELL_WAIT: Duration = Duration::from_secs(5);

const AWAY: &str = "TRYAGAIN the cluster does not answer at this node, the setting was not changed; try \
                    again";
const TOO_OLD: &str = "ERR this node's cnm_exec does not take the setting from a client yet: use rladmin or \
                       the REST API";
const FULL: &str = "TRYAGAIN too many CONFIG SET are under way at this proxy; try again";
const UNKNOWN: &str = "ERR it is not known whether the setting was changed: the cluster did not say so in \
                       time; see CONFIG GET";

/// A wish of a client, from its worker.
#[derive(Debug)]
pub(crate) struct Wished {
    pub(crate) database: DatabaseUid,
    pub(crate) flags: String,
    pub(crate) client: SocketAddr,
    pub(crate) worker: WorkerHandle,
    pub(crate) asker: ClientId,
    pub(crate) at: Instant,
}

/// What `cnm_exec` says about wishes.
#[derive(Debug)]
pub(crate) enum Heard {
    /// Whether it takes them, and questions.
    Takes {
        /// Them.
        wishes: bool,
        /// Those.
        questions: bool,
    },
    /// What became of one.
    Granted(Granted),
}

/// The wishes of all clients.
#[derive(Debug)]
pub(crate) struct Wishes {
    asked: mpsc::Receiver<Wished>,
    /// In the order in which they came.
    pending: Vec<Pending>,
    next: u64,
    /// Whether `cnm_exec` takes wishes; `None`: it has not said so yet.
    takes: Option<bool>,
}

#[derive(Debug)]
struct Pending {
    wished: Wished,
    /// Its number, once it is sent, or the number of the same one that is.
    sent: Option<u64>,
}

impl Wishes {
    /// Those that come from workers.
    pub(crate) fn new(asked: mpsc::Receiver<Wished>) -> Self {
        Self {
            asked,
            pending: Vec::new(),
            next: 1,
            takes: None,
        }
    }

    /// Waits for something to be done: a wish that comes, or one that has waited too long.
    pub(crate) async fn changed(&mut self) {
        let first = self
            .pending
            .iter()
            .map(|pending| pending.wished.at + WISH_WAIT)
            .min();
        let late = async {
            match first {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            Some(wished) = self.asked.recv() => self.take(wished),
            () = late => self.expire(Instant::now()),
        }
    }

    fn take(&mut self, wished: Wished) {
        if self.pending.len() >= WISHES_MAX {
            answer(wished, Some(FULL.to_owned()));
            return;
        }
        self.pending.push(Pending { wished, sent: None });
    }

    fn expire(&mut self, now: Instant) {
        self.end(
            |pending| now >= pending.wished.at + WISH_WAIT,
            |sent| {
                if sent { UNKNOWN } else { AWAY }
            },
        );
    }

    /// Answers those that `which` names.
    fn end(&mut self, which: impl Fn(&Pending) -> bool, why: impl Fn(bool) -> &'static str) {
        let (ended, left) = std::mem::take(&mut self.pending)
            .into_iter()
            .partition(which);
        self.pending = left;
        let ended: Vec<Pending> = ended;
        for pending in ended {
            answer(pending.wished, Some(why(pending.sent.is_some()).to_owned()));
        }
    }

    /// The connection is gone: what was sent may be granted all the same.
    pub(crate) fn lost(&mut self) {
        self.takes = None;
        self.end(|_| true, |sent| if sent { UNKNOWN } else { AWAY });
    }

    /// While there is no connection, everybody is told so at once.
    pub(crate) async fn refuse(&mut self) {
        loop {
            match self.asked.recv().await {
                Some(wished) => answer(wished, Some(AWAY.to_owned())),
                None => std::future::pending().await,
            }
        }
    }

    /// `cnm_exec` has said something.
    pub(crate) fn heard(&mut self, heard: Heard) {
        match heard {
            Heard::Takes { wishes, .. } => self.takes = Some(wishes),
            Heard::Granted(granted) => {
                let (ended, left) = std::mem::take(&mut self.pending)
                    .into_iter()
                    .partition(|pending| pending.sent == Some(granted.number));
                self.pending = left;
                let ended: Vec<Pending> = ended;
                for pending in ended {
                    answer(pending.wished, granted.refusal.clone());
                }
            }
        }
    }

    /// What is to be sent next.
    pub(crate) fn next(&mut self) -> Option<Wish> {
        match self.takes {
            None => return None,
            Some(false) => {
                self.end(|_| true, |_| TOO_OLD);
                return None;
            }
            Some(true) => {}
        }
        let under_way = |database| {
            let mut pending = self.pending.iter();
            pending.any(|known| known.sent.is_some() && known.wished.database == database)
        };
        let first = self
            .pending
            .iter()
            .find(|known| known.sent.is_none() && !under_way(known.wished.database))?;
        let wish = Wish {
            number: self.next,
            database: first.wished.database,
            notify_keyspace_events: first.wished.flags.clone(),
            client: first.wished.client.to_string(),
        };
        self.next += 1;
        for known in &mut self.pending {
            let same = known.wished.database == wish.database
                && known.wished.flags == wish.notify_keyspace_events;
            if same && known.sent.is_none() {
                known.sent = Some(wish.number);
            }
        }
        Some(wish)
    }
}

/// Tells the client's worker, as soon as that has room.
fn answer(wished: Wished, refusal: Option<String>) {
    let Wished { worker, asker, .. } = wished;
    tell_in_time(worker, Message::Wished(asker, refusal), "CONFIG SET");
}

/// Tells a worker the answer to a command, as soon as that has room.
pub(crate) fn tell_in_time(worker: WorkerHandle, message: Message, command: &'static str) {
    let mut message = message;
    if let Err(back) = worker.tell(message) {
        message = back;
        tokio::spawn(async move {
            let deadline = Instant::now() + TELL_WAIT;
            while let Err(back) = worker.tell(message) {
                if Instant::now() > deadline {
                    tracing::error!(command, "an answer is lost: the worker's inbox is full");
                    return;
                }
                message = back;
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::Prepared;

    fn wished(database: u64, flags: &str) -> Wished {
        Wished {
            database: DatabaseUid(database),
            flags: flags.to_owned(),
            client: "127.0.0.1:1".parse().unwrap(),
            worker: Prepared::new(0).unwrap().handle(),
            asker: ClientId {
                index: 0,
                generation: 0,
            },
            at: Instant::now(),
        }
    }

    /// Numbers and databases of what is sent now.
    fn sent(wishes: &mut Wishes) -> Vec<(u64, u64)> {
        std::iter::from_fn(|| wishes.next())
            .map(|wish| (wish.number, wish.database.0))
            .collect()
    }

    fn takes(wishes: bool) -> Heard {
        Heard::Takes {
            wishes,
            questions: false,
        }
    }

    fn granted(number: u64) -> Heard {
        Heard::Granted(Granted {
            number,
            refusal: None,
        })
    }

    #[tokio::test]
    async fn one_of_a_database_at_a_time_and_the_same_once() {
        let (sender, asked) = mpsc::channel(8);
        let mut wishes = Wishes::new(asked);
        for (database, flags) in [(1, "KEA"), (1, "Ex"), (1, "KEA"), (2, "Ex")] {
            sender.try_send(wished(database, flags)).unwrap();
            wishes.changed().await;
        }
        assert_eq!(sent(&mut wishes), []);
        wishes.heard(takes(true));
        assert_eq!(sent(&mut wishes), [(1, 1), (2, 2)]);
        wishes.heard(granted(1));
        assert_eq!(sent(&mut wishes), [(3, 1)]);
        assert_eq!(wishes.pending.len(), 2);
        wishes.lost();
        assert!(wishes.pending.is_empty());
    }

    #[tokio::test]
    async fn there_is_a_bound_and_an_end() {
        let (sender, asked) = mpsc::channel(8);
        let mut wishes = Wishes::new(asked);
        for _ in 0..WISHES_MAX + 3 {
            sender.try_send(wished(1, "KEA")).unwrap();
            wishes.changed().await;
        }
        assert_eq!(wishes.pending.len(), WISHES_MAX);
        wishes.expire(Instant::now() + WISH_WAIT);
        assert!(wishes.pending.is_empty());
        sender.try_send(wished(1, "KEA")).unwrap();
        wishes.changed().await;
        wishes.heard(takes(false));
        assert_eq!(sent(&mut wishes), []);
        assert!(wishes.pending.is_empty());
    }
}
