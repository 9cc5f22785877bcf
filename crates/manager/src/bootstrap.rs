//! Create a cluster, join one, admit a node.
//!
//! Everything is prepared before `node.id` is written; a node that was killed before has no
//! identity and starts again from nothing, one that was killed after goes on by itself.

use crate::certificates::{self, Authority, NodeNames};
use crate::exec::{Exec, write_identity};
use crate::internode;
use crate::levels;
use crate::member::{self, Member};
use crate::primary::{self, Primary};
use client::internode::{InternodeClient, NodeCertificates};
use client::join;
use controller::reconcile::store_error;
use controller::state::{Change, ClusterState};
use jiff::Timestamp;
use model::documents::{Cluster, ClusterSettings, ManagementRole, Node, Severity, User, keys};
use model::ids::UserUid;
use model::intent::{BootstrapStatus, CreateCluster, JoinCluster, JoinGrant, JoinRequest};
use model::limits::NODES_MAX;
use model::node_config::NodeIdentity;
use model::{ApiError, DatabaseUid, ErrorCode, NodeUid, Secret, ShardUid, validate};
use serde_json::{Map, json};
use std::net::{IpAddr, SocketAddr};
use std::sync::PoisonError;
use std::time::{Duration, Instant};
use store::{Store, Txn, TxnResult};

/// How long a joined node may take to receive the cluster's configuration.
const RECEIVE_WAIT: Duration = Duration::from_secs(30);

/// How far create or join is.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    state: &'static str,
    start: Option<Timestamp>,
    end: Option<Timestamp>,
    error: Option<ApiError>,
}

impl Progress {
    /// A node that started as a member.
    #[must_use]
    pub fn completed() -> Self {
        Self {
            state: "completed",
            ..Self::default()
        }
    }

    fn begun(state: &'static str) -> Self {
        Self {
            state,
            start: Some(Timestamp::now()),
            ..Self::default()
        }
    }

    fn ended(&self, result: Result<(), ApiError>) -> Self {
        let state = if result.is_ok() { "completed" } else { "error" };
        Self {
            state,
            start: self.start,
            end: Some(Timestamp::now()),
            error: result.err(),
        }
    }
}

/// Where this node is.
#[must_use]
pub fn status(exec: &Exec) -> BootstrapStatus {
    let progress = exec
        .progress
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone();
    let member = exec.member().ok();
    let error = progress.error;
    BootstrapStatus {
        state: if progress.state.is_empty() {
            "idle"
        } else {
            progress.state
        }
        .to_owned(),
        start_time: progress.start.map(|t| t.to_string()),
        end_time: progress.end.map(|t| t.to_string()),
        error_code: error.as_ref().map(|e| e.error_code.to_string()),
        error_details: error.map(|e| e.description),
        node: member.map(|m| m.identity.node),
        software_version: exec.program.version.clone(),
        host: exec.agent.host(),
        address: exec.program.config.address.to_string(),
        ca_fingerprint: member.and_then(|m| join::pem_fingerprint(&m.ca_certificate).ok()),
        removed: member.is_some_and(|m| m.is_removed()),
    }
}

fn failed(what: &str, error: &dyn std::fmt::Display) -> ApiError {
    ApiError::new(
        ErrorCode::InternalError,
        format!("{what}: {error:#}; see cnm_exec.log"),
    )
}

async fn begin<'a>(
    exec: &'a Exec,
    state: &'static str,
) -> Result<tokio::sync::MutexGuard<'a, ()>, ApiError> {
    let guard = exec.bootstrapping.try_lock().map_err(|_| {
        ApiError::new(
            ErrorCode::Busy,
            "another create or join is running on this node".to_owned(),
        )
    })?;
    if let Ok(member) = exec.member() {
        if member.is_removed() {
            return Err(crate::primary::removed(member));
        }
        return Err(ApiError::new(
            ErrorCode::AlreadyMember,
            format!(
                "this node is node:{} of cluster '{}' already. {}",
                member.identity.node,
                member.identity.cluster_name,
                ErrorCode::AlreadyMember.remedy()
            ),
        ));
    }
    // Known before anything is written: a node with an identity and without its port would neither
    // be a member nor be asked again.
    if let Err(error) = internode::bind(&exec.program.config) {
        return Err(ApiError::new(
            ErrorCode::ConfigError,
            format!("{error:#}: end the program that has the port, and try again"),
        ));
    }
    exec.set_progress(Progress::begun(state));
    Ok(guard)
}

