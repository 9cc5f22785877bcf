//! One copy only, and which release it is.

use api::process::{Lock, Release};
use std::time::Duration;

#[test]
fn a_second_copy_is_refused_and_told_who_holds_the_lock() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cnm_http.lock");
    let first = Lock::take(&path).unwrap();
    let refused = Lock::take_within(&path, Duration::ZERO)
        .unwrap_err()
        .to_string();
    assert!(
        refused.contains(&format!("pid {}", std::process::id())),
        "{refused}"
    );
    drop(first);
    assert!(Lock::take_within(&path, Duration::ZERO).is_ok());
}

#[test]
fn without_a_manifest_it_is_a_development_build() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(Release::of(folder.path()), Release::default());
    std::fs::write(folder.path().join("manifest.json"), "{").unwrap();
    assert_eq!(Release::of(folder.path()).version, "0.0.0");
}

#[test]
fn a_stale_socket_is_replaced_and_nothing_else_is() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let listener = api::server::listen_unix(&path).unwrap();
    assert_eq!(
        std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o660
    );
    assert!(std::os::unix::net::UnixStream::connect(&path).is_ok());
    drop(listener);

    let file = folder.path().join("file");
    std::fs::write(&file, "precious").unwrap();
    assert!(api::server::listen_unix(&file).is_err());
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "precious");
}
