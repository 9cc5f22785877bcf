//! The command table and key positions against real engines, and figures.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on fails where it stands"
)]

mod bench;
mod engine;
mod generator;
mod key_positions;
mod properties;
mod slots;
