//! Bytes on their way out.

use std::collections::VecDeque;

/// Capacity that an empty buffer keeps.
const KEPT: usize = 1024;

/// Most bytes of one piece. A buffer that grows never copies more than that, and a large one needs no
/// more memory than it holds.
const PIECE: usize = 256 * 1024;

/// Bytes that wait to be written, oldest first. Memory is given back when it is empty.
#[derive(Debug, Default)]
pub(crate) struct OutBuffer {
    first: Vec<u8>,
    /// Bytes of `first` that have been written.
    sent: usize,
    /// What comes after `first`, in pieces that are full but for the last one.
    more: VecDeque<Vec<u8>>,
    /// Bytes in `more`.
    more_len: usize,
}

impl OutBuffer {
    /// All that waits.
    #[must_use]
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        let Self {
            mut first,
            sent,
            more,
            more_len,
        } = self;
        if sent > 0 {
            first.drain(..sent);
        }
        first.reserve_exact(more_len);
        for piece in more {
            first.extend_from_slice(&piece);
        }
        first
    }

    /// Bytes that wait.
    #[inline]
    #[must_use]
    pub(crate) fn len(&self) -> usize {
        self.first.len() - self.sent + self.more_len
    }

    /// Whether none wait.
    #[inline]
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        // The first piece is empty only if there is no other.
        self.first.len() == self.sent
    }

    /// What is to be written next: all that waits, or a piece of it.
    #[inline]
    #[must_use]
    pub(crate) fn pending(&self) -> &[u8] {
        &self.first[self.sent..]
    }

    /// Appends.
    #[inline]
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        if self.sent > 0 && self.first.len() + bytes.len() > PIECE {
            self.first.drain(..self.sent);
            self.sent = 0;
        }
        if self.more.is_empty() && self.first.len() + bytes.len() <= PIECE {
            self.first.extend_from_slice(bytes);
        } else {
            self.push_pieces(bytes);
        }
    }

    fn push_pieces(&mut self, mut bytes: &[u8]) {
        if self.more.is_empty() {
            let room = PIECE.saturating_sub(self.first.len()).min(bytes.len());
            self.first.extend_from_slice(&bytes[..room]);
            bytes = &bytes[room..];
        }
        self.more_len += bytes.len();
        while !bytes.is_empty() {
            let room = match self.more.back() {
                Some(last) if last.len() < PIECE => PIECE - last.len(),
                _ => {
                    self.more.push_back(Vec::new());
                    PIECE
                }
            };
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            if let Some(last) = self.more.back_mut() {
                last.extend_from_slice(now);
            }
            bytes = later;
        }
    }

    /// The first `count` bytes of what is pending have been written. `keep`: capacity to keep when
    /// nothing waits.
    #[inline]
    pub(crate) fn advance(&mut self, count: usize, keep: usize) {
        self.sent += count;
        if self.sent < self.first.len() {
            return;
        }
        self.sent = 0;
        match self.more.pop_front() {
            Some(next) => {
                self.more_len -= next.len();
                self.first = next;
            }
            None => {
                self.first.clear();
                if self.first.capacity() > keep.max(KEPT) {
                    self.first = Vec::new();
                }
                if self.more.capacity() > 0 {
                    self.more = VecDeque::new();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_of_it_at_once() {
        let mut buffer = OutBuffer::default();
        assert!(OutBuffer::default().into_bytes().is_empty());
        let bytes: Vec<u8> = (0..700_000_u32).map(|at| (at % 251) as u8).collect();
        buffer.push(&bytes);
        buffer.advance(1000, 0);
        assert_eq!(buffer.into_bytes(), &bytes[1000..]);
    }

    #[test]
    fn gives_back_its_memory() {
        let mut buffer = OutBuffer::default();
        buffer.push(&[1; 200_000]);
        buffer.advance(150_000, 0);
        assert_eq!(buffer.len(), 50_000);
        buffer.push(&[2; 100_000]);
        assert_eq!((buffer.sent, buffer.len()), (0, 150_000));
        buffer.push(b"end");
        assert_eq!(&buffer.pending()[150_000..], b"end");
        buffer.advance(150_003, 0);
        assert!(buffer.is_empty() && buffer.first.capacity() == 0);
    }

    #[test]
    fn what_comes_in_goes_out() {
        let mut buffer = OutBuffer::default();
        let (mut put, mut got): (Vec<u8>, Vec<u8>) = (Vec::new(), Vec::new());
        let mut random = 7_u64;
        for round in 0..400 {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let length = (random >> 40) as usize % if round % 7 == 0 { 600_000 } else { 40_000 };
            let bytes: Vec<u8> = (0..length).map(|at| (at as u64 ^ random) as u8).collect();
            buffer.push(&bytes);
            put.extend_from_slice(&bytes);
            assert_eq!(buffer.len(), put.len() - got.len());
            if round % 3 > 0 {
                let pending = buffer.pending();
                let some = pending.len() - pending.len() / (1 + round % 4);
                got.extend_from_slice(&pending[..some]);
                buffer.advance(some, KEPT);
            }
            let held: usize = buffer.more.iter().map(Vec::capacity).sum();
            assert!(
                held <= 2 * buffer.len() + PIECE,
                "{held} for {}",
                buffer.len()
            );
        }
        while !buffer.is_empty() {
            let pending = buffer.pending();
            got.extend_from_slice(pending);
            let count = pending.len();
            buffer.advance(count, 0);
        }
        assert!(put == got && buffer.is_empty() && buffer.more.capacity() == 0);
    }
}
