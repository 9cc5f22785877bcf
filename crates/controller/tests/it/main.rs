//! Planners against fake agents: what is planned, that it converges, that what is not known vetoes.

mod life;
mod placement;
mod requests;
mod world;
