//! Whole clusters of real processes. Each file is one of the operator's questions.

mod bootstrap;
mod databases;
mod kills;
mod quorum;
mod story;
