//! This program's allocator: the system's, but large blocks lie on huge pages.
//!
//! An analysis looks at its tables in the order of the recorded program's addresses and stacks, that is, all over
//! the place. On pages of 4 KiB each look also searches for the page; tables of hundreds of MiB make that
//! search miss every cache, and each first touch of a page is a trap of its own.

use std::alloc::{GlobalAlloc, Layout, System};
use std::ptr::null_mut;

const HUGE_PAGE: usize = 2 << 20;
const PAGE: usize = 4096;
/// From here on a block gets a mapping of its own.
const LARGE: usize = 2 * HUGE_PAGE;

/// The allocator.
#[derive(Debug)]
pub struct Heap;

/// Whether a block is mapped.
const fn is_large(size: usize, align: usize) -> bool {
    size >= LARGE && size < isize::MAX as usize - 2 * HUGE_PAGE && align <= HUGE_PAGE
}

/// Bytes that a block's mapping has.
const fn mapped(size: usize) -> usize {
    size.next_multiple_of(PAGE)
}

/// Zero bytes at the start of a huge page; null where there are none.
fn map(size: usize) -> *mut u8 {
    let (size, wide) = (mapped(size), mapped(size) + HUGE_PAGE);
    let access = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: a fresh mapping, of which what lies around the block is given back.
    unsafe {
        let base = libc::mmap(null_mut(), wide, access, flags, -1, 0);
        if base == libc::MAP_FAILED {
            return null_mut();
        }
        let base = base.cast::<u8>();
        let before = base.addr().next_multiple_of(HUGE_PAGE) - base.addr();
        let block = base.add(before);
        if before > 0 {
            libc::munmap(base.cast(), before);
        }
        libc::munmap(block.add(size).cast(), HUGE_PAGE - before);
        libc::madvise(block.cast(), size, libc::MADV_HUGEPAGE);
        block
    }
}

/// Makes a mapped block another size without copying it; null, and nothing has changed, where that fails.
///
/// # Safety
/// `block` must come from [`map`] with size `old`. After a success it is gone.
unsafe fn remap(block: *mut u8, old: usize, new: usize) -> *mut u8 {
    let place = map(new);
    if place.is_null() {
        return place;
    }
    let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
    // SAFETY: the pages of our block move to a mapping of ours that nobody has seen.
    unsafe {
        let moved = libc::mremap(block.cast(), mapped(old), mapped(new), flags, place);
        if moved == libc::MAP_FAILED {
            libc::munmap(place.cast(), mapped(new));
            return null_mut();
        }
        place
    }
}

// SAFETY: each block is either the system allocator's or a mapping of its own; which of them follows from its layout alone.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if is_large(layout.size(), layout.align()) {
            return map(layout.size());
        }
        // SAFETY: passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if is_large(layout.size(), layout.align()) {
            return map(layout.size());
        }
        // SAFETY: passed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: by its layout the block is a mapping of ours, else the system's.
        unsafe {
            if is_large(layout.size(), layout.align()) {
                libc::munmap(block.cast(), mapped(layout.size()));
            } else {
                System.dealloc(block, layout);
            }
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let align = layout.align();
        // SAFETY: as in `dealloc`; the new layout is valid by the caller's promise.
        unsafe {
            match (is_large(layout.size(), align), is_large(size, align)) {
                (false, false) => System.realloc(block, layout, size),
                (true, true) => remap(block, layout.size(), size),
                _ => {
                    let new = Layout::from_size_align_unchecked(size, align);
                    let place = self.alloc(new);
                    if !place.is_null() {
                        place.copy_from_nonoverlapping(block, layout.size().min(size));
                        self.dealloc(block, layout);
                    }
                    place
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_keep_what_they_hold_in_any_size() {
        let sizes = [100, LARGE - 1, LARGE, 3 * LARGE + 77, LARGE + 5, 16 * LARGE, 4096, LARGE + 1, 1];
        let mut layout = Layout::from_size_align(50, 16).unwrap();
        // SAFETY: each block is used within its size, and with the layout that it has at the time.
        unsafe {
            let mut block = Heap.alloc(layout);
            for at in 0..50 {
                block.add(at).write(at as u8);
            }
            for size in sizes {
                let kept = layout.size().min(size).min(50);
                block = Heap.realloc(block, layout, size);
                layout = Layout::from_size_align(size, 16).unwrap();
                assert!(!block.is_null() && block.addr().is_multiple_of(16));
                assert!((0..kept).all(|at| block.add(at).read() == at as u8), "{size}");
                (0..size.min(50)).for_each(|at| block.add(at).write(at as u8));
                block.add(size - 1).write(if size <= 50 { size as u8 - 1 } else { 7 });
            }
            Heap.dealloc(block, layout);
        }
    }

    #[test]
    fn large_blocks_begin_huge_pages_and_zeroed_ones_are_zero() {
        for size in [LARGE, LARGE + 1, 5 * LARGE] {
            let layout = Layout::from_size_align(size, 8).unwrap();
            // SAFETY: the block is read within its size.
            unsafe {
                let block = Heap.alloc_zeroed(layout);
                assert!(block.addr().is_multiple_of(HUGE_PAGE));
                assert_eq!((block.read(), block.add(size - 1).read()), (0, 0));
                Heap.dealloc(block, layout);
            }
        }
    }

    #[test]
    fn what_there_is_no_memory_for_is_null() {
        let layout = Layout::from_size_align(1 << 60, 8).unwrap();
        // SAFETY: nothing is done with it.
        assert!(unsafe { Heap.alloc(layout) }.is_null());
    }
}