fn end(exec: &Exec, result: Result<(), ApiError>) -> Result<BootstrapStatus, ApiError> {
    let progress = exec
        .progress
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone();
    exec.set_progress(progress.ended(result.clone()));
    result.map(|()| status(exec))
}

/// Makes this node the first of a new cluster.
///
/// # Errors
/// As [`ErrorCode`] says; the node is as before then.
pub async fn create(exec: &Exec, request: CreateCluster) -> Result<BootstrapStatus, ApiError> {
    validate::cluster_name(&request.name)?;
    validate::email(&request.username)?;
    validate::password(request.password.expose())?;
    if let Some(rack) = &request.rack_id {
        validate::rack_id(rack)?;
    }
    let _guard = begin(exec, "creating_cluster").await?;
    let result = found(exec, request).await;
    end(exec, result)
}

async fn found(exec: &Exec, request: CreateCluster) -> Result<(), ApiError> {
    let program = &exec.program;
    let me = NodeUid(1);
    let password = request.password.clone();
    let hash = tokio::task::spawn_blocking(move || hash_password(&password))
        .await
        .map_err(|e| failed("hash the password", &e))??;
    let authority = Authority::create(&request.name).map_err(|e| failed("make the CA", &e))?;
    let host = exec.agent.host();
    let names = NodeNames {
        common_name: format!("node:{me}"),
        address: program.config.address.to_string(),
        dns: vec![host.hostname.clone(), request.name.clone()],
    };
    let certificates =
        sign_own(&authority, &names).map_err(|e| failed("make the node's certificate", &e))?;
    let client = InternodeClient::new(program.config.address, &certificates)
        .map_err(|e| failed("use the node's certificate", &e))?;
    clear_store(exec)?;
    let store = member::open_store(program, me, &client)
        .await
        .map_err(|e| failed("open the configuration store", &e))?;
    let identity = NodeIdentity {
        schema: 1,
        node: me,
        cluster_id: uuid::Uuid::new_v4().to_string(),
        cluster_name: request.name.clone(),
    };
    let first = first_documents(exec, &request, &authority, &identity, hash);
    if let Err(error) = write_first(&store, me, program.config.internode_address(), first).await {
        store.shutdown().await;
        return Err(error);
    }
    certificates::write(&program.config, &certificates)
        .and_then(|()| write_identity(program, &identity))
        .map_err(|e| failed("write the node's identity", &e))?;
    become_member(exec, identity, certificates, store, client).await
}

fn sign_own(authority: &Authority, names: &NodeNames) -> anyhow::Result<NodeCertificates> {
    let (key, csr) = certificates::signing_request(names)?;
    let certificate = authority.sign(&csr, names)?;
    Ok(NodeCertificates {
        ca: authority.certificate.clone(),
        certificate,
        key,
    })
}

/// A store without an identity beside it is left from a create or join that did not end.
fn clear_store(exec: &Exec) -> Result<(), ApiError> {
    let folder = exec.program.config.store_dir();
    match std::fs::remove_dir_all(&folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(failed("clear an unfinished configuration store", &error))
        }
        // Opening the store makes it anew, for its owner alone.
        _ => Ok(()),
    }
}

async fn write_first(
    store: &Store,
    me: NodeUid,
    address: SocketAddr,
    txn: Txn,
) -> Result<(), ApiError> {
    let member = store::Member {
        uid: me,
        address: address.to_string(),
    };
    store
        .initialize(member)
        .await
        .map_err(|e| store_error(&e))?;
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        match store.txn(txn.clone()).await {
            Ok(TxnResult::Applied { .. }) => return Ok(()),
            Ok(TxnResult::Conflict { key, .. }) => {
                return Err(failed(
                    "write the first documents",
                    &format!("{key} exists"),
                ));
            }
            // The election of the only voter is about to end.
            Err(store::StoreError::NotLeader { .. }) if Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Err(error) => return Err(store_error(&error)),
        }
    }
}

fn hash_password(password: &Secret) -> Result<Secret, ApiError> {
    use argon2::PasswordHasher as _;
    argon2::Argon2::default()
        .hash_password(password.expose().as_bytes())
        .map(|hash| Secret::new(hash.to_string()))
        .map_err(|e| failed("hash the password", &e))
}

