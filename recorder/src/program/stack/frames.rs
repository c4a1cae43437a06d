//! A thread's array of frames: in memory of its own, so that depth costs none of the program's stack.

use crate::heap;
use crate::sys::memory;
use core::ptr;

/// 8,192 frames at first; only touched pages cost memory.
const FIRST: usize = 64 << 10;

/// A growing array of node keys, leaf first. Zero bytes are an empty one.
#[repr(C)]
#[derive(Debug)]
pub struct Frames {
    base: *mut u64,
    bytes: usize,
    len: usize,
}

impl Frames {
    /// Empties it.
    #[inline(always)]
    pub const fn clear(&mut self) {
        self.len = 0;
    }

    /// Adds a frame further out. `None` without memory.
    #[inline(always)]
    pub fn push(&mut self, key: u64) -> Option<()> {
        if self.len * 8 >= self.bytes {
            self.grow()?;
        }
        // SAFETY: the array has room for it.
        unsafe { self.base.add(self.len).write(key) };
        self.len += 1;
        Some(())
    }

    /// The frames from the outermost to the leaf.
    #[inline(always)]
    pub fn outermost_first(&self) -> impl Iterator<Item = &u64> {
        let frames: &[u64] = if self.base.is_null() {
            &[]
        } else {
            // SAFETY: `len` frames were written.
            unsafe { core::slice::from_raw_parts(self.base, self.len) }
        };
        frames.iter().rev()
    }

    #[cold]
    #[inline(never)]
    fn grow(&mut self) -> Option<()> {
        let bytes = if self.bytes == 0 { FIRST } else { self.bytes * 2 };
        let base = heap::map_wiped(bytes)?.cast::<u64>();
        if !self.base.is_null() {
            // SAFETY: the new array is larger and apart; the old one is not used again.
            unsafe { ptr::copy_nonoverlapping(self.base, base, self.len) };
        }
        self.release_memory();
        (self.base, self.bytes) = (base, bytes);
        Some(())
    }

    fn release_memory(&mut self) {
        if !self.base.is_null() {
            // SAFETY: the array is ours, and is replaced or forgotten by the caller.
            let _ = unsafe { memory::unmap(self.base.cast(), self.bytes) };
        }
        (self.base, self.bytes) = (ptr::null_mut(), 0);
    }

    /// Gives the memory back.
    pub fn release(&mut self) {
        self.release_memory();
        self.len = 0;
    }
}
