//! A database's life: engines are started, get their role, are started again, are deleted.

pub mod execute;
pub mod plan;
