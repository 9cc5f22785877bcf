//! What must hold for any bytes: of clients, of engines.
//!
//! Each check takes bytes and panics if something does not hold. `fuzz/` looks for such bytes; the tests
//! change known ones by chance.
//!
//! | file | what |
//! |---|---|
//! | [`request`] | what a client sends: where commands end, their words, their keys |
//! | [`reply`] | what an engine sends: where replies end, what is seen of them on the way |
//! | `reference` | the same once more, slowly |
//! | [`seeds`] | what to begin with |

#[cfg(test)]
mod changed;
mod reference;
pub(crate) mod reply;
pub(crate) mod request;
pub(crate) mod seeds;

/// Takes a stream apart into pieces, in a way that depends on `how` alone: from single bytes up to the
/// whole stream at once.
pub(crate) fn pieces(stream: &[u8], how: u8) -> impl Iterator<Item = &[u8]> {
    let mut left = stream;
    let mut state = u32::from(how);
    std::iter::from_fn(move || {
        if left.is_empty() {
            return None;
        }
        // A linear congruential generator: how long the pieces are matters little.
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let length = match how {
            0 => left.len(),
            1 => 1,
            _ => (state >> 16) as usize % (usize::from(how) * 2) + 1,
        };
        let (now, later) = left.split_at(length.min(left.len()));
        left = later;
        Some(now)
    })
}
