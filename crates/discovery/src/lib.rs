//! Finding the endpoint: a client asks any node where a database is served now, by DNS or by the Sentinel
//! commands, and gets an address at which a proxy accepts connections at this moment.
//!
//! | file | what |
//! |---|---|
//! | [`view`] | what a node knows: names, ports, which proxies should serve them, who is heard |
//! | [`reach`] | whether an address accepts connections, asked by connecting to it |
//! | [`finder`] | both together: the addresses that may be given out |
//! | [`zone`] | names of the cluster's zone, and the records for them |
//! | [`dns`] | the name server, UDP and TCP |
//! | [`sentinel`] | the Sentinel commands, as a server of RESP |
//!
//! Nothing here stores or decides anything. Without a quorum the last known view is answered from, and
//! what can be connected to is still asked anew.

pub mod dns;
pub mod finder;
pub mod reach;
pub mod sentinel;
pub mod view;
pub mod zone;
