//! The nouns of Mainstay: ids, limits, error codes, feature levels, the documents that are stored
//! and the messages that its programs exchange. No I/O.
//!
//! | file | what |
//! |---|---|
//! | [`ids`] | newtypes for every number that names something |
//! | [`documents`] | what the configuration store holds, and under which keys |
//! | [`observation`] | what a node says of itself: heartbeats, engines, services |
//! | [`view`] | stored and observed state together, as `cnm_http` and the tools read it |
//! | [`intent`] | what an operator may ask of the cluster |
//! | [`attendant`] | how `cnm_exec` speaks with root's attendant |
//! | [`command`] | what the controller orders an agent to do |
//! | [`clients`] | questions about the clients of all proxies of a database |
//! | [`gate`] | how proxies hold commands while a primary moves |
//! | [`proxy`] | what `cnm_exec` and `dmcproxy` tell each other |
//! | [`node_config`] | the node's own configuration file and the layout of its folders |
//! | [`release`] | bundle manifest, install record, supported paths, versions |
//! | [`error_code`] | the one table of public errors |
//! | [`lease`] | until when a proxy may answer clients: leases and promises |
//! | [`replication`] | how a replica stands to its primary |
//! | [`rest`] | the objects of the REST API |
//! | [`sharding`] | how a database is divided among its shards |
//! | [`tuning`] | limits and settings of the data path, and their ranges |
//! | [`upgrade`] | feature levels, the record of an upgrade, what is planned and what stands against it |
//! | [`history`] | statistics of databases in the past |
//! | [`limits`], [`units`], [`validate`] | bounds, sizes as text, rules for names |

pub mod attendant;
pub mod clients;
pub mod command;
pub mod documents;
pub mod error_code;
pub mod gate;
pub mod history;
pub mod ids;
pub mod intent;
pub mod lease;
pub mod limits;
pub mod node_config;
pub mod observation;
pub mod own_words;
pub mod proxy;
pub mod release;
pub mod replication;
pub mod rest;
pub mod secret;
pub mod sharding;
pub mod tuning;
pub mod units;
pub mod upgrade;
pub mod validate;
pub mod view;

pub use error_code::{ApiError, ErrorCode};
pub use ids::{DatabaseUid, Epoch, Generation, NodeUid, OperationUid, Revision, ShardUid};
pub use secret::Secret;
