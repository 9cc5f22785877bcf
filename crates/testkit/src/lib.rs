//! Clusters of real processes for tests and development. Nothing of it goes into a bundle.
//!
//! | file | what |
//! |---|---|
//! | [`addresses`] | a network of its own on 127.0.0.0/8, held by a lock |
//! | [`cluster`] | nodes from the build folder, their daemons started directly |
//! | [`installed`] | nodes installed from the bundle, with supervisord |
//! | [`report`] | rows of a benchmark |
//! | [`wait`] | waiting for a condition with a deadline |

pub mod addresses;
pub mod cluster;
pub mod installed;
pub mod report;
pub mod wait;
