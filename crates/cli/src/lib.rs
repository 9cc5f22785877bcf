//! The operator's tools on a node.
//!
//! | room | what |
//! |---|---|
//! | [`rladmin`] | looks at the cluster and changes it, over the node's own REST socket |
//! | [`rlcheck`] | checks this host and this node |
//! | [`installation`] | how both find the install that they belong to |
//! | [`terminal`] | colours and padded tables |

pub mod installation;
pub mod rladmin;
pub mod rlcheck;
pub mod terminal;
