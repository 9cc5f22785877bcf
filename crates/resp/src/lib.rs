//! The wire protocol of Valkey and Redis (RESP2 and RESP3), without I/O.
//!
//! | file | what |
//! |---|---|
//! | [`request`] | where a client's command ends, at any split of its bytes |
//! | [`reply`] | where an engine's reply ends, streaming: nothing of it is held |
//! | [`inline`] | commands typed as a line of words |
//! | [`command`] | what the engines say about each command, and which need more than being passed on |
//! | [`keys`] | where a command's keys are, and so where it must run |
//! | [`slot`] | hash slot of a key |
//! | [`value`] | small replies as values, read and written |
//! | [`number`] | numbers as the engines accept them |

pub mod command;
pub mod inline;
pub mod keys;
pub mod number;
pub mod reply;
pub mod request;
pub mod slot;
pub mod value;
