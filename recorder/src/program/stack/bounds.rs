//! Which part of the current stack can be read.
//!
//! Unwind tables are right, but a walk can still run over the end of a stack: a coroutine's first frame that nobody
//! marked as the last, a stack that was overwritten. An unwinder in a debugger gets an error then; one in the program
//! would kill it. So every page is asked about before it is first read: [`Bounds`] is the range around the current rsp
//! that is known to be readable. It grows page by page, outwards as walks go further, and downwards as the stack gets
//! deeper; each page costs one system call, once. On another stack it starts again.
//!
//! Stacks don't shrink under the thread that runs on them, so what is known stays true while rsp is in the range. A
//! stack that was unmapped and mapped again elsewhere is left by rsp, and forgotten.

use crate::sys::memory::{self, PAGE};
use core::sync::atomic::{Ordering, compiler_fence};

/// Farthest move of rsp that is taken for the same stack.
const NEAR: usize = 256 << 10;
/// Longest stack that is asked about at once. A frame larger than that is not believed.
const FAR: usize = 64 << 20;

/// A range of readable memory around rsp; zero bytes are an empty one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    start: usize,
    end: usize,
}

const fn page(address: usize) -> usize {
    address & !(PAGE - 1)
}

impl Bounds {
    /// The walk starts at this rsp, or goes on there. Its page is readable if the address is a thread's rsp.
    #[inline(always)]
    pub fn enter(&mut self, sp: usize) {
        if sp.wrapping_sub(self.start) >= self.end.wrapping_sub(self.start) {
            self.enter_new(sp);
        }
    }

    #[cold]
    fn enter_new(&mut self, sp: usize) {
        let below = self.start.wrapping_sub(sp) < NEAR;
        if below && (page(sp)..self.start).step_by(PAGE).all(memory::is_readable) {
            self.start = page(sp);
            return;
        }
        // The empty range first: a signal handler may jump out between.
        self.set_end(0);
        if memory::is_readable(page(sp)) {
            self.start = page(sp);
            self.set_end(page(sp) + PAGE);
        }
    }

    fn set_end(&mut self, end: usize) {
        compiler_fence(Ordering::SeqCst);
        self.end = end;
        compiler_fence(Ordering::SeqCst);
    }

    /// The word at an address above the current rsp.
    #[inline(always)]
    pub fn read(&mut self, address: usize) -> Option<usize> {
        // Both ends of the word: a wrapped sum is below the start.
        let last = address.wrapping_add(8);
        if address < self.start || last > self.end || last < 8 {
            self.extend(address)?;
        }
        // SAFETY: the word lies in memory that the kernel has said to be readable.
        Some(unsafe { (address as *const usize).read_unaligned() })
    }

    /// Whether the word below `cfa`, which must be above the rsp that was entered, is known to be readable.
    #[inline(always)]
    #[must_use]
    pub const fn covers(&self, cfa: usize) -> bool {
        cfa <= self.end
    }

    /// The word below `cfa`, which must be above the rsp that was entered.
    #[inline(always)]
    pub fn below(&mut self, cfa: usize) -> Option<usize> {
        if cfa > self.end {
            return self.below_far(cfa);
        }
        // SAFETY: the word lies between rsp, the start of the range, and the end of what can be read.
        Some(unsafe { (cfa as *const usize).sub(1).read_unaligned() })
    }

    #[cold]
    fn below_far(&mut self, cfa: usize) -> Option<usize> {
        self.read(cfa.wrapping_sub(8))
    }

    #[cold]
    fn extend(&mut self, address: usize) -> Option<()> {
        let last = address.checked_add(8)?;
        if address < self.start || last - self.end > FAR || self.end == 0 {
            return None;
        }
        while self.end < last {
            if !memory::is_readable(self.end) {
                return None;
            }
            self.end += PAGE;
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_stop_at_the_end_of_the_mapping() {
        let base = memory::map_private(8 * PAGE).unwrap() as usize;
        // SAFETY: the pages are ours.
        unsafe { memory::unmap((base + 6 * PAGE) as *mut u8, PAGE).unwrap() };
        let mut bounds = Bounds::default();
        bounds.enter(base + 3 * PAGE + 16);
        assert_eq!(bounds.read(base + 3 * PAGE + 16), Some(0));
        assert_eq!(bounds.read(base + 6 * PAGE - 8), Some(0));
        assert_eq!(bounds.read(base + 6 * PAGE - 4), None);
        assert_eq!(bounds.read(base + 7 * PAGE), None);
        assert_eq!(bounds.read(usize::MAX - 3), None);
        assert_eq!(bounds.read(base), None);
        // Deeper on the same stack, then on another one.
        bounds.enter(base + 8);
        assert_eq!(bounds, Bounds { start: base, end: base + 6 * PAGE });
        bounds.enter(base + 7 * PAGE);
        assert_eq!(bounds, Bounds { start: base + 7 * PAGE, end: base + 8 * PAGE });
        bounds.enter(base + 6 * PAGE + 8);
        assert_eq!(bounds.end, 0);
        assert_eq!(bounds.read(base + 7 * PAGE + 8), None);
        assert_eq!(bounds.below(base + 7 * PAGE + 16), None);
    }
}
