//! The addresses that may be given out: those where a proxy of the endpoint accepts connections now.

use crate::reach::Reach;
use crate::view::{Endpoint, Place, View};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{broadcast, watch};
use tokio::task::JoinSet;

/// An address that was given out stays the answer for this long while it works, though a nearer one may
/// be back: clients that were told of one move are not told of the next at once.
const STAYS: Duration = Duration::from_secs(30);
/// Messages that a slow subscriber may be behind; it loses the oldest.
const NEWS_MAX: usize = 1_024;

/// Something that subscribers are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// A database is to be found elsewhere.
    Moved {
        /// Its name, as it is asked for.
        name: String,
        /// Where it was.
        from: SocketAddr,
        /// Where it is.
        to: SocketAddr,
    },
    /// It cannot be found any more.
    Lost {
        /// Its name.
        name: String,
        /// Where it was.
        at: SocketAddr,
    },
    /// It is there again where it was.
    Back {
        /// Its name.
        name: String,
        /// Where.
        at: SocketAddr,
    },
}

/// The answer for a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The name, as it is asked for.
    pub name: String,
    /// Id of the database.
    pub database: u64,
    /// Its address: where it works, or, if it works nowhere, where it should.
    pub address: Option<SocketAddr>,
    /// Whether it accepts connections there.
    pub live: bool,
}

#[derive(Clone, Copy, Debug)]
struct Given {
    socket: SocketAddr,
    since: Instant,
    lost: bool,
}

/// Finds endpoints. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Finder {
    view: watch::Receiver<Arc<View>>,
    reach: Arc<Reach>,
    /// What the Sentinel commands answered last, by database and port: a port that is given away to
    /// another database is another thing.
    given: Arc<Mutex<BTreeMap<(u64, u16), Given>>>,
    news: broadcast::Sender<News>,
}

impl Finder {
    /// `source`: this node's address.
    #[must_use]
    pub fn new(view: watch::Receiver<Arc<View>>, source: IpAddr) -> Self {
        Self {
            view,
            reach: Reach::new(source),
            given: Arc::default(),
            news: broadcast::Sender::new(NEWS_MAX),
        }
    }

    /// What this node knows now.
    #[must_use]
    pub fn view(&self) -> Arc<View> {
        Arc::clone(&self.view.borrow())
    }

