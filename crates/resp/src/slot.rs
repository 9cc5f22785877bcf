//! The hash slot of a key: CRC16 (XMODEM) of the key, or of what stands between the first `{` and
//! the next `}` if that is not empty.

use memchr::memchr;

/// Number of slots of a database.
pub const SLOTS: u16 = 16_384;

/// `TABLES[n][byte]`: what a byte does to the CRC of the bytes before it, `n` bytes after it.
static TABLES: [[u16; 256]; 4] = tables();

const fn tables() -> [[u16; 256]; 4] {
    let mut tables = [table(), [0; 256], [0; 256], [0; 256]];
    let mut after = 1;
    while after < 4 {
        let mut byte = 0;
        while byte < 256 {
            let before = tables[after - 1][byte];
            tables[after][byte] = (before << 8) ^ tables[0][(before >> 8) as usize];
            byte += 1;
        }
        after += 1;
    }
    tables
}

const fn table() -> [u16; 256] {
    let mut table = [0_u16; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = (byte as u16) << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 == 0 {
                crc << 1
            } else {
                (crc << 1) ^ 0x1021
            };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
}

/// CRC16 with polynomial 0x1021, start 0, not reflected.
#[inline]
#[must_use]
pub fn crc16(bytes: &[u8]) -> u16 {
    // Four bytes at a time: one after the other, each would wait for the one before.
    let (fours, rest) = bytes.as_chunks::<4>();
    let mut crc = 0_u16;
    for [one, two, three, four] in fours {
        let [high, low] = crc.to_be_bytes();
        crc = TABLES[3][usize::from(high ^ one)]
            ^ TABLES[2][usize::from(low ^ two)]
            ^ TABLES[1][usize::from(*three)]
            ^ TABLES[0][usize::from(*four)];
    }
    rest.iter().fold(crc, |crc, byte| {
        (crc << 8) ^ TABLES[0][usize::from((crc >> 8) as u8 ^ byte)]
    })
}

/// The part of a key that decides its slot.
#[inline]
#[must_use]
pub fn hashed_part(key: &[u8]) -> &[u8] {
    let Some(open) = memchr(b'{', key) else {
        return key;
    };
    let inner = &key[open + 1..];
    match memchr(b'}', inner) {
        None | Some(0) => key,
        Some(end) => &inner[..end],
    }
}

/// The slot of a key, `0..16384`.
#[inline]
#[must_use]
pub fn key_slot(key: &[u8]) -> u16 {
    crc16(hashed_part(key)) % SLOTS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_vectors() {
        // The check value of CRC-16/XMODEM, and slots as `CLUSTER KEYSLOT` of an engine says them.
        assert_eq!(crc16(b"123456789"), 0x31C3);
        assert_eq!(crc16(b""), 0);
        for (key, slot) in [
            ("", 0),
            ("foo", 12_182),
            ("bar", 5_061),
            ("hello", 866),
            ("somekey", 11_058),
            ("foo{hash_tag}", 2_515),
            ("bar{hash_tag}", 2_515),
            ("hash_tag", 2_515),
            ("{user1000}.following", 3_443),
            ("{user1000}.followers", 3_443),
            ("foo{}{bar}", 8_363),
            ("foo{{bar}}zap", 4_015),
            ("foo{bar}{zap}", 5_061),
        ] {
            assert_eq!(key_slot(key.as_bytes()), slot, "{key}");
        }
    }

    #[test]
    fn tags() {
        assert_eq!(hashed_part(b"a{b}c"), b"b");
        assert_eq!(hashed_part(b"a{}c"), b"a{}c");
        assert_eq!(hashed_part(b"a{b"), b"a{b");
        assert_eq!(hashed_part(b"a}b{c"), b"a}b{c");
        assert_eq!(hashed_part(b"{{b}}"), b"{b");
    }
}
