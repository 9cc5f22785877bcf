//! Typed clients of the platform's own interfaces.
//!
//! | file | whom it talks to |
//! |---|---|
//! | [`local`] | `cnm_exec` of this node, over its unix socket |
//! | [`internode`] | `cnm_exec` of other nodes, mutual TLS on port 3342 |
//! | [`join`] | REST of a member, before this node has a certificate |
//! | [`rest`] | `cnm_http`: over its unix socket (no password) or HTTPS |

pub mod internode;
pub mod join;
pub mod local;
pub mod rest;
