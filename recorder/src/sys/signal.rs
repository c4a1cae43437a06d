//! Blocking signals for a short while.

use super::{seal, syscall, syscall_past_seal};

/// Blocks every signal of the calling thread until dropped.
#[derive(Debug)]
pub struct Blocked {
    /// The mask to go back to; `None` where nothing was blocked.
    before: Option<u64>,
}

impl Blocked {
    /// Blocks all signals, that by which glibc cancels a thread (32) among them: the thread would end inside of what it does
    /// undisturbed. Only 33 stays open: `setuid` in a threaded program waits for every thread to answer it, and its
    /// handler makes one system call and returns.
    #[must_use]
    pub fn all() -> Self {
        let mask = !(1_u64 << 32);
        Self { before: if seal::forbids() { None } else { set_mask(mask) } }
    }
}

impl Blocked {
    /// Opens them in a child that was forked meanwhile.
    pub fn lift(&self) {
        if let Some(mask) = self.before {
            set_mask(mask);
        }
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

impl Drop for Blocked {
    fn drop(&mut self) {
        if let Some(mask) = self.before {
            set_mask(mask);
        }
    }
}

/// Also where another thread has sealed this one off since a mask was changed: it is not to keep that.
fn set_mask(mask: u64) -> Option<u64> {
    if cfg!(loom) {
        // A model's threads are one to the kernel.
        return None;
    }
    let mut before = 0_u64;
    let args = [libc::SIG_SETMASK as usize, &raw const mask as usize, &raw mut before as usize, 8, 0, 0];
    // SAFETY: both masks are valid for the 8 bytes that the kernel reads and writes.
    unsafe { syscall_past_seal(libc::SYS_rt_sigprocmask, args) }.ok().map(|_| before)
}
