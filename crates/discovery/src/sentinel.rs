//! The Sentinel commands, for clients that look a database up by its name and follow its moves.
//!
//! | file | what |
//! |---|---|
//! | [`server`] | connections: accept, read, write, bounds |
//! | [`session`] | one client: its protocol version, its subscriptions, each command's reply |
//! | [`masters`] | what `SENTINEL masters` and the like say of a database |
//! | [`channels`] | what a client subscribed to, and the messages for it |

pub mod channels;
pub mod masters;
pub mod server;
pub mod session;

pub use server::{bind, follow, serve};
