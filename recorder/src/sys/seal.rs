//! The seal: once the program restricts its own system calls (seccomp), none of ours may be made on its
//! threads, since any of them may be what kills it.
//!
//! All our calls go through [`super::syscall`], which asks here first. What is sealed off fails as if the
//! kernel had refused it, and the callers get along without it. Our own thread is exempt: it has no filter (one
//! that is to hold for all threads ends it first). Statics, so that a forked child, which has the filter
//! too, is sealed from its first instruction.

use core::arch::asm;
use core::sync::atomic::{AtomicUsize, Ordering};

/// Filters that are in force or about to be.
static FILTERS: AtomicUsize = AtomicUsize::new(0);
/// Thread pointer of our thread; 0 where there is none.
static OUR_THREAD: AtomicUsize = AtomicUsize::new(0);

/// Seals the program's threads off for one filter more.
pub fn close() {
    FILTERS.fetch_add(1, Ordering::SeqCst);
}

/// Takes one [`close`] back, whose filter was refused; true where no other filter is left.
#[must_use]
pub fn reopen() -> bool {
    FILTERS.fetch_sub(1, Ordering::SeqCst) == 1
}

/// True where the calling thread must not make system calls of ours.
#[inline(always)]
#[must_use]
pub fn forbids() -> bool {
    FILTERS.load(Ordering::Relaxed) != 0 && !is_our_thread()
}

/// The calling thread is ours, and its thread pointer this one.
pub fn is_ours(thread_pointer: usize) {
    OUR_THREAD.store(thread_pointer, Ordering::SeqCst);
}

/// True on our own thread.
#[must_use]
pub fn is_our_thread() -> bool {
    let pointer: usize;
    // SAFETY: the first word of every thread's control block is its own address.
    unsafe {
        asm!("mov {}, qword ptr fs:[0]", out(reg) pointer, options(nostack, preserves_flags, readonly));
    }
    pointer == OUR_THREAD.load(Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_thread_is_exempt() {
        assert!(!is_our_thread());
        assert!(!forbids());
    }
}
