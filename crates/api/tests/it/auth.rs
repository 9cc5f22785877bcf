//! Who may do what over HTTPS.

use crate::fixture::{self, PASSWORD, ROLES};
use crate::http::{Reply, basic, request, send, send_h2};
use crate::served::Served;
use api::auth::roles::Permission;
use axum::body::Body;
use futures::StreamExt;
use hyper::Method;
use model::documents::ManagementRole;
use model::intent::JoinRequest;
use model::{DatabaseUid, Secret};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

async fn ask(served: &Served, method: &str, path: &str, who: Option<&str>, body: &str) -> Reply {
    let address = served.config.https_address();
    send(address, request(method, address, path, who, body)).await
}

#[tokio::test]
async fn without_the_right_password_nothing() {
    let served = Served::start(Some(fixture::view())).await;
    let wrong = [
        None,
        Some(basic("admin@example.com", "wrong")),
        Some(basic("admin@example.com", "")),
        Some(basic("nobody@example.com", PASSWORD)),
        Some("Basic !!!".to_owned()),
        Some("Basic".to_owned()),
        Some("Bearer x".to_owned()),
    ];
    for who in &wrong {
        for path in [
            "/v1/cluster",
            "/v1/bootstrap",
            "/v1/nothing",
            "/v1/internal/admit",
        ] {
            let reply = ask(&served, "GET", path, who.as_deref(), "").await;
            assert_eq!(reply.status, 401, "{who:?} {path}");
            assert_eq!(reply.body["error_code"], "unauthorized");
            let ask = reply.headers["www-authenticate"].to_str().unwrap();
            assert!(ask.starts_with("Basic realm=\"mainstay\""), "{ask}");
        }
    }
    let right = basic("admin@example.com", PASSWORD);
    assert_eq!(
        ask(&served, "GET", "/v1/cluster", Some(&right), "")
            .await
            .status,
        200
    );
    // Remembered: the same password of another user is still wrong.
    let other = basic("admin@example.co", PASSWORD);
    assert_eq!(
        ask(&served, "GET", "/v1/cluster", Some(&other), "")
            .await
            .status,
        401
    );
    served.stop().await;
}

#[tokio::test]
async fn http2_works_too() {
    let served = Served::start(Some(fixture::view())).await;
    let address = served.config.https_address();
    let admin = basic("admin@example.com", PASSWORD);
    let mut asked = request("GET", address, "/v1/cluster", Some(&admin), "");
    *asked.version_mut() = hyper::Version::HTTP_2;
    asked.headers_mut().remove("host");
    let reply = send_h2(address, asked).await;
    assert_eq!(
        (reply.status, reply.body["name"].as_str()),
        (200, Some("cluster.local"))
    );
    served.stop().await;
}

/// An answer for which the body was not looked at goes out when that has come: a stream that is reset in the middle of
/// it is an error to some clients, which then have no answer.
#[tokio::test]
async fn a_body_that_nobody_reads_is_taken_all_the_same() {
    let served = Served::start(Some(fixture::view())).await;
    let address = served.config.https_address();
    let admin = basic("admin@example.com", PASSWORD);
    for (path, authorization, status) in [
        ("/v1/nothing", Some(&admin), 404),
        ("/v1/bdbs", None, 401),
        ("/v1/actions/x/abort", Some(&admin), 200),
    ] {
        let sent = Arc::new(AtomicBool::new(false));
        let whole = Arc::clone(&sent);
        let pieces = futures::stream::unfold(0, move |piece| {
            let whole = Arc::clone(&whole);
            async move {
                match piece {
                    0 => Some(("{", 1)),
                    1 => {
                        // Long enough for an answer that does not wait.
                        tokio::time::sleep(Duration::from_millis(200)).await;
                        Some(("}", 2))
                    }
                    _ => {
                        whole.store(true, Ordering::Relaxed);
                        None
                    }
                }
            }
        });
        let authorization = authorization.map(String::as_str);
        let mut asked = request("POST", address, path, authorization, "");
        *asked.body_mut() = Body::from_stream(pieces.map(Ok::<_, std::io::Error>));
        *asked.version_mut() = hyper::Version::HTTP_2;
        asked.headers_mut().remove("host");
        assert_eq!(send_h2(address, asked).await.status, status, "{path}");
        assert!(sent.load(Ordering::Relaxed), "{path}");
    }
    served.stop().await;
}

