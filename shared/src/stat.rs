//! The text of `/proc/PID/stat`. Nothing here allocates.

/// A field, by its number in `proc(5)`, from the third on. The command's name stands in parentheses and may hold anything, so
/// fields are counted from the last ')'.
#[must_use]
pub fn field(stat: &[u8], number: usize) -> Option<&[u8]> {
    let close = stat.iter().rposition(|&byte| byte == b')')?;
    stat[close..].trim_ascii_end().split(|&byte| byte == b' ').nth(number.checked_sub(2)?)
}

/// The same where it is a number.
#[must_use]
pub fn number(stat: &[u8], number: usize) -> Option<u64> {
    core::str::from_utf8(field(stat, number)?).ok()?.parse().ok()
}

/// The process's start, in clock ticks since boot.
#[must_use]
pub fn start_ticks(stat: &[u8]) -> Option<u64> {
    number(stat, 22)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_may_hold_anything() {
        let stat = b"7 (a) b (c) S 1 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4242 1 1\n";
        assert_eq!(
            (field(stat, 3), number(stat, 20), start_ticks(stat)),
            (Some(&b"S"[..]), Some(1), Some(4242))
        );
        assert_eq!((number(stat, 24), field(stat, 25), field(stat, 1)), (Some(1), None, None));
        for cut in 0..stat.len() {
            let _ = start_ticks(&stat[..cut]);
        }
        assert_eq!(start_ticks(b"7 (cut"), None);
    }
}
