//! Blocking signals for a short while.

use super::syscall;

/// Blocks every signal of the calling thread until dropped.
#[derive(Debug)]
pub struct Blocked {
    before: u64,
}

impl Blocked {
    /// Blocks all signals, that by which glibc cancels a thread (32) among them: the thread would end inside of what it does
    /// undisturbed. Only 33 stays open: `setuid` in a threaded program waits for every thread to answer it, and its
    /// handler makes one system call and returns.
    #[must_use]
    pub fn all() -> Self {
        let mask = !(1_u64 << 32);
        Self { before: set_mask(libc::SIG_SETMASK, mask).unwrap_or(0) }
    }
}

impl Blocked {
    /// Opens them in a child that was forked meanwhile.
    pub fn lift(&self) {
        set_mask(libc::SIG_SETMASK, self.before);
    }

    /// Takes back a signal that a call of ours has raised for this thread.
    pub fn discard(&self, signal: i32) {
        let only = 1_u64 << (signal - 1);
        let now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        let args = [&raw const only as usize, 0, &raw const now as usize, 8, 0, 0];
        // SAFETY: mask and time are valid for the call; no information is asked for.
        let _ = unsafe { syscall(libc::SYS_rt_sigtimedwait, args) };
    }
}

/// Signals that an instruction of the thread's own raises: blocked, they would kill the process past its handlers.
const OWN: [i32; 6] = [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL, libc::SIGTRAP, libc::SIGSYS];

/// Blocks all signals that come from outside, until [`reopen`] is given the mask that this returns. `None` where that fails.
#[must_use]
pub fn hold() -> Option<u64> {
    let own = OWN.iter().fold(1_u64 << 32, |mask, signal| mask | 1 << (signal - 1));
    set_mask(libc::SIG_BLOCK, !own)
}

/// Sets the mask that was before [`hold`].
pub fn reopen(mask: u64) {
    set_mask(libc::SIG_SETMASK, mask);
}

impl Drop for Blocked {
    fn drop(&mut self) {
        set_mask(libc::SIG_SETMASK, self.before);
    }
}

fn set_mask(how: i32, mask: u64) -> Option<u64> {
    if cfg!(loom) {
        // A model's threads are one to the kernel.
        return None;
    }
    let mut before = 0_u64;
    let args = [how as usize, &raw const mask as usize, &raw mut before as usize, 8, 0, 0];
    // SAFETY: both masks are valid for the 8 bytes that the kernel reads and writes.
    unsafe { syscall(libc::SYS_rt_sigprocmask, args) }.ok().map(|_| before)
}
