//! Bytes on their way out.

/// Capacity that an empty buffer keeps.
const KEPT: usize = 1024;

/// Bytes that wait to be written, oldest first. Memory is given back when it is empty.
#[derive(Debug, Default)]
pub(crate) struct OutBuffer {
    bytes: Vec<u8>,
    sent: usize,
}

impl OutBuffer {
    /// Bytes that wait.
    #[must_use]
    pub(crate) fn len(&self) -> usize {
        self.bytes.len() - self.sent
    }

    /// Whether none wait.
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What waits.
    #[must_use]
    pub(crate) fn pending(&self) -> &[u8] {
        &self.bytes[self.sent..]
    }

    /// Appends.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        if self.sent > 64 * 1024 && self.sent > self.bytes.len() / 2 {
            self.bytes.drain(..self.sent);
            self.sent = 0;
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// The first `count` bytes have been written. `keep`: capacity to keep when it is empty.
    pub(crate) fn advance(&mut self, count: usize, keep: usize) {
        self.sent += count;
        if self.sent >= self.bytes.len() {
            self.sent = 0;
            self.bytes.clear();
            if self.bytes.capacity() > keep.max(KEPT) {
                self.bytes = Vec::new();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_back_its_memory() {
        let mut buffer = OutBuffer::default();
        buffer.push(&[1; 300_000]);
        buffer.advance(200_000, 0);
        assert_eq!(buffer.len(), 100_000);
        buffer.push(b"end");
        assert_eq!(buffer.sent, 0);
        assert_eq!(&buffer.pending()[100_000..], b"end");
        buffer.advance(100_003, 0);
        assert!(buffer.is_empty() && buffer.bytes.capacity() == 0);
    }
}