fn first_documents(
    exec: &Exec,
    request: &CreateCluster,
    authority: &Authority,
    identity: &NodeIdentity,
    password_hash: Secret,
) -> Txn {
    let now = Timestamp::now();
    let config = &exec.program.config;
    let host = exec.agent.host();
    let cluster = Cluster {
        schema: 1,
        name: request.name.clone(),
        cluster_id: identity.cluster_id.clone(),
        created: now,
        feature_level: exec.program.levels.max,
        ca_certificate: authority.certificate.clone(),
        ca_key: Secret::new(authority.key.clone()),
        next_node: NodeUid(2),
        next_database: DatabaseUid(1),
        next_shard: ShardUid(1),
        next_user: UserUid(2),
        next_event: 1,
        settings: ClusterSettings::default(),
        node_loss: None,
        extra: Map::new(),
    };
    let node = Node {
        schema: 1,
        uid: identity.node,
        address: config.address.to_string(),
        external_address: request.external_address.clone(),
        rack_id: request.rack_id.clone(),
        hostname: host.hostname,
        internode_port: config.ports.internode,
        https_port: config.ports.https,
        memory_bytes: config.memory_bytes.unwrap_or(host.total_memory),
        accept_servers: true,
        proxy: model::tuning::ProxySettings::default(),
        maintenance: None,
        snapshots: Vec::new(),
        leaving: false,
        joined: now,
        extra: Map::new(),
    };
    let user = User {
        schema: 1,
        uid: UserUid(1),
        email: request.username.clone(),
        name: request.username.clone(),
        password_hash,
        management: ManagementRole::Admin,
        extra: Map::new(),
    };
    let put = vec![
        (keys::CLUSTER.to_owned(), json!(cluster)),
        (keys::node(identity.node), json!(node)),
        (keys::user(user.uid), json!(user)),
    ];
    let compare = put.iter().map(|(key, _)| (key.clone(), 0)).collect();
    Txn {
        compare,
        put,
        delete: Vec::new(),
    }
}

async fn become_member(
    exec: &Exec,
    identity: NodeIdentity,
    certificates: NodeCertificates,
    store: Store,
    client: InternodeClient,
) -> Result<(), ApiError> {
    let member = Member::start(
        exec.program.clone(),
        exec.agent.clone(),
        identity,
        &certificates,
        store,
        client,
    )
    .await
    .map_err(|e| failed("start as a member", &e))?;
    exec.set_member(member);
    Ok(())
}

/// Makes this node a member of a cluster.
///
/// # Errors
/// As [`ErrorCode`] says; the node is as before then.
pub async fn join(exec: &Exec, request: JoinCluster) -> Result<BootstrapStatus, ApiError> {
    if let Some(rack) = &request.rack_id {
        validate::rack_id(rack)?;
    }
    let members = member_addresses(exec, &request.nodes)?;
    let _guard = begin(exec, "joining_cluster").await?;
    let result = join_one_of(exec, &request, &members).await;
    end(exec, result)
}

fn member_addresses(exec: &Exec, nodes: &[String]) -> Result<Vec<SocketAddr>, ApiError> {
    if nodes.is_empty() {
        return Err(ApiError::new(
            ErrorCode::InvalidParam,
            "give the address of at least one node of the cluster".to_owned(),
        ));
    }
    let port = exec.program.config.ports.https;
    let mut addresses = Vec::new();
    for text in nodes {
        let address = text
            .parse::<SocketAddr>()
            .or_else(|_| text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, port)))
            .map_err(|_| {
                ApiError::new(
                    ErrorCode::InvalidParam,
                    format!("'{}' is not an IP address", validate::shown(text)),
                )
            })?;
        if address.ip() == exec.program.config.address {
            return Err(ApiError::new(
                ErrorCode::JoinSelf,
                format!(
                    "{} is this node itself. {}",
                    address.ip(),
                    ErrorCode::JoinSelf.remedy()
                ),
            ));
        }
        addresses.push(address);
    }
    Ok(addresses)
}

async fn join_one_of(
    exec: &Exec,
    request: &JoinCluster,
    members: &[SocketAddr],
) -> Result<(), ApiError> {
    let mut last = ApiError::from(ErrorCode::ConnectError);
    for member in members {
        match join_through(exec, request, *member).await {
            // Another member may be reachable.
            Err(error) if error.error_code == ErrorCode::ConnectError => last = error,
            other => return other,
        }
    }
    Err(last)
}

