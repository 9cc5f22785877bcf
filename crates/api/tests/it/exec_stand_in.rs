//! Speaks `cnm_exec`'s local protocol: answers what the test has put in, and keeps what it was told.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use model::documents::Event;
use model::history::{HistoryAnswer, HistoryQuery};
use model::intent::{
    BootstrapStatus, CreateCluster, Intent, IntentOutcome, JoinCluster, JoinGrant, JoinRequest,
};
use model::rest::NodeCheck;
use model::view::ClusterView;
use model::{ApiError, ErrorCode, NodeUid};
use serde::Serialize;
use std::path::Path as FilePath;
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::net::UnixListener;
use tokio::sync::Notify;

/// What it answers and what it was told.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) view: Result<ClusterView, ApiError>,
    pub(crate) bootstrap: BootstrapStatus,
    pub(crate) bootstrap_fails: Option<ApiError>,
    pub(crate) outcome: Result<IntentOutcome, ApiError>,
    pub(crate) events: Vec<Event>,
    /// What it has kept, by interval.
    pub(crate) history: Vec<(HistoryQuery, HistoryAnswer)>,
    pub(crate) intents: Vec<Intent>,
    pub(crate) created: Vec<CreateCluster>,
    pub(crate) joined: Vec<JoinCluster>,
    pub(crate) admitted: Vec<JoinRequest>,
    pub(crate) views_asked: usize,
}

#[derive(Clone, Debug)]
pub(crate) struct StandIn {
    said: Arc<Mutex<Said>>,
    /// Bootstraps wait for it when `held` is set.
    pub(crate) go_on: Arc<Notify>,
    pub(crate) held: Arc<std::sync::atomic::AtomicBool>,
}

impl StandIn {
    pub(crate) fn new(view: Option<ClusterView>) -> Self {
        let state = if view.is_some() { "completed" } else { "idle" };
        Self {
            said: Arc::new(Mutex::new(Said {
                view: view.ok_or_else(|| ErrorCode::NotMember.into()),
                bootstrap: crate::fixture::bootstrap(state),
                bootstrap_fails: None,
                outcome: Ok(IntentOutcome::default()),
                events: Vec::new(),
                history: Vec::new(),
                intents: Vec::new(),
                created: Vec::new(),
                joined: Vec::new(),
                admitted: Vec::new(),
                views_asked: 0,
            })),
            go_on: Arc::default(),
            held: Arc::default(),
        }
    }

    pub(crate) fn said(&self) -> MutexGuard<'_, Said> {
        self.said.lock().unwrap()
    }

    /// Listens until the runtime ends.
    pub(crate) fn listen(&self, socket: &FilePath) {
        let listener = UnixListener::bind(socket).unwrap();
        let router = Router::new()
            .route("/local/view", get(view))
            .route("/local/bootstrap", get(bootstrap))
            .route("/local/create-cluster", post(create))
            .route("/local/join-cluster", post(join))
            .route("/local/admit", post(admit))
            .route("/local/intent", post(intent))
            .route("/local/events", get(events))
            .route("/local/history", post(history))
            .route("/local/check/{uid}", post(check))
            .with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
    }

    async fn bootstrapped(&self) -> Result<BootstrapStatus, ApiError> {
        if self.held.load(std::sync::atomic::Ordering::SeqCst) {
            self.go_on.notified().await;
        }
        let mut said = self.said();
        if let Some(error) = said.bootstrap_fails.clone() {
            return Err(error);
        }
        said.bootstrap = crate::fixture::bootstrap("completed");
        said.view = Ok(crate::fixture::view());
        Ok(said.bootstrap.clone())
    }
}

fn answer<T: Serialize>(result: Result<T, ApiError>) -> Response {
    match result {
        Ok(value) => Json(value).into_response(),
        Err(error) => {
            let status = StatusCode::from_u16(error.error_code.status()).unwrap();
            (status, Json(error)).into_response()
        }
    }
}

async fn view(State(me): State<StandIn>) -> Response {
    let mut said = me.said();
    said.views_asked += 1;
    answer(said.view.clone())
}

async fn bootstrap(State(me): State<StandIn>) -> Response {
    answer(Ok(me.said().bootstrap.clone()))
}

async fn create(State(me): State<StandIn>, Json(create): Json<CreateCluster>) -> Response {
    me.said().created.push(create);
    answer(me.bootstrapped().await)
}

async fn join(State(me): State<StandIn>, Json(join): Json<JoinCluster>) -> Response {
    me.said().joined.push(join);
    answer(me.bootstrapped().await)
}

async fn admit(State(me): State<StandIn>, Json(request): Json<JoinRequest>) -> Response {
    let mut said = me.said();
    said.admitted.push(request);
    answer(Ok(JoinGrant {
        node: NodeUid(4),
        cluster_id: "id".to_owned(),
        cluster_name: "cluster.local".to_owned(),
        ca_certificate: "ca".to_owned(),
        certificate: "cert".to_owned(),
        members: vec![(NodeUid(1), "127.0.1.1:3342".to_owned())],
    }))
}

async fn intent(State(me): State<StandIn>, Json(intent): Json<Intent>) -> Response {
    let mut said = me.said();
    said.intents.push(intent);
    answer(said.outcome.clone())
}

async fn history(State(me): State<StandIn>, Json(query): Json<HistoryQuery>) -> Response {
    let said = me.said();
    let interval = |at: &&(HistoryQuery, HistoryAnswer)| at.0.interval == query.interval;
    answer(match said.history.iter().find(interval) {
        Some((_, kept)) => Ok(kept.clone()),
        None => Err(ErrorCode::NoQuorum.into()),
    })
}

async fn events(State(me): State<StandIn>) -> Response {
    answer(Ok(me.said().events.clone()))
}

async fn check(Path(uid): Path<NodeUid>) -> Response {
    if uid == NodeUid(3) {
        let error = ApiError::new(ErrorCode::ConnectError, "node 3 is not heard");
        return answer::<NodeCheck>(Err(error));
    }
    answer(Ok(NodeCheck {
        node_uid: uid,
        result: true,
        error: None,
    }))
}
