//! Descriptors of the process, by number.

use super::syscall;

/// More than so many are not asked about one by one.
const MOST: u64 = 1024;

/// Whether a program that takes this process's place can open a file, though this process can't: one of its descriptors is
/// closed by then.
#[must_use]
pub fn is_room_in_program() -> bool {
    limit()
        .is_none_or(|limit| limit > MOST || (0..limit as usize).any(|fd| flags(fd) & libc::FD_CLOEXEC != 0))
}

/// How many descriptors there may be.
fn limit() -> Option<u64> {
    // SAFETY: `rlimit64` is plain data, for which zero bytes are valid.
    let mut now: libc::rlimit64 = unsafe { core::mem::zeroed() };
    let args = [0, libc::RLIMIT_NOFILE as usize, 0, &raw mut now as usize, 0, 0];
    // SAFETY: `now` is writable and of the size that the kernel writes; no new limit is given.
    unsafe { syscall(libc::SYS_prlimit64, args) }.ok()?;
    Some(now.rlim_cur)
}

/// The flags of a descriptor; one that is not open counts as one that will be closed.
fn flags(fd: usize) -> i32 {
    // SAFETY: no memory is involved.
    unsafe { syscall(libc::SYS_fcntl, [fd, libc::F_GETFD as usize, 0, 0, 0, 0]) }
        .map_or(libc::FD_CLOEXEC, |flags| flags as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_closed_makes_room() {
        let file = std::fs::File::open("/dev/null").expect("it is there");
        // Rust's files are closed on exec; the standard streams are not.
        assert_eq!(flags(std::os::fd::AsRawFd::as_raw_fd(&file) as usize), libc::FD_CLOEXEC);
        assert_eq!((flags(2), flags(1 << 20)), (0, libc::FD_CLOEXEC));
        assert!(is_room_in_program());
    }
}
