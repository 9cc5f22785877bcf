//! The addresses that may be given out: those where a proxy of the endpoint accepts connections now.

use crate::reach::Reach;
use crate::view::{Endpoint, Place, View};
use model::NodeUid;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{broadcast, watch};
use tokio::task::JoinSet;

/// An address that was given out stays the answer for this long while it works, though a nearer one may
/// be back: clients that were told of one move are not told of the next at once.
const STAYS: Duration = Duration::from_secs(30);
/// How long an endpoint that accepts connections nowhere is asked for again before that is the answer: as long as a
/// machine that is silent is tried.
const SETTLES: Duration = Duration::from_millis(600);
/// Pause between two of these tries.
const ASK_AGAIN: Duration = Duration::from_millis(20);
/// Endpoints beyond which those that have been shut for longer are forgotten.
const SHUT_MAX: usize = 4_096;
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

/// How an address is asked.
#[derive(Clone, Copy, Debug)]
enum Asks {
    /// One that was shut a moment ago counts as shut.
    Soon,
    /// An answer that is not old counts.
    Surely,
    /// An answer of this moment alone.
    Now,
}

async fn is_open(reach: &Arc<Reach>, socket: SocketAddr, asks: Asks) -> bool {
    match asks {
        Asks::Soon => reach.is_open_soon(socket).await,
        Asks::Surely => reach.is_open(socket).await,
        Asks::Now => reach.is_open_now(socket, ASK_AGAIN).await,
    }
}

/// An endpoint that accepts connections nowhere.
#[derive(Clone, Debug)]
struct Shut {
    /// Whose proxies should serve it: of others it is asked anew.
    nodes: Vec<NodeUid>,
    since: Instant,
}

