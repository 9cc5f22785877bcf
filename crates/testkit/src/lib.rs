//! Clusters of real processes for tests and development. Nothing of it goes into a bundle.
//!
//! | file | what |
//! |---|---|
//! | [`addresses`] | a network of its own on 127.0.0.0/8, held by a lock |
//! | [`cluster`] | nodes from the build folder, their daemons started directly |
//! | [`apart`] | a network namespace for each node, and cuts between them |
//! | [`chaos`] | faults by a seeded schedule, while clients write |
//! | [`database`] | what an operator asks of a database, and what its engines say |
//! | [`history`] | what clients saw, and the rules that it must keep |
//! | [`installed`] | nodes installed from the bundle, with supervisord |
//! | [`load`] | clients that append to lists at a steady pace |
//! | [`report`] | rows of a benchmark |
//! | [`wait`] | waiting for a condition with a deadline |

pub mod addresses;
pub mod apart;
pub mod chaos;
pub mod cluster;
pub mod database;
pub mod history;
pub mod installed;
pub mod load;
pub mod report;
pub mod wait;
