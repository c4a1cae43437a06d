//! Which part of the current stack can be read.
//!
//! Unwind tables are right, but a walk can still run over the end of a stack: a coroutine's first frame that nobody
//! marked as the last, a stack that was overwritten, a frame pointer that was guessed and is none. An unwinder in a
//! debugger gets an error then; one in the program would kill it. So every page is asked about before it is first read:
//! [`Bounds`] is the range around the current rsp that is known to be readable.
//!
//! # The thread's own stack
//!
//! It lies below a known place ([`crate::sys::process::stack_top`]) without a gap, and stays where it is as long as the
//! thread runs. So what is readable from an rsp on it up to that place is asked for once ([`Own`]), and stays true
//! whatever the program maps and unmaps. Nothing above is ever read. Below it lies a guard page, where asking ends; once the program
//! has asked for stacks that have none ([`may_lack_guards`]), the new threads' are treated as other stacks are: a coroutine's could lie
//! right below, and go again.
//!
//! # Other stacks
//!
//! Those of coroutines and signal handlers may end anywhere, may lie next to anything, and may be unmapped between two
//! captures. There the range grows page by page, outwards as walks go further; each page costs one system call. On another
//! stack, or further in, it starts again. The range is believed again by later walks for the reads that any unwinder does by the
//! tables. A walk that guesses asks anew ([`Bounds::doubt`]), and so does the one after a walk that got lost
//! ([`Bounds::leave`]).

use crate::sys::memory::{self, PAGE};
use crate::sys::process;
use core::sync::atomic::{AtomicBool, Ordering, compiler_fence};

/// Longest stack that is asked about at once. A frame larger than that is not believed.
const FAR: usize = 64 << 20;

/// Whether threads that begin now may have a stack without a guard page.
static UNGUARDED: AtomicBool = AtomicBool::new(false);

/// The program makes, or may make, stacks without guard pages for threads that it starts from now on.
pub fn may_lack_guards() {
    UNGUARDED.store(true, Ordering::Relaxed);
}

/// Where the calling thread's own stack ends; 0 where nobody knows where it begins. The kernel guards the first thread's.
fn own_top() -> usize {
    if UNGUARDED.load(Ordering::Relaxed) && !process::is_first_thread() { 0 } else { process::stack_top() }
}

/// A range of readable memory around rsp; zero bytes are an empty one of a thread whose own stack is not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    start: usize,
    end: usize,
    own: Own,
}

/// What is known to belong to the thread's own stack.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Own {
    low: usize,
    /// Where it ends at the latest; 0 where that is not known.
    top: usize,
    /// Times that nothing is asked, after asking about so many pages has led nowhere.
    pause: usize,
}

const fn page(address: usize) -> usize {
    address & !(PAGE - 1)
}

impl Own {
    /// Whether everything from this rsp to the end of the own stack can be read.
    fn reaches_from(&mut self, sp: usize) -> bool {
        if sp >= self.top || self.low - sp.min(self.low) > FAR {
            return false;
        }
        if sp >= self.low {
            return true;
        }
        if self.pause > 0 {
            self.pause -= 1;
            return false;
        }
        let mut pages = (page(sp)..self.low).step_by(PAGE);
        let asked = pages.len();
        if !pages.all(memory::is_readable) {
            self.pause = asked - pages.len();
            return false;
        }
        self.low = page(sp);
        true
    }
}

impl Bounds {
    /// Finds out where the calling thread's own stack ends.
    pub fn know_own(&mut self) {
        let top = own_top();
        *self = Self { start: 0, end: 0, own: Own { low: top, top, pause: 0 } };
    }

    /// Whether the calling thread is the one whose stack is known.
    #[must_use]
    pub fn is_of_thread(&self) -> bool {
        self.own.top == own_top()
    }

    /// Whether the range is the thread's own stack: what was read in it can be read as long as rsp is there.
    #[must_use]
    pub const fn is_own(&self) -> bool {
        self.own.top != 0 && self.start == self.own.low && self.end == self.own.top
    }

    /// Whether the word at an address lies in the range.
    #[must_use]
    pub const fn has(&self, address: usize) -> bool {
        address >= self.start && address < self.end && self.end - address >= 8
    }

    /// The walk starts at this rsp, or goes on there. Its page is readable if the address is a thread's rsp.
    #[inline(always)]
    pub fn enter(&mut self, sp: usize) {
        // No trick with one comparison: where the range is empty, the start may be any.
        if sp < self.start || sp >= self.end {
            self.enter_new(sp);
        }
    }

