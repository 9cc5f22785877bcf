//! How `cnm_exec` speaks with root's attendant of an install: a socket by a name of the kernel's, a line of JSON each
//! way. Each looks who the other one is.

use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::SocketAddr;

/// Longest call, bytes.
pub const CALL_MAX: u64 = 4 * 1024;
/// Longest answer, bytes: the facts of a release are in it.
pub const ANSWER_MAX: u64 = 1024 * 1024;

/// The name of the socket.
///
/// # Errors
/// When the id of the install is too long for one.
pub fn socket(install_id: &str) -> std::io::Result<SocketAddr> {
    SocketAddr::from_abstract_name(format!("mainstay-attend-{install_id}"))
}
