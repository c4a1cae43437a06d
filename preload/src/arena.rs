//! The bootstrap arena: memory for `dlsym` while it looks for the real `malloc`.
//!
//! `dlsym` may call `calloc` (for its error text, for its thread's state), and free that much later. Blocks
//! from here are known by their address; freeing them does nothing.

use core::cell::UnsafeCell;
use core::ffi::c_void;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicUsize, Ordering};

const SIZE: usize = 64 << 10;
const LARGEST_ALIGN: usize = 4096;
/// In front of each block: its size.
const HEADER: usize = 16;

#[repr(C, align(4096))]
struct Arena(UnsafeCell<[u8; SIZE]>);

// SAFETY: blocks are handed out once, by an atomic counter.
unsafe impl Sync for Arena {}

static ARENA: Arena = Arena(UnsafeCell::new([0; SIZE]));
static USED: AtomicUsize = AtomicUsize::new(0);

/// True while nothing has been taken from the arena, which is usual.
#[inline(always)]
pub fn is_unused() -> bool {
    USED.load(Ordering::Relaxed) == 0
}

/// True for addresses of the arena.
#[inline(always)]
pub fn contains(block: *const c_void) -> bool {
    (block as usize).wrapping_sub(ARENA.0.get() as usize) < SIZE
}

/// A zeroed block, or null where the arena is used up or the alignment is none.
pub fn allocate(size: usize, align: usize) -> *mut c_void {
    let align = align.max(HEADER);
    if size > SIZE || align > LARGEST_ALIGN || !align.is_power_of_two() {
        return null_mut();
    }
    let take = |used: usize| {
        let start = (used + HEADER).next_multiple_of(align);
        (start + size <= SIZE).then(|| (start + size).next_multiple_of(HEADER))
    };
    match USED.fetch_update(Ordering::AcqRel, Ordering::Acquire, take) {
        Ok(used) => {
            let start = (used + HEADER).next_multiple_of(align);
            let block = (ARENA.0.get() as usize + start) as *mut c_void;
            // SAFETY: the counter gave this range to us alone, header included.
            unsafe { block.cast::<usize>().sub(1).write(size) };
            block
        }
        Err(_) => null_mut(),
    }
}

/// Size of a block of the arena.
///
/// # Safety
/// `block` came from [`allocate`].
pub unsafe fn size(block: *const c_void) -> usize {
    // SAFETY: the size stands in front of the block.
    unsafe { block.cast::<usize>().sub(1).read() }
}

/// A block of another size with the same contents.
///
/// # Safety
/// `block` came from [`allocate`].
pub unsafe fn reallocate(block: *mut c_void, new_size: usize, fresh: *mut c_void) -> *mut c_void {
    if !fresh.is_null() {
        // SAFETY: both blocks have that many bytes.
        unsafe { fresh.cast::<u8>().copy_from_nonoverlapping(block.cast(), size(block).min(new_size)) };
    }
    fresh
}
