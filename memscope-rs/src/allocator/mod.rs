//! The allocator that records all of Rust's allocations.
#![allow(unsafe_code)]

#[cfg(all(target_os = "linux", target_arch = "x86_64", target_env = "gnu"))]
#[path = "recording.rs"]
mod way;

#[cfg(not(all(target_os = "linux", target_arch = "x86_64", target_env = "gnu")))]
#[path = "forwarding.rs"]
mod way;

pub(crate) use way::{names, note};

use std::alloc::{GlobalAlloc, Layout};

/// A global allocator that records every allocation of the program's Rust code, as `memscope-cli run` does from outside: for
/// programs that cannot be preloaded, such as statically linked ones.
///
/// ```no_run
/// #[global_allocator]
/// static ALLOCATOR: memscope_rs::MemscopeAllocator = memscope_rs::MemscopeAllocator;
///
/// fn main() {
///     let numbers = vec![1, 2, 3]; // recorded, with its stack and its lifetime
///     assert_eq!(numbers.len(), 3);
/// }
/// ```
///
/// The memory itself comes from [`std::alloc::System`]. The recording begins with the program's first allocation and goes into
/// the directory that `MEMSCOPE_OUTPUT` names (`memscope-PROGRAM-PID` by default); the other variables of the interposer
/// hold as well: `MEMSCOPE_AUTO_EXPORT`, `MEMSCOPE_EXPORT_FORMAT`, `MEMSCOPE_EXPORT_PATH`, `MEMSCOPE_FOLLOW`, `MEMSCOPE_THREAD`,
/// `MEMSCOPE_QUIET`. `memscope-cli analyze DIRECTORY report.html` reads it, however the program ended.
///
/// In a program that runs with `libmemscope.so`, as under `memscope-cli run`, it only passes the calls on: that records them.
///
/// # What it cannot record
///
/// * What C and C++ code of the program allocates by `malloc` or `new`, and what the C library allocates itself.
/// * Anything on other systems than Linux with glibc on x86-64: there it only passes the calls on, and
///   [`init`](crate::init) says so.
#[derive(Clone, Copy, Debug, Default)]
pub struct MemscopeAllocator;

// SAFETY: every function does what the one of `System` does, or of the recorder's own heap for the recorder's own blocks.
unsafe impl GlobalAlloc for MemscopeAllocator {
    #[inline(always)]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises are passed on.
        unsafe { way::alloc(layout.size(), layout.align()) }
    }

    #[inline(always)]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises are passed on.
        unsafe { way::alloc_zeroed(layout.size(), layout.align()) }
    }

    #[inline(always)]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are passed on.
        unsafe { way::dealloc(block, layout.size(), layout.align()) }
    }

    #[inline(always)]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: the caller's promises are passed on.
        unsafe { way::realloc(block, layout.size(), layout.align(), new_size) }
    }
}
