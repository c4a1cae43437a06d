//! Waiting for a word in memory to change. The words may lie in memory shared with other processes.

use super::time;
#[cfg(not(loom))]
use super::{Errno, syscall};
use crate::sync::atomic::{AtomicU32, Ordering};
use core::time::Duration;

/// A model knows no time: every wait ends, as if a moment later.
#[cfg(loom)]
pub fn wait(_word: &AtomicU32, _expected: u32, _timeout: Duration) {
    super::process::yield_now();
}

/// Wakes nobody: in a model nobody sleeps.
#[cfg(loom)]
pub const fn wake(_word: &AtomicU32, _count: i32) {}

/// Waits while `*word == expected`, until woken or `timeout` has passed. Wakes may be spurious.
#[cfg(not(loom))]
pub fn wait(word: &AtomicU32, expected: u32, timeout: Duration) {
    let time =
        libc::timespec { tv_sec: timeout.as_secs() as i64, tv_nsec: i64::from(timeout.subsec_nanos()) };
    let args = [
        word.as_ptr() as usize,
        libc::FUTEX_WAIT as usize,
        expected as usize,
        &raw const time as usize,
        0,
        0,
    ];
    // SAFETY: the word and the timespec are valid for the whole call.
    let _: Result<usize, Errno> = unsafe { syscall(libc::SYS_futex, args) };
}

/// Waits until `*word` is another than `unwanted`, at most for `patience`.
pub fn wait_while(word: &AtomicU32, unwanted: u32, patience: Duration) {
    let deadline = time::monotonic_ns() + patience.as_nanos() as u64;
    while word.load(Ordering::Acquire) == unwanted {
        let now = time::monotonic_ns();
        if now >= deadline {
            return;
        }
        wait(word, unwanted, Duration::from_nanos(deadline - now));
    }
}

/// Wakes up to `count` waiters.
#[cfg(not(loom))]
pub fn wake(word: &AtomicU32, count: i32) {
    let args = [word.as_ptr() as usize, libc::FUTEX_WAKE as usize, count as usize, 0, 0, 0];
    // SAFETY: the word is valid; waking reads nothing.
    let _: Result<usize, Errno> = unsafe { syscall(libc::SYS_futex, args) };
}