#[tokio::test]
async fn a_changed_password_and_a_removed_user_are_noticed() {
    let served = Served::start(Some(fixture::view())).await;
    let old = basic("admin@example.com", PASSWORD);
    assert_eq!(
        ask(&served, "GET", "/v1/cluster", Some(&old), "")
            .await
            .status,
        200
    );
    served.exec.said().view.as_mut().unwrap().users[0].password_hash = fixture::hash("new one");
    // The new one works at once, though the users were read a moment ago.
    let new = basic("admin@example.com", "new one");
    assert_eq!(
        ask(&served, "GET", "/v1/cluster", Some(&new), "")
            .await
            .status,
        200
    );
    assert_eq!(
        ask(&served, "GET", "/v1/cluster", Some(&old), "")
            .await
            .status,
        401
    );
    served.exec.said().view.as_mut().unwrap().users.remove(0);
    crate::served::until("the removed user is out", async || {
        ask(&served, "GET", "/v1/cluster", Some(&new), "")
            .await
            .status
            == 401
    })
    .await;
    served.stop().await;
}

#[tokio::test]
async fn an_unreadable_hash_lets_nobody_in() {
    let mut view = fixture::view();
    view.users[0].password_hash = Secret::new("");
    let served = Served::start(Some(view)).await;
    for password in ["", PASSWORD] {
        let who = basic("admin@example.com", password);
        assert_eq!(
            ask(&served, "GET", "/v1/cluster", Some(&who), "")
                .await
                .status,
            401
        );
    }
    served.stop().await;
}

/// What a role may do, as operators know the roles.
fn allowed(role: ManagementRole, method: &str, path: &str) -> bool {
    use ManagementRole::{
        Admin, ClusterMember, ClusterViewer, DbMember, DbViewer, None, UserManager,
    };
    match (method, path) {
        _ if role == Admin => true,
        _ if role == None => false,
        ("GET", "/v1/logs") => role != DbViewer,
        ("GET", _) => true,
        (_, "/v1/bdbs" | "/v1/bdbs/1") => matches!(role, ClusterMember | DbMember),
        _ => !matches!(
            role,
            ClusterMember | ClusterViewer | DbMember | DbViewer | UserManager
        ),
    }
}

#[tokio::test]
async fn each_role_at_each_kind_of_path() {
    let served = Served::start(Some(fixture::view())).await;
    served.exec.said().outcome = Ok(model::intent::IntentOutcome {
        database: Some(DatabaseUid(1)),
        operation: None,
        ..Default::default()
    });
    let cases = [
        ("GET", "/v1/cluster", ""),
        ("GET", "/v1/nodes/status", ""),
        ("GET", "/v1/bdbs", ""),
        ("GET", "/v1/logs", ""),
        ("GET", "/v1/bootstrap", ""),
        (
            "POST",
            "/v1/bdbs",
            r#"{"name":"x","memory_size":1073741824}"#,
        ),
        ("PUT", "/v1/bdbs/1", r#"{"name":"x"}"#),
        ("DELETE", "/v1/bdbs/1", ""),
        (
            "PUT",
            "/v1/cluster",
            r#"{"default_shards_placement":"dense"}"#,
        ),
        ("PUT", "/v1/cluster/policy", "{}"),
        ("POST", "/v1/cluster/actions/change_master", "{}"),
        ("POST", "/v1/bootstrap/create_cluster", "{}"),
        ("POST", "/v1/bootstrap/validate/create_cluster", "{}"),
        ("POST", "/v1/internal/admit", "{}"),
        ("POST", "/v1/bdbsx", "{}"),
    ];
    for (email, role) in ROLES {
        let who = basic(email, PASSWORD);
        for (method, path, body) in cases {
            let reply = ask(&served, method, path, Some(&who), body).await;
            let forbidden =
                reply.status == 403 && reply.body["error_code"] == "unauthorized_action";
            let said = reply.status;
            assert_eq!(
                !forbidden,
                allowed(role, method, path),
                "{role:?} {method} {path}: {said}"
            );
        }
    }
    // Three changes of databases by each of three roles, one of settings and one move by the admin.
    assert_eq!(served.exec.said().intents.len(), 3 * 3 + 2);
    served.stop().await;
}

#[tokio::test]
async fn passwords_of_databases_only_for_some() {
    let served = Served::start(Some(fixture::view())).await;
    for (email, role) in ROLES
        .into_iter()
        .filter(|(_, role)| *role != ManagementRole::None)
    {
        let reply = ask(
            &served,
            "GET",
            "/v1/bdbs/1",
            Some(&basic(email, PASSWORD)),
            "",
        )
        .await;
        let shown = reply.body["authentication_redis_pass"] == "db secret";
        let viewer = matches!(
            role,
            ManagementRole::ClusterViewer | ManagementRole::DbViewer
        );
        assert_eq!(shown, !viewer, "{email}");
    }
    served.stop().await;
}

#[tokio::test]
async fn before_a_cluster_only_bootstrap_is_open() {
    let served = Served::start(None).await;
    let admin = basic("admin@example.com", PASSWORD);
    for who in [None, Some(admin.as_str())] {
        assert_eq!(
            ask(&served, "GET", "/v1/bootstrap", who, "").await.status,
            200
        );
        for (method, path) in [
            ("GET", "/v1/cluster"),
            ("POST", "/v1/bdbs"),
            ("POST", "/v1/internal/admit"),
        ] {
            let reply = ask(&served, method, path, who, "{}").await;
            assert_eq!(reply.status, 406, "{path}");
            assert_eq!(reply.body["error_code"], "not_member");
        }
    }
    let create = r#"{"cluster":{"name":"cluster.local"},
        "credentials":{"username":"admin@example.com","password":"secret"}}"#;
    let path = "/v1/bootstrap/create_cluster";
    assert_eq!(ask(&served, "POST", path, None, create).await.status, 200);
    // From now on it is a member like any other.
    assert_eq!(ask(&served, "POST", path, None, create).await.status, 401);
    assert_eq!(
        ask(&served, "GET", "/v1/bootstrap", None, "").await.status,
        401
    );
    assert_eq!(
        ask(&served, "GET", "/v1/bootstrap", Some(&admin), "")
            .await
            .status,
        200
    );
    served.stop().await;
}

