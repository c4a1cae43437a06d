//! `/proc/self/maps`, read without allocation: which memory is executable, and which file lies where.
//!
//! For the cold cases only: code that belongs to no module, and module look-ups on a C library without
//! `_dl_find_object`.

use crate::sys::file::File;
use crate::sys::memory;

const BUFFER: usize = 16 << 10;

/// One mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping<'a> {
    /// First address.
    pub start: usize,
    /// First address behind it.
    pub end: usize,
    /// Readable.
    pub readable: bool,
    /// Executable.
    pub executable: bool,
    /// Offset in the file.
    pub offset: usize,
    /// Inode of the file, 0 where there is none.
    pub inode: usize,
    /// Path or name, possibly empty, cut where it is very long.
    pub path: &'a [u8],
}

/// Calls `visit` with every mapping in order of address until it returns false. False where they can't be read.
#[cold]
pub fn visit(mut visit: impl FnMut(&Mapping<'_>) -> bool) -> bool {
    let (Ok(file), Ok(base)) = (File::read_only(c"/proc/self/maps"), memory::map_private(BUFFER)) else {
        return false;
    };
    // SAFETY: a fresh mapping of that length, unmapped only below.
    let buffer = unsafe { core::slice::from_raw_parts_mut(base, BUFFER) };
    let complete = visit_lines(
        buffer,
        |into| file.read(into).unwrap_or(0),
        |line| match parse(line) {
            Some(mapping) => visit(&mapping),
            None => true,
        },
    );
    // SAFETY: nobody uses the buffer any more.
    let _ = unsafe { memory::unmap(base, BUFFER) };
    complete
}

/// Cuts what `read` gives into lines. A line longer than half the buffer is cut.
fn visit_lines(
    buffer: &mut [u8],
    mut read: impl FnMut(&mut [u8]) -> usize,
    mut visit: impl FnMut(&[u8]) -> bool,
) -> bool {
    let (mut filled, mut any) = (0, false);
    loop {
        let got = buffer.get_mut(filled..).map_or(0, &mut read);
        filled += got;
        any |= got > 0;
        let mut start = 0;
        while let Some(rest) = buffer.get(start..filled) {
            let Some(length) = rest.iter().position(|&byte| byte == b'\n') else { break };
            if rest.get(..length).is_some_and(|line| !visit(line)) {
                return true;
            }
            start += length + 1;
        }
        if got == 0 {
            return any;
        }
        buffer.copy_within(start..filled, 0);
        filled -= start;
        if filled > buffer.len() / 2 {
            // A path this long: what matters stands at its start.
            filled = 128;
        }
    }
}

fn parse(line: &[u8]) -> Option<Mapping<'_>> {
    let mut at = line;
    let start = hex(&mut at, b'-')?;
    let end = hex(&mut at, b' ')?;
    let (flags, rest) = at.split_at_checked(5)?;
    at = rest;
    let offset = hex(&mut at, b' ')?;
    let device = at.iter().position(|&byte| byte == b' ')?;
    at = at.get(device + 1..)?;
    let digits = at.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(at.len());
    let (digits, rest) = at.split_at_checked(digits)?;
    let inode = digits.iter().fold(0_usize, |sum, &digit| {
        sum.wrapping_mul(10).wrapping_add(usize::from(digit.wrapping_sub(b'0')))
    });
    let name = rest.iter().position(|&byte| byte != b' ').unwrap_or(rest.len());
    Some(Mapping {
        start,
        end,
        readable: flags.first() == Some(&b'r'),
        executable: flags.get(2) == Some(&b'x'),
        offset,
        inode,
        path: rest.get(name..)?,
    })
}

fn hex(at: &mut &[u8], until: u8) -> Option<usize> {
    let length = at.iter().position(|&byte| byte == until)?;
    let mut value = 0_usize;
    for &byte in at.get(..length)? {
        value = value << 4 | (byte as char).to_digit(16)? as usize;
    }
    *at = at.get(length + 1..)?;
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_parsed() {
        let line = b"7f00a000-7f00c000 r-xp 0001f000 08:01 1234567                    /lib/with a space.so";
        let expected = Mapping {
            start: 0x7f00_a000,
            end: 0x7f00_c000,
            readable: true,
            executable: true,
            offset: 0x1f000,
            inode: 1_234_567,
            path: b"/lib/with a space.so",
        };
        assert_eq!(parse(line), Some(expected));
        assert_eq!(parse(b"7f00a000-7f00c000 rw-p 00000000 00:00 0 ").map(|m| m.path.len()), Some(0));
        assert_eq!(parse(b"7f00a000-7f00"), None);
    }

    #[test]
    fn this_function_is_executable_and_this_word_is_not() {
        let (code, data) = (parse as *const () as usize, &raw const MARKER as usize);
        let mut found = 0;
        let done = visit(|mapping| {
            for address in [code, data] {
                if (mapping.start..mapping.end).contains(&address) {
                    assert_eq!(mapping.executable, address == code);
                    found += 1;
                }
            }
            true
        });
        assert!(done && found == 2);
    }

    static MARKER: u8 = 0;

    #[test]
    fn long_lines_and_short_reads() {
        let mut text = Vec::new();
        for i in 0..50 {
            text.extend_from_slice(format!("{i:x}000-{:x}000 r--p 0 0:0 1 /", i + 1).as_bytes());
            text.extend(core::iter::repeat_n(b'x', i * 30));
            text.push(b'\n');
        }
        let mut input = text.as_slice();
        let mut buffer = [0; 512];
        let mut lines = 0;
        let read = |into: &mut [u8]| {
            let n = into.len().min(input.len()).min(97);
            let (now, later) = input.split_at(n);
            into[..n].copy_from_slice(now);
            input = later;
            n
        };
        visit_lines(&mut buffer, read, |line| {
            assert_eq!(parse(line).map(|mapping| mapping.start), Some(lines << 12));
            lines += 1;
            true
        });
        assert_eq!(lines, 50);
    }
}
