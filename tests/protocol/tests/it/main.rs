//! Every rule on: nothing is wrong in the whole space. A rule off: something is.

mod lease;
mod lease_on;
mod planned_move;
mod promise;