    #[cold]
    fn enter_new(&mut self, sp: usize) {
        // The empty range first: a signal handler may jump out between.
        self.set_end(0);
        if self.own.reaches_from(sp) {
            self.start = self.own.low;
            self.set_end(self.own.top);
        } else if memory::is_readable(page(sp)) {
            self.start = page(sp);
            self.set_end(page(sp) + PAGE);
        }
    }

    /// From this rsp on the walk reads what no unwinder needs to: of a stack that may end anywhere, nothing is known but
    /// what is asked now.
    pub fn doubt(&mut self, sp: usize) {
        if !self.is_own() {
            self.enter_new(sp);
        }
    }

    /// A walk got lost: what it has found readable need not be part of the stack.
    pub fn leave(&mut self) {
        if !self.is_own() {
            self.set_end(0);
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
        if address < self.start || last - self.end > FAR || self.end == 0 || self.is_own() {
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
        // Further in, then on another stack.
        bounds.enter(base + 8);
        assert_eq!((bounds.start, bounds.end), (base, base + PAGE));
        assert_eq!(bounds.below(base + 6 * PAGE), Some(0));
        bounds.enter(base + 7 * PAGE);
        assert_eq!((bounds.start, bounds.end), (base + 7 * PAGE, base + 8 * PAGE));
        bounds.enter(base + 6 * PAGE + 8);
        assert_eq!(bounds.end, 0);
        assert_eq!(bounds.read(base + 7 * PAGE + 8), None);
        assert_eq!(bounds.below(base + 7 * PAGE + 16), None);
    }

    #[test]
    fn a_doubtful_walk_asks_anew() {
        let base = memory::map_private(4 * PAGE).unwrap() as usize;
        let mut bounds = Bounds::default();
        bounds.enter(base + 16);
        assert_eq!(bounds.read(base + 3 * PAGE), Some(0));
        // SAFETY: the page is ours.
        unsafe { memory::unmap((base + 3 * PAGE) as *mut u8, PAGE).unwrap() };
        bounds.doubt(base + 16);
        assert_eq!(bounds.read(base + 3 * PAGE), None);
        assert_eq!(bounds.read(base + 3 * PAGE - 8), Some(0));
        bounds.leave();
        assert_eq!(bounds.end, 0);
        bounds.enter(base + PAGE);
        assert_eq!(bounds.read(base + 2 * PAGE), Some(0));
    }

    #[test]
    fn the_own_stack_ends_where_the_thread_begins() {
        let mut bounds = Bounds::default();
        bounds.know_own();
        let (here, top) = (&raw const bounds as usize, bounds.own.top);
        bounds.enter(here);
        assert!(bounds.is_own() && bounds.is_of_thread() && bounds.has(here) && here < top);
        assert_eq!((bounds.start, bounds.end), (page(here), top));
        assert!(bounds.read(top - 8).is_some());
        assert_eq!(bounds.read(top), None);
        // Elsewhere, and back again.
        let base = memory::map_private(4 * PAGE).unwrap() as usize;
        bounds.enter(base + PAGE);
        assert!(!bounds.is_own() && !bounds.has(here) && bounds.has(base + PAGE));
        bounds.enter(here);
        assert!(bounds.is_own());
        bounds.leave();
        bounds.doubt(here);
        assert!(bounds.is_own());
    }

    /// Below the own stack, with a gap between: it is asked about once for as many times as that took pages.
    #[test]
    fn what_leads_nowhere_is_not_asked_for_again_soon() {
        let base = memory::map_private(8 * PAGE).unwrap() as usize;
        // SAFETY: the page is ours.
        unsafe { memory::unmap((base + 5 * PAGE) as *mut u8, PAGE).unwrap() };
        let top = base + 8 * PAGE - 64;
        let mut own = Own { low: top, top, pause: 0 };
        assert!(!own.reaches_from(base + 2 * PAGE + 8));
        assert_eq!(own.pause, 4);
        assert!(!own.reaches_from(base + 7 * PAGE + 8));
        assert_eq!(own.pause, 3);
        own.pause = 0;
        assert!(own.reaches_from(base + 6 * PAGE + 8));
        assert_eq!(own, Own { low: base + 6 * PAGE, top, pause: 0 });
        assert!(!own.reaches_from(top) && !own.reaches_from(base + 5 * PAGE));
    }
}
