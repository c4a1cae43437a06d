//! Numbers in 1 to 10 bytes: 7 bits a byte, low bits first, the top bit says that more follow.

/// Longest number, in bytes.
pub const MAX_BYTES: usize = 10;

/// Appends `value`.
pub fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Writes `value` to the front of `room`; gives the number of its bytes. Bytes that find no room are lost.
#[inline]
pub fn put_at(room: &mut [u8], mut value: u64) -> usize {
    let mut len = 0;
    for byte in room.iter_mut().take(MAX_BYTES) {
        len += 1;
        *byte = value as u8 & 0x7f;
        value >>= 7;
        if value == 0 {
            break;
        }
        *byte |= 0x80;
    }
    len
}

/// The number that stands in the first bytes of `bytes`, and how many they are, if they are 4 at most.
#[inline(always)]
#[must_use]
pub const fn gather(bytes: u32) -> Option<(u32, usize)> {
    let ends = !bytes & 0x8080_8080;
    if ends == 0 {
        return None;
    }
    let last = ends.trailing_zeros();
    let bytes = bytes & (u32::MAX >> (31 - last));
    // Each two bytes' bits are put together, then those of the two pairs.
    let pairs = bytes & 0x007f_007f | (bytes & 0x7f00_7f00) >> 1;
    let value = pairs & 0x3fff | (pairs & 0x3fff_0000) >> 2;
    Some((value, last as usize / 8 + 1))
}

/// Takes a number from the front of `bytes`; `None` where it is cut or longer than 10 bytes.
pub fn take(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for (i, &byte) in bytes.iter().enumerate().take(MAX_BYTES) {
        value |= u64::from(byte & 0x7f) << (7 * i);
        if byte < 0x80 {
            *bytes = &bytes[i + 1..];
            return Some(value);
        }
    }
    None
}

/// Folds a signed difference so that small ones of either sign become small numbers.
#[inline(always)]
#[must_use]
pub const fn zigzag(difference: i64) -> u64 {
    (difference << 1 ^ difference >> 63) as u64
}

/// The inverse of [`zigzag`].
#[inline(always)]
#[must_use]
pub const fn unzigzag(folded: u64) -> i64 {
    (folded >> 1) as i64 ^ -((folded & 1) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back() {
        let mut values: Vec<u64> = (0..64).flat_map(|b| [1 << b, (1 << b) - 1, u64::MAX >> b]).collect();
        values.push(0);
        let mut out = Vec::new();
        for &value in &values {
            put(&mut out, value);
            let mut room = [0xee; MAX_BYTES];
            let len = put_at(&mut room, value);
            assert!(out.ends_with(&room[..len]));
        }
        let mut rest = &out[..];
        for &value in &values {
            assert_eq!(take(&mut rest), Some(value));
            let signed = value as i64;
            assert_eq!(unzigzag(zigzag(signed)), signed);
        }
        assert_eq!(take(&mut rest), None);
    }

    #[test]
    fn short_numbers_without_branches_are_the_same() {
        let edges = (0..28).flat_map(|b| [1u32 << b, (1 << b) - 1, (1 << b) + 1, ((1 << 28) - 1) >> b]);
        for value in edges.chain(0..70_000) {
            let mut out = Vec::new();
            put(&mut out, u64::from(value));
            let len = out.len();
            for behind in [0, 0x5a, 0xff] {
                out.resize(4, behind);
                let bytes = u32::from_le_bytes(out[..4].try_into().unwrap());
                assert_eq!(gather(bytes), Some((value, len)));
                out.truncate(len);
            }
        }
        assert_eq!(gather(0x8080_8080), None);
    }

    #[test]
    fn endless_numbers_are_refused() {
        assert_eq!(take(&mut &[0x80; 30][..]), None);
        assert_eq!(take(&mut &[0x80; 3][..]), None);
    }
}
