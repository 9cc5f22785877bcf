//! The two sockets: HTTPS on the node's address, and a unix socket for members of the node's group.

use crate::App;
use crate::certificates::Certificates;
use crate::connection::Bounded;
use crate::routes::{self, Door};
use anyhow::{Context, bail};
use axum_server::Handle;
use axum_server::tls_rustls::RustlsAcceptor;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use std::fs;
use std::future::Future;
use std::io;
use std::net::TcpListener;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Most connections over HTTPS.
const HTTPS_CONNECTIONS_MAX: usize = 256;
/// Most connections over the unix socket.
const LOCAL_CONNECTIONS_MAX: usize = 64;
/// How long a TLS handshake may take.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(10);
/// How long a request's headers may take, from the end of the request before.
const HEADERS_WITHIN: Duration = Duration::from_secs(30);
/// Most requests at the same time on one HTTP/2 connection.
const STREAMS_MAX: u32 = 16;
/// Largest headers of a request, bytes.
const HEADERS_MAX: u32 = 32 * 1024;
/// Largest piece that HTTP/1.1 reads at once, headers included, bytes.
const BUFFER_MAX: usize = 64 * 1024;
/// How long requests under way may still take when the server ends.
const ENDS_WITHIN: Duration = Duration::from_secs(5);

/// Serves both sockets until `shutdown`.
///
/// # Errors
/// When a socket cannot be opened, with its address.
pub async fn serve(app: App, shutdown: impl Future<Output = ()> + Send) -> anyhow::Result<()> {
    let address = app.config.https_address();
    let tcp = TcpListener::bind(address)
        .with_context(|| format!("listen on {address}: is another program using the port?"))?;
    let path = app.config.http_socket();
    let unix = listen_unix(&path)?;
    let certificates = Arc::new(Certificates::load(
        app.config.certificates_dir(),
        app.config.address,
    )?);
    app.bootstraps.replaces(Arc::clone(&certificates));

    let acceptor = RustlsAcceptor::new(certificates.tls())
        .handshake_timeout(HANDSHAKE_WITHIN)
        .acceptor(Bounded::new(HTTPS_CONNECTIONS_MAX));
    let https_handle = Handle::new();
    let mut https = axum_server::from_tcp(tcp)?
        .acceptor(acceptor)
        .first_request_timeout(HEADERS_WITHIN)
        .accept_error_handler(|peer, error| tracing::debug!(?peer, %error, "no connection"))
        .handle(https_handle.clone());
    bound(https.http_builder());
    let unix_handle = Handle::new();
    let mut local = axum_server::from_unix(unix)?
        .acceptor(Bounded::new(LOCAL_CONNECTIONS_MAX))
        .first_request_timeout(HEADERS_WITHIN)
        .accept_error_handler(|_, error| tracing::warn!(%error, "no local connection"))
        .handle(unix_handle.clone());
    bound(local.http_builder());

    let https = https.serve(routes::router(app.clone(), Door::Https).into_make_service());
    let local = local.serve(routes::router(app, Door::Local).into_make_service());
    let stop = async {
        shutdown.await;
        https_handle.graceful_shutdown(Some(ENDS_WITHIN));
        unix_handle.graceful_shutdown(Some(ENDS_WITHIN));
        // The servers end by themselves now.
        std::future::pending::<()>().await;
    };
    let served = tokio::select! {
        served = async { tokio::try_join!(https, local) } => served.map(|_| ()),
        () = stop => Ok(()),
        () = certificates.follow() => Ok(()),
    };
    // Nobody waits for this file; the next start replaces it anyway.
    let _ = fs::remove_file(&path);
    served.context("serve REST")
}

fn bound(builder: &mut Builder<TokioExecutor>) {
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS_WITHIN)
        .max_buf_size(BUFFER_MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEADERS_MAX)
        .keep_alive_interval(Some(HEADERS_WITHIN))
        .keep_alive_timeout(HANDSHAKE_WITHIN);
}

/// Opens a unix socket with mode 0660 at `path`. A socket file that is there belongs to a copy that
/// ended (the lock file says so) and is replaced in one step, so that the path never has another
/// mode and is never missing.
///
/// # Errors
/// When something that is not a socket is at `path`, or it cannot be opened.
pub fn listen_unix(path: &Path) -> anyhow::Result<UnixListener> {
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            bail!("{} is not a socket: move it away", path.display());
        }
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| format!("look at {}", path.display())),
    }
    let new = path.with_extension("new");
    let opened = || -> io::Result<UnixListener> {
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&new)?;
        fs::set_permissions(&new, fs::Permissions::from_mode(0o660))?;
        fs::rename(&new, path)?;
        Ok(listener)
    };
    opened().with_context(|| format!("listen on {}", path.display()))
}
