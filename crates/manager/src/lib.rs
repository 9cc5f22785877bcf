//! `cnm_exec`: wires the configuration store, the controller and the agent of one node together.
//!
//! | file | what |
//! |---|---|
//! | [`program`] | finds the node's configuration and its own release; one copy at a time |
//! | [`exec`] | the running program: before and after the node belongs to a cluster |
//! | [`bootstrap`] | create a cluster, join one, admit a node |
//! | [`certificates`] | the cluster's CA and the nodes' certificates |
//! | [`member`] | everything that a node of a cluster runs |
//! | [`primary`] | asking the primary node, wherever it is |
//! | [`view`] | stored and observed state together |
//! | [`history`] | statistics of databases in the past |
//! | [`wishes`] | what clients set for their whole database |
//! | [`heartbeat`] | telling the primary node of this one |
//! | [`removed`] | whether this node is no part of its cluster any more |
//! | [`levels`] | this release among others: the cluster's feature level, and who leads meanwhile |
//! | [`turns`] | upgrades of all nodes: whose turn it is, and this node's own turn |
//! | [`drain`] | the node is being stopped: its primaries go first |
//! | [`finding`] | the name service and the Sentinel commands: what they know, and their sockets |
//! | [`proxies`] | what they say of themselves |
//! | [`proxy_feed`] | the configuration of this node's `dmcproxy` |
//! | [`gates`] | orders to it, while a primary moves |
//! | [`questions`] | about the clients of all proxies of a database |
//! | [`leases`] | what proxies ask for, passed on to the primary node |
//! | [`internode`], [`local`] | the two interfaces: other nodes, this node's programs |
//! | [`transport`] | how the store and the controller reach other nodes |

pub mod bootstrap;
pub mod certificates;
pub mod drain;
pub mod exec;
pub mod finding;
pub mod gates;
pub mod heartbeat;
pub mod history;
pub mod internode;
pub mod leases;
pub mod levels;
pub mod local;
pub mod member;
pub mod primary;
pub mod program;
pub mod proxies;
pub mod proxy_feed;
pub mod questions;
pub mod removed;
pub mod transport;
pub mod turns;
pub mod view;
pub mod wishes;
