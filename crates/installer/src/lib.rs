//! The programs behind install.sh and mainstay-node: install, upgrade, roll back, uninstall.
//!
//! | file | what |
//! |---|---|
//! | [`console`], [`terminal`] | the lines an operator reads, and the questions asked; Ctrl-C |
//! | [`options`], [`answers`] | what the operator said |
//! | [`bundle`], [`keys`] | what was unpacked, and whether it is what was signed |
//! | [`host`], [`processes`], [`accounts`] | facts of this machine |
//! | [`registry`], [`layout`] | which installs are here, and where their files lie |
//! | [`checks`] | what must be true before anything is changed |
//! | [`files`], [`release_folder`], [`steps`] | the steps of an install, each repeatable |
//! | [`install`], [`upgrade`], [`rollback`], [`uninstall`] | the four things an operator does |
//! | [`services`], [`supervisor`], [`cluster`] | the node's daemons, what runs them, and the cluster as they see it |
//! | [`attendant`] | root's part in an upgrade of all nodes |
//! | [`tuning`] | settings of the host, only on request |
//! | [`node`] | the unit's main process |

pub mod accounts;
pub mod answers;
pub mod attendant;
pub mod bundle;
pub mod bundle_tar;
pub mod checks;
pub mod cluster;
pub mod console;
pub mod files;
pub mod host;
pub mod install;
pub mod keys;
pub mod layout;
pub mod node;
pub mod options;
pub mod processes;
pub mod registry;
pub mod release_folder;
pub mod rollback;
pub mod services;
pub mod steps;
pub mod supervisor;
pub mod terminal;
pub mod tuning;
pub mod uninstall;
pub mod upgrade;