/// Finds endpoints. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Finder {
    view: watch::Receiver<Arc<View>>,
    reach: Arc<Reach>,
    /// What the Sentinel commands answered last, by database and port: a port that is given away to
    /// another database is another thing.
    given: Arc<Mutex<BTreeMap<(u64, u16), Given>>>,
    /// Endpoints that accept connections nowhere.
    shut: Arc<Mutex<BTreeMap<(u64, u16), Shut>>>,
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
            shut: Arc::default(),
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
        let began = Instant::now();
        // Before the answer is "nowhere", those that were only remembered as shut are asked.
        for asks in [Asks::Soon, Asks::Surely] {
            let open = self.open_of(view, endpoint, asks).await;
            if !open.is_empty() {
                self.is_there(endpoint);
                return open;
            }
        }
        while let Some((view, index)) = self.again(endpoint, began).await {
            let open = self.open_of(&view, &view.endpoints[index], Asks::Now).await;
            if !open.is_empty() {
                self.is_there(endpoint);
                return open;
            }
        }
        Vec::new()
    }

    async fn open_of(&self, view: &View, endpoint: &Endpoint, asks: Asks) -> Vec<Place> {
        let places = view.places(endpoint);
        let (doubtful, good): (Vec<Place>, Vec<Place>) =
            places.into_iter().partition(|place| place.doubtful);
        for group in [&good, &doubtful] {
            let open = self.open(group, asks).await;
            if !open.is_empty() {
                return open;
            }
        }
        Vec::new()
    }

    async fn open(&self, places: &[Place], asks: Asks) -> Vec<Place> {
        let mut asked = JoinSet::new();
        for (index, place) in places.iter().enumerate() {
            let reach = Arc::clone(&self.reach);
            let socket = place.socket;
            asked.spawn(async move { (index, is_open(&reach, socket, asks).await) });
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

    /// The first place of an endpoint that accepts connections.
    async fn first(&self, view: &View, endpoint: &Endpoint) -> Option<Place> {
        let began = Instant::now();
        for asks in [Asks::Soon, Asks::Surely] {
            if let Some(place) = self.first_of(view, endpoint, asks).await {
                self.is_there(endpoint);
                return Some(place);
            }
        }
        while let Some((view, index)) = self.again(endpoint, began).await {
            let endpoint = &view.endpoints[index];
            if let Some(place) = self.first_of(&view, endpoint, Asks::Now).await {
                self.is_there(endpoint);
                return Some(place);
            }
        }
        None
    }

    /// The one that was given out last while that is not long ago, then the nearest.
    async fn first_of(&self, view: &View, endpoint: &Endpoint, asks: Asks) -> Option<Place> {
        let mut places = view.places(endpoint);
        if let Some(given) = self.given(endpoint)
            && given.since.elapsed() < STAYS
        {
            places.sort_by_key(|place| (place.doubtful, place.socket != given.socket));
        }
        for place in &places {
            if is_open(&self.reach, place.socket, asks).await {
                return Some(*place);
            }
        }
        None
    }

    /// What this node knows after a moment, if an endpoint that accepts connections nowhere is to be asked again
    /// before that is the answer: one that is elsewhere since a moment is left by its old proxies before all nodes know
    /// of that, and before the new ones listen. Not for long, and once: an endpoint that is gone is gone.
    async fn again(&self, endpoint: &Endpoint, began: Instant) -> Option<(Arc<View>, usize)> {
        let key = (endpoint.database, endpoint.port);
        if self.shut_since(endpoint, began).elapsed() >= SETTLES {
            return None;
        }
        tokio::time::sleep(ASK_AGAIN).await;
        let view = self.view();
        let place = |e: &Endpoint| (e.database, e.port) == key;
        let index = view.endpoints.iter().position(place)?;
        Some((view, index))
    }

    fn shut_since(&self, endpoint: &Endpoint, began: Instant) -> Instant {
        let mut nodes: Vec<NodeUid> = endpoint.proxies.iter().map(|p| p.node).collect();
        nodes.sort_unstable();
        let now = Shut {
            nodes,
            since: began,
        };
        let mut shut = self.shut.lock().unwrap_or_else(PoisonError::into_inner);
        if shut.len() > SHUT_MAX {
            shut.retain(|_, shut| shut.since.elapsed() < SETTLES);
        }
        let key = (endpoint.database, endpoint.port);
        let known = shut.entry(key).or_insert_with(|| now.clone());
        if known.nodes != now.nodes {
            *known = now;
        }
        known.since
    }

    fn is_there(&self, endpoint: &Endpoint) {
        let mut shut = self.shut.lock().unwrap_or_else(PoisonError::into_inner);
        shut.remove(&(endpoint.database, endpoint.port));
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

    /// Its old proxy accepts nobody any more, the new one not yet, and not every node knows of the move: nobody hears
    /// that there is no address, and nobody that it was lost.
    #[tokio::test]
    async fn an_endpoint_that_is_moving_is_waited_for() {
        for dns in [false, true] {
            let (sender, finder, mut listeners) = with_free_port(2).await;
            sender.send_modify(|view| only(view, 1));
            let mut news = finder.news();
            assert_eq!(last(&found(&finder).await), Some(1));
            let port = finder.view().endpoints[0].port;
            listeners.clear();
            // What was remembered of it is over.
            until_shut(&finder).await;
            let asked = {
                let finder = finder.clone();
                tokio::spawn(async move {
                    let view = finder.view();
                    match dns {
                        true => finder.live(&view, &view.endpoints[0]).await.len(),
                        false => usize::from(found(&finder).await.live),
                    }
                })
            };
            tokio::task::yield_now().await;
            sender.send_modify(|view| only(view, 3));
            let _third = TcpListener::bind(SocketAddr::from(([127, 0, 9, 3], port)))
                .await
                .unwrap();
            assert_eq!(asked.await.unwrap(), 1);
            assert_eq!(last(&found(&finder).await), Some(3));
            while let Ok(news) = news.try_recv() {
                assert!(matches!(news, News::Moved { .. }), "{news:?}");
            }
        }
    }

    fn only(view: &mut Arc<View>, node: u64) {
        let mut other = (**view).clone();
        let proxy = crate::view::Proxy {
            node: NodeUid(node),
            doubtful: false,
        };
        other.endpoints[0].proxies = vec![proxy];
        *view = Arc::new(other);
    }

    async fn until_shut(finder: &Finder) {
        let view = finder.view();
        let place = view.places(&view.endpoints[0])[0];
        let deadline = Instant::now() + Duration::from_secs(10);
        while finder.reach.is_open(place.socket).await {
            assert!(Instant::now() < deadline, "it is open still");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// What is gone is waited for once.
    #[tokio::test]
    async fn an_endpoint_that_is_gone_is_not_waited_for_again() {
        let (_sender, finder, listeners) = with_free_port(1).await;
        drop(listeners);
        assert!(!found(&finder).await.live);
        let view = finder.view();
        let endpoint = &view.endpoints[0];
        assert!(finder.again(endpoint, Instant::now()).await.is_none());
    }
}