    /// Waits until this node knows something else; never returns when nothing more comes.
    pub async fn changed(&mut self) {
        if self.view.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// What happens to the names that were asked for.
    #[must_use]
    pub fn news(&self) -> broadcast::Receiver<News> {
        self.news.subscribe()
    }

    /// Whether anybody listens to the news.
    #[must_use]
    pub fn is_heard(&self) -> bool {
        self.news.receiver_count() > 0
    }

    /// All places of an endpoint that accept connections, nearest first; a doubtful one only if no other
    /// does.
    pub async fn live(&self, view: &View, endpoint: &Endpoint) -> Vec<Place> {
        let places = view.places(endpoint);
        let (doubtful, good): (Vec<Place>, Vec<Place>) =
            places.into_iter().partition(|place| place.doubtful);
        for group in [&good, &doubtful] {
            let open = self.open(group, false).await;
            if !open.is_empty() {
                return open;
            }
        }
        // Before the answer is "nowhere", those that were only remembered as shut are asked.
        for group in [&good, &doubtful] {
            let open = self.open(group, true).await;
            if !open.is_empty() {
                return open;
            }
        }
        Vec::new()
    }

    async fn open(&self, places: &[Place], surely: bool) -> Vec<Place> {
        let mut asked = JoinSet::new();
        for (index, place) in places.iter().enumerate() {
            let reach = Arc::clone(&self.reach);
            let socket = place.socket;
            asked.spawn(async move {
                let open = if surely {
                    reach.is_open(socket).await
                } else {
                    reach.is_open_soon(socket).await
                };
                (index, open)
            });
        }
        let mut open = vec![false; places.len()];
        while let Some(answer) = asked.join_next().await {
            if let Ok((index, is_open)) = answer {
                open[index] = is_open;
            }
        }
        let both = places.iter().zip(open);
        both.filter_map(|(place, open)| open.then_some(*place))
            .collect()
    }

    /// The first place of an endpoint that accepts connections: the one that was given out last while
    /// that is not long ago, then the nearest.
    async fn first(&self, view: &View, endpoint: &Endpoint) -> Option<Place> {
        let mut places = view.places(endpoint);
        if let Some(given) = self.given(endpoint)
            && given.since.elapsed() < STAYS
        {
            places.sort_by_key(|place| (place.doubtful, place.socket != given.socket));
        }
        for place in &places {
            if self.reach.is_open_soon(place.socket).await {
                return Some(*place);
            }
        }
        for place in &places {
            if self.reach.is_open(place.socket).await {
                return Some(*place);
            }
        }
        None
    }

    /// Where the database of an endpoint is, and tells subscribers if that is news.
    pub async fn find(&self, view: &View, endpoint: &Endpoint, internal: bool) -> Found {
        let first = self.first(view, endpoint).await;
        self.note(view, endpoint, first);
        let name = if internal {
            format!("{}{}", endpoint.name, crate::view::INTERNAL_SUFFIX)
        } else {
            endpoint.name.clone()
        };
        let places = view.places(endpoint);
        let place = first.or_else(|| places.first().copied());
        Found {
            name,
            database: endpoint.database,
            address: place.map(|place| place.address(internal)),
            live: first.is_some(),
        }
    }

    /// The same for many endpoints, in their order.
    pub async fn find_all(&self, view: &Arc<View>, internal: bool) -> Vec<Found> {
        let mut asked = JoinSet::new();
        for index in 0..view.endpoints.len() {
            let finder = self.clone();
            let view = Arc::clone(view);
            asked.spawn(async move {
                let endpoint = &view.endpoints[index];
                (index, finder.find(&view, endpoint, internal).await)
            });
        }
        let mut found: Vec<(usize, Found)> = Vec::new();
        while let Some(answer) = asked.join_next().await {
            found.extend(answer.ok());
        }
        found.sort_by_key(|(index, _)| *index);
        found.into_iter().map(|(_, found)| found).collect()
    }

    fn given(&self, endpoint: &Endpoint) -> Option<Given> {
        let given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        given.get(&(endpoint.database, endpoint.port)).copied()
    }

    fn note(&self, view: &View, endpoint: &Endpoint, first: Option<Place>) {
        let mut given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        if given.len() > view.endpoints.len() {
            let known =
                |key: &(u64, u16)| view.endpoints.iter().any(|e| (e.database, e.port) == *key);
            given.retain(|key, _| known(key));
        }
        let key = (endpoint.database, endpoint.port);
        let Some(first) = first else {
            if let Some(last) = given.get_mut(&key)
                && !last.lost
            {
                last.lost = true;
                self.tell(view, endpoint, last.socket, |name, at| News::Lost {
                    name,
                    at,
                });
            }
            return;
        };
        match given.get_mut(&key) {
            Some(last) if last.socket == first.socket => {
                if std::mem::take(&mut last.lost) {
                    self.tell(view, endpoint, last.socket, |name, at| News::Back {
                        name,
                        at,
                    });
                }
            }
            last => {
                if let Some(last) = last {
                    self.tell_moved(view, endpoint, last.socket, first.socket);
                }
                let now = Given {
                    socket: first.socket,
                    since: Instant::now(),
                    lost: false,
                };
                given.insert(key, now);
            }
        }
    }

    fn tell_moved(&self, view: &View, endpoint: &Endpoint, from: SocketAddr, to: SocketAddr) {
        let seen = |socket| outside(view, socket);
        for (name, from, to) in [
            (endpoint.name.clone(), seen(from), seen(to)),
            (internal_name(endpoint), from, to),
        ] {
            // Nobody may be listening.
            let _ = self.news.send(News::Moved { name, from, to });
        }
    }

    fn tell(
        &self,
        view: &View,
        endpoint: &Endpoint,
        at: SocketAddr,
        news: impl Fn(String, SocketAddr) -> News,
    ) {
        let _ = self
            .news
            .send(news(endpoint.name.clone(), outside(view, at)));
        let _ = self.news.send(news(internal_name(endpoint), at));
    }
}

fn internal_name(endpoint: &Endpoint) -> String {
    format!("{}{}", endpoint.name, crate::view::INTERNAL_SUFFIX)
}

/// A node's socket as seen from outside; that of a node which has left stays as it is.
fn outside(view: &View, socket: SocketAddr) -> SocketAddr {
    let node = view.nodes.iter().find(|node| node.address == socket.ip());
    let external = node.and_then(|node| node.external);
    SocketAddr::new(external.unwrap_or(socket.ip()), socket.port())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::view::tests::three_nodes;
    use tokio::net::TcpListener;

    /// A view whose endpoints have a port on which nobody else listens.
    pub(crate) async fn with_free_port(
        me: u64,
    ) -> (watch::Sender<Arc<View>>, Finder, Vec<TcpListener>) {
        let mut view = three_nodes(me);
        let first = TcpListener::bind((view.nodes[0].address, 0)).await.unwrap();
        let port = first.local_addr().unwrap().port();
        let mut listeners = vec![first];
        for node in &view.nodes[1..] {
            listeners.push(TcpListener::bind((node.address, port)).await.unwrap());
        }
        view.endpoints[0].port = port;
        let (sender, receiver) = watch::channel(Arc::new(view));
        let finder = Finder::new(receiver, [127, 0, 9, 1].into());
        (sender, finder, listeners)
    }

    async fn found(finder: &Finder) -> Found {
        let view = finder.view();
        finder.find(&view, &view.endpoints[0], true).await
    }

    async fn until(finder: &Finder, good: impl Fn(&Found) -> bool) -> Found {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let found = found(finder).await;
            if good(&found) {
                return found;
            }
            assert!(Instant::now() < deadline, "still {found:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn last(found: &Found) -> Option<u8> {
        match found.address?.ip() {
            IpAddr::V4(ip) => Some(ip.octets()[3]),
            IpAddr::V6(_) => None,
        }
    }

    #[tokio::test]
    async fn what_accepts_no_connections_is_not_given_out_and_news_are_told() {
        let (_sender, finder, mut listeners) = with_free_port(1).await;
        let mut news = finder.news();
        assert_eq!(last(&found(&finder).await), Some(1));
        let view = finder.view();
        let live = finder.live(&view, &view.endpoints[0]).await;
        assert_eq!(live.len(), 3);

        let port = view.endpoints[0].port;
        drop(listeners.remove(0));
        until(&finder, |f| last(f) == Some(2)).await;
        let live = finder.live(&view, &view.endpoints[0]).await;
        assert_eq!(live.len(), 2, "{live:?}");
        let moved = |name: &str, from: [u8; 4], to: [u8; 4]| News::Moved {
            name: name.to_owned(),
            from: (from, port).into(),
            to: (to, port).into(),
        };
        let [one, two] = [[127, 0, 9, 1], [127, 0, 9, 2]];
        assert_eq!(news.try_recv().unwrap(), moved("demo", one, two));
        assert_eq!(news.try_recv().unwrap(), moved("demo@internal", one, two));

        // The nearest is back: the answer stays for a while.
        let _first = TcpListener::bind(SocketAddr::from((one, port)))
            .await
            .unwrap();
        let both = |live: &[Place]| live.len() == 3;
        let deadline = Instant::now() + Duration::from_secs(10);
        while !both(&finder.live(&view, &view.endpoints[0]).await) {
            assert!(
                Instant::now() < deadline,
                "a listener that is back is not found"
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(last(&found(&finder).await), Some(2));
        assert!(news.try_recv().is_err());

        // All gone.
        drop(_first);
        listeners.clear();
        let gone = until(&finder, |f| !f.live).await;
        assert!(gone.address.is_some());
        assert!(finder.live(&view, &view.endpoints[0]).await.is_empty());
        assert!(matches!(news.try_recv().unwrap(), News::Lost { name, .. } if name == "demo"));
    }

    #[tokio::test]
    async fn a_doubtful_one_is_given_out_only_when_no_other_is_left() {
        let (sender, finder, listeners) = with_free_port(1).await;
        sender.send_modify(|view| {
            let mut other = (**view).clone();
            other.endpoints[0].proxies[0].doubtful = true;
            *view = Arc::new(other);
        });
        let view = finder.view();
        assert_eq!(last(&found(&finder).await), Some(2));
        assert_eq!(finder.live(&view, &view.endpoints[0]).await.len(), 2);
        drop(listeners.into_iter().skip(1).collect::<Vec<_>>());
        // The first listener is dropped too by now, with the iterator: nothing is left.
        until(&finder, |f| !f.live).await;
    }

    #[tokio::test]
    async fn an_endpoint_that_moves_is_news() {
        let (sender, finder, _listeners) = with_free_port(1).await;
        let mut news = finder.news();
        assert_eq!(last(&found(&finder).await), Some(1));
        sender.send_modify(|view| {
            let mut other = (**view).clone();
            other.endpoints[0].proxies.retain(|p| p.node.0 == 3);
            *view = Arc::new(other);
        });
        assert_eq!(last(&found(&finder).await), Some(3));
        let News::Moved { name, to, .. } = news.try_recv().unwrap() else {
            panic!("another message");
        };
        assert_eq!((name.as_str(), to.ip()), ("demo", [192, 0, 2, 3].into()));
    }
}
