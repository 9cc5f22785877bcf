//! Leases, promises, fencing and moves as state machines that are checked exhaustively, and the rules
//! without which they would be wrong. `docs/protocol.md` is the page that goes with it.
//!
//! | file | what |
//! |---|---|
//! | [`lease`] | given by the primary node, waited out, never answered on when over |
//! | [`lease_on`] | the first second copy of a database that needed no lease until then |
//! | [`promise`] | what lets proxies go on while the primary node is away |
//! | [`planned_move`] | gates, the engine's own failover, recovery after an interruption |
//! | [`explore`] | walks a whole space: nothing forbidden, no way without a return |

pub mod explore;
pub mod lease;
pub mod lease_on;
pub mod planned_move;
pub mod promise;
