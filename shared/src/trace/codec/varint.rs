//! Numbers in 1 to 10 bytes: 7 bits a byte, low bits first, the top bit says that more follow.

/// Appends `value`.
#[inline(always)]
pub fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Takes a number from the front of `bytes`; `None` where it is cut or longer than 10 bytes.
#[inline(always)]
pub fn take(bytes: &mut &[u8]) -> Option<u64> {
    let (&first, rest) = bytes.split_first()?;
    if first < 0x80 {
        *bytes = rest;
        return Some(u64::from(first));
    }
    take_long(bytes)
}

#[inline]
fn take_long(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for (i, &byte) in bytes.iter().enumerate().take(10) {
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
    fn endless_numbers_are_refused() {
        assert_eq!(take(&mut &[0x80; 30][..]), None);
        assert_eq!(take(&mut &[0x80; 3][..]), None);
    }
}
