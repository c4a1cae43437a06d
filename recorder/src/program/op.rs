//! One recorded call: from the entry of the hook to its return.

use super::slow::{self, StreamSink};
use super::stack::{Entry, StackState};
use super::thread::ThreadState;
use super::{birth, tls};
use crate::clock;
use memscope_shared::record::{Name, head, kind};

/// A call of the allocator that is to be recorded. While it lives, calls that the allocator makes itself
/// are not recorded again. Dropped also when an exception passes through the hook.
#[derive(Debug)]
pub struct Op {
    state: *mut ThreadState,
    /// Where the caller's return address and frame pointer are.
    sp: usize,
    bp: usize,
    /// What the thread's TLS word was, where this call runs on a nested state.
    restore: usize,
}

impl Op {
    /// Begins a call. `sp` is the address of the hook's return address, `bp` the caller's frame pointer. `None`:
    /// this call is not to be recorded.
    ///
    /// # Safety
    /// `sp` and `bp` are those with which the program entered the hook.
    #[inline(always)]
    #[must_use]
    pub unsafe fn begin(sp: usize, bp: usize) -> Option<Self> {
        let word = tls::get();
        if tls::is_state(word) {
            let state = word as *mut ThreadState;
            // SAFETY: the TLS word is 0, OURS, PASSED_ON or the address of this thread's state.
            unsafe {
                if (*state).guard.load(core::sync::atomic::Ordering::Relaxed) == 0 {
                    ThreadState::set_guard(state, sp);
                    return Some(Self { state, sp, bp, restore: 0 });
                }
            }
        } else if word != 0 {
            return None;
        }
        // SAFETY: as promised by the caller.
        let (state, restore) = unsafe { birth::begin_cold(word, sp, bp) }?;
        Some(Self { state, sp, bp, restore })
    }

    /// The call is one of an allocator's own `operator new`, which is at this address; 0: of something else.
    #[inline(always)]
    pub(super) fn calls_operator(&self, real: usize) {
        // SAFETY: the calling thread's own state.
        unsafe { (*self.state).operator = real };
    }

    /// The address that the hook returns to.
    #[inline(always)]
    #[must_use]
    pub fn return_address(&self) -> usize {
        // SAFETY: `sp` is the address of the return address, which stays there until the hook returns.
        unsafe { *(self.sp as *const usize) }
    }

    /// A block has come to life: `size` bytes at `address`.
    #[inline(always)]
    pub fn allocated(&self, address: usize, size: usize) {
        // SAFETY: we hold the guard of our own state.
        unsafe { self.start(kind::ALLOC, kind::ALLOC_LARGE, address, size) }
    }

    /// `realloc` has returned a block.
    #[inline(always)]
    pub fn reallocated(&self, address: usize, size: usize) {
        // SAFETY: we hold the guard of our own state.
        unsafe { self.start(kind::REALLOC_MOVED, kind::REALLOC_MOVED_LARGE, address, size) }
    }

    /// A block is about to be freed.
    #[inline(always)]
    pub fn freeing(&self, address: usize) {
        // SAFETY: we hold the guard of our own state.
        unsafe { self.short(kind::FREE, address, clock::stamp()) }
    }

    /// A block is about to be reallocated. Returns the stamp, for [`Op::realloc_freed`].
    #[inline(always)]
    #[must_use]
    pub fn reallocating(&self, address: usize) -> u64 {
        let stamp = clock::stamp();
        // SAFETY: we hold the guard of our own state.
        unsafe { self.short(kind::REALLOC_BEGIN, address, stamp) };
        stamp
    }

    /// The `realloc` freed the block and returned null.
    #[cold]
    pub fn realloc_freed(&self, address: usize, stamp: u64) {
        // SAFETY: we hold the guard of our own state.
        unsafe { self.short(kind::REALLOC_FREED, address, stamp) }
    }

    /// The `realloc` failed: the block lives on.
    #[cold]
    pub fn realloc_failed(&self, address: usize) {
        // SAFETY: we hold the guard of our own state.
        unsafe { self.short(kind::REALLOC_FAILED, address, clock::stamp()) }
    }

    /// An allocation failed.
    #[cold]
    pub fn failed(&self) {
        // SAFETY: we hold the guard of our own state.
        unsafe { self.short(kind::FAILED, 0, clock::stamp()) }
    }

    /// True where something can be recorded now.
    #[must_use]
    pub fn ready(&self) -> bool {
        // SAFETY: we hold the guard of our own state.
        unsafe { slow::ready(self.state) }
    }

    /// Records a name; false where that can't be.
    #[cold]
    #[must_use]
    pub fn define(&self, name: &Name<'_>) -> bool {
        // SAFETY: we hold the guard of our own state; a name's record is shorter than an empty buffer.
        unsafe { slow::put_long(self.state, name.words(), |put| name.encode(put)) }
    }

    /// The block at (or, with a reach, around) an address belongs to the variable with this name.
    pub fn named(&self, address: usize, reach: u32, id: u32) {
        let words =
            [head(kind::NAMED, address as u64), clock::stamp(), u64::from(reach) << 32 | u64::from(id)];
        // SAFETY: we hold the guard of our own state.
        unsafe {
            if slow::ready(self.state) {
                ThreadState::put(self.state, words);
            }
        }
    }

    /// The dynamic loader called the hook to free a block: it may be unloading a library.
    #[cold]
    pub fn loader_freed(&self) {
        // SAFETY: we hold the guard of our own state.
        unsafe {
            if slow::ready(self.state) {
                super::stack::check_unloaded(&mut StreamSink::new(self.state));
            }
        }
    }

    #[inline(always)]
    unsafe fn short(&self, kind: u8, address: usize, stamp: u64) {
        // SAFETY: the guard is held, so this thread alone writes into the state's buffer.
        unsafe { slow::put_short(self.state, [head(kind, address as u64), stamp]) }
    }

    #[inline(always)]
    unsafe fn start(&self, small: u8, large: u8, address: usize, size: usize) {
        let stamp = clock::stamp();
        let entry = Entry { sp: self.sp, bp: self.bp };
        // SAFETY: as above; `sp` and `bp` are the hook's caller's.
        unsafe {
            slow::start(self.state, [small, large], address, size, stamp, |stack, sink| {
                StackState::capture(stack, entry, sink)
            });
        }
    }
}

impl Drop for Op {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: we hold the guard of our own state.
        unsafe { ThreadState::set_guard(self.state, 0) };
        if self.restore != 0 {
            tls::set(self.restore);
        }
    }
}
