//! A database's life: engines are started, get their role, are started again, are deleted.

pub mod deletion;
pub mod execute;
pub mod plan;
mod restart;
