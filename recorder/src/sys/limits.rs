//! Resource limits of the calling process.

use super::{memory, process, syscall};

/// The limit of the size of files that is in force; `u64::MAX` where there is none.
#[must_use]
pub fn of_file_sizes() -> u64 {
    of(libc::RLIMIT_FSIZE)
}

/// How many files may be open; `u64::MAX` where nothing limits that.
#[must_use]
pub fn of_descriptors() -> u64 {
    of(libc::RLIMIT_NOFILE)
}

/// Bytes that the process may still map and write to; `u64::MAX` where nothing limits that.
#[must_use]
pub fn room_in_memory() -> u64 {
    let (space, data) = (of(libc::RLIMIT_AS), of(libc::RLIMIT_DATA));
    if space.min(data) == u64::MAX {
        return u64::MAX;
    }
    let used = process::memory();
    used.map_or(u64::MAX, |used| space.saturating_sub(used.space).min(data.saturating_sub(used.data)))
}

fn of(resource: u32) -> u64 {
    let mut limit = [0_u64; 2];
    let args = [0, resource as usize, 0, limit.as_mut_ptr() as usize, 0, 0];
    // SAFETY: `limit` is writable and of the size that the kernel writes.
    match unsafe { syscall(libc::SYS_prlimit64, args) } {
        Ok(_) => limit[0],
        Err(_) => u64::MAX,
    }
}

/// The limit that would be in force after a call with this argument of the program's, which may be anywhere; `None` where it is nowhere.
#[must_use]
pub fn wanted(address: usize) -> Option<u64> {
    let mut limit = [0; 8];
    (memory::copy(address, &mut limit) == limit.len()).then(|| u64::from_ne_bytes(limit))
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read() {
        // SAFETY: `rlimit` is plain data, for which zero bytes are valid.
        let mut now: libc::rlimit = unsafe { core::mem::zeroed() };
        // SAFETY: `now` is writable.
        assert_eq!(unsafe { libc::getrlimit(libc::RLIMIT_FSIZE, &raw mut now) }, 0);
        assert_eq!(of_file_sizes(), now.rlim_cur);
        now.rlim_cur = 4711;
        assert_eq!(wanted(&raw const now as usize), Some(4711));
        assert_eq!(wanted(8), None);
    }
}