#[tokio::test]
async fn a_foreign_page_changes_nothing() {
    let served = Served::start(Some(fixture::view())).await;
    let address = served.config.https_address();
    let admin = basic("admin@example.com", PASSWORD);
    for (site, status) in [("cross-site", 403), ("same-origin", 200), ("none", 200)] {
        let mut asked = request("PUT", address, "/v1/cluster", Some(&admin), "{}");
        asked
            .headers_mut()
            .insert("sec-fetch-site", site.parse().unwrap());
        assert_eq!(send(address, asked).await.status, status, "{site}");
    }
    served.stop().await;
}

#[tokio::test]
async fn a_node_is_admitted_by_an_admin() {
    let served = Served::start(Some(fixture::view())).await;
    let joining = JoinRequest {
        address: "127.0.1.4".to_owned(),
        hostname: "host4".to_owned(),
        internode_port: 3342,
        https_port: 9443,
        memory_bytes: 1 << 30,
        software_version: "1.0.0".to_owned(),
        feature_max: 1,
        feature_min: 1,
        csr: "csr".to_owned(),
        rack_id: None,
        external_address: Vec::new(),
    };
    let body = serde_json::to_string(&joining).unwrap();
    let admin = basic("admin@example.com", PASSWORD);
    let reply = ask(&served, "POST", "/v1/internal/admit", Some(&admin), &body).await;
    assert_eq!(
        (reply.status, &reply.body["node"]),
        (200, &serde_json::json!(4))
    );
    assert_eq!(served.exec.said().admitted, [joining]);
    served.stop().await;
}

#[test]
fn a_path_that_nobody_thought_of_is_the_admins() {
    for path in [
        "/v1/users",
        "/v1/bdb",
        "/v1/bdbs2",
        "//v1/bdbs",
        "/v1/../v1/bdbs",
        "/V1/bdbs",
    ] {
        assert_eq!(
            Permission::for_request(&Method::POST, path),
            Permission::Administer,
            "{path}"
        );
    }
    assert_eq!(
        Permission::for_request(&Method::OPTIONS, "/v1/users"),
        Permission::Administer
    );
}

#[test]
fn the_role_none_may_nothing() {
    for permission in Permission::ALL {
        assert!(!permission.is_granted_to(ManagementRole::None));
        assert!(permission.is_granted_to(ManagementRole::Admin));
    }
}