async fn join_through(
    exec: &Exec,
    request: &JoinCluster,
    through: SocketAddr,
) -> Result<(), ApiError> {
    let program = &exec.program;
    let source = program.config.address;
    let presented = join::presented_ca(source, through).await?;
    check_ca(request, through, &join::fingerprint(&presented))?;
    let host = exec.agent.host();
    let names = NodeNames {
        common_name: "joining node".to_owned(),
        address: source.to_string(),
        dns: vec![host.hostname.clone()],
    };
    let (key, csr) = certificates::signing_request(&names)
        .map_err(|e| failed("make the node's certificate", &e))?;
    let ask = JoinRequest {
        address: source.to_string(),
        hostname: host.hostname.clone(),
        internode_port: program.config.ports.internode,
        https_port: program.config.ports.https,
        memory_bytes: program.config.memory_bytes.unwrap_or(host.total_memory),
        software_version: program.version.clone(),
        feature_max: program.levels.max,
        feature_min: program.levels.min,
        csr,
        rack_id: request.rack_id.clone(),
        external_address: request.external_address.clone(),
    };
    let grant = join::admit(
        source,
        through,
        &presented,
        &request.username,
        &request.password,
        &ask,
    )
    .await?;
    settle(exec, grant, key).await
}

fn check_ca(request: &JoinCluster, through: SocketAddr, found: &str) -> Result<(), ApiError> {
    let wanted =
        match (&request.ca_fingerprint, &request.trusted_ca) {
            (Some(fingerprint), _) => Some(fingerprint.clone()),
            (None, Some(pem)) => Some(join::pem_fingerprint(pem).map_err(|e| {
                ApiError::new(ErrorCode::InvalidParam, format!("trusted_ca: {e:#}"))
            })?),
            (None, None) => None,
        };
    match wanted {
        Some(wanted) if join::same_fingerprint(&wanted, found) => Ok(()),
        Some(wanted) => Err(ApiError::new(
            ErrorCode::FingerprintMismatch,
            format!(
                "the CA of {through} has the fingerprint {found}, not {}. {} Nothing was sent.",
                validate::shown(&wanted),
                ErrorCode::FingerprintMismatch.remedy()
            ),
        )),
        None => Err(ApiError::new(
            ErrorCode::FingerprintMismatch,
            format!(
                "the CA of {through} has the fingerprint {found}. If it is the one that `rladmin \
                 info cluster` prints on a node of the cluster, join again with ca_fingerprint \
                 {found}. Nothing was sent."
            ),
        )),
    }
}

