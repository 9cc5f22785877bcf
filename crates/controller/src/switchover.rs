//! Planned: a primary hands its role to a replica, and no client notices.
//!
//! | file | what |
//! |---|---|
//! | [`plan`] | whether it may be, what is stored before and after; pure |
//! | [`recovery`] | what becomes of a move that was interrupted; pure |
//! | [`execute`] | the move itself: the engines' own failover, and how it ended |
//! | `gates` | what proxies do in it: hold, release |
//! | `request` | what an operator asked for |

pub mod execute;
mod gates;
pub mod plan;
pub mod recovery;
pub(crate) mod request;
