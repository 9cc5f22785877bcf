//! The two doors. Each lets a request in with its [`Caller`] in the extensions, or answers itself.

use super::roles::Permission;
use super::{Caller, credentials::Credentials};
use crate::App;
use crate::connection::Peer;
use crate::failure::Failure;
use axum::extract::{Extension, Request, State};
use axum::http::{HeaderMap, HeaderName, Method};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use model::ErrorCode;

/// Header by which browsers say where a request comes from.
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The door of the unix socket: who may open the file is an admin.
pub async fn local(peer: Option<Extension<Peer>>, request: Request, next: Next) -> Response {
    let uid = peer.and_then(|Extension(Peer { uid })| uid);
    enter(Caller::Local { uid }, request, next).await
}

/// The door of HTTPS: a user with a password and a role; before the node belongs to a cluster,
/// anyone, for bootstrap alone.
pub async fn https(State(app): State<App>, request: Request, next: Next) -> Response {
    let path = request.uri().path().to_owned();
    // A reference to the request itself cannot be held while waiting: its body is not Sync.
    let (method, headers) = (request.method().clone(), request.headers().clone());
    match caller(&app, &method, &path, &headers).await {
        Ok(caller) => enter(caller, request, next).await,
        Err(failure) => failure.into_response(),
    }
}

async fn enter(caller: Caller, mut request: Request, next: Next) -> Response {
    let permission = Permission::for_request(request.method(), request.uri().path());
    if !caller.may(permission) {
        let mut response = Failure::from(ErrorCode::UnauthorizedAction).into_response();
        response.extensions_mut().insert(caller);
        return response;
    }
    request.extensions_mut().insert(caller.clone());
    let mut response = next.run(request).await;
    response.extensions_mut().insert(caller);
    response
}

async fn caller(
    app: &App,
    method: &Method,
    path: &str,
    headers: &HeaderMap,
) -> Result<Caller, Failure> {
    not_from_another_site(method, headers)?;
    if !app.authenticator.is_member().await? {
        if path == "/v1/bootstrap" || path.starts_with("/v1/bootstrap/") {
            return Ok(Caller::Anonymous);
        }
        return Err(ErrorCode::NotMember.into());
    }
    let given = Credentials::from_headers(headers).ok_or(ErrorCode::Unauthorized)?;
    let role = app.authenticator.check(&given).await?;
    Ok(Caller::User {
        email: given.username,
        role,
    })
}

/// A browser that knows the password would send it with whatever a foreign page makes it ask.
fn not_from_another_site(method: &Method, headers: &HeaderMap) -> Result<(), Failure> {
    let reads = [Method::GET, Method::HEAD].contains(method);
    if !reads
        && headers
            .get(FETCH_SITE)
            .is_some_and(|site| site == "cross-site")
    {
        return Err(Failure::new(
            ErrorCode::UnauthorizedAction,
            "a page of another site may not change this cluster",
        ));
    }
    Ok(())
}