/// Becomes the node that the cluster admitted.
async fn settle(exec: &Exec, grant: JoinGrant, key: String) -> Result<(), ApiError> {
    let program = &exec.program;
    let certificates = NodeCertificates {
        ca: grant.ca_certificate,
        certificate: grant.certificate,
        key,
    };
    let client = InternodeClient::new(program.config.address, &certificates)
        .map_err(|e| failed("use the node's certificate", &e))?;
    clear_store(exec)?;
    let identity = NodeIdentity {
        schema: 1,
        node: grant.node,
        cluster_id: grant.cluster_id,
        cluster_name: grant.cluster_name,
    };
    certificates::write(&program.config, &certificates)
        .and_then(|()| write_identity(program, &identity))
        .map_err(|e| failed("write the node's identity", &e))?;
    let store = member::open_store(program, identity.node, &client)
        .await
        .map_err(|e| failed("open the configuration store", &e))?;
    let mut revisions = store.watch();
    let me = keys::node(identity.node);
    become_member(exec, identity, certificates, store.clone(), client).await?;
    let received = async {
        while !store.state().entries.contains_key(&me) {
            if revisions.changed().await.is_err() {
                return;
            }
        }
        // Joined means heard: what is asked of the cluster next counts this node in.
        while exec
            .member()
            .is_ok_and(|member| member.last_known().at.is_none())
        {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(RECEIVE_WAIT, received)
        .await
        .map_err(|_| {
            ApiError::new(
            ErrorCode::Timeout,
            "the node was admitted but has not received the configuration yet; it goes on trying: \
             see `rladmin status`, and that port 3342 is open between the nodes"
                .to_owned(),
        )
        })
}

/// Admits a node, at the primary node wherever it is.
///
/// # Errors
/// As [`ErrorCode`] says.
pub async fn admit(member: &Member, request: JoinRequest) -> Result<JoinGrant, ApiError> {
    match primary::find(member).await? {
        Primary::Me => admit_here(member, request).await,
        Primary::Other(_, address) => Ok(member.internode.admit(&address, &request).await?),
    }
}

/// Admits a node, here at the primary node.
///
/// # Errors
/// As [`ErrorCode`] says.
pub async fn admit_here(member: &Member, request: JoinRequest) -> Result<JoinGrant, ApiError> {
    check_request(&request)?;
    for _ in 0..20 {
        let _turn = member.controller.turn().await?;
        let state = member.store.barrier().await.map_err(|e| store_error(&e))?;
        let state = ClusterState::read(&state)
            .map_err(|e| store_error(&e))?
            .ok_or_else(|| ApiError::from(ErrorCode::NotReady))?;
        levels::may_join(member, &state, &request)?;
        let heard = member.controller.observations();
        let mut change = Change::of(&state, Timestamp::now());
        if let Some(same) = state.nodes.iter().find(|n| n.address == request.address) {
            let silent = heard.fresh(same.uid, Instant::now()).is_none();
            let empty = state.promised_memory(same.uid) == 0;
            if !(silent && empty && heard.age(same.uid, Instant::now()).is_none()) {
                return Err(ApiError::new(
                    ErrorCode::AlreadyMember,
                    format!(
                        "address {} belongs to node:{} already",
                        request.address, same.uid
                    ),
                ));
            }
            // Admitted before, but never heard: its join did not end. Its id is not used again.
            change.delete(keys::node(same.uid), same.revision);
        } else if state.nodes.len() >= NODES_MAX {
            return Err(ErrorCode::TooManyNodes.into());
        }
        if state.cluster.settings.rack_aware && request.rack_id.is_none() {
            return Err(ErrorCode::RackIdRequired.into());
        }
        let uid = state.cluster.next_node;
        let grant = grant(&state, uid, &request)?;
        change.cluster().next_node = uid.next();
        change.create(keys::node(uid), &new_node(uid, &request));
        change.event(Severity::Info, "node_joined", &[("node_uid", json!(uid))]);
        member.controller.admitted(uid);
        match member
            .store
            .txn(change.into_txn())
            .await
            .map_err(|e| store_error(&e))?
        {
            TxnResult::Applied { .. } => return Ok(grant),
            TxnResult::Conflict { .. } => {}
        }
    }
    Err(ErrorCode::WrongClusterStateId.into())
}

fn check_request(request: &JoinRequest) -> Result<(), ApiError> {
    if request.address.parse::<IpAddr>().is_err() {
        return Err(ApiError::new(
            ErrorCode::InvalidParam,
            format!(
                "'{}' is not an IP address",
                validate::shown(&request.address)
            ),
        ));
    }
    Ok(())
}

fn grant(state: &ClusterState, uid: NodeUid, request: &JoinRequest) -> Result<JoinGrant, ApiError> {
    let cluster = &state.cluster;
    let authority = Authority {
        certificate: cluster.ca_certificate.clone(),
        key: cluster.ca_key.expose().to_owned(),
    };
    let names = NodeNames {
        common_name: format!("node:{uid}"),
        address: request.address.clone(),
        dns: vec![request.hostname.clone(), cluster.name.clone()],
    };
    let certificate = authority.sign(&request.csr, &names).map_err(|e| {
        ApiError::new(
            ErrorCode::InvalidParam,
            format!("the signing request: {e:#}"),
        )
    })?;
    Ok(JoinGrant {
        node: uid,
        cluster_id: cluster.cluster_id.clone(),
        cluster_name: cluster.name.clone(),
        ca_certificate: cluster.ca_certificate.clone(),
        certificate,
        members: state
            .nodes
            .iter()
            .map(|n| (n.uid, n.internode_address()))
            .collect(),
    })
}

fn new_node(uid: NodeUid, request: &JoinRequest) -> Node {
    Node {
        schema: 1,
        uid,
        address: request.address.clone(),
        external_address: request.external_address.clone(),
        rack_id: request.rack_id.clone(),
        hostname: request.hostname.clone(),
        internode_port: request.internode_port,
        https_port: request.https_port,
        memory_bytes: request.memory_bytes,
        accept_servers: true,
        proxy: model::tuning::ProxySettings::default(),
        maintenance: None,
        snapshots: Vec::new(),
        leaving: false,
        joined: Timestamp::now(),
        extra: Map::new(),
    }
}
