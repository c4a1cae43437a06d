//! Where the recorder cannot run: the calls are passed on.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicBool, Ordering};

static USED: AtomicBool = AtomicBool::new(false);

fn layout(size: usize, align: usize) -> Layout {
    // SAFETY: both come from a layout.
    unsafe { Layout::from_size_align_unchecked(size, align) }
}

pub unsafe fn alloc(size: usize, align: usize) -> *mut u8 {
    USED.store(true, Ordering::Relaxed);
    // SAFETY: the caller's promises.
    unsafe { System.alloc(layout(size, align)) }
}

pub unsafe fn alloc_zeroed(size: usize, align: usize) -> *mut u8 {
    // SAFETY: the caller's promises.
    unsafe { System.alloc_zeroed(layout(size, align)) }
}

pub unsafe fn dealloc(block: *mut u8, size: usize, align: usize) {
    // SAFETY: the caller's promises.
    unsafe { System.dealloc(block, layout(size, align)) }
}

pub unsafe fn realloc(block: *mut u8, size: usize, align: usize, new_size: usize) -> *mut u8 {
    // SAFETY: the caller's promises.
    unsafe { System.realloc(block, layout(size, align), new_size) }
}

/// Nothing is recorded here, so no names are either.
pub fn names() -> Option<(usize, usize)> {
    None
}

/// What is to be said at the start.
pub fn note() -> Option<&'static str> {
    USED.load(Ordering::Relaxed).then_some(
        "MemscopeAllocator records only on Linux with glibc on x86-64: allocations are not recorded",
    )
}
