//! The atomics that program threads and writer meet at, and what else a model of them has to see.
//!
//! In an ordinary build this is `core::sync::atomic`, and everything else here is empty. With `--cfg loom` (see
//! `model`) the same code runs on atomics that loom watches: it tries the orders in which the threads can
//! meet, and for each load the values that the memory model allows.

/// `core::sync::atomic`, or loom's.
pub mod atomic {
    #[cfg(not(loom))]
    pub use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize};
    pub use core::sync::atomic::{Ordering, compiler_fence};

    #[cfg(loom)]
    pub use super::model::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize};
}

#[cfg(loom)]
pub mod model;

/// The calling thread is writing these words, which are no atomics.
#[cfg(not(loom))]
#[inline(always)]
pub const fn writes(_at: *const u64, _words: usize) {}

/// The calling thread is reading these words, which are no atomics.
#[cfg(not(loom))]
#[inline(always)]
pub const fn reads(_at: *const u64, _words: usize) {}

#[cfg(loom)]
pub use model::{reads, writes};

#[cfg(loom)]
impl memscope_shared::spool::role::Word for atomic::AtomicU32 {
    fn get(&self) -> u32 {
        self.load(atomic::Ordering::Acquire)
    }
    fn set(&self, value: u32) {
        self.store(value, atomic::Ordering::Release);
    }
    fn replace(&self, from: u32, to: u32) -> bool {
        self.compare_exchange(from, to, atomic::Ordering::AcqRel, atomic::Ordering::Acquire).is_ok()
    }
}
