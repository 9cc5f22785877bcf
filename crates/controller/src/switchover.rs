//! Planned: a primary hands its role to a replica, and no client notices.
//!
//! | file | what |
//! |---|---|
//! | [`plan`] | whether it may be, what is stored before and after; pure |
//! | [`recovery`] | what becomes of a move that was interrupted; pure |
//! | [`execute`] | the move itself: gates, the engines' own failover, release |
//! | `request` | what an operator asked for |

pub mod execute;
pub mod plan;
pub mod recovery;
pub(crate) mod request;
